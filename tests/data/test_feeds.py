"""Feeds: epochs without repeats, batches that do not depend on shards, partners, turns and views."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarep_jax.data import augmented_feed, batch_feed, episode_feed, pool_of_arrays, with_classmates, with_partners
from metarep_jax.data.permutation import ROUNDS, permute
from metarep_jax.types import EpisodeSpec, Feed

ROOT = jax.random.key(3)
TWO_EACH = np.arange(24).reshape(12, 2) % 12


@pytest.fixture(scope="module")
def pool():
    """Twelve rows, three of each class; row r's image holds r+1 in one corner."""
    images = np.zeros((12, 3, 3, 1), np.uint8)
    images[:, 0, 0, 0] = np.arange(12) + 1
    return pool_of_arrays(images, np.repeat(np.arange(4), 3))


def batches(feed, steps, shards=1):
    draw = jax.jit(lambda step, shard: feed.draw(feed.pool, ROOT, step, shard, shards))
    parts = [[draw(step, shard) for shard in range(shards)] for step in range(steps)]
    return [jax.tree.map(lambda *leaves: np.concatenate(leaves), *part) for part in parts]


def bits(*shape):
    return np.random.default_rng(3).integers(0, 2**32, shape, np.uint32)


@pytest.mark.parametrize("rows", [1, 2, 7, 16, 1000])
def test_a_permutation_permutes(rows):
    keys = np.tile(bits(2 * ROUNDS), (rows, 1))
    found = jax.jit(permute, static_argnums=2)(np.arange(rows, dtype=np.uint32), keys, rows)
    assert sorted(found.tolist()) == list(range(rows))


def test_permutations_under_many_keys_are_as_random_ones():
    keys = bits(6000, 2 * ROUNDS)
    places = jax.jit(permute, static_argnums=2)
    found = [np.asarray(places(np.full(6000, place, np.uint32), keys, 7)) for place in (0, 1)]
    pairs = np.zeros((7, 7))
    np.add.at(pairs, tuple(found), 1)
    off = pairs[~np.eye(7, dtype=bool)]
    statistic = np.sum((off - off.mean()) ** 2 / off.mean())
    assert (statistic - 41) / np.sqrt(82) < 4


@pytest.mark.parametrize("size", [4, 5, 12, 30])
def test_every_epoch_shows_every_row_once_in_an_order_of_its_own(pool, size):
    steps = 60 // size
    index = np.concatenate([batch["index"] for batch in batches(batch_feed(pool, size), steps)])
    epochs = index[: len(index) // 12 * 12].reshape(-1, 12)
    assert (np.sort(epochs, axis=1) == np.arange(12)).all()
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs)


def test_a_batch_holds_the_rows_that_its_index_names(pool):
    (batch,) = batches(batch_feed(pool, 6), 1)
    np.testing.assert_array_equal(batch["inputs"], np.asarray(pool.inputs)[batch["index"]])
    np.testing.assert_array_equal(batch["label"], np.asarray(pool.label)[batch["index"]])


def test_the_global_batch_does_not_depend_on_the_shards(pool):
    spec = EpisodeSpec(2, 1, 1, "random")
    feeds = [
        batch_feed(with_partners(pool, 2)._replace(partner=jnp.asarray(TWO_EACH)), 8, rotations=True),
        augmented_feed(episode_feed(pool, spec, 8), noise),
    ]
    for feed in feeds:
        jax.tree.map(np.testing.assert_array_equal, batches(feed, 2), batches(feed, 2, shards=4))


def test_partners_are_at_first_the_rows_themselves(pool):
    for batch in batches(batch_feed(with_partners(pool, 3), 6, rotations=True), 3):
        np.testing.assert_array_equal(batch["partner"], batch["inputs"])


def test_each_of_a_rows_partners_is_drawn_as_often(pool):
    partner = jnp.stack([(jnp.arange(12) + 1) % 12, (jnp.arange(12) + 5) % 12], axis=1)
    feed = batch_feed(with_partners(pool, 2)._replace(partner=partner), 600)
    (batch,) = batches(feed, 1)
    ahead = (batch["partner"][:, 0, 0, 0].astype(int) - 1 - batch["index"]) % 12
    assert set(ahead) == {1, 5}
    assert abs(np.sum(ahead == 1) - 300) < 4 * np.sqrt(150)


def test_classmates_are_images_of_the_same_class_in_equal_shares(pool):
    partner = np.asarray(with_classmates(pool, 300).partner)
    pool = jax.device_get(pool)
    np.testing.assert_array_equal(pool.label[partner], pool.label[:, None].repeat(300, 1))
    each = int(pool.count[pool.label[0]])
    drawn = np.bincount(partner[0], minlength=12)[pool.members[pool.label[0], :each]]
    assert (np.abs(drawn - 300 / each) < 5 * np.sqrt(300 / each)).all()


def test_with_rotations_every_turn_is_a_row_with_an_index_and_a_class_of_its_own(pool):
    feed = batch_feed(pool, 48, rotations=True)
    (batch,) = batches(feed, 1)
    assert sorted(batch["index"]) == list(range(48))
    pool = jax.device_get(pool)
    for image, index, label in zip(batch["inputs"], batch["index"], batch["label"]):
        np.testing.assert_array_equal(image, np.rot90(pool.inputs[index % 12], index // 12))
        assert label == pool.label[index % 12] + 4 * (index // 12)


def noise(keys, images):
    return images / 255.0 + jax.vmap(lambda key: jax.random.uniform(key, images.shape[1:]))(keys)


def test_views_of_episodes_have_keys_of_their_own_and_labels_stay(pool):
    feed = episode_feed(pool, EpisodeSpec(2, 1, 2), 3)
    plain, viewed = batches(feed, 2), batches(augmented_feed(feed, noise), 2)
    added = []
    for before, after in zip(plain, viewed):
        for part in range(2):
            np.testing.assert_array_equal(before[part].label, after[part].label)
            added.append((after[part].inputs - before[part].inputs / 255.0).reshape(-1, 9))
    added = np.concatenate(added)
    assert added.shape == (2 * 3 * 6, 9)
    assert len(np.unique(added.round(4), axis=0)) == len(added)


def test_steps_give_other_episodes(pool):
    feed = episode_feed(pool, EpisodeSpec(2, 1, 1), 16)
    first, second = batches(feed, 2)
    assert (first.support.inputs != second.support.inputs).any()


def test_feeds_refuse_sizes_that_are_not_positive_and_streams_of_episodes(pool):
    with pytest.raises(ValueError, match="at least 1"):
        batch_feed(pool, 0)
    with pytest.raises(ValueError, match="at least 1"):
        episode_feed(pool, EpisodeSpec(), 0)
    with pytest.raises(ValueError, match="k must be in 1 to 11"):
        with_partners(pool, 12)
    with pytest.raises(ValueError, match="pool"):
        augmented_feed(Feed(4, None), noise)
