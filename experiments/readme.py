"""Draw the tables and numbers of README.md anew from experiments/results.

    python -m experiments.readme            # or: make tables
    python -m experiments.readme --check    # only says whether anything would change

A test keeps the committed README.md in agreement with the committed result files.
"""

from pathlib import Path

import tyro

from metarep_jax.files import atomic_write
from metarep_jax.report.readme import read_results, redrawn

ROOT = Path(__file__).parents[1]


def main(
    readme: Path = ROOT / "README.md", results: Path = ROOT / "experiments" / "results", check: bool = False
) -> None:
    """Draws the tables anew.

    Args:
      readme: the Markdown file with markers.
      results: folder of result files.
      check: change nothing; exit with status 1 where something would change.
    """
    before = readme.read_text(encoding="utf-8")
    after = redrawn(before, read_results(results))
    if before == after:
        print(f"{readme.name} agrees with the result files")
    elif check:
        raise SystemExit(f"{readme.name} differs from the result files; run python -m experiments.readme")
    else:
        atomic_write(readme, after)
        print(f"{readme.name} drawn anew")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
