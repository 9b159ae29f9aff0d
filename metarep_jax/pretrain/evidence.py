"""Bounds on the log-evidence log p(x) of a trained VAE, in nats."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, Shaped

from metarep_jax.encoders.layers import as_image_float
from metarep_jax.pretrain.vae_model import VAE

SAMPLES = 50  # of the importance-weighted bound; Burda et al. 2015 take 5,000


def evidence_bounds(
    model: VAE, params: Any, state: Any, inputs: Shaped[Array, "n ..."], key: Key[Array, ""], *, binarise: bool
) -> dict[str, Float[Array, " n"]]:
    """Of each input ``elbo`` and ``importance_weighted_bound``; with ``binarise`` of pixels drawn anew from it."""
    pixel_key, key = jax.random.split(key)
    x = as_image_float(inputs)
    x = jax.random.bernoulli(pixel_key, x).astype(x.dtype) if binarise else x
    weights = log_weights(model, params, state, x, key, SAMPLES)
    return {"elbo": weights.mean(0), "importance_weighted_bound": bound_of_weights(weights)}


def importance_weighted_bound(
    model: VAE, params: Any, state: Any, inputs: Shaped[Array, "n ..."], key: Key[Array, ""], samples: int = SAMPLES
) -> Float[Array, " n"]:
    """A bound on log p(x), in nats: log of the mean over ``samples`` of p(x, z) / q(z|x); one sample gives the ELBO.

    It grows with ``samples`` (in the mean) and reaches log p(x) in the limit, or at once where q is the true posterior.

    References:
      Burda et al. 2015, Importance Weighted Autoencoders, https://arxiv.org/abs/1509.00519, eq. 8.
    """
    if samples < 1:
        raise ValueError(f"importance_weighted_bound needs at least 1 sample, got {samples}")
    return bound_of_weights(log_weights(model, params, state, inputs, key, samples))


def bound_of_weights(weights: Float[Array, "samples n"]) -> Float[Array, " n"]:
    """The log of the mean over samples of the weights whose logarithms ``log_weights`` returns."""
    return jax.nn.logsumexp(weights, axis=0) - jnp.log(weights.shape[0])


def log_weights(
    model: VAE, params: Any, state: Any, inputs: Shaped[Array, "n ..."], key: Key[Array, ""], samples: int
) -> Float[Array, "samples n"]:
    """log p(x, z) / q(z|x) of z drawn from q, in nats, norms by running averages; their mean is the ELBO."""
    x = as_image_float(inputs)
    (mean, log_variance), _ = model.posterior(params, state, x, running=True)

    def log_weight(key: Array) -> Array:
        noise = jax.random.normal(key, mean.shape)
        z = mean + jnp.exp(0.5 * log_variance) * noise
        outputs, _ = model.decode(params, state, z, x.shape[1:])
        return model.log_likelihood(outputs, x) + 0.5 * jnp.sum(noise**2 + log_variance - z**2, axis=-1)

    return jax.lax.map(log_weight, jax.random.split(key, samples))
