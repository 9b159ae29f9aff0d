"""Transformers: what padding, positions and order may change, and what they may not."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarep_jax.encoders import EncoderConfig, make_encoder
from metarep_jax.encoders.transformer import Block, TextTransformer, read_out, sincos
from metarep_jax.encoders.vision_transformer import VisionTransformer, grid_positions, patchify
from metarep_jax.evaluate.similarity import layer_outputs

TOKENS = np.random.default_rng(0).integers(5, 20, (3, 6)).astype(np.int32)
TOKENS[1, 4:] = 0


@cache
def text(**changed):
    encoder = TextTransformer(**{"vocabulary": 20, "width": 8, "depth": 1, "heads": 2, "longest": 12} | changed)
    return encoder, jax.jit(encoder.init)(jax.random.key(1), TOKENS)


def images(*shape):
    return np.random.default_rng(5).uniform(size=shape).astype(np.float32)


def normal(*shape):
    return np.random.default_rng(2).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("readout", ["mean", "cls", "first_last"])
@pytest.mark.parametrize("positions", ["learned", "sincos"])
def test_more_padding_changes_nothing(readout, positions):
    encoder, variables = text(readout=readout, positions=positions)
    padded = np.pad(TOKENS, ((0, 0), (0, 5)))
    both = jax.jit(lambda *rows: [encoder.apply(variables, each) for each in rows])
    np.testing.assert_allclose(*both(padded, TOKENS), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("positions", "equivariant"), [("none", True), ("learned", False)])
def test_without_positions_reordered_tokens_give_reordered_states(positions, equivariant):
    encoder, variables = text(positions=positions)
    states = jax.jit(lambda tokens: encoder.apply(variables, tokens, method="states"))
    order = np.array([3, 0, 5, 1, 4, 2])
    row = TOKENS[:1]
    same = np.allclose(states(row[:, order]), np.asarray(states(row))[:, order], rtol=1e-4, atol=1e-5)
    assert same == equivariant


def test_a_row_of_padding_alone_has_zero_features():
    encoder, variables = text()
    assert not np.asarray(jax.jit(encoder.apply)(variables, np.zeros((2, 6), np.int32))).any()


def test_features_are_means_over_words_and_of_the_first_and_the_last_layer():
    tokens = np.array([[2, 7, 9, 3, 0]])  # [CLS], two words, [SEP], padding
    (encoder, variables), (means, _) = text(readout="first_last"), text(readout="mean")

    @jax.jit
    def outputs(tokens):
        layers = [encoder.apply(variables, tokens, method=what) for what in ("embedded", "states")]
        return *layers, encoder.apply(variables, tokens), means.apply(variables, tokens)

    first, last, both, mean = map(np.asarray, outputs(tokens))
    first, last = first[:, 1:3], last[:, 1:3]
    np.testing.assert_allclose(both, (first + last).mean(1) / 2, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(mean, last.mean(1), rtol=1e-5, atol=1e-6)


def test_a_block_whose_branches_end_in_zero_is_the_identity():
    x = normal(2, 5, 8)
    block = Block(heads=2)
    params, apply = jax.jit(block.init)(jax.random.key(3), x)["params"], jax.jit(block.apply)
    ends = ("out", "Dense_1")  # of the attention, and of the MLP
    zeroed = jax.tree_util.tree_map_with_path(
        lambda path, leaf: np.zeros_like(leaf) if any(part.key in ends for part in path) else leaf, params
    )
    np.testing.assert_array_equal(apply({"params": zeroed}, x), x)
    assert not np.allclose(apply({"params": params}, x), x)


def test_scores_are_inner_products_with_the_embedding():
    encoder, variables = text()
    states = normal(2, 8)
    wanted = states @ np.asarray(variables["params"]["embed"]["embedding"]).T
    scores = jax.jit(partial(encoder.apply, method="scores"))
    np.testing.assert_allclose(scores(variables, states), wanted, rtol=1e-5, atol=1e-6)


def test_inner_products_of_sincos_depend_on_the_distance_alone():
    places = np.asarray(jax.jit(sincos, static_argnums=1)(np.arange(30), 16), np.float64)
    gram = places @ places.T
    for distance in (0, 1, 7):
        band = np.diagonal(gram, distance)
        np.testing.assert_allclose(band, band[0], atol=1e-4)
    assert gram[0, 0] == pytest.approx(8)


def test_patches_are_squares_row_by_row():
    image = np.arange(4 * 6 * 2, dtype=np.float32).reshape(1, 4, 6, 2)
    patches, places = map(np.asarray, jax.jit(lambda image: (patchify(image, 2), grid_positions((4, 6), 2, 8)))(image))
    assert patches.shape == (1, 6, 8)
    np.testing.assert_array_equal(patches[0, 4], image[0, 2:4, 2:4].reshape(-1))
    np.testing.assert_array_equal(places[4, :4], places[5, :4])  # the same row
    np.testing.assert_array_equal(places[4, 4:], places[1, 4:])  # the same column


@pytest.mark.parametrize("readout", ["mean", "cls"])
def test_visible_patches_may_come_in_any_order(readout):
    encoder = VisionTransformer(patch=4, width=8, depth=1, heads=2, readout=readout)

    @jax.jit
    def both(x, order):
        whole, variables = encoder.init_with_output(jax.random.key(6), x)
        return read_out(encoder.apply(variables, x, order, method="states"), None, readout), whole

    reordered, whole = both(images(2, 8, 8, 1), np.array([[2, 0, 3, 1], [1, 3, 0, 2]]))
    np.testing.assert_allclose(reordered, whole, rtol=1e-4, atol=1e-6)


def test_computation_is_of_the_dtype_asked_for_and_parameters_stay_float32():
    config = EncoderConfig(name="vit", width=8, depth=1, heads=2)
    encoder = make_encoder(config, dtype=jnp.bfloat16)
    images = np.zeros((2, 8, 8, 1), np.uint8)
    variables = jax.eval_shape(encoder.init, jax.random.key(7), images)
    assert jax.eval_shape(encoder.apply, variables, images).dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


def test_blocks_are_kept_as_layers():
    encoder, variables = text(depth=2)
    names = []
    jax.eval_shape(lambda tokens: names.extend(layer_outputs(encoder, variables, tokens)), TOKENS)
    assert names == ["block1", "block2", "tokens"]


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
    image = images(1, 8, 8, 1)  # a bfloat16 has 8 binary digits
    variables = jax.jit(encoder.init)(jax.random.key(6), image)
    patches = jax.jit(lambda image: (encoder.apply(variables, image, method="patches"), patchify(image, 4)))
    np.testing.assert_array_equal(*patches(image))
    assert jax.eval_shape(partial(encoder.apply, method="states"), variables, image).dtype == jnp.bfloat16


def test_patches_that_do_not_fill_the_image_are_refused():
    with pytest.raises(ValueError, match="patches of 5×5 pixels do not divide images of 8×8"):
        jax.eval_shape(partial(patchify, patch=5), np.zeros((1, 8, 8, 1)))


def test_learned_positions_are_one_a_patch_and_fix_the_size_of_images():
    encoder = VisionTransformer(patch=4, width=8, depth=1, heads=2, positions="learned", readout="cls")
    images = np.ones((1, 8, 12, 1), np.float32)  # all patches alike
    states, variables = jax.jit(partial(encoder.init_with_output, method="states"))(jax.random.key(6), images)
    assert variables["params"]["position"].shape == (6, 8)
    assert not np.allclose(np.asarray(states)[0, 1], np.asarray(states)[0, 2], atol=1e-4)
    some = jax.eval_shape(partial(encoder.apply, method="states"), variables, images, np.array([[4, 1]]))
    assert some.shape == (1, 3, 8)
    with pytest.raises(
        ValueError, match="learned positions of 6 patches, but images of 8×8 pixels have 4 of 4×4; set --"
    ):
        jax.eval_shape(encoder.apply, variables, images[:, :, :8])


def test_exact_gelu_differs_from_its_tanh_form_by_less_than_a_thousandth():
    @jax.jit
    def both(x):
        tanh, params = Block(heads=2).init_with_output(jax.random.key(3), x)
        return tanh, Block(heads=2, gelu="exact").apply(params, x)

    tanh, exact = map(np.asarray, both(normal(2, 5, 8)))
    assert 1e-6 < np.abs(tanh - exact).max() < 1e-3
