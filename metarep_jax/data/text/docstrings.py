"""Docstrings: what Python's own standard library says about itself. Needs no download.

A class is a top-level module or package; its examples are the documentation strings in its source. They differ a
little from one version of Python to the next.
"""

import ast
import logging
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from metarep_jax.data.array_cache import cached, digest
from metarep_jax.data.text.named_texts import Texts

log = logging.getLogger(__name__)
LEAST = 20  # docstrings of a class: 5 shots and 15 queries
LEAST_WORDS = 4
LEFT_OUT = frozenset({"test", "tests", "idlelib", "lib2to3", "site-packages", "dist-packages", "__pycache__"})
VERSION = 1  # of what is taken: another number makes caches anew


def load_docstrings(cache_dir: Path) -> Texts:
    """The docstrings; read in a few seconds at first, then from ``cache_dir``.

    Raises:
      FileNotFoundError: where Python came without the source of its library.
    """
    key = digest([VERSION, sys.version, LEAST, LEAST_WORDS])

    def read() -> dict[str, np.ndarray]:
        found = read_docstrings(Path(sysconfig.get_path("stdlib")))
        names = sorted(found)
        lines = [line for name in names for line in found[name]]
        label = np.repeat(np.arange(len(names), dtype=np.int32), [len(found[name]) for name in names])
        return {"lines": np.array(["\n".join(lines)]), "label": label, "names": np.array(names)}

    arrays = cached(cache_dir, "docstrings", key, read)
    names = tuple(arrays["names"].tolist())
    return Texts(arrays["lines"][0].split("\n"), arrays["label"], names, ("",) * len(names), False)


def read_docstrings(folder: Path) -> dict[str, list[str]]:
    """Docstrings by module, on one line each, without those that several modules share. Nothing is imported.

    Raises:
      FileNotFoundError: when there are no source files in ``folder``.
    """
    found: dict[str, dict[str, None]] = {}
    for file in sorted(folder.rglob("*.py")):
        places = file.relative_to(folder).with_suffix("").parts
        if LEFT_OUT.isdisjoint(places):
            found.setdefault(places[0], {}).update(dict.fromkeys(docstrings_of(file)))
    if not found:
        raise FileNotFoundError(
            f"docstrings need the source of Python's standard library, and {folder} holds none; use a Python that has "
            "it, or another text (--data text --data.data-dir DIR)"
        )
    owners: dict[str, int] = {}
    for lines in found.values():
        for line in lines:
            owners[line] = owners.get(line, 0) + 1
    own = {name: [line for line in lines if owners[line] == 1] for name, lines in found.items()}
    kept = {name: lines for name, lines in own.items() if len(lines) >= LEAST}
    log.info("docstrings: %d modules of Python %s have %d or more", len(kept), sys.version.split()[0], LEAST)
    return kept


def docstrings_of(file: Path) -> Iterator[str]:
    """The docstrings in a source file, of at least a few words, each on one line."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, OSError):  # samples of bad source, for the library's own tests
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            words = (ast.get_docstring(node, clean=False) or "").split()
            if len(words) >= LEAST_WORDS:
                yield " ".join(words)
