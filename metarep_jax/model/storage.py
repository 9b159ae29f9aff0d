"""A model's folder: ``spec.json``, which names a file of arrays and its digest, and that file, in safetensors' format.

Arrays are written first, under a name of their own, and ``spec.json`` last: whoever is interrupted leaves the model
that was there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from metarep_jax.files import atomic_write
from metarep_jax.train.storage.arrays import load_tree

SPEC = "spec.json"


def write_model(folder: Path, plain: Mapping[str, Any], arrays: PyTree) -> None:
    """Writes a model to ``folder``, in place of what is there.

    Args:
      folder: of the model itself.
      plain: JSON's types, what there is to know beside the arrays.
      arrays: nested dicts of arrays.

    Raises:
      OSError: when it cannot be written; the model that was there is kept.
    """
    from safetensors.numpy import save

    folder = Path(folder)
    leaves = {_name(path): np.ascontiguousarray(leaf) for path, leaf in jax.tree.leaves_with_path(arrays)}
    structure = jax.tree.map_with_path(lambda path, _: _name(path), arrays)
    content = save(leaves, metadata={"structure": json.dumps(structure)})
    digest = hashlib.sha256(content).hexdigest()
    file = folder / f"arrays-{digest[:12]}.safetensors"
    atomic_write(file, content)
    described = {**plain, "arrays": {"file": file.name, "sha256": digest}}
    atomic_write(folder / SPEC, json.dumps(described, indent=2) + "\n")
    for other in folder.glob("arrays-*.safetensors"):
        if other != file:
            other.unlink(missing_ok=True)


def read_model(run_folder: Path | str) -> tuple[Path, dict[str, Any]]:
    """The folder of the model that lies in ``run_folder``, and the plain values of its ``spec.json``.

    Raises:
      FileNotFoundError: when there is none, naming where there are some.
      ValueError: when the file is damaged.
    """
    run_folder = Path(run_folder).expanduser()
    places = (run_folder / "model", run_folder)
    folder = next((place for place in places if (place / SPEC).is_file()), None)
    if folder is None:
        finished = sorted(str(spec.parent.parent) for spec in run_folder.glob(f"**/model/{SPEC}"))
        hint = f"; finished models below it: {', '.join(finished)}" if finished else ""
        raise FileNotFoundError(f"{run_folder} holds no finished model{hint}")
    try:
        plain = json.loads((folder / SPEC).read_text(encoding="utf-8"))
    except ValueError as error:
        raise _damaged(folder / SPEC, error) from error
    if not isinstance(plain, dict) or "kind" not in plain:
        raise _damaged(folder / SPEC, "it does not describe a model")
    return folder, plain


def read_arrays(folder: Path, plain: Mapping[str, Any]) -> PyTree:
    """The arrays of the model in ``folder``, whose ``spec.json`` holds ``plain``, as nested dicts of numpy arrays.

    Models written before version 2 keep them in a folder ``arrays``, of Orbax.

    Raises:
      ValueError: when they are damaged or missing; names the file.
    """
    if "arrays" not in plain:
        try:
            return load_tree(folder / "arrays")
        except (ValueError, OSError) as error:
            raise _damaged(folder / "arrays", error) from error
    file = folder / Path(str(plain["arrays"]["file"])).name
    try:
        content = file.read_bytes()
    except OSError as error:
        raise _damaged(file, error) from error
    if hashlib.sha256(content).hexdigest() != plain["arrays"]["sha256"]:
        raise _damaged(file, f"its digest is not the one in {SPEC}")
    return _unpack(content)


def is_whole(run_folder: Path | str) -> bool:
    """Whether a finished model lies in ``run_folder``, undamaged. Its arrays are read; no code that it names runs."""
    try:
        read_arrays(*read_model(run_folder))
    except (OSError, ValueError):
        return False
    return True


def _unpack(content: bytes) -> PyTree:
    from safetensors.numpy import load

    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    leaves = load(content)
    return jax.tree.map(lambda name: leaves[name], json.loads(header["__metadata__"]["structure"]))


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _damaged(file: Path, why: object) -> ValueError:
    return ValueError(
        f"{file} is damaged: {why}. The command that trained the model heals it from its checkpoints, when it is run "
        "again; or copy the file anew"
    )
