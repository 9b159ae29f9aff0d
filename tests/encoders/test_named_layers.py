"""Named layers of every encoder: which there are, that only those asked for are computed, and layers of one's own."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from metarep_jax.encoders import (
    ENCODERS,
    apply_with_layers,
    encoder_layers,
    input_kind,
    keep_layer,
    layer_names,
)
from metarep_jax.encoders.features import Whitened, fit_whitening, whitened_stats
from metarep_jax.encoders.mlp import MLP

INPUTS = {
    "images": jnp.asarray(np.random.default_rng(0).uniform(size=(4, 16, 16, 1)), jnp.float32),
    "tokens": jnp.asarray(np.full((2, 6), 7, np.int32)),
    "waves": jnp.asarray(np.ones((2, 500), np.int16)),
}
BLOCKS = ("block1", "block2", "block3", "block4")
STAGES = ("stem", "stage1", "stage2", "stage3", "stage4")
LAYERS = {
    "conv4": BLOCKS,
    "log_mel": (),
    "mlp": ("layer1", "layer2", "layer3", "layer4"),
    "patches": ("frames", "contexts"),
    "resnet12": BLOCKS,
    "resnet18": STAGES,
    "resnet34": STAGES,
    "resnet50": STAGES,
    "transformer": (*BLOCKS, "tokens"),
    "vit": (*BLOCKS, "tokens"),
    "waveform": ("frames", "contexts"),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_layers_are_named_in_the_order_of_the_computation(name):
    encoder = ENCODERS[name](**({} if name == "log_mel" else {"width": 8}))
    x = INPUTS[input_kind(encoder)]
    variables = jax.eval_shape(encoder.init, jax.random.key(0), x)
    assert not variables.keys() - {"params", "batch_stats"}
    assert layer_names(encoder, variables, x) == LAYERS[name]


@pytest.fixture(scope="module")
def perceptron():
    encoder, x = MLP(widths=(5, 4)), INPUTS["images"]
    return encoder, jax.jit(encoder.init)(jax.random.key(1), x), x


def test_one_pass_gives_features_layers_and_moved_statistics(perceptron):
    encoder, variables, x = perceptron
    names = []

    @jax.jit
    def one_pass(x, mask):
        features, layers, moved = apply_with_layers(encoder, variables, x, mask, names=("layer2", "layer1"))
        names.extend(layers)  # what leaves a traced function is sorted by name
        return features, layers, moved

    mask = np.array([True, True, True, False])
    features, layers, moved = one_pass(x, mask)
    wanted, updated = jax.jit(partial(encoder.apply, variables, mutable=["batch_stats"]))(x, mask)
    np.testing.assert_array_equal(features, wanted)
    np.testing.assert_array_equal(layers["layer2"], wanted)
    assert names == ["layer2", "layer1"] and layers["layer1"].shape == (4, 5)
    jax.tree.map(np.testing.assert_array_equal, moved, updated["batch_stats"])


def test_layers_in_use_are_normalised_by_running_averages(perceptron):
    encoder, variables, x = perceptron
    both = jax.jit(lambda x: (encoder_layers(encoder, variables, x)["layer2"], encoder.apply(variables, x, None, True)))
    np.testing.assert_array_equal(*both(x))


class Counting(nn.Module):
    """An encoder of a user's own, which counts how often each layer was asked for."""

    @nn.compact
    def __call__(self, x, mask=None, running=False):
        hidden = nn.Dense(3, name="hidden")(x)
        keep_layer(self, "hidden", lambda: CALLS.append("hidden") or hidden)
        out = nn.Dense(2)(hidden)
        keep_layer(self, "out", lambda: CALLS.append("out") or out)
        return out


CALLS: list[str] = []


def test_only_the_layers_asked_for_are_computed_also_in_an_encoder_of_ones_own():
    encoder, x = Counting(), jnp.asarray(np.ones((2, 4), np.float32))
    variables = jax.eval_shape(encoder.init, jax.random.key(0), x)
    jax.eval_shape(encoder.apply, variables, x)
    assert CALLS == []
    asked = partial(apply_with_layers, encoder, names=("hidden",))
    _, layers, moved = jax.eval_shape(asked, variables, x)
    assert CALLS == ["hidden"] and layers["hidden"].shape == (2, 3) and moved == {}
    assert layer_names(encoder, variables, x) == ("hidden", "out")


def test_a_layer_that_an_encoder_does_not_have_is_refused_with_those_that_it_has(perceptron):
    encoder, variables, x = perceptron
    with pytest.raises(ValueError, match="the encoder MLP has no layer 'block1'; it has: layer1, layer2"):
        jax.eval_shape(lambda x: encoder_layers(encoder, variables, x, names=("layer1", "block1")), x)


def test_layers_reach_through_whitened_features(perceptron):
    encoder, variables, x = perceptron

    @jax.jit
    def both(x):
        whitening = fit_whitening(encoder.apply(variables, x))
        stats = whitened_stats(variables["batch_stats"], whitening)
        layers = encoder_layers(Whitened(encoder), {**variables, "batch_stats": stats}, x, names=("layer1",))
        return layers["layer1"], encoder_layers(encoder, variables, x)["layer1"]

    np.testing.assert_array_equal(*both(x))
