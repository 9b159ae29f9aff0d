"""Draw the tables and numbers of the Markdown pages anew from experiments/results.

    python -m experiments.readme            # or: make tables
    python -m experiments.readme --check    # only says whether anything would change

A test keeps the committed pages in agreement with the committed result files.
"""

from pathlib import Path

import tyro

from metarep_jax.files import atomic_write
from metarep_jax.report.readme import read_results, redrawn

ROOT = Path(__file__).parents[1]
PAGES = (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "experiments" / "README.md",
    ROOT / "experiments" / "results" / "README.md",
    ROOT / "experiments" / "benchmarks" / "README.md",
)


def main(
    pages: tuple[Path, ...] = PAGES, results: Path = ROOT / "experiments" / "results", check: bool = False
) -> None:
    """Draws the tables anew.

    Args:
      pages: the Markdown files with markers.
      results: folder of result files.
      check: change nothing; exit with status 1 where something would change.
    """
    measured = read_results(results)
    drawn = {page: redrawn(page.read_text(encoding="utf-8"), measured) for page in pages}
    changed = {page: text for page, text in drawn.items() if text != page.read_text(encoding="utf-8")}
    names = ", ".join(str(page.relative_to(ROOT) if page.is_relative_to(ROOT) else page) for page in changed)
    if changed and check:
        raise SystemExit(f"differ from the result files: {names}; run python -m experiments.readme")
    for page, text in changed.items():
        atomic_write(page, text)
    print(f"drawn anew: {names}" if changed else "all pages agree with the result files")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
