"""Networks of the PyTorch peers, and how our parameters get into them.

Their convolutions pad by 1 on both sides, which is PyTorch's fast path, while ours pad as TensorFlow's SAME, at the
end; on images and kernels turned by 180° the two are the same.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from metarep_jax.train import OptimiserConfig

FORMATS = {"torch": torch.contiguous_format, "torch_channels_last": torch.channels_last}
Arrays = dict[str, np.ndarray]


class Encoder(nn.Module):
    """An encoder: ``dim`` features an image, of ``maps`` channels where they are maps (None: pooled)."""

    dim: int
    maps: int | None = None

    def arrays(self, params: Any) -> Arrays:
        """Our encoder's parameters by the names of this one."""
        raise NotImplementedError


class Conv4(Encoder):
    """Conv4 with stride 2 and batch statistics: images [n, c, side, side] to maps [n, width, side/16, side/16]."""

    def __init__(self, channels: int, width: int, side: int = 28, running: bool = True):
        super().__init__()
        self.dim, self.maps = width * (-(-side // 16)) ** 2, width
        self.convs = nn.ModuleList(
            nn.Conv2d(width if i else channels, width, 3, stride=2, padding=1, bias=False) for i in range(4)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width, track_running_stats=running) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The last block's maps."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = functional.relu(norm(conv(x)), inplace=True)
        return x

    def arrays(self, params: Any) -> Arrays:
        """Kernels turned by 180°, see above."""
        return conv4_arrays(params)


class Head(nn.Module):
    """Dense layers of ``widths``, with ReLU between them, and batch norm before it, or biases instead."""

    def __init__(self, dim: int, *widths: int, norm: bool = True):
        super().__init__()
        sizes = zip((dim, *widths), widths)
        self.layers = nn.ModuleList(nn.Linear(before, after, bias=not norm) for before, after in sizes)
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) if norm else nn.Identity() for width in widths[:-1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Rows [n, dim] to [n, out]."""
        *hidden, last = self.layers
        for layer, norm in zip(hidden, self.norms, strict=True):
            x = functional.relu(norm(layer(x)), inplace=True)
        return last(x)


class Block(nn.Module):
    """A pre-norm Transformer block, as ``metarep_jax.encoders.transformer.Block``."""

    def __init__(self, dim: int, heads: int, expand: int = 4):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = (nn.LayerNorm(dim, eps=1e-6) for _ in range(2))
        self.qkv, self.mix = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.up, self.down = nn.Linear(dim, expand * dim), nn.Linear(expand * dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Vectors [n, l, dim] to as many."""
        n, length, dim = x.shape
        qkv = self.qkv(self.norm1(x)).view(n, length, 3, self.heads, dim // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        x = x + self.mix(mixed.transpose(1, 2).reshape(n, length, dim))
        return x + self.down(functional.gelu(self.up(self.norm2(x)), approximate="tanh"))


def channels_first(images: Any, turned: bool = True) -> torch.Tensor:
    """Our images [..., h, w, c] as PyTorch's [..., c, h, w]; turned by 180° for networks that convolve them."""
    x = np.moveaxis(np.asarray(images), -1, -3)
    return torch.from_numpy(np.array(x[..., ::-1, ::-1] if turned else x, order="C"))


def set_parameters(net: nn.Module, arrays: Mapping[str, Any]) -> None:
    """Writes ``arrays`` into the parameters of those names. Raises ValueError unless they are all that there are."""
    own = dict(net.named_parameters())
    if own.keys() != arrays.keys():
        raise ValueError(f"parameters that only one side has: {sorted(own.keys() ^ arrays.keys())}")
    with torch.no_grad():
        for name, value in arrays.items():
            own[name].copy_(torch.from_numpy(np.array(value)))


def within(name: str, arrays: Mapping[str, np.ndarray]) -> Arrays:
    """The arrays of a submodule of that name."""
    return {f"{name}.{key}": value for key, value in arrays.items()}


def conv4_arrays(params: Any) -> Arrays:
    """Our Conv4's parameters by the names of ``Conv4``."""
    found = {}
    for i in range(4):
        kernel = np.asarray(params[f"Conv_{i}"]["kernel"])
        found[f"convs.{i}.weight"] = kernel.transpose(3, 2, 0, 1)[:, :, ::-1, ::-1]
        found |= within(f"norms.{i}", norm_arrays(params[f"Norm_{i}"]))
    return found


def norm_arrays(params: Any) -> Arrays:
    """Our norm's scale and bias by the names of PyTorch's."""
    return {"weight": np.asarray(params["scale"]), "bias": np.asarray(params["bias"])}


def dense_arrays(params: Any) -> Arrays:
    """Our dense layer's parameters by the names of ``nn.Linear``."""
    bias = {"bias": np.asarray(params["bias"])} if "bias" in params else {}
    return {"weight": np.asarray(params["kernel"]).T, **bias}


def head_arrays(params: Any, channels: int | None = None) -> Arrays:
    """Our head's parameters by the names of ``Head``.

    ``channels``: of the square maps that ``Conv4`` gave it, channels first and turned; None: it was given plain rows.
    """
    count = sum(name.startswith("Dense_") for name in params)
    layers = [dense_arrays(params[f"Dense_{i}"]) for i in range(count)]
    if channels is not None:
        weight = layers[0]["weight"]
        side = round((weight.shape[1] // channels) ** 0.5)
        maps = weight.reshape(-1, side, side, channels)[:, ::-1, ::-1]
        layers[0]["weight"] = maps.transpose(0, 3, 1, 2).reshape(weight.shape)
    found: Arrays = {}
    for i, layer in enumerate(layers):
        found |= within(f"layers.{i}", layer)
        found |= within(f"norms.{i}", norm_arrays(params[f"Norm_{i}"])) if f"Norm_{i}" in params else {}
    return found


def block_arrays(params: Any) -> Arrays:
    """Our Transformer block's parameters by the names of ``Block``."""
    attention = params["MultiHeadDotProductAttention_0"]
    dim = np.shape(attention["out"]["bias"])[0]
    parts = [attention[name] for name in ("query", "key", "value")]
    qkv = {
        "weight": np.concatenate([np.reshape(part["kernel"], (dim, dim)).T for part in parts]),
        "bias": np.concatenate([np.reshape(part["bias"], dim) for part in parts]),
    }
    mix = {"weight": np.reshape(attention["out"]["kernel"], (dim, dim)).T, "bias": np.asarray(attention["out"]["bias"])}
    found = within("qkv", qkv) | within("mix", mix)
    for index, (norm, dense) in enumerate((("norm1", "up"), ("norm2", "down"))):
        found |= within(norm, norm_arrays(params[f"LayerNorm_{index}"]))
        found |= within(dense, dense_arrays(params[f"Dense_{index}"]))
    return found


def adamw(net: nn.Module, config: OptimiserConfig) -> torch.optim.Optimizer:
    """AdamW as ``make_optimiser`` makes it: no decay on norms and biases. Parameters without gradients stay out."""
    trained = [leaf for leaf in net.parameters() if leaf.requires_grad]
    groups = [
        {"params": [leaf for leaf in trained if leaf.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [leaf for leaf in trained if leaf.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)
