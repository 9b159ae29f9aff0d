"""Intervals, whitening, feature pools, probes."""

import functools

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
    rows = (np.random.default_rng(0).standard_normal((500, 3)) * [1, 2, 4] + 5).astype(np.float32)
    whitened = np.asarray(jax.jit(lambda rows: fit_whitening(rows, power=power)(rows))(rows))
    np.testing.assert_allclose(whitened.mean(0), 0, atol=1e-4)
    before = np.linalg.eigvalsh(np.cov(rows, rowvar=False))
    after = np.linalg.eigvalsh(np.cov(whitened, rowvar=False))
    np.testing.assert_allclose(after, before**exponent, rtol=1e-3)


@pytest.mark.parametrize("batch", [2, 3, 7, 100])
def test_features_do_not_depend_on_the_batch(batch):
    rows = np.arange(14, dtype=np.float32).reshape(7, 2)
    found = jax.jit(lambda rows: compute_features(lambda x: 2 * x, rows, batch=batch))(rows)
    np.testing.assert_array_equal(found, 2 * rows)


@jax.jit
def moved(keys, images):
    """Each image times a number of its key."""
    return images * jax.vmap(lambda key: jax.random.uniform(key, (), minval=1, maxval=5))(keys)[:, None]


def test_averaged_features_are_the_mean_direction_over_the_same_views_of_every_image():
    rows, key = np.arange(1, 9, dtype=np.float32).reshape(4, 2), jax.random.key(3)
    embed = lambda x: x + np.array([0, 1], np.float32)  # noqa: E731
    averaged = jax.jit(lambda rows: over_views(embed, moved, 3, key)(rows))
    found = np.asarray(averaged(rows))
    factors = [1.0, *moved(jax.random.split(key, 3), np.ones((3, 1), np.float32))[:, 0]]
    views = [np.asarray(embed(factor * rows)) for factor in factors]
    want = np.mean([view / np.linalg.norm(view, axis=1, keepdims=True) for view in views], 0)
    np.testing.assert_allclose(found, want, rtol=1e-5)
    np.testing.assert_allclose(averaged(rows[2:]), found[2:], rtol=1e-6)


def test_no_views_leave_the_direction_and_fewer_are_refused():
    rows = jnp.array([[3.0, 4.0]])
    averaged = jax.jit(lambda rows: over_views(lambda x: x, moved, 0, jax.random.key(0))(rows))
    np.testing.assert_allclose(averaged(rows), [[0.6, 0.8]], rtol=1e-6)
    with pytest.raises(ValueError, match="-1"):
        over_views(lambda x: x, moved, -1, jax.random.key(0))


def test_feature_pool_holds_each_quarter_turn_as_a_class():
    images = np.random.default_rng(1).integers(0, 255, (4, 3, 3, 1), np.uint8)
    pool = Pool(images, np.array([0, 0, 1, 1]), np.array([[0, 1], [2, 3]]), np.array([2, 2]))
    turn = jax.jit(lambda pool: feature_pool(lambda x: x.reshape(len(x), -1).astype(jnp.float32), pool, rotations=True))
    turned = jax.tree.map(np.asarray, turn(pool))
    assert turned.inputs.shape == (16, 9)
    assert turned.members.shape == (8, 2)
    # class 1 turned once is class 2 + 1; its second member is image 3 turned once
    row = turned.members[3, 1]
    np.testing.assert_array_equal(turned.inputs[row], np.rot90(images[3, ..., 0]).ravel())
    assert turned.label[row] == 3


def test_probes_are_perfect_on_separable_features_and_at_chance_on_noise():
    label, noise = np.arange(200) % 4, np.random.default_rng(2).standard_normal((200, 4))
    clear = np.eye(4)[label] + 0.05 * noise
    clear, noise, label = map(jnp.asarray, (clear.astype(np.float32), noise.astype(np.float32), label))
    for probe in (linear_probe, nearest_neighbours):
        assert probe(clear[:100], label[:100], clear[100:], label[100:]).mean == 100
        assert probe(noise[:100], label[:100], noise[100:], label[100:]).mean == pytest.approx(25, abs=13)


def test_a_penalty_is_chosen_that_does_best_on_folds_left_out():
    """Of 40 directions one tells the classes apart, and weakly; 30 rows can tell them by the others by chance."""
    label, features = np.arange(30) % 2, np.random.default_rng(0).standard_normal((30, 40)).astype(np.float32)
    features[:, 0] += 2 * label
    fold, strengths = np.arange(30) // 10, (1e-3, 1e3)

    @functools.cache
    def right(l2):
        out = [fold == one for one in range(3)]
        parts = [map(jnp.asarray, (features[~o], label[~o], features[o], label[o])) for o in out]
        return sum(probe_hits(*each, l2=l2).sum() for each in parts)

    def chosen(features, fold):
        return chosen_l2(*map(jnp.asarray, (features, label, fold)), strengths=strengths)

    assert chosen(features, fold) == max(strengths[::-1], key=right)
    assert right(strengths[0]) != right(strengths[1])
    assert chosen(np.zeros((30, 2), np.float32), fold) == 1e3  # of equals the strongest
    with pytest.raises(ValueError, match="2 folds or more"):
        chosen(features, 0 * fold)


def test_nearest_neighbour_votes_are_weighted_by_similarity():
    train = jnp.array([[1.0, 0], [0, 1], [0, 1]])
    label = jnp.array([0, 1, 1])
    query = jnp.array([[1.0, 0.1]])
    assert nearest_neighbours(train, label, query, jnp.array([0]), k=3).mean == 100


def test_split_examples_is_disjoint_and_holds_every_class():
    members = jnp.array([[0, 1, 2, 3], [4, 5, 5, 5]])
    inputs, label = np.zeros((6, 1), np.float32), np.array([0, 0, 0, 0, 1, 1])
    pool = Pool(jnp.asarray(inputs), jnp.asarray(label), members, jnp.array([4, 2]))
    train, test = map(np.asarray, split_examples(pool, jax.random.key(3)))
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(6))
    assert set(label[train].tolist()) == set(label[test].tolist()) == {0, 1}
    with pytest.raises(ValueError, match="between 0 and 1"):
        split_examples(pool, jax.random.key(3), test_share=1.0)
