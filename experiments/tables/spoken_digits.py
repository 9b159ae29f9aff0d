"""The table of spoken digits: what linear probes find in features of speech that were learned without labels.

    python -m experiments.tables.spoken_digits --plan                        # what there is to do, and how long
    python -m experiments.tables.spoken_digits --data.data-dir DIR           # about half an hour on 2 CPU cores
    python -m experiments.tables.spoken_digits --rows log_mel untrained cpc
    python -m experiments.tables.spoken_digits --merge runs/tables/spoken_digits

Rows: ``log_mel``, of which nothing is learned; ``untrained``, the waveform encoder with its first weights; and the same
encoder after contrastive predictive coding (CPC), which tells the frame that comes from those of all recordings of a
batch (``cpc``), of the recording itself (``cpc_within``) or of the same place of the others (``cpc_across``). Every
row's features are means and standard deviations over time: of log-mel energies, or of the encoder's frames and
contexts.

Columns: who speaks; which digit; and which digit where the probe has never heard the speaker. The Free Spoken Digit
Dataset's authors test on takes 0 to 4 of each digit and speaker, 300 of 3,000 recordings, and train on takes 5 to 49.
CPC and the probes see no test recording, and a probe's penalty is chosen on training recordings: folds of takes, or of
speakers where the test speaker is new. For ``digit_unseen_speaker`` a probe is trained on five speakers and tested on
the test recordings of the sixth, in turn; CPC has heard the training recordings of all six, without labels.
"""

import dataclasses
from collections.abc import Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from jaxtyping import Array, Float

from experiments.cli import with_data_dir
from experiments.tables.engine import Table, TableConfig, table_main
from experiments.tables.published import COLUMNS
from metarep_jax.data import DataConfig
from metarep_jax.data.audio.recordings import AudioConfig, Digits, load_fsdd
from metarep_jax.data.audio.spoken_digits import PROTOCOL, splits_of_digits
from metarep_jax.data.splits import resolved
from metarep_jax.encoders import EncoderConfig
from metarep_jax.evaluate import interval_over_seeds
from metarep_jax.evaluate.speech_probes import probe_digits
from metarep_jax.pretrain import ObjectiveConfig
from metarep_jax.report.pieces import Judged, Piece, each_seed
from metarep_jax.stages import PretrainSettings, pretrain
from metarep_jax.stages.features import bare_features, features_without_weights, untrained_model
from metarep_jax.train import FitConfig, OptimiserConfig

TABLE = "spoken_digits"
TITLE = f"{PROTOCOL.name}: {PROTOCOL.description}"
VERSION = 2  # 1: the probes' logistic regression ended after 30 steps of L-BFGS, where it had not converged


class Method(NamedTuple):
    """A row: its encoder, the negatives of CPC if it is trained, and a note."""

    encoder: str
    negatives: str | None
    note: str


METHODS = {
    "log_mel": Method("log_mel", None, "40 energies, nothing learned"),
    "untrained": Method("waveform", None, "first weights"),
    "cpc": Method("waveform", "all", "negatives of all recordings"),
    "cpc_within": Method("waveform", "within", "negatives of the same recording"),
    "cpc_across": Method("waveform", "across", "negatives of the same place of other recordings"),
}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How the waveform encoder is shaped and trained."""

    encoder: EncoderConfig
    pretrain: PretrainSettings  # but for the negatives
    minutes: Mapping[str, float] = dataclasses.field(default_factory=dict)  # a training by negatives, on two CPU cores


def recipe(budget: str) -> Recipe:
    """The recipe of a budget: trial, short or full."""
    width, context = {"trial": (8, 8), "short": (64, 128)}.get(budget, (256, 256))
    steps = {"trial": 4, "short": 5000}.get(budget, 20_000)
    return Recipe(
        encoder=EncoderConfig(name="waveform", width=width, context=context, strides=(8, 5, 4), readout="moments"),
        pretrain=PretrainSettings(
            objective=ObjectiveConfig(name="cpc", ahead=tuple(range(1, 9))),
            augment="none",
            whiten=0.0,
            optimiser=OptimiserConfig(
                name="adamw", learning_rate=2e-3, weight_decay=1e-2, schedule="cosine", warmup_steps=min(50, steps // 2)
            ),
            train=FitConfig(
                steps=steps, batch_size=32, log_every=max(steps // 50, 1), checkpoint_every=max(steps // 10, 1),
                tensorboard=False,
            ),
        ),
        minutes={"within": 6.0, "across": 6.0, "all": 12.0} if budget == "short" else {},
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class SpokenDigitsConfig(TableConfig):
    """Flags of experiments.tables.spoken_digits."""

    data: DataConfig = DataConfig("fsdd", seconds=0.75)
    """The Free Spoken Digit Dataset: where it lies, and how recordings become rows."""

    def __post_init__(self):
        super().__post_init__()
        if self.data.name != "fsdd":
            raise ValueError(f"this table is of fsdd, got data.name {self.data.name}")


@lru_cache(maxsize=2)
def recordings(data: DataConfig) -> Digits:
    """The data set, from $METAREP_DATA where the config names no folder."""
    data = resolved(with_data_dir(data))
    assert data.cache_dir is not None
    return load_fsdd(data.data_dir, AudioConfig(data.get("rate"), data.get("seconds")), data.cache_dir)


def features_of(row: str, config: SpokenDigitsConfig, folder: Path, seed: int) -> Float[Array, "n dim"]:
    """The row's features of all recordings, its encoder trained or gone on with."""
    method, settings, digits = METHODS[row], recipe(config.budget), recordings(config.data)
    if method.encoder == "log_mel":
        return features_without_weights(EncoderConfig(name="log_mel", rate=config.data.get("rate")), digits.rows)
    training, splits = training_of(method, settings), splits_of_digits(digits, config.data)
    compute = config.compute(folder / "pretrain", seed, training.train.batch_size)
    if method.negatives is None:
        model = untrained_model(settings.encoder, splits, compute, training.whiten)
    else:
        model = pretrain(training, splits, compute, encoder=settings.encoder)
    return bare_features(model, digits.rows)


def judge(config: SpokenDigitsConfig, features: Float[Array, "n dim"], seed: int) -> Judged:
    """What the probes find."""
    del seed
    return Judged(probe_digits(features, recordings(config.data)))


def training_of(method: Method, settings: Recipe) -> PretrainSettings:
    """The recipe's training with the row's negatives."""
    objective: Any = dataclasses.replace(settings.pretrain.objective, negatives=method.negatives)
    return dataclasses.replace(settings.pretrain, objective=objective)


def pieces_of(config: SpokenDigitsConfig) -> list[Piece]:
    """The rows, in the table's order."""
    settings = recipe(config.budget)
    return [
        Piece(
            row=name,
            columns=COLUMNS[TABLE],
            protocol=TITLE,
            settings=settings_of_row(method, settings, config),
            train=partial(features_of, name, config),
            judge=each_seed(partial(judge, config)),
            steps=settings.pretrain.train.steps if method.negatives else 0,
            minutes=1.0 + settings.minutes.get(method.negatives or "", 0.0),
            version=VERSION,
            shown={
                "protocol": PROTOCOL.name,
                "tasks": settings.pretrain.train.batch_size if method.negatives else "–",
                "note": f"{method.note}; {dimensions(method, settings)} numbers a recording",
            },
            combine=partial(interval_over_seeds, one_test=True),
            check=partial(recordings, config.data),
        )
        for name, method in METHODS.items()
    ]


def settings_of_row(method: Method, settings: Recipe, config: SpokenDigitsConfig) -> Mapping[str, Any]:
    """All that a row's numbers depend on."""
    audio = {"rate": config.data.get("rate"), "seconds": config.data.get("seconds")}
    parts: dict[str, Any] = {} if method.encoder == "log_mel" else {"encoder": settings.encoder}
    parts |= {"pretrain": training_of(method, settings)} if method.negatives else {}
    steps = settings.pretrain.train.steps if method.negatives else 0
    common = {"data": "fsdd", "audio": audio, "steps": steps, "precision": config.precision}
    return common | parts


def dimensions(method: Method, settings: Recipe) -> int:
    """How many numbers a row's features have."""
    return 2 * (40 if method.encoder == "log_mel" else settings.encoder.get("width") + settings.encoder.get("context"))


main = partial(table_main, Table(TABLE, TITLE, tuple(METHODS), ("fsdd",)), SpokenDigitsConfig, pieces_of, __doc__)

if __name__ == "__main__":
    main()
