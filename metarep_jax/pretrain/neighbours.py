"""Nearest neighbours as partners: an image's other view may be a view of an image that looks alike."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from metarep_jax.data.tasks.reciprocal import nearest_rows
from metarep_jax.encoders.features import compute_features, fit_whitening, unit_rows
from metarep_jax.types import Keys, Objective, Partnered


def with_neighbours(objective: Objective, *, neighbours: int, after: int = 0) -> Objective:
    """``objective`` with images that look alike as each other's second view, searched anew at every refresh.

    No label is used. The feed's pool is ``Partnered``: ``refresh`` fills it with the mutual neighbours among the
    ``neighbours`` nearest images, by the half-whitened features of the moment.

    Args:
      objective: of two views, by ``views.make_views``.
      neighbours: at least 1.
      after: step from which neighbours serve; features that are too young find neighbours of other classes.

    Raises:
      ValueError: for settings out of range.
    """
    if neighbours < 1 or after < 0:
        raise ValueError(f"neighbours must be at least 1, and not serve before step 0; got {neighbours}, {after}")

    def loss(params: Any, state: Any, batch: dict, keys: Keys, step: Any) -> Any:
        partner = jnp.where(step < after, batch["inputs"], batch["partner"])
        return objective.loss(params, state, {**batch, "partner": partner}, keys, step)

    compiled = jax.jit(objective.features)

    def refresh(params: Any, state: Any, pool: Partnered, key: Array) -> Partnered:
        del key
        embedded = compute_features(partial(compiled, params, state), pool.pool.inputs)
        return pool._replace(partner=mutual_neighbours(fit_whitening(embedded)(embedded), k=neighbours))

    return objective._replace(loss=loss, refresh=refresh)


@partial(jax.jit, static_argnames=("k", "block"))
def mutual_neighbours(features: Float[Array, "n dim"], *, k: int = 5, block: int = 512) -> Int[Array, "n k"]:
    """For every row, those of its ``k`` nearest rows by cosine that count it among their own ``k`` nearest.

    Mutual neighbours share a class far more often than plain ones. Places that no mutual neighbour fills hold the
    row's own number, so that a uniform draw of a place gives the row itself where neighbours are few.

    Args:
      features: [n, dim], n greater than k.
      k: neighbours looked at, at least 1.
      block: rows compared at once with all others (memory: block × n floats).

    References:
      Dwibedi et al. 2021, With a Little Help from My Friends, https://arxiv.org/abs/2104.14548, for neighbours as
      positives; mutuality as in k-reciprocal re-ranking, Zhong et al. 2017, https://arxiv.org/abs/1701.08398.
    """
    table = nearest_rows(unit_rows(features), k=k, block=block)
    own = jnp.arange(features.shape[0], dtype=jnp.int32)[:, None]
    mutual = (table[table] == own[..., None]).any(-1)
    return jnp.where(mutual, table, own)
