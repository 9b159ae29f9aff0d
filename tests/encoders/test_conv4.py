"""Conv4: shapes, both lowerings the same function of the same parameters, and synchronised statistics."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarep_jax.encoders import ENCODERS, EncoderConfig, input_kind, make_encoder
from metarep_jax.encoders.conv4 import Conv4

IMAGES = jax.random.uniform(jax.random.key(0), (8, 28, 28, 1))
INPUTS = {"images": IMAGES, "tokens": jnp.zeros((2, 9), jnp.int32), "waves": jnp.zeros((2, 800), jnp.int16)}


@pytest.mark.parametrize(
    ("downsample", "readout", "dim"),
    [("stride", "flatten", 256), ("stride", "mean", 64), ("pool", "flatten", 64), ("pool", "mean", 64)],
)
def test_features_have_the_sizes_of_the_papers(downsample, readout, dim):
    encoder = Conv4(downsample=downsample, readout=readout)
    found = jax.eval_shape(encoder.init_with_output, jax.random.key(0), IMAGES)
    assert found[0].shape == (8, dim)


@pytest.mark.parametrize("name", ENCODERS)
def test_parameters_have_the_same_names_whatever_the_lowering(name):
    config = EncoderConfig(name) if name == "log_mel" else EncoderConfig(name, width=8)
    inputs = INPUTS[input_kind(make_encoder(config))]
    made = [make_encoder(config, conv=conv) for conv in ("patches", "lax")]
    trees = [jax.eval_shape(encoder.init, jax.random.key(0), inputs) for encoder in made]
    assert jax.tree.structure(trees[0]) == jax.tree.structure(trees[1])
    assert jax.tree.leaves(trees[0]) == jax.tree.leaves(trees[1])


@pytest.mark.parametrize(
    "settings", [{}, {"downsample": "pool", "readout": "mean"}, {"norm": "group"}, {"norm": "none"}]
)
def test_both_lowerings_are_one_function_up_to_second_derivatives(settings):
    with jax.enable_x64(True):
        x = IMAGES.astype(jnp.float64)[:, :16, :16]
        mask = jnp.arange(8) < 6
        made = [Conv4(width=20, dtype=jnp.float64, conv=conv, **settings) for conv in ("patches", "lax")]
        variables = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), jax.jit(made[0].init)(jax.random.key(1), x))

        def everything(encoder):
            def loss(params):
                y, state = encoder.apply({**variables, "params": params}, x, mask, mutable=["batch_stats"])
                return jnp.sum(jnp.sin(y[:6])), state

            along = variables["params"]
            gradient, product, state = jax.jvp(jax.grad(loss, has_aux=True), (along,), (along,), has_aux=True)
            return gradient, product, state

        found = [jax.jit(partial(everything, encoder))() for encoder in made]
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-8, atol=1e-9), *found)


def test_synchronised_statistics_make_a_sharded_batch_one_batch():
    encoder, alone = Conv4(width=8, axis_name="devices"), Conv4(width=8)
    variables = jax.jit(alone.init)(jax.random.key(1), IMAGES)

    def features(encoder, x):
        return encoder.apply(variables, x, mutable=["batch_stats"])

    wanted, state = jax.jit(partial(features, alone))(IMAGES)
    for devices in (2, 4):
        mapped = jax.pmap(partial(features, encoder), axis_name="devices", devices=jax.devices()[:devices])
        found, states = mapped(IMAGES.reshape(devices, -1, 28, 28, 1))
        np.testing.assert_allclose(found.reshape(wanted.shape), wanted, rtol=1e-4, atol=1e-5)
        jax.tree.map(lambda ours, one: np.testing.assert_allclose(ours[-1], one, rtol=1e-4, atol=1e-6), states, state)


@pytest.mark.parametrize("setting", ["downsample", "readout"])
def test_an_unknown_setting_lists_those_that_exist(setting):
    with pytest.raises(ValueError, match=f"unknown {setting} 'none'; there are: "):
        Conv4(**{setting: "none"}).init(jax.random.key(0), IMAGES)


def test_images_that_four_pools_would_leave_empty_are_refused():
    with pytest.raises(ValueError, match="four max-pools need 16 pixels a side; given 14×28"):
        jax.eval_shape(Conv4(downsample="pool").init, jax.random.key(0), IMAGES[:, ::2])
