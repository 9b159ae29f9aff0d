"""What a model in use is asked: inputs and labels, checked before anything compiles."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.core import Tracer
from jaxtyping import Array, Int

from metarep_jax.data.array_checks import checked_labels
from metarep_jax.data.text.tokenizer import Tokenizer
from metarep_jax.encoders import input_kind

SLACK = 1e-3  # what resizing may overshoot a range by


def check_inputs_in_use(x: Any, shape: tuple[int, ...], encoder: nn.Module, tokenizer: Tokenizer | None) -> Array:
    """The inputs as the model takes them: [n, *shape]; n may be 0.

    Args:
      x: arrays; grey images may lack their channel axis; a model of text that has its tokenizer takes texts too.
      shape: of one input.
      encoder: the model's.
      tokenizer: of a model of text, where its file was there.

    Raises:
      ValueError: for inputs of another shape or type, or with values out of range; says what the model takes.
    """
    kind = input_kind(encoder)
    x = _array(x, kind, shape, tokenizer)
    if x.ndim == 1 and x.shape[0] == 0:
        x = x.reshape(0, *shape).astype({"tokens": np.int32, "waves": np.int16}.get(kind, np.uint8))
    if x.ndim == len(shape) and shape[-1] == 1 and x.shape[1:] == shape[:-1] and len(shape) == 3:
        x = x[..., None]  # grey images without a channel axis
    if x.shape[1:] != shape:
        raise ValueError(_other_shape(x.shape, shape, kind))
    _check_type(x.dtype, kind)
    if not isinstance(x, Tracer) and x.size:
        _check_values(x, kind, shape, getattr(encoder, "vocabulary", None))
    return jnp.asarray(x)


def check_labels(labels: Any, rows: int) -> tuple[np.ndarray, Int[np.ndarray, " n"]]:
    """The classes among ``labels``, sorted, and each label's place among them.

    Args:
      labels: one a row: whole numbers, names or truth values.
      rows: how many there must be.

    Raises:
      ValueError: for anything else, see ``checked_labels``, and for none.
    """
    if not rows:
        raise ValueError("adapt needs labelled examples, got none")
    classes, index = np.unique(checked_labels(labels, rows, "adapt"), return_inverse=True)
    return classes, index


def _array(x: Any, kind: str, shape: tuple[int, ...], tokenizer: Tokenizer | None) -> Any:
    """An array that is, or becomes, numbers; texts become token ids."""
    if isinstance(x, jax.Array):
        return x
    if isinstance(x, str | bytes):
        raise ValueError("this is one text; give a list of texts" if kind == "tokens" else _takes(kind, "a text"))
    try:
        x = np.asarray(x)
    except ValueError as error:
        raise ValueError(f"inputs must all have one shape: {error}") from error
    if x.dtype.kind not in "OSUT":
        return x
    if kind != "tokens" or not all(isinstance(text, str) for text in x.ravel()):
        raise ValueError(_takes(kind, "texts" if x.dtype.kind in "SUT" else "objects"))
    if tokenizer is None:
        raise ValueError(
            "this model takes token ids, int32, got texts, and its tokenizer is not beside it; make the ids with the "
            f"tokenizer of its run: load_tokenizer(run_folder).rows(texts, {shape[0]})"
        )
    return tokenizer.rows(x.ravel().tolist(), shape[0])


def _other_shape(got: tuple[int, ...], shape: tuple[int, ...], kind: str) -> str:
    said = f"this model takes inputs of shape [n, {', '.join(map(str, shape))}], got {list(got)}"
    if got == shape:
        return f"{said}; of a single input give x[None]"
    if kind != "images" or len(shape) != 3 or len(got) != 4:
        return said
    if got[1:3] == shape[:2]:
        return f"{said}: {got[3]} channels, not {shape[2]}; convert the images, or train with --data.channels {got[3]}"
    if got[3] == shape[2]:
        return f"{said}; resize the images, or train with --data.image-size {got[1]}"
    return said


def _takes(kind: str, got: Any) -> str:
    wanted = {
        "tokens": "token ids, int32",
        "waves": "16-bit samples, or floats in [−1, 1]",
    }.get(kind, "uint8 images in 0–255 or floats in [0, 1]")
    return f"this model takes {wanted}, got {got}"


def _check_type(dtype: Any, kind: str) -> None:
    floating = jnp.issubdtype(dtype, jnp.floating)
    fits = {
        "tokens": dtype in (jnp.int32, jnp.int64),
        "waves": dtype == jnp.int16 or floating,
    }.get(kind, dtype == jnp.uint8 or floating)
    if not fits:
        raise ValueError(_takes(kind, dtype))


def _check_values(x: Any, kind: str, shape: tuple[int, ...], vocabulary: int | None) -> None:
    lowest, highest = float(x.min()), float(x.max())
    if not np.isfinite([lowest, highest]).all():
        raise ValueError("the inputs hold values that are no finite numbers (NaN or infinity); leave those rows out")
    if kind == "tokens":
        if lowest < 0 or (vocabulary is not None and highest >= vocabulary):
            raise ValueError(
                f"token ids lie from 0 to {'' if vocabulary is None else vocabulary - 1}, got {int(lowest)} to "
                f"{int(highest)}; make them with the model's own tokenizer"
            )
    elif jnp.issubdtype(x.dtype, jnp.floating) and (kind == "waves" or len(shape) == 3):
        least = -1 if kind == "waves" else 0
        if lowest < least - SLACK or highest > 1 + SLACK:
            scale, integers = (32768, "int16 samples") if kind == "waves" else (255, "uint8 images")
            signed = kind == "images" and lowest < 0
            advice = (
                "give them as they were before they were normalised; the model does that itself"
                if signed
                else f"divide them by {scale}, or give {integers}"
            )
            raise ValueError(f"{_takes(kind, f'floats from {lowest:.4g} to {highest:.4g}')}; {advice}")
