"""The autoencoder: features that the input is reconstructed from; denoising, from a corrupted copy of it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Key, Shaped

from metarep_jax.encoders.decoder import make_decoder
from metarep_jax.encoders.layers import as_image_float
from metarep_jax.pretrain.chain import Chain, chain, encoder_features
from metarep_jax.types import Judge, Keys, Objective

DROP = 0.25  # of the denoising autoencoder (Vincent et al. 2008, table 1)


def autoencoder(
    encoder: nn.Module,
    *,
    noise: float = 0.0,
    drop: float = 0.0,
    decoder: Callable[[tuple[int, ...]], nn.Module] = make_decoder,
) -> Objective:
    """Minimises the squared error of a decoder's reconstruction of the input, from the encoder's features.

    With ``noise`` or ``drop``, the encoder sees a corrupted input, and the decoder must still give the clean one: the
    denoising autoencoder. Each example is corrupted anew every step, by its own key.

    Args:
      encoder: a module of ``metarep_jax.encoders`` for images or flat inputs [n, ...].
      noise: standard deviation of Gaussian noise added to inputs (images are in [0, 1]); not negative.
      drop: probability that a number of the input is set to 0; in [0, 1).
      decoder: the shape of one input to a module ``features [n, dim] -> outputs [n, *shape]``.

    Returns:
      An ``Objective``; its loss is the mean over examples and numbers of the squared error.

    Raises:
      ValueError: for a corruption out of range.

    References:
      Hinton & Salakhutdinov 2006, Reducing the Dimensionality of Data with Neural Networks,
      https://doi.org/10.1126/science.1127647; Vincent et al. 2008, Extracting and Composing Robust Features with
      Denoising Autoencoders, section 2.3, https://doi.org/10.1145/1390156.1390294 (``drop``).
    """
    if noise < 0:
        raise ValueError(f"autoencoder: noise must not be negative, got {noise}")
    if not 0 <= drop < 1:
        raise ValueError(f"autoencoder: drop must be in [0, 1), got {drop}")

    def net(shape: tuple[int, ...]) -> Chain:
        return chain(encoder=encoder, decoder=decoder(shape))

    def init(key: Array, batch: dict, encoder_params: Any = None) -> tuple[Any, Any]:
        return net(batch["inputs"].shape[1:]).init(key, batch, encoder_params)

    def loss(params: Any, state: Any, batch: dict, keys: Keys, step: Any) -> tuple[Array, tuple[Any, dict]]:
        del step
        clean = as_image_float(batch["inputs"])
        outputs, state = net(clean.shape[1:]).apply(params, state, corrupt(keys.example, clean, noise, drop))
        return jnp.mean(jnp.square(outputs["decoder"] - clean)), (state, {})

    draw = partial(reconstruct, encoder, noise=noise, drop=drop, decoder=decoder)
    return Objective(init, loss, encoder_features(encoder), judge=Judge(reconstruct=draw))


def denoising_autoencoder(
    encoder: nn.Module,
    *,
    noise: float = 0.0,
    drop: float = DROP,
    decoder: Callable[[tuple[int, ...]], nn.Module] = make_decoder,
) -> Objective:
    """``autoencoder`` that drops a quarter of the input by default.

    Args:
      encoder, decoder: as in ``autoencoder``.
      noise: standard deviation of Gaussian noise added to inputs (images are in [0, 1]); not negative.
      drop: probability that a number of the input is set to 0; in [0, 1).
    """
    return autoencoder(encoder, noise=noise, drop=drop, decoder=decoder)


def corrupt(keys: Key[Array, " n"], inputs: Float[Array, "n ..."], noise: float, drop: float) -> Float[Array, "n ..."]:
    """Inputs with Gaussian noise added, and then some of their numbers set to 0; each row by its own key."""

    def one(key: Array, row: Array) -> Array:
        noise_key, drop_key = jax.random.split(key)
        if noise:
            row = row + noise * jax.random.normal(noise_key, row.shape, row.dtype)
        return jnp.where(jax.random.bernoulli(drop_key, drop, row.shape), 0, row) if drop else row

    return jax.vmap(one)(keys, inputs)


def reconstruct(
    encoder: nn.Module,
    params: Any,
    state: Any,
    inputs: Shaped[Array, "n *shape"],
    keys: Key[Array, " n"],
    *,
    noise: float = 0.0,
    drop: float = 0.0,
    decoder: Callable[[tuple[int, ...]], nn.Module] = make_decoder,
) -> dict[str, Float[Array, "n *shape"]]:
    """What a trained autoencoder makes of inputs; settings as those of ``autoencoder``. Norms use running averages.

    Returns:
      "original"; with a corruption "corrupted", which is what the encoder sees; and "reconstruction".
    """
    clean = as_image_float(inputs)
    seen = corrupt(keys, clean, noise, drop)
    features = encoder_features(encoder)(params, state, seen)
    decoded: Any = decoder(clean.shape[1:]).apply({"params": params["decoder"]}, features)
    return {"original": clean, **({"corrupted": seen} if noise or drop else {}), "reconstruction": decoded}
