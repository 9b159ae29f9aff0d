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
import json
from collections.abc import Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import cattrs
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from experiments.cli import parse, with_data_dir
from experiments.tables.published import COLUMNS
from experiments.tables.rows import Row, RowsConfig, RowTable
from experiments.tables.rows import main as run_table
from experiments.tables.runs import compute_in
from metarep_jax.data import DataConfig, Protocol, Splits, pool_of_arrays
from metarep_jax.data.recordings import AudioConfig, Digits, load_fsdd
from metarep_jax.data.splits import resolved
from metarep_jax.encoders import EncoderConfig, make_encoder
from metarep_jax.encoders.features import compute_features
from metarep_jax.evaluate import Interval, chosen_l2, interval, interval_over_seeds, probe_hits
from metarep_jax.pretrain import ObjectiveConfig
from metarep_jax.stages import PretrainSettings, pretrain
from metarep_jax.stages.features import untrained_model
from metarep_jax.train import FitConfig, OptimiserConfig
from metarep_jax.types import Pool

TABLE = "spoken_digits"
TEST_TAKES = 5  # the authors' test recordings are the takes below
FOLDS = 5  # of the training takes, to choose the penalty on
PROTOCOL = Protocol(
    "fsdd-takes",
    "Free Spoken Digit Dataset: takes 0–4 of each digit and speaker for testing (300 recordings), 5–49 for training, "
    "as its authors have it; linear probes on mean and standard deviation over time, the penalty chosen on training "
    "recordings; unseen speaker: trained on five speakers and tested on the sixth, in turn",
    ("fsdd",),
    lambda classes: ([*range(len(classes.names))], [], [*range(len(classes.names))]),
)


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
class SpokenDigitsConfig(RowsConfig):
    """Flags of experiments.tables.spoken_digits."""

    data: DataConfig = DataConfig("fsdd", seconds=0.75)
    """The Free Spoken Digit Dataset: where it lies, and how recordings become rows."""

    def __post_init__(self):
        super().__post_init__()
        if self.data.name != "fsdd":
            raise ValueError(f"this table is of fsdd, got data.name {self.data.name}")


# Data -----------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=2)
def recordings(data: DataConfig) -> Digits:
    """The data set, from $METAREP_DATA where the config names no folder."""
    data = resolved(with_data_dir(data))
    assert data.cache_dir is not None
    return load_fsdd(data.data_dir, AudioConfig(data.get("rate"), data.get("seconds")), data.cache_dir)


def splits_of(digits: Digits, data: DataConfig) -> Splits:
    """The training and the test recordings, labelled by their digits; nothing to validate on."""
    names = tuple(map(str, range(10)))

    def pool(chosen: Bool[np.ndarray, " n"]) -> Pool:
        return pool_of_arrays(digits.rows[chosen], digits.digit[chosen], classes=len(names))

    test, none = is_test(digits), np.zeros(len(digits.take), bool)
    empty = jax.tree.map(lambda leaf: leaf[:0], pool(none))
    return Splits(pool(~test), empty, pool(test), {"train": names, "val": (), "test": names}, PROTOCOL, resolved(data))


def is_test(digits: Digits) -> Bool[np.ndarray, " n"]:
    """Which recordings are for testing."""
    return digits.take < TEST_TAKES


# Probes ---------------------------------------------------------------------------------------------------------------


def probes(features: Float[Array, "n dim"], digits: Digits) -> dict[str, Interval]:
    """The columns: accuracies in % on the test recordings."""
    test = is_test(digits)
    take = (digits.take - TEST_TAKES) % FOLDS
    known = {
        name: probe(features, label, ~test, test, take)
        for name, label in {"speaker": digits.speaker, "digit": digits.digit}.items()
    }
    unseen = [
        probe(features, digits.digit, ~test & (digits.speaker != one), test & (digits.speaker == one), digits.speaker)
        for one in range(len(digits.speakers))
    ]
    return {name: interval(hits) for name, hits in (known | {"digit_unseen_speaker": np.concatenate(unseen)}).items()}


def probe(
    features: Float[Array, "n dim"],
    label: Int[np.ndarray, " n"],
    train: Bool[np.ndarray, " n"],
    test: Bool[np.ndarray, " n"],
    fold: Int[np.ndarray, " n"],
) -> Float[np.ndarray, " m"]:
    """100 or 0 for each test recording, by a probe whose penalty is chosen over the folds of the training ones."""
    x, y = features[train], jnp.asarray(label[train])
    l2 = chosen_l2(x, y, jnp.asarray(fold[train]))
    return probe_hits(x, y, features[test], jnp.asarray(label[test]), l2=l2)


# Rows -----------------------------------------------------------------------------------------------------------------


def measure(row: str, config: SpokenDigitsConfig, folder: Path, seed: int) -> dict[str, Interval]:
    """Trains a row, or goes on, and judges it."""
    digits = recordings(config.data)
    return probes(features_of(row, config, digits, folder, seed), digits)


def features_of(row: str, config: SpokenDigitsConfig, digits: Digits, folder: Path, seed: int) -> Float[Array, "n dim"]:
    """The row's features of all recordings."""
    method, made = METHODS[row], recipe(config.budget)
    waves = jnp.asarray(digits.rows)
    if method.encoder == "log_mel":
        encoder = make_encoder(EncoderConfig(name="log_mel", rate=config.data.get("rate")))
        return compute_features(jax.jit(partial(encoder.apply, {})), waves)
    settings = settings_of(method, made)
    batch = settings.train.batch_size
    splits = splits_of(digits, config.data)
    compute = compute_in(folder / "pretrain", config, seed=seed, batch=batch)
    if method.negatives is None:
        model = untrained_model(made.encoder, splits, compute, settings.whiten)
    else:
        model = pretrain(settings, splits, compute, encoder=made.encoder)
    return compute_features(dataclasses.replace(model, whitening=None).embed, waves)


def settings_of(method: Method, made: Recipe) -> PretrainSettings:
    """The recipe's training with the row's negatives."""
    objective: Any = dataclasses.replace(made.pretrain.objective, negatives=method.negatives)
    return dataclasses.replace(made.pretrain, objective=objective)


def rows_of(config: SpokenDigitsConfig) -> list[Row]:
    """The rows, in the table's order."""
    made = recipe(config.budget)
    return [
        Row(
            name=name,
            columns=COLUMNS[TABLE],
            protocol=f"{PROTOCOL.name}: {PROTOCOL.description}",
            settings=told(method, made, config),
            measure=partial(measure, name, config),
            steps=made.pretrain.train.steps if method.negatives else 0,
            minutes=1.0 + made.minutes.get(method.negatives or "", 0.0),
            shown={
                "protocol": PROTOCOL.name,
                "tasks": made.pretrain.train.batch_size if method.negatives else "–",
                "note": f"{method.note}; {dimensions(method, made)} numbers a recording",
            },
            combine=partial(interval_over_seeds, one_test=True),
        )
        for name, method in METHODS.items()
    ]


def told(method: Method, made: Recipe, config: SpokenDigitsConfig) -> Mapping[str, Any]:
    """All that a row's numbers depend on, as JSON's plain values."""
    audio = {"rate": config.data.get("rate"), "seconds": config.data.get("seconds")}
    parts: dict[str, Any] = {} if method.encoder == "log_mel" else {"encoder": made.encoder}
    parts |= {"pretrain": settings_of(method, made)} if method.negatives else {}
    steps = made.pretrain.train.steps if method.negatives else 0
    found = {"data": "fsdd", "audio": audio, "steps": steps, "precision": config.precision, **parts}
    return json.loads(json.dumps(cattrs.unstructure(found)))


def dimensions(method: Method, made: Recipe) -> int:
    """How many numbers a row's features have."""
    return 2 * (40 if method.encoder == "log_mel" else made.encoder.get("width") + made.encoder.get("context"))


def main(args: list[str] | None = None) -> None:
    """Plans, computes, or merges."""
    config = parse(SpokenDigitsConfig, __doc__, args=args)
    table = RowTable(TABLE, f"{PROTOCOL.name}: {PROTOCOL.description}", tuple(METHODS), ("fsdd",))
    run_table(table, config, lambda: rows_of(config))


if __name__ == "__main__":
    main()
