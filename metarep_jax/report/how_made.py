"""Short Markdown tables below a table of results: what its numbers are, and how each row was made."""

import re
from collections.abc import Mapping
from typing import Any

from metarep_jax.report.labels import column_label, row_label
from metarep_jax.report.results import Result
from metarep_jax.report.tables import (
    IN_BRACKETS,
    device_text,
    duration,
    escaped_cell,
    has_published,
    what_numbers_are,
)

SETTINGS = ("protocol", "norm", "seeds", "steps", "tasks", "time", "device", "published", "note")  # of a row's cells
ABSENT = "–"


def facts_table(result: Result) -> str:
    """What the numbers are, a line each: protocol, episodes and seeds, device, time, command, commit."""
    facts = {
        "protocol": result.protocol.strip().replace("; ", ";<br>"),
        "numbers": what_numbers_are(result),
        "in brackets": IN_BRACKETS if has_published(result) else "",
        "device, time": f"{device_text(result)}, {duration(result.wall_clock_s)}",
        "command": f"`{result.command}`",
        "commit": f"`{result.commit[:10]}`" if result.commit else "",
    }
    lines = [f"| {name} | {escaped_cell(text)} |" for name, text in facts.items() if text]
    return "\n".join([lines[0], "| --- | --- |", *lines[1:]])


def settings_table(result: Result) -> str:
    """How each row was made, out of ``config["cells"][row][column]``.

    A row of the result has one line, or a line for each group of its columns that were made alike, which the first cell
    then names. What all lines share is said once, before the table.
    """
    details: Mapping[str, Mapping[str, Mapping[str, Any]]] = result.config.get("cells", {})
    lines = [(label, cell) for row, columns in details.items() for label, cell in _groups(row, columns)]
    names = [name for name in SETTINGS if any(cell[name] != ABSENT for _, cell in lines)]
    shared = {name: lines[0][1][name] for name in names if len({cell[name] for _, cell in lines}) == 1}
    shared = {} if len(lines) == 1 else shared
    names = [name for name in names if name not in shared]
    rows = [[label, *(cell[name] for name in names)] for label, cell in lines]
    table = ["|  | " + " | ".join(names) + " |", "| --- " * (len(names) + 1) + "|"]
    table += ["| " + " | ".join(map(escaped_cell, row)) + " |" for row in rows]
    said = ", ".join(f"{name} {text}" for name, text in shared.items())
    return "\n".join([f"All rows: {said}.\n"] * bool(said) + table)


def _groups(row: str, columns: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, dict[str, str]]]:
    """The row's label, with the columns where there are several groups, and each group's settings as text."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for column, cell in columns.items():
        texts = {name: str(cell.get(name, ABSENT)) for name in SETTINGS}
        texts["note"] = re.sub(r"([,;]) ", r"\1<br>", texts["note"])  # a fact a line
        groups.setdefault(tuple(texts.values()), []).append(column)
    named = [", ".join(map(column_label, group)) if len(groups) > 1 else "" for group in groups.values()]
    return [
        (", ".join(filter(None, (row_label(row), name))), dict(zip(SETTINGS, texts, strict=True)))
        for texts, name in zip(groups, named, strict=True)
    ]
