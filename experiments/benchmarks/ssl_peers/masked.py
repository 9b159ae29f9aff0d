"""MAE in PyTorch."""

from typing import Any

import numpy as np
import torch
from torch import nn

from experiments.benchmarks import torch_nets
from experiments.benchmarks.ssl_peers.peer import Peer
from experiments.benchmarks.torch_nets import Block
from metarep_jax.encoders.vision_transformer import grid_positions
from metarep_jax.pretrain.mae import visible_count


class MAE(Peer):
    """As ``metarep_jax.pretrain.mae`` with a ``VisionTransformer`` without a vector of its own for the readout."""

    def __init__(
        self,
        channels: int,
        side: int,
        patch: int,
        width: int,
        depth: int,
        heads: int,
        *,
        mask_ratio: float,
        decoder_width: int,
        decoder_depth: int,
        decoder_heads: int,
    ):
        super().__init__()
        self.patch, size = patch, patch**2 * channels
        self.kept = visible_count((1, side, side, channels), patch, mask_ratio)
        self.embed, self.widen = nn.Linear(size, width), nn.Linear(width, decoder_width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.decoder = nn.Sequential(*(Block(decoder_width, decoder_heads) for _ in range(decoder_depth)))
        self.norm, self.last_norm = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(decoder_width, eps=1e-6)
        self.missing, self.pixels = nn.Parameter(torch.zeros(decoder_width)), nn.Linear(decoder_width, size)
        for name, dim in (("place", width), ("decoder_place", decoder_width)):
            self.register_buffer(name, torch.from_numpy(np.array(grid_positions((side, side), patch, dim))))

    def load(self, params: Any) -> None:
        """Takes over encoder and decoder."""
        encoder, decoder = params["encoder"], params["decoder"]
        arrays = {"missing": np.asarray(decoder["missing"])}
        for name, dense in (("embed", encoder["embed"]), ("widen", decoder["Dense_0"]), ("pixels", decoder["Dense_1"])):
            arrays |= torch_nets.within(name, torch_nets.dense_arrays(dense))
        for name, norm in (("norm", encoder["norm"]), ("last_norm", decoder["LayerNorm_0"])):
            arrays |= torch_nets.within(name, torch_nets.norm_arrays(norm))
        for index in range(len(self.blocks)):
            arrays |= torch_nets.within(f"blocks.{index}", torch_nets.block_arrays(encoder[f"blocks_{index}"]))
        for index in range(len(self.decoder)):
            arrays |= torch_nets.within(f"decoder.{index}", torch_nets.block_arrays(decoder[f"block{index + 1}"]))
        torch_nets.set_parameters(self, arrays)

    def forward(self, images: torch.Tensor, order: torch.Tensor | None = None) -> torch.Tensor:
        """The error of the patches left out: all but the first of ``order`` [n, l], default: a random one a row."""
        patches = patchify(images, self.patch)
        n, length, _ = patches.shape
        chosen = torch.rand(n, length).argsort(1) if order is None else order
        back, visible = chosen.argsort(1), chosen[:, : self.kept]
        x = self.embed(rows_at(patches, visible)) + self.get_buffer("place")[visible]
        shown = self.widen(self.norm(self.blocks(x)))
        missing = self.missing.expand(n, length - self.kept, -1)
        whole = rows_at(torch.cat([shown, missing], 1), back) + self.get_buffer("decoder_place")
        return masked_error(self.pixels(self.last_norm(self.decoder(whole))), patches, back >= self.kept)


def masked_error(outputs: torch.Tensor, patches: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
    """MAE's loss of predicted and true patches [n, l, patch], the true ones normalised, where ``masked`` [n, l]."""
    var, mean = torch.var_mean(patches, -1, correction=1, keepdim=True)
    error = (outputs - (patches - mean) * torch.rsqrt(var + 1e-6)).square().mean(-1)
    return (error * masked).sum() / masked.sum()


def patchify(images: torch.Tensor, patch: int) -> torch.Tensor:
    """Images [n, c, h, w] as patches [n, l, patch · patch · c], row by row."""
    n, c, h, w = images.shape
    cut = images.reshape(n, c, h // patch, patch, w // patch, patch)
    return cut.permute(0, 2, 4, 3, 5, 1).reshape(n, -1, patch**2 * c)


def rows_at(rows: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """Of [n, l, dim] the rows at ``place`` [n, k]."""
    return rows.gather(1, place[..., None].expand(-1, -1, rows.shape[-1]))
