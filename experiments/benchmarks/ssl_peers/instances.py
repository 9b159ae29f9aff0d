"""SimCLR, MoCo and BYOL in PyTorch: every image is its own class."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from experiments.benchmarks import torch_nets
from experiments.benchmarks.ssl_peers.peer import Embedding, Peer, Student
from experiments.benchmarks.torch_nets import Encoder, Head


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
        super().__init__(momentum, Embedding(encoder, hidden, out, norm=False))
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
        super().__init__(momentum, Embedding(encoder, hidden, out))
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
