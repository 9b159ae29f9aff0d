"""Log-likelihoods and divergences of variational models, in nats."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float


def gaussian_kl(mean: Float[Array, "*n"], log_variance: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """KL(N(mean, exp(log_variance)) ‖ N(0, 1)) of each dimension, in nats (Kingma & Welling 2013, appendix B)."""
    return 0.5 * (mean**2 + jnp.exp(log_variance) - 1 - log_variance)


def bernoulli(logits: Float[Array, "n *shape"], x: Float[Array, "n *shape"]) -> Float[Array, " n"]:
    """Log-probability of pixels x in [0, 1] under Bernoulli variables of those logits, summed over a row."""
    return -_row_sums(optax.sigmoid_binary_cross_entropy(logits, x))


def gaussian(means: Float[Array, "n *shape"], x: Float[Array, "n *shape"], std: float) -> Float[Array, " n"]:
    """Log-density of x under normal variables of those means and one standard deviation, summed over a row."""
    return -_row_sums(0.5 * jnp.square((x - means) / std) + jnp.log(std * jnp.sqrt(2 * jnp.pi)))


def _row_sums(values: Array) -> Array:
    return values.reshape(values.shape[0], -1).sum(-1)
