"""Devices: the one place where a function is mapped over them.

A training step is one per-device function whose collectives name the axis ``AXIS``. On N devices it computes what it
computes on one: randomness has one key an example of the global batch, gradients and metrics are averaged here.
"""

import inspect
import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int, Key, PyTree

from metarep_jax.types import Keys

AXIS = "device"


def use_cpu_devices(count: int | None = None) -> None:
    """One XLA CPU device a core (or ``count``), each computing on its own thread. Call it before JAX does anything.

    Two devices of one thread each were 1.6 to 2 times as fast on a MAML step as one device of two threads. Without
    effect on other backends, and where JAX has already started.
    """
    if count is not None and count < 1:
        raise ValueError(f"the number of CPU devices must be positive, got {count}")
    count = count or _cores()
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:  # the backend has started: its devices stay as they are
        return
    flag = "--xla_cpu_multi_thread_eigen"
    flags = os.environ.get("XLA_FLAGS", "")  # XLA takes this setting from nowhere else
    if count > 1 and flag not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {flag}=false".strip()


def local_devices(requested: int | None = None) -> list:
    """The devices to train on: all of them (of all processes), or the first ``requested``.

    Raises:
      ValueError: when there are fewer, or when some are asked for out of several processes'.
    """
    devices = jax.devices()
    if requested is None or requested == len(devices):
        return devices
    if requested < 1 or requested > len(devices):
        raise ValueError(f"asked for {requested} devices, there are {len(devices)} ({devices[0].platform})")
    if jax.process_count() > 1:
        raise ValueError(f"several processes train on all {len(devices)} devices, got devices={requested}")
    return devices[:requested]


def dividing_devices(devices: list, size: int, accumulate: int = 1) -> list:
    """The most of ``devices`` over which a global batch of ``size`` divides; of several processes always all."""
    if jax.process_count() > 1:
        return devices
    counts = [count for count in range(1, len(devices) + 1) if size % (count * accumulate) == 0]
    return devices[: max(counts, default=len(devices))]


def check_batch(size: int, devices: int | Sequence[Any], accumulate: int = 1) -> None:
    """Raises ValueError when a global batch of ``size`` does not divide over the devices and micro-batches."""
    count = devices if isinstance(devices, int) else len(devices)
    parts = count * accumulate
    if size < 1 or size % parts:
        times = f" times {accumulate} accumulated micro-batches" if accumulate > 1 else ""
        least = max(size // parts, 1) * parts
        raise ValueError(
            f"the global batch of {size} does not divide over {count} devices{times}; "
            f"take a multiple of {parts}, such as {least}, by --….train.batch-size, or fewer --devices"
        )


def step_keys(root: Key[Array, ""], step: Any, size: int, part: Any, parts: int) -> Keys:
    """The keys of ``part`` (of ``parts``) of a step's global batch of ``size``; the same however it is divided."""
    key = jax.random.fold_in(root, step)
    each = size // parts
    example = lax.dynamic_slice_in_dim(jax.random.split(key, size), part * each, each)
    return Keys(example, jax.random.fold_in(key, 2**31 - 1))  # beyond any example's number


def shard_index() -> Int[Array, ""]:
    """Which device this is, 0 to the number of devices - 1; inside a mapped function."""
    return lax.axis_index(AXIS)


def mean_over_devices(tree: PyTree) -> PyTree:
    """The average over devices of the tree's floating leaves; others (counters, keys) agree already.

    Leaves travel as one vector a number format: collective latency dominates for small leaves.
    """
    leaves, structure = jax.tree.flatten(tree)
    for dtype in sorted({leaf.dtype for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)}, key=str):
        places = [index for index, leaf in enumerate(leaves) if leaf.dtype == dtype]
        whole = lax.pmean(jnp.concatenate([leaves[index].reshape(-1) for index in places]), AXIS)
        parts = jnp.split(whole, np.cumsum([leaves[index].size for index in places])[:-1].tolist())
        for index, part in zip(places, parts, strict=True):
            leaves[index] = part.reshape(leaves[index].shape)
    return jax.tree.unflatten(structure, leaves)


def map_step(step: Callable[..., Any], devices: Sequence[Any]) -> Callable[..., Any]:
    """``step(state, arrays, ...)`` mapped over devices: its first two arguments carry a leading device axis.

    The state's buffers are donated. Results carry a leading device axis.
    """
    shared = len(inspect.signature(step).parameters) - 2
    in_axes = (0, 0, *[None] * shared)
    return jax.pmap(step, axis_name=AXIS, devices=_pmap_devices(devices), in_axes=in_axes, donate_argnums=0)


def replicate(tree: PyTree, devices: Sequence[Any]) -> PyTree:
    """A copy of ``tree`` on every device, with a leading axis of this process's devices.

    Made by a mapped identity, so that the copies are laid out as a mapped step's own results: other layouts would
    compile the step a second time.
    """
    own = np.arange(len(own_devices(devices)))
    return jax.pmap(lambda _, x: x, axis_name=AXIS, devices=_pmap_devices(devices), in_axes=(0, None))(own, tree)


def shard(tree: PyTree, devices: Sequence[Any]) -> PyTree:
    """Host arrays with a leading axis of this process's devices, onto them."""
    return jax.pmap(lambda x: x, axis_name=AXIS, devices=_pmap_devices(devices))(tree)


def unreplicate(tree: PyTree) -> PyTree:
    """This process's first copy, as numpy arrays (keys stay keys) that no later step overwrites."""

    def first(leaf: Any) -> Any:
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return leaf[0]
        return np.array(leaf.addressable_shards[0].data)[0]

    return jax.tree.map(first, tree)


def own_devices(devices: Sequence[Any]) -> list:
    """Those of ``devices`` that belong to this process."""
    return [device for device in devices if device.process_index == jax.process_index()]


def map_over_keys(
    fn: Callable[..., PyTree],
    keys: Key[Array, " n"],
    *args: Any,
    devices: Sequence[Any] | None = None,
    chunk: int | None = None,
) -> PyTree:
    """``fn(key, *args)`` for every key, spread over this process's devices; results [n, ...] in the keys' order.

    The result for a key depends on neither the devices nor ``chunk``. Compiled once a function object: pass the same
    ``fn`` again rather than a new closure, and arrays by ``args``.

    Args:
      keys: at least one.
      chunk: keys taken at once by ``vmap`` on each device; None means 1 on a CPU and 16 elsewhere.
    """
    own = tuple(own_devices(jax.local_devices() if devices is None else devices))
    chunk = chunk or (1 if own[0].platform == "cpu" else 16)
    n, count = keys.shape[0], len(own)
    each = -(-n // count)
    padded = keys[jnp.arange(each * count) % n].reshape(count, each)
    result = _mapped(fn, own, min(chunk, each))(padded, args)
    return jax.tree.map(lambda leaf: leaf.reshape(count * each, *leaf.shape[2:])[:n], result)


@lru_cache(maxsize=32)
def _mapped(fn: Callable[..., PyTree], devices: tuple, chunk: int) -> Callable[..., PyTree]:
    def local(keys: Any, args: tuple) -> PyTree:
        batch_size = None if chunk == 1 else chunk
        return lax.map(lambda key: fn(key, *args), keys, batch_size=batch_size)

    return jax.pmap(local, axis_name=AXIS, devices=devices, in_axes=(0, None))


def _pmap_devices(devices: Sequence[Any]) -> Sequence[Any] | None:
    return None if jax.process_count() > 1 else devices  # several processes: all devices, in JAX's own order


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
