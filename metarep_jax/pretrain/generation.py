"""Images by a trained VAE: reconstructions, lines between two images, and samples of the prior."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, Shaped

from metarep_jax.encoders.layers import as_image_float
from metarep_jax.pretrain.vae_model import VAE, decoded, draw_pixels, latents


def reconstruct_by_mean(
    model: VAE, params: Any, state: Any, inputs: Shaped[Array, "n *shape"], keys: Key[Array, " n"], *, binarise: bool
) -> dict[str, Float[Array, "n *shape"]]:
    """Inputs and their reconstructions.

    Returns:
      "original"; with ``binarise`` "pixels drawn", which is what the encoder sees; and "reconstruction": the means of
      the pixels, for the mean of the latents.
    """
    x = as_image_float(inputs)
    seen = draw_pixels(keys, x) if binarise else x
    reconstruction = decoded(model, params, state, latents(model, params, state, seen), x.shape[1:])
    return {"original": x, **({"pixels drawn": seen} if binarise else {}), "reconstruction": reconstruction}


def interpolate(
    model: VAE,
    params: Any,
    state: Any,
    first: Shaped[Array, "n *shape"],
    second: Shaped[Array, "n *shape"],
    steps: int,
) -> Float[Array, "n steps *shape"]:
    """Means of x on the straight line from the mean latents of ``first`` to those of ``second``: its ends are their
    reconstructions.

    Raises:
      ValueError: for fewer than 2 steps.
    """
    if steps < 2:
        raise ValueError(f"interpolate needs at least 2 steps, the ends, got {steps}")
    start, end = (latents(model, params, state, as_image_float(x)) for x in (first, second))
    share = jnp.linspace(0, 1, steps)[:, None]
    line = start[:, None] * (1 - share) + end[:, None] * share
    means = decoded(model, params, state, line.reshape(-1, model.latent), first.shape[1:])
    return means.reshape(len(first), steps, *first.shape[1:])


def sample_prior(
    model: VAE, params: Any, state: Any, key: Key[Array, ""], count: int, shape: tuple[int, ...]
) -> Float[Array, "count *shape"]:
    """Means of x for latents drawn from the prior N(0, I)."""
    return decoded(model, params, state, jax.random.normal(key, (count, model.latent)), shape)
