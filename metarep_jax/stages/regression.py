"""Learners on regression tasks, sinusoids: trained, and judged by their errors after each number of steps."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from metarep_jax.data.tasks.sinusoid_tasks import (
    INPUT,
    SinusoidSpec,
    inputs_of,
    sample_sinusoid,
    sample_task,
    sinusoid_feed,
)
from metarep_jax.evaluate.regression import Regressor, errors_by_step, predictions_by_step
from metarep_jax.stages.compute import Compute, train_in_folder
from metarep_jax.train import FitConfig, OptimiserConfig, meta_learning
from metarep_jax.typed_settings import Settings
from metarep_jax.types import Examples, MetaLearner

TEST, CHOICE, PICTURE = range(1, 4)  # streams of randomness; numbers that must never change, or measured errors would
QUERIES = 100  # of a test task: enough that a task's error is not noise
CHOICE_TASKS = 500  # by which a rate is chosen


@dataclasses.dataclass(frozen=True)
class RegressionSettings(Settings):
    """How a learner is trained on sinusoids."""

    spec: SinusoidSpec = SinusoidSpec()
    """Of the tasks."""
    optimiser: OptimiserConfig = OptimiserConfig(name="adam", learning_rate=1e-3, schedule="cosine")
    train: FitConfig = FitConfig(steps=8000, batch_size=25)
    """The loop; a batch is of tasks."""


class OneTask(NamedTuple):
    """A task to be drawn: the true function along ``x``, and the ``points`` to adapt on."""

    x: Float[np.ndarray, " x"]
    truth: Float[np.ndarray, " x"]
    points: Float[np.ndarray, "shot 2"]


def train_regressor(
    learner: MetaLearner,
    settings: RegressionSettings,
    compute: Compute,
    *,
    identity: Mapping[str, Any],
    what: str = "regression",
) -> Regressor:
    """Trains a learner on sinusoids, or goes on in the folder of ``compute``.

    Args:
      learner: made with ``output="mean"`` and ``way=1``.
      settings: how it is trained.
      compute: where; one device is enough for a network so small.
      identity: what the folder records of the learner and its settings (JSON's types): another one is refused.
      what: names the training in messages.
    """
    fitted = train_in_folder(
        compute,
        meta_learning(learner, chunk=settings.train.batch_size),
        sinusoid_feed(settings.spec, settings.train.batch_size),
        settings.optimiser,
        settings.train,
        identity=identity,
        what=what,
    )
    return Regressor(learner, fitted.params, fitted.state)


def errors_at_test(
    model: Regressor, shot: int, steps: Sequence[int], *, tasks: int, told: bool = False
) -> Float[np.ndarray, "tasks steps"]:
    """Each test task's squared error after each number of steps on ``shot`` points; the same tasks for every model.

    Args:
      model: what is judged.
      shot: points to adapt on.
      steps: numbers of inner steps.
      tasks: how many.
      told: whether the model sees amplitude and phase beside every x.
    """
    spec = SinusoidSpec(shot, QUERIES, told)
    return np.asarray(errors_by_step(model, spec, jax.random.key(TEST), tasks=tasks, steps=steps))


def choose_rate(
    model: Regressor, learner_of: Callable[[float], MetaLearner], rates: Sequence[float], shot: int
) -> tuple[Regressor, float]:
    """The model fine-tuned at the rate that leaves the least error after one step, on tasks of their own, and the rate.

    Args:
      model: trained without adapting.
      learner_of: the learner that fine-tunes it at a rate.
      rates: to choose from.
      shot: points to adapt on.
    """
    tuned = {rate: model._replace(learner=learner_of(rate)) for rate in rates}
    spec, key = SinusoidSpec(shot, QUERIES), jax.random.key(CHOICE)

    def error(rate: float) -> float:
        return float(errors_by_step(tuned[rate], spec, key, tasks=CHOICE_TASKS, steps=(1,)).mean())

    best = min(tuned, key=error)
    return tuned[best], best


def one_task(shot: int) -> OneTask:
    """The task that figures show, with ``shot`` points."""
    x, sinusoid = _line()
    support = sample_task(jax.random.key(PICTURE), SinusoidSpec(shot, 1)).support
    points = np.concatenate([np.asarray(support.inputs), np.asarray(support.label)], axis=1)
    return OneTask(np.asarray(x[:, 0]), np.asarray(sinusoid(x)[:, 0]), points)


def functions_of_one_task(
    model: Regressor, shot: int, steps: tuple[int, ...], *, told: bool = False
) -> dict[int, Float[np.ndarray, " x"]]:
    """What the model says along ``one_task``'s ``x`` after each number of steps on its points."""
    x, sinusoid = _line()
    support = sample_task(jax.random.key(PICTURE), SinusoidSpec(shot, 1, told)).support
    lines = jax.jit(partial(_lines_of, model.learner, steps))
    shown = lines(model.params, model.state, support, Examples(inputs_of(sinusoid, x, told), sinusoid(x)))
    return {count: np.asarray(line[:, 0]) for count, line in shown.items()}


def _line() -> tuple[Any, Any]:
    """Where the function is drawn, and the function: that of ``sample_task``'s first key."""
    return jnp.linspace(*INPUT, 200)[:, None], sample_sinusoid(jax.random.split(jax.random.key(PICTURE), 3)[0])


def _lines_of(learner: MetaLearner, steps: tuple[int, ...], params: Any, state: Any, support: Any, query: Any) -> Any:
    return predictions_by_step(Regressor(learner, params, state), support, query, jax.random.key(PICTURE), steps)
