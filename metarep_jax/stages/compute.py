"""Where and how a stage computes."""

import dataclasses
import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import cattrs
import jax
from jaxtyping import Array, Key

from metarep_jax.choices import Choice, dotted_paths
from metarep_jax.model import Model, load, save_model
from metarep_jax.train import (
    FitConfig,
    broadcast_from_main,
    compute_dtype,
    dividing_devices,
    local_devices,
    map_over_keys,
    on_main_process,
    open_run,
)

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
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

    def __post_init__(self):
        object.__setattr__(self, "folder", Path(self.folder).expanduser())
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")

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
        """Those that a training uses: as many as divide its batch; all, where their number was given."""
        devices = local_devices(self.devices)
        return devices if self.devices is not None else dividing_devices(devices, train.batch_size, train.accumulate)


# Purposes of keys: numbers that must never change, or trained models and their figures would.
UNTRAINED, EPISODES, LABELLED_SPLIT, VIEWS_ROWS, VIEWS, EPISODE, LAYERS, LAYER_ROWS, OCCLUSION = range(1, 10)
PARTITIONS, HELD_OUT, RECONSTRUCTIONS, SAMPLES = range(10, 14)


def finished_or_trained(
    compute: Compute, what: str, identity: Mapping[str, Any], train: Callable[[], Model], **inputs: Mapping[str, str]
) -> Model:
    """The model that an earlier call finished in the stage's folder, or a newly trained one, which is saved there.

    Args:
      compute: with the folder, which is held for this process.
      what: names the stage in messages.
      identity: the settings that the model depends on; a folder of others is refused.
      train: trains the model, or goes on with it from its checkpoints.
      inputs: ``{"name", "digest"}`` of the data, the starting model and the teacher; a folder of others is refused.

    Raises:
      ValueError: for a folder of other settings or inputs; names what differs. Nothing on disk is changed.
    """
    with open_run(compute.folder, dict(identity), hold=on_main_process()):
        if broadcast_from_main((compute.folder / "model" / "spec.json").is_file()):
            log.info("%s: the model is in %s already", what, compute.folder)
            return load(compute.folder)
        model = train()
        if on_main_process():
            save_model(compute.folder, model)
        return model


def identity_of(compute: Compute, protocol: str, **settings: Any) -> dict[str, Any]:
    """A stage's settings as plain values, with those of ``compute`` that results depend on."""
    return {
        "seed": compute.seed,
        "precision": compute.precision,
        "protocol": protocol,
        **{name: cattrs.unstructure(value) for name, value in settings.items()},
    }


__all__ = ["Choice", "Compute", "dotted_paths", "finished_or_trained", "identity_of"]
