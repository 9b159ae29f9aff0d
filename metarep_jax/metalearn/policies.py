"""Gaussian policies for continuous actions."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Key


class Gaussian(NamedTuple):
    """Independent normal distributions of an action's numbers, in units of the environment's limit."""

    mean: Float[Array, "n a"]
    log_std: Float[Array, " a"]

    def sample(self, key: Key[Array, ""]) -> Float[Array, "n a"]:
        """One action a row."""
        return self.mean + jnp.exp(self.log_std) * jax.random.normal(key, self.mean.shape, self.mean.dtype)

    def log_prob(self, action: Float[Array, "n a"]) -> Float[Array, " n"]:
        """Log density of each row's action."""
        standard = (action - self.mean) * jnp.exp(-self.log_std)
        return -0.5 * jnp.sum(standard**2 + jnp.log(2 * jnp.pi) + 2 * self.log_std, axis=-1)


class GaussianHead(nn.Module):
    """Features -> ``Gaussian``: the mean is linear in them, the deviation a parameter that starts at 1 and counts for
    ``least`` where it is smaller."""

    size: int
    least: float

    @nn.compact
    def __call__(self, features: Float[Array, "n dim"]) -> Gaussian:
        mean = nn.Dense(self.size, kernel_init=nn.initializers.glorot_uniform())(features)
        log_std = self.param("log_std", nn.initializers.zeros, (self.size,))
        return Gaussian(mean, jnp.maximum(log_std, jnp.log(self.least)))
