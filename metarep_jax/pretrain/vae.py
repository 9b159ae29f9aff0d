"""The variational autoencoder: a latent-variable model and its approximate posterior, trained by a bound."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array

from metarep_jax.encoders.decoder import make_decoder
from metarep_jax.encoders.layers import as_image_float
from metarep_jax.pretrain.chain import encoder_features
from metarep_jax.pretrain.checks import check_not_negative
from metarep_jax.pretrain.evidence import evidence_bounds
from metarep_jax.pretrain.generation import interpolate, reconstruct_by_mean, sample_prior
from metarep_jax.pretrain.likelihoods import gaussian_kl
from metarep_jax.pretrain.vae_model import VAE, Likelihood, draw_pixels, vae_model
from metarep_jax.types import Judge, Keys, Objective


def vae(
    encoder: nn.Module,
    *,
    latent: int = 32,
    likelihood: Likelihood = "bernoulli",
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
      likelihood: of pixels in [0, 1]: "bernoulli", or "gaussian" with the standard deviation ``std``.
      std: of the Gaussian likelihood; positive.
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
    check_not_negative("vae", beta=beta, free_bits=free_bits)
    model = vae_model(encoder, latent=latent, likelihood=likelihood, std=std, decoder=decoder)

    def loss(params: Any, state: Any, batch: dict, keys: Keys, step: Any) -> tuple[Array, tuple[Any, dict]]:
        del step
        pairs = jax.vmap(jax.random.split)(keys.example)
        x = as_image_float(batch["inputs"])
        x = draw_pixels(pairs[:, 0], x) if binarise else x
        (mean, log_variance), state = model.posterior(params, state, x)
        noise = jax.vmap(lambda key: jax.random.normal(key, (latent,)))(pairs[:, 1])
        outputs, state = model.decode(params, state, mean + jnp.exp(0.5 * log_variance) * noise, x.shape[1:])
        fit = model.log_likelihood(outputs, x).mean()
        kl = gaussian_kl(mean, log_variance).mean(0)  # [latent]
        spent = kl if axis_name is None or not free_bits else jax.lax.pmean(kl, axis_name)
        value = beta * jnp.maximum(spent, free_bits).sum() - fit
        return value, (state, {"elbo": fit - kl.sum(), "kl": kl.sum()})

    return Objective(model.init, loss, encoder_features(encoder), judge=vae_judge(model, binarise))


def vae_judge(model: VAE, binarise: bool) -> Judge:
    """Reconstructions, interpolations, samples and bounds; ``binarise``: the model was trained on pixels drawn anew."""
    return Judge(
        reconstruct=partial(reconstruct_by_mean, model, binarise=binarise),
        interpolate=partial(interpolate, model),
        sample=partial(sample_prior, model),
        bounds=partial(evidence_bounds, model, binarise=binarise),
    )
