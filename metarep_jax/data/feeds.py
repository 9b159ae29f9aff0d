"""Feeds: where training takes batches from. Each is a pure draw from a pool that lives on the device.

The global batch of a step depends on the run's root key and the step alone; a shard takes its slice of it.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Key, PyTree, Shaped

from metarep_jax.data.images.augment import as_unit_float
from metarep_jax.data.permutation import epoch_rows
from metarep_jax.data.tasks.episodes import TURNS, quarter_turns, sample_episodes
from metarep_jax.types import Episode, EpisodeSpec, Feed, Partnered, Pool

ORDER, PARTNERS, EPISODES, VIEWS = range(4)  # streams of randomness under a feed's root key


def batch_feed(pool: Pool | Partnered, size: int, rotations: bool = False) -> Feed:
    """Batches of single examples, each epoch a new order of all rows without repeats.

    A batch is a dict: ``inputs`` [n, ...], ``index`` [n] and ``label`` [n], and with a ``Partnered`` pool ``partner``,
    the inputs of one of each row's partners, drawn anew every time.

    Args:
      pool: the examples. A batch may end one epoch and begin the next.
      size: of the global batch; may exceed the number of rows.
      rotations: whether every quarter turn of an image is a row of its own, with an index and a class of its own.

    Raises:
      ValueError: for a size below 1, or an empty pool.
    """
    plain = pool.pool if isinstance(pool, Partnered) else pool
    base, classes = plain.label.shape[0], plain.count.shape[0]
    if size < 1 or base < 1:
        raise ValueError(f"batch_feed: needs a batch size and rows of at least 1, got size {size} and {base} rows")
    rows = base * (TURNS if rotations else 1)

    def draw(pool: Pool | Partnered, root: Key[Array, ""], step: Any, shard: Any, shards: int) -> dict[str, Array]:
        plain = pool.pool if isinstance(pool, Partnered) else pool
        each = size // shards
        begin = jnp.asarray(shard, jnp.uint32) * jnp.uint32(each)
        position = jnp.asarray(step, jnp.uint32) * jnp.uint32(size) + begin + jnp.arange(each, dtype=jnp.uint32)
        index = epoch_rows(jax.random.fold_in(root, ORDER), position, rows, size)
        row, turn = index % base, index // base

        def look(rows: Array) -> Array:
            images = plain.inputs[rows]
            return quarter_turns(images, turn) if rotations else images

        batch = {"inputs": look(row), "index": index, "label": plain.label[row] + turn * classes}
        if isinstance(pool, Partnered):
            stream = jax.random.fold_in(jax.random.fold_in(root, PARTNERS), step)
            which = lax.dynamic_slice_in_dim(jax.random.bits(stream, (size,), jnp.uint32), begin, each)
            places = pool.partner.shape[1]
            batch["partner"] = look(pool.partner[row, (which % jnp.uint32(places)).astype(jnp.int32)])
        return batch

    return Feed(size, pool, draw)


def episode_feed(pool: Pool, spec: EpisodeSpec, tasks: int) -> Feed:
    """Batches of ``tasks`` episodes of ``spec``, with a leading task axis.

    Raises:
      ValueError: for fewer than one task.
    """
    if tasks < 1:
        raise ValueError(f"episode_feed: tasks must be at least 1, got {tasks}")

    def draw(pool: Pool, root: Key[Array, ""], step: Any, shard: Any, shards: int) -> Episode:
        keys = shard_keys(root, EPISODES, step, tasks, shard, shards)
        return jax.vmap(lambda key: sample_episodes(key, pool, spec))(keys)

    return Feed(tasks, pool, draw)


def augmented_feed(feed: Feed, augment: Callable[[Array, Array], Array], support: bool = True) -> Feed:
    """An episode feed whose support and query images are augmented on the device, each by a key of its own.

    Args:
      feed: of episodes.
      augment: ``(keys [n], images [n, h, w, c]) -> views [n, h, w, c]``, of ``make_augment``.
      support: whether support images are augmented too, or only turned into floats as they are.
    """
    if feed.draw is None:
        raise ValueError(
            "augmented_feed needs a feed that draws from a pool; a stream's batches are augmented in the loss"
        )
    draw_plain = feed.draw

    def draw(pool: PyTree, root: Key[Array, ""], step: Any, shard: Any, shards: int) -> Episode:
        episodes = draw_plain(pool, root, step, shard, shards)
        keys = shard_keys(root, VIEWS, step, feed.size, shard, shards)
        first, second = (jax.vmap(lambda key, part=part: jax.random.fold_in(key, part))(keys) for part in range(2))
        shown = episodes.support.inputs
        shown = _views(augment, first, shown) if support else as_unit_float(shown)
        return Episode(
            episodes.support._replace(inputs=shown),
            episodes.query._replace(inputs=_views(augment, second, episodes.query.inputs)),
        )

    return feed._replace(draw=draw)


def _views(augment: Callable[[Array, Array], Array], keys: Key[Array, " t"], images: Shaped[Array, "t n ..."]) -> Array:
    tasks, each = images.shape[:2]
    if each == 0:
        return images
    flat = jax.vmap(lambda key: jax.random.split(key, each))(keys).reshape(tasks * each)
    views = augment(flat, images.reshape(tasks * each, *images.shape[2:]))
    return views.reshape(tasks, each, *views.shape[1:])


def shard_keys(root: Any, stream: int, step: Any, size: int, shard: Any, shards: int) -> Key[Array, " n"]:
    """One key an episode of this shard's slice of the step's ``size`` episodes, for one stream of randomness."""
    keys = jax.random.split(jax.random.fold_in(jax.random.fold_in(root, stream), step), size)
    each = size // shards
    return lax.dynamic_slice_in_dim(keys, shard * each, each)
