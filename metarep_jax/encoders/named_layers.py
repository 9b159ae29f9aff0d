"""Named layers: an encoder's outputs on the way to its features, for hints, attention transfer, dense heads and CKA."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from flax import linen as nn
from jaxtyping import Array, Bool, PyTree, Shaped

ALL_LAYERS = "intermediates"  # Linen's collection
ONE_LAYER = "layer "  # before a layer's name: the collection of that layer alone


def keep_layer(module: nn.Module, name: str, output: Callable[[], Any]) -> None:
    """Keeps ``output()`` as the layer ``name``; computes nothing unless that layer is asked for.

    Call it where an encoder of your own has the layer: ``keep_layer(self, "block1", lambda: x)``.
    """
    if module.is_initializing():
        return
    for collection in (ALL_LAYERS, ONE_LAYER + name):
        if module.is_mutable_collection(collection):
            module.put_variable(collection, name, output())


def apply_with_layers(
    encoder: nn.Module,
    variables: PyTree,
    x: Shaped[Array, "n ..."],
    mask: Bool[Array, " n"] | None = None,
    running: bool = False,
    names: Sequence[str] | None = None,
) -> tuple[Array, dict[str, Array], PyTree]:
    """``(features [n, dim], layers, moved)`` of one pass, as training needs them.

    Args:
      encoder: any encoder; those of this package keep ``block1`` …, ``stage1`` … and the like.
      variables: its Linen variables.
      x: inputs [n, ...].
      mask: rows that enter batch statistics; None: all.
      running: normalise with the running averages.
      names: the layers to compute, in the order wanted; None: all of them, in the order of the computation.

    Returns:
      The features; ``{name: [n, ...]}``; and the moved ``batch_stats``, ``{}`` where there are none.

    Raises:
      ValueError: for a layer that the encoder does not have; lists those that it has.
    """
    wanted = (ALL_LAYERS,) if names is None else tuple(ONE_LAYER + name for name in names)
    features, updated = encoder.apply(variables, x, mask, running, mutable=["batch_stats", *wanted])
    kept: dict[str, Any] = dict(updated)
    if names is None:
        layers: dict[str, Any] = {
            name: value for name, value in kept.get(ALL_LAYERS, {}).items() if not isinstance(value, dict)
        }
    else:
        layers = {name: kept.get(ONE_LAYER + name, {}).get(name) for name in names}
        if missing := [name for name, value in layers.items() if value is None or isinstance(value, dict)]:
            known = ", ".join(layer_names(encoder, variables, x)) or "none"
            raise ValueError(f"the encoder {type(encoder).__name__} has no layer {missing[0]!r}; it has: {known}")
    return features, layers, kept.get("batch_stats", {})


def encoder_layers(
    encoder: nn.Module,
    variables: PyTree,
    x: Shaped[Array, "n ..."],
    mask: Bool[Array, " n"] | None = None,
    running: bool = True,
    names: Sequence[str] | None = None,
) -> dict[str, Array]:
    """The layers of ``apply_with_layers`` alone, by default of an encoder in use: with the running averages."""
    return apply_with_layers(encoder, variables, x, mask, running, names)[1]


def layer_names(encoder: nn.Module, variables: PyTree, x: Shaped[Array, "n ..."]) -> tuple[str, ...]:
    """The names of the encoder's layers, in the order of the computation; nothing is computed.

    Args:
      encoder, variables: the encoder and its Linen variables.
      x: inputs [n, ...], or their shape and dtype.
    """
    names: list[str] = []

    def layers(variables: PyTree, x: Array) -> dict[str, Array]:
        found = encoder_layers(encoder, variables, x)
        names.extend(found)  # what leaves a traced function is sorted by name
        return found

    jax.eval_shape(layers, variables, x)
    return tuple(names)
