"""How long a training goes on, and by which schedule, when it was begun with another number of steps."""

import logging
from typing import Any, NamedTuple

from metarep_jax.train.fit_config import FitConfig
from metarep_jax.train.optimisers import OptimiserConfig
from metarep_jax.train.processes import broadcast_from_main
from metarep_jax.train.storage.checkpoints import Checkpoints

log = logging.getLogger(__name__)


class Course(NamedTuple):
    """A training's length as its checkpoints record it."""

    schedule_steps: int  # that the learning rate's schedule is computed for
    begun_with: int  # steps in all, as the checkpoint to resume from records them
    history: list[dict[str, Any]]  # earlier numbers of steps


def plan_course(
    checkpoints: Checkpoints | None, config: FitConfig, optimiser: OptimiserConfig, description: str
) -> Course:
    """Compares with what the latest checkpoint was trained by, and records what is new; all processes call it.

    Raises:
      ValueError: on every process, when the checkpoint belongs to another config or other inputs, when it has done
        more steps than ``config.steps``, and when the rate that is to be held is zero.
    """
    answer: dict[str, Any] = {}
    if checkpoints is not None:
        try:
            answer = {"course": _course(checkpoints, config, optimiser)._asdict()}
            checkpoints.settings["course"] |= answer["course"]
        except ValueError as error:
            answer = {"refused": str(error)}
    answer = broadcast_from_main(answer)
    if "refused" in answer:
        raise ValueError(answer["refused"])
    course = Course(**answer["course"])
    if course.begun_with != config.steps:
        shape = f"the {optimiser.schedule} schedule is that of {course.schedule_steps} steps"
        log.info("%s: begun with %d steps, now %d; %s", description, course.begun_with, config.steps, shape)
    return course


def _course(checkpoints: Checkpoints, config: FitConfig, optimiser: OptimiserConfig) -> Course:
    done, before = checkpoints.check_settings()
    if before is None:
        return Course(config.steps, config.steps, [])
    begun_with = before["fit"]["steps"]
    course = before.get("course", {})
    schedule_steps, history = course.get("schedule_steps", begun_with), course.get("history", [])
    if config.steps == begun_with:
        return Course(schedule_steps, begun_with, history)
    if config.steps < done:
        raise ValueError(
            f"the training in {checkpoints.folder.parent} has done {done} steps of {begun_with}, {config.steps} are "
            f"fewer; give --….train.steps {done} or more, or another folder"
        )
    if config.on_more_steps == "stretch":
        schedule_steps = config.steps
    elif optimiser.schedule in ("cosine", "linear") and config.steps > schedule_steps:
        raise ValueError(
            f"the {optimiser.schedule} schedule ends at zero after {schedule_steps} steps: held there, nothing would "
            "move; give --….train.on-more-steps stretch, or another folder with --….optimiser.schedule constant"
        )
    change = {"steps": begun_with, "done": done, "now": config.steps, "schedule": config.on_more_steps}
    return Course(schedule_steps, begun_with, [*history, change])
