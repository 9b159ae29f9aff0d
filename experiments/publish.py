"""Keep a run's result: copy it and its figures to experiments/results, and draw the pages anew.

    python -m experiments.publish runs/pipeline-omniglot omniglot_pipeline --figures bars embedding

The run's configuration, commit and numbers stay as they are; only the result's name becomes that of its file.
"""

import dataclasses
import shutil
from pathlib import Path

import tyro

from experiments.readme import ROOT
from experiments.readme import main as draw_readme
from metarep_jax.report.results import read_result, write_result

RESULTS = ROOT / "experiments" / "results"


def main(run: tyro.conf.Positional[Path], name: tyro.conf.Positional[str], figures: tuple[str, ...] = ()) -> None:
    """Copies a result.

    Args:
      run: folder of a finished run.
      name: of the result, and of its file.
      figures: which of the run's figures to keep beside it, such as bars, as NAME_FIGURE.png.
    """
    run = run.expanduser()
    if not (run / "result.json").is_file():
        raise SystemExit(f"{run} holds no result.json; give the folder of a finished run")
    result = read_result(run / "result.json")
    sources = {figure: run / "figures" / f"{figure}.png" for figure in figures}
    if absent := [figure for figure, path in sources.items() if not path.is_file()]:
        there = ", ".join(sorted(path.stem for path in (run / "figures").glob("*.png"))) or "none"
        raise SystemExit(f"{run} has no figure {', '.join(absent)}; there are: {there}")
    write_result(RESULTS / f"{name}.json", dataclasses.replace(result, name=name))
    for figure, path in sources.items():
        shutil.copyfile(path, RESULTS / "figures" / f"{name}_{figure}.png")
    print(f"{name}: {len(result.cells)} rows, commit {result.commit}")
    draw_readme()


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
