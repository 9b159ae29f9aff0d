"""Rotation prediction: which way up is this image?"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Int, Shaped

from metarep_jax.data.tasks.episodes import TURNS, quarter_turns
from metarep_jax.pretrain.chain import chain, encoder_features
from metarep_jax.types import Keys, Objective


def rotation(encoder: nn.Module, *, augment: Callable[[Array, Array], Array] | None = None) -> Objective:
    """Every image is shown under all four quarter turns, and a linear classifier must tell which is which.

    Telling them apart needs what is in the image, and how it usually stands; letters that look alike upside down, and
    data sets that hold rotations as images of their own, teach it nothing.

    Args:
      encoder: a module of ``metarep_jax.encoders``, for square images.
      augment: ``(keys [n], images [n, h, w, c]) -> views``, of the images before they are turned; None: as they are.

    Returns:
      An ``Objective``; its loss is the mean cross-entropy over the 4n turned images, its metric ``rotation_accuracy``.

    Raises:
      ValueError: when the images are not square.

    References:
      Gidaris et al. 2018, https://arxiv.org/abs/1803.07728, eq. 2 and 3; section 3.2 for all four in one batch.
    """
    net = chain(encoder=encoder, classifier=nn.Dense(TURNS, dtype=getattr(encoder, "dtype", None)))

    def init(key: Array, batch: dict, encoder_params: Any = None) -> tuple[Any, Any]:
        jax.eval_shape(all_turns, batch["inputs"])  # refuses images that are not square
        return net.init(key, batch, encoder_params)

    def loss(params: Any, state: Any, batch: dict, keys: Keys, step: Any) -> tuple[Array, tuple[Any, dict]]:
        del step
        images = batch["inputs"] if augment is None else augment(keys.example, batch["inputs"])
        turned, turns = all_turns(images)
        outputs, state = net.apply(params, state, turned)
        logits = outputs["classifier"]
        value = optax.softmax_cross_entropy_with_integer_labels(logits, turns).mean()
        return value, (state, {"rotation_accuracy": jnp.mean(logits.argmax(-1) == turns)})

    return Objective(init, loss, encoder_features(encoder))


def all_turns(images: Shaped[Array, "n h w c"]) -> tuple[Shaped[Array, "four_n h w c"], Int[Array, " four_n"]]:
    """Each image four times in a row, turned by 0 to 3 quarter turns (as by ``jnp.rot90``), and the number of turns."""
    turns = jnp.tile(jnp.arange(TURNS), len(images))
    return quarter_turns(jnp.repeat(images, TURNS, axis=0), turns), turns
