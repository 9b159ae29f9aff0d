"""Tasks without labels: images and clusters as classes, the same for any number of shards; k-means."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarep_jax.data import pool_of_arrays
from metarep_jax.data.tasks.episodes import check_episode_spec
from metarep_jax.data.tasks.kmeans import kmeans
from metarep_jax.data.tasks.pseudo_tasks import (
    TaskConfig,
    augmentation_tasks,
    cluster_tasks,
    instance_pool,
    make_partitions,
)
from metarep_jax.types import EpisodeSpec

ROOT = jax.random.key(3)
SIZES = (7, 5, 4, 2)  # of four groups far apart


@pytest.fixture(scope="module")
def pool():
    """Eighteen images; row r's holds r+1 in one corner. The labels are all 0: nothing may look at them."""
    images = np.zeros((sum(SIZES), 3, 3, 1), np.uint8)
    images[:, 0, 0, 0] = np.arange(len(images)) + 1
    return pool_of_arrays(images, np.zeros(len(images), int))


@pytest.fixture(scope="module")
def features():
    """The groups' rows about four corners, each a little off; far apart however the dimensions are scaled."""
    corners = 10 * np.repeat(np.eye(4), 16, axis=1)
    group = np.repeat(np.arange(4), SIZES)
    return on_device(corners[group] + 0.01 * np.random.default_rng(0).normal(size=(len(group), 64)))


def on_device(rows):
    return jnp.asarray(np.asarray(rows, np.float32))


def drawn(feed, step=0, shards=1):
    draw = jax.jit(lambda shard: feed.draw(feed.pool, ROOT, step, shard, shards))
    return jax.tree.map(lambda *parts: np.concatenate(parts), *[draw(shard) for shard in range(shards)])


def rows(images):
    """Which rows the images are, or the views that add 0.5 to another corner."""
    return np.round(images[..., 0, 0, 0] * (1 if images.dtype == np.uint8 else 255)).astype(int) - 1


def marked(keys, images):
    """Views that are told by another corner."""
    return images.astype(jnp.float32).at[:, 2, 2].set(jax.vmap(lambda key: jax.random.uniform(key, (1,)))(keys)) / 255


def test_a_task_from_augmentations_shows_images_and_asks_for_views_of_them(pool):
    spec = EpisodeSpec(way=4, shot=1, query=3)
    episodes = drawn(augmentation_tasks(pool, spec, 20, marked))
    support, query = rows(episodes.support.inputs), rows(episodes.query.inputs)
    np.testing.assert_array_equal(episodes.support.label, np.tile(np.arange(4), (20, 1)))
    np.testing.assert_array_equal(query.reshape(20, 4, 3), np.repeat(support[..., None], 3, axis=2))
    assert all(len(set(task)) == 4 for task in support)
    assert set(support.reshape(-1)) == set(range(sum(SIZES)))
    assert not episodes.support.inputs[..., 2, 2, 0].any()
    assert len(np.unique(episodes.query.inputs[..., 2, 2, 0])) == 20 * 12


def test_with_more_shots_the_support_are_views_too(pool):
    episodes = drawn(augmentation_tasks(pool, EpisodeSpec(way=3, shot=2, query=1), 8, marked))
    assert len(np.unique(episodes.support.inputs[..., 2, 2, 0])) == 8 * 6
    support = rows(episodes.support.inputs).reshape(8, 3, 2)
    np.testing.assert_array_equal(support[..., 0], support[..., 1])


def test_with_rotations_a_turned_image_is_a_class_of_its_own(pool):
    few = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[:1]), instance_pool(pool, 3))
    check_episode_spec(few, EpisodeSpec(way=4, shot=1, query=2, rotations="classes"))
    small = pool._replace(
        inputs=jnp.asarray(np.asarray(pool.inputs)[:1]), label=jnp.asarray(np.asarray(pool.label)[:1])
    )
    spec = EpisodeSpec(way=4, shot=1, query=2, rotations="classes")
    images = drawn(augmentation_tasks(small, spec, 1, lambda keys, images: images / 255)).support.inputs[0]
    turned = {tuple(np.argwhere(image[..., 0])[0].tolist()) for image in images}
    assert turned == {(0, 0), (0, 2), (2, 0), (2, 2)}


def test_clusters_are_found_and_those_too_small_for_a_task_are_left_out(pool, features):
    config, spec = TaskConfig(clusters=4, partitions=1), EpisodeSpec(way=3, shot=1, query=3)
    parts = make_partitions(jax.random.key(1), pool, features, spec, config)
    assert parts.count.tolist() == [[7, 5, 4]]
    starts = np.cumsum([0, *SIZES])
    for members, count, start in zip(parts.members[0], parts.count[0], starts):
        assert sorted(members[:count].tolist()) == list(range(start, start + count))


def test_dense_clusters_leave_out_what_lies_apart_and_begin_with_the_nearest_to_the_mean(pool, features):
    alone = on_device(np.concatenate([np.asarray(features)[:-1], -10 * np.ones((1, 64))]))
    config = TaskConfig(clustering="dense", neighbours=4, radius=0.9, partitions=1)
    parts = make_partitions(jax.random.key(1), pool, alone, EpisodeSpec(way=3, shot=1, query=3), config)
    assert parts.count.tolist() == [[7, 5, 4]]
    starts = np.cumsum([0, *SIZES])
    for members, count, start in zip(parts.members[0], parts.count[0], starts):
        own = np.asarray(alone[start : start + count])
        apart = np.square(own - own.mean(0)).sum(1)
        assert (members[:count] - start).tolist() == np.argsort(apart).tolist()


def test_a_task_from_clusters_has_distinct_members_of_distinct_clusters(pool, features):
    config, spec = TaskConfig(clusters=4, partitions=3), EpisodeSpec(way=3, shot=2, query=2)
    parts = make_partitions(jax.random.key(1), pool, features, spec, config)
    episodes = drawn(cluster_tasks(parts, spec, 50))
    group = np.repeat(np.arange(4), SIZES)
    support, query = (rows(part.inputs).reshape(50, 3, 2) for part in episodes)
    together = np.concatenate([support, query], axis=2)
    assert all(len(set(task.reshape(-1))) == 12 for task in together)
    of = group[together]
    assert (of == of[..., :1]).all()
    assert (np.sort(of[..., 0], axis=1) == np.arange(3)).all()  # the fourth is too small


def test_small_clusters_come_as_often_as_large_ones(pool, features):
    config, spec = TaskConfig(clusters=4, partitions=1), EpisodeSpec(way=1, shot=1, query=3)
    parts = make_partitions(jax.random.key(1), pool, features, spec, config)
    found = np.repeat(np.arange(4), SIZES)[rows(drawn(cluster_tasks(parts, spec, 900)).support.inputs).reshape(-1)]
    assert (np.abs(np.bincount(found) - 300) < 4 * np.sqrt(200)).all()


def test_members_beyond_the_most_are_those_far_from_the_centre(pool):
    line = np.concatenate([np.zeros(5), 5 + np.arange(13.0)])[:, None] * np.ones(2)
    config = TaskConfig(clusters=1, partitions=1, most=5)
    parts = make_partitions(jax.random.key(1), pool, on_device(line), EpisodeSpec(way=1, shot=1, query=1), config)
    nearest = np.argsort(np.abs(line[:, 0] - line[:, 0].mean()), kind="stable")[:5]
    assert sorted(np.asarray(parts.members)[0, 0].tolist()) == sorted(nearest.tolist())


def test_partitions_differ(pool):
    scattered = on_device(np.random.default_rng(2).normal(size=(sum(SIZES), 6)))
    config, spec = TaskConfig(clusters=3, partitions=4), EpisodeSpec(way=1, shot=1, query=0)
    parts = make_partitions(jax.random.key(1), pool, scattered, spec, config)
    assert len({tuple(members.reshape(-1).tolist()) for members in np.asarray(parts.members)}) == 4


def test_tasks_do_not_depend_on_the_shards(pool, features):
    spec = EpisodeSpec(way=2, shot=1, query=2)
    parts = make_partitions(jax.random.key(1), pool, features, spec, TaskConfig(clusters=3, partitions=2))
    for feed in (augmentation_tasks(pool, spec, 8, marked), cluster_tasks(parts, spec, 8)):
        jax.tree.map(np.testing.assert_array_equal, drawn(feed, 5), drawn(feed, 5, shards=4))


def test_too_few_clusters_and_features_that_do_not_fit_are_refused(pool, features):
    config, spec = TaskConfig(clusters=4, partitions=1), EpisodeSpec(way=4, shot=1, query=3)
    key = jax.random.key(1)
    with pytest.raises(ValueError, match=r"3 of 4 clusters have the 4 members .* tasks of 4 ways"):
        make_partitions(key, pool, features, spec, config)
    with pytest.raises(ValueError, match="finite features of all 18 images"):
        make_partitions(key, pool, on_device(np.asarray(features)[1:]), spec, config)
    with pytest.raises(ValueError, match="finite features"):
        make_partitions(key, pool, on_device(np.where(np.arange(18)[:, None] == 3, np.nan, features)), spec, config)
    with pytest.raises(ValueError, match=r"TaskConfig.clusters must be at least 1, got 0"):
        TaskConfig(clusters=0)
    with pytest.raises(ValueError, match="tasks must be at least 1"):
        cluster_tasks(make_partitions(key, pool, features, EpisodeSpec(2, 1, 1), config), spec, 0)


def test_kmeans_finds_groups_that_are_far_apart(features):
    label, distance, centres = kmeans(jax.random.key(4), features, clusters=4)
    group = np.repeat(np.arange(4), SIZES)
    assert len({(a, b) for a, b in zip(group.tolist(), label.tolist())}) == 4
    rows, label = np.asarray(features), np.asarray(label)
    means = np.stack([rows[label == c].mean(0) for c in range(4)])
    np.testing.assert_allclose(centres, means, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(distance, np.sum((rows - means[label]) ** 2, -1), rtol=1e-3, atol=1e-6)


def test_kmeans_ends_where_every_row_is_with_its_nearest_centre():
    scattered = np.random.default_rng(5).normal(size=(60, 3)).astype(np.float32)
    label, _, centres = jax.device_get(kmeans(jax.random.key(6), on_device(scattered), clusters=7))
    nearest = np.argmin(np.sum((scattered[:, None] - centres) ** 2, -1), axis=1)
    np.testing.assert_array_equal(label, nearest)
    assert len(set(label.tolist())) == 7


def test_kmeans_of_as_many_clusters_as_rows_and_of_one():
    scattered = on_device(np.random.default_rng(7).normal(size=(6, 2)))
    assert sorted(kmeans(ROOT, scattered, clusters=6).label.tolist()) == list(range(6))
    centre = np.asarray(kmeans(ROOT, scattered, clusters=1).centres)[0]
    np.testing.assert_allclose(centre, np.asarray(scattered).mean(0), atol=1e-6)
    with pytest.raises(ValueError, match=r"must be in 1 to 6, the number of rows, got 7"):
        kmeans(ROOT, scattered, clusters=7)
