"""Words for the names in result files: rows, columns, and numbers with their intervals."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from metarep_jax.report.published import is_published
from metarep_jax.report.results import Cell, Cells

ROWS = {
    "untrained": "untrained encoder",
    "pretrained": "pretrained, no labels",
    "pretrained_logistic": "pretrained, logistic regression",
    "meta_scratch": "meta-learned from scratch",
    "meta_pretrained": "meta-learned after pretraining",
    "meta_learned": "meta-learned",
    "maml_scratch": "MAML from scratch",
    "maml_pretrained": "MAML after pretraining",
    "student": "distilled student",
    "maml": "MAML",
    "first_order_maml": "MAML, first order",
    "anil": "ANIL",
    "boil": "BOIL",
    "meta_sgd": "Meta-SGD",
    "meta_curvature": "Meta-Curvature",
    "maml_pp": "MAML++",
    "imaml": "iMAML",
    "cavia": "CAVIA",
    "reptile": "Reptile",
    "reptile_transductive": "Reptile, transductive",
    "prototypical": "Prototypical Networks",
    "matching": "Matching Networks",
    "matching_full_context": "Matching Networks, full context",
    "relation": "Relation Networks",
    "ridge": "R2-D2 (ridge regression)",
    "newton_logistic": "LR-D2 (logistic regression)",
    "svm": "MetaOptNet (support vectors)",
    "untrained_transformer": "untrained Transformer",
    "untrained_patches": "untrained encoder of patches",
    "autoencoder": "autoencoder",
    "denoising_autoencoder": "denoising autoencoder",
    "vae": "VAE",
    "mae": "masked autoencoder",
    "cpc": "CPC",
    "cpc_across": "CPC, negatives across recordings",
    "cpc_within": "CPC, negatives within a recording",
    "log_mel": "log-mel energies",
    "rotation": "rotation prediction",
    "simclr": "SimCLR",
    "moco": "MoCo v2",
    "moco_v3": "MoCo v3",
    "byol": "BYOL",
    "simsiam": "SimSiam",
    "barlow": "Barlow Twins",
    "vicreg": "VICReg",
    "dino": "DINO",
    "swav": "SwAV",
    "psco": "PsCo",
    "umtra": "tasks from augmentations (UMTRA)",
    "cactus": "tasks from clusters (CACTUs)",
    "best": "our best",
    "supcon": "SupCon, with labels",
    "base": "SimCLR",
    "wider_views": "views turned further, bent less",
    "weaker_views": "views only nudged",
    "strokes": "thicker and thinner strokes",
    "turned_images": "quarter turns as images",
    "batch_512": "512 images a step",
    "queue": "a queue of 4,096 (MoCo v2)",
    "neighbours": "neighbours as partners",
    "pooled": "max-pooling for strides",
    "width_128": "twice the channels",
    "averaged_weights": "weights averaged",
    "projector_kept": "the projector kept",
    "centred_only": "not whitened",
    "less_whitened": "less whitened",
    "views_8": "8 views averaged",
    "views_32": "32 views averaged",
    "self_distilled": "a new encoder, by distillation",
    "k_means_round": "a round on k-means clusters",
    "round_1": "a round on dense clusters",
    "round_2": "two rounds",
    "round_3": "three rounds",
    "round_3_less_whitened": "three rounds, less whitened",
    "round_3_views_32": "three rounds, 32 views averaged",
    "pooled_round": "max-pooling and a round, less whitened",
    "from_scratch": "from scratch",
    "pretrained_first": "after pretraining without labels",
    "prototypical_scratch": "Prototypical Networks from scratch",
    "masked_lm": "masked language model, no labels",
    "masked_lm_prototypical": "masked language model, then Prototypical Networks",
}
NAMES = {"banking77": "BANKING77", "clinc150": "CLINC150", "rotations": "rotations,"}  # before a column's way and shot
PROBES = {"speaker": "speaker", "digit": "digit", "digit_unseen_speaker": "digit, unseen speaker"}  # columns
_EPISODE = re.compile(r"(?:(\w+)_)?(\d+)w(\d+)s")
_SHOTS = re.compile(r"(\d+)shot")
_MODE = re.compile(r"(.+) \((running|support|one_query|transductive)\)")


def row_label(row: str) -> str:
    """``meta_scratch`` → "meta-learned from scratch"; a batch-norm mode in brackets is kept."""
    base, mode = split_mode(row)
    words = ROWS.get(base, base.replace("_", " "))
    return f"{words} ({mode.replace('_', ' ')})" if mode else words


def column_label(column: str) -> str:
    """``5w1s`` → "5-way 1-shot", ``banking77_5w1s`` → "BANKING77 5-way 1-shot", ``5shot`` → "5-shot"."""
    if match := _EPISODE.fullmatch(column):
        what = f"{NAMES.get(match[1], match[1].replace('_', ' '))} " if match[1] else ""
        return f"{what}{match[2]}-way {match[3]}-shot"
    match = _SHOTS.fullmatch(column)
    return f"{match[1]}-shot" if match else PROBES.get(column, column.replace("_", " "))


def is_accuracy(column: str) -> bool:
    """Whether a column holds accuracies in %: of episodes (``5w1s``), of a fixed set (``12 classes``) or of a probe."""
    return bool(_EPISODE.fullmatch(column)) or column.endswith(" classes") or column in PROBES


def higher_is_better(column: str) -> bool:
    """Accuracies and returns (``1 update``, ``3 updates``) are better high; errors and times low."""
    return is_accuracy(column) or column.endswith((" update", " updates"))


def chance(column: str) -> float | None:
    """Accuracy in % of guessing, for a column of episodes."""
    match = _EPISODE.fullmatch(column)
    return 100.0 / int(match[2]) if match else None


def split_mode(row: str) -> tuple[str, str | None]:
    """A row and the batch-norm mode in its name: ``student (support)`` → ("student", "support")."""
    match = _MODE.fullmatch(row)
    return (match[1], match[2]) if match else (row, None)


def main_and_modes(cells: Cells) -> tuple[Cells, Cells]:
    """The rows under each learner's own statistics, and those under other batch-norm modes."""
    modes = {row: columns for row, columns in cells.items() if split_mode(row)[1] and split_mode(row)[0] in cells}
    return {row: columns for row, columns in cells.items() if row not in modes}, modes


def columns_of(cells: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Columns in the order in which they first appear, ``parameters`` last; published numbers stand beside ours."""
    found = dict.fromkeys(column for columns in cells.values() for column in columns if not is_published(column))
    return sorted(found, key=lambda column: column == "parameters")


def number(value: float | int, column: str = "") -> str:
    """A number as tables print it: whole with thousands apart for counts, else with two decimals, one from 100 on."""
    if column == "parameters":
        return f"{round(value):,}"
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 100 else f"{value:.2f}"


def cell_text(cell: Cell | None, column: str) -> str:
    """``98.12 ± 0.21``; a dash where there is no cell."""
    if cell is None:
        return "–"
    text = number(cell["mean"], column)
    if cell["ci95"] is None or column == "parameters":
        return text
    decimals = len(text.partition(".")[2])
    return f"{text} ± {cell['ci95']:.{decimals}f}"


def best_rows(cells: Cells, column: str, rows: Iterable[str]) -> set[str]:
    """The rows with the highest accuracy in a column of accuracies; none for other columns."""
    if not is_accuracy(column):
        return set()
    means = {row: cells[row][column]["mean"] for row in rows if column in cells[row]}
    return {row for row, mean in means.items() if mean == max(means.values())} if len(means) > 1 else set()
