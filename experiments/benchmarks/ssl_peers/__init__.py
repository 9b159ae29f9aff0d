"""The self-supervised objectives in PyTorch, as the peers of ``self_supervised_steps`` and other benchmarks.

Each computes the network, the loss and the teacher's movement that ours compute. What ours draw from keys, an order of
the batch or of the patches, a peer draws itself unless it is given one.
"""

from experiments.benchmarks.ssl_peers.instances import BYOL, MoCo, SimCLR, byol_loss, info_nce, nt_xent
from experiments.benchmarks.ssl_peers.masked import MAE, masked_error
from experiments.benchmarks.ssl_peers.peer import Peer, checked_steps, gradient_norm, update
from experiments.benchmarks.ssl_peers.prototypes import DINO, SwAV, sinkhorn
from experiments.benchmarks.ssl_peers.redundancy import Barlow, VICReg

__all__ = [
    "BYOL",
    "DINO",
    "MAE",
    "Barlow",
    "MoCo",
    "Peer",
    "SimCLR",
    "SwAV",
    "VICReg",
    "byol_loss",
    "checked_steps",
    "gradient_norm",
    "info_nce",
    "masked_error",
    "nt_xent",
    "sinkhorn",
    "update",
]
