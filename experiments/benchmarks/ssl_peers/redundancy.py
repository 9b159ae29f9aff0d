"""Barlow Twins and VICReg in PyTorch: embeddings of two views agree, and their dimensions tell different things."""

from typing import Any

import torch
from torch.nn import functional

from experiments.benchmarks.ssl_peers.peer import Embedding, Peer
from experiments.benchmarks.torch_nets import Encoder


class Barlow(Peer):
    """As ``metarep_jax.pretrain.barlow``, of all first views and then all second ones, [2n, c, side, side]."""

    def __init__(self, encoder: Encoder, *, hidden: int, out: int, off_diagonal: float):
        super().__init__()
        self.student, self.off_diagonal = Embedding(encoder, hidden, hidden, out), off_diagonal

    def load(self, params: Any) -> None:
        """Takes over encoder and projector."""
        self.student.load(params)

    def forward(self, views: torch.Tensor) -> torch.Tensor:
        """The distance of the cross-correlation from the identity."""
        first, second = (standardise(rows) for rows in self.student(views).chunk(2))
        matrix = first.T @ second / len(first)
        diagonal = matrix.diagonal()
        others = matrix.square().sum() - diagonal.square().sum()
        return (1 - diagonal).square().sum() + self.off_diagonal * others


class VICReg(Peer):
    """As ``metarep_jax.pretrain.vicreg`` with the paper's sum of both views' variance terms."""

    def __init__(
        self, encoder: Encoder, *, hidden: int, out: int, invariance: float, variance: float, covariance: float
    ):
        super().__init__()
        self.student = Embedding(encoder, hidden, hidden, out)
        self.invariance, self.variance, self.covariance = invariance, variance, covariance

    def load(self, params: Any) -> None:
        """Takes over encoder and projector."""
        self.student.load(params)

    def forward(self, views: torch.Tensor) -> torch.Tensor:
        """The weighted sum of the three terms."""
        both = self.student(views).chunk(2)
        loss = self.invariance * functional.mse_loss(*both)
        for rows in both:
            matrix = covariance_of(rows)
            spread = matrix.diagonal()
            others = (matrix.square().sum() - spread.square().sum()) / len(matrix)
            loss = loss + self.variance * functional.relu(1 - (spread + 1e-4).sqrt()).mean() + self.covariance * others
        return loss


def standardise(rows: torch.Tensor) -> torch.Tensor:
    """Every column of [n, dim] with mean 0 and variance 1."""
    return functional.batch_norm(rows, None, None, training=True, eps=1e-5)


def covariance_of(rows: torch.Tensor) -> torch.Tensor:
    """The unbiased covariance [dim, dim] of the columns."""
    centred = rows - rows.mean(0)
    return centred.T @ centred / (len(rows) - 1)
