"""Checks of a user's own inputs and labels: what they may be, and what to do about others."""

from typing import Any

import numpy as np
from jaxtyping import Shaped

from metarep_jax.data.pools import check_finite


def checked_inputs(inputs: Shaped[np.ndarray, "..."], part: str = "inputs") -> Shaped[np.ndarray, "n ..."]:
    """Images as [n, h, w, c], uint8 or float32 in [0, 1]; recordings as int16, rows of tokens as int32.

    Raises:
      ValueError: for anything else; ``part`` names the inputs in messages.
    """
    if inputs.dtype.kind in "OUS" or inputs.ndim < 2 or inputs.ndim > 4:
        raise ValueError(
            f"{part}: inputs are images [n, h, w, c], recordings [n, samples] or rows of token ids [n, length]; got "
            f"{inputs.dtype} of shape {inputs.shape}"
            + (" (for texts, write .txt files, or give a tokenizer's rows)" if inputs.dtype.kind in "OUS" else "")
        )
    if not inputs.size:
        raise ValueError(f"{part}: there are no inputs, the shape is {inputs.shape}; leave the part out")
    check_finite(inputs, part)
    if inputs.ndim == 2:
        if inputs.dtype.kind == "f":
            return inputs.astype(np.float32)
        return inputs if inputs.dtype == np.int16 else inputs.astype(np.int32)
    images = inputs[..., None] if inputs.ndim == 3 else inputs
    if images.shape[-1] not in (1, 3):
        hint = "; transpose it, x.transpose(0, 2, 3, 1)" if images.shape[1] in (1, 3) else ""
        raise ValueError(f"{part}: images are [n, h, w, channels] with 1 or 3 channels, got shape {inputs.shape}{hint}")
    low, high = images.min(), images.max()
    if images.dtype.kind == "f":
        if low < 0 or high > 1:
            way = "divide by 255, or give uint8" if low >= 0 and high <= 255 else "scale them"
            raise ValueError(f"{part}: float images lie in [0, 1], these in [{low:g}, {high:g}]; {way}")
        return images.astype(np.float32)
    if images.dtype == bool:
        return images.astype(np.uint8) * 255
    if low < 0 or high > 255:
        raise ValueError(f"{part}: integer images lie in 0 to 255, these in {low} to {high}; scale them")
    return images.astype(np.uint8)


def checked_labels(label: Any, rows: int, part: str) -> Shaped[np.ndarray, " n"]:
    """Labels as one array of integers or strings [n].

    Raises:
      ValueError: for labels of another kind (one-hot rows, tuples, floats), or of another number than inputs.
    """
    try:
        array = np.asarray(label)
    except ValueError:
        array = np.asarray(list(label), object)
    if array.ndim == 2 and array.shape[1] == 1:
        raise ValueError(f"{part}: labels are of shape {array.shape}, wanted is [n]; give labels[:, 0]")
    if array.ndim == 2 and array.dtype.kind in "biuf" and (array.sum(1) == 1).all() and array.min() >= 0:
        raise ValueError(f"{part}: labels are one-hot rows of shape {array.shape}; give labels.argmax(1)")
    if array.ndim != 1:
        raise ValueError(f"{part}: labels are one integer or string an example, got shape {array.shape}")
    if array.dtype.kind == "O" and all(isinstance(value, str) for value in array):
        array = array.astype(np.str_)
    if array.dtype.kind not in "biuU":
        hint = "; give labels.astype(int)" if array.dtype.kind == "f" else ""
        raise ValueError(
            f"{part}: labels are integers or strings, got {kind_of(array[0]) if len(array) else 'none'}{hint}"
        )
    if len(array) != rows:
        raise ValueError(f"{part}: there are {rows} inputs and {len(array)} labels; give one label an input")
    return array.astype(np.int64) if array.dtype.kind in "biu" else array


def kind_of(value: Any) -> str:
    """What a value is, in words."""
    return f"a {type(value).__name__}" + (f" of {len(value)}" if isinstance(value, list | tuple | dict) else "")
