"""Time of one second-order MAML step, ours beside PyTorch's, on this machine in this run.

    python -m experiments.benchmarks.meta_step --seconds 40

A step is the meta-gradient over the tasks and the Adam update, of 5-way 1-shot episodes of 28×28 images through a
Conv4 of 64 filters with stride 2 (MAML's network for Omniglot: batch statistics, global mean, linear head).
Columns: ``1_inner_step`` is 32 tasks, 1 query a class, 1 inner step; ``5_inner_steps`` 4 tasks, 15 queries a class.
"""

import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.benchmarks import common, timing
from experiments.benchmarks.common import StepBenchmarkConfig, console
from experiments.benchmarks.convolution_passes import check_lowerings
from experiments.benchmarks.convolution_shapes import convolutions_of
from metarep_jax.encoders import EncoderConfig, make_encoder
from metarep_jax.metalearn.maml import maml
from metarep_jax.train import meta_learning
from metarep_jax.types import Episode, EpisodeSpec, Examples, MetaLearner

IMAGE, WIDTH, WAY = 28, 64, 5
ENCODER = EncoderConfig(name="conv4", width=WIDTH, readout="mean")
LEAST_SECONDS = 5.0  # of measuring a setting, when compiling took all the time that was given


@dataclasses.dataclass(frozen=True)
class MetaStepConfig(StepBenchmarkConfig):
    """Flags of experiments.benchmarks.meta_step."""

    chunk: int | None = None
    """Tasks that ours takes at once on each device; default: chosen for the backend."""
    inner_lr: float = 0.4
    """Step size of the inner loop."""
    learning_rate: float = 1e-3
    """Of Adam."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """One column: how many tasks, queries a class, and inner steps."""

    tasks: int
    query: int
    inner_steps: int

    @property
    def gflop(self) -> float:
        """Matrix products that a step cannot do without, in GFLOP.

        An image's forward pass is the unit. A query takes 3 (forward, gradients of kernels and of inputs). A support
        image takes, for each inner step, those 3 and twice as many to differentiate each of them. The first layer
        needs no gradient of its input, nor what would be derived from it: 2 a query and 4 a support image.
        """
        sides = [-(-IMAGE // 2**layer) for layer in range(1, 5)]
        first, *rest = [18 * side**2 * (WIDTH if i else 1) * WIDTH for i, side in enumerate(sides)]
        support, query = WAY * self.inner_steps, WAY * self.query
        return 1e-9 * self.tasks * (sum(rest) * (9 * support + 3 * query) + first * (4 * support + 2 * query))


SETTINGS = {"1_inner_step": Setting(32, 1, 1), "5_inner_steps": Setting(4, 15, 5)}


def make_episodes(tasks: int, query: int) -> Episode:
    """Random images: the time does not depend on what they show."""
    rng = np.random.default_rng(0)

    def rows(each: int) -> Examples:
        label = np.tile(np.repeat(np.arange(WAY, dtype=np.int32), each), (tasks, 1))
        return Examples(jnp.asarray(rng.random((*label.shape, IMAGE, IMAGE, 1), np.float32)), jnp.asarray(label))

    return Episode(rows(1), rows(query))


def make_learner(config: MetaStepConfig, setting: Setting) -> MetaLearner:
    """MAML over Conv4."""
    encoder = make_encoder(ENCODER, adapted=True, conv=config.conv)
    return maml(encoder, way=WAY, inner_lr=config.inner_lr, inner_steps=setting.inner_steps)


def initial_params(learner: MetaLearner, episodes: Episode) -> tuple[Any, Any]:
    """Parameters and state; the head random, so that every product of the step is of numbers that are not zero."""
    one = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), episodes)
    params, state = jax.jit(learner.init)(jax.random.key(0), one)
    kernel = params["head"]["kernel"]
    random = np.random.default_rng(1).normal(0, len(kernel) ** -0.5, kernel.shape).astype(np.float32)
    return {**params, "head": {**params["head"], "kernel": jnp.asarray(random)}}, state


def ours(
    config: MetaStepConfig, setting: Setting, episodes: Episode, devices: list
) -> tuple[timing.Candidate, Any, float, list[np.ndarray]]:
    """The training loop's own update, tasks spread over the devices.

    Returns:
      The step, the parameters before it, the first step's loss, and the gradient of the convolutions' kernels.
    """
    learner = make_learner(config, setting)
    params, state = initial_params(learner, episodes)
    trainable = meta_learning(learner, EpisodeSpec(WAY, 1, setting.query), chunk=config.chunk)
    optimiser = optax.adam(config.learning_rate)
    step, last = common.training_step(trainable, params, state, episodes, devices=devices, optimiser=optimiser)
    params = jax.tree.map(np.asarray, params)
    step()
    train, metrics = last
    moments = train.opt_state[0].mu["encoder"]  # after one step, Adam's first moment is a tenth of the gradient
    grads = [10 * np.asarray(moments[f"Conv_{i}"]["kernel"][0]) for i in range(4)]
    return step, params, float(metrics["loss"][0]), grads


def torch_peers(
    config: MetaStepConfig, setting: Setting, episodes: Episode, params: Any, our_loss: float, ours: list[np.ndarray]
) -> dict[str, timing.Candidate]:
    """PyTorch's steps, after a check that they compute our loss and gradient from the same ``params``."""
    import torch

    from experiments.benchmarks import meta_peers

    batch, steps = meta_peers.torch_batch(episodes), {}
    for name in ("torch_func", "higher", "torch_autograd"):
        net = meta_peers.net_of(params, 1, WIDTH, WAY)
        gradient = meta_peers.peers(net, batch, inner_lr=config.inner_lr, inner_steps=setting.inner_steps)[name]
        loss = float(gradient())
        found = meta_peers.kernel_gradients(net)
        worst = max(float(abs(a - b).max() / abs(b).max()) for a, b in zip(found, ours, strict=True))
        console.print(
            f"{name}: loss {loss:.6f} (ours {our_loss:.6f}), gradients differ by at most {worst:.1e} "
            "of their largest entry",
            highlight=False,
        )
        if worst > 1e-2 or abs(loss - our_loss) > 1e-4:
            raise ValueError(f"{name} does not compute what ours computes")
        optimiser = torch.optim.Adam(net.parameters(), lr=config.learning_rate, fused=True)

        def once(gradient: Any = gradient, optimiser: Any = optimiser) -> None:
            gradient()
            optimiser.step()

        steps[name] = once
    return steps


def main(config: MetaStepConfig) -> None:
    """Times every setting and writes the result file."""
    started = time.perf_counter()
    devices = common.start(config)
    check_lowerings("--conv", (config.conv,), convolutions_of(make_encoder(ENCODER, conv="lax"), (IMAGE, IMAGE, 1)))
    with_peers = common.peers_present(config, "torch", "higher")
    if with_peers:
        common.set_torch_threads(devices)
    candidates = {}
    for column, setting in SETTINGS.items():
        episodes = make_episodes(setting.tasks, setting.query)
        console.print(f"[bold]{column}[/]: {setting}, {setting.gflop:.2f} GFLOP of matrix products", highlight=False)
        step, params, loss, grads = ours(config, setting, episodes, devices)
        candidates[column] = {"ours": step}
        if with_peers:
            candidates[column] |= torch_peers(config, setting, episodes, params, loss, grads)
        candidates[column] |= timing.matrix_products(devices, with_peers)
    left = max((config.seconds - time.perf_counter() + started) / len(SETTINGS), LEAST_SECONDS)
    measured = {column: timing.alternate(steps, left) for column, steps in candidates.items()}
    for column, times in measured.items():
        console.print(f"{column}: matrix products ran at {timing.product_rate(times):.0f} GFLOP/s", highlight=False)
    common.trace(config, {column: steps["ours"] for column, steps in candidates.items()})
    cells = timing.cells_of(measured, {column: setting.gflop for column, setting in SETTINGS.items()})
    protocol = "5-way 1-shot, 28×28, Conv4-64 stride 2, second order: " + "; ".join(
        f"{column}: {setting.tasks} tasks, {setting.query} queries a class, {setting.inner_steps} inner steps"
        for column, setting in SETTINGS.items()
    )
    common.finish("meta_step", config, cells, protocol=protocol, started=started)


if __name__ == "__main__":
    common.run(main, MetaStepConfig, __doc__)
