"""What the PyTorch objectives share: one update, the check against our first step, embedding and teacher."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from experiments.benchmarks import torch_nets
from experiments.benchmarks.common import console
from experiments.benchmarks.timing import Candidate
from experiments.benchmarks.torch_nets import Encoder, Head
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
    """An encoder and a projector of dense layers of ``widths``: images [n, c, h, w] to [n, out]."""

    def __init__(self, encoder: Encoder, *widths: int, norm: bool = True):
        super().__init__()
        self.encoder, self.projector = encoder, Head(encoder.dim, *widths, norm=norm)

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
    """A network such as ``Embedding``, and a teacher that follows it."""

    def __init__(self, momentum: float, student: Any):
        super().__init__()
        self.student = student
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.move = get_ema_multi_avg_fn(momentum)

    def load(self, params: Any) -> None:
        """Takes over the student; the teacher starts as it."""
        self.student.load(params)
        self.teacher.load_state_dict(self.student.state_dict())

    def after_update(self) -> None:
        """The teacher's step towards the student."""
        self.move(list(self.teacher.parameters()), list(self.student.parameters()), 0)
