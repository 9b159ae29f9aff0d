"""Where and how a stage computes."""

import dataclasses
import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import cattrs
import jax
import numpy as np
from jaxtyping import Array, Key

from metarep_jax.data import Splits
from metarep_jax.files import check_on_disk
from metarep_jax.model import Model, is_whole, load, modules_named, save_model
from metarep_jax.model.storage import SPEC, read_arrays, read_model
from metarep_jax.stages.checks import flags_below
from metarep_jax.train import (
    FitConfig,
    Fitted,
    OptimiserConfig,
    check_batch,
    compute_dtype,
    dividing_devices,
    fit,
    local_devices,
    make_optimiser,
    map_over_keys,
    on_main_process,
    open_run,
)
from metarep_jax.train.processes import broadcast_from_main
from metarep_jax.train.storage.inputs import Input, Inputs
from metarep_jax.train.storage.packing import digest_of
from metarep_jax.types import Feed, Trainable

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, init=False)
class Compute:
    """A stage's folder and its means. Results depend on the seed and the precision alone."""

    folder: Path = Path("runs/stage")
    """Gets checkpoints, metrics and the finished model. The same call resumes what was interrupted there."""
    seed: int = 0
    """All randomness follows from it."""
    devices: int | None = None
    """How many to use; None: all that divide a batch."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the computation; "auto": bfloat16 on accelerators, float32 on a CPU. Parameters are float32."""

    def __init__(
        self,
        folder: Path | str = folder,
        seed: int = seed,
        devices: int | None = devices,
        precision: Literal["auto", "float32", "bfloat16"] = precision,
    ):
        if seed < 0:
            raise ValueError(f"seed must not be negative, got {seed}")
        check_on_disk(folder, "the folder")
        own = {"folder": Path(folder).expanduser(), "seed": seed, "devices": devices, "precision": precision}
        for name, value in own.items():
            object.__setattr__(self, name, value)

    def below(self, name: str) -> "Compute":
        """The same means, in a folder below this one."""
        return dataclasses.replace(self, folder=self.folder / name)

    def key(self, purpose: int) -> Key[Array, ""]:
        """A key for one purpose, derived from the seed; ``purpose`` is a number that nothing else uses."""
        return jax.random.fold_in(jax.random.key(self.seed), purpose)

    @property
    def dtype(self) -> Any:
        """Of the computation."""
        return compute_dtype(self.precision)

    @property
    def mapper(self) -> Callable[..., Any]:
        """Spreads evaluation episodes over the devices."""
        return partial(map_over_keys, devices=local_devices(self.devices))

    def training_devices(self, train: FitConfig) -> list:
        """Those that a training uses: as many as divide its batch; all, where their number was given.

        Raises:
          ValueError: for several seeds at once, since a stage hands one model on.
        """
        if train.seeds != 1:
            raise ValueError(f"--….train.seeds must be 1 in a stage, got {train.seeds}; give --seeds {train.seeds}")
        devices = local_devices(self.devices)
        return devices if self.devices is not None else dividing_devices(devices, train.batch_size, train.accumulate)

    def check_training(self, train: FitConfig, optimiser: OptimiserConfig) -> None:
        """Raises ValueError for a batch that does not divide over the devices, or a warm-up as long as the training."""
        check_batch(train.batch_size, self.training_devices(train), train.accumulate)
        make_optimiser(optimiser, train.steps)


# Purposes of keys: numbers that must never change, or trained models and their figures would.
UNTRAINED, EPISODES, LABELLED_SPLIT, VIEWS_ROWS, VIEWS, EPISODE, LAYERS, LAYER_ROWS, OCCLUSION = range(1, 10)
PARTITIONS, HELD_OUT, RECONSTRUCTIONS, SAMPLES = range(10, 14)


def finished_or_trained(
    compute: Compute,
    what: str,
    identity: Mapping[str, Any],
    splits: Splits,
    train: Callable[[Inputs], Model],
    *,
    flags: str,
    **models: Model | None,
) -> Model:
    """The model that an earlier call finished in the stage's folder, or a newly trained one, which is saved there.

    Args:
      compute: with the folder, which is held for this process.
      what: names the stage in messages.
      identity: the settings that the model depends on.
      splits: the data that it is trained on.
      train: trains the model, or goes on with it from its checkpoints; takes the digests of what it depends on.
      flags: what the stage's flags begin with, for messages: "meta" for --meta.train.steps.
      **models: those that it depends on, such as ``start`` and ``teacher``.

    Raises:
      ValueError: for a folder of other settings, data or models; names what differs. Nothing on disk is changed.
    """
    inputs = {"data": data_identity(splits)}
    inputs |= {name: model_identity(model) for name, model in models.items() if model is not None}
    held = open_run(
        compute.folder, dict(identity), inputs=inputs, hold=on_main_process(), other_steps=True, name="stage"
    )
    with flags_below(flags), held as run:
        if not run.changed_steps and broadcast_from_main(is_whole(compute.folder)):
            log.info("%s: the model is in %s already", what, compute.folder)
            return load(compute.folder, allow=modules_named(dict(identity)))
        if damage := damage_of_model(compute.folder):
            log.warning("%s: %s", what, damage)
        model = train(inputs)
        if on_main_process():
            save_model(compute.folder, model)
        return model


def train_in_folder(
    compute: Compute,
    trainable: Trainable,
    feed: Feed,
    optimiser: OptimiserConfig,
    train: FitConfig,
    *,
    identity: Mapping[str, Any],
    what: str,
) -> Fitted:
    """A training whose result is no ``Model``, begun or gone on with in the folder of ``compute``.

    Args:
      compute: where and how.
      trainable, feed, optimiser, train: as ``fit`` takes them.
      identity: what the folder records (JSON's types): another one is refused.
      what: names the training in messages.
    """
    with open_run(compute.folder, dict(identity)):
        return fit(
            trainable,
            feed,
            optimiser=optimiser,
            config=train,
            seed=compute.seed,
            folder=compute.folder,
            description=what,
            settings=dict(identity),
            devices=compute.training_devices(train),
        )


def damage_of_model(folder: Path) -> str | None:
    """What is wrong with the finished model in ``folder``, naming the file; None where there is none, or nothing."""
    if not (folder / "model" / SPEC).is_file():
        return None
    try:
        read_arrays(*read_model(folder))
    except (OSError, ValueError) as error:
        return str(error).partition(". The command")[0] + "; it is written anew from the checkpoints"
    return None


def identity_of(compute: Compute, splits: Splits, **settings: Any) -> dict[str, Any]:
    """A stage's settings as plain values, with what results depend on beside them."""
    plain = {name: cattrs.unstructure(value) for name, value in settings.items() if value is not None}
    return {"seed": compute.seed, "precision": compute.precision, "protocol": splits.protocol.name, **plain}


def data_identity(splits: Splits) -> Input:
    """How messages name the data, and their digest."""
    place = splits.config.data_dir
    name = splits.name if place is None else f"{splits.name} in {place}"
    return {"name": name, "digest": splits.digest}


def model_identity(model: Model, folder: Path | None = None) -> Input:
    """A model's name for messages, with the ``folder`` that it comes from, and a digest of its spec and arrays."""
    arrays = jax.tree.leaves((model.params, model.state, model.whitening))
    digest = digest_of(cattrs.unstructure(model.spec), *map(np.asarray, arrays))
    name = f"{model.spec.learner.name} over {model.spec.encoder.name}"
    return {"name": name if folder is None else f"{name} of {folder}", "digest": digest}
