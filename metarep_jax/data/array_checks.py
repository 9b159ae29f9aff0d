"""Checks of a user's own inputs and labels: what they may be, and what to do about others."""

from numbers import Number
from typing import Any

import numpy as np
from jaxtyping import Shaped

from metarep_jax.data.pools import check_finite


def as_array(inputs: Any, part: str = "inputs") -> Shaped[np.ndarray, "..."]:
    """Inputs as one array; ``part`` names them in messages.

    Raises:
      ValueError: for inputs of different shapes.
    """
    try:
        return np.asarray(inputs)
    except ValueError as error:
        raise ValueError(f"{part}: inputs must all have one shape; bring them to one size first ({error})") from error


def checked_inputs(inputs: Shaped[np.ndarray, "..."], part: str = "inputs") -> Shaped[np.ndarray, "n ..."]:
    """Images as [n, h, w, c], uint8 or float32 in [0, 1]; recordings as int16, rows of tokens as int32.

    Raises:
      ValueError: for anything else; ``part`` names the inputs in messages.
    """
    if inputs.dtype.kind not in "biuf" or inputs.ndim < 2 or inputs.ndim > 4:
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
        return inputs if inputs.dtype == np.int16 else _token_ids(inputs, part)
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


def _token_ids(inputs: Shaped[np.ndarray, "n length"], part: str) -> Shaped[np.ndarray, "n length"]:
    if inputs.min() < 0 or inputs.max() > np.iinfo(np.int32).max:
        raise ValueError(
            f"{part}: rows of integers are token ids from 0 on, these lie in {inputs.min()} to {inputs.max()}; "
            "recordings are int16"
        )
    return inputs.astype(np.int32)


def mixes_kinds(label: Any) -> bool:
    """Whether some labels of a list are texts and others numbers: an array would turn all of them into texts."""
    if not isinstance(label, list | tuple):
        return False
    return any(isinstance(value, str) for value in label) and any(isinstance(value, Number) for value in label)


def checked_labels(label: Any, rows: int, part: str) -> Shaped[np.ndarray, " n"]:
    """Labels as one array of integers or strings [n].

    Raises:
      ValueError: for labels of another kind (one-hot rows, tuples, floats), or of another number than inputs.
    """
    try:
        array = np.asarray(label)
    except ValueError:
        array = np.asarray(list(label), object)
    if mixes_kinds(label):
        raise ValueError(f"{part}: some labels are strings and others numbers; give one kind")
    if array.ndim == 2 and array.shape[1] == 1:
        raise ValueError(f"{part}: labels are of shape {array.shape}, wanted is [n]; give labels[:, 0]")
    if array.ndim == 2 and array.dtype.kind in "biuf" and (array.sum(1) == 1).all() and array.min() >= 0:
        raise ValueError(f"{part}: labels are one-hot rows of shape {array.shape}; give labels.argmax(1)")
    if array.ndim != 1:
        raise ValueError(f"{part}: labels are one integer or string an example, got shape {array.shape}")
    if array.dtype.kind == "O" and all(isinstance(value, str) for value in array):
        array = array.astype(np.str_)
    if array.dtype.kind not in "biuU":
        hint = {"f": "; give labels.astype(int)", "S": "; give labels.astype(str)"}.get(array.dtype.kind, "")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            hint = "; some are NaN or infinite: leave those examples out"
        raise ValueError(
            f"{part}: labels are integers or strings, got {kind_of(array[0]) if len(array) else 'none'}{hint}"
        )
    if len(array) != rows:
        raise ValueError(f"{part}: there are {rows} inputs and {len(array)} labels; give one label an input")
    return array.astype(np.int64) if array.dtype.kind in "biu" else array


def kind_of(value: Any) -> str:
    """What a value is, in words."""
    return f"a {type(value).__name__}" + (f" of {len(value)}" if isinstance(value, list | tuple | dict) else "")
