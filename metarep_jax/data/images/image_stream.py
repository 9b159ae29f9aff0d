"""Training images streamed from the disk through Grain, for data sets larger than memory."""

import atexit
import json
import os
import weakref
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from metarep_jax.data.images.encoded_images import Records
from metarep_jax.data.images.image_decoding import Form, decode, ignore_pillow_warnings, label_of
from metarep_jax.data.protocols import divide
from metarep_jax.data.splits import Splits, labelled

Batch = dict[str, np.ndarray]
VERSION = 2  # of the order of rows: positions in another are refused
ENDLESS = 1 << 40  # batches
AHEAD = 2  # batches that each process holds ready; without processes, that threads decode side by side


def stream_reader(
    splits: Splits, size: int, *, seed: int = 0, process: int | None = None, processes: int | None = None
) -> "GrainReader":
    """A reader of all training images of the data that ``splits`` was loaded from, for ``Feed(size, None, reader=…)``.

    Batches are dicts as those of ``batch_feed``: ``inputs`` uint8, ``index`` among the training images, ``label``.
    Each epoch is a new order of all images. The global batch of a step is the same however many processes and reading
    processes there are; each process reads its own rows of it, a contiguous part. A program that reads with worker
    processes starts them by importing its main module anew: what it does belongs under ``if __name__ == "__main__"``.

    Args:
      splits: of ``load_splits`` on an image folder or a TFDS data set; its pools give the images' shape.
      size: of the global batch.
      seed: of the order.
      process, processes: this process's number and how many there are; default: JAX's.

    Raises:
      ValueError: for data that fit in memory, a size that the processes do not divide, or no training images.
    """
    process = jax.process_index() if process is None else process
    processes = jax.process_count() if processes is None else processes
    if size < 1 or size % processes:
        raise ValueError(f"the global batch of {size} does not divide over {processes} processes")
    records = splits.config.read() if splits.config.get("stream") is not None else None
    if not isinstance(records, Records):
        raise ValueError(f"{splits.name} fits in memory and is not streamed; folders of images and TFDS data sets are")
    division = divide(splits.protocol, labelled(records, splits.config))
    label, rows = division.label, np.flatnonzero(division.part == 0)
    if not len(rows):
        raise ValueError(f"{records.what} has no training images to stream")
    _, height, _, channels = splits.train.inputs.shape
    reading = records.reading
    form = Form(height, channels, reading.image_size is not None, reading.channels is not None, reading.resample)
    each = size // processes
    order = EpochOrder(len(rows), size, slice(process * each, (process + 1) * each), seed)
    load = Load(order, records, rows, label[rows].astype(np.int32), form, shared=reading.workers > 0)
    return GrainReader(load, reading.workers, records.key)


class EpochOrder(NamedTuple):
    """Which rows a batch holds, of endless epochs, each a new order of all rows. A batch may touch several."""

    rows: int
    size: int  # of the global batch
    own: slice  # this process's part of it
    seed: int

    def batch(self, number: int) -> Int[np.ndarray, " m"]:
        """This process's rows of that batch, counted from 0."""
        place = np.arange(number * self.size, (number + 1) * self.size)[self.own]
        index = np.empty(len(place), np.int32)
        for epoch in np.unique(place // self.rows).tolist():
            within = place // self.rows == epoch
            index[within] = _permutation(self.rows, self.seed, epoch)[place[within] % self.rows]
        return index


@lru_cache(maxsize=2)
def _permutation(rows: int, seed: int, epoch: int) -> Int[np.ndarray, " rows"]:
    return np.random.default_rng((seed, epoch)).permutation(rows)


class GrainReader:
    """An endless iterator of batches whose position can be saved: a ``types.Reader``. ``rows`` counts an epoch's.

    Grain counts the batches, and has them loaded by threads or processes, ahead of their use.
    """

    def __init__(self, load: "Load", workers: int, key: str):
        import grain
        from absl import flags

        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # Grain's worker processes ask for absl's flags, which tyro does not parse
        batches = grain.MapDataset.range(ENDLESS).map(load)
        threads = 0 if workers else AHEAD  # beside others, a thread costs a process more than it gives
        reading = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
        processes = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=AHEAD)
        self._dataset = batches.to_iter_dataset(reading).mp_prefetch(processes, _begin_worker)
        order, self._size, self._workers = load.order, load.form.size, workers
        of = {"rows": order.rows, "size": order.size, "seed": order.seed, "workers": workers, "data": key}
        self._made_of = of | {"order": VERSION}
        self.rows = order.rows  # of an epoch, over all processes
        self._iterator: Any = None
        atexit.register(_close, weakref.ref(self))  # worker processes must end before the interpreter does

    @property
    def advice(self) -> str:
        """What to do where training waits for this reader."""
        cores = os.cpu_count() or 1
        if self._workers < cores:
            return f"read with more processes, --data.workers: now {self._workers}, this machine has {cores} cores"
        return (
            f"--data.workers {self._workers} keeps all {cores} cores reading: save the images at {self._size} pixels, "
            "or hold them in memory, without --data.stream"
        )

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        batch = next(self._started())
        return {name: np.array(leaf) for name, leaf in batch.items()}  # out of the memory shared with a worker

    def get_state(self) -> bytes:
        """The position: what a new reader of the same data needs to go on with the next batch."""
        return json.dumps({"of": self._made_of, "at": self._started().get_state()}).encode()

    def set_state(self, state: bytes) -> None:
        """Goes to a saved position.

        Raises:
          ValueError: when it is one in other data, or in an order of another seed, batch size or number of workers.
        """
        found = json.loads(state)
        differing = [name for name, value in self._made_of.items() if found["of"].get(name) != value]
        if differing:
            raise ValueError(
                "the saved position belongs to another stream: "
                + ", ".join(f"{name} was {found['of'].get(name)}, is {self._made_of[name]}" for name in differing)
            )
        self._started().set_state(found["at"])

    def close(self) -> None:
        """Ends the reading processes; the reader may be used again."""
        if self._iterator is not None:
            self._iterator.close()
            self._iterator = None

    def _started(self) -> Any:
        if self._iterator is None:
            if not self._workers:
                ignore_pillow_warnings()
            self._iterator = iter(self._dataset)
        return self._iterator


class Load(NamedTuple):
    """Decodes the batch of a number; in a process beside this one (``shared``) into memory shared with it."""

    order: EpochOrder
    records: Records
    rows: Int[np.ndarray, " n"]
    label: Int[np.ndarray, " n"]
    form: Form
    shared: bool

    def __call__(self, number: int) -> Batch:
        from grain.multiprocessing import SharedMemoryArray

        index = self.order.batch(number)
        shape = (len(index), self.form.size, self.form.size, self.form.channels)
        inputs = SharedMemoryArray(shape, np.uint8) if self.shared else np.empty(shape, np.uint8)
        try:
            for place, row in enumerate(self.rows[index].tolist()):
                file = self.records.files[row]
                inputs[place] = decode(file, label_of(file, row, self.records.what), self.form)
        except BaseException:
            if isinstance(inputs, SharedMemoryArray):
                inputs.unlink_on_del()
            raise
        return {"inputs": inputs, "index": index, "label": self.label[index]}


def _begin_worker(number: int, count: int) -> None:
    del number, count
    ignore_pillow_warnings()


def _close(reader: "weakref.ref[GrainReader]") -> None:
    found = reader()
    if found is not None:
        found.close()
