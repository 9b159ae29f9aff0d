"""A table's cells that are kept, one file each, and those of new folders added to them."""

import shutil
from collections.abc import Collection, Sequence
from pathlib import Path

from metarep_jax.report.cells import best_of, merged, read_cells
from metarep_jax.report.migrate import migrated_settings
from metarep_jax.report.results import Result, write_result


def add_cells(
    results: Path,
    table: str,
    folders: Sequence[Path],
    *,
    data: Collection[str],
    rows: Sequence[str],
    columns: Sequence[str],
    command: str,
    protocol: str,
) -> Result:
    """Adds the finished cells below ``folders`` to those in ``results``, and writes and returns the table of them all.

    Of two cells of one row and column, the better measured one is kept; see ``best_of``. Those of trials do not count.

    Args:
      results: cells are kept below its ``cells``, the table in it.
      table: its name.
      folders: to search for cells.
      data: names of the data sets whose cells count.
      rows, columns: of the table, in order.
      command, protocol: what the table says of itself.
    """
    kept = results / "cells" / table

    def those_that_count(folders: Sequence[Path]) -> list[Result]:
        cells = read_cells(table, folders)
        return [c for c in cells if c.config["budget"] != "trial" and migrated_settings(c).get("data") in data]

    best = best_of(those_that_count(folders), those_that_count([kept]) if kept.is_dir() else [])
    result = merged(table, list(best.values()), rows, columns, command=command, protocol=protocol)
    for (row, column), cell in best.items():
        write_result(kept / f"{row}_{column}.json", cell)
    write_result(results / f"{table}.json", result)
    return result


def copy_pictures(results: Path, table: str, folders: Sequence[Path]) -> None:
    """Copies the figures below ``folders`` to ``results``, under the table's name; those of the longer budget stay."""
    for budget in ("short", "full"):
        pictures = (each for place in folders for each in place.rglob(f"{budget}/figures/*.png"))
        for path in sorted(pictures):
            shutil.copyfile(path, results / "figures" / f"{table}_{path.name}")
