"""Episodes: distinct, disjoint, uniform, for classes of any sizes, under quarter turns; and what is refused."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarep_jax.data import check_episode_spec, pool_of_arrays, sample_episodes
from metarep_jax.data.tasks import episodes as module
from metarep_jax.data.tasks.episodes import distinct, draws, quarter_turns
from metarep_jax.types import EpisodeSpec

SIZES = (4, 9, 5, 7, 6, 4, 8)


def chi_square(counts):
    """The statistic against uniform counts, in standard deviations above its mean."""
    counts = np.asarray(counts, float).ravel()
    expected = counts.sum() / counts.size
    return (np.sum((counts - expected) ** 2 / expected) - (counts.size - 1)) / np.sqrt(2 * (counts.size - 1))


@pytest.fixture(scope="module")
def pool():
    """Row r's image holds r in one corner, so that rows and turns can be read from images; labels are mixed."""
    label = np.random.default_rng(0).permutation(np.repeat(np.arange(len(SIZES)), SIZES))
    images = np.zeros((len(label), 3, 3, 1), np.uint8)
    images[:, 0, 0, 0] = np.arange(len(label)) + 1
    return pool_of_arrays(images, label)


@partial(jax.jit, static_argnames=("spec", "count"))
def sampled(key, pool, spec, count):
    return jax.vmap(partial(sample_episodes, pool=pool, spec=spec))(jax.random.split(key, count))


def many(pool, spec, count=300, seed=0):
    return jax.device_get(sampled(jax.random.key(seed), pool, spec, count))


def rows_of(images):
    return images.reshape(*images.shape[:-3], -1).max(-1).astype(int) - 1


def test_the_table_of_members_lists_every_row_once(pool):
    pool = jax.device_get(pool)
    found = [pool.members[c, : pool.count[c]] for c in range(len(SIZES))]
    assert [len(rows) for rows in found] == list(SIZES)
    assert sorted(np.concatenate(found)) == list(range(sum(SIZES)))
    for c, rows in enumerate(found):
        assert (pool.label[rows] == c).all()


def test_an_episode_repeats_nothing_and_its_labels_are_true_to_the_classes(pool):
    spec = EpisodeSpec(way=5, shot=1, query=3)
    found = many(pool, spec)
    support, query = rows_of(found.support.inputs), rows_of(found.query.inputs)
    assert all(len(set(rows)) == 20 for rows in np.concatenate([support, query], axis=1))
    classes = np.asarray(pool.label)[support].reshape(-1, 5)
    assert all(len(set(row)) == 5 for row in classes)
    np.testing.assert_array_equal(np.asarray(pool.label)[query], np.repeat(classes, 3, axis=1))
    np.testing.assert_array_equal(found.query.label[0], np.repeat(np.arange(5), 3))
    assert found.support.inputs.dtype == np.uint8


@pytest.mark.parametrize("scored", [2048, 0])
def test_classes_their_order_and_examples_are_uniform(pool, scored, monkeypatch):
    monkeypatch.setattr(module, "SCORED", scored)  # both ways of drawing
    jax.clear_caches()
    found = many(pool, EpisodeSpec(way=2, shot=1, query=1), count=4000, seed=1)
    label = np.asarray(pool.label)
    support, query = rows_of(found.support.inputs), rows_of(found.query.inputs)
    pairs = np.zeros((7, 7))
    np.add.at(pairs, tuple(label[support].T), 1)
    assert pairs.diagonal().sum() == 0
    assert chi_square(pairs[~np.eye(7, dtype=bool)]) < 4
    for c in range(7):
        within = np.zeros((sum(SIZES), sum(SIZES)))
        chosen = label[support] == c
        np.add.at(within, (support[chosen], query[chosen]), 1)
        members = np.flatnonzero(label == c)
        within = within[np.ix_(members, members)]
        assert chi_square(within[~np.eye(len(members), dtype=bool)]) < 4


@pytest.mark.parametrize("most", [7, 5000])
def test_drawing_all_there_is_gives_every_order_of_it(most):
    bits = np.random.default_rng(2).integers(0, 2**32, (3000, draws(4, most)), np.uint32)
    found = np.asarray(jax.jit(jax.vmap(lambda bits: distinct(bits, 4, jnp.int32(4), most)))(bits))
    assert (np.sort(found, axis=1) == np.arange(4)).all()
    _, counts = np.unique(found, axis=0, return_counts=True)
    assert len(counts) == 24
    assert chi_square(counts) < 4


def test_a_key_decides_and_mapping_does_not_matter(pool):
    spec = EpisodeSpec(way=5, shot=1, query=3)
    alone = jax.jit(partial(sample_episodes, pool=pool, spec=spec))(jax.random.split(jax.random.key(0), 300)[7])
    jax.tree.map(np.testing.assert_array_equal, alone, jax.tree.map(lambda leaf: leaf[7], many(pool, spec)))


def test_quarter_turns_are_those_of_rot90():
    images = np.arange(4 * 2 * 9).reshape(4, 2, 3, 3, 1)
    turned = np.asarray(jax.jit(quarter_turns)(images, np.arange(4)))
    for turn in range(4):
        np.testing.assert_array_equal(turned[turn], np.rot90(images[turn], turn, axes=(1, 2)))


def corner(images):
    """The turn of each image, by where its marked corner went."""
    marks = [(0, 0), (2, 0), (2, 2), (0, 2)]
    return np.argmax([images[..., y, x, 0] > 0 for y, x in marks], axis=0)


def test_random_rotations_turn_each_class_of_an_episode_as_one(pool):
    found = many(pool, EpisodeSpec(way=5, shot=1, query=3, rotations="random"))
    support, query = corner(found.support.inputs), corner(found.query.inputs)
    np.testing.assert_array_equal(np.repeat(support, 3, axis=1), query)
    assert chi_square(np.bincount(support.ravel(), minlength=4)) < 4
    assert any(len(set(row)) > 1 for row in support)


def test_with_rotations_as_classes_every_turn_of_a_class_is_one_of_four_times_as_many(pool):
    found = many(pool, EpisodeSpec(way=20, shot=1, query=1, rotations="classes"))
    classes = np.asarray(pool.label)[rows_of(found.support.inputs)] + 7 * corner(found.support.inputs)
    assert all(len(set(row)) == 20 for row in classes)
    assert chi_square(np.bincount(classes.ravel(), minlength=28)) < 4
    np.testing.assert_array_equal(corner(found.support.inputs), corner(found.query.inputs))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (EpisodeSpec(way=8, shot=1, query=1), ["8 ways", "7", "train split"]),
        (EpisodeSpec(way=29, shot=1, query=1, rotations="classes"), ["29 ways", "28"]),
        (EpisodeSpec(way=2, shot=5, query=1), ["'a'", "4 images", "5-shot", "1 queries", "need 6", "3 classes"]),
    ],
)
def test_an_episode_that_the_pool_cannot_give_is_refused_with_the_counts(pool, spec, words):
    with pytest.raises(ValueError, match="split") as refused:
        check_episode_spec(pool, spec, "abcdefg", "train")
    for word in words:
        assert word in str(refused.value)


def test_rotations_of_images_that_are_not_square_are_refused():
    pool = pool_of_arrays(np.zeros((4, 2, 3, 1), np.uint8), np.array([0, 0, 1, 1]))
    with pytest.raises(ValueError, match="square"):
        check_episode_spec(pool, EpisodeSpec(2, 1, 1, "random"))
    with pytest.raises(ValueError, match="square"):
        jax.eval_shape(partial(sample_episodes, spec=EpisodeSpec(2, 1, 1, "random")), jax.random.key(0), pool)


def test_a_pool_refuses_values_that_are_not_finite_and_labels_that_do_not_fit():
    images = np.zeros((4, 2), np.float32)
    images[2, 1] = np.nan
    with pytest.raises(ValueError, match=r"1 of 4 .* row 2"):
        pool_of_arrays(images, np.arange(4))
    with pytest.raises(ValueError, match="least value -1"):
        pool_of_arrays(np.zeros((2, 2), np.float32), np.array([-1, 0]))
    with pytest.raises(ValueError, match="integers"):
        pool_of_arrays(np.zeros((2, 2), np.float32), np.array([0.0, 1.0]))


def test_a_pool_may_have_classes_without_examples_and_none_at_all():
    pool = pool_of_arrays(np.zeros((2, 3), np.uint8), np.array([0, 2]), classes=4)
    np.testing.assert_array_equal(pool.count, [1, 0, 1, 0])
    empty = pool_of_arrays(np.zeros((0, 3), np.uint8), np.zeros(0, np.int32))
    assert empty.count.shape == (0,)
    assert empty.inputs.shape == (0, 3)
