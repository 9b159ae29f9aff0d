"""Time of one meta-step of every learner, on the same episodes: ``python -m experiments.benchmarks.learner_steps``.

A step is the learner's own meta-gradient over the tasks, under its default settings, and the Adam update: 5-way 1-shot
episodes of 28×28 images through a Conv4 of 64 filters with stride 2, 256 flattened features. Learners take turns.
"""

import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp

from experiments.benchmarks import common, timing
from experiments.benchmarks.common import BenchmarkConfig, console
from experiments.benchmarks.meta_step import WAY, WIDTH, make_episodes
from metarep_jax.encoders import EncoderConfig, make_encoder
from metarep_jax.metalearn import LEARNERS, LearnerConfig, adapts_encoder, make_learner, trains
from metarep_jax.train import meta_learning
from metarep_jax.types import Episode

LEAST_SECONDS = 1.0  # of measuring a learner, when compiling took all the time that was given


@dataclasses.dataclass(frozen=True)
class LearnerStepsConfig(BenchmarkConfig):
    """Flags of experiments.benchmarks.learner_steps."""

    seconds: float = 420.0
    """Time of the run, most of it compilation; what is left is measuring, at least a second a learner."""
    learners: tuple[str, ...] = ()
    """Which; default: all of metarep_jax.metalearn.LEARNERS but the baselines, which are not meta-trained."""
    tasks: int = 32
    """Tasks a step."""
    query: int = 1
    """Queries a class."""
    chunk: int | None = None
    """Tasks that a device takes at once; default: chosen for the backend."""

    def __post_init__(self):
        super().__post_init__()
        for field in ("tasks", "query"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1, got {getattr(self, field)}")
        for name in self.learners:
            if not trains(name):
                raise ValueError(f"learners: {name} is a baseline, which is not meta-trained")


def step_of(name: str, config: LearnerStepsConfig, episodes: Episode, devices: list) -> timing.Candidate:
    """The named learner's step, compiled."""
    encoder = make_encoder(EncoderConfig(name="conv4", width=WIDTH), adapted=adapts_encoder(name))
    learner = make_learner(LearnerConfig(name=name), encoder, way=WAY)
    one: Any = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), episodes)
    params, state = jax.jit(learner.init)(jax.random.key(0), one)
    trainable = meta_learning(learner, chunk=config.chunk)
    step, last = common.training_step(trainable, params, state, episodes, devices=devices)
    begin = time.perf_counter()
    step()
    seconds = time.perf_counter() - begin
    loss = float(last[1]["loss"][0])
    console.print(f"{name}: compiled in {seconds:.1f} s, first loss {loss:.4f}", highlight=False)
    return step


def main(config: LearnerStepsConfig) -> None:
    """Times every learner and writes the result file."""
    started = time.perf_counter()
    devices = common.start(config)
    episodes = make_episodes(config.tasks, config.query)
    names = config.learners or [name for name in LEARNERS if trains(name)]
    steps = {name: step_of(name, config, episodes, devices) for name in names}
    left = max(config.seconds - time.perf_counter() + started, LEAST_SECONDS * len(steps))
    times = timing.alternate(steps, left)
    cells = {name: {"ms_a_step": timing.median_cell(found)} for name, found in times.items()}
    protocol = (
        f"5-way 1-shot, 28×28, Conv4-{WIDTH} stride 2, {config.tasks} tasks, {config.query} queries a class, "
        "each learner's default settings; median ms of one meta-gradient and Adam update"
    )
    common.finish("learner_steps", config, cells, protocol=protocol, started=started)


if __name__ == "__main__":
    common.run(main, LearnerStepsConfig, __doc__)
