"""One SimCLR step of ResNet-18, ours beside PyTorch's: ``python -m experiments.benchmarks.resnet_step --seconds 120``.

At 32 pixels with 2 × 64 views (the stem of one 3×3 convolution), and at 224 with 2 × 8 (ImageNet's stem). Forward and
backward pass and AdamW update of given views. Both sides start from the same weights, and their first losses and
gradients are compared before time is taken.
"""

import dataclasses
import time
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from experiments.benchmarks import common, timing
from experiments.benchmarks.common import console
from experiments.benchmarks.convolution_passes import check_lowerings
from experiments.benchmarks.convolution_shapes import convolutions_of
from experiments.benchmarks.flops import objective_gflop
from metarep_jax.encoders import EncoderConfig, make_encoder
from metarep_jax.encoders.resnet import Stem
from metarep_jax.pretrain import simclr
from metarep_jax.train import AXIS, OptimiserConfig, check_batch, pretraining
from metarep_jax.train.optimisers import make_optimiser
from metarep_jax.train.step import make_roots
from metarep_jax.types import Objective

Size = Literal[32, 224]
CHANNELS, WIDTH = 3, 64
SIMCLR = {"temperature": 0.1, "hidden": 256, "out": 128}
OPTIMISER = OptimiserConfig(name="adamw", learning_rate=1e-3, weight_decay=1e-4)
LEAST_SECONDS = 5.0  # of measuring a size, when compiling took all the time that was given


class Setting(NamedTuple):
    """One column: the stem, and images a step."""

    stem: Stem
    batch: int


SETTINGS: dict[int, Setting] = {32: Setting("small", 64), 224: Setting("imagenet", 8)}


@dataclasses.dataclass(frozen=True)
class ResNetStepConfig(common.StepBenchmarkConfig):
    """Flags of experiments.benchmarks.resnet_step."""

    seconds: float = 120.0
    """Time of the run, compilation included; what is left is measuring, at least 5 s a size."""
    size: tuple[Size, ...] = get_args(Size)
    """Pixels a side: 32 (64 images a step), 224 (8 images a step), or both."""

    def __post_init__(self):
        super().__post_init__()
        if not self.size or not set(self.size) <= set(SETTINGS):
            raise ValueError(f"--size takes one or more of {', '.join(map(str, SETTINGS))}; got {self.size}")


def make_views(size: int, setting: Setting) -> np.ndarray:
    """Two random views of a batch, [2, n, h, w, c]: the time does not depend on what they show."""
    return np.random.default_rng(0).random((2, setting.batch, size, size, CHANNELS), np.float32)


def batch_of(views: np.ndarray) -> dict[str, np.ndarray]:
    """The views as the objective takes them."""
    return {"inputs": views[0], "partner": views[1]}


def encoder_of(setting: Setting, axis_name: str | None = AXIS, conv: str = "auto") -> nn.Module:
    """ResNet-18 with the setting's stem."""
    shape = EncoderConfig("resnet18", width=WIDTH, stem=setting.stem)
    return make_encoder(shape, axis_name=axis_name, conv=conv)


def objective_of(setting: Setting, axis_name: str | None = AXIS, conv: str = "auto") -> Objective:
    """SimCLR of the setting's encoder, whose views are an image and its "partner" as they are."""
    encoder = encoder_of(setting, axis_name, conv)
    return simclr(encoder, augment=lambda keys, images: images, axis_name=axis_name, **SIMCLR)


def our_step(setting: Setting, views: np.ndarray, devices: list, conv: str = "auto") -> tuple[timing.Candidate, list]:
    """The training loop's own update, with ``last`` as ``common.training_step`` says.

    Scales that start at 0, each block's last, are 1 here: else no gradient reaches the kernels before them, and the
    comparison of gradients would not see them.
    """
    trainable, batch = pretraining(objective_of(setting, conv=conv)), batch_of(views)
    params, state = jax.jit(trainable.init)(make_roots([0]).init, batch)
    params = jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.ones_like(leaf) if path[-1].key == "scale" else leaf, params
    )
    optimiser = make_optimiser(OPTIMISER, 1_000_000)  # a constant rate: the total does not matter
    return common.training_step(trainable, params, state, batch, devices=devices, optimiser=optimiser)


def torch_steps(setting: Setting, views: np.ndarray, params: Any, ours: list[float]) -> dict[str, timing.Candidate]:
    """PyTorch's step in each memory format, checked against our first step."""
    from experiments.benchmarks import ssl_peers, torch_nets
    from experiments.benchmarks.torch_resnet import ResNet18

    def peer() -> Any:
        made = ssl_peers.SimCLR(ResNet18(CHANNELS, WIDTH, setting.stem), **SIMCLR)
        made.load(params)
        return made

    inputs = torch_nets.channels_first(views, turned=False).flatten(0, 1)
    return ssl_peers.checked_steps(peer, inputs, ours, OPTIMISER)


def candidates_of(size: int, config: ResNetStepConfig, devices: list, with_peers: bool) -> dict[str, timing.Candidate]:
    """Our step, PyTorch's, and the matrix products that say what the machine can do."""
    setting = SETTINGS[size]
    views = make_views(size, setting)
    step, last = our_step(setting, views, devices, config.conv)
    params = jax.tree.map(lambda leaf: np.array(leaf[0]), last[0].params)
    ours = common.first_step(f"ResNet-18, {size} pixels", step, last)
    peers = torch_steps(setting, views, params, ours) if with_peers else {}
    return {"ours": step, **peers, **timing.matrix_products(devices, with_peers)}


def cells_of(size: int, times: dict[str, np.ndarray]) -> dict[str, Any]:
    """A column of the result file, by row: views a second, the ratio, the share of the machine's rate."""
    setting = SETTINGS[size]
    views = 2 * setting.batch
    gflop = objective_gflop(objective_of(setting, None, "lax"), batch_of(make_views(size, setting)))
    cells = timing.compared(times, gflop)
    rates = {
        f"{name}_views_per_s": timing.images_per_s(timing.median_cell(found), views)
        for name, found in times.items()
        if not name.startswith(timing.PRODUCT)
    }
    if "best_peer" in cells:
        rates["best_peer_views_per_s"] = timing.images_per_s(cells["best_peer"], views)
    return rates | {row: cells[row] for row in ("ratio_to_best_peer", "share_of_peak") if row in cells}


def main(config: ResNetStepConfig) -> None:
    """Times every size and writes the result file."""
    started = time.perf_counter()
    devices = common.start(config)
    for size in config.size:
        check_batch(SETTINGS[size].batch, devices)
        shapes = convolutions_of(encoder_of(SETTINGS[size], None, "lax"), (size, size, CHANNELS))
        check_lowerings("--conv", (config.conv,), shapes)
    with_peers = common.peers_present(config, "torch")
    if with_peers:
        common.set_torch_threads(devices)
    candidates = {size: candidates_of(size, config, devices, with_peers) for size in config.size}
    left = max((config.seconds - time.perf_counter() + started) / len(candidates), LEAST_SECONDS)
    rows: dict[str, dict[str, Any]] = {}
    for size, steps in candidates.items():
        times = timing.alternate(steps, left)
        console.print(
            f"{size} pixels: matrix products ran at {timing.product_rate(times):.0f} GFLOP/s", highlight=False
        )
        for row, cell in cells_of(size, times).items():
            rows.setdefault(row, {})[str(size)] = cell
    common.trace(config, {str(size): steps["ours"] for size, steps in candidates.items()})
    each = "; ".join(f"{size} px: 2 × {SETTINGS[size].batch} views, stem {SETTINGS[size].stem}" for size in candidates)
    protocol = f"SimCLR, ResNet-18 of width {WIDTH}, given views of three channels, float32, AdamW; {each}; medians"
    common.finish("resnet_step", config, rows, protocol=protocol, started=started)


if __name__ == "__main__":
    common.run(main, ResNetStepConfig, __doc__)
