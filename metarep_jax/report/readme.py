"""Tables and numbers inside Markdown pages, drawn from result files between markers, so that nobody types them.

<!-- table: omniglot_pipeline -->
… replaced by the table of the result of that name, and what its numbers are …
<!-- end table -->

<!-- settings: omniglot_supervised -->
… how each row of that result was made …
<!-- end settings -->

<!-- overview
omniglot_pipeline | the three stages on Omniglot | student / 5w1s | link
-->
… a table of many results, a line each …
<!-- end overview -->

<!-- grid
what | ours | PyTorch
SimCLR | contrastive_step / ours / views | contrastive_step / best_peer / views
-->
… a table whose cells are picked out of many results …
<!-- end grid -->

<!-- value: omniglot_pipeline / student / 5w1s -->97.9%<!-- end -->                        a cell
<!-- value: omniglot_pipeline / student minus meta_pretrained / 5w1s -->…<!-- end -->      the difference of two
<!-- value: omniglot_pipeline / wall_clock -->41 min<!-- end -->                           the time of the run
"""

import re
from collections.abc import Mapping
from pathlib import Path

from metarep_jax.report.how_made import facts_table, settings_table
from metarep_jax.report.labels import cell_text, column_label, is_accuracy, main_and_modes, number, row_label
from metarep_jax.report.results import Cell, Result, difference, read_result
from metarep_jax.report.tables import duration, escaped_cell, markdown_table, published_beside

ABSENT = "not measured yet"
_TABLE = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end table -->)", re.DOTALL)
_SETTINGS = re.compile(r"(<!-- settings: (\S+) -->\n).*?(<!-- end settings -->)", re.DOTALL)
_OVERVIEW = re.compile(r"(<!-- overview\n(.*?)-->\n).*?(<!-- end overview -->)", re.DOTALL)
_GRID = re.compile(r"(<!-- grid\n(.*?)-->\n).*?(<!-- end grid -->)", re.DOTALL)
_VALUE = re.compile(r"(<!-- value: ([^>]+?) -->).*?(<!-- end -->)", re.DOTALL)


def read_results(folder: Path | str) -> dict[str, Result]:
    """The result files of a folder, by name.

    Raises:
      ValueError: for a file that does not follow the schema, or that is not called by the name in it.
    """
    results = {path.stem: read_result(path) for path in sorted(Path(folder).glob("*.json"))}
    for name, result in results.items():
        if result.name != name:
            raise ValueError(f"{name}.json holds the result {result.name!r}; name the file {result.name}.json")
    return results


def redrawn(text: str, results: Mapping[str, Result]) -> str:
    """``text`` with everything between markers drawn anew; results that are absent are said to be not measured yet.

    Raises:
      ValueError: for a marker that asks for a row or column that its result does not have.
    """
    text = _TABLE.sub(lambda match: match[1] + table(match[2], results) + "\n" + match[3], text)
    text = _SETTINGS.sub(lambda match: match[1] + settings(match[2], results) + "\n" + match[3], text)
    text = _OVERVIEW.sub(lambda match: match[1] + overview(match[2], results) + "\n" + match[3], text)
    text = _GRID.sub(lambda match: match[1] + grid(match[2], results) + "\n" + match[3], text)
    return _VALUE.sub(lambda match: match[1] + value(match[2], results) + match[3], text)


def table(name: str, results: Mapping[str, Result]) -> str:
    """The Markdown table of a result, without batch-norm modes beside each row's own, and what its numbers are."""
    if name not in results:
        return f"\n*{ABSENT}*\n"
    main, _ = main_and_modes(results[name].cells)
    return f"\n{markdown_table(main)}\n\n{facts_table(results[name])}\n"


def settings(name: str, results: Mapping[str, Result]) -> str:
    """The Markdown table of how each row of a result was made."""
    return f"\n{settings_table(results[name])}\n" if name in results else f"\n*{ABSENT}*\n"


def overview(lines: str, results: Mapping[str, Result]) -> str:
    """A Markdown table of many results: what, command, hardware, time, one of its cells, a link.

    Args:
      lines: a result a line, ``NAME | what it is | ROW / COLUMN | link``.
      results: by name.

    Raises:
      ValueError: for a line of another form, or a cell that its result does not have.
    """
    rows = [["what", "command", "hardware", "time", "result", ""], ["---"] * 6]
    for line in filter(str.strip, lines.splitlines()):
        name, what, query, link = _split(line, "|", 4, "NAME | what | ROW / COLUMN | link")
        row, column = _split(query, " / ", 2, "ROW / COLUMN")
        if name not in results:
            rows.append([what, "", "", "", ABSENT, f"[details]({link})"])
            continue
        result = results[name]
        cell = _cell(result, row, column)
        command, device = result.command.partition(" --")[0], result.device
        hardware = f"{device.get('count', 1)} × {device.get('kind', '?')} ({device.get('cpu', '?')})"
        number = f"{cell_text(cell, column)}{published_beside(result.cells[row], column)}"
        where = f"{row_label(row)}, {column_label(column)}"
        time = duration(result.wall_clock_s)
        rows.append([what, f"`{command}`", hardware, time, f"{where}: {number}", f"[details]({link})"])
    return "\n" + "\n".join("| " + " | ".join(map(escaped_cell, row)) + " |" for row in rows) + "\n"


def grid(lines: str, results: Mapping[str, Result]) -> str:
    """A Markdown table whose cells are picked out of many results.

    Args:
      lines: the heads of its columns, then a row a line: ``words | NAME / ROW / COLUMN | …``; an empty cell stays so.
      results: by name.

    Raises:
      ValueError: for a line of another form, or a cell that its result does not have.
    """
    head, *rows = [[part.strip() for part in line.split("|")] for line in filter(str.strip, lines.splitlines())]
    table = [head, ["---", *["---:"] * (len(head) - 1)]]
    for words, *queries in rows:
        if len(queries) != len(head) - 1:
            raise ValueError(f"the row {words!r} has {len(queries)} cells, the table's columns are {', '.join(head)}")
        table.append([words, *(_picked(query, results) if query else "" for query in queries)])
    return "\n" + "\n".join("| " + " | ".join(map(escaped_cell, row)) + " |" for row in table) + "\n"


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


def _picked(query: str, results: Mapping[str, Result]) -> str:
    name, row, column = _split(query, " / ", 3, "NAME / ROW / COLUMN")
    return cell_text(_cell(results[name], row, column), column) if name in results else ABSENT


def _split(text: str, mark: str, parts: int, form: str) -> list[str]:
    words = [word.strip() for word in text.split(mark)]
    if len(words) != parts:
        raise ValueError(f"{text.strip()!r} should be {form}")
    return words
