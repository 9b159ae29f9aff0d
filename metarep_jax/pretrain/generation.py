"""What generative objectives make of images: reconstructions of all of them; the VAE's interpolations and samples."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Key, Shaped

from metarep_jax.encoders.decoder import make_decoder
from metarep_jax.encoders.layers import as_image_float
from metarep_jax.pretrain.autoencoder import reconstruct, reconstruct_denoised
from metarep_jax.pretrain.config import ObjectiveConfig
from metarep_jax.pretrain.mae import fill_in
from metarep_jax.pretrain.vae import VAE, vae_model


def reconstruct_vae(
    encoder: nn.Module,
    params: Any,
    state: Any,
    inputs: Shaped[Array, "n *shape"],
    keys: Key[Array, " n"],
    *,
    latent: int = 32,
    likelihood: str = "bernoulli",
    std: float = 0.1,
    binarise: bool = False,
    decoder: Callable[[tuple[int, ...]], nn.Module] = make_decoder,
) -> dict[str, Float[Array, "n *shape"]]:
    """What a trained VAE makes of inputs; settings as those of ``vae``.

    Returns:
      "original"; with ``binarise`` "pixels drawn", which is what the encoder sees; and "reconstruction": the means of
      the pixels given the mean of the latents.
    """
    model = vae_model(encoder, latent=latent, likelihood=likelihood, std=std, decoder=decoder)
    x = as_image_float(inputs)
    seen = jax.vmap(jax.random.bernoulli)(keys, x).astype(x.dtype) if binarise else x
    made = decoded(model, params, state, latents(model, params, state, seen), x.shape[1:])
    return {"original": x, **({"pixels drawn": seen} if binarise else {}), "reconstruction": made}


RECONSTRUCTIONS: dict[str, Callable[..., dict[str, Array]]] = {
    "autoencoder": reconstruct,
    "denoising_autoencoder": reconstruct_denoised,
    "mae": fill_in,
    "vae": reconstruct_vae,
}


def reconstructions(
    config: ObjectiveConfig, encoder: nn.Module, params: Any, state: Any, inputs: Array, keys: Key[Array, " n"]
) -> dict[str, Float[Array, "n *shape"]]:
    """Rows of images by name, from the original to its reconstruction, of an objective in ``RECONSTRUCTIONS``.

    Args:
      config: the objective's.
      encoder: made without ``axis_name``.
      params, state: trained.
      inputs: images [n, h, w, c].
      keys: one an image, of what is random in it.
    """
    function = RECONSTRUCTIONS[config.name]
    takes = inspect.signature(function).parameters
    how = {name: value for name, value in config.settings.items() if name in takes}
    return function(encoder, params, state, inputs, keys, **how)


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
    found = decoded(model, params, state, line.reshape(-1, model.latent), first.shape[1:])
    return found.reshape(len(first), steps, *first.shape[1:])


def sample_prior(
    model: VAE, params: Any, state: Any, key: Key[Array, ""], count: int, shape: tuple[int, ...]
) -> Float[Array, "count *shape"]:
    """Means of x given latents from the prior N(0, I)."""
    return decoded(model, params, state, jax.random.normal(key, (count, model.latent)), shape)


def latents(model: VAE, params: Any, state: Any, x: Float[Array, "n *shape"]) -> Float[Array, "n latent"]:
    """The means of q(z|x), norms by running averages."""
    return model.posterior(params, state, x, running=True)[0][0]


def decoded(
    model: VAE, params: Any, state: Any, z: Float[Array, "n latent"], shape: tuple[int, ...]
) -> Float[Array, "n *shape"]:
    """The means of p(x|z)."""
    return model.means(model.decode(params, state, z, shape)[0])
