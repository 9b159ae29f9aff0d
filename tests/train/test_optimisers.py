"""Optimisers and schedules against their closed forms."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metarep_jax.train import OptimiserConfig, make_optimiser, make_schedule

PARAMS = {
    "Dense_0": {"kernel": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "bias": jnp.array([1.0, -1.0])},
    "BatchNorm_0": {"scale": jnp.array([2.0, 0.5]), "bias": jnp.array([0.1, 0.2])},
    "query": {"bias": jnp.array([[0.3, -0.2]])},  # of attention: an axis of heads
}
GRADS = jax.tree.map(lambda leaf: 0.1 * leaf + 0.3, PARAMS)
NOT_KERNELS = [("Dense_0", "bias"), ("BatchNorm_0", "scale"), ("BatchNorm_0", "bias"), ("query", "bias")]


def steps(config, count=1, grads=GRADS):
    """Parameters after ``count`` updates with the same gradient."""
    optimiser = make_optimiser(config, 100)
    params, state = PARAMS, optimiser.init(PARAMS)
    for _ in range(count):
        updates, state = optimiser.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params


def test_adam_moves_every_weight_by_the_rate_at_first():
    """At the first step m/(√v + ε) is the gradient's sign."""
    moved = steps(OptimiserConfig(name="adam", learning_rate=0.01))
    jax.tree.map(
        lambda new, old, grad: np.testing.assert_allclose(new, old - 0.01 * jnp.sign(grad), rtol=1e-5),
        moved,
        PARAMS,
        GRADS,
    )


def test_adamw_decays_kernels_by_rate_times_strength_and_nothing_else():
    plain = steps(OptimiserConfig(name="adamw", learning_rate=0.01))
    decayed = steps(OptimiserConfig(name="adamw", learning_rate=0.01, weight_decay=0.2))
    kernel = PARAMS["Dense_0"]["kernel"]
    np.testing.assert_allclose(
        decayed["Dense_0"]["kernel"], plain["Dense_0"]["kernel"] - 0.01 * 0.2 * kernel, rtol=1e-5
    )
    for module, name in NOT_KERNELS:
        np.testing.assert_array_equal(decayed[module][name], plain[module][name])


def test_lars_scales_a_kernel_by_its_trust_ratio_and_norms_and_biases_not_at_all():
    """LARS, equation 6: the local rate is η‖w‖ / ‖∇L + βw‖; two steps with momentum 0.9 sum to 1 + 1.9 of one."""
    rate, decay, trust = 0.5, 0.1, 0.001
    config = OptimiserConfig(name="lars", learning_rate=rate, weight_decay=decay)
    moved = steps(config)
    kernel, grad = PARAMS["Dense_0"]["kernel"], GRADS["Dense_0"]["kernel"]
    step = grad + decay * kernel
    ratio = trust * jnp.linalg.norm(kernel) / jnp.linalg.norm(step)
    np.testing.assert_allclose(moved["Dense_0"]["kernel"], kernel - rate * ratio * step, rtol=1e-5)
    twice = steps(config, 2)
    for module, name in NOT_KERNELS:
        old, grad = PARAMS[module][name], GRADS[module][name]
        np.testing.assert_allclose(moved[module][name], old - rate * grad, rtol=1e-5)
        np.testing.assert_allclose(twice[module][name], old - 2.9 * rate * grad, rtol=1e-5)


def test_lars_with_separate_norms_is_the_papers():
    """LARS, equation 6 of the paper: the local rate is η‖w‖ / (‖∇L‖ + β‖w‖), of the step ∇L + βw."""
    rate, decay, trust = 0.5, 0.1, 0.001
    config = OptimiserConfig(name="lars", learning_rate=rate, weight_decay=decay, lars_norm="separate")
    moved = steps(config)
    kernel, grad = PARAMS["Dense_0"]["kernel"], GRADS["Dense_0"]["kernel"]
    norm = jnp.linalg.norm(kernel)
    ratio = trust * norm / (jnp.linalg.norm(grad) + decay * norm)
    wanted = kernel - rate * ratio * (grad + decay * kernel)
    np.testing.assert_allclose(moved["Dense_0"]["kernel"], wanted, rtol=1e-5)
    for module, name in NOT_KERNELS:
        np.testing.assert_allclose(moved[module][name], PARAMS[module][name] - rate * GRADS[module][name], rtol=1e-5)


def test_without_decay_both_trust_ratios_are_one():
    one, other = (steps(OptimiserConfig(name="lars", lars_norm=norm), 2) for norm in ("sum", "separate"))
    chex.assert_trees_all_close(one, other, rtol=1e-6)


def test_momentum_is_nesterovs():
    """The first step is (1 + 0.9) times the gradient, the second (1 + 0.9 + 0.81)."""
    config = OptimiserConfig(name="momentum", learning_rate=0.1)
    for count, sum_of_steps in ((1, 1.9), (2, 1.9 + 2.71)):
        jax.tree.map(
            lambda new, old, grad, s=sum_of_steps: np.testing.assert_allclose(new, old - 0.1 * s * grad, rtol=1e-5),
            steps(config, count),
            PARAMS,
            GRADS,
        )


def test_sgd_is_the_gradient_and_decay_on_kernels():
    moved = steps(OptimiserConfig(name="sgd", learning_rate=0.1, weight_decay=0.5))
    kernel = PARAMS["Dense_0"]["kernel"]
    wanted = kernel - 0.1 * (GRADS["Dense_0"]["kernel"] + 0.5 * kernel)
    np.testing.assert_allclose(moved["Dense_0"]["kernel"], wanted, rtol=1e-6)
    np.testing.assert_allclose(moved["Dense_0"]["bias"], PARAMS["Dense_0"]["bias"] - 0.1 * GRADS["Dense_0"]["bias"])


def test_clipping_scales_long_gradients_to_the_norm_and_leaves_short_ones():
    config = OptimiserConfig(name="sgd", learning_rate=1.0, clip_norm=0.5)
    norm = optax.tree.norm(GRADS)
    assert norm > 0.5
    for grads, factor in ((GRADS, 0.5 / norm), (jax.tree.map(lambda leaf: leaf * 0.1 / norm, GRADS), 1.0)):
        jax.tree.map(
            lambda new, old, grad, f=factor: np.testing.assert_allclose(new, old - f * grad, rtol=1e-5),
            steps(config, grads=grads),
            PARAMS,
            grads,
        )


def test_decay_is_not_clipped():
    """Clipping bounds the loss's gradient; decay comes after it."""
    config = OptimiserConfig(name="sgd", learning_rate=1.0, clip_norm=1e-6, weight_decay=0.1)
    np.testing.assert_allclose(steps(config)["Dense_0"]["kernel"], 0.9 * PARAMS["Dense_0"]["kernel"], rtol=1e-4)


def test_a_linear_schedule_falls_by_the_same_at_every_step_to_zero():
    rate = make_schedule(OptimiserConfig(learning_rate=1.0, schedule="linear"), 4)
    np.testing.assert_allclose([rate(step) for step in range(5)], [1.0, 0.75, 0.5, 0.25, 0.0])


def test_a_cosine_with_warm_up_rises_in_a_line_and_falls_to_zero():
    rate = make_schedule(OptimiserConfig(learning_rate=2.0, schedule="cosine", warmup_steps=10), 110)
    found = [float(rate(step)) for step in (0, 5, 10, 35, 60, 85, 110)]
    fallen = [1 + np.cos(np.pi * part) for part in (0, 0.25, 0.5, 0.75, 1)]
    np.testing.assert_allclose(found, [0.0, 1.0, *fallen], atol=1e-6)


def test_other_schedules():
    halving = make_schedule(OptimiserConfig(learning_rate=8.0, schedule="halving", halve_every=100), 1000)
    assert [float(halving(step)) for step in (0, 99, 100, 250)] == [8.0, 8.0, 4.0, 2.0]
    constant = make_schedule(OptimiserConfig(learning_rate=8.0, warmup_steps=4), 1000)
    assert [float(constant(step)) for step in (0, 1, 4, 999)] == [0.0, 2.0, 8.0, 8.0]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("learning_rate", 0.0, "learning_rate must be positive, got 0.0"),
        ("learning_rate", -1e-3, "learning_rate must be positive"),
        ("learning_rate", float("nan"), "learning_rate must be positive, got nan"),
        ("halve_every", 0, "halve_every must be positive"),
        ("weight_decay", -0.1, "weight_decay must not be negative, got -0.1"),
        ("warmup_steps", -1, "warmup_steps must not be negative"),
        ("clip_norm", 0.0, "clip_norm must be positive"),
    ],
)
def test_settings_out_of_range_are_refused(field, value, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(OptimiserConfig(), **{field: value})


def test_a_schedule_needs_steps():
    with pytest.raises(ValueError, match="total_steps must be positive, got 0"):
        make_schedule(OptimiserConfig(), 0)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear", "halving"])
def test_a_warm_up_as_long_as_the_training_is_refused(schedule):
    message = "warm-up of 10 steps must be shorter than the training of 10 steps; lower --….optimiser.warmup-steps"
    with pytest.raises(ValueError, match=message):
        make_schedule(OptimiserConfig(schedule=schedule, warmup_steps=10), 10)
