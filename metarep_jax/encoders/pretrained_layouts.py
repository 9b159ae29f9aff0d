"""Which network a file of weights holds, and where each of our arrays lies among its tensors."""

import math
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from metarep_jax.encoders.config import EncoderConfig
from metarep_jax.encoders.layers import IMAGENET_MEAN, IMAGENET_STD

RESNETS: dict[tuple[bool, tuple[int, ...]], str] = {  # whether of bottleneck blocks, and the blocks of each stage
    (False, (2, 2, 2, 2)): "resnet18",
    (False, (3, 4, 6, 3)): "resnet34",
    (True, (3, 4, 6, 3)): "resnet50",
}
HALF = (0.5, 0.5, 0.5)  # the mean and deviation of timm's own Vision Transformers
HEAD_WIDTH = {1280: 80}  # of attention, by a Vision Transformer's width (Huge); 64 of all others
EXAMPLES = 5  # names that an error lists

Tensors = dict[str, np.ndarray]
Way = tuple[str, ...]  # the names on the way to an array in our variables
Source = tuple[tuple[str, ...], Callable[..., np.ndarray]]  # the tensors that the array is made of, and how


class Network(NamedTuple):
    """What a file of weights holds."""

    encoder: EncoderConfig
    image_size: int | None  # that alone; None: any
    channels: int
    source: Callable[[Way], Source]


def network_of(tensors: Tensors, heads: int | None = None) -> Network:
    """The network whose tensors these are, known by names and shapes.

    Args:
      tensors: arrays by name.
      heads: of a Vision Transformer's attention, which no shape tells; None: as many as have 64 numbers each.

    Raises:
      ValueError: for another architecture.
    """
    if {"conv1.weight", "layer1.0.conv1.weight"} <= tensors.keys():
        if heads is not None:
            raise ValueError(f"heads={heads} is of a Vision Transformer, but it holds a ResNet")
        return _resnet(tensors)
    if {"patch_embed.proj.weight", "blocks.0.attn.qkv.weight"} <= tensors.keys():
        return _vit(tensors, heads)
    raise ValueError(
        "it holds neither a torchvision ResNet-18/34/50 nor a timm Vision Transformer; its tensors are "
        f"{some_of(tensors)}"
    )


def some_of(names: Iterable[str]) -> str:
    """A few of the names, and how many more there are."""
    names = sorted(names)
    more = f" and {len(names) - EXAMPLES} more" if len(names) > EXAMPLES else ""
    return ", ".join(names[:EXAMPLES]) + more


def _resnet(tensors: Tensors) -> Network:
    blocks = {match[0] for name in tensors if (match := re.match(r"layer\d+\.\d+\.", name))}
    stages = tuple(sum(block.startswith(f"layer{stage}.") for block in blocks) for stage in range(1, 5))
    bottleneck = "layer1.0.conv3.weight" in tensors
    if (bottleneck, stages) not in RESNETS:
        kind = "bottleneck" if bottleneck else "basic"
        raise ValueError(f"a ResNet of {stages} {kind} blocks is none of {', '.join(RESNETS.values())}")
    width, channels, *_ = tensors["conv1.weight"].shape
    encoder = EncoderConfig(
        RESNETS[bottleneck, stages], width=width, stem="imagenet", mean=IMAGENET_MEAN, std=IMAGENET_STD
    )
    places = [f"layer{stage + 1}.{block}" for stage, blocks in enumerate(stages) for block in range(blocks)]
    return Network(encoder, None, channels, lambda way: _resnet_source(way, places))


def _resnet_source(way: Way, places: list[str]) -> Source:
    """Ours: ``Conv_0``, ``Norm_0``, ``BasicBlock_3/Conv_1``, ``BasicBlock_3/shortcut_norm``; theirs: ``conv1``,
    ``bn1``, ``layer2.1.conv2``, ``layer2.1.downsample.1``."""
    _, *block, layer, leaf = way
    if layer in ("shortcut", "shortcut_norm"):
        name = "downsample.0" if layer == "shortcut" else "downsample.1"
    else:
        kind, number = layer.split("_")
        name = f"{'conv' if kind == 'Conv' else 'bn'}{int(number) + 1}"
    before = f"{places[int(block[0].rpartition('_')[2])]}." if block else ""
    last = {"mean": "running_mean", "var": "running_var", "bias": "bias"}.get(leaf, "weight")
    return (f"{before}{name}.{last}",), _kernel if leaf == "kernel" else np.asarray


def _vit(tensors: Tensors, heads: int | None) -> Network:
    width, channels, patch, _ = tensors["patch_embed.proj.weight"].shape
    depth = 1 + max(int(match[1]) for name in tensors if (match := re.match(r"blocks\.(\d+)\.", name)))
    for name in ("cls_token", "pos_embed"):
        if name not in tensors:
            raise ValueError(f"a Vision Transformer without {name} is not supported")
    side = math.isqrt(tensors["pos_embed"].shape[1] - 1)
    if side**2 + 1 != tensors["pos_embed"].shape[1]:
        raise ValueError(
            f"pos_embed has {tensors['pos_embed'].shape[1]} places: not a class token and a square of patches"
        )
    if heads is None and width % HEAD_WIDTH.get(width, 64):
        raise ValueError(
            f"a Vision Transformer of width {width} is none of the usual ones; give heads= of its attention"
        )
    encoder = EncoderConfig(
        "vit",
        patch=patch,
        width=width,
        depth=depth,
        heads=heads or width // HEAD_WIDTH.get(width, 64),
        positions="learned",
        readout="cls",
        gelu="exact",
        mean=HALF,
        std=HALF,
    )
    return Network(encoder, side * patch, channels, lambda way: _vit_source(way, encoder.get("heads")))


def _vit_source(way: Way, heads: int) -> Source:
    """Ours: ``blocks_2/MultiHeadDotProductAttention_0/query/kernel``; theirs: a third of
    ``blocks.2.attn.qkv.weight``."""
    _, *modules, leaf = way
    if way[1:] == ("cls",):
        return ("cls_token", "pos_embed"), lambda cls, place: cls[0, 0] + place[0, 0]
    if way[1:] == ("position",):
        return ("pos_embed",), lambda place: place[0, 1:]
    last = "bias" if leaf == "bias" else "weight"
    if modules == ["embed"]:
        return (f"patch_embed.proj.{last}",), np.asarray if leaf == "bias" else lambda w: _kernel(w).reshape(-1, len(w))
    if modules == ["norm"]:
        return (f"norm.{last}",), np.asarray
    before = f"blocks.{modules[0].rpartition('_')[2]}."
    if modules[-1] in ("query", "key", "value"):
        third = ("query", "key", "value").index(modules[-1])

        def part(rows: np.ndarray) -> np.ndarray:
            rows = np.split(rows, 3)[third]
            return rows.reshape(heads, -1) if leaf == "bias" else rows.T.reshape(rows.shape[1], heads, -1)

        return (f"{before}attn.qkv.{last}",), part
    if modules[-1] == "out":
        whole: Callable[..., np.ndarray] = lambda w: w.T.reshape(heads, -1, len(w))  # noqa: E731
        return (f"{before}attn.proj.{last}",), np.asarray if leaf == "bias" else whole
    name = {"LayerNorm_0": "norm1", "LayerNorm_1": "norm2", "Dense_0": "mlp.fc1", "Dense_1": "mlp.fc2"}[modules[-1]]
    return (f"{before}{name}.{last}",), np.transpose if leaf == "kernel" else np.asarray


def _kernel(weight: np.ndarray) -> np.ndarray:
    """A convolution's weights [out, in, h, w] as a kernel [h, w, in, out]."""
    return weight.transpose(2, 3, 1, 0)
