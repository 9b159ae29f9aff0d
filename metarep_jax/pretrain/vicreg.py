"""VICReg: embeddings of two views agree, every dimension varies, and no two dimensions vary together."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from metarep_jax.pretrain.chain import apply_to_views, chain, encoder_features
from metarep_jax.pretrain.checks import check_positive, with_least_batch
from metarep_jax.pretrain.devices import device_count, mean_over
from metarep_jax.pretrain.heads import Head
from metarep_jax.pretrain.health import embedding_health
from metarep_jax.pretrain.views import Augment, make_views
from metarep_jax.types import Keys, Objective


def vicreg(
    encoder: nn.Module,
    *,
    augment: Augment,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
    halve_variance: bool = False,
    hidden: int = 1024,
    out: int = 1024,
    axis_name: str | None = None,
) -> Objective:
    """Variance-invariance-covariance regularisation.

    Args:
      encoder: a module of ``metarep_jax.encoders``; give it the same ``axis_name`` for synchronised statistics.
      augment: ``(keys [n], images [n, h, w, c]) -> float views [n, h, w, c]``, random in its keys only.
      invariance, variance, covariance: weights λ, μ, ν of the three terms; positive.
      halve_variance: whether the variance term is the mean of both views' terms, not their sum. The sum is the paper's
        (algorithm 1), the mean that of the authors' code, with which the published weights of 25 go: those weights with
        the sum weigh the variance twice as much.
      hidden, out: widths of the expander, three layers; the paper has 8192.
      axis_name: the mapped axis over which the batch is sharded, or None.

    Returns:
      An ``Objective`` with the terms as metrics ``invariance``, ``variance`` and ``covariance``, beside
      ``embedding_std`` and ``effective_rank``.

    Raises:
      ValueError: for a weight or a width that is not positive, and by ``init`` for a batch of one.

    References:
      Bardes et al. 2021, VICReg, https://arxiv.org/abs/2105.04906, eq. 1 to 6 and algorithm 1: the squared distance is
      a mean over dimensions too. The authors' code: https://github.com/facebookresearch/vicreg.
    """
    weights = {"invariance": invariance, "variance": variance, "covariance": covariance}
    check_positive("vicreg", hidden=hidden, out=out, **weights)
    share = 0.5 if halve_variance else 1.0
    net = chain(encoder=encoder, projector=Head((hidden, hidden, out), axis_name=axis_name))

    def loss(params: Any, state: Any, batch: dict, keys: Keys, step: Any) -> tuple[Array, tuple[Any, dict]]:
        del step
        outputs, state = apply_to_views(net, params, state, make_views(augment, batch, keys))
        first, second = outputs["projector"]
        terms = {
            "invariance": jnp.mean((first - second) ** 2),
            "variance": share * (variance_term(first, axis_name) + variance_term(second, axis_name)),
            "covariance": covariance_term(first, axis_name) + covariance_term(second, axis_name),
        }
        value = jnp.sum(jnp.stack([weights[name] * term for name, term in terms.items()]))
        return value, (state, {**terms, **embedding_health(outputs["encoder"], axis_name)})

    init = with_least_batch("vicreg", net.init, "since it takes variances over them")
    return Objective(init, loss, encoder_features(encoder), needs=("views",))


def variance_term(rows: Float[Array, "n dim"], axis_name: str | None = None) -> Float[Array, ""]:
    """The mean over dimensions of max(0, 1 − √(Var + 10⁻⁴)), over the global batch (eq. 1 and 2)."""
    spread = jnp.sqrt(jnp.diagonal(covariance_of(rows, axis_name)) + 1e-4)
    return jnp.mean(jax.nn.relu(1 - spread))


def covariance_term(rows: Float[Array, "n dim"], axis_name: str | None = None) -> Float[Array, ""]:
    """The sum of the squared covariances of different dimensions, divided by their number (eq. 3 and 4)."""
    matrix = covariance_of(rows, axis_name)
    return (jnp.sum(matrix**2) - jnp.sum(jnp.diagonal(matrix) ** 2)) / rows.shape[1]


def covariance_of(rows: Float[Array, "n dim"], axis_name: str | None = None) -> Float[Array, "dim dim"]:
    """The unbiased covariance of the columns over all devices' rows."""
    total = rows.shape[0] * device_count(axis_name)
    centred = rows - mean_over(rows.mean(0), axis_name)
    return mean_over(centred.T @ centred / rows.shape[0], axis_name) * total / (total - 1)
