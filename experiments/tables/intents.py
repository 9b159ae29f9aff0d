"""The table of few-shot intents: sentences of unseen classes, told apart by one or five examples of each.

    python -m experiments.tables.intents --plan                   # what there is to do, and how long
    python -m experiments.tables.intents --data-dir DIR           # by its own estimate 48 minutes on 2 CPU cores
    python -m experiments.tables.intents --budget full            # for a GPU
    python -m experiments.tables.intents --rows masked_lm --minutes 20
    python -m experiments.tables.intents --merge runs/tables/intents

Rows: ``untrained``, nearest prototype on a Transformer with random weights; ``prototypical_scratch``, Prototypical
Networks on a fold's training classes; ``masked_lm``, masked language modelling on the sentences of the training classes
of both data sets, without their labels, then nearest prototype on the frozen features; ``masked_lm_prototypical``, from
the same weights, then Prototypical Networks. Columns: BANKING77 and CLINC150, each over the five class folds of
Dopierre et al. 2021. No sentence of a fold's validation and test classes is in what its encoders, its tokenizer and
its whitening are trained on; the best checkpoint of Prototypical Networks is chosen on its validation classes.

Beside the last row stands ProtAugment (https://arxiv.org/abs/2105.12995), an upper reference: its encoder is BERT-base,
pretrained on large corpora, where these rows see 12,000 sentences.

Every training lies in a folder of its own, so that the same command goes on where it was stopped. The two rows with
pretraining share it; its time counts to the row that came first.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from experiments.cli import with_data_dir
from experiments.tables.engine import Table, TableConfig, table_main
from experiments.tables.published import COLUMNS
from metarep_jax.data import DataConfig, Splits
from metarep_jax.data.text.intent_folds import DATA, fold_of
from metarep_jax.data.text.tokens import TextConfig
from metarep_jax.encoders import EncoderConfig
from metarep_jax.evaluate import Interval, interval_over_folds, interval_over_seeds
from metarep_jax.metalearn import LearnerConfig
from metarep_jax.model import Model
from metarep_jax.pretrain import ObjectiveConfig
from metarep_jax.report.pieces import Judged, Piece, each_seed
from metarep_jax.stages import Compute, EvaluateSettings, MetatrainSettings, PretrainSettings, metatrain, pretrain
from metarep_jax.stages.evaluate import few_shot_columns
from metarep_jax.stages.features import features_model, features_spec, fitted_encoder, untrained_model
from metarep_jax.train import FitConfig, OptimiserConfig
from metarep_jax.types import EpisodeSpec

TABLE = "intents"
FOLDS = (1, 2, 3, 4, 5)
BOTH = "+".join(DATA)
PROTOCOL = (
    "intents of unseen classes, the mean of the five class folds of Dopierre et al. 2021, 5 queries a class; "
    "the interval is over the folds"
)
VALIDATED = EpisodeSpec(way=5, shot=1, query=5)  # chooses the best checkpoint


class Method(NamedTuple):
    """A row: whether it is pretrained, whether Prototypical Networks follow, and a note."""

    pretrained: bool
    prototypical: bool
    note: str


METHODS = {
    "untrained": Method(False, False, "nearest prototype by cosine on random weights"),
    "prototypical_scratch": Method(False, True, "one training run, on 2 shots, for 1 and 5"),
    "masked_lm": Method(True, False, "nearest prototype by cosine on frozen features"),
    "masked_lm_prototypical": Method(
        True, True, "pretraining shared with the row before; published: ProtAugment, which starts from BERT-base"
    ),
}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a fold's encoders are trained and judged."""

    text: TextConfig
    encoder: EncoderConfig
    pretrain: PretrainSettings
    meta: MetatrainSettings
    episodes: int = 600  # a fold, as in the papers
    minutes: tuple[float, float, float] = (0.0, 0.0, 0.0)  # pretraining, Prototypical Networks, judging, of all folds


def recipe(budget: str) -> Recipe:
    """The recipe of a budget: trial, short or full.

    Of the tokens 30% are hidden, twice as many as BERT's: sentences have 13, so that 15% would be two of them (see
    Wettig et al. 2022, https://arxiv.org/abs/2202.08005). Features are means over words of the embeddings and the last
    layer, whitened (Su et al. 2021, https://arxiv.org/abs/2103.15316). Prototypical Networks train on a number of shots
    between those of the test.
    """
    length, vocabulary, width, depth, masked_steps, sentences, meta_steps, episode = {
        "trial": (12, 400, 16, 1, 4, 32, 4, EpisodeSpec(4, 2, 4)),
        "short": (24, 3000, 128, 3, 1500, 128, 250, EpisodeSpec(10, 2, 4)),
        "full": (48, 3000, 256, 4, 20_000, 256, 4000, EpisodeSpec(20, 3, 5)),
    }[budget]
    return Recipe(
        text=TextConfig(length=length, vocabulary=vocabulary),
        encoder=EncoderConfig(
            name="transformer",
            width=width,
            depth=depth,
            vocabulary=vocabulary,
            readout="first_last",
        ),
        pretrain=PretrainSettings(
            objective=ObjectiveConfig(name="masked_lm", share=0.3),
            augment="none",
            whiten=0.5,
            optimiser=adamw(1e-3, masked_steps),
            train=fit_of(masked_steps, sentences),
        ),
        meta=MetatrainSettings(
            learner=LearnerConfig(name="prototypical", distance="cosine"),
            episode=episode,
            optimiser=adamw(1e-3, meta_steps),
            train=dataclasses.replace(fit_of(meta_steps, 2), validate_every=max(meta_steps // 5, 1)),
        ),
        episodes=8 if budget == "trial" else 600,
        minutes=(30.0, 7.0, 1.0) if budget == "short" else (0.0, 0.0, 0.0),
    )


def adamw(rate: float, steps: int) -> OptimiserConfig:
    """AdamW whose rate rises over a twentieth of the steps and falls as a cosine."""
    return OptimiserConfig("adamw", rate, weight_decay=0.05, schedule="cosine", warmup_steps=steps // 20)


def fit_of(steps: int, batch: int) -> FitConfig:
    """Twenty lines of metrics and five checkpoints."""
    every: dict[str, Any] = {"log_every": max(steps // 20, 1), "checkpoint_every": max(steps // 5, 1)}
    return FitConfig(steps=steps, batch_size=batch, tensorboard=False, **every)


@dataclasses.dataclass(frozen=True)
class IntentsConfig(TableConfig):
    """Flags of experiments.tables.intents."""

    data_dir: Path | None = None
    """The folder with text/banking77, text/clinc150 and text/folds; default: $METAREP_DATA."""
    cache_dir: Path | None = None
    """Where prepared arrays are kept; default: the user's cache folder."""


def train(row: str, config: IntentsConfig, folder: Path, seed: int) -> list[tuple[str, Splits, Model]]:
    """A row trained on every fold: the data set, the fold's splits of it and the model, of each."""
    settings, method, root = recipe(config.budget), METHODS[row], config.folder(TABLE)
    data, models = with_data_dir(DataConfig(data_dir=config.data_dir, cache_dir=config.cache_dir)), []
    for number in FOLDS:
        fold = fold_of(number, settings.text, data, root / "tokenizers" / f"fold{number}")
        start = None
        if method.pretrained:
            place, batch = root / "pretraining" / f"seed{seed}" / f"fold{number}", settings.pretrain.train.batch_size
            encoder = fitted_encoder(settings.encoder, fold.text)
            start = pretrain(settings.pretrain, fold.text, config.compute(place, seed, batch), encoder=encoder)
        for name, splits in fold.splits.items():
            compute = config.compute(folder / f"{name}-fold{number}", seed, settings.meta.train.batch_size)
            models.append((name, splits, row_model(method, settings, splits, compute, start)))
    return models


def row_model(method: Method, settings: Recipe, splits: Splits, compute: Compute, start: Model | None) -> Model:
    """A row's model for one data set of a fold, from the encoder of ``start`` or, of None, a random one."""
    encoder, whiten = fitted_encoder(settings.encoder, splits), settings.pretrain.whiten
    if method.prototypical:
        what, own = compute.folder.name, None if start else encoder
        return metatrain(settings.meta, splits, compute, start=start, encoder=own, validate_on=VALIDATED, what=what)
    if start is not None:
        return features_model(features_spec(encoder, splits), start.encoder_params, splits, whiten)
    return untrained_model(encoder, splits, compute, whiten)


def judge(config: IntentsConfig, models: Sequence[tuple[str, Splits, Model]], seed: int) -> Judged:
    """Accuracy on episodes of the folds' test classes, which are the same for every row, by way and shot."""
    found: dict[str, list[Interval]] = {column: [] for column in COLUMNS[TABLE]}
    settings = recipe(config.budget)
    compute = config.compute(config.folder(TABLE), seed, settings.meta.train.batch_size)
    for name, splits, model in models:
        specs = EvaluateSettings(ways=(5,), shots=(1, 5)).specs(splits.protocol, splits.test)
        for column, value in few_shot_columns(model, splits, specs, compute, episodes=settings.episodes).items():
            found[f"{name}_{column}"].append(value)
    return Judged({column: interval_over_folds(each) for column, each in found.items()})


def pieces_of(config: IntentsConfig) -> list[Piece]:
    """The rows, in the table's order."""
    settings = recipe(config.budget)
    return [
        Piece(
            row=name,
            columns=COLUMNS[TABLE],
            protocol=PROTOCOL,
            settings=settings_of_row(method, settings, config),
            train=partial(train, name, config),
            judge=each_seed(partial(judge, config)),
            steps=settings.meta.train.steps * method.prototypical + settings.pretrain.train.steps * method.pretrained,
            minutes=minutes_of(name, settings),
            shown={
                "protocol": "five class folds each",
                "tasks": settings.meta.train.batch_size if method.prototypical else "–",
                "note": method.note,
            },
            combine=partial(interval_over_seeds, one_test=True),  # all seeds have the same folds
        )
        for name, method in METHODS.items()
    ]


def settings_of_row(method: Method, settings: Recipe, config: IntentsConfig) -> dict[str, Any]:
    """All that a row's numbers depend on."""
    parts: dict[str, Any] = {"text": settings.text, "encoder": settings.encoder, "whiten": settings.pretrain.whiten}
    parts |= {"pretrain": settings.pretrain} if method.pretrained else {}
    parts |= {"meta": settings.meta} if method.prototypical else {}
    common = {"data": BOTH, "precision": config.precision, "episodes": settings.episodes}
    return common | parts


def minutes_of(row: str, settings: Recipe) -> float:
    """The estimate for two CPU cores; the shared pretraining counts to the first row that needs it."""
    pretraining, meta, judging = settings.minutes
    first = next(name for name, method in METHODS.items() if method.pretrained)
    return judging + meta * METHODS[row].prototypical + pretraining * (row == first)


main = partial(table_main, Table(TABLE, PROTOCOL, tuple(METHODS), (BOTH,)), IntentsConfig, pieces_of, __doc__)

if __name__ == "__main__":
    main()
