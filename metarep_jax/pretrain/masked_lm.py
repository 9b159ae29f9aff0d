"""Masked language modelling: some tokens of a text are hidden, and the encoder must say which they were."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key

from metarep_jax.encoders import split_variables
from metarep_jax.encoders.transformer import TextTransformer
from metarep_jax.losses import masked_mean
from metarep_jax.pretrain.chain import encoder_features
from metarep_jax.pretrain.modules import trained
from metarep_jax.types import MASK_TOKEN, SPECIAL_TOKENS, Judge, Keys, Objective

MASKED, RANDOM = 0.8, 0.1  # shares of the chosen tokens that become [MASK], or any token; the rest stay as they are


class Masked(NamedTuple):
    """Rows with some tokens hidden: ``inputs`` [n, l], ``place`` [n, k] of the chosen tokens, and which of these
    places ``counts`` [n, k] (rows with few tokens have fewer)."""

    inputs: Int[Array, "n l"]
    place: Int[Array, "n k"]
    counts: Bool[Array, "n k"]


class Guesses(NamedTuple):
    """What is said of one hidden token a row: the likeliest tokens and their probabilities [n, best], best first, and
    the token that was hidden, ``truth`` [n], with its own."""

    token: Int[Array, "n best"]
    probability: Float[Array, "n best"]
    truth: Int[Array, " n"]
    of_truth: Float[Array, " n"]


class TokenHead(nn.Module):
    """States of the encoder to logits: a dense layer, GELU and a norm, the encoder's own embeddings, and a bias.

    Logits are float32, whatever format the states have, and are computed in."""

    @nn.compact
    def __call__(self, states: Float[Array, "n k dim"], scores: Any) -> Float[Array, "n k vocabulary"]:
        states = nn.gelu(nn.Dense(states.shape[-1], dtype=states.dtype)(states))
        states = nn.LayerNorm(dtype=states.dtype)(states)
        logits = scores(states).astype(jnp.float32)
        return logits + self.param("bias", nn.initializers.zeros_init(), (logits.shape[-1],), jnp.float32)


def masked_lm(encoder: nn.Module, *, share: float = 0.15, axis_name: str | None = None) -> Objective:
    """BERT's first task: a ``share`` of each row's tokens is chosen, and predicted from what is left.

    Of the chosen tokens 80% are replaced by [MASK], 10% by a random token, and 10% stay, so that the encoder must keep
    a good vector for every token. They are chosen anew each step, by each row's own key. Padding and special tokens are
    never chosen. Logits are computed at the chosen places alone, with weights tied to the embedding.

    Args:
      encoder: a ``TextTransformer``; batches hold token ids [n, l] filled up with 0.
      share: of a row's tokens, rounded to a whole number but at least one; in (0, 1).
      axis_name: the mapped axis over which the batch is sharded, or None.

    Returns:
      An ``Objective``; its loss is the mean cross-entropy in nats over the chosen tokens of the global batch, its
      metric ``masked_accuracy`` the share of them that have the highest logit.

    Raises:
      ValueError: for a share outside (0, 1), or an encoder of anything but tokens.

    References:
      Devlin et al. 2018, https://arxiv.org/abs/1810.04805, section 3.1 and appendix C.2; Liu et al. 2019 (RoBERTa),
      https://arxiv.org/abs/1907.11692, section 4.1, for masks drawn anew.
    """
    if not 0 < share < 1:
        raise ValueError(f"masked_lm: share must lie between 0 and 1, got {share}")
    if not isinstance(encoder, TextTransformer):
        raise ValueError(f"masked_lm needs an encoder of tokens (transformer), got {type(encoder).__name__}")

    def init(key: Array, batch: dict, encoder_params: Any = None) -> tuple[Any, Any]:
        encoder_key, head_key = jax.random.split(key)
        tokens = batch["inputs"][:2]
        variables = encoder_params or encoder.init(encoder_key, tokens)
        states = encoder.apply(variables, tokens, method="states")
        scores = partial(encoder.apply, variables, method="scores")
        # The encoder's own init does not visit its tied scores, and need not: they have no parameters of their own.
        return split_variables({"encoder": variables, "head": TokenHead().init(head_key, states, scores)})

    def loss(params: Any, state: Any, batch: dict, keys: Keys, step: Any) -> tuple[Array, tuple[Any, dict]]:
        del step
        tokens = batch["inputs"]
        masked = mask_tokens(keys.example, tokens, share, encoder.vocabulary)
        logits, state = token_logits(encoder, params, state, masked.inputs, masked.place)
        wanted = jnp.take_along_axis(tokens, masked.place, axis=1)
        mean = partial(masked_mean, mask=masked.counts, axis_name=axis_name)
        value = mean(optax.softmax_cross_entropy_with_integer_labels(logits, wanted))
        hits = (logits.argmax(-1) == wanted).astype(jnp.float32)
        return value, (state, {"masked_accuracy": mean(hits)})

    return Objective(init, loss, encoder_features(encoder), judge=Judge(guess=partial(masked_guesses, encoder)))


def token_logits(
    encoder: nn.Module, params: Any, state: Any, tokens: Int[Array, "n l"], place: Int[Array, "n k"]
) -> tuple[Float[Array, "n k vocabulary"], Any]:
    """Logits of every token at some places of each row, and the moved state."""
    states, state = trained(encoder, "encoder", params, state, tokens, method="states")
    states = jnp.take_along_axis(states, place[..., None], axis=1)
    scores = partial(encoder.apply, {"params": params["encoder"]}, method="scores")
    return trained(TokenHead(), "head", params, state, states, scores)


def masked_guesses(
    encoder: nn.Module, params: Any, state: Any, tokens: Int[Array, "n l"], place: Int[Array, " n"], best: int = 5
) -> Guesses:
    """What a masked language model takes one token of each row for, when [MASK] stands in its place.

    Args:
      encoder, params, state: those of a trained ``masked_lm``.
      tokens: rows of token ids.
      place: of the token that is hidden, one a row.
      best: how many guesses.
    """
    rows = jnp.arange(tokens.shape[0])
    hidden = tokens.at[rows, place].set(MASK_TOKEN)
    probability = jax.nn.softmax(token_logits(encoder, params, state, hidden, place[:, None])[0][:, 0])
    likeliest, guess = lax.top_k(probability, best)
    truth = tokens[rows, place]
    return Guesses(guess, likeliest, truth, probability[rows, truth])


def mask_tokens(keys: Key[Array, " n"], tokens: Int[Array, "n l"], share: float, vocabulary: int) -> Masked:
    """Chooses ``share`` of each row's tokens and hides them; each row by its own key.

    As BERT's own data have it, a row's number of chosen tokens is fixed: ``share`` of those that are not special, at
    least one where there is any.
    """
    most = max(round(share * tokens.shape[1]), 1)

    def one(key: Array, row: Array) -> Masked:
        order_key, kind_key, word_key = jax.random.split(key, 3)
        eligible = row >= SPECIAL_TOKENS
        order = jnp.where(eligible, jax.random.uniform(order_key, row.shape), -1.0)
        place = lax.top_k(order, most)[1]
        wanted = jnp.maximum(jnp.round(share * eligible.sum()), 1)
        counts = (jnp.arange(most) < wanted) & eligible[place]
        kind = jax.random.uniform(kind_key, (most,))
        word = jax.random.randint(word_key, (most,), SPECIAL_TOKENS, vocabulary, row.dtype)
        hidden = jnp.where(kind < MASKED, MASK_TOKEN, jnp.where(kind < MASKED + RANDOM, word, row[place]))
        return Masked(row.at[place].set(jnp.where(counts, hidden, row[place])), place, counts)

    return jax.vmap(one)(keys, tokens)
