"""Shuffled batch norm: statistics of small groups, other ones for the keys than for the queries.

With a queue of earlier keys, a query and its own key are the only ones whose batch statistics were computed together:
an encoder can find the key by that trace and learn nothing (MoCo, section 3.3). MoCo normalises on each device by
itself, and sends the keys' images to the devices in another order than the queries'. Here the groups are parts of the
global batch, so many a device as it takes to make ``groups`` in all: one device with 8 groups computes what 8 devices
with one group each compute.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Key, Shaped

from metarep_jax.backend import target_backend
from metarep_jax.pretrain.chain import Chain
from metarep_jax.pretrain.devices import device_count, gather_rows, own_rows


def unsynchronised(encoder: nn.Module) -> nn.Module:
    """The encoder with batch statistics of its own rows, not of all devices'."""
    return encoder.clone(axis_name=None) if getattr(encoder, "axis_name", None) is not None else encoder


def apply_in_groups(
    net: Chain, params: Any, state: Any, rows: Shaped[Array, "n *shape"], *, groups: int, axis_name: str | None
) -> tuple[dict[str, Array], Any]:
    """The chain's outputs for this device's rows, each group with statistics of its own, and the moved state.

    Running averages move to the mean of the groups'.

    Args:
      rows: this device's slice of the global batch.
      groups: of equal size that the global batch is taken in; consecutive rows.

    Raises:
      ValueError: when the groups do not divide over the devices, or the rows over the groups.
    """
    devices = device_count(axis_name)
    own, n = groups // devices, rows.shape[0]
    check_groups(groups, n * devices, devices)
    parts = rows.reshape(own, n // own, *rows.shape[1:])
    # One group after the other on a CPU, whose cache a group fits in and all of them do not.
    at_once = None if target_backend() == "cpu" else own
    outputs, states = jax.lax.map(lambda part: net.apply(params, state, part), parts, batch_size=at_once)
    joined = {name: output.reshape(n, -1) for name, output in outputs.items()}
    return joined, jax.tree.map(lambda leaf: leaf.mean(0).astype(leaf.dtype), states)


def check_groups(groups: int, batch: int, devices: int = 1) -> None:
    """Raises ValueError when ``groups`` do not divide over the devices, or a global batch of so many rows over them."""
    if groups % devices or batch % groups:
        raise ValueError(
            f"shuffled batch norm in {groups} groups needs a number of devices that divides it and a batch that it "
            f"divides; got {devices} devices and a global batch of {batch}"
        )


def shuffle(
    key: Key[Array, ""], rows: Shaped[Array, "n *shape"], axis_name: str | None
) -> tuple[Shaped[Array, "n *shape"], Callable[[Array], Array]]:
    """This device's share of a random order of all devices' rows, and the function that puts results back in place.

    Args:
      key: the same on every device.
    """
    own = own_rows(rows.shape[0], axis_name)
    order = jax.random.permutation(key, rows.shape[0] * device_count(axis_name))
    back = jnp.argsort(order)
    return gather_rows(rows, axis_name)[order[own]], lambda outputs: gather_rows(outputs, axis_name)[back[own]]
