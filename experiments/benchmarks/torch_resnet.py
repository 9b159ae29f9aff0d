"""ResNet-18 in PyTorch, with torchvision's names, and how our parameters get into it."""

from typing import Any, Literal

import jax
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from experiments.benchmarks.torch_nets import Arrays, Encoder
from metarep_jax.encoders.pretrained_layouts import network_of


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut."""

    def __init__(self, channels: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        same = stride == 1 and channels == width
        shortcut = [] if same else [nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width)]
        self.downsample = nn.Sequential(*shortcut)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps to maps."""
        y = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        return functional.relu(self.bn2(self.conv2(y)) + self.downsample(x), inplace=True)


class ResNet18(Encoder):
    """As ``metarep_jax.encoders.resnet.resnet18`` with either stem: images [n, c, h, w] to [n, 8 · width]."""

    def __init__(self, channels: int, width: int, stem: Literal["small", "imagenet"]):
        super().__init__()
        self.stem, self.dim = stem, 8 * width
        size, stride = (7, 2) if stem == "imagenet" else (3, 1)
        self.conv1 = nn.Conv2d(channels, width, size, stride, size // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        for stage in range(4):
            before, after = width * 2 ** max(stage - 1, 0), width * 2**stage
            blocks = BasicBlock(before, after, 2 if stage else 1), BasicBlock(after, after, 1)
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The last stage's maps, averaged."""
        x = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        if self.stem == "imagenet":
            x = functional.max_pool2d(x, 3, 2, 1)
        for stage in range(1, 5):
            x = self.get_submodule(f"layer{stage}")(x)
        return x.mean((2, 3))

    def arrays(self, params: Any) -> Arrays:
        """Ours by torchvision's names, as pretrained weights are read; no turning, since both pad both sides alike."""
        shapes = {name: np.asarray(leaf.detach()) for name, leaf in self.named_parameters()}
        source, found = network_of(shapes).source, {}
        for path, leaf in jax.tree_util.tree_leaves_with_path(params):
            way = ("params", *(key.key for key in path))
            (name,), _ = source(way)
            found[name] = np.asarray(leaf).transpose(3, 2, 0, 1) if way[-1] == "kernel" else np.asarray(leaf)
        return found
