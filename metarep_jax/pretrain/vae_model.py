"""The model of the variational autoencoder: a prior over latents, a decoder, and an approximate posterior."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Key

from metarep_jax.encoders import split_variables
from metarep_jax.encoders.decoder import make_decoder
from metarep_jax.encoders.layers import as_image_float
from metarep_jax.pretrain.checks import check_positive
from metarep_jax.pretrain.likelihoods import bernoulli, gaussian
from metarep_jax.pretrain.modules import trained

Likelihood = Literal["bernoulli", "gaussian"]


class VAE(NamedTuple):
    """The model as pure functions of the parameters and state that ``init`` gives; latents have the prior N(0, I)."""

    init: Callable[..., tuple[Any, Any]]  # (key, batch, encoder_params=None)
    posterior: Callable[..., tuple[tuple[Array, Array], Any]]  # (params, state, x) -> (mean, log-variance), state
    decode: Callable[..., tuple[Array, Any]]  # (params, state, z, shape) -> means of x, or its logits; state
    log_likelihood: Callable[[Array, Array], Array]  # (what decode returns, x) -> log p(x|z) [n], in nats
    means: Callable[[Array], Array]  # what decode returns -> means of x
    latent: int  # dimensions of z


def vae_model(
    encoder: nn.Module,
    *,
    latent: int = 32,
    likelihood: str = "bernoulli",
    std: float = 0.1,
    decoder: Callable[[tuple[int, ...]], nn.Module] = make_decoder,
) -> VAE:
    """The model that ``vae`` trains; settings as there."""
    check_positive("vae", latent=latent, std=std)
    if likelihood not in get_args(Likelihood):
        raise ValueError(f"vae: unknown likelihood {likelihood!r}; there are: {', '.join(get_args(Likelihood))}")
    likelihoods = {"bernoulli": bernoulli, "gaussian": lambda means, x: gaussian(means, x, std)}
    moments = nn.Dense(2 * latent)

    def init(key: Array, batch: dict, encoder_params: Any = None) -> tuple[Any, Any]:
        encoder_key, moments_key, decoder_key = jax.random.split(key, 3)
        x = as_image_float(batch["inputs"][:2])
        variables = encoder_params or encoder.init(encoder_key, x)
        features = encoder.apply(variables, x, running=True)
        start = decoder(x.shape[1:]).init(decoder_key, jnp.zeros((2, latent)))
        return split_variables({"encoder": variables, "moments": moments.init(moments_key, features), "decoder": start})

    def posterior(params: Any, state: Any, x: Array, running: bool = False) -> tuple[tuple[Array, Array], Any]:
        features, state = trained(encoder, "encoder", params, state, x, running=running)
        both, state = trained(moments, "moments", params, state, features.astype(jnp.float32))
        mean, log_variance = jnp.split(both, 2, axis=-1)
        return (mean, log_variance), state

    def decode(params: Any, state: Any, z: Array, shape: tuple[int, ...]) -> tuple[Array, Any]:
        return trained(decoder(shape), "decoder", params, state, z)

    means = jax.nn.sigmoid if likelihood == "bernoulli" else lambda outputs: outputs
    return VAE(init, posterior, decode, likelihoods[likelihood], means, latent)


def draw_pixels(keys: Key[Array, " n"], x: Float[Array, "n *shape"]) -> Float[Array, "n *shape"]:
    """Pixels that are 0 or 1, with the grey values for probabilities; each row by its own key."""
    return jax.vmap(jax.random.bernoulli)(keys, x).astype(x.dtype)


def latents(model: VAE, params: Any, state: Any, x: Float[Array, "n *shape"]) -> Float[Array, "n latent"]:
    """The means of q(z|x), norms by running averages."""
    return model.posterior(params, state, x, running=True)[0][0]


def decoded(
    model: VAE, params: Any, state: Any, z: Float[Array, "n latent"], shape: tuple[int, ...]
) -> Float[Array, "n *shape"]:
    """The means of p(x|z)."""
    return model.means(model.decode(params, state, z, shape)[0])
