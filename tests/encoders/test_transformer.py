"""Transformers: what padding, positions and order may change, and what they may not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarep_jax.encoders import EncoderConfig, make_encoder
from metarep_jax.encoders.transformer import (
    Block,
    TextTransformer,
    VisionTransformer,
    grid_positions,
    patchify,
    read_out,
    sincos,
)
from metarep_jax.evaluate.similarity import layer_outputs

TOKENS = jax.random.randint(jax.random.key(0), (3, 6), 5, 20).at[1, 4:].set(0)


def text(**changed):
    encoder = TextTransformer(**{"vocabulary": 20, "width": 8, "depth": 2, "heads": 2, "longest": 12} | changed)
    return encoder, jax.jit(encoder.init)(jax.random.key(1), TOKENS)


@pytest.mark.parametrize("readout", ["mean", "cls", "first_last"])
@pytest.mark.parametrize("positions", ["learned", "sincos"])
def test_more_padding_changes_nothing(readout, positions):
    encoder, variables = text(readout=readout, positions=positions)
    features = jax.jit(encoder.apply)
    padded = jnp.pad(TOKENS, ((0, 0), (0, 5)))
    np.testing.assert_allclose(features(variables, padded), features(variables, TOKENS), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("positions", "equivariant"), [("none", True), ("learned", False)])
def test_without_positions_reordered_tokens_give_reordered_states(positions, equivariant):
    encoder, variables = text(positions=positions)
    states = jax.jit(lambda tokens: encoder.apply(variables, tokens, method="states"))
    order = jnp.array([3, 0, 5, 1, 4, 2])
    row = TOKENS[:1]
    same = np.allclose(states(row[:, order]), states(row)[:, order], rtol=1e-4, atol=1e-5)
    assert same == equivariant


def test_a_row_of_padding_alone_has_zero_features():
    encoder, variables = text()
    assert not np.any(jax.jit(encoder.apply)(variables, jnp.zeros((2, 6), jnp.int32)))


def test_features_are_means_over_words_and_of_the_first_and_the_last_layer():
    tokens = jnp.array([[2, 7, 9, 3, 0]])  # [CLS], two words, [SEP], padding
    encoder, variables = text(readout="first_last")
    first, last = (encoder.apply(variables, tokens, method=what)[:, 1:3] for what in ("embedded", "states"))
    wanted = (first + last).mean(1) / 2
    np.testing.assert_allclose(encoder.apply(variables, tokens), wanted, rtol=1e-5, atol=1e-6)
    encoder, _ = text(readout="mean")
    np.testing.assert_allclose(encoder.apply(variables, tokens), last.mean(1), rtol=1e-5, atol=1e-6)


def test_a_block_whose_branches_end_in_zero_is_the_identity():
    x = jax.random.normal(jax.random.key(2), (2, 5, 8))
    block = Block(heads=2)
    params = jax.jit(block.init)(jax.random.key(3), x)["params"]
    ends = ("out", "Dense_1")  # of the attention, and of the MLP
    zeroed = jax.tree_util.tree_map_with_path(
        lambda path, leaf: 0 * leaf if any(part.key in ends for part in path) else leaf, params
    )
    np.testing.assert_array_equal(jax.jit(block.apply)({"params": zeroed}, x), x)
    assert not np.allclose(jax.jit(block.apply)({"params": params}, x), x)


def test_scores_are_inner_products_with_the_embedding():
    encoder, variables = text()
    states = jax.random.normal(jax.random.key(4), (2, 8))
    wanted = states @ variables["params"]["embed"]["embedding"].T
    np.testing.assert_allclose(encoder.apply(variables, states, method="scores"), wanted, rtol=1e-5, atol=1e-6)


def test_inner_products_of_sincos_depend_on_the_distance_alone():
    places = np.asarray(sincos(jnp.arange(30), 16), np.float64)
    gram = places @ places.T
    for distance in (0, 1, 7):
        band = np.diagonal(gram, distance)
        np.testing.assert_allclose(band, band[0], atol=1e-4)
    assert gram[0, 0] == pytest.approx(8)


def test_patches_are_squares_row_by_row():
    image = jnp.arange(4 * 6 * 2.0).reshape(1, 4, 6, 2)
    patches = patchify(image, 2)
    assert patches.shape == (1, 6, 8)
    np.testing.assert_array_equal(patches[0, 4], image[0, 2:4, 2:4].reshape(-1))
    places = grid_positions((4, 6), 2, 8)
    np.testing.assert_array_equal(places[4, :4], places[5, :4])  # the same row
    np.testing.assert_array_equal(places[4, 4:], places[1, 4:])  # the same column


@pytest.mark.parametrize("readout", ["mean", "cls"])
def test_visible_patches_may_come_in_any_order(readout):
    encoder = VisionTransformer(patch=4, width=8, depth=1, heads=2, readout=readout)
    images = jax.random.uniform(jax.random.key(5), (2, 8, 8, 1))
    variables = jax.jit(encoder.init)(jax.random.key(6), images)
    order = jnp.array([[2, 0, 3, 1], [1, 3, 0, 2]])
    states = jax.jit(lambda order: encoder.apply(variables, images, order, method="states"))
    whole = jax.jit(encoder.apply)(variables, images)
    np.testing.assert_allclose(read_out(states(order), None, readout), whole, rtol=1e-4, atol=1e-6)


def test_computation_is_of_the_dtype_asked_for_and_parameters_stay_float32():
    config = EncoderConfig(name="vit", width=8, depth=1, heads=2)
    encoder = make_encoder(config, dtype=jnp.bfloat16)
    images = jnp.zeros((2, 8, 8, 1), jnp.uint8)
    variables = jax.jit(encoder.init)(jax.random.key(7), images)
    assert jax.eval_shape(encoder.apply, variables, images).dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


def test_blocks_are_kept_as_layers():
    encoder, variables = text()
    assert list(layer_outputs(encoder, variables, TOKENS)) == ["block1", "block2", "tokens"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"heads": 3}, "width 8 cannot be split into 3 heads"),
        ({"readout": "last"}, "unknown readout 'last'; there are: mean, cls"),
        ({"positions": "rotary"}, "unknown positions 'rotary'"),
        ({"longest": 5}, "rows of 6 tokens, but the encoder has 5 learned positions"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        text(**changed)


def test_patches_keep_their_pixels_where_the_computation_is_in_half_precision():
    encoder = VisionTransformer(patch=4, width=8, depth=1, heads=2, dtype=jnp.bfloat16)
    image = jax.random.uniform(jax.random.key(5), (1, 8, 8, 1))  # a bfloat16 has 8 binary digits
    variables = jax.jit(encoder.init)(jax.random.key(6), image)
    np.testing.assert_array_equal(encoder.apply(variables, image, method="patches"), patchify(image, 4))
    assert encoder.apply(variables, image, method="states").dtype == jnp.bfloat16


def test_patches_that_do_not_fill_the_image_are_refused():
    with pytest.raises(ValueError, match="patches of 5×5 pixels do not divide images of 8×8"):
        patchify(jnp.zeros((1, 8, 8, 1)), 5)


def test_learned_positions_are_one_a_patch_and_fix_the_size_of_images():
    encoder = VisionTransformer(patch=4, width=8, depth=1, heads=2, positions="learned", readout="cls")
    images = jnp.ones((1, 8, 12, 1))  # all patches alike
    variables = jax.jit(encoder.init)(jax.random.key(6), images)
    assert variables["params"]["position"].shape == (6, 8)
    states = jax.jit(lambda images: encoder.apply(variables, images, method="states"))(images)
    assert not np.allclose(states[0, 1], states[0, 2], atol=1e-4)
    some = encoder.apply(variables, images, jnp.array([[4, 1]]), method="states")
    assert some.shape == (1, 3, 8)
    with pytest.raises(
        ValueError, match="learned positions of 6 patches, but images of 8×8 pixels have 4 of 4×4; set --"
    ):
        encoder.apply(variables, images[:, :, :8])


def test_exact_gelu_differs_from_its_tanh_form_by_less_than_a_thousandth():
    x = jax.random.normal(jax.random.key(2), (2, 5, 8))
    blocks = Block(heads=2), Block(heads=2, gelu="exact")
    params = jax.jit(blocks[0].init)(jax.random.key(3), x)
    tanh, exact = (block.apply(params, x) for block in blocks)
    assert 1e-6 < np.abs(tanh - exact).max() < 1e-3
