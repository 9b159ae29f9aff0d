"""SimCLR: two views of an image attract each other and repel all other images of the global batch."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from metarep_jax.encoders import split_variables
from metarep_jax.encoders.features import compute_features, fit_whitening
from metarep_jax.encoders.layers import Norm
from metarep_jax.pretrain.contrast import embedding_health, nt_xent
from metarep_jax.pretrain.neighbours import mutual_neighbours
from metarep_jax.types import Keys, Objective, Partnered

Augment = Callable[[Array, Array], Array]  # (keys [n], images [n, h, w, c]) -> views [n, h, w, c]


class Projector(nn.Module):
    """The MLP between the features and the contrastive loss; dropped afterwards (SimCLR, section 4.2)."""

    hidden: int = 256
    out: int = 128
    axis_name: str | None = None

    @nn.compact
    def __call__(self, features: Float[Array, "n dim"]) -> Float[Array, "n out"]:
        hidden = nn.Dense(self.hidden, use_bias=False)(features)
        hidden = nn.relu(Norm("batch", axis_name=self.axis_name)(hidden))
        return nn.Dense(self.out, use_bias=False)(hidden)


def simclr(
    encoder: nn.Module,
    *,
    augment: Augment,
    temperature: float = 0.1,
    hidden: int = 256,
    out: int = 128,
    neighbours: int = 0,
    neighbours_after: int = 0,
    axis_name: str | None = None,
) -> Objective:
    """Contrastive learning of visual representations with in-batch negatives.

    Args:
      encoder: a module of ``metarep_jax.encoders``; give it the same ``axis_name`` for synchronised statistics.
      augment: ``(keys [n], images [n, h, w, c]) -> float views [n, h, w, c]``, random in its keys only.
      temperature: of NT-Xent; positive.
      hidden, out: sizes of the projector's two layers.
      neighbours: 0, or k: ``refresh`` then lets mutual neighbours among the k nearest images, by the half-whitened
        features of the moment, be each other's second view; without labels. The feed's pool is then ``Partnered``.
      neighbours_after: step from which they do; features that are too young find neighbours of other classes.
      axis_name: the mapped axis over which the batch is sharded, or None.

    Returns:
      An ``Objective`` whose metrics are ``contrastive_accuracy``, ``embedding_std`` and ``effective_rank``.

    Raises:
      ValueError: for a temperature or layer size that is not positive.

    References:
      Chen et al. 2020, https://arxiv.org/abs/2002.05709, algorithm 1.
    """
    for name, value in {"temperature": temperature, "hidden": hidden, "out": out}.items():
        if value <= 0:
            raise ValueError(f"simclr: {name} must be positive, got {value}")
    for name, value in {"neighbours": neighbours, "neighbours_after": neighbours_after}.items():
        if value < 0:
            raise ValueError(f"simclr: {name} must not be negative, got {value}")
    projector = Projector(hidden, out, axis_name)

    def init(key: Array, batch: dict, encoder_params: Any = None) -> tuple[Any, Any]:
        encoder_key, projector_key = jax.random.split(key)
        images = batch["inputs"][:2]
        variables = encoder_params or encoder.init(encoder_key, images)
        features = encoder.apply(variables, images, running=True)
        split = {"encoder": variables, "projector": projector.init(projector_key, features)}
        return split_variables(split)

    def loss(params: Any, state: Any, batch: dict, keys: Keys, step: Any) -> tuple[Array, tuple[Any, dict]]:
        images = batch["inputs"]
        partners = jnp.where(step < neighbours_after, images, batch["partner"]) if neighbours else images
        view_keys = jax.vmap(jax.random.split)(keys.example)
        views = jnp.concatenate([augment(view_keys[:, 0], images), augment(view_keys[:, 1], partners)])
        features, encoder_state = encoder.apply(
            {"params": params["encoder"], "batch_stats": state["encoder"]}, views, mutable=["batch_stats"]
        )
        embeddings, projector_state = projector.apply(
            {"params": params["projector"], "batch_stats": state["projector"]}, features, mutable=["batch_stats"]
        )
        first, second = jnp.split(embeddings.astype(jnp.float32), 2)
        value, metrics = nt_xent(first, second, temperature=temperature, axis_name=axis_name)
        metrics |= embedding_health(features, axis_name)
        state = {
            "encoder": encoder_state.get("batch_stats", {}),
            "projector": projector_state.get("batch_stats", {}),
        }
        return value, (state, metrics)

    def features(params: Any, state: Any, inputs: Array) -> Array:
        variables = {"params": params["encoder"], "batch_stats": state["encoder"]}
        found: Any = encoder.apply(variables, inputs, running=True)
        return found

    compiled = jax.jit(features)

    def refresh(params: Any, state: Any, pool: Partnered, key: Array) -> Partnered:
        del key
        embedded = compute_features(partial(compiled, params, state), pool.pool.inputs)
        return pool._replace(partner=mutual_neighbours(fit_whitening(embedded)(embedded), k=neighbours))

    return Objective(init, loss, features, refresh=refresh) if neighbours else Objective(init, loss, features)
