"""Where a dispatch takes its batches from: a pool that lies on the devices, or a reader on the host."""

import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from jaxtyping import PyTree

from metarep_jax.train.parallel import own_devices, replicate, shard
from metarep_jax.train.processes import same_everywhere
from metarep_jax.types import Feed, Reader

STACK_BYTES = 1 << 27  # of host batches in one dispatch, which lie on the devices twice: in use, and prepared


def make_source(feed: Feed, devices: Sequence[Any], *, most: int, accumulate: int) -> "Source":
    """The source that ``feed`` describes, for dispatches of at most ``most`` steps."""
    if feed.reader is not None:
        return ReaderSource(feed.reader, devices, most=most, accumulate=accumulate)
    if feed.draw is None:
        raise ValueError("a feed needs a draw (a pool on the device) or a reader (a stream)")
    return PoolSource(feed, devices, most=most, accumulate=accumulate)


class Source(Protocol):
    """What the loop asks of a feed."""

    most: int  # steps in one dispatch

    def take(self, count: int) -> PyTree:
        """What the compiled dispatch reads the next ``count`` batches from: arrays on this process's devices."""
        ...

    def prepare(self, count: int) -> None:
        """Begins what the next ``take(count)`` needs, while the devices work."""
        ...

    def batch_at(self, source: PyTree, root: Any, turn: Any, step: Any, micro: Any, part: Any) -> PyTree:
        """One device's share of a micro-batch; pure, runs inside the dispatch on its share of ``take``'s arrays."""
        ...

    def example(self, root: Any) -> PyTree:
        """A batch of the right shapes, for initialisation; pure."""
        ...

    def refresh(self, function: Callable[[PyTree], PyTree]) -> None:
        """Replaces the pool by a function of it."""
        ...

    def saved(self) -> tuple[dict[str, np.ndarray], bytes]:
        """What a checkpoint needs: arrays of the pool that a refresh has changed, and the reader's position."""
        ...

    def restore(self, arrays: dict[str, np.ndarray], position: bytes) -> None:
        """Goes back to what ``saved`` gave."""
        ...

    def close(self) -> None:
        """Ends what runs in the background."""
        ...


class PoolSource:
    """A pool, whole on every device, and a pure draw."""

    def __init__(self, feed: Feed, devices: Sequence[Any], *, most: int, accumulate: int):
        self.most = most
        self._feed, self._devices, self._parts = feed, devices, len(devices) * accumulate
        self._pool = feed.pool
        self._placed: Any = None

    def take(self, count: int) -> PyTree:  # noqa: D102
        del count
        if self._placed is None:
            self._placed = replicate(self._pool, self._devices)
        return self._placed

    def prepare(self, count: int) -> None:  # noqa: D102
        del count

    def batch_at(self, source: PyTree, root: Any, turn: Any, step: Any, micro: Any, part: Any) -> PyTree:  # noqa: D102
        del turn, micro
        assert self._feed.draw is not None
        return self._feed.draw(source, root, step, part, self._parts)

    def example(self, root: Any) -> PyTree:  # noqa: D102
        assert self._feed.draw is not None
        return self._feed.draw(self._feed.pool, root, np.int32(0), np.int32(0), 1)

    def refresh(self, function: Callable[[PyTree], PyTree]) -> None:  # noqa: D102
        self._pool, self._placed = None, None
        refreshed = _named(function(self._feed.pool))
        before = _named(self._feed.pool)
        self._put({name: np.asarray(leaf) for name, leaf in refreshed.items() if leaf is not before[name]})

    def saved(self) -> tuple[dict[str, np.ndarray], bytes]:  # noqa: D102
        now, before = _named(self._pool), _named(self._feed.pool)
        return {name: np.asarray(leaf) for name, leaf in now.items() if leaf is not before[name]}, b""

    def restore(self, arrays: dict[str, np.ndarray], position: bytes) -> None:  # noqa: D102
        del position
        self._put(arrays)

    def _put(self, arrays: dict[str, np.ndarray]) -> None:
        leaves = {**_named(self._feed.pool), **same_everywhere(arrays)}
        self._pool, self._placed = jax.tree.unflatten(jax.tree.structure(self._feed.pool), leaves.values()), None

    def close(self) -> None:  # noqa: D102
        pass


class ReaderSource:
    """A host reader, read ahead in a thread; a dispatch's batches go to the devices as one array each."""

    def __init__(self, reader: Reader, devices: Sequence[Any], *, most: int, accumulate: int):
        self._reader, self._devices, self._accumulate = reader, devices, accumulate
        self._position = reader.get_state()
        self._first = jax.tree.map(np.asarray, next(reader))
        reader.set_state(self._position)
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(self._first))
        self.most = max(min(most, STACK_BYTES // size), 1)
        self._queue: queue.Queue = queue.Queue(maxsize=self.most)
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._prepared: tuple[PyTree, bytes] | None = None

    def take(self, count: int) -> PyTree:  # noqa: D102
        if self._prepared is None:
            self.prepare(count)
        assert self._prepared is not None
        (arrays, self._position), self._prepared = self._prepared, None
        return arrays

    def prepare(self, count: int) -> None:  # noqa: D102
        if self._thread is None:
            self._thread = threading.Thread(target=self._read_ahead, name="read ahead", daemon=True)
            self._thread.start()
        batches, position = [], self._position
        for _ in range(count):
            batch, position = self._queue.get()
            if isinstance(batch, BaseException):
                raise batch
            batches.append(batch)
        batches += batches[-1:] * (self.most - count)  # one shape, hence one compilation; never looked at
        local = len(own_devices(self._devices))

        def stacked(*leaves: np.ndarray) -> np.ndarray:
            split = np.stack([leaf.reshape(self._accumulate, local, -1, *leaf.shape[1:]) for leaf in leaves])
            return np.moveaxis(split, 2, 0)  # [device, turn, micro, row, ...]

        self._prepared = shard(jax.tree.map(stacked, *batches), self._devices), position

    def batch_at(self, source: PyTree, root: Any, turn: Any, step: Any, micro: Any, part: Any) -> PyTree:  # noqa: D102
        del root, step, part
        return jax.tree.map(lambda leaf: leaf[turn, micro], source)

    def example(self, root: Any) -> PyTree:  # noqa: D102
        del root
        return self._first

    def refresh(self, function: Callable[[PyTree], PyTree]) -> None:  # noqa: D102
        raise ValueError("a method that refreshes its pool needs one on the device; this feed streams from a reader")

    def saved(self) -> tuple[dict[str, np.ndarray], bytes]:  # noqa: D102
        return {}, self._position

    def restore(self, arrays: dict[str, np.ndarray], position: bytes) -> None:  # noqa: D102
        del arrays
        self._position = position
        self._reader.set_state(position)

    def close(self) -> None:  # noqa: D102
        self._closing.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def _read_ahead(self) -> None:
        try:
            while not self._closing.is_set():
                batch = jax.tree.map(np.asarray, next(self._reader))
                self._offer((batch, self._reader.get_state()))
        except StopIteration:
            self._offer((ValueError("the reader came to an end; training needs one that repeats"), b""))
        except BaseException as error:  # raised where the batch is taken
            self._offer((error, b""))

    def _offer(self, item: tuple) -> None:
        while not self._closing.is_set():
            try:
                return self._queue.put(item, timeout=0.2)
            except queue.Full:
                continue


def _named(tree: PyTree) -> dict[str, Any]:
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}
