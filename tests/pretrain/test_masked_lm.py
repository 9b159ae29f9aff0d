"""Masked language modelling: which tokens are hidden, how, and what is counted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarep_jax.encoders.mlp import MLP
from metarep_jax.encoders.transformer import TextTransformer
from metarep_jax.pretrain.masked_lm import mask_tokens, masked_guesses, masked_lm
from metarep_jax.types import MASK_TOKEN, SPECIAL_TOKENS, Keys

VOCABULARY, ROWS, LENGTH = 50, 400, 40
TOKENS = np.random.default_rng(0).integers(SPECIAL_TOKENS, VOCABULARY, (ROWS, LENGTH)).astype(np.int32)
TOKENS[:, 0] = 2
KEYS = jax.random.split(jax.random.key(1), ROWS)
ENCODER = TextTransformer(VOCABULARY, width=8, depth=1, heads=2, longest=LENGTH)


compiled = jax.jit(mask_tokens, static_argnums=(2, 3))


def hide(tokens=TOKENS, keys=KEYS, share=0.15):
    return jax.device_get(compiled(keys, tokens, share, VOCABULARY))


@pytest.fixture(scope="module")
def trained():
    """The objective with its loss compiled, and parameters."""
    objective = masked_lm(ENCODER, share=0.2)
    params, state = jax.jit(objective.init)(jax.random.key(2), {"inputs": TOKENS[:2]})
    return jax.jit(objective.loss), params, state


def test_every_row_has_its_share_of_tokens_chosen_and_none_twice():
    masked = hide()
    assert (masked.counts.sum(1) == round(0.15 * (LENGTH - 1))).all()
    for place, counts in zip(masked.place, masked.counts):
        assert len(set(place[counts])) == counts.sum()


def test_padding_and_special_tokens_are_never_chosen():
    tokens = TOKENS[:8].copy()
    tokens[0, 11:] = tokens[1, 2:] = tokens[2] = 0
    tokens[3, 5] = 3
    masked = hide(tokens, KEYS[:8])
    assert masked.counts.sum(1)[:3].tolist() == [round(0.15 * 10), 1, 0]  # at least one, where there is any
    chosen = np.take_along_axis(tokens, masked.place, axis=1)
    assert (chosen[masked.counts] >= SPECIAL_TOKENS).all()
    np.testing.assert_array_equal(masked.inputs[tokens < SPECIAL_TOKENS], tokens[tokens < SPECIAL_TOKENS])


def test_of_the_chosen_tokens_eight_tenths_are_masked_one_random_and_one_kept():
    masked = hide()
    chosen = np.zeros((ROWS, LENGTH), bool)
    np.put_along_axis(chosen, masked.place, masked.counts, axis=1)
    np.testing.assert_array_equal(masked.inputs[~chosen], TOKENS[~chosen])
    before, after = TOKENS[chosen], masked.inputs[chosen]
    total = len(before)
    shares = [
        np.mean(after == MASK_TOKEN),
        np.mean((after != MASK_TOKEN) & (after != before)),
        np.mean(after == before),
    ]
    same = 0.1 / (VOCABULARY - SPECIAL_TOKENS)  # of the random tokens some are the token itself
    for share, wanted in zip(shares, (0.8, 0.1 - same, 0.1 + same)):
        assert abs(share - wanted) < 4 * np.sqrt(wanted * (1 - wanted) / total)
    random = after[(after != MASK_TOKEN) & (after != before)]
    assert random.min() >= SPECIAL_TOKENS and set(random) == set(range(SPECIAL_TOKENS, VOCABULARY))


def test_masks_are_drawn_anew_by_each_rows_own_key():
    one, other = hide(), hide(keys=jax.random.split(jax.random.key(9), ROWS))
    assert np.mean((one.inputs == MASK_TOKEN) == (other.inputs == MASK_TOKEN)) < 0.9
    np.testing.assert_array_equal(hide(TOKENS[3:5], KEYS[3:5]).inputs, one.inputs[3:5])


def test_the_loss_of_a_uniform_model_is_the_log_of_the_vocabulary(trained):
    loss, params, state = trained
    encoder = params["encoder"] | {"embed": {"embedding": np.zeros((VOCABULARY, 8), np.float32)}}
    value, _ = loss(params | {"encoder": encoder}, state, {"inputs": TOKENS}, Keys(KEYS, KEYS[0]), 0)
    assert value == pytest.approx(np.log(VOCABULARY), rel=1e-5)


def test_accuracy_counts_the_chosen_tokens_alone(trained):
    loss, params, state = trained
    word, tokens = 7, np.where(np.arange(LENGTH) < 20, TOKENS, 0)
    always = params["head"] | {"bias": 1e4 * np.eye(VOCABULARY, dtype=np.float32)[word]}
    _, (_, metrics) = loss(params | {"head": always}, state, {"inputs": tokens}, Keys(KEYS, KEYS[0]), 0)
    masked = hide(tokens, share=0.2)
    chosen = np.take_along_axis(tokens, masked.place, axis=1)[masked.counts]
    assert len(chosen) == ROWS * round(0.2 * 19)
    assert metrics["masked_accuracy"] == pytest.approx(np.mean(chosen == word), rel=1e-6)


def test_hidden_tokens_reach_the_loss_as_targets_alone(trained):
    loss, params, state = trained
    keys = Keys(KEYS, KEYS[0])
    masked = hide(share=0.2)
    certain = np.take_along_axis(masked.inputs, masked.place, axis=1) == MASK_TOKEN
    assert certain.any(1).all()
    first = np.argmax(certain & masked.counts, axis=1)
    place = np.take_along_axis(masked.place, first[:, None], axis=1)[:, 0]
    other = TOKENS.copy()
    other[np.arange(ROWS), place] = 5 + (TOKENS[np.arange(ROWS), place] + 1 - 5) % 45
    np.testing.assert_array_equal(hide(other, share=0.2).inputs, masked.inputs)
    one, two = (float(loss(params, state, {"inputs": tokens}, keys, 0)[0]) for tokens in (other, TOKENS))
    assert one != two


def test_a_text_without_tokens_of_its_own_loses_nothing(trained):
    loss, params, state = trained
    value, (_, metrics) = loss(params, state, {"inputs": np.zeros_like(TOKENS)}, Keys(KEYS, KEYS[0]), 0)
    assert (value, metrics["masked_accuracy"]) == (0, 0)


PLACE, FIRST = np.array([1, 2, 3, 7], np.int32), np.arange(4)


@jax.jit
def compiled_guesses(params, state, tokens):
    return masked_guesses(ENCODER, params, state, tokens, jnp.asarray(PLACE), best=3)


def guesses(*given):
    return jax.device_get(compiled_guesses(*given))


def test_guesses_of_a_model_that_knows_frequencies_alone_are_the_softmax_of_its_bias(trained):
    _, params, state = trained
    knows = {
        "encoder": params["encoder"] | {"embed": {"embedding": np.zeros((VOCABULARY, 8), np.float32)}},
        "head": params["head"] | {"bias": np.log(np.arange(1, VOCABULARY + 1, dtype=np.float32))},
    }
    found = guesses(knows, state, TOKENS[:4])
    total = VOCABULARY * (VOCABULARY + 1) / 2
    np.testing.assert_array_equal(found.token, [[VOCABULARY - 1, VOCABULARY - 2, VOCABULARY - 3]] * 4)
    np.testing.assert_allclose(found.probability, [np.array([50, 49, 48]) / total] * 4, rtol=1e-5)
    np.testing.assert_array_equal(found.truth, TOKENS[FIRST, PLACE])
    np.testing.assert_allclose(found.of_truth, (np.asarray(found.truth) + 1) / total, rtol=1e-5)


def test_guesses_do_not_see_the_token_that_is_hidden(trained):
    _, params, state = trained
    other = TOKENS[:4].copy()
    other[FIRST, PLACE] = SPECIAL_TOKENS
    one, two = guesses(params, state, TOKENS[:4]), guesses(params, state, other)
    np.testing.assert_array_equal(one.probability, two.probability)
    assert two.truth.tolist() == [SPECIAL_TOKENS] * 4 and one.truth.tolist() != two.truth.tolist()


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5])
def test_shares_that_hide_nothing_or_all_are_refused(share):
    with pytest.raises(ValueError, match=f"share must lie between 0 and 1, got {share}"):
        masked_lm(ENCODER, share=share)


def test_an_encoder_of_images_is_refused():
    with pytest.raises(ValueError, match="needs an encoder of tokens"):
        masked_lm(MLP())
