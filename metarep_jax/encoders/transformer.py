"""Pre-norm Transformer encoders: their blocks, and the encoder of token sequences."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from metarep_jax.encoders.named_layers import keep_layer
from metarep_jax.encoders.settings import check_choices, check_positive
from metarep_jax.types import PAD_TOKEN, SPECIAL_TOKENS, UNKNOWN_TOKEN

SMALL = nn.initializers.normal(0.02)  # of embeddings, as in BERT (Devlin et al. 2018, https://arxiv.org/abs/1810.04805)

Gelu = Literal["tanh", "exact"]


def transformer(
    *,
    vocabulary: int = 8192,
    width: int = 64,
    depth: int = 4,
    heads: int = 4,
    longest: int = 512,
    positions: Literal["learned", "sincos", "none"] = "learned",
    readout: Literal["mean", "cls", "first_last"] = "mean",
    gelu: Gelu = "tanh",
    dtype: Any = jnp.float32,
) -> nn.Module:
    """A Transformer over a text's tokens.

    Args:
      vocabulary: token ids are below it; at least data.vocabulary. A run takes as many as its tokenizer has.
      width: of every token's vector.
      depth: blocks.
      heads: heads of attention, which must divide the width.
      longest: tokens a row, at most, where positions are learned.
      positions: vectors learned for each place, fixed sines and cosines, or none.
      readout: the mean over words; cls: the first token; first_last: means of the first and last layer together.
      gelu: the activation by tanh, which is faster, or exact, as in BERT: take it for weights from elsewhere.
      dtype: of the computation; parameters stay float32.

    Raises:
      ValueError: for a setting that does not exist, is not positive, or does not fit another.
    """
    return TextTransformer(
        vocabulary=vocabulary,
        width=width,
        depth=depth,
        heads=heads,
        longest=longest,
        positions=positions,
        readout=readout,
        gelu=gelu,
        dtype=dtype,
    )


class Block(nn.Module):
    """Self-attention and an MLP of GELU units, each on a normalised copy of its input, which is then added.

    With the norms inside the branches, gradients stay of one size through any depth, and training needs no long
    warm-up. Sources: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762; Xiong et al. 2020,
    https://arxiv.org/abs/2002.04745, figure 1b.
    """

    heads: int
    expand: int = 4
    gelu: str = "tanh"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n l dim"], keep: Bool[Array, "n l"] | None = None) -> Float[Array, "n l dim"]:
        dim = x.shape[-1]
        norm, dense = (partial(layer, dtype=self.dtype) for layer in (nn.LayerNorm, nn.Dense))
        mask = None if keep is None else keep[:, None, None, :]
        x = x + nn.MultiHeadDotProductAttention(self.heads, dtype=self.dtype)(norm()(x), mask=mask)
        hidden = nn.gelu(dense(self.expand * dim)(norm()(x)), approximate=self.gelu == "tanh")
        return x + dense(dim)(hidden)


class TextTransformer(nn.Module):
    """Token ids [n, l] to features [n, width]; rows are filled up with the id 0, which nothing attends to.

    ``positions``: "learned" vectors for up to ``longest`` places, "sincos" (Vaswani et al. 2017, section 3.5) or
    "none". Embeddings are normalised before the first block, as in BERT: beside its branches' outputs they would be
    lost. ``readout``: the last layer's vector of the first token ("cls"), or the "mean" of those of a row's words (zero
    for a row without any); "first_last" takes each word's mean of what enters the first block and of what leaves the
    last (the first-last average of Su et al. 2021, https://arxiv.org/abs/2103.15316).
    """

    vocabulary: int
    width: int = 256
    depth: int = 4
    heads: int = 4
    longest: int = 512
    positions: str = "learned"
    readout: str = "mean"
    gelu: str = "tanh"
    dtype: Any = jnp.float32
    takes = "tokens"

    def __post_init__(self) -> None:
        check_positive(self, "vocabulary", "longest")
        check_transformer(self, ("learned", "sincos", "none"), ("mean", "cls", "first_last"))
        super().__post_init__()

    def setup(self) -> None:
        self.embed = nn.Embed(self.vocabulary, self.width, embedding_init=SMALL, dtype=self.dtype)
        if self.positions == "learned":
            self.position = self.param("position", SMALL, (self.longest, self.width), jnp.float32)
        self.embed_norm = nn.LayerNorm(dtype=self.dtype)
        self.blocks = [Block(self.heads, gelu=self.gelu, dtype=self.dtype) for _ in range(self.depth)]
        self.norm = nn.LayerNorm(dtype=self.dtype)

    def __call__(
        self, x: Int[Array, "n l"], mask: Bool[Array, " n"] | None = None, running: bool = False
    ) -> Float[Array, "n dim"]:
        del mask, running
        first = self.embedded(x)
        last = self.contextual(first, x)
        words = (x >= SPECIAL_TOKENS) | (x == UNKNOWN_TOKEN)
        return read_out((first + last) / 2 if self.readout == "first_last" else last, words, self.readout)

    def states(self, tokens: Int[Array, "n l"]) -> Float[Array, "n l dim"]:
        """The last layer's vector at every place. Raises ValueError for rows longer than ``longest``."""
        return self.contextual(self.embedded(tokens), tokens)

    def embedded(self, tokens: Int[Array, "n l"]) -> Float[Array, "n l dim"]:
        """What enters the first block: each token's embedding and its place."""
        length = tokens.shape[1]
        x = self.embed(tokens)
        if self.positions == "learned":
            if length > self.longest:
                raise ValueError(f"rows of {length} tokens, but the encoder has {self.longest} learned positions")
            x = x + self.position[:length].astype(x.dtype)
        elif self.positions == "sincos":
            x = x + sincos(jnp.arange(length), self.width).astype(x.dtype)
        return self.embed_norm(x)

    def contextual(self, x: Float[Array, "n l dim"], tokens: Int[Array, "n l"]) -> Float[Array, "n l dim"]:
        """What leaves the last one."""
        last = self.norm(through(self, self.blocks, x, tokens != PAD_TOKEN))
        keep_layer(self, "tokens", lambda: last)
        return last

    def scores(self, states: Float[Array, "*n dim"]) -> Float[Array, "*n vocabulary"]:
        """Inner products with every token's embedding: logits whose weights are tied to the embedding."""
        return self.embed.attend(states)


def through(module: nn.Module, blocks: Sequence[Block], x: Array, keep: Array | None) -> Array:
    """One block after the other."""
    for index, block in enumerate(blocks):
        x = block(x, keep)
        keep_layer(module, f"block{index + 1}", lambda x=x: x)
    return x


def read_out(states: Float[Array, "n l dim"], keep: Bool[Array, "n l"] | None, how: str) -> Float[Array, "n dim"]:
    """The first vector ("cls"), or the mean of those that ``keep`` marks (of none: zero)."""
    if how == "cls":
        return states[:, 0]
    if keep is None:
        return states.mean(1)
    weight = keep[..., None].astype(states.dtype)
    return (states * weight).sum(1) / jnp.maximum(weight.sum(1), 1)


def sincos(place: Int[Array, " l"], dim: int) -> Float[Array, "l dim"]:
    """Sines and cosines of each place, at wavelengths from 2π to 2π·10,000 (Vaswani et al. 2017, section 3.5)."""
    half = (dim + 1) // 2
    angle = place[:, None] * jnp.exp(-math.log(10_000.0) * jnp.arange(half) / max(half, 1))
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)[:, :dim]


def check_transformer(module: Any, positions: tuple[str, ...], readouts: tuple[str, ...]) -> None:
    """Raises ValueError for settings of a Transformer that do not exist or do not fit together."""
    check_positive(module, "width", "depth", "heads")
    check_choices(module, positions=positions, readout=readouts, gelu=("tanh", "exact"))
    if module.width % module.heads:
        raise ValueError(f"a Transformer of width {module.width} cannot be split into {module.heads} heads")
