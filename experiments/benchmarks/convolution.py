"""Every convolution of the encoders: ``python -m experiments.benchmarks.convolution --seconds 240``.

Forward, gradient of the input, gradient of the kernel, each by itself, in GFLOP/s of the direct algorithm and as a
share of the machine's matrix-product rate, beside PyTorch (channels last); float32. Shapes are read off the encoders,
and those that several have are measured once. A batch is as many images as make a pass of 4 GFLOP, 256 at most.

Ours are spread over the devices as in training, and a device's kernel gradient is that of its images. Where ours pads
only the end (SAME with strides) PyTorch pads both sides, as its peers do: as many products, on images turned by 180°.
"""

import dataclasses
import time
from typing import Any, Literal, get_args

import numpy as np

from experiments.benchmarks import common, timing
from experiments.benchmarks.common import console
from experiments.benchmarks.convolution_passes import PASSES, check_lowerings, named_lowering, our_passes, torch_passes
from experiments.benchmarks.convolution_shapes import Convolution, convolutions_of
from metarep_jax.encoders import EncoderConfig, make_encoder
from metarep_jax.encoders.resnet import ResNet

Encoder = Literal["conv4", "resnet12", "resnet18", "resnet50", "cifar_resnet"]
PASS_GFLOP, MOST_IMAGES = 4.0, 256
PRODUCTS_EVERY = 6  # shapes, between measurements of the matrix products
TURN_SECONDS = 0.03  # a pass takes a hundredth or two of a second
LEAST_SECONDS = 0.5  # of measuring a shape, when compiling took all the time that was given


@dataclasses.dataclass(frozen=True)
class ConvolutionConfig(common.PeerBenchmarkConfig):
    """Flags of experiments.benchmarks.convolution."""

    seconds: float = 240.0
    """Time of the run, compilation included; what is left is measuring, at least half a second a shape."""
    encoder: tuple[Encoder, ...] = get_args(Encoder)
    """Whose convolutions; default: all of them."""
    lowerings: tuple[str, ...] = ()
    """How ours are computed, names that encoders know as conv; the first is "ours". Default: passes on a CPU, lax
    elsewhere."""

    def __post_init__(self):
        super().__post_init__()
        if not self.encoder or not set(self.encoder) <= set(get_args(Encoder)):
            raise ValueError(f"--encoder takes one or more of {', '.join(get_args(Encoder))}; got {self.encoder}")


def networks(names: tuple[str, ...]) -> dict[str, list[Convolution]]:
    """The convolutions of each network, repeated as often as it has them."""

    def of(side: int, channels: int, name: str, **settings: Any) -> list[Convolution]:
        return convolutions_of(make_encoder(EncoderConfig(name, **settings), conv="lax"), (side, side, channels))

    every = {
        "conv4": lambda: {
            "conv4 28 px": of(28, 1, "conv4"),
            "conv4 28 px pooled": of(28, 1, "conv4", downsample="pool"),
        },
        "resnet12": lambda: {"resnet12 84 px": of(84, 3, "resnet12")},
        "resnet18": lambda: residual("resnet18"),
        "resnet50": lambda: residual("resnet50"),
        "cifar_resnet": lambda: {
            "cifar resnet 32 px": convolutions_of(ResNet(stages=(3, 3, 3), width=16, conv="lax"), (32, 32, 3))
        },
    }

    def residual(name: str) -> dict[str, list[Convolution]]:
        return {f"{name} 32 px": of(32, 3, name), f"{name} 224 px": of(224, 3, name, stem="imagenet")}

    return {network: found for name in names for network, found in every[name]().items()}


def batch_of(shape: Convolution, devices: int) -> int:
    """Images of a pass of about ``PASS_GFLOP``, a power of two for each device."""
    wanted = min(PASS_GFLOP / shape.gflop, MOST_IMAGES) / devices
    return devices * 2 ** max(int(np.log2(max(wanted, 1))), 0)


def candidates_of(
    shape: Convolution, lowerings: tuple[str, ...], devices: list, with_peers: bool
) -> dict[str, timing.Candidate]:
    """Each pass by ours, "ours forward", by other lowerings, "lax forward", and by PyTorch, checked against ours."""
    images = batch_of(shape, len(devices))
    found: dict[str, timing.Candidate] = {}
    theirs = torch_passes(shape, images) if with_peers else {}
    for index, lowering in enumerate(lowerings):
        steps = our_passes(shape, images, lowering, devices)
        for name, step in steps.items():
            if name in theirs:
                theirs[name].check(step.result(), lowering)
            found[f"{lowering if index else 'ours'} {name}"] = step.run
    return found | {f"torch {name}": step.run for name, step in theirs.items()}


def cells_of(seconds: dict[str, float], gflop: dict[str, float], rate: float, n: int) -> dict[str, Any]:
    """A row of the result file.

    Args:
      seconds: of an image, by "who pass".
      gflop: of an image, by pass; passes that are not there are not counted in the row.
      rate: of the machine's matrix products, in GFLOP/s.
      n: measurements.
    """
    who = list(dict.fromkeys(name.partition(" ")[0] for name in seconds))
    cells = {f"{one} {name}": gflop[name] / seconds[f"{one} {name}"] for name in gflop for one in who}
    cells |= {f"share {name}": cells[f"ours {name}"] / rate for name in gflop}
    total = {one: sum(seconds[f"{one} {name}"] for name in gflop) for one in who}
    cells |= {f"{one} all": sum(gflop.values()) / total[one] for one in who}
    if "torch" in total:
        cells["ratio"] = total["torch"] / total["ours"]
    cells["share_of_peak"] = cells["ours all"] / rate
    return {column: {"mean": value, "ci95": None, "n": n} for column, value in cells.items()}


def network_cells(
    convolutions: list[Convolution], seconds: dict[Convolution, dict[str, float]], rate: float, n: int
) -> dict[str, Any]:
    """The row of a network: all its convolutions one after the other, the first without a gradient of its input."""
    total: dict[str, float] = {}
    gflop: dict[str, float] = dict.fromkeys(PASSES, 0.0)
    for index, shape in enumerate(convolutions):
        for name in PASSES:
            if index or name != "input_gradient":
                gflop[name] += shape.gflop
                for who, each in seconds[shape].items():
                    if who.endswith(f" {name}"):
                        total[who] = total.get(who, 0.0) + each
    return cells_of(total, gflop, rate, n)


def main(config: ConvolutionConfig) -> None:
    """Times every convolution and writes the result file."""
    started = time.perf_counter()
    devices = common.start(config)
    lowerings = tuple(map(named_lowering, config.lowerings or ("auto",)))
    found = networks(config.encoder)
    shapes = list(dict.fromkeys(shape for each in found.values() for shape in each))
    check_lowerings("--lowerings", lowerings, shapes)
    with_peers = common.peers_present(config, "torch")
    if with_peers:
        common.set_torch_threads(devices)
    products = timing.matrix_products(devices, with_peers)
    seconds: dict[Convolution, dict[str, float]] = {}
    product_times: dict[str, list[float]] = {name: [] for name in products}
    least, end = 1_000_000, started + config.seconds
    for index, shape in enumerate(shapes):
        candidates = candidates_of(shape, lowerings, devices, with_peers)
        left = max((end - time.perf_counter()) / (len(shapes) - index) / 2, LEAST_SECONDS)
        times = timing.alternate(candidates, left, TURN_SECONDS)
        if index % PRODUCTS_EVERY == 0:
            for name, each in timing.alternate(products, 0.0, TURN_SECONDS).items():
                product_times[name].extend(each)
        images = batch_of(shape, len(devices))
        seconds[shape] = {name: 1e-3 * float(np.median(each)) / images for name, each in times.items()}
        least = min(least, *(each.size for each in times.values()))
        console.print(f"{index + 1} of {len(shapes)}: {shape.words}", highlight=False)
    rate = timing.product_rate({name: np.asarray(each) for name, each in product_times.items()})
    console.print(f"matrix products ran at {rate:.0f} GFLOP/s", highlight=False)
    rows = {name: network_cells(each, seconds, rate, least) for name, each in found.items()}
    for shape in shapes:
        rows[shape.words] = cells_of(seconds[shape], dict.fromkeys(PASSES, shape.gflop), rate, least)
    protocol = (
        f"GFLOP/s of the direct algorithm from median times, float32; ours: {lowerings[0]}; matrix products of "
        f"{timing.SIDE}×{timing.SIDE} ran at {rate:.0f}; rows of networks: all their convolutions, the first without a "
        f"gradient of its input; share, share of peak: ours, of that rate"
    )
    common.finish("convolution", config, rows, protocol=protocol, started=started)


if __name__ == "__main__":
    common.run(main, ConvolutionConfig, __doc__)
