"""Intervals, whitening, feature pools, probes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarep_jax.encoders.features import compute_features, fit_whitening, over_views
from metarep_jax.evaluate import (
    Interval,
    chosen_l2,
    feature_pool,
    interval,
    interval_over_seeds,
    linear_probe,
    nearest_neighbours,
    probe_hits,
    split_examples,
)
from metarep_jax.types import Pool


def test_interval_is_1_96_standard_errors():
    values = [0.0, 100, 50, 50]
    found = interval(values)
    assert found.mean == 50
    assert found.ci95 == pytest.approx(1.96 * np.std(values, ddof=1) / 2)
    assert found.n == 4
    assert interval([3.0]).ci95 is None
    with pytest.raises(ValueError, match="at least one"):
        interval([])


def test_seeds_are_averaged_with_the_wider_of_the_intervals_over_episodes_and_of_student():
    alike = interval_over_seeds([Interval(90.0, 0.3, 100), Interval(90.0, 0.4, 100)])
    np.testing.assert_allclose([alike.mean, alike.ci95, alike.n], [90.0, 0.25, 200])
    apart = interval_over_seeds([Interval(mean, 0.3, 100) for mean in (88.0, 90.0, 92.0)])
    np.testing.assert_allclose([apart.mean, apart.ci95], [90.0, 4.3027 * 2 / 3**0.5], rtol=1e-4)


def test_more_seeds_on_the_same_examples_do_not_narrow_the_interval():
    found = interval_over_seeds([Interval(90.0, 0.3, 100), Interval(90.0, 0.4, 100)], one_test=True)
    np.testing.assert_allclose([found.mean, found.ci95, found.n], [90.0, 0.35, 100])
    apart = [Interval(mean, 0.3, 100) for mean in (88.0, 90.0, 92.0)]
    assert interval_over_seeds(apart, one_test=True).ci95 == pytest.approx(interval_over_seeds(apart).ci95)


@pytest.mark.parametrize(("power", "exponent"), [(0.5, 0.0), (0.25, 0.5), (0.0, 1.0)])
def test_whitening_raises_the_spectrum_to_its_power(power, exponent):
    rows = jax.random.normal(jax.random.key(0), (500, 3)) * jnp.array([1.0, 2, 4]) + 5
    whitened = fit_whitening(rows, power=power)(rows)
    np.testing.assert_allclose(whitened.mean(0), 0, atol=1e-4)
    before = np.linalg.eigvalsh(np.cov(rows, rowvar=False))
    after = np.linalg.eigvalsh(np.cov(whitened, rowvar=False))
    np.testing.assert_allclose(after, before**exponent, rtol=1e-3)


@pytest.mark.parametrize("batch", [2, 3, 7, 100])
def test_features_do_not_depend_on_the_batch(batch):
    rows = jnp.arange(14.0).reshape(7, 2)
    np.testing.assert_array_equal(compute_features(lambda x: 2 * x, rows, batch=batch), 2 * rows)


def moved(keys, images):
    """Each image times a number of its key."""
    return images * jax.vmap(lambda key: jax.random.uniform(key, (), minval=1, maxval=5))(keys)[:, None]


def test_averaged_features_are_the_mean_direction_over_the_same_views_of_every_image():
    rows, key = jnp.arange(1.0, 9.0).reshape(4, 2), jax.random.key(3)
    embed = lambda x: x + jnp.array([0.0, 1.0])  # noqa: E731
    found = over_views(embed, moved, 3, key)(rows)
    factors = [1.0, *(float(jax.random.uniform(k, (), minval=1, maxval=5)) for k in jax.random.split(key, 3))]
    views = [np.asarray(embed(factor * rows)) for factor in factors]
    want = np.mean([view / np.linalg.norm(view, axis=1, keepdims=True) for view in views], 0)
    np.testing.assert_allclose(found, want, rtol=1e-5)
    np.testing.assert_allclose(over_views(embed, moved, 3, key)(rows[2:]), found[2:], rtol=1e-6)


def test_no_views_leave_the_direction_and_fewer_are_refused():
    rows = jnp.array([[3.0, 4.0]])
    np.testing.assert_allclose(over_views(lambda x: x, moved, 0, jax.random.key(0))(rows), [[0.6, 0.8]], rtol=1e-6)
    with pytest.raises(ValueError, match="-1"):
        over_views(lambda x: x, moved, -1, jax.random.key(0))


def test_feature_pool_holds_each_quarter_turn_as_a_class():
    images = jax.random.randint(jax.random.key(1), (4, 3, 3, 1), 0, 255).astype(jnp.uint8)
    pool = Pool(images, jnp.array([0, 0, 1, 1]), jnp.array([[0, 1], [2, 3]]), jnp.array([2, 2]))
    turned = feature_pool(lambda x: x.reshape(len(x), -1).astype(jnp.float32), pool, rotations=True)
    assert turned.inputs.shape == (16, 9)
    assert turned.members.shape == (8, 2)
    # class 1 turned once is class 2 + 1; its second member is image 3 turned once
    row = turned.members[3, 1]
    np.testing.assert_array_equal(turned.inputs[row], np.rot90(images[3, ..., 0]).ravel())
    assert turned.label[row] == 3


def test_probes_are_perfect_on_separable_features_and_at_chance_on_noise():
    key = jax.random.key(2)
    label = jnp.arange(200) % 4
    clear = jax.nn.one_hot(label, 4) + 0.05 * jax.random.normal(key, (200, 4))
    noise = jax.random.normal(key, (200, 4))
    for probe in (linear_probe, nearest_neighbours):
        assert probe(clear[:100], label[:100], clear[100:], label[100:]).mean == 100
        assert probe(noise[:100], label[:100], noise[100:], label[100:]).mean == pytest.approx(25, abs=13)


def test_a_penalty_is_chosen_that_does_best_on_folds_left_out():
    """Of 40 directions one tells the classes apart, and weakly; 30 rows can tell them by the others by chance."""
    label, random = jnp.arange(30) % 2, jax.random.normal(jax.random.key(0), (30, 40))
    features = random.at[:, 0].add(2.0 * label)
    fold = jnp.arange(30) // 10
    strengths = (1e-3, 1e3)

    def right(l2):
        out = [fold == one for one in range(3)]
        return sum(probe_hits(features[~o], label[~o], features[o], label[o], l2=l2).sum() for o in out)

    assert chosen_l2(features, label, fold, strengths=strengths) == max(strengths[::-1], key=right)
    assert right(strengths[0]) != right(strengths[1])
    assert chosen_l2(jnp.zeros((30, 2)), label, fold, strengths=strengths) == 1e3  # of equals the strongest
    with pytest.raises(ValueError, match="2 folds or more"):
        chosen_l2(features, label, 0 * fold)


def test_nearest_neighbour_votes_are_weighted_by_similarity():
    train = jnp.array([[1.0, 0], [0, 1], [0, 1]])
    label = jnp.array([0, 1, 1])
    query = jnp.array([[1.0, 0.1]])
    assert nearest_neighbours(train, label, query, jnp.array([0]), k=3).mean == 100


def test_split_examples_is_disjoint_and_holds_every_class():
    members = jnp.array([[0, 1, 2, 3], [4, 5, 5, 5]])
    pool = Pool(jnp.zeros((6, 1)), jnp.array([0, 0, 0, 0, 1, 1]), members, jnp.array([4, 2]))
    train, test = split_examples(pool, jax.random.key(3))
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(6))
    assert set(pool.label[train].tolist()) == set(pool.label[test].tolist()) == {0, 1}
    with pytest.raises(ValueError, match="between 0 and 1"):
        split_examples(pool, jax.random.key(3), test_share=1.0)
