"""SwAV: a view's embedding predicts to which prototypes the other view is assigned."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from metarep_jax.encoders.features import unit_rows
from metarep_jax.pretrain.chain import apply_to_views, chain, encoder_features
from metarep_jax.pretrain.checks import check_not_negative, check_positive
from metarep_jax.pretrain.devices import gather_rows, own_rows
from metarep_jax.pretrain.heads import Head
from metarep_jax.pretrain.health import embedding_health
from metarep_jax.pretrain.sinkhorn import sinkhorn
from metarep_jax.pretrain.views import Augment, check_crops, make_views, swapped_cross_entropy
from metarep_jax.types import Keys, Objective


def swav(
    encoder: nn.Module,
    *,
    augment: Augment,
    temperature: float = 0.1,
    prototypes: int = 256,
    epsilon: float = 0.05,
    iterations: int = 3,
    freeze_steps: int = 0,
    local_crops: int = 0,
    local_augment: Augment | str = "local-crop",
    hidden: int = 256,
    out: int = 128,
    axis_name: str | None = None,
) -> Objective:
    """Swapping assignments between views: online clustering in which every prototype gets the same share of a batch.

    Without the paper's optional queue, which serves batches much smaller than the number of prototypes: take fewer.

    Args:
      encoder: a module of ``metarep_jax.encoders``; give it the same ``axis_name`` for synchronised statistics.
      augment: ``(keys [n], images [n, h, w, c]) -> float views [n, h, w, c]``, random in its keys only.
      temperature: τ of the predictions; positive.
      prototypes: at most the global batch, so that shares are not fractions of an example; the paper has 3000.
      epsilon, iterations: of ``sinkhorn``, over the global batch of each view.
      freeze_steps: first steps in which the prototypes stay as they are.
      local_crops: multi-crop: so many more views, which predict but are not assigned (``make_views``).
      local_augment: of those views: a name that ``data.make_augment`` knows, or a function as ``augment``.
      hidden, out: sizes of the projector's two layers.
      axis_name: the mapped axis over which the batch is sharded, or None.

    Returns:
      An ``Objective`` with metrics ``prototypes_used`` (the share of prototypes that are some image's nearest),
      ``embedding_std`` and ``effective_rank``. Prototypes have unit length after every update.

    Raises:
      ValueError: for settings out of range, and by ``init`` and ``loss`` for more prototypes than the batch has images.

    References:
      Caron et al. 2020, Unsupervised Learning of Visual Features by Contrasting Cluster Assignments,
      https://arxiv.org/abs/2006.09882, eq. 1 to 5, algorithm 1.
    """
    check_positive("swav", temperature=temperature, prototypes=prototypes, epsilon=epsilon, iterations=iterations)
    check_positive("swav", hidden=hidden, out=out)
    check_not_negative("swav", freeze_steps=freeze_steps)
    local_augment = check_crops("swav", local_augment, local_crops)
    net = chain(encoder=encoder, projector=Head((hidden, out), axis_name=axis_name))

    def init(key: Array, batch: dict, encoder_params: Any = None) -> tuple[Any, Any]:
        check_prototypes(prototypes, batch["inputs"].shape[0])
        net_key, prototype_key = jax.random.split(key)
        params, state = net.init(net_key, batch, encoder_params)
        return {**params, "prototypes": unit_rows(jax.random.normal(prototype_key, (prototypes, out)))}, state

    def loss(params: Any, state: Any, batch: dict, keys: Keys, step: Any) -> tuple[Array, tuple[Any, dict]]:
        views = make_views(augment, batch, keys, local_augment=local_augment, local_crops=local_crops)
        outputs, state = apply_to_views(net, params, state, views)
        directions = frozen_until(params["prototypes"], step, freeze_steps)
        scores = unit_rows(outputs["projector"]) @ directions.T  # [views, n, prototypes]
        codes = jnp.stack([assign(view, epsilon, iterations, axis_name) for view in scores[:2]])
        value = swapped_cross_entropy(codes, jax.nn.log_softmax(scores / temperature))
        nearest = gather_rows(jnp.argmax(scores[0], axis=-1), axis_name)
        used = jnp.zeros(prototypes).at[nearest].set(1).mean()
        return value, (state, {"prototypes_used": used, **embedding_health(outputs["encoder"], axis_name)})

    def after_update(params: Any, state: Any, step: Any) -> tuple[Any, Any]:
        del step
        return {**params, "prototypes": unit_rows(params["prototypes"])}, state

    return Objective(init, loss, encoder_features(encoder), after_update, needs=("views",))


def check_prototypes(prototypes: int, batch: int) -> None:
    """Raises ValueError when a batch of so many images has less than one for each prototype."""
    if prototypes > batch:
        raise ValueError(
            f"swav: every prototype gets an equal share of the {batch} images of a batch, less than one image for each "
            f"of {prototypes} prototypes; take at most {batch} prototypes or a larger batch"
        )


def assign(scores: Float[Array, "n k"], epsilon: float, iterations: int, axis_name: str | None) -> Float[Array, "n k"]:
    """The codes of this device's rows, balanced over the global batch (eq. 3)."""
    everyone = gather_rows(scores, axis_name)
    check_prototypes(scores.shape[1], everyone.shape[0])
    return sinkhorn(everyone, epsilon=epsilon, iterations=iterations)[own_rows(scores.shape[0], axis_name)]


def frozen_until(rows: Float[Array, "k dim"], step: Any, freeze_steps: int) -> Float[Array, "k dim"]:
    """``rows``, without a gradient in the first ``freeze_steps`` steps."""
    return jnp.where(step < freeze_steps, jax.lax.stop_gradient(rows), rows) if freeze_steps else rows
