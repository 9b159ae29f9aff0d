"""The batches of a dispatch: out of a pool that lies on the devices, or from a reader on the host."""

import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from metarep_jax.train.parallel import own_devices, replicate, shard
from metarep_jax.train.processes import broadcast_arrays
from metarep_jax.train.signals import shield_children
from metarep_jax.types import Feed, Reader

STACK_BYTES = 1 << 27  # of host batches in one dispatch, which lie on the devices twice: in use, and prepared


def make_batch_source(feed: Feed, devices: Sequence[Any], *, most: int, accumulate: int) -> "BatchSource":
    """What the loop takes batches from, for dispatches of at most ``most`` steps."""
    if feed.reader is not None:
        return ReaderSource(feed.reader, devices, most=most, accumulate=accumulate)
    assert feed.draw is not None  # checked by fit
    return PoolSource(feed.draw, feed.pool, devices, most=most, accumulate=accumulate)


class PoolSource:
    """A pool, whole on every device, and a pure draw."""

    def __init__(
        self, draw: Callable[..., PyTree], pool: PyTree, devices: Sequence[Any], *, most: int, accumulate: int
    ):
        self.most = most
        self._draw, self._first, self._pool = draw, pool, pool
        self._devices, self._parts = devices, len(devices) * accumulate
        self._placed: Any = None

    def take(self, count: int) -> PyTree:
        """What the compiled dispatch reads the next ``count`` batches from: arrays on this process's devices."""
        del count
        if self._placed is None:
            self._placed = replicate(self._pool, self._devices)
        return self._placed

    def prepare(self, count: int) -> None:
        """Nothing to do: the pool is there."""

    def batch_at(self, arrays: PyTree, root: Any, turn: Any, step: Any, micro: Any, part: Any) -> PyTree:
        """One device's share of a micro-batch; pure, runs inside the dispatch on its share of ``take``'s arrays."""
        del turn, micro
        return self._draw(arrays, root, step, part, self._parts)

    def example(self, root: Any) -> PyTree:
        """A batch of the right shapes, for initialisation; pure."""
        return self._draw(self._first, root, np.int32(0), np.int32(0), 1)

    def refresh(self, function: Callable[[PyTree], PyTree]) -> None:
        """Replaces the pool by a function of it. Leaves that are the same objects as before are taken as unchanged."""
        self._placed = None  # makes room on the devices
        self._pool = function(self._pool)
        self._put(broadcast_arrays(self.saved()[0]))

    def saved(self) -> tuple[dict[str, np.ndarray], bytes]:
        """What a checkpoint needs: the leaves of the pool that refreshes have changed, by name."""
        now, before = _named(self._pool), _named(self._first)
        return {name: np.asarray(leaf) for name, leaf in now.items() if leaf is not before[name]}, b""

    def restore(self, arrays: dict[str, np.ndarray], position: bytes) -> None:
        """Goes back to what ``saved`` gave."""
        del position
        self._put(arrays)

    def close(self) -> None:
        """Nothing to do."""

    def _put(self, arrays: dict[str, np.ndarray]) -> None:
        leaves = _named(self._first) | arrays
        self._pool, self._placed = jax.tree.unflatten(jax.tree.structure(self._first), leaves.values()), None


class ReaderSource:
    """A host reader, read ahead in a thread; a dispatch's batches go to the devices as one array a leaf."""

    def __init__(self, reader: Reader, devices: Sequence[Any], *, most: int, accumulate: int):
        self._reader, self._devices, self._accumulate = reader, devices, accumulate
        with shield_children():
            self._position = reader.get_state()
            self._first = jax.tree.map(np.asarray, next(reader))
            reader.set_state(self._position)
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(self._first))
        self.most = max(min(most, STACK_BYTES // size), 1)
        self._queue: queue.Queue = queue.Queue(maxsize=self.most)
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._prepared: tuple[PyTree, bytes] | None = None

    def take(self, count: int) -> PyTree:
        """The next ``count`` batches, [devices, most, micro-batches, rows, ...], on this process's devices."""
        if self._prepared is None:
            self.prepare(count)
        assert self._prepared is not None
        (arrays, self._position), self._prepared = self._prepared, None
        return arrays

    def prepare(self, count: int) -> None:
        """Sends what the next ``take(count)`` gives to the devices, while they work."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._read_ahead, name="read ahead", daemon=True)
            self._thread.start()
        batches, position = [], self._position
        for _ in range(count):
            batch, position = self._queue.get()
            if isinstance(batch, BaseException):
                raise batch
            batches.append(batch)
        self._prepared = shard(jax.tree.map(self._laid_out, *batches), self._devices), position

    def batch_at(self, arrays: PyTree, root: Any, turn: Any, step: Any, micro: Any, part: Any) -> PyTree:
        """One device's share of a micro-batch; pure, runs inside the dispatch on its share of ``take``'s arrays."""
        del root, step, part
        return jax.tree.map(lambda leaf: leaf[turn, micro], arrays)

    def example(self, root: Any) -> PyTree:
        """The reader's first batch, for initialisation."""
        del root
        return self._first

    def saved(self) -> tuple[dict[str, np.ndarray], bytes]:
        """What a checkpoint needs: where the reader stood after the last batch taken, whatever has been read ahead."""
        return {}, self._position

    def restore(self, arrays: dict[str, np.ndarray], position: bytes) -> None:
        """Goes back to what ``saved`` gave; before the first ``take``."""
        del arrays
        self._position = position
        with shield_children():
            self._reader.set_state(position)

    def close(self) -> None:
        """Ends the thread, and the reader's worker processes where it has some."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(timeout=5)
        getattr(self._reader, "close", lambda: None)()

    def _laid_out(self, *leaves: np.ndarray) -> np.ndarray:
        """[device, turn, micro, row, ...] of the turns' leaves; of one shape, and so one compilation, by zeros."""
        split = (self._accumulate, len(own_devices(self._devices)), -1)
        parts = [leaf.reshape(*split, *leaf.shape[1:]).swapaxes(0, 1) for leaf in leaves]
        whole = np.zeros((parts[0].shape[0], self.most, *parts[0].shape[1:]), parts[0].dtype)  # unused turns stay free
        for turn, part in enumerate(parts):
            whole[:, turn] = part
        return whole

    def _read_ahead(self) -> None:
        try:
            with shield_children():
                while not self._closing.is_set():
                    batch = jax.tree.map(np.asarray, next(self._reader))
                    self._offer(batch, self._reader.get_state())
        except StopIteration:
            self._offer(ValueError("the reader came to an end; training needs one that repeats"), b"")
        except BaseException as error:  # raised where the batch is taken
            self._offer(error, b"")

    def _offer(self, batch: PyTree, position: bytes) -> None:
        while not self._closing.is_set():
            try:
                return self._queue.put((batch, position), timeout=0.2)
            except queue.Full:
                continue


BatchSource = PoolSource | ReaderSource


def _named(tree: PyTree) -> dict[str, Any]:
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}
