"""Vision Transformers: images as sequences of patches."""

from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int, Shaped

from metarep_jax.encoders.layers import PerChannel, as_image_float
from metarep_jax.encoders.named_layers import keep_layer
from metarep_jax.encoders.settings import check_positive
from metarep_jax.encoders.transformer import SMALL, Block, Gelu, check_transformer, read_out, sincos, through


def vit(
    *,
    patch: int = 4,
    width: int = 64,
    depth: int = 4,
    heads: int = 4,
    positions: Literal["sincos", "learned", "none"] = "sincos",
    readout: Literal["mean", "cls"] = "mean",
    gelu: Gelu = "tanh",
    mean: PerChannel = 0.0,
    std: PerChannel = 1.0,
    dtype: Any = jnp.float32,
) -> nn.Module:
    """A Vision Transformer: images as rows of patches.

    Args:
      patch: pixels a side of a patch.
      width: of every patch's vector.
      depth: blocks.
      heads: heads of attention, which must divide the width.
      positions: fixed sines and cosines; vectors learned for each patch, which then fix the images' size; or none.
      readout: the mean over patches; cls: a learned vector that stands before them.
      gelu: the activation by tanh, which is faster, or exact, as in timm: take it for weights from elsewhere.
      mean: subtracted from images in [0, 1]; one number, or one a channel (ImageNet: 0.485 0.456 0.406).
      std: divides the centred images; one number, or one a channel (ImageNet: 0.229 0.224 0.225).
      dtype: of the computation; parameters stay float32.

    Raises:
      ValueError: for a setting that does not exist, is not positive, or does not fit another.
    """
    return VisionTransformer(
        patch=patch,
        width=width,
        depth=depth,
        heads=heads,
        positions=positions,
        readout=readout,
        gelu=gelu,
        mean=mean,
        std=std,
        dtype=dtype,
    )


class VisionTransformer(nn.Module):
    """Images [n, h, w, c] as rows of ``patch`` × ``patch`` squares to features [n, width].

    ``positions``: fixed sines and cosines of row and column ("sincos"), vectors "learned" for each patch of images of
    the size that ``init`` saw (others are refused), or "none". ``readout``: the "mean" over patches, or a learned
    vector that stands before them ("cls"). ``gelu`` is by "tanh" or "exact", as in timm; the norms' epsilon is timm's
    1e-6. Source: Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929, section 3.1.
    """

    patch: int = 4
    width: int = 192
    depth: int = 4
    heads: int = 4
    positions: str = "sincos"
    readout: str = "mean"
    mean: PerChannel = 0.0
    std: PerChannel = 1.0
    gelu: str = "tanh"
    dtype: Any = jnp.float32
    takes = "images"

    def __post_init__(self) -> None:
        check_positive(self, "patch", "std")
        check_transformer(self, ("sincos", "learned", "none"), ("mean", "cls"))
        super().__post_init__()

    def setup(self) -> None:
        self.embed = nn.Dense(self.width, dtype=self.dtype)
        if self.readout == "cls":
            self.cls = self.param("cls", SMALL, (self.width,), jnp.float32)
        self.blocks = [Block(self.heads, gelu=self.gelu, dtype=self.dtype) for _ in range(self.depth)]
        self.norm = nn.LayerNorm(dtype=self.dtype)

    def __call__(
        self, x: Shaped[Array, "n h w c"], mask: Bool[Array, " n"] | None = None, running: bool = False
    ) -> Float[Array, "n dim"]:
        del mask, running
        return read_out(self.states(x), None, self.readout)

    def patches(self, images: Shaped[Array, "n h w c"]) -> Float[Array, "n l patch"]:
        """The images' patches, row by row, each flattened, with pixels as the encoder takes them before it rounds."""
        return patchify(as_image_float(images, self.mean, self.std), self.patch)

    def states(
        self, images: Shaped[Array, "n h w c"], visible: Int[Array, "n kept"] | None = None
    ) -> Float[Array, "n l dim"]:
        """The last layer's vectors, of all patches or of the ``visible`` ones alone, in that order; with readout "cls"
        its vector before them."""
        patches = self.patches(images)
        place = self._places(images.shape[1:3], patches.shape[1])
        if visible is not None:
            patches = jnp.take_along_axis(patches, visible[..., None], axis=1)
            place = place[visible]
        x = self.embed(patches)
        x = x if self.positions == "none" else x + place.astype(x.dtype)
        if self.readout == "cls":
            first = jnp.broadcast_to(self.cls.astype(x.dtype), (x.shape[0], 1, self.width))
            x = jnp.concatenate([first, x], axis=1)
        last = self.norm(through(self, self.blocks, x, None))
        keep_layer(self, "tokens", lambda: last)
        return last

    @nn.compact
    def _places(self, size: tuple[int, ...], count: int) -> Float[Array, "l dim"]:
        if self.positions != "learned":
            return grid_positions(size, self.patch, self.width if self.positions == "sincos" else 0)
        learned: Any = self.get_variable("params", "position")
        if learned is not None and learned.shape[0] != count:
            raise ValueError(
                f"the encoder has learned positions of {learned.shape[0]} patches, but images of {size[0]}×{size[1]} "
                f"pixels have {count} of {self.patch}×{self.patch}; set --data.image-size to what it was trained on"
            )
        return self.param("position", SMALL, (count, self.width), jnp.float32)


def patchify(images: Float[Array, "n h w c"], patch: int) -> Float[Array, "n l patch"]:
    """Images cut into ``patch`` × ``patch`` squares, row by row, each flattened as [row, column, channel].

    Raises:
      ValueError: when the squares do not fill the image.
    """
    n, h, w, c = images.shape
    if h % patch or w % patch:
        raise ValueError(f"patches of {patch}×{patch} pixels do not divide images of {h}×{w}; give another patch size")
    cut = images.reshape(n, h // patch, patch, w // patch, patch, c)
    return cut.transpose(0, 1, 3, 2, 4, 5).reshape(n, (h // patch) * (w // patch), patch * patch * c)


def unpatchify(patches: Float[Array, "n l patch"], shape: tuple[int, ...], patch: int) -> Float[Array, "n h w c"]:
    """The inverse of ``patchify``, for images of ``shape`` (h, w, c)."""
    h, w, c = shape
    cut = patches.reshape(-1, h // patch, w // patch, patch, patch, c)
    return cut.transpose(0, 1, 3, 2, 4, 5).reshape(-1, h, w, c)


def grid_positions(size: tuple[int, ...], patch: int, dim: int) -> Float[Array, "l dim"]:
    """Where each patch of an image of that size lies: half the numbers for its row, half for its column.

    Source: He et al. 2021, https://arxiv.org/abs/2111.06377, appendix A.1, for the two axes apart.
    """
    rows, columns = (jnp.arange(side // patch) for side in size)
    row, column = (axis.reshape(-1) for axis in jnp.meshgrid(rows, columns, indexing="ij"))
    return jnp.concatenate([sincos(row, dim // 2), sincos(column, dim - dim // 2)], axis=-1)
