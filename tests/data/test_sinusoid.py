"""The sampler of sinusoids: its ranges, its functions, and the feed's slices."""

from functools import cache

import jax
import numpy as np
import pytest

from metarep_jax.data.tasks.sinusoid_tasks import (
    Sinusoid,
    SinusoidSpec,
    inputs_of,
    sample_sinusoid,
    sample_task,
    sinusoid_feed,
)

KEY = jax.random.key(0)


@cache
def tasks(spec, count=400):
    draw = jax.jit(lambda key: jax.vmap(lambda key: sample_task(key, spec))(jax.random.split(key, count)))
    return jax.device_get(draw(KEY))


def test_amplitude_and_phase_fill_their_ranges_and_do_not_go_together():
    found = jax.device_get(jax.jit(lambda key: jax.vmap(sample_sinusoid)(jax.random.split(key, 4000)))(KEY))
    for values, low, high in ((found.amplitude, 0.1, 5.0), (found.phase, 0.0, np.pi)):
        assert low <= values.min() < low + 0.02 * (high - low) and high - 0.02 * (high - low) < values.max() <= high
        np.testing.assert_allclose(values.mean(), (low + high) / 2, rtol=0.02)
    assert abs(np.corrcoef(found.amplitude, found.phase)[0, 1]) < 0.05


def test_points_lie_in_the_range_and_on_the_function():
    """A told task names its own amplitude and phase, so that its targets can be computed again."""
    found = tasks(SinusoidSpec(shot=5, query=7, told=True))
    assert found.support.inputs.shape == (400, 5, 3) and found.query.label.shape == (400, 7, 1)
    for part in found:
        x, amplitude, phase = np.moveaxis(part.inputs, -1, 0)
        assert -5 <= x.min() < -4.9 and 4.9 < x.max() <= 5
        np.testing.assert_allclose(part.label[..., 0], amplitude * np.sin(x - phase), atol=1e-5)
        np.testing.assert_array_equal(amplitude, amplitude[:, :1].repeat(amplitude.shape[1], 1))


def test_the_same_key_gives_the_same_task_and_told_changes_the_inputs_alone():
    plain, told = tasks(SinusoidSpec(5, 7)), tasks(SinusoidSpec(5, 7, told=True))
    again = tasks.__wrapped__(SinusoidSpec(5, 7))
    jax.tree.map(np.testing.assert_array_equal, plain, again)
    np.testing.assert_array_equal(plain.support.inputs[..., 0], told.support.inputs[..., 0])
    np.testing.assert_array_equal(plain.query.label, told.query.label)
    assert plain.support.inputs.shape == (400, 5, 1)
    assert len(np.unique(plain.support.label)) > 1990


def test_more_queries_leave_the_support_as_it_is():
    few, many = tasks(SinusoidSpec(5, 1)), tasks(SinusoidSpec(5, 50))
    jax.tree.map(np.testing.assert_array_equal, few.support, many.support)


def test_a_sinusoid_is_zero_at_its_phase_and_highest_a_quarter_later():
    sinusoid = Sinusoid(np.float32(2.0), np.float32(0.5))
    highest = jax.jit(lambda sinusoid, x: sinusoid(x))(sinusoid, np.array([0.5, 0.5 + np.pi / 2]))
    np.testing.assert_allclose(highest, [0.0, 2.0], atol=1e-6)
    told = jax.jit(inputs_of, static_argnums=2)(sinusoid, np.array([[3.0]]), True)
    np.testing.assert_array_equal(told, [[3.0, 2.0, 0.5]])


def test_shards_hold_the_slices_of_one_global_batch():
    feed = sinusoid_feed(SinusoidSpec(3, 2), 6)
    compiled = jax.jit(feed.draw, static_argnums=4)

    def draw(*given):
        return jax.device_get(compiled(*given))

    whole = draw(feed.pool, KEY, 4, 0, 1)
    parts = [draw(feed.pool, KEY, 4, shard, 3) for shard in range(3)]
    jax.tree.map(lambda one, *rest: np.testing.assert_array_equal(one, np.concatenate(rest)), whole, *parts)
    assert not np.isin(draw(feed.pool, KEY, 5, 0, 1).support.label, whole.support.label).any()


@pytest.mark.parametrize("spec", [{"shot": 0}, {"query": -1}])
def test_a_task_without_points_is_refused(spec):
    with pytest.raises(ValueError, match=next(iter(spec))):
        SinusoidSpec(**spec)


def test_a_batch_without_tasks_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        sinusoid_feed(SinusoidSpec(), 0)
