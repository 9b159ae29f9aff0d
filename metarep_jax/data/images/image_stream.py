"""Training images streamed from the disk through Grain, for data sets larger than memory."""

import atexit
import json
import weakref
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from metarep_jax.data.images.encoded_images import Records
from metarep_jax.data.images.image_decoding import Form, decode, label_of
from metarep_jax.data.protocols import divide
from metarep_jax.data.splits import Splits, labelled

Batch = dict[str, np.ndarray]
AHEAD = 2  # batches that each process decodes or holds ready; Pillow lets threads work side by side


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
    form = Form(height, channels, records.reading.image_size is not None, records.reading.channels is not None)
    each = size // processes
    own = slice(process * each, (process + 1) * each)
    load = partial(_load, records=records, rows=rows, label=label[rows].astype(np.int32), form=form)
    return GrainReader(load, len(rows), size, own, seed, records.reading.workers, records.key)


class GrainReader:
    """An endless iterator of batches whose position can be saved: a ``types.Reader``. ``rows`` counts an epoch's.

    Grain shuffles the rows' numbers, cuts them into batches, and has them loaded by threads or processes, ahead of
    their use.
    """

    def __init__(self, load: Any, rows: int, size: int, own: slice, seed: int, workers: int, key: str):
        import grain
        from absl import flags

        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # Grain's worker processes ask for absl's flags, which tyro does not parse
        endless = 2**60 // rows  # epochs; Grain's own endless repetition overflows in batches of one
        numbers = grain.MapDataset.range(rows).shuffle(seed=seed).repeat(endless)
        batches = numbers.batch(size).map(partial(_part, own=own)).map(load)
        reading = grain.ReadOptions(num_threads=AHEAD, prefetch_buffer_size=AHEAD)
        workers_ = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=AHEAD)
        self._dataset = batches.to_iter_dataset(reading).mp_prefetch(workers_)
        self._made_of = {"rows": rows, "size": size, "seed": seed, "workers": workers, "data": key}
        self.rows = rows  # of an epoch, over all processes
        self._iterator: Any = None
        atexit.register(_close, weakref.ref(self))  # worker processes must end before the interpreter does

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
            self._iterator = iter(self._dataset)
        return self._iterator


def _part(rows: Int[np.ndarray, " n"], own: slice) -> Int[np.ndarray, " m"]:
    return np.asarray(rows)[own]


def _load(index: Int[np.ndarray, " n"], records: Records, rows: np.ndarray, label: np.ndarray, form: Form) -> Batch:
    images = []
    for row in rows[index].tolist():
        file = records.files[row]
        images.append(decode(file, label_of(file, row, records.what), form))
    return {"inputs": np.stack(images), "index": index.astype(np.int32), "label": label[index]}


def _close(reader: "weakref.ref[GrainReader]") -> None:
    found = reader()
    if found is not None:
        found.close()
