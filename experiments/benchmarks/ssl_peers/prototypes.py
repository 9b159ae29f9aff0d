"""DINO and SwAV in PyTorch: a view predicts how another view falls to prototypes."""

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from experiments.benchmarks.ssl_peers.peer import Embedding, Peer, Student
from experiments.benchmarks.torch_nets import Encoder


class Scores(nn.Module):
    """An embedding's cosines with prototypes: images [n, c, h, w] to [n, prototypes].

    ``unit``: whether prototypes are brought to unit length here; else they have it.
    """

    def __init__(self, embedding: Embedding, prototypes: int, out: int, unit: bool):
        super().__init__()
        self.embedding, self.unit = embedding, unit
        self.prototypes = nn.Parameter(functional.normalize(torch.randn(prototypes, out)))

    def load(self, params: Any) -> None:
        """Takes over embedding and prototypes."""
        self.embedding.load(params)
        with torch.no_grad():
            self.prototypes.copy_(torch.tensor(params["prototypes"]))

    def forward(self, views: torch.Tensor) -> torch.Tensor:
        """The cosines."""
        prototypes = functional.normalize(self.prototypes) if self.unit else self.prototypes
        return functional.normalize(self.embedding(views)) @ prototypes.T


class DINO(Student):
    """As ``metarep_jax.pretrain.dino``, of all first views and then all second ones, [2n, c, side, side]."""

    def __init__(
        self,
        encoder: Encoder,
        *,
        hidden: int,
        out: int,
        prototypes: int,
        temperature: float,
        teacher_temperature: float,
        momentum: float,
        centre_momentum: float,
    ):
        embedding = Embedding(encoder, hidden, hidden, out, norm=False)
        super().__init__(momentum, Scores(embedding, prototypes, out, unit=True))
        self.temperature, self.teacher_temperature = temperature, teacher_temperature
        self.centre_momentum = centre_momentum
        self.register_buffer("centre", torch.zeros(prototypes))

    def forward(self, views: torch.Tensor) -> torch.Tensor:
        """The cross-entropy with the teacher's centred and sharpened outputs; the centre moves."""
        centre = self.get_buffer("centre")
        with torch.no_grad():
            scores = self.teacher(views)
            target = functional.softmax((scores - centre) / self.teacher_temperature, -1)
            centre.lerp_(scores.mean(0), 1 - self.centre_momentum)
        return swapped_cross_entropy(target, self.student(views) / self.temperature)


class SwAV(Peer):
    """As ``metarep_jax.pretrain.swav`` without local crops."""

    def __init__(
        self,
        encoder: Encoder,
        *,
        hidden: int,
        out: int,
        prototypes: int,
        temperature: float,
        epsilon: float,
        iterations: int,
    ):
        super().__init__()
        self.student = Scores(Embedding(encoder, hidden, out), prototypes, out, unit=False)
        self.temperature, self.epsilon, self.iterations = temperature, epsilon, iterations

    def load(self, params: Any) -> None:
        """Takes over encoder, projector and prototypes."""
        self.student.load(params)

    def forward(self, views: torch.Tensor) -> torch.Tensor:
        """The cross-entropy with the other view's balanced assignment."""
        scores = self.student(views)
        codes = torch.cat([sinkhorn(view, self.epsilon, self.iterations) for view in scores.detach().chunk(2)])
        return swapped_cross_entropy(codes, scores / self.temperature)

    def after_update(self) -> None:
        """Prototypes of unit length."""
        with torch.no_grad():
            self.student.prototypes.copy_(functional.normalize(self.student.prototypes))


def swapped_cross_entropy(target: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Of logits [2n, k], by view and then by image, with the other view's ``target``."""
    return functional.cross_entropy(logits, target.roll(len(target) // 2, 0))


def sinkhorn(scores: torch.Tensor, epsilon: float, iterations: int) -> torch.Tensor:
    """Soft assignments [n, k] whose rows sum to 1 and whose columns, nearly, to n/k."""
    share = math.log(scores.shape[0] / scores.shape[1])
    logits = scores / epsilon
    for _ in range(iterations):
        logits = functional.log_softmax(functional.log_softmax(logits, 0) + share, 1)
    return logits.exp()
