"""One SimCLR step, ours beside PyTorch's: ``python -m experiments.benchmarks.contrastive_step --seconds 40``.

Two views of each image, Conv4-64 with stride 2, projector, NT-Xent over the whole batch, backward pass and AdamW
update. The column ``views`` makes the views inside the step (affine and elastic, one bilinear resampling), the column
``no_views`` takes the images as they are. Images a second are 2 × batch / step.
"""

import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax import lax

from experiments.benchmarks import common
from metarep_jax.data.augment import make_augment
from metarep_jax.encoders import EncoderConfig, make_encoder
from metarep_jax.pretrain import simclr
from metarep_jax.train import AXIS, OptimiserConfig, check_batch, make_optimiser, pretraining
from metarep_jax.train.parallel import map_step, replicate
from metarep_jax.train.step import initial_state, make_update, roots_of

COLUMNS = {"views": "glyph", "no_views": "none"}  # the augmentation behind each column
SIDE, HIDDEN, OUT, TEMPERATURE = 28, 256, 128, 0.1
OPTIMISER = OptimiserConfig(name="adamw", learning_rate=2e-3, weight_decay=1e-4)


@dataclasses.dataclass(frozen=True)
class Config(common.PeerBenchmarkConfig):
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
    images = np.random.default_rng(0).integers(0, 256, (config.batch, SIDE, SIDE, 1), np.uint8)
    peers = common.peers_present(config, "torch")
    if peers:
        common.set_torch_threads(devices)
    measured, gflop = {}, {}
    for column, augment in COLUMNS.items():
        candidates: dict[str, common.Candidate] = {"ours": our_step(config, images, augment, devices)}
        if peers:
            candidates |= torch_steps(config, images, augment != "none")
        candidates |= common.matrix_products(devices, peers)
        measured[column] = common.alternate(candidates, config.seconds / len(COLUMNS))
        gflop[column] = step_gflop(config)
    cells = common.cells_of(measured, gflop)
    for row in [row for row in cells if row not in ("ratio_to_best_peer", "share_of_peak")]:
        cells[f"{row}_images_per_s"] = {
            column: {"mean": 2e3 * config.batch / cell["mean"], "ci95": None, "n": cell["n"]}
            for column, cell in cells[row].items()
        }
    protocol = f"SimCLR, 2 × {config.batch} views of {SIDE}×{SIDE}×1, Conv4-{config.width} stride 2, AdamW"
    common.finish("contrastive_step", config, cells, protocol=protocol, started=started)


def our_step(config: Config, images: np.ndarray, augment: str, devices: list) -> common.Candidate:
    """The project's own training step, mapped over the devices."""
    encoder = make_encoder(EncoderConfig(width=config.width), axis_name=AXIS)
    views = make_augment(augment)
    objective = simclr(encoder, augment=views, temperature=TEMPERATURE, hidden=HIDDEN, out=OUT, axis_name=AXIS)
    trainable, optimiser = pretraining(objective), make_optimiser(OPTIMISER, total_steps=1_000_000)
    each = config.batch // len(devices)

    def batch_at(source: Any, root: Any, turn: Any, step: Any, micro: Any, part: Any) -> dict[str, Any]:
        del root, turn, step, micro
        return {"inputs": lax.dynamic_slice_in_dim(source, part * each, each)}

    roots = roots_of((0,))
    first = initial_state(trainable, optimiser, roots, {"inputs": jnp.asarray(images[:2])}, averaged=False)
    update = make_update(trainable, optimiser, batch_at, size=config.batch, shards=len(devices))
    mapped = map_step(lambda train, source, roots: update(train, source, roots, jnp.int32(0)), devices)
    source = replicate(jnp.asarray(images), devices)
    train = replicate(first, devices)

    def step() -> None:
        nonlocal train
        train, metrics = mapped(train, source, roots)
        jax.block_until_ready((train.step, metrics))

    return step


def torch_steps(config: Config, images: np.ndarray, views: bool) -> dict[str, common.Candidate]:
    """The same step in PyTorch, for each memory format; the faster one counts."""
    import torch

    formats = {"torch": torch.contiguous_format, "torch_channels_last": torch.channels_last}
    return {name: _torch_step(config, images, views, memory_format) for name, memory_format in formats.items()}


def _torch_step(config: Config, images: np.ndarray, views: bool, memory_format: Any) -> common.Candidate:
    import torch
    from torch import nn
    from torch.nn import functional as F

    torch.manual_seed(0)
    layers: list[Any] = []
    for channels in (1, *(config.width,) * 3):
        layers += [nn.Conv2d(channels, config.width, 3, 2, 1, bias=False), nn.BatchNorm2d(config.width)]
        layers += [nn.ReLU(inplace=True)]
    encoder = nn.Sequential(*layers, nn.Flatten())
    projector = nn.Sequential(
        nn.Linear(4 * config.width, HIDDEN, bias=False),
        nn.BatchNorm1d(HIDDEN),
        nn.ReLU(inplace=True),
        nn.Linear(HIDDEN, OUT, bias=False),
    )
    network: Any = nn.Sequential(encoder, projector)
    network = network.to(memory_format=memory_format)
    decay = OPTIMISER.weight_decay
    groups = [
        {"params": [leaf for leaf in network.parameters() if leaf.ndim > 1], "weight_decay": decay},
        {"params": [leaf for leaf in network.parameters() if leaf.ndim <= 1], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=OPTIMISER.learning_rate, fused=True)
    inputs = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    n = config.batch
    partner = torch.cat([torch.arange(n, 2 * n), torch.arange(n)])
    itself = torch.eye(2 * n, dtype=torch.bool)
    augment = _torch_views() if views else lambda both: both

    def step() -> None:
        both = inputs.float().div_(255).repeat(2, 1, 1, 1)
        both = augment(both).contiguous(memory_format=memory_format)
        embeddings = F.normalize(network(both))
        logits = (embeddings @ embeddings.T / TEMPERATURE).masked_fill(itself, -torch.inf)
        loss = F.cross_entropy(logits, partner)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    return step


def _torch_views() -> Any:
    """Affine and elastic views by one ``grid_sample``, with the settings of the preset "glyph"."""
    import torch
    from torch.nn import functional as F

    from metarep_jax.data.warp import control_weights

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


def step_gflop(config: Config) -> float:
    """Matrix products of one step in GFLOP: forward, and twice that backward (but none to the images)."""
    views, total, channels, side = 2 * config.batch, 0.0, 1, SIDE
    for block in range(4):
        side = -(-side // 2)
        product = 2 * side * side * 9 * channels * config.width
        total += views * product * (2 if block == 0 else 3)
        channels = config.width
    dense = 2 * (side * side * channels * HIDDEN + HIDDEN * OUT)
    return 1e-9 * (total + 3 * views * dense + 3 * 2 * views * views * OUT)


if __name__ == "__main__":
    main(tyro.cli(Config))
