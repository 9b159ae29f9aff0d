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
TOKENS = jax.random.randint(jax.random.key(0), (ROWS, LENGTH), SPECIAL_TOKENS, VOCABULARY).at[:, 0].set(2)
KEYS = jax.random.split(jax.random.key(1), ROWS)
ENCODER = TextTransformer(VOCABULARY, width=8, depth=1, heads=2, longest=LENGTH)


def hide(tokens=TOKENS, keys=KEYS, share=0.15):
    return jax.jit(mask_tokens, static_argnums=(2, 3))(keys, tokens, share, VOCABULARY)


@pytest.fixture(scope="module")
def trained():
    """The objective with its loss compiled, and parameters."""
    objective = masked_lm(ENCODER, share=0.2)
    params, state = jax.jit(objective.init)(jax.random.key(2), {"inputs": TOKENS[:2]})
    return jax.jit(objective.loss), params, state


def test_every_row_has_its_share_of_tokens_chosen_and_none_twice():
    masked = hide()
    assert (masked.counts.sum(1) == round(0.15 * (LENGTH - 1))).all()
    for place, counts in zip(np.asarray(masked.place), np.asarray(masked.counts)):
        assert len(set(place[counts])) == counts.sum()


def test_padding_and_special_tokens_are_never_chosen():
    tokens = TOKENS[:8].at[0, 11:].set(0).at[1, 2:].set(0).at[2].set(0).at[3, 5].set(3)
    masked = hide(tokens, KEYS[:8])
    assert masked.counts.sum(1)[:3].tolist() == [round(0.15 * 10), 1, 0]  # at least one, where there is any
    chosen = jnp.take_along_axis(tokens, masked.place, axis=1)
    assert (chosen[masked.counts] >= SPECIAL_TOKENS).all()
    np.testing.assert_array_equal(masked.inputs[tokens < SPECIAL_TOKENS], tokens[tokens < SPECIAL_TOKENS])


def test_of_the_chosen_tokens_eight_tenths_are_masked_one_random_and_one_kept():
    masked = hide()
    chosen = np.zeros((ROWS, LENGTH), bool)
    np.put_along_axis(chosen, np.asarray(masked.place), np.asarray(masked.counts), axis=1)
    np.testing.assert_array_equal(masked.inputs[~chosen], TOKENS[~chosen])
    before, after = np.asarray(TOKENS)[chosen], np.asarray(masked.inputs)[chosen]
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
    encoder = params["encoder"] | {"embed": {"embedding": jnp.zeros((VOCABULARY, 8))}}
    value, _ = loss(params | {"encoder": encoder}, state, {"inputs": TOKENS}, Keys(KEYS, KEYS[0]), 0)
    assert value == pytest.approx(np.log(VOCABULARY), rel=1e-5)


def test_accuracy_counts_the_chosen_tokens_alone(trained):
    loss, params, state = trained
    word, tokens = 7, TOKENS.at[:, 20:].set(0)
    always = params["head"] | {"bias": jnp.zeros(VOCABULARY).at[word].set(1e4)}
    _, (_, metrics) = loss(params | {"head": always}, state, {"inputs": tokens}, Keys(KEYS, KEYS[0]), 0)
    masked = hide(tokens, share=0.2)
    chosen = jnp.take_along_axis(tokens, masked.place, axis=1)[masked.counts]
    assert len(chosen) == ROWS * round(0.2 * 19)
    assert metrics["masked_accuracy"] == pytest.approx(float(jnp.mean(chosen == word)), rel=1e-6)


def test_hidden_tokens_reach_the_loss_as_targets_alone(trained):
    loss, params, state = trained
    keys = Keys(KEYS, KEYS[0])
    masked = hide(share=0.2)
    certain = jnp.take_along_axis(masked.inputs, masked.place, axis=1) == MASK_TOKEN
    assert certain.any(1).all()
    first = jnp.argmax(certain & masked.counts, axis=1)
    place = jnp.take_along_axis(masked.place, first[:, None], axis=1)[:, 0]
    other = TOKENS.at[jnp.arange(ROWS), place].set(5 + (TOKENS[jnp.arange(ROWS), place] + 1 - 5) % 45)
    np.testing.assert_array_equal(hide(other, share=0.2).inputs, masked.inputs)
    assert loss(params, state, {"inputs": other}, keys, 0)[0] != loss(params, state, {"inputs": TOKENS}, keys, 0)[0]


def test_a_text_without_tokens_of_its_own_loses_nothing(trained):
    loss, params, state = trained
    value, (_, metrics) = loss(params, state, {"inputs": jnp.zeros_like(TOKENS)}, Keys(KEYS, KEYS[0]), 0)
    assert (value, metrics["masked_accuracy"]) == (0, 0)


PLACE, FIRST = jnp.array([1, 2, 3, 7]), jnp.arange(4)
guesses = jax.jit(lambda params, state, tokens: masked_guesses(ENCODER, params, state, tokens, PLACE, best=3))


def test_guesses_of_a_model_that_knows_frequencies_alone_are_the_softmax_of_its_bias(trained):
    _, params, state = trained
    knows = {
        "encoder": params["encoder"] | {"embed": {"embedding": jnp.zeros((VOCABULARY, 8))}},
        "head": params["head"] | {"bias": jnp.log(jnp.arange(1.0, VOCABULARY + 1))},
    }
    found = guesses(knows, state, TOKENS[:4])
    total = VOCABULARY * (VOCABULARY + 1) / 2
    np.testing.assert_array_equal(found.token, [[VOCABULARY - 1, VOCABULARY - 2, VOCABULARY - 3]] * 4)
    np.testing.assert_allclose(found.probability, [np.array([50, 49, 48]) / total] * 4, rtol=1e-5)
    np.testing.assert_array_equal(found.truth, TOKENS[FIRST, PLACE])
    np.testing.assert_allclose(found.of_truth, (np.asarray(found.truth) + 1) / total, rtol=1e-5)


def test_guesses_do_not_see_the_token_that_is_hidden(trained):
    _, params, state = trained
    other = TOKENS[:4].at[FIRST, PLACE].set(SPECIAL_TOKENS)
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
