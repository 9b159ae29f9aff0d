"""The variational autoencoder: a latent-variable model and its approximate posterior, trained by a bound."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Key, Shaped

from metarep_jax.encoders import split_variables
from metarep_jax.encoders.decoder import make_decoder
from metarep_jax.encoders.layers import as_image_float
from metarep_jax.pretrain.chain import encoder_features
from metarep_jax.pretrain.checks import check_positive
from metarep_jax.pretrain.likelihoods import bernoulli, gaussian, gaussian_kl
from metarep_jax.pretrain.modules import trained
from metarep_jax.types import Keys, Objective

Likelihood = Literal["bernoulli", "gaussian"]


class VAE(NamedTuple):
    """The model as pure functions of the parameters and state that ``init`` gives; latents have the prior N(0, I)."""

    init: Callable[..., tuple[Any, Any]]  # (key, batch, encoder_params=None)
    posterior: Callable[..., tuple[tuple[Array, Array], Any]]  # (params, state, x) -> (mean, log-variance), state
    decode: Callable[..., tuple[Array, Any]]  # (params, state, z, shape) -> means of x, or its logits; state
    log_likelihood: Callable[[Array, Array], Array]  # (what decode gave, x) -> log p(x|z) [n], in nats
    means: Callable[[Array], Array]  # what decode gave -> means of x
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
    likelihoods = {"bernoulli": bernoulli, "gaussian": lambda means, x: gaussian(means, x, std)}
    if likelihood not in likelihoods:
        raise ValueError(f"vae: unknown likelihood {likelihood!r}; there are: {', '.join(likelihoods)}")
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


def vae_of(config: Any, encoder: nn.Module) -> VAE:
    """The model that the objective of ``config`` (an ``ObjectiveConfig`` of ``vae``) trains."""
    takes = ("latent", "likelihood", "std")
    return vae_model(encoder, **{name: config.settings[name] for name in takes})


def vae(
    encoder: nn.Module,
    *,
    latent: int = 32,
    likelihood: str = "bernoulli",
    std: float = 0.1,
    beta: float = 1.0,
    free_bits: float = 0.0,
    binarise: bool = False,
    decoder: Callable[[tuple[int, ...]], nn.Module] = make_decoder,
    axis_name: str | None = None,
) -> Objective:
    """Maximises the evidence lower bound, E_q log p(x|z) − β KL(q(z|x) ‖ p(z)), by one sample a step and example.

    Args:
      encoder: a module of ``metarep_jax.encoders``; its features, not the latents, are what is handed on.
      latent: dimensions of z.
      likelihood: "bernoulli" of pixels in [0, 1], or "gaussian" with the standard deviation ``std``.
      beta: weight of the divergence; 1 is the bound, more asks for independent latents.
      free_bits: nats that each latent dimension may spend, as a mean over the global batch, before it counts: keeps
        the decoder from ignoring z.
      binarise: whether each step draws pixels anew as 0 or 1 with their grey values for probabilities.
      decoder: the shape of one input to a module ``z [n, latent] -> outputs [n, *shape]``.
      axis_name: the mapped axis over which the batch is sharded, or None.

    Returns:
      An ``Objective``; its metrics are ``elbo`` (with β = 1 and no free bits) and ``kl``, nats an example.

    Raises:
      ValueError: for settings out of range.

    References:
      Kingma & Welling 2013, https://arxiv.org/abs/1312.6114, eq. 10; Higgins et al. 2017 (β-VAE), eq. 4; Kingma et al.
      2016, https://arxiv.org/abs/1606.04934, eq. 15 (free bits); Burda et al. 2015, https://arxiv.org/abs/1509.00519,
      section 5 (pixels drawn anew).
    """
    for name, value in {"beta": beta, "free_bits": free_bits}.items():
        if value < 0:
            raise ValueError(f"vae: {name} must not be negative, got {value}")
    model = vae_model(encoder, latent=latent, likelihood=likelihood, std=std, decoder=decoder)

    def loss(params: Any, state: Any, batch: dict, keys: Keys, step: Any) -> tuple[Array, tuple[Any, dict]]:
        del step
        pairs = jax.vmap(jax.random.split)(keys.example)
        x = as_image_float(batch["inputs"])
        x = jax.vmap(jax.random.bernoulli)(pairs[:, 0], x).astype(x.dtype) if binarise else x
        (mean, log_variance), state = model.posterior(params, state, x)
        noise = jax.vmap(lambda key: jax.random.normal(key, (latent,)))(pairs[:, 1])
        outputs, state = model.decode(params, state, mean + jnp.exp(0.5 * log_variance) * noise, x.shape[1:])
        fit = model.log_likelihood(outputs, x).mean()
        kl = gaussian_kl(mean, log_variance).mean(0)  # [latent]
        spent = kl if axis_name is None or not free_bits else jax.lax.pmean(kl, axis_name)
        value = beta * jnp.maximum(spent, free_bits).sum() - fit
        return value, (state, {"elbo": fit - kl.sum(), "kl": kl.sum()})

    return Objective(model.init, loss, encoder_features(encoder))


def importance_weighted_bound(
    model: VAE, params: Any, state: Any, inputs: Shaped[Array, "n ..."], key: Key[Array, ""], samples: int = 50
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
    """The log of the mean over samples of what ``log_weights`` gives the log of."""
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
