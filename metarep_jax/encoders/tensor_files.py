"""Trees of arrays as safetensors files, which outlive versions of this package and run no code when they are read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from metarep_jax.files import atomic_write

SEPARATOR = "/"  # between the names on the way to an array, as in "params/Conv_0/kernel"
EMPTY = "empty"  # the metadata's list of branches that hold no array
PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".tar")


def save_safetensors(path: Path | str, tree: Mapping[str, Any]) -> None:
    """Writes a tree of arrays to one file, whole or not at all; each array is named by its way, joined by "/".

    Args:
      path: of the file, such as ``encoder.safetensors``.
      tree: dicts of dicts of arrays, such as Linen variables.

    Raises:
      ValueError: for a tree of anything but dicts with text for keys.
    """
    tensors, empty = {}, []
    for name, leaf in _named(tree, ()):
        if leaf is None:
            empty.append(name)
        else:
            tensors[name] = np.asarray(leaf, order="C")
    atomic_write(path, save(tensors, {"format": "metarep_jax", EMPTY: json.dumps(empty)}))


def load_safetensors(path: Path | str) -> PyTree:
    """The tree that ``save_safetensors`` wrote; any other safetensors file as a tree by its names.

    Raises:
      ValueError: for a file that is damaged, or of another format.
      FileNotFoundError: where there is none.
    """
    tensors, metadata = read_tensors(path)
    tree: dict[str, Any] = {}
    for name in json.loads(metadata.get(EMPTY, "[]")):
        _branch(tree, name.split(SEPARATOR))
    for name, value in tensors.items():
        *way, last = name.split(SEPARATOR)
        _branch(tree, way)[last] = jnp.asarray(value)
    return tree


def read_tensors(path: Path | str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays by name, and the metadata, of any safetensors file.

    Raises:
      ValueError: for a pickle, which would run code, and for a file that is damaged or of another format.
      FileNotFoundError: where there is none.
    """
    path = Path(path).expanduser()
    if path.suffix.lower() in PICKLES:
        raise ValueError(
            f"{path.name} is a pickle, which may run any code when it is read; save it as safetensors where it comes "
            'from: safetensors.torch.save_file(model.state_dict(), "weights.safetensors")'
        )
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with safe_open(path, framework="np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path.name} is no safetensors file, or is damaged: {error}") from error


def _named(tree: Any, way: tuple[str, ...]) -> list[tuple[str, Any]]:
    """Arrays with their names; a branch without any stands with None."""
    if not isinstance(tree, Mapping):
        if not hasattr(tree, "shape"):
            raise ValueError(f"{SEPARATOR.join(way)} is a {type(tree).__name__}; give dicts of dicts of arrays")
        return [(SEPARATOR.join(way), tree)]
    for key in tree:
        if not isinstance(key, str) or SEPARATOR in key or not key:
            raise ValueError(f"keys must be text without {SEPARATOR!r}, got {key!r}")
    if not tree and way:
        return [(SEPARATOR.join(way), None)]
    return [pair for key, branch in tree.items() for pair in _named(branch, (*way, key))]


def _branch(tree: dict[str, Any], way: list[str]) -> dict[str, Any]:
    for key in way:
        tree = tree.setdefault(key, {})
    return tree
