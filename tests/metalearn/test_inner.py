"""The inner loop: closed forms on a quadratic, and what must not change its result."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarep_jax.metalearn.inner import inner_loop

A = jnp.array([[2.0, 0.5], [0.5, 1.0]])
B = jnp.array([1.0, -1.0])
START = jnp.array([0.3, 0.7])
TARGET = jnp.array([-0.4, 0.2])
RATE = 0.1


def quadratic(theta, step):
    del step
    return 0.5 * theta @ A @ theta - B @ theta


def closed_form(theta, steps):
    """θ_k = M^k (θ_0 − θ*) + θ*, with M = I − αA and θ* = A⁻¹b."""
    power = np.linalg.matrix_power(np.eye(2) - RATE * np.asarray(A), steps)
    best = np.linalg.solve(A, B)
    return power, power @ (np.asarray(theta) - best) + best


@pytest.mark.parametrize("steps", [0, 1, 3, 8])
def test_steps_on_a_quadratic_follow_the_closed_form_and_so_does_the_gradient_through_them(steps):
    def outer(start):
        end = inner_loop(quadratic, start, steps=steps, learning_rate=RATE).weights
        return 0.5 * jnp.sum((end - TARGET) ** 2), end

    gradient, end = jax.jit(jax.grad(outer, has_aux=True))(START)
    power, wanted = closed_form(START, steps)
    np.testing.assert_allclose(end, wanted, rtol=1e-5)
    np.testing.assert_allclose(gradient, power.T @ (wanted - np.asarray(TARGET)), rtol=1e-5)


@pytest.mark.parametrize("steps", [2, 7])
def test_first_order_is_the_gradient_at_the_adapted_weights(steps):
    def outer(start):
        end = inner_loop(quadratic, start, steps=steps, learning_rate=RATE, order=1).weights
        return 0.5 * jnp.sum((end - TARGET) ** 2)

    np.testing.assert_allclose(
        jax.jit(jax.grad(outer))(START), closed_form(START, steps)[1] - np.asarray(TARGET), rtol=1e-5
    )


def network(weights, step):
    hidden = jnp.tanh(jnp.array([[0.2, -0.5], [1.0, 0.3], [-0.7, 0.9]]) @ weights["in"])
    return jnp.mean((hidden @ weights["out"] - 0.1 * (1 + step)) ** 2)


WEIGHTS = {"in": jnp.array([[0.3, -0.2, 0.5], [0.1, 0.8, -0.4]]), "out": jnp.array([0.6, -0.3, 0.2])}


def gradient_through(**how):
    def outer(weights, rate):
        end = inner_loop(network, weights, steps=7, learning_rate=rate, **how).weights
        return jnp.sum(end["out"] ** 2) + jnp.sum(end["in"]), end

    return jax.jit(jax.value_and_grad(outer, (0, 1), has_aux=True))(WEIGHTS, jnp.float32(0.2))


@functools.cache
def plain_gradient():
    return gradient_through(remat=False, unrolled=7)


@pytest.mark.parametrize("remat", [False, True])
@pytest.mark.parametrize("unrolled", [0, 7])
@pytest.mark.parametrize("mixed", [False, True])
def test_recomputing_scanning_and_mixed_mode_change_nothing(remat, unrolled, mixed):
    wanted = plain_gradient()
    found = gradient_through(remat=remat, unrolled=unrolled, mixed=mixed)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), found, wanted)


def test_only_what_adapts_moves_and_the_rest_still_has_a_gradient():
    def end(weights):
        return inner_loop(network, weights, steps=2, learning_rate=0.2, adapts={"in": False, "out": True}).weights

    moved = jax.jit(end)(WEIGHTS)
    np.testing.assert_array_equal(moved["in"], WEIGHTS["in"])
    assert np.abs(np.asarray(moved["out"]) - np.asarray(WEIGHTS["out"])).max() > 1e-3
    gradient = jax.jit(jax.grad(lambda weights: end(weights)["out"].sum()))(WEIGHTS)
    assert np.abs(gradient["in"]).max() > 1e-4


def test_rates_may_be_a_tree_or_a_function_of_the_step():
    def ends(steps, rate, **how):
        return jax.jit(lambda weights: inner_loop(network, weights, steps=steps, learning_rate=rate, **how).weights)(
            WEIGHTS
        )

    by_leaf = ends(1, {"in": 0.0, "out": 0.2})
    only_out = ends(1, 0.2, adapts={"in": False, "out": True})
    jax.tree.map(np.testing.assert_array_equal, by_leaf, only_out)
    halved, three = ends(7, lambda step: jnp.where(step < 3, 0.2, 0.0)), ends(3, 0.2)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), halved, three)


def test_a_learned_rate_has_the_gradient_of_meta_sgd():
    """One step: dL/dα = −∇outer · ∇inner, entry by entry."""

    def outer(rate):
        return 0.5 * jnp.sum((inner_loop(quadratic, START, steps=1, learning_rate=rate).weights - TARGET) ** 2)

    rate = jnp.array([0.1, 0.3])
    inner = np.asarray(A) @ np.asarray(START) - np.asarray(B)
    end = np.asarray(START) - np.asarray(rate) * inner
    np.testing.assert_allclose(jax.jit(jax.grad(outer))(rate), -(end - np.asarray(TARGET)) * inner, rtol=1e-5)


def test_the_losses_are_those_that_the_steps_start_from():
    def losses(steps, **how):
        return inner_loop(quadratic, START, steps=steps, learning_rate=RATE, **how).losses

    a, b = np.asarray(A), np.asarray(B)
    for unrolled in (0, 5):
        at = [closed_form(START, step)[1] for step in range(3)]
        wanted = [0.5 * theta @ a @ theta - b @ theta for theta in at]
        np.testing.assert_allclose(jax.jit(lambda unrolled=unrolled: losses(3, unrolled=unrolled))(), wanted, rtol=1e-5)
    np.testing.assert_allclose(*jax.jit(lambda: (losses(7, remat=True, unrolled=0), losses(7)))())


def test_a_transformed_gradient_is_what_the_step_follows_also_where_only_a_part_adapts():
    def double(gradient, step):
        assert jax.tree.structure(gradient) == jax.tree.structure(WEIGHTS)
        return jax.tree.map(lambda leaf: leaf * (2 + step), gradient)

    @jax.jit
    def both(weights):
        step = functools.partial(inner_loop, network, weights, steps=2, adapts={"in": False, "out": True})
        return step(learning_rate=0.1, transform=double), step(learning_rate=lambda step: 0.1 * (2 + step))

    found, wanted = both(WEIGHTS)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, wanted)


def test_negative_steps_and_other_orders_are_refused():
    with pytest.raises(ValueError, match="0 or more steps, got -1"):
        inner_loop(quadratic, START, steps=-1, learning_rate=RATE)
    with pytest.raises(ValueError, match="1 or 2, got 3"):
        inner_loop(quadratic, START, steps=1, learning_rate=RATE, order=3)
