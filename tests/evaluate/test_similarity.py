"""Linear CKA: its invariances, and what adaptation and training do to it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarep_jax.encoders.conv4 import Conv4
from metarep_jax.encoders.mlp import MLP
from metarep_jax.evaluate.similarity import (
    adaptation_similarity,
    layer_outputs,
    linear_cka,
    variables_similarity,
)
from metarep_jax.metalearn.maml import maml
from metarep_jax.metalearn.prototypical import prototypical
from metarep_jax.types import Context, Episode, Examples

X, Y = np.random.default_rng(0).standard_normal((2, 30, 4)).astype(np.float32)
WAY = 3


def test_cka_is_the_normalised_square_of_the_cross_covariance():
    x, y = (rows - rows.mean(0) for rows in (X.astype(np.float64), Y.astype(np.float64)))
    wanted = np.sum((y.T @ x) ** 2) / np.linalg.norm(x.T @ x) / np.linalg.norm(y.T @ y)
    assert float(linear_cka(X, Y)) == pytest.approx(wanted, rel=1e-5)


def test_rotation_scale_and_shift_leave_it_and_a_linear_map_does_not():
    rotation = np.linalg.qr(np.random.default_rng(1).standard_normal((4, 4)))[0].astype(np.float32)
    assert float(linear_cka(X, 3 * X @ rotation + 7)) == pytest.approx(1, abs=1e-5)
    assert float(linear_cka(X, Y)) == pytest.approx(float(linear_cka(1e12 * Y @ rotation, X)), rel=1e-4)
    assert float(linear_cka(X, X @ np.diag(np.array([9, 1, 1, 1], np.float32)))) < 0.9


def test_a_representation_that_does_not_vary_gives_zero():
    assert float(linear_cka(X, np.ones((30, 2), np.float32))) == 0


def test_layers_are_kept_in_order_and_end_in_the_features():
    encoder, inputs = Conv4(width=2), jnp.asarray(np.random.default_rng(0).uniform(size=(3, 16, 16, 1)), jnp.float32)
    variables = jax.jit(encoder.init)(jax.random.key(1), inputs)
    assert "intermediates" not in variables
    layers = layer_outputs(encoder, variables, inputs)
    assert {name: rows.shape for name, rows in layers.items()} == {
        "block1": (3, 128), "block2": (3, 32), "block3": (3, 8), "block4": (3, 2)
    }  # fmt: skip
    features, _ = jax.jit(partial(encoder.apply, mutable=["batch_stats"]))(variables, inputs)
    np.testing.assert_allclose(layers["block4"], features, rtol=1e-6)


@pytest.fixture(scope="module")
def setting():
    encoder = MLP(widths=(6, 5))
    learner = maml(encoder, way=WAY, inner_lr=0.5, inner_steps=1, test_steps=2)
    label, draw = jnp.asarray(np.repeat(np.arange(WAY, dtype=np.int32), 4)), np.random.default_rng(0).standard_normal
    episode = Episode(*(Examples(jnp.asarray(draw((12, 4)), jnp.float32), label) for _ in range(2)))
    params, state = jax.jit(learner.init)(jax.random.key(2), episode)
    params["head"]["kernel"] = jnp.asarray(draw(params["head"]["kernel"].shape), jnp.float32)
    compiled = {name: jax.jit(getattr(learner, name), static_argnames="ctx") for name in ("adapt", "predict")}
    return encoder, learner._replace(**compiled), params, state, episode


def test_without_inner_steps_every_layer_is_itself(setting):
    encoder, learner, params, state, episode = setting
    found = adaptation_similarity(learner, encoder, params, state, episode, jax.random.key(0), Context(inner_steps=0))
    assert list(found) == ["layer1", "layer2", "head"]
    np.testing.assert_allclose(list(found.values()), 1, atol=1e-5)


def test_adaptation_moves_the_layers_as_their_outputs_say(setting):
    encoder, learner, params, state, episode = setting
    found = adaptation_similarity(learner, encoder, params, state, episode, jax.random.key(0))
    ctx = learner.test_context
    fast = learner.adapt(params, state, episode.support, jax.random.key(0), ctx)["fast"]
    apply = jax.jit(partial(encoder.apply, mutable=["batch_stats"]))
    outputs = [apply({"params": at["encoder"]}, episode.query.inputs)[0] for at in (params, fast)]
    assert float(found["layer2"]) == pytest.approx(float(linear_cka(*outputs)), rel=1e-4)
    assert all(0 < float(value) < 0.9999 for value in found.values())


def test_a_learner_without_fast_weights_is_refused(setting):
    encoder, _, params, state, episode = setting
    learner = prototypical(encoder, way=WAY)
    compared = partial(adaptation_similarity, learner, encoder, params, state, episode, ctx=Context())
    with pytest.raises(ValueError, match="adapts no weights"):
        jax.eval_shape(lambda key: compared(key=key), jax.random.key(0))


def test_the_same_variables_are_alike_and_others_are_not(setting):
    encoder, _, params, state, episode = setting
    trained = {"params": params["encoder"], "batch_stats": state["encoder"]}
    other = jax.jit(encoder.init)(jax.random.key(9), episode.query.inputs)
    same = variables_similarity(encoder, trained, trained, episode.query.inputs)
    np.testing.assert_allclose(list(same.values()), 1, atol=1e-5)
    assert float(variables_similarity(encoder, trained, other, episode.query.inputs)["layer2"]) < 0.95
