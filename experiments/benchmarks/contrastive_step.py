"""One SimCLR step, ours beside PyTorch's: ``python -m experiments.benchmarks.contrastive_step --seconds 40``.

Two views of each image, Conv4-64 with stride 2, projector, NT-Xent over the whole batch, backward pass and AdamW
update. The column ``views`` makes the views inside the step (affine and elastic, one bilinear resampling), the column
``no_views`` takes the images as they are. Images a second are 2 × batch / step.
"""

import dataclasses
import time
from typing import Any

import numpy as np

from experiments.benchmarks import common, timing
from experiments.benchmarks.convolution_passes import check_lowerings
from experiments.benchmarks.convolution_shapes import convolutions_of
from experiments.benchmarks.flops import objective_gflop
from metarep_jax.data.images.augment import make_augment
from metarep_jax.encoders import EncoderConfig, make_encoder
from metarep_jax.pretrain import simclr
from metarep_jax.train import AXIS, OptimiserConfig, check_batch, pretraining
from metarep_jax.types import Objective

COLUMNS = {"views": "glyph", "no_views": "none"}  # the augmentation behind each column
SIDE = 28
SIMCLR = {"temperature": 0.1, "hidden": 256, "out": 128}
OPTIMISER = OptimiserConfig(name="adamw", learning_rate=2e-3, weight_decay=1e-4)


@dataclasses.dataclass(frozen=True)
class Config(common.StepBenchmarkConfig):
    """One contrastive (SimCLR) training step beside PyTorch's, with and without making the views."""

    batch: int = 256
    """Images a step; the network sees two views of each."""
    width: int = 64
    """Filters of Conv4."""

    def __post_init__(self):
        super().__post_init__()
        for field in ("batch", "width"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be positive, got {getattr(self, field)}")


def main(config: Config) -> None:
    """Measures, prints the table and writes the result file."""
    started = time.perf_counter()
    devices = common.start(config)
    check_batch(config.batch, devices)
    plain = make_encoder(EncoderConfig(width=config.width), conv="lax")
    check_lowerings("--conv", (config.conv,), convolutions_of(plain, (SIDE, SIDE, 1)))
    images = np.random.default_rng(0).integers(0, 256, (config.batch, SIDE, SIDE, 1), np.uint8)
    peers = common.peers_present(config, "torch")
    if peers:
        common.set_torch_threads(devices)
    gflop = objective_gflop(objective_of(config, "none", None, "lax"), {"inputs": images})  # making views has none
    measured = {}
    for column, augment in COLUMNS.items():
        candidates: dict[str, timing.Candidate] = {"ours": our_step(config, images, augment, devices)}
        if peers:
            candidates |= torch_steps(config, images, augment != "none")
        candidates |= timing.matrix_products(devices, peers)
        common.trace(config, {column: candidates["ours"]})
        measured[column] = timing.alternate(candidates, config.seconds / len(COLUMNS))
    cells = timing.cells_of(measured, dict.fromkeys(COLUMNS, gflop))
    for row in [row for row in cells if row == "ours" or row.startswith("torch")]:
        cells[f"{row}_images_per_s"] = {
            column: timing.images_per_s(cell, 2 * config.batch) for column, cell in cells[row].items()
        }
    protocol = f"SimCLR, 2 × {config.batch} views of {SIDE}×{SIDE}×1, Conv4-{config.width} stride 2, AdamW"
    common.finish("contrastive_step", config, cells, protocol=protocol, started=started)


def objective_of(config: Config, augment: str, axis_name: str | None = AXIS, conv: str = "auto") -> Objective:
    """SimCLR over Conv4."""
    encoder = make_encoder(EncoderConfig(width=config.width), axis_name=axis_name, conv=conv)
    return simclr(encoder, augment=make_augment(augment), **SIMCLR, axis_name=axis_name)


def our_step(config: Config, images: np.ndarray, augment: str, devices: list) -> timing.Candidate:
    """The project's own training step, mapped over the devices."""
    trainable = pretraining(objective_of(config, augment, conv=config.conv))
    return common.pretraining_step(trainable, {"inputs": images}, devices=devices, optimiser=OPTIMISER)[0]


def torch_steps(config: Config, images: np.ndarray, views: bool) -> dict[str, timing.Candidate]:
    """The same step in PyTorch, for each memory format; the faster one counts."""
    import torch

    from experiments.benchmarks import ssl_peers, torch_nets

    inputs = torch_nets.channels_first(images, turned=False)
    augment = _torch_views() if views else lambda both: both

    def step_in(memory_format: Any) -> timing.Candidate:
        torch.manual_seed(0)
        peer: Any = ssl_peers.SimCLR(torch_nets.Conv4(1, config.width, SIDE), **SIMCLR)
        peer.to(memory_format=memory_format)
        optimiser = torch_nets.adamw(peer, OPTIMISER)

        def step() -> None:
            both = inputs.float().div_(255).repeat(2, 1, 1, 1)
            ssl_peers.update(peer, optimiser, augment(both).contiguous(memory_format=memory_format))

        return step

    return {name: step_in(memory_format) for name, memory_format in torch_nets.FORMATS.items()}


def _torch_views() -> Any:
    """Affine and elastic views by one ``grid_sample``, with the settings of the preset "glyph"."""
    import torch
    from torch.nn import functional as F

    from metarep_jax.data.images.warp import control_weights

    weights = torch.from_numpy(np.array(control_weights(SIDE, 0.15)))
    line = (torch.arange(SIDE) + 0.5) / SIDE * 2 - 1
    grid = torch.stack([*torch.meshgrid(line, line, indexing="xy"), torch.ones(SIDE, SIDE)], -1)

    def augment(images: torch.Tensor) -> torch.Tensor:
        n = len(images)
        u = torch.rand(6, n) * 2 - 1
        angle, across, along = 0.35 * u[0], torch.exp(0.25 * u[1]), torch.exp(0.25 * u[2])
        shear, shift_x, shift_y = 0.3 * u[3], 0.16 * u[4], 0.16 * u[5]
        cosine, sine = torch.cos(angle), torch.sin(angle)
        top = torch.stack([cosine * across, (cosine * shear - sine) * along, shift_x], -1)
        bottom = torch.stack([sine * across, (sine * shear + cosine) * along, shift_y], -1)
        affine = torch.stack([top, bottom], 1)  # [n, 2, 3]
        at = (grid.view(1, -1, 3) @ affine.transpose(1, 2)).view(n, SIDE, SIDE, 2)
        noise = torch.randn(n, 2, weights.shape[1], weights.shape[1])
        field = weights @ noise @ weights.T
        return F.grid_sample(images, at + 0.09 * field.permute(0, 2, 3, 1), align_corners=False)

    return augment


if __name__ == "__main__":
    common.run(main, Config, __doc__)
