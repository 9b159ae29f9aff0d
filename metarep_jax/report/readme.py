"""Tables and numbers inside a Markdown text, drawn from result files between markers, so that nobody types them.

<!-- table: omniglot_pipeline -->
… replaced by the table of the result of that name …
<!-- end table -->

<!-- settings: omniglot_supervised -->
… how each row of that result was made …
<!-- end settings -->

<!-- value: omniglot_pipeline / student / 5w1s -->97.9%<!-- end -->                        a cell
<!-- value: omniglot_pipeline / student minus meta_pretrained / 5w1s -->…<!-- end -->      the difference of two
<!-- value: omniglot_pipeline / wall_clock -->41 min<!-- end -->                           the time of the run
"""

import re
from collections.abc import Mapping
from pathlib import Path

from metarep_jax.report.labels import is_accuracy, main_and_modes, number
from metarep_jax.report.results import Cell, Result, difference, read_result
from metarep_jax.report.tables import caption, duration, markdown_table, settings_table

ABSENT = "not measured yet"
_TABLE = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end table -->)", re.DOTALL)
_SETTINGS = re.compile(r"(<!-- settings: (\S+) -->\n).*?(<!-- end settings -->)", re.DOTALL)
_VALUE = re.compile(r"(<!-- value: ([^>]+?) -->).*?(<!-- end -->)", re.DOTALL)


def read_results(folder: Path | str) -> dict[str, Result]:
    """The result files of a folder, by name.

    Raises:
      ValueError: for a file that does not follow the schema, or that is not called by the name in it.
    """
    found = {path.stem: read_result(path) for path in sorted(Path(folder).glob("*.json"))}
    for name, result in found.items():
        if result.name != name:
            raise ValueError(f"{name}.json holds the result {result.name!r}; name the file {result.name}.json")
    return found


def redrawn(text: str, results: Mapping[str, Result]) -> str:
    """``text`` with everything between markers drawn anew; results that are absent are said to be not measured yet.

    Raises:
      ValueError: for a marker that asks for a row or column that its result does not have.
    """
    text = _TABLE.sub(lambda found: found[1] + table(found[2], results) + "\n" + found[3], text)
    text = _SETTINGS.sub(lambda found: found[1] + settings(found[2], results) + "\n" + found[3], text)
    return _VALUE.sub(lambda found: found[1] + value(found[2], results) + found[3], text)


def table(name: str, results: Mapping[str, Result]) -> str:
    """The Markdown table of a result with what it was measured on; batch-norm modes beside each row's own left out."""
    if name not in results:
        return f"\n*{ABSENT}*\n"
    result = results[name]
    main, _ = main_and_modes(result.cells)
    commit = f", commit `{result.commit[:10]}`" if result.commit else ""
    return f"\n{markdown_table(main)}\n\n<sub>{caption(result)}; `{result.command}`{commit}</sub>\n"


def settings(name: str, results: Mapping[str, Result]) -> str:
    """The Markdown table of how each row of a result was made."""
    return f"\n{settings_table(results[name])}\n" if name in results else f"\n*{ABSENT}*\n"


def value(query: str, results: Mapping[str, Result]) -> str:
    """A number for a sentence: ``NAME / ROW / COLUMN``, ``NAME / ROW minus OTHER / COLUMN``, ``NAME / wall_clock``."""
    name, *rest = (part.strip() for part in query.split(" / "))
    if len(rest) not in (1, 2) or (len(rest) == 1 and rest != ["wall_clock"]):
        raise ValueError(f"the marker {query!r} should be NAME / ROW / COLUMN or NAME / wall_clock")
    if name not in results:
        return ABSENT
    if len(rest) == 1:
        return duration(results[name].wall_clock_s)
    rows, column = rest
    cells = [_cell(results[name], row, column) for row in rows.split(" minus ")]
    if len(cells) == 1:
        return f"{cells[0]['mean']:.1f}%" if is_accuracy(column) else number(cells[0]["mean"], column)
    gain, margin = difference(*cells)
    return f"{gain:+.1f} ± {margin:.1f} points" if is_accuracy(column) else f"{gain:+,.4g}"


def _cell(result: Result, row: str, column: str) -> Cell:
    if row not in result.cells or column not in result.cells[row]:
        has = ", ".join(result.cells.get(row, result.cells))
        raise ValueError(f"{result.name} has no cell {row!r}, {column!r}; it has {has}")
    return result.cells[row][column]
