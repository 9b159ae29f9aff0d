"""Trees as flat named arrays, with a description and a digest."""

import hashlib
import json
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree


def pack(tree: PyTree) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The tree's leaves as numpy arrays under numbers, and JSON that says what each is, with a digest of all."""
    leaves, described = [np.asarray(leaf) for leaf in jax.tree.leaves(tree)], describe(tree)
    packed = {f"{index:05d}": leaf for index, leaf in enumerate(leaves)}
    return packed, {"leaves": described, "digest": digest_of(described, *leaves)}


def describe(tree: PyTree) -> list[list]:
    """Name, dtype and shape of every leaf, which may be an array or a ``jax.ShapeDtypeStruct``."""
    named = [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree.leaves_with_path(tree)]
    arrays = [(name, leaf if hasattr(leaf, "dtype") else np.asarray(leaf)) for name, leaf in named]
    return [[name, str(leaf.dtype), list(leaf.shape)] for name, leaf in arrays]


def tree_digest(tree: PyTree) -> str:
    """SHA-256, as hex, of a tree's arrays with their names, dtypes and shapes."""
    return digest_of(describe(tree), *(np.asarray(leaf) for leaf in jax.tree.leaves(tree)))


def unpack(packed: dict[str, Any], meta: dict[str, Any]) -> list[np.ndarray]:
    """The leaves that ``pack`` gave, in their order; raises ValueError where the digest shows damage."""
    leaves = [np.asarray(packed[f"{index:05d}"]) for index in range(len(meta["leaves"]))]
    check_digest("its arrays", digest_of(meta["leaves"], *leaves), meta["digest"])
    return leaves


def by_name(described: list) -> dict[str, Any]:
    """A description's dtypes and shapes by the leaves' names."""
    return {name: [dtype, shape] for name, dtype, shape in described}


def digest_of(described: Any, *leaves: np.ndarray) -> str:
    """SHA-256 of something of JSON's types, and of arrays."""
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for leaf in leaves:
        digest.update(f"{leaf.dtype}{leaf.shape}".encode())
        digest.update(np.ascontiguousarray(leaf).view(np.uint8).data if leaf.ndim else leaf.tobytes())
    return digest.hexdigest()


def check_digest(what: str, actual: str, expected: str) -> None:
    """Raises ValueError when two digests differ."""
    if actual != expected:
        raise ValueError(f"the digest of {what} is {actual[:12]}…, expected {expected[:12]}…")
