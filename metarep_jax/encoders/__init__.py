"""Encoders: Flax Linen modules ``(x, mask, running) -> features [batch, dim]``.

``x`` is uint8 in 0–255 or float in [0, 1]; ``mask`` [batch] says which rows enter batch statistics (padding must not);
``running=True`` normalises with the running averages.
"""

import dataclasses
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, PyTree

from metarep_jax.encoders.conv4 import Conv4
from metarep_jax.encoders.mlp import MLP
from metarep_jax.encoders.resnet import BottleneckBlock, ResNet, ResNet12


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """Which encoder, and its shape."""

    name: str = "conv4"
    """conv4, resnet12, resnet18, resnet34, resnet50 or mlp."""
    width: int = 64
    """Filters of the first block (MLP: units of each of four layers)."""
    downsample: Literal["stride", "pool"] = "stride"
    """conv4: stride-2 convolutions (as in MAML's code) or 2×2 max-pooling (as in Prototypical Networks)."""
    readout: Literal["flatten", "mean"] = "flatten"
    """conv4: all positions of the last block as features, or their mean."""
    stem: Literal["small", "imagenet"] = "small"
    """resnet18/34/50: a 3×3 stem for small images, or 7×7 with stride 2 and max-pool."""
    norm: Literal["batch", "group", "layer", "none"] = "batch"
    """Normalisation layers."""
    mean: float = 0.0
    """Subtracted from images in [0, 1]."""
    std: float = 1.0
    """Divides the centred images; mean 0.5 and std 0.5 map images to ±1."""
    conv: Literal["auto", "patches", "lax"] = "auto"
    """How convolutions are lowered; auto: patches × matrix on a CPU and wherever kernels differ per task."""

    def __post_init__(self):
        if self.name not in ENCODERS:
            raise ValueError(f"unknown encoder {self.name!r}; there are: {', '.join(sorted(ENCODERS))}")
        for field in ("width", "std"):
            if getattr(self, field) <= 0:
                raise ValueError(f"EncoderConfig.{field} must be positive, got {getattr(self, field)}")


def make_encoder(
    config: EncoderConfig, *, axis_name: str | None = None, dtype: Any = jnp.float32, adapted: bool = False
) -> nn.Module:
    """The module that ``config`` describes.

    Args:
      config: see ``EncoderConfig``.
      axis_name: the mapped axis whose devices share batch statistics, or None.
      dtype: of the computation; parameters and statistics stay float32.
      adapted: whether kernels differ per task (an inner loop adapts them): then ``conv="auto"`` means patches.
    """
    patches = adapted or jax.default_backend() == "cpu"
    conv = ("patches" if patches else "lax") if config.conv == "auto" else config.conv
    return ENCODERS[config.name](config, axis_name=axis_name, dtype=dtype, conv=conv)


def split_variables(modules: dict[str, PyTree]) -> tuple[PyTree, PyTree]:
    """Linen variables by module to ``(params, state)`` by module; modules without statistics get ``{}``."""
    params = {name: variables.get("params", {}) for name, variables in modules.items()}
    return params, {name: variables.get("batch_stats", {}) for name, variables in modules.items()}


def encoder_variables(params: PyTree, state: PyTree) -> PyTree:
    """The encoder's Linen variables out of any stage's ``params`` and ``state``: what one stage hands to the next."""
    return {"params": params["encoder"], "batch_stats": state["encoder"]}


def count_parameters(params: PyTree) -> int:
    """The number of scalars in a tree of arrays."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def check_encoder_variables(module: nn.Module, variables: PyTree, inputs: Array) -> None:
    """Raises ValueError when handed-over ``variables`` do not fit ``module`` on ``inputs`` [n, ...]."""
    wanted = jax.eval_shape(module.init, jax.random.key(0), inputs)
    flat = [
        {jax.tree_util.keystr(path): leaf.shape for path, leaf in jax.tree.leaves_with_path(tree["params"])}
        for tree in (wanted, variables)
    ]
    for path in sorted(flat[0].keys() | flat[1].keys()):
        want, got = flat[0].get(path), flat[1].get(path)
        if want != got:
            raise ValueError(
                f"the given encoder parameters do not fit this encoder: {path} has shape {got}, wanted {want}. "
                "Use the encoder settings that they were trained with"
            )


def _conv4(config: EncoderConfig, **how: Any) -> nn.Module:
    return Conv4(
        width=config.width,
        downsample=config.downsample,
        readout=config.readout,
        norm=config.norm,
        mean=config.mean,
        std=config.std,
        **how,
    )


def _resnet12(config: EncoderConfig, **how: Any) -> nn.Module:
    return ResNet12(width=config.width, norm=config.norm, mean=config.mean, std=config.std, **how)


def _resnet(config: EncoderConfig, stages: tuple[int, ...], bottleneck: bool = False, **how: Any) -> nn.Module:
    block = {"block": BottleneckBlock} if bottleneck else {}
    shape = {"width": config.width, "stem": config.stem, "norm": config.norm, "mean": config.mean, "std": config.std}
    return ResNet(stages=stages, **block, **shape, **how)


def _mlp(config: EncoderConfig, *, conv: str, **how: Any) -> nn.Module:
    del conv
    return MLP(widths=(config.width,) * 4, norm=config.norm, mean=config.mean, std=config.std, **how)


ENCODERS = {
    "conv4": _conv4,
    "mlp": _mlp,
    "resnet12": _resnet12,
    "resnet18": partial(_resnet, stages=(2, 2, 2, 2)),
    "resnet34": partial(_resnet, stages=(3, 4, 6, 3)),
    "resnet50": partial(_resnet, stages=(3, 4, 6, 3), bottleneck=True),
}
