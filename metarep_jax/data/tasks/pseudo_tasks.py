"""Few-shot tasks without labels, as feeds for any meta-learner: classes are single images, or clusters of features."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, Shaped

from metarep_jax.data.feeds import EPISODES, augmented_feed, episode_feed, shard_keys
from metarep_jax.data.tasks.episodes import TURNS, sample_episodes
from metarep_jax.data.tasks.kmeans import kmeans
from metarep_jax.data.tasks.reciprocal import dense_clusters
from metarep_jax.typed_settings import Settings
from metarep_jax.types import Episode, EpisodeSpec, Feed, Pool

TaskSource = Literal["labels", "augmentations", "clusters"]


@dataclasses.dataclass(frozen=True)
class TaskConfig(Settings):
    """Where the classes of training tasks come from."""

    source: TaskSource = "labels"
    """labels: the data's classes. Without labels: augmentations (UMTRA: each image is a class, its queries are views of
    it) or clusters (CACTUs: of the features that training starts from)."""
    clustering: Literal["kmeans", "dense"] = "kmeans"
    """clusters: kmeans, in which every image has a cluster, or dense: DBSCAN by the images' neighbourhoods, without
    those that lie apart (Ji et al. 2019)."""
    clusters: int = 500
    """kmeans: of each partition."""
    neighbours: int = 20
    """dense: how many make a neighbourhood."""
    radius: float = 0.4
    """dense: distance in (0, 1) up to which images are joined; smaller is purer, and leaves out more."""
    partitions: int = 10
    """clusters: partitions, each by features scaled at random; a task takes the clusters of one."""
    most: int | None = None
    """clusters: members a cluster at most, the nearest to its centre; default: all."""

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.radius < 1:
            raise ValueError(f"TaskConfig.radius must lie between 0 and 1, got {self.radius}")
        for field in ("clusters", "partitions", "most", "neighbours"):
            if (value := getattr(self, field)) is not None and value < 1:
                raise ValueError(f"TaskConfig.{field} must be at least 1, got {value}")


class Partitions(NamedTuple):
    """A pool whose examples belong to clusters, of several partitions, in the place of classes."""

    inputs: Shaped[Array, "n ..."]
    members: Int[Array, "partitions clusters most"]  # as of a Pool, which has one partition: its classes
    count: Int[Array, "partitions clusters"]


def augmentation_tasks(pool: Pool, spec: EpisodeSpec, tasks: int, augment: Callable[[Array, Array], Array]) -> Feed:
    """UMTRA: the support set of a task is images drawn at random, its queries are augmented views of them.

    Two images of one true class rarely meet in a task when classes are many and ways few. With more than one shot the
    support images are augmented too, since all of a class are the same image.

    Args:
      pool: its labels are not used.
      spec: of the episodes; with rotations "classes" an image under each quarter turn is a class of its own.
      tasks: a batch.
      augment: ``(keys [n], images [n, h, w, c]) -> views [n, h, w, c]``.

    References:
      Khodadadeh et al. 2019, Unsupervised Meta-Learning for Few-Shot Image Classification,
      https://arxiv.org/abs/1811.11819, algorithm 1.
    """
    feed = episode_feed(instance_pool(pool, spec.shot + spec.query), spec, tasks)
    return augmented_feed(feed, augment, support=spec.shot > 1)


def instance_pool(pool: Pool, each: int) -> Pool:
    """The pool with every example as a class of its own, of which a task may draw ``each`` times the same."""
    rows = jnp.arange(pool.label.shape[0], dtype=jnp.int32)
    return Pool(pool.inputs, rows, jnp.tile(rows[:, None], (1, each)), jnp.full(rows.shape, each, jnp.int32))


def cluster_tasks(parts: Partitions, spec: EpisodeSpec, tasks: int) -> Feed:
    """CACTUs: a task draws a partition, ``way`` of its clusters, and distinct members of each; all uniformly, so that
    large clusters do not come more often than small ones.

    References:
      Hsu et al. 2018, Unsupervised Learning via Meta-Learning, https://arxiv.org/abs/1810.02334, algorithm 1.
    """
    if tasks < 1:
        raise ValueError(f"cluster_tasks: tasks must be at least 1, got {tasks}")

    def draw(parts: Partitions, root: Key[Array, ""], step: Any, shard: Any, shards: int) -> Episode:
        def one(key: Array) -> Episode:
            partition_key, episode_key = jax.random.split(key)
            which = jax.random.randint(partition_key, (), 0, parts.count.shape[0])
            no_label = jnp.zeros(parts.inputs.shape[0], jnp.int32)  # episodes are drawn by members alone
            pool = Pool(parts.inputs, no_label, parts.members[which], parts.count[which])
            return sample_episodes(episode_key, pool, spec)

        return jax.vmap(one)(shard_keys(root, EPISODES, step, tasks, shard, shards))

    return Feed(tasks, parts, draw)


def make_partitions(
    key: Key[Array, ""], pool: Pool, features: Float[Array, "n dim"], spec: EpisodeSpec, config: TaskConfig
) -> Partitions:
    """Clusters of ``features`` that are large enough for episodes of ``spec``; a different partition each time.

    With several partitions, each scales the features' dimensions by random factors first (Hsu et al., section 2.2).
    Partitions keep equally many clusters, the largest: as many as the poorest partition has.

    Args:
      key: chooses scales and seeds.
      pool: its labels are not used.
      features: of the pool's inputs.
      spec: clusters with fewer than ``shot + query`` members are dropped.
      config: how many clusters and partitions.

    Raises:
      ValueError: for features of another number of rows or that are not finite, and when too few clusters are left.
    """
    if len(features) != pool.label.shape[0] or not np.isfinite(features).all():
        raise ValueError(f"make_partitions needs finite features of all {pool.label.shape[0]} images of the pool")
    need, found = spec.shot + spec.query, []
    for one in jax.random.split(key, config.partitions):
        scale_key, seed_key = jax.random.split(one)
        scale = jax.random.uniform(scale_key, features.shape[1:]) if config.partitions > 1 else 1.0
        if config.clustering == "dense":
            label = dense_clusters(np.asarray(features * scale), neighbours=config.neighbours, radius=config.radius)
            distance = _from_the_mean(np.asarray(features), label)
        else:
            label, distance, _ = map(np.asarray, kmeans(seed_key, features * scale, clusters=config.clusters))
        found.append(_members(label, distance, config.most))
    left = min(sum(len(rows) >= need for rows in clusters) for clusters in found)
    turns = TURNS if spec.rotations == "classes" else 1
    if left * turns < spec.way:
        raise ValueError(
            f"{left} of {len(found[0])} clusters have the {need} members that {spec.shot}-shot tasks with "
            f"{spec.query} queries need, but tasks of {spec.way} ways need as many clusters; take fewer clusters"
        )
    most = max(len(rows) for clusters in found for rows in clusters[:left])
    members = np.zeros((config.partitions, left, most), np.int32)
    count = np.zeros((config.partitions, left), np.int32)
    for part, clusters in enumerate(found):
        for cluster, rows in enumerate(clusters[:left]):
            members[part, cluster, : len(rows)], count[part, cluster] = rows, len(rows)
    return Partitions(pool.inputs, jnp.asarray(members), jnp.asarray(count))


def _members(label: np.ndarray, distance: np.ndarray, most: int | None) -> list[np.ndarray]:
    """The rows of each cluster, the nearest to its centre first; the largest cluster first. Rows of −1 have none."""
    order = np.lexsort((distance, label))[np.sum(label < 0) :]
    ends = np.cumsum(np.bincount(label[label >= 0]))
    rows = [part[:most] for part in np.split(order, ends[:-1])]
    return sorted(rows, key=len, reverse=True)


def _from_the_mean(rows: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Squared distances from the mean of each row's cluster."""
    total = np.zeros((label.max(initial=0) + 2, rows.shape[1]), rows.dtype)  # the last place is of the rows in none
    np.add.at(total, label, rows)
    mean = total / np.maximum(np.bincount(label % len(total), minlength=len(total)), 1)[:, None]
    return np.square(rows - mean[label]).sum(1)
