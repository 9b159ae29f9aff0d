"""Meta-Curvature: its products against explicit matrices, its limits, its directions."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import (
    WAY,
    adapted,
    check_meta_gradient,
    check_refused,
    classification,
    compiled,
    like,
    one_gradient,
    regression,
    start,
)

from metarep_jax.encoders.conv4 import Conv4
from metarep_jax.encoders.features import Identity
from metarep_jax.encoders.mlp import MLP
from metarep_jax.metalearn.maml import maml
from metarep_jax.metalearn.meta_curvature import identities, meta_curvature, multiply_modes
from metarep_jax.types import Context, EpisodeSpec, episode_of

ENCODER = MLP(widths=(5,))
SHAPES = [(4,), (3, 4), (3, 3, 2, 4), ()]


def multiplied(gradient, matrices):
    return compiled(multiply_modes)(gradient, matrices)


def noise(shape):
    """A gradient of that shape, and a matrix for each of its modes."""
    gradient = like(np.zeros(shape, np.float32), 0)
    return gradient, like(jax.eval_shape(identities, gradient), 1)


def test_at_the_identity_it_is_maml():
    learner = meta_curvature(ENCODER, way=WAY, inner_lr=0.3, inner_steps=2, mixed=True, remat=True)
    episode = classification()
    params, state = start(learner, episode)
    weights = {"encoder": params["encoder"], "head": params["head"]}
    params["rule"] = {"curvature": compiled(lambda: jax.tree.map(identities, weights))()}
    found = one_gradient(learner, params, state, episode)
    method = maml(ENCODER, way=WAY, inner_lr=0.3, inner_steps=2)
    wanted = one_gradient(method, weights, state, episode)
    grads = {"encoder": found[0]["encoder"], "head": found[0]["head"]}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), (grads, *found[1:]), wanted)


@pytest.mark.parametrize("shape", SHAPES)
def test_products_along_modes_are_the_kronecker_product_of_the_matrices(shape):
    gradient, matrices = noise(shape)
    whole = np.eye(1)
    for mode in ("filter", "in", "out"):  # in the order of the axes
        whole = np.kron(whole, matrices.get(mode, np.eye(1)))
    assert whole.shape == (math.prod(shape),) * 2
    wanted = (whole @ np.ravel(gradient)).reshape(shape)
    np.testing.assert_allclose(multiplied(gradient, matrices), wanted, rtol=1e-4, atol=1e-5)


def test_every_layer_has_a_matrix_for_each_mode_that_it_has():
    learner = meta_curvature(Conv4(width=8), way=5)
    spec = EpisodeSpec(way=5, shot=1, query=1)
    params, _ = jax.eval_shape(lambda: learner.init(jax.random.key(0), episode_of(spec, jnp.zeros((1, 28, 28, 1)))))
    curvature = jax.tree.map(lambda leaf: leaf.shape, params["rule"]["curvature"])
    assert curvature["encoder"]["Conv_0"]["kernel"] == {"filter": (9, 9), "in": (1, 1), "out": (8, 8)}
    assert curvature["encoder"]["Conv_1"]["kernel"] == {"filter": (9, 9), "in": (8, 8), "out": (8, 8)}
    assert curvature["encoder"]["Norm_0"]["scale"] == {"out": (8, 8)}
    assert curvature["head"] == {"kernel": {"in": (32, 32), "out": (5, 5)}, "bias": {"out": (5, 5)}}


@pytest.mark.parametrize("shape", SHAPES)
def test_positive_definite_matrices_give_a_direction_of_descent(shape):
    gradient, roots = noise(shape)
    matrices = {mode: root @ root.T + 0.1 * np.eye(len(root), dtype=np.float32) for mode, root in roots.items()}
    smallest = math.prod(np.linalg.eigvalsh(matrix)[0] for matrix in matrices.values())
    slope = np.vdot(gradient, multiplied(gradient, matrices))
    assert slope >= 0.99 * smallest * np.vdot(gradient, gradient) > 0


def test_the_inverse_curvature_of_a_linear_regression_is_newtons_step():
    """With M_i = ((2/n) XᵀX)⁻¹ and α = 1 one step reaches the least squares from anywhere."""
    learner, episode = meta_curvature(Identity(), way=1, inner_lr=1.0, output="mean"), regression()
    params, state = start(learner, episode)
    x = np.asarray(episode.support.inputs)
    params["head"]["bias"] = jnp.array([0.0])
    kernel = {"in": jnp.asarray(np.linalg.inv(2 / len(x) * x.T @ x)), "out": jnp.array([[1.0]])}
    params["rule"] = {"curvature": {"encoder": {}, "head": {"kernel": kernel, "bias": {"out": jnp.array([[0.0]])}}}}
    task, _ = adapted(learner, params, state, episode, Context(inner_steps=1))
    np.testing.assert_allclose(task["fast"]["head"]["kernel"], [[1.0], [-2.0]], rtol=1e-4)


def test_the_meta_gradient_is_the_finite_difference():
    encoder = MLP(widths=(5,), dtype=jnp.float64)
    check_meta_gradient(meta_curvature(encoder, way=WAY, inner_lr=0.3, inner_steps=2), classification())


def test_tasks_that_do_not_fit_are_refused():
    learner = meta_curvature(ENCODER, way=1, output="mean")
    check_refused(learner, classification(), r"Meta-Curvature takes regression: .*; this task is classification")
