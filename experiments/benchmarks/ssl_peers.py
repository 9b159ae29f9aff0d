"""SimCLR, MoCo, BYOL and MAE in PyTorch, as the peers of ``self_supervised_steps`` and ``contrastive_step``.

Each computes the network, the loss and the teacher's movement that ours compute. What ours draw from keys, an order of
the batch or of the patches, a peer draws itself unless it is given one.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import get_ema_multi_avg_fn

from experiments.benchmarks import torch_nets
from experiments.benchmarks.common import console
from experiments.benchmarks.timing import Candidate
from experiments.benchmarks.torch_nets import Block, Encoder, Head
from metarep_jax.encoders.vision_transformer import grid_positions
from metarep_jax.pretrain.mae import visible_count
from metarep_jax.train import OptimiserConfig


class Peer(nn.Module):
    """An objective: ``forward`` is its loss."""

    def load(self, params: Any) -> None:
        """Takes over the parameters of our objective."""
        raise NotImplementedError

    def after_update(self) -> None:
        """What follows an update of the parameters."""


def update(peer: Peer, optimiser: torch.optim.Optimizer, *inputs: Any) -> torch.Tensor:
    """One step on the inputs of the peer's ``forward``; returns the loss."""
    loss = peer(*inputs)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
    peer.after_update()
    return loss.detach()


def gradient_norm(peer: Peer) -> float:
    """The length of the last gradient."""
    return float(sum(leaf.grad.square().sum() for leaf in peer.parameters() if leaf.grad is not None) ** 0.5)


def checked_steps(
    make: Callable[[], Peer],
    inputs: torch.Tensor,
    ours: Sequence[float],
    optimiser: OptimiserConfig,
    *,
    drawn: Sequence[Any] = (),
    formats: Mapping[str, torch.memory_format] = torch_nets.FORMATS,
) -> dict[str, Candidate]:
    """A step of the peer that ``make`` makes in each memory format, taken once to compare it with ours.

    Args:
      make: the peer with our parameters, a new one for each format.
      inputs: of its ``forward``.
      ours: loss and gradient norm of our first step.
      optimiser: AdamW's settings.
      drawn: what ours drew in its first step, as further arguments of ``forward``; later steps draw themselves.
      formats: by name.

    Raises:
      ValueError: where loss or gradient norm differ by more than a thousandth.
    """
    steps = {}
    for name, memory_format in formats.items():
        peer: Any = make()
        peer.to(memory_format=memory_format)
        laid_out = inputs.contiguous(memory_format=memory_format)
        adamw = torch_nets.adamw(peer, optimiser)
        first = [float(update(peer, adamw, laid_out, *drawn)), gradient_norm(peer)]
        console.print(f"{name}: first loss {first[0]:.5f}, gradient {first[1]:.5f}", highlight=False)
        if not np.allclose(first, ours, rtol=1e-3):
            raise ValueError(f"{name}: first loss and gradient norm are {first}, ours {list(ours)}: not the same step")
        steps[name] = lambda peer=peer, adamw=adamw, laid_out=laid_out: update(peer, adamw, laid_out)
    return steps


class Embedding(nn.Module):
    """An encoder and a projector: images [n, c, h, w] to [n, out]."""

    def __init__(self, encoder: Encoder, hidden: int, out: int, norm: bool = True):
        super().__init__()
        self.encoder, self.projector = encoder, Head(encoder.dim, hidden, out, norm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The projections."""
        return self.projector(self.encoder(x).flatten(1))

    def load(self, params: Any) -> None:
        """Takes over our encoder and projector."""
        encoder = self.encoder.arrays(params["encoder"])
        projector = torch_nets.head_arrays(params["projector"], self.encoder.maps)
        torch_nets.set_parameters(
            self, torch_nets.within("encoder", encoder) | torch_nets.within("projector", projector)
        )


class Student(Peer):
    """An embedding, and a teacher that follows it."""

    def __init__(self, momentum: float, *shape: Any, **more: Any):
        super().__init__()
        self.student = Embedding(*shape, **more)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.move = get_ema_multi_avg_fn(momentum)

    def load(self, params: Any) -> None:
        """Takes over the student; the teacher starts as it."""
        self.student.load(params)
        self.teacher.load_state_dict(self.student.state_dict())

    def after_update(self) -> None:
        """The teacher's step towards the student."""
        self.move(list(self.teacher.parameters()), list(self.student.parameters()), 0)


class SimCLR(Peer):
    """As ``metarep_jax.pretrain.simclr``, of all first views and then all second ones, [2n, c, side, side]."""

    def __init__(self, encoder: Encoder, *, hidden: int, out: int, temperature: float):
        super().__init__()
        self.student, self.temperature = Embedding(encoder, hidden, out), temperature

    def load(self, params: Any) -> None:
        """Takes over encoder and projector."""
        self.student.load(params)

    def forward(self, views: torch.Tensor) -> torch.Tensor:
        """NT-Xent."""
        return nt_xent(self.student(views), self.temperature)


class MoCo(Student):
    """As ``metarep_jax.pretrain.moco``: the chunks of a batch are normalised each by itself, as by devices."""

    def __init__(
        self,
        encoder: Encoder,
        *,
        hidden: int,
        out: int,
        temperature: float,
        momentum: float,
        queue: int,
        groups: int,
    ):
        super().__init__(momentum, encoder, hidden, out, norm=False)
        self.temperature, self.groups, self.place = temperature, groups, 0
        self.register_buffer("queue", functional.normalize(torch.randn(queue, out)))
        self.keys = self.get_buffer("queue")[:0]

    def forward(self, views: torch.Tensor, order: torch.Tensor | None = None) -> torch.Tensor:
        """InfoNCE; the keys are made in ``order`` [n] of the batch, default: a random one."""
        first, second = views.chunk(2)
        query = functional.normalize(self._in_groups(self.student, first))
        with torch.no_grad():
            order = torch.randperm(len(second)) if order is None else order
            shuffled = functional.normalize(self._in_groups(self.teacher, second[order]))
            self.keys = torch.empty_like(shuffled)
            self.keys[order] = shuffled
        return info_nce(query, self.keys, self.get_buffer("queue"), self.temperature)

    def after_update(self) -> None:
        """The teacher's step, and the keys in the place of the queue's oldest: not before the backward pass."""
        super().after_update()
        queue = self.get_buffer("queue")
        queue[self.place : self.place + len(self.keys)] = self.keys
        self.place = (self.place + len(self.keys)) % len(queue)

    def _in_groups(self, net: nn.Module, views: torch.Tensor) -> torch.Tensor:
        return torch.cat([net(part) for part in views.chunk(self.groups)])


class BYOL(Student):
    """As ``metarep_jax.pretrain.byol``."""

    def __init__(self, encoder: Encoder, *, hidden: int, out: int, momentum: float):
        super().__init__(momentum, encoder, hidden, out)
        self.predictor = Head(out, hidden, out)

    def load(self, params: Any) -> None:
        """Takes over student and predictor."""
        super().load(params)
        torch_nets.set_parameters(self.predictor, torch_nets.head_arrays(params["predictor"]))

    def forward(self, views: torch.Tensor) -> torch.Tensor:
        """The squared distances of directions."""
        with torch.no_grad():
            target = self.teacher(views)
        return byol_loss(self.predictor(self.student(views)), target)


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


def nt_xent(embeddings: torch.Tensor, temperature: float) -> torch.Tensor:
    """SimCLR's loss of embeddings [2n, dim], row i + n the other view of row i."""
    rows = functional.normalize(embeddings)
    logits = (rows @ rows.T / temperature).fill_diagonal_(-torch.inf)
    return functional.cross_entropy(logits, torch.arange(len(rows)).roll(len(rows) // 2))


def info_nce(query: torch.Tensor, key: torch.Tensor, queue: torch.Tensor, temperature: float) -> torch.Tensor:
    """MoCo's loss of queries and keys [n, dim] and a queue of negatives [k, dim], all of unit length."""
    positive = (query * key).sum(1, keepdim=True)
    logits = torch.cat([positive, query @ queue.T], 1) / temperature
    return functional.cross_entropy(logits, torch.zeros(len(query), dtype=torch.int64))


def byol_loss(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """BYOL's loss of predictions and targets [2n, dim], both by view and then by image."""
    return 4 - 4 * functional.cosine_similarity(prediction, target.roll(len(target) // 2, 0)).mean()


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
