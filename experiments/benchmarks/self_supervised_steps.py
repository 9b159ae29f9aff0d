"""One step of each self-supervised objective, ours beside PyTorch's, on this machine in this run.

    python -m experiments.benchmarks.self_supervised_steps --seconds 120

Forward and backward pass, AdamW update, and the teacher's and the queue's where there are. Both sides are given the
same views and start from the same weights, and their first losses and gradients are compared before time is taken.
"""

import dataclasses
import time
from typing import Any

import jax
import numpy as np

from experiments.benchmarks import common, timing
from experiments.benchmarks.common import StepBenchmarkConfig
from experiments.benchmarks.convolution_passes import check_lowerings
from experiments.benchmarks.convolution_shapes import convolutions_of
from experiments.benchmarks.flops import objective_gflop
from metarep_jax.encoders import EncoderConfig, make_encoder
from metarep_jax.pretrain import OBJECTIVES
from metarep_jax.pretrain.mae import choose_patches
from metarep_jax.train import AXIS, OptimiserConfig, check_batch, pretraining
from metarep_jax.train.parallel import step_keys
from metarep_jax.train.step import make_roots
from metarep_jax.types import Keys, Objective

SETTINGS: dict[str, dict[str, Any]] = {  # the objectives' own defaults, written out since PyTorch's are given them too
    "simclr": {"temperature": 0.1, "hidden": 256, "out": 128},
    "moco": {"temperature": 0.2, "hidden": 256, "out": 128, "momentum": 0.99, "queue": 4096, "groups": 8},
    "byol": {"momentum": 0.99, "hidden": 512, "out": 128},
    "dino": {
        "momentum": 0.99,
        "temperature": 0.1,
        "teacher_temperature": 0.04,
        "centre_momentum": 0.9,
        "prototypes": 1024,
        "hidden": 512,
        "out": 128,
    },
    "swav": {"temperature": 0.1, "prototypes": 256, "epsilon": 0.05, "iterations": 3, "hidden": 256, "out": 128},
    "barlow": {"off_diagonal": 5e-3, "hidden": 1024, "out": 1024},
    "vicreg": {"invariance": 25.0, "variance": 25.0, "covariance": 1.0, "hidden": 1024, "out": 1024},
    "mae": {"mask_ratio": 0.75, "decoder_width": 128, "decoder_depth": 2, "decoder_heads": 4},
}
SIDE, PATCH, HEADS = 28, 4, 4
OPTIMISER = OptimiserConfig(name="adamw", learning_rate=1e-3, weight_decay=1e-4)
LEAST_SECONDS = 4.0  # of measuring an objective, when compiling took all the time that was given


@dataclasses.dataclass(frozen=True)
class SelfSupervisedStepsConfig(StepBenchmarkConfig):
    """Flags of experiments.benchmarks.self_supervised_steps."""

    seconds: float = 120.0
    """Time of the run, compilation included; what is left is measuring, at least 4 s an objective."""
    batch: int = 256
    """Images a step; all but MAE see two views of each."""
    width: int = 64
    """Filters of Conv4 (all but MAE)."""
    vit_width: int = 128
    """MAE: units of its Transformer, 4 heads, patches of 4×4."""
    vit_depth: int = 4
    """MAE: blocks of its Transformer."""

    def __post_init__(self):
        super().__post_init__()
        for field in ("batch", "width", "vit_width", "vit_depth"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be positive, got {getattr(self, field)}")


def settings_of(name: str, config: SelfSupervisedStepsConfig) -> dict[str, Any]:
    """The objective's keywords; SwAV has at most as many prototypes as the batch has images."""
    found = SETTINGS[name]
    return found | {"prototypes": min(found["prototypes"], config.batch)} if name == "swav" else found


def make_views(config: SelfSupervisedStepsConfig) -> np.ndarray:
    """Two random views of a batch, [2, n, h, w, c]: the time does not depend on what they show."""
    return np.random.default_rng(0).random((2, config.batch, SIDE, SIDE, 1), np.float32)


def our_objective(
    name: str, config: SelfSupervisedStepsConfig, axis_name: str | None = AXIS, conv: str = "auto"
) -> Objective:
    """The objective, whose views are an image and its "partner" as they are."""
    if name == "mae":
        shape = EncoderConfig("vit", width=config.vit_width, depth=config.vit_depth, heads=HEADS, patch=PATCH)
        return OBJECTIVES[name](make_encoder(shape), **settings_of(name, config))
    encoder = make_encoder(EncoderConfig(width=config.width), axis_name=axis_name, conv=conv)
    return OBJECTIVES[name](
        encoder, augment=lambda keys, images: images, axis_name=axis_name, **settings_of(name, config)
    )


def our_batch(name: str, views: np.ndarray) -> dict[str, np.ndarray]:
    """The views as the objective takes them."""
    first, second = views
    return {"inputs": first} if name == "mae" else {"inputs": first, "partner": second}


def torch_peer(name: str, config: SelfSupervisedStepsConfig, params: Any) -> Any:
    """The same objective in PyTorch, with our parameters."""
    from experiments.benchmarks import ssl_peers, torch_nets

    if name == "mae":
        peer = ssl_peers.MAE(1, SIDE, PATCH, config.vit_width, config.vit_depth, HEADS, **settings_of(name, config))
    else:
        made = {
            "simclr": ssl_peers.SimCLR,
            "moco": ssl_peers.MoCo,
            "byol": ssl_peers.BYOL,
            "dino": ssl_peers.DINO,
            "swav": ssl_peers.SwAV,
            "barlow": ssl_peers.Barlow,
            "vicreg": ssl_peers.VICReg,
        }[name]
        peer = made(torch_nets.Conv4(1, config.width, SIDE), **settings_of(name, config))
    peer.load(params)
    return peer


def torch_inputs(name: str, views: np.ndarray) -> Any:
    """The views as the peer takes them; convolutions' turned, see ``torch_nets``."""
    from experiments.benchmarks.torch_nets import channels_first

    first = channels_first(views[0], turned=False)
    return first if name == "mae" else channels_first(views).flatten(0, 1)


def drawn_order(name: str, keys: Keys, batch: int) -> tuple[Any, ...]:
    """What our step draws from its keys, as the peer's further arguments: an order of the batch, or of the patches."""
    import torch

    if name == "moco":
        return (torch.tensor(np.array(jax.random.permutation(keys.shared, batch))),)
    patches = (SIDE // PATCH) ** 2
    return (torch.tensor(np.array(choose_patches(keys.example, patches, patches)[0])),) if name == "mae" else ()


def candidates_of(
    name: str, config: SelfSupervisedStepsConfig, views: np.ndarray, devices: list, with_peers: bool
) -> dict[str, timing.Candidate]:
    """Our step and PyTorch's, for each memory format, after a check that they compute the same."""
    trainable = pretraining(our_objective(name, config, conv=config.conv))
    step, last = common.pretraining_step(trainable, our_batch(name, views), devices=devices, optimiser=OPTIMISER)
    params, queue = (jax.tree.map(lambda leaf: np.array(leaf[0]), tree) for tree in start_of(last[0]))
    ours = common.first_step(name, step, last)
    found = {"ours": step}
    if with_peers:
        found |= torch_steps(name, config, views, params, queue, ours)
    return found


def start_of(train: Any) -> tuple[Any, Any]:
    """Parameters and the queue (None where there is none) before the first step."""
    return train.params, train.state["queue"].rows if "queue" in train.state else None


def torch_steps(
    name: str, config: SelfSupervisedStepsConfig, views: np.ndarray, params: Any, queue: Any, ours: list[float]
) -> dict[str, timing.Candidate]:
    """PyTorch's steps by memory format (MAE's network has no maps: one), checked against our first step."""
    import torch

    from experiments.benchmarks import ssl_peers, torch_nets

    keys = step_keys(make_roots([0]).step, 0, config.batch, 0, 1)

    def peer() -> Any:
        made = torch_peer(name, config, params)
        if queue is not None:
            made.get_buffer("queue").copy_(torch.from_numpy(queue))
        return made

    formats = {"torch": torch.contiguous_format} if name == "mae" else torch_nets.FORMATS
    inputs, drawn = torch_inputs(name, views), drawn_order(name, keys, config.batch)
    return ssl_peers.checked_steps(peer, inputs, ours, OPTIMISER, drawn=drawn, formats=formats)


def cells_of(times: dict[str, np.ndarray], images: int, gflop: float) -> dict[str, Any]:
    """A row of the result file."""
    cells = timing.compared(times, gflop)
    rates = {"ours": "ours_images_per_s", "best_peer": "torch_images_per_s"}
    row = {column: timing.images_per_s(cells[name], images) for name, column in rates.items() if name in cells}
    shares = {"ratio_to_best_peer": "ratio", "share_of_peak": "share_of_peak"}
    return row | {column: cells[name] for name, column in shares.items() if name in cells}


def protocol_of(config: SelfSupervisedStepsConfig, best: dict[str, str | None]) -> str:
    """What was measured, in words."""
    each = []
    for name in SETTINGS:
        words = [f"{key} {value}" for key, value in settings_of(name, config).items()]
        layout = {"torch": "default layout", "torch_channels_last": "channels last"}.get(best[name] or "")
        each.append(f"{name}: {', '.join(words)}" + (f" (PyTorch: {layout})" if layout else ""))
    return (
        f"two given views of {config.batch} images of {SIDE}×{SIDE}×1, Conv4-{config.width} stride 2; MAE one, ViT of "
        f"{config.vit_depth} × {config.vit_width}, patches of {PATCH}×{PATCH}; AdamW; views a second from median step "
        f"times, PyTorch in the faster of two memory formats; {'; '.join(each)}"
    )


def main(config: SelfSupervisedStepsConfig) -> None:
    """Times every objective and writes the result file."""
    started = time.perf_counter()
    devices = common.start(config)
    check_batch(config.batch, devices)
    plain = make_encoder(EncoderConfig(width=config.width), conv="lax")
    check_lowerings("--conv", (config.conv,), convolutions_of(plain, (SIDE, SIDE, 1)))
    with_peers = common.peers_present(config, "torch")
    if with_peers:
        common.set_torch_threads(devices)
    views = make_views(config)
    steps = {name: candidates_of(name, config, views, devices, with_peers) for name in SETTINGS}
    products = timing.matrix_products(devices, with_peers)
    left = max((config.seconds - time.perf_counter() + started) / len(steps), LEAST_SECONDS)
    cells, best = {}, {}
    for name, candidates in steps.items():
        times = timing.alternate(candidates | products, left)
        gflop = objective_gflop(our_objective(name, config, None, "lax"), our_batch(name, views))
        cells[name] = cells_of(times, config.batch if name == "mae" else 2 * config.batch, gflop)
        best[name] = timing.best_peer(times)
    common.trace(config, {name: candidates["ours"] for name, candidates in steps.items()})
    protocol = protocol_of(config, best)
    common.finish("self_supervised_steps", config, cells, protocol=protocol, started=started)


if __name__ == "__main__":
    common.run(main, SelfSupervisedStepsConfig, __doc__)
