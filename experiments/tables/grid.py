"""Cells of the supervised Omniglot table, each a training run judged on test episodes."""

import dataclasses
import time
from pathlib import Path
from typing import Literal

import cattrs
import jax

from experiments.cli import command_line, console
from experiments.tables import wall_clock
from experiments.tables.cells import cell_line, cell_result, device_name
from experiments.tables.jobs import Job, run_jobs
from experiments.tables.omniglot_plan import Plan, settings_of_training, trainings
from experiments.tables.runs import compute_in, splits_of
from metarep_jax.data import DataConfig, Splits, joined_pools
from metarep_jax.evaluate import Interval, interval_over_seeds
from metarep_jax.model import Model
from metarep_jax.report.provenance import device_of_run
from metarep_jax.report.results import Result, read_result, write_result
from metarep_jax.stages import Compute, metatrain
from metarep_jax.stages.evaluate import few_shot_columns
from metarep_jax.train.storage.settings import config_differences


@dataclasses.dataclass(frozen=True)
class Place:
    """Where and on what cells are computed."""

    table: str
    folder: Path  # of the budget
    data: DataConfig
    seeds: int = 1
    devices: int | None = None
    precision: Literal["auto", "float32", "bfloat16"] = "float32"

    def cell(self, plan: Plan) -> Path:
        """The cell's file."""
        return self.folder / plan.row / plan.column / "result.json"


def run_grid(plans: list[Plan], place: Place, minutes: float | None = None) -> bool:
    """Computes the cells that are not finished, the cheapest training first. Returns whether all are finished then.

    Stops, fails and goes on as ``run_jobs`` does.

    Raises:
      ValueError, FileNotFoundError: where data are missing, before anything is trained.
    """
    ordered = [made for group in trainings(plans).values() for made in group]
    for protocol in dict.fromkeys(made.protocol for made in ordered if finished(made, place) is None):
        splits_of(place.data, protocol)

    def job(made: Plan) -> Job:
        return Job(
            f"{made.row} {made.column}",
            lambda: cell_line(run_cell(made, place)),
            lambda: finished(made, place) is not None,
        )

    return run_jobs([job(made) for made in ordered], minutes)


def run_cell(plan: Plan, place: Place) -> Result:
    """Trains (or finds the training done) and judges a cell, for each seed, and writes its file."""
    splits = splits_of(place.data, plan.protocol)
    if plan.with_validation:
        splits = with_validation_classes(splits)
    training = place.folder / plan.training
    found, folders, evaluating, norm = [], [], 0.0, ""
    for seed in range(place.seeds):
        folder, tasks = training / f"seed{seed}", plan.meta.train.batch_size
        compute = compute_in(folder, place, seed=seed, batch=tasks)
        model = trained(plan, splits, compute)
        folders.append(folder)
        begun = time.perf_counter()
        interval, norm = judged(plan, splits, compute, model)
        evaluating += time.perf_counter() - begun
        found.append(interval)
    devices = dict.fromkeys(device for folder in folders for device in wall_clock.devices_used(folder))
    fit = plan.meta.train
    result = cell_result(
        place.table,
        plan.row,
        plan.column,
        interval_over_seeds(found),
        budget=plan.budget,
        command=command_line(f"experiments.tables.{place.table}"),
        protocol=f"{splits.protocol.name}: {splits.protocol.description}",
        seeds=list(range(place.seeds)),
        settings=settings_of_cell(plan, place),
        shown={
            "protocol": splits.protocol.name,
            "norm": norm.replace("_", " "),
            "steps": f"{fit.steps:,}",
            "tasks": fit.batch_size,
            "device": ", ".join(devices),
            "note": plan.note,
            "seed_means": [round(each.mean, 3) for each in found],
        },
        training=plan.training,
        train_s=sum(map(wall_clock.seconds_spent, folders)),
        evaluate_s=evaluating,
    )
    write_result(place.cell(plan), result)
    return result


def trained(plan: Plan, splits: Splits, compute: Compute) -> Model:
    """The model of one training run, of this process or of one before."""
    spec = plan.validate_on
    with wall_clock.counted(compute.folder, device_name(device_of_run()), plan.meta.train.steps):
        return metatrain(
            plan.meta,
            splits,
            compute,
            encoder=plan.encoder,
            validate_on=spec and dataclasses.replace(spec, rotations=splits.protocol.test_rotations),
            what=f"{plan.training}, seed {compute.seed}",
        )


def judged(plan: Plan, splits: Splits, compute: Compute, model: Model) -> tuple[Interval, str]:
    """Accuracy on the test classes, and whose statistics batch norm used."""
    spec = dataclasses.replace(plan.test, rotations=splits.protocol.test_rotations)
    norm = plan.norm or splits.protocol.norm or model.learner(spec.way).test_context.norm
    with console.status(f"{plan.row} {plan.column}: {plan.episodes} test episodes"):
        columns = few_shot_columns(model, splits, [spec], compute, episodes=plan.episodes, mode=norm)
    return columns[spec.name], norm


def finished(plan: Plan, place: Place) -> Result | None:
    """The cell's file, if it was made with these settings and at least these seeds."""
    file = place.cell(plan)
    if not file.is_file():
        return None
    result = read_result(file)
    same = not config_differences(result.config.get("settings", {}), settings_of_cell(plan, place))
    return result if same and len(result.seeds) >= place.seeds else None


def settings_of_cell(plan: Plan, place: Place) -> dict:
    """All that a cell's number depends on, as JSON's plain values."""
    data = {"data": place.data.name, "split_seed": place.data.split_seed, "precision": place.precision}
    test = {"test": cattrs.unstructure(plan.test), "episodes": plan.episodes, "norm": plan.norm}
    return {"steps": plan.meta.train.steps, "training": settings_of_training(plan), **test, **data}


def with_validation_classes(splits: Splits) -> Splits:
    """The splits with the validation classes among the training classes."""
    names = {**splits.class_names, "train": splits.class_names["train"] + splits.class_names["val"], "val": ()}
    none = jax.tree.map(lambda leaf: leaf[:0], splits.val)
    return splits._replace(train=joined_pools(splits.train, splits.val), val=none, class_names=names)
