"""report.md: what a run did and what came out, to be read on its own."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from metarep_jax.files import atomic_write
from metarep_jax.report.labels import main_and_modes
from metarep_jax.report.results import Result
from metarep_jax.report.tables import device_text, duration, markdown_table

CAPTIONS = {
    "views": "Training images, and the augmented views that stage 1 learns from.",
    "episode": "One training episode: what is adapted on, and what is judged.",
    "curves": "Training, stage by stage.",
    "embedding": "Features of classes that were never seen in training.",
    "layers": "How similar each layer is to what it was: high where features are reused, low where they are new.",
    "occlusion": "What the adapted model looks at: red where covering a square costs the right answer probability.",
    "masked_words": "Words hidden from texts that were not trained on, and what the model takes them for.",
    "reconstructions": "Images of unseen classes, and what the decoder makes of their features.",
    "interpolations": "What is decoded on the straight line between two images' latents.",
    "samples": "What is decoded from latents drawn from the prior.",
    "bars": "Accuracy on unseen classes, with 95% intervals.",
}


def write_report(folder: Path | str, result: Result, figure_paths: Sequence[Path], notes: Sequence[str]) -> Path:
    """Writes ``report.md`` into ``folder``; figures are linked relative to it. Returns its path."""
    folder = Path(folder)
    main, modes = main_and_modes(result.cells)
    parts = [f"# {result.name}", f"Protocol: {result.protocol}", markdown_table(main)]
    if notes:
        parts.append("\n".join(f"- {note}" for note in notes))
    for path in _final_first(figure_paths):
        caption = CAPTIONS.get(Path(path).stem, Path(path).stem.replace("_", " "))
        parts.append(f"![{caption}]({Path(os.path.relpath(path, folder)).as_posix()})\n\n*{caption}*")
    if modes:
        parts += [
            "## Under other batch-norm statistics",
            "In brackets: whose statistics batch norm used for the queries. Compare rows of one mode only.",
            markdown_table(modes),
        ]
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    parts += [
        "## How it was run",
        f"```\n{result.command}\n```",
        "\n".join(
            [
                f"- commit: {result.commit or 'not a git checkout'}",
                f"- seeds: {', '.join(map(str, result.seeds))}",
                f"- device: {device_text(result)}",
                f"- time: {duration(result.wall_clock_s)}",
                f"- versions: {versions}",
            ]
        ),
        "<details><summary>config</summary>",
        f"```json\n{json.dumps(result.config, indent=2, ensure_ascii=False)}\n```",
        "</details>",
    ]
    path = folder / "report.md"
    atomic_write(path, "\n\n".join(parts) + "\n")
    return path


def _final_first(paths: Sequence[Path]) -> list[Path]:
    """The bar chart shows the outcome, so it comes first."""
    return sorted(paths, key=lambda path: Path(path).stem != "bars")
