"""Tables drawn from results, for the terminal and for Markdown."""

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from metarep_jax.report.labels import (
    best_rows,
    cell_text,
    column_label,
    columns_of,
    higher_is_better,
    is_accuracy,
    main_and_modes,
    row_label,
)
from metarep_jax.report.published import is_published, published_column, standing
from metarep_jax.report.results import Cell, Cells, Result

COLUMNS = 5  # at most, side by side in the terminal
IN_BRACKETS = "what was published, ✓ where ours lies within its interval or is better"


def terminal_table(result: Result) -> Group:
    """What the terminal shows: a row a model, means with 95% intervals, the best of each column bold.

    Rows under other batch-norm modes follow in a table of their own, dimmed. Many columns are spread over several
    tables, one below the other, which fit 80 characters.
    """
    main, modes = main_and_modes(result.cells)
    parts = _tables(main, title=result.name)
    if modes:
        parts += _tables(modes, title="with other batch statistics at test", style="dim")
    return Group(*parts, Text(caption(result), style="italic"))


def _tables(cells: Cells, title: str, style: str = "") -> list[Table]:
    columns = columns_of(cells)
    tables = -(-len(columns) // COLUMNS) or 1
    width = -(-len(columns) // tables)
    return [_table(cells, columns[k * width :][:width], "" if k else title, style) for k in range(tables)]


def _table(cells: Cells, columns: Sequence[str], title: str, style: str) -> Table:
    best = {column: set() if style else best_rows(cells, column, cells) for column in columns}
    table = Table(title=title, box=box.SIMPLE_HEAD, title_style="bold", title_justify="left", padding=(0, 0, 0, 1))
    table.add_column("", min_width=14)
    for column in columns:
        table.add_column(escape(column_label(column).replace(" ", "\n", 1)), justify="right", no_wrap=True)
    for row, found in cells.items():
        texts = [cell_text(found.get(column), column).replace(" ± ", "±") for column in columns]
        texts = [f"[bold]{text}[/]" if row in best[column] else text for column, text in zip(columns, texts)]
        beside = [published_beside(found, column).replace(" ± ", "±").replace(" (", "\n(") for column in columns]
        texts = [f"{text}{more}" for text, more in zip(texts, beside)]
        table.add_row(escape(row_label(row)), *texts, style=style)
    return table


def markdown_table(cells: Cells, *, corner: str = "") -> str:
    """A Markdown table of ``cells``, the best of each column of accuracies bold.

    Where a cell has a published number, it follows in brackets, after ✓ when ours lies within its interval or above.
    """
    columns = columns_of(cells)
    best = {column: best_rows(cells, column, cells) for column in columns}
    lines = [
        "| " + " | ".join([corner, *map(escaped_cell, map(column_label, columns))]) + " |",
        "| " + " | ".join(["---", *["---:"] * len(columns)]) + " |",
    ]
    for row, found in cells.items():
        texts = [cell_text(found.get(column), column) for column in columns]
        texts = [f"**{text}**" if row in best[column] else text for column, text in zip(columns, texts)]
        texts = [text + published_beside(found, column) for column, text in zip(columns, texts)]
        lines.append("| " + " | ".join([escaped_cell(row_label(row)), *texts]) + " |")
    return "\n".join(lines)


def published_beside(found: Mapping[str, Cell], column: str) -> str:
    """What was published for a cell, in brackets, and whether ours reaches it; empty where nothing was."""
    published = found.get(published_column(column))
    if published is None:
        return ""
    ours = found.get(column)
    reached = ours is not None and standing(ours, published, higher_is_better=higher_is_better(column)) != "below"
    return f"{' ✓' if reached else ''} ({cell_text(published, column)})"


def caption(result: Result) -> str:
    """One line that says what the numbers are: protocol, episodes, seeds, device, time."""
    parts = [result.protocol.strip(), what_numbers_are(result)]
    if has_published(result):
        parts.append(f"in brackets {IN_BRACKETS}")
    parts.append(f"{device_text(result)}, {duration(result.wall_clock_s)}")
    return "; ".join(part for part in parts if part)


def what_numbers_are(result: Result) -> str:
    """What accuracies are, over how many episodes and seeds; empty where a result has none."""
    main = main_and_modes(result.cells)[0]
    counts = {cell["n"] for row in main.values() for name, cell in row.items() if is_accuracy(name)}
    episodes = f"{_range(counts)} episodes or examples a cell" if counts else ""
    return f"accuracy in % with 95% intervals, {episodes}, {_repeats(result)}" if counts else ""


def has_published(result: Result) -> bool:
    """Whether published numbers stand beside ours."""
    return any(is_published(column) for row in result.cells.values() for column in row)


def device_text(result: Result) -> str:
    """The device in words, such as "2 × cpu (AMD EPYC, 2 cores)"."""
    device = result.device
    kind = f"{device.get('count', 1)} × {device.get('kind', '?')}"
    return f"{kind} ({device.get('cpu', '?')}, {device.get('cores', '?')} cores)"


def duration(seconds: float | int) -> str:
    """``75`` → "1 min 15 s"."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.0f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _repeats(result: Result) -> str:
    """How many seeds stand behind cells; of an evaluation, how many given models."""
    merged, models = result.config.get("cells", {}), result.config.get("model")
    seeds = {cell["seeds"] for row in merged.values() for cell in row.values()} or {len(result.seeds)}
    counts, what = ({len(models)}, "model") if isinstance(models, list | tuple) else (seeds, "seed")
    return f"{_range(counts)} {what}{'s' if max(counts) > 1 else ''}"


def _range(counts: set[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"


def escaped_cell(text: str) -> str:
    """Text as a cell of a Markdown table holds it."""
    return text.replace("|", "\\|")
