"""iMAML: the derivative of a regularised minimum, whatever way led there."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import (
    WAY,
    check_meta_gradient,
    classification,
    compiled,
    furthest,
    one,
    one_gradient,
    regression,
    start,
)

from metarep_jax.encoders.features import Identity
from metarep_jax.encoders.mlp import MLP
from metarep_jax.metalearn.imaml import imaml
from metarep_jax.metalearn.maml import maml
from metarep_jax.metalearn.meta_gradient import meta_gradient
from metarep_jax.types import Context, Keys

PROXIMAL, GIVEN = 0.5, regression()


@functools.cache
def quadratic(**how):
    """Linear regression: three weights, so that three iterations of conjugate gradients are exact."""
    how = {"inner_lr": 0.2, "inner_steps": 100, "proximal": PROXIMAL, "cg_steps": 3, **how}
    return imaml(Identity(), way=1, output="mean", **how)


@functools.cache
def head_gradient(cg_steps):
    """The meta-gradient of the three weights, and the loss, on a task and parameters that are always the same."""
    grads, _, metrics = one_gradient(quadratic(cg_steps=cg_steps), *start(quadratic(), GIVEN), GIVEN)
    return np.concatenate([grads["head"]["kernel"], grads["head"]["bias"][None]]), metrics["loss"]


def columns(examples):
    x = np.asarray(examples.inputs, np.float64)
    return np.concatenate([x, np.ones((len(x), 1))], 1), np.asarray(examples.label, np.float64)


def closed_form(params, given):
    """φ* = (H + λI)⁻¹ (2/n Xᵀy + λθ), and the meta-gradient λ (H + λI)⁻¹ ∇L_query(φ*), where H = 2/n XᵀX."""
    theta = np.concatenate([np.asarray(params["head"]["kernel"]), np.asarray(params["head"]["bias"])[None]])
    (x, y), (xq, yq) = columns(given.support), columns(given.query)
    system = 2 / len(x) * x.T @ x + PROXIMAL * np.eye(3)
    best = np.linalg.solve(system, 2 / len(x) * x.T @ y + PROXIMAL * theta)
    return best, PROXIMAL * np.linalg.solve(system, 2 / len(xq) * xq.T @ (xq @ best - yq))


def test_on_linear_regression_the_minimum_and_the_meta_gradient_have_their_closed_forms():
    best, wanted = closed_form(start(quadratic(), GIVEN)[0], GIVEN)
    found, loss = head_gradient(3)
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    xq, yq = columns(GIVEN.query)
    assert float(loss) == pytest.approx(float(np.mean((xq @ best - yq) ** 2)), rel=1e-4)


def test_each_iteration_of_conjugate_gradients_comes_nearer_to_the_meta_gradient():
    _, wanted = closed_form(start(quadratic(), GIVEN)[0], GIVEN)
    errors = [np.linalg.norm(head_gradient(steps)[0] - wanted) / np.linalg.norm(wanted) for steps in (1, 2, 3)]
    assert errors[0] > errors[1] > 1e-3 > 1e-4 > errors[2]


def test_the_meta_gradient_is_the_finite_difference_where_both_solvers_have_converged():
    encoder = MLP(widths=(6, 5), dtype=jnp.float64, norm="none")  # with batch norm this task's minimum is at a kink
    check_meta_gradient(imaml(encoder, way=WAY, inner_lr=0.1, inner_steps=200, cg_steps=60), classification(), seed=4)


def test_tasks_side_by_side_are_the_tasks_one_by_one():
    method = quadratic()
    given = [regression(0), regression(1, weights=((0.5,), (1.0,)))]
    params, state = start(method, given[0])
    keys = Keys(jax.random.split(jax.random.key(0), 2), jax.random.key(0))
    episodes = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *given)
    grads, *_ = compiled(meta_gradient(method, 2))(params, state, episodes, keys, 0)
    wanted = np.mean([closed_form(params, task)[1] for task in given], 0)
    np.testing.assert_allclose(grads["head"]["kernel"], wanted[:2], rtol=1e-4)


def temporary_bytes(method):
    """Memory of one compiled meta-gradient of one task."""
    given = classification()
    params, state = jax.eval_shape(lambda: method.init(jax.random.key(0), given))
    keys = jax.eval_shape(lambda: Keys(jax.random.split(jax.random.key(0), 1), jax.random.key(0)))
    lowered = jax.jit(meta_gradient(method, 1)).lower(params, state, one(given), keys, 0)
    return lowered.compile({"xla_backend_optimization_level": 0}).memory_analysis().temp_size_in_bytes


@pytest.mark.slow
def test_memory_does_not_grow_with_the_inner_steps():
    encoder = MLP(widths=(20, 20))
    few, many = (temporary_bytes(imaml(encoder, way=WAY, inner_steps=steps)) for steps in (10, 1000))
    assert many <= 1.1 * few + 1000 * 4  # the loss before each step is kept
    assert temporary_bytes(maml(encoder, way=WAY, inner_steps=1000)) > 10 * many


def test_without_inner_steps_it_is_the_network_and_its_gradient():
    encoder, given = MLP(widths=(6, 5)), classification()
    method = imaml(encoder, way=WAY, inner_steps=0)
    params, state = start(method, given)
    found = one_gradient(method, params, state, given)
    wanted = one_gradient(maml(encoder, way=WAY, inner_steps=0), params, state, given)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), found, wanted)


def test_without_a_hold_at_test_it_adapts_as_maml_does():
    encoder, given = MLP(widths=(6, 5)), classification()
    method = imaml(encoder, way=WAY, inner_lr=0.1, test_steps=3, test_proximal=0.0)
    params, state = start(method, given)

    def fast(method, ctx):
        return compiled(lambda: method.adapt(params, state, given.support, jax.random.key(0), ctx)["fast"])()

    wanted = fast(maml(encoder, way=WAY, inner_lr=0.1, test_steps=3), Context())
    assert furthest(fast(method, method.test_context), wanted) < 1e-6
    assert furthest(fast(method, Context(train=True, inner_steps=3)), wanted) > 1e-3


@pytest.mark.parametrize("how", [{"proximal": 0.0}, {"cg_steps": 0}])
def test_a_minimum_that_nothing_holds_and_no_iterations_are_refused(how):
    with pytest.raises(ValueError, match="proximal above 0 and cg_steps of at least 1"):
        imaml(Identity(), way=WAY, **how)
