"""The result file: one schema for every experiment, table and benchmark, written and read here."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, TypedDict

import cattrs

from metarep_jax.files import atomic_write
from metarep_jax.report.provenance import commit_of_code, device_of_run, versions_of_run


class Cell(TypedDict):
    """One measured number: accuracies in %, times in ms, ratios plain.

    ``ci95`` is the half-width of the 95% interval, None where the number is exact or was measured once; ``n`` is the
    number of measurements (episodes, repetitions).
    """

    mean: float
    ci95: float | None
    n: int


Cells = dict[str, dict[str, Cell]]


def difference(one: Cell, other: Cell) -> tuple[float, float]:
    """How much larger one number is, and the half-width of the interval of that, as of independent numbers."""
    return one["mean"] - other["mean"], ((one["ci95"] or 0.0) ** 2 + (other["ci95"] or 0.0) ** 2) ** 0.5


@dataclasses.dataclass(frozen=True)
class Result:
    """What was run, on what, and what came out.

    ``cells`` is ``{row: {column: Cell}}``; a row need not have every column. ``commit`` ends in "+dirty" when the
    code differed from the commit, and is None outside a git checkout.
    """

    name: str
    command: str
    config: dict[str, Any]
    protocol: str
    seeds: list[int]
    commit: str | None
    versions: dict[str, str]
    device: dict[str, Any]
    wall_clock_s: float
    cells: Cells


def make_result(
    *,
    name: str,
    command: str,
    config: Mapping[str, Any],
    protocol: str,
    seeds: Sequence[int],
    cells: Mapping[str, Mapping[str, Any]],
    wall_clock_s: float | int,
) -> Result:
    """A ``Result`` with the commit, library versions and device of this process filled in.

    Absolute paths in ``config`` are cut to their last part, so that a result says nothing about the machine's folders.

    Raises:
      ValueError: when a cell lacks a field or holds something that is not a finite number; names row and column.
    """
    return _structured(
        {
            "name": name,
            "command": command,
            "config": _plain(config),
            "protocol": protocol,
            "seeds": list(seeds),
            "commit": commit_of_code(),
            "versions": versions_of_run(),
            "device": device_of_run(),
            "wall_clock_s": round(float(wall_clock_s), 3),
            "cells": {row: {column: dict(cell) for column, cell in columns.items()} for row, columns in cells.items()},
        },
        f"result {name!r}",
    )


def write_result(path: Path | str, result: Result) -> None:
    """Writes ``result`` to ``path`` as JSON, whole or not at all."""
    text = json.dumps(dataclasses.asdict(result), indent=2, ensure_ascii=False, allow_nan=False)
    atomic_write(path, text + "\n")


def read_result(path: Path | str) -> Result:
    """The result file at ``path``.

    Raises:
      FileNotFoundError: when there is none.
      ValueError: when it is not JSON or does not follow the schema; names the file and each field at fault.
    """
    path = Path(path)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not a result file: no valid JSON ({error})") from error
    return _structured(found, str(path))


def _structured(found: Any, what: str) -> Result:
    if not isinstance(found, dict):
        raise ValueError(f"{what} is not a result file: expected an object, got {type(found).__name__}")
    try:
        result = _converter().structure(found, Result)
    except cattrs.BaseValidationError as error:
        raise ValueError(f"{what} does not follow the schema: {'; '.join(_messages(error))}") from error
    for row, columns in result.cells.items():
        for column, cell in columns.items():
            if not math.isfinite(cell["mean"]) or cell["n"] < 1:
                raise ValueError(
                    f"{what}: cell {row!r}, {column!r} needs a finite mean and n of at least 1, got {cell}"
                )
            if cell["ci95"] is not None and not cell["ci95"] >= 0:
                raise ValueError(f"{what}: cell {row!r}, {column!r} has the interval {cell['ci95']}")
    return result


def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True)

    def exactly(kind: type, *also: type) -> None:
        def structure(value: Any, _: Any) -> Any:
            if isinstance(value, bool) or not isinstance(value, (kind, *also)):
                raise TypeError(f"expected {kind.__name__}, got {value!r}")
            return kind(value)

        converter.register_structure_hook(kind, structure)

    exactly(str)
    exactly(int)
    exactly(float, int)
    return converter


def _messages(error: Exception) -> list[str]:
    def worded(problem: BaseException, kind: Any) -> str:
        return cattrs.v.format_exception(problem, kind) if not isinstance(problem, TypeError) else str(problem)

    return [message.replace(" @ $.", " in ") for message in cattrs.transform_error(error, format_exception=worded)]


def _plain(value: Any) -> Any:
    """``value`` in JSON's types, absolute paths cut to their last part."""
    if isinstance(value, Mapping):
        return {str(name): _plain(child) for name, child in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(child) for child in value]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    text = str(value)
    return PurePath(text).name if text.startswith("/") else text
