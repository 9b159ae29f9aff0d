"""What there is to do for a table: its pieces, how long they take, and which are done."""

from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Group
from rich.table import Table

from metarep_jax.report.pieces import Piece, is_finished


def plan_table(pieces: Sequence[Piece], folder: Path, seeds: int) -> Group:
    """Protocol, steps, minutes for 2 CPU cores, and what is done, of each piece; then the hours.

    Args:
      pieces: of the table.
      folder: of the budget, where finished cells lie.
      seeds: training runs a piece.
    """
    shown = Table("", "protocol", "steps", "minutes", "", box=box.SIMPLE_HEAD, padding=(0, 1))
    shown.columns[0].no_wrap = True
    left = 0.0
    for piece in pieces:
        done = is_finished(piece, folder, seeds)
        left += 0.0 if done else piece.minutes
        protocol = piece.shown.get("protocol", piece.protocol)
        shown.add_row(piece.name, protocol, f"{piece.steps:,}", f"{piece.minutes:.1f}", "done" if done else "")
    total, many = sum(piece.minutes for piece in pieces), f", {seeds} seeds" if seeds > 1 else ""
    hours = f"by estimate {seeds * total / 60:.1f} hours on 2 CPU cores{many}"
    return Group(shown, f"{hours}, {seeds * left / 60:.1f} of them still to be done")
