"""Views of images, and the loss that predicts one view's code from another's."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metarep_jax.data.images.augment import make_augment
from metarep_jax.data.images.warp import Augment
from metarep_jax.types import Keys

__all__ = ["Augment", "check_crops", "make_views", "swapped_cross_entropy"]


def make_views(
    augment: Augment, batch: dict, keys: Keys, *, local_augment: Augment | None = None, local_crops: int = 0
) -> Float[Array, "views n ..."]:
    """Two views of each image, and ``local_crops`` more by ``local_augment`` (multi-crop).

    Where the batch has a ``partner`` for each image, the second view is of the partner. Local crops have the images'
    own size: they show a smaller part, enlarged.

    References:
      Caron et al. 2020, https://arxiv.org/abs/2006.09882, section 3.2, for multi-crop.
    """
    images = batch["inputs"]
    view_keys = jax.vmap(lambda key: jax.random.split(key, 2 + local_crops))(keys.example)
    views = [augment(view_keys[:, 0], images), augment(view_keys[:, 1], batch.get("partner", images))]
    for crop in range(local_crops):
        assert local_augment is not None  # checked by check_crops
        views.append(local_augment(view_keys[:, 2 + crop], images))
    return jnp.stack(views)


def check_crops(objective: str, local_augment: Augment | str, local_crops: int) -> Augment:
    """What makes local crops, of ``make_augment`` where it is named; ValueError for a negative number of them."""
    if local_crops < 0:
        raise ValueError(f"{objective}: local_crops must not be negative, got {local_crops}")
    return make_augment(local_augment) if isinstance(local_augment, str) else local_augment


def swapped_cross_entropy(
    target: Float[Array, "two n k"], log_prediction: Float[Array, "views n k"]
) -> Float[Array, ""]:
    """The mean of −Σ target · log prediction over examples and over all pairs of different views.

    The first two views of ``log_prediction`` are those of ``target``. No gradient reaches the target.
    """
    pairs = -jnp.einsum("tnk,vnk->tv", jax.lax.stop_gradient(target), log_prediction) / target.shape[1]
    different = ~jnp.eye(*pairs.shape, dtype=bool)
    return jnp.sum(pairs * different) / different.sum()
