"""Several processes, on one or several hosts: how they start, and the little that they tell one another."""

import json
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree


def start_processes(coordinator: str | None = None, count: int | None = None, index: int | None = None) -> None:
    """Joins this process to ``count`` processes, on one or several hosts. Call it before JAX does anything.

    Args:
      coordinator: ``host:port`` of process 0. None: JAX finds all three out (TPU pods, Slurm and the like).
      count: processes in all.
      index: of this process, 0 to count-1.

    Raises:
      ValueError: for an index out of range.
    """
    if coordinator is not None and not 0 <= (index or 0) < (count or 1):
        raise ValueError(f"the process index must be in 0 to {(count or 1) - 1}, got {index}")
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(coordinator, count, index)


def on_main_process() -> bool:
    """Whether this is the process that writes."""
    return jax.process_index() == 0


def broadcast_arrays(tree: PyTree) -> PyTree:
    """The main process's arrays, on all processes. The trees have the same structure and shapes everywhere."""
    if jax.process_count() == 1:
        return tree
    from jax.experimental import multihost_utils

    return multihost_utils.broadcast_one_to_all(tree)


def broadcast_from_main(value: Any) -> Any:
    """The main process's ``value`` (of JSON's types), on all processes."""
    if jax.process_count() == 1:
        return value
    data = np.frombuffer(json.dumps(value).encode(), np.uint8)
    length = int(broadcast_arrays(np.int64(len(data))))
    padded = data if on_main_process() else np.zeros(length, np.uint8)
    return json.loads(np.asarray(broadcast_arrays(padded)).astype(np.uint8).tobytes().decode())


def gather_processes(values: Any) -> np.ndarray:
    """Every process's array [processes, ...]."""
    if jax.process_count() == 1:
        return np.asarray(values)[None]
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(np.asarray(values)))


def gather_bytes(data: bytes) -> list[bytes]:
    """Every process's bytes."""
    lengths = gather_processes(np.int32(len(data)))
    padded = np.zeros(int(lengths.max()), np.uint8)
    padded[: len(data)] = np.frombuffer(data, np.uint8)
    rows = gather_processes(padded).astype(np.uint8)
    return [row[:length].tobytes() for row, length in zip(rows, lengths, strict=True)]
