"""The masked autoencoder: most of an image's patches are left out, and must be filled in from the others."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int, Key, Shaped

from metarep_jax.encoders import split_variables
from metarep_jax.encoders.features import at_least_float32
from metarep_jax.encoders.transformer import SMALL, Block, through
from metarep_jax.encoders.vision_transformer import VisionTransformer, grid_positions, unpatchify
from metarep_jax.losses import masked_mean
from metarep_jax.pretrain.chain import encoder_features
from metarep_jax.pretrain.checks import check_positive
from metarep_jax.pretrain.modules import trained
from metarep_jax.types import Judge, Keys, Objective


class PatchDecoder(nn.Module):
    """Vectors of the visible patches to all patches' pixels: a small Transformer that sees a learned vector, and its
    place, where a patch is missing. Computes in the number format of the vectors; parameters and pixels are float32."""

    patch: int
    width: int = 128
    depth: int = 2
    heads: int = 4

    @nn.compact
    def __call__(
        self, states: Float[Array, "n kept dim"], visible: Int[Array, "n visible"], size: tuple[int, int, int]
    ) -> Float[Array, "n l patch"]:
        h, w, c = size
        place = grid_positions((h, w), self.patch, self.width)
        dtype = states.dtype
        x = nn.Dense(self.width, dtype=dtype)(states)
        first, kept = jnp.split(x, [x.shape[1] - visible.shape[1]], axis=1)  # the readout's own vector, if it has one
        missing = self.param("missing", SMALL, (self.width,), jnp.float32)
        whole = jnp.broadcast_to(missing.astype(dtype), (len(x), *place.shape))
        whole = jax.vmap(lambda row, at, value: row.at[at].set(value))(whole, visible, kept)
        x = jnp.concatenate([first, whole + place.astype(dtype)], axis=1)
        blocks = [Block(self.heads, dtype=dtype, name=f"block{index + 1}") for index in range(self.depth)]
        x = nn.LayerNorm(dtype=dtype)(through(self, blocks, x, None))[:, first.shape[1] :]
        return at_least_float32(nn.Dense(self.patch**2 * c, dtype=dtype)(x))


def mae(
    encoder: nn.Module,
    *,
    mask_ratio: float = 0.75,
    decoder_width: int = 128,
    decoder_depth: int = 2,
    decoder_heads: int = 4,
    normalise: bool = True,
) -> Objective:
    """The encoder sees a random quarter of the patches, and nothing stands for the others; a decoder fills those in.

    Args:
      encoder: a ``VisionTransformer``.
      mask_ratio: share of the patches that are left out, in (0, 1); at least one is left out, and one stays.
      decoder_width, decoder_depth, decoder_heads: shape of the decoder, which is dropped afterwards.
      normalise: whether a patch's pixels are predicted relative to its own mean and standard deviation (of the
        unbiased variance, as in the authors' code).

    Returns:
      An ``Objective``; its loss is the squared error, a mean over the pixels of the patches that were left out.

    Raises:
      ValueError: for a ratio outside (0, 1), an encoder without patches, or heads that do not divide the decoder's
        width; by ``init`` for a ratio that leaves no patch out or none in, and for patches of a single number, which
        have no deviation to be normalised by.

    References:
      He et al. 2021, https://arxiv.org/abs/2111.06377, section 3; tables 1c and 1d for what has a default here.
    """
    if not 0 < mask_ratio < 1:
        raise ValueError(f"mae: mask_ratio must lie between 0 and 1, got {mask_ratio}")
    check_positive("mae", decoder_width=decoder_width, decoder_depth=decoder_depth, decoder_heads=decoder_heads)
    if not isinstance(encoder, VisionTransformer):
        raise ValueError(f"mae needs an encoder of image patches (vit), got {type(encoder).__name__}")
    if decoder_width % decoder_heads:
        raise ValueError(f"mae: decoder_heads must divide decoder_width, got {decoder_heads} and {decoder_width}")
    decoder = PatchDecoder(encoder.patch, decoder_width, decoder_depth, decoder_heads)

    def init(key: Array, batch: dict, encoder_params: Any = None) -> tuple[Any, Any]:
        encoder_key, decoder_key = jax.random.split(key)
        images = batch["inputs"][:2]
        check_contrast(encoder.patch**2 * images.shape[-1], normalise)
        variables = encoder_params or encoder.init(encoder_key, images)
        visible = jnp.tile(jnp.arange(visible_count(images.shape, encoder.patch, mask_ratio)), (len(images), 1))
        states = encoder.apply(variables, images, visible, method="states")
        start = decoder.init(decoder_key, states, visible, images.shape[1:])
        return split_variables({"encoder": variables, "decoder": start})

    def loss(params: Any, state: Any, batch: dict, keys: Keys, step: Any) -> tuple[Array, tuple[Any, dict]]:
        del step
        images = batch["inputs"]
        patches: Any = encoder.apply({"params": params["encoder"]}, images, method="patches")
        kept = visible_count(images.shape, encoder.patch, mask_ratio)
        visible, masked = choose_patches(keys.example, patches.shape[1], kept)
        states, state = trained(encoder, "encoder", params, state, images, visible, method="states")
        outputs, state = trained(decoder, "decoder", params, state, states, visible, images.shape[1:])
        return masked_error(outputs, patches, masked, normalise), (state, {})

    draw = partial(fill_in, encoder, decoder, mask_ratio=mask_ratio, normalise=normalise)
    return Objective(init, loss, encoder_features(encoder), judge=Judge(reconstruct=draw))


def choose_patches(keys: Key[Array, " n"], patches: int, kept: int) -> tuple[Int[Array, "n kept"], Bool[Array, "n l"]]:
    """The ``kept`` patches that each row shows, drawn by its own key, and which of all are masked."""
    order = jax.vmap(partial(jax.random.permutation, x=patches))(keys)
    visible = order[:, :kept]
    hidden = jnp.ones((len(keys), patches), bool)
    return visible, jax.vmap(lambda row, at: row.at[at].set(False))(hidden, visible)


def masked_error(
    outputs: Float[Array, "n l patch"], patches: Float[Array, "n l patch"], masked: Bool[Array, "n l"], normalise: bool
) -> Float[Array, ""]:
    """The mean squared error over the masked patches, of which every row has as many."""
    if normalise:
        mean, spread = level_and_spread(patches)
        patches = (patches - mean) / spread
    return masked_mean(jnp.square(outputs - patches).mean(-1), masked)


def level_and_spread(patches: Float[Array, "n l patch"]) -> tuple[Float[Array, "n l 1"], Float[Array, "n l 1"]]:
    """Each patch's mean and standard deviation, as in the authors' code: the root of the unbiased variance (a sum of
    squares divided by one less than their number), plus 1e-6 so that a patch without contrast has one too.

    References:
      He et al. 2021, section 3, "Reconstruction target"; ``forward_loss`` in https://github.com/facebookresearch/mae.
    """
    return patches.mean(-1, keepdims=True), jnp.sqrt(patches.var(-1, keepdims=True, ddof=1) + 1e-6)


def check_contrast(numbers: int, normalise: bool) -> None:
    """Raises ValueError for patches of so many numbers that cannot be normalised."""
    if normalise and numbers < 2:
        raise ValueError(
            "mae: a patch of one number has no standard deviation to be normalised by; give normalise=False or larger "
            "patches"
        )


def fill_in(
    encoder: Any,
    decoder: PatchDecoder,
    params: Any,
    state: Any,
    inputs: Shaped[Array, "n h w c"],
    keys: Key[Array, " n"],
    *,
    mask_ratio: float,
    normalise: bool,
) -> dict[str, Float[Array, "n h w c"]]:
    """What a trained masked autoencoder makes of images; settings as those of ``mae``.

    Returns:
      "original"; "masked", with grey for patches that are left out; and "reconstruction": the visible patches as they
      are, and the decoder's for the others. With ``normalise`` it gives a patch's pixels relative to the patch's own
      mean and standard deviation, which are taken from the original.
    """
    del state
    patch, variables = encoder.patch, {"params": params["encoder"]}
    kept = visible_count(inputs.shape, patch, mask_ratio)
    patches: Any = encoder.apply(variables, inputs, method="patches")
    visible, masked = choose_patches(keys, patches.shape[1], kept)
    states = encoder.apply(variables, inputs, visible, method="states")
    outputs: Any = decoder.apply({"params": params["decoder"]}, states, visible, inputs.shape[1:])
    hidden = masked[..., None]
    if normalise:
        mean, spread = level_and_spread(patches)
        outputs = mean + spread * outputs

    def images(patches: Array) -> Array:
        return unpatchify(patches, inputs.shape[1:], patch) * encoder.std + encoder.mean

    return {
        "original": images(patches),
        "masked": images(jnp.where(hidden, (0.5 - encoder.mean) / encoder.std, patches)),
        "reconstruction": images(jnp.where(hidden, outputs, patches)),
    }


def visible_count(shape: tuple[int, ...], patch: int, mask_ratio: float) -> int:
    """How many patches of an image [n, h, w, c] of that shape stay; raises ValueError unless some do, and some not."""
    patches = (shape[1] // patch) * (shape[2] // patch)
    kept = patches - round(mask_ratio * patches)
    if not 0 < kept < patches:
        raise ValueError(
            f"mae: of the {patches} patches of {patch}×{patch} pixels in images of {shape[1]}×{shape[2]}, mask_ratio "
            f"{mask_ratio} leaves {kept}; give another ratio or smaller patches"
        )
    return kept
