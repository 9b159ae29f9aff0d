"""Norms: closed forms, masks, running averages, and the same statistics on any number of devices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarep_jax.encoders.layers import Norm
from metarep_jax.encoders.norms import batch_moments, product_moments

close = partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-5)
X = np.random.default_rng(0).normal(3, 2, (8, 3, 2, 4)).astype(np.float32)
MATRIX = np.random.default_rng(1).normal(size=(4, 6)).astype(np.float32)
MASK = np.arange(8) < 5


@partial(jax.jit, static_argnums=0)
def compiled(norm, x, mask=None):
    return norm.apply(norm.init(jax.random.key(1), x), x, mask)


def apply(norm, *args):
    return np.asarray(compiled(norm, *args))


def test_batch_norm_gives_each_channel_mean_0_and_variance_1():
    y = apply(Norm("batch", epsilon=0.0), X)
    close(y.mean((0, 1, 2)), 0)
    close(y.var((0, 1, 2)), 1)


@pytest.mark.parametrize(("kind", "groups"), [("group", 4), ("layer", 1)])
def test_group_norms_give_each_row_and_group_mean_0_and_variance_1(kind, groups):
    y = apply(Norm(kind, epsilon=0.0), X).reshape(8, 6, groups, -1)
    close(y.mean((1, 3)), 0)
    close(y.var((1, 3)), 1, atol=1e-4)


def test_rows_of_group_norm_do_not_depend_on_each_other():
    close(apply(Norm("group"), X)[:2], apply(Norm("group"), X[:2]))


def test_no_norm_is_the_identity_without_parameters():
    assert jax.eval_shape(Norm("none").init, jax.random.key(0), X) == {}
    np.testing.assert_array_equal(apply(Norm("none"), X), X)


def test_an_unknown_norm_lists_those_that_exist():
    with pytest.raises(ValueError, match="'instance'; there are: batch, group, layer, none"):
        apply(Norm("instance"), X)


def test_masked_rows_do_not_enter_the_statistics():
    padded = np.where(MASK[:, None, None, None], X, np.float32(1e6))
    close(apply(Norm("batch"), padded, MASK)[:5], apply(Norm("batch"), X[:5]))


def test_no_row_at_all_gives_finite_results_and_gradients():
    none = np.zeros(8, bool)
    value, grad = jax.jit(jax.value_and_grad(lambda x, mask: compiled(Norm("batch"), x, mask).sum()))(X, none)
    assert np.isfinite(float(value))
    assert np.isfinite(np.asarray(grad)).all()


def test_running_averages_move_by_a_tenth_and_are_used_when_asked():
    norm = Norm("batch")

    @jax.jit
    def moved_and_used(x):
        variables = norm.init(jax.random.key(0), x)
        _, moved = norm.apply(variables, x, mutable=["batch_stats"])
        y = norm.apply({**variables, **moved}, x[:1], None, True)
        return variables["batch_stats"]["mean"], moved["batch_stats"], y

    first, stats, y = jax.device_get(moved_and_used(X))
    close(first, 0)
    close(stats["mean"], 0.1 * X.mean((0, 1, 2)))
    close(stats["var"], 0.9 + 0.1 * X.var((0, 1, 2)))
    close(y, (X[:1] - stats["mean"]) / np.sqrt(stats["var"] + 1e-5))


def test_zero_scale_starts_as_nothing():
    close(apply(Norm("batch", zero_scale=True), X), 0)


def test_statistics_of_half_precision_are_computed_in_single():
    x = np.random.default_rng(0).normal(100, 1, (4096, 2)).astype(jnp.bfloat16)
    mean, var = jax.jit(batch_moments)(x)
    assert mean.dtype == var.dtype == jnp.float32
    assert jax.eval_shape(partial(compiled, Norm("batch")), x).dtype == jnp.bfloat16
    close(mean, 100, atol=0.1)
    close(var, 1, atol=0.2)


@pytest.mark.parametrize("mask", [None, MASK])
def test_moments_of_a_product_are_those_of_the_product(mask):
    for ours, direct in zip(jax.jit(product_moments)(X, MATRIX, mask), jax.jit(batch_moments)(X @ MATRIX, mask)):
        close(ours, direct)


def test_a_fitted_norm_of_a_product_is_the_norm_of_the_product():
    @partial(jax.jit, static_argnums=0)
    def both(norm, x, matrix, mask):
        whole, variables = norm.init_with_output(jax.random.key(0), x @ matrix, mask)
        fitted = norm.apply(variables, x, mask, False, matrix, method="fitted")
        return fitted(x), whole

    for kind in ("batch", "group", "none"):
        ours, whole = both(Norm(kind), X, MATRIX, MASK)
        close(ours, whole, atol=1e-4)


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
@pytest.mark.parametrize("masked", [False, True])
def test_statistics_are_the_same_on_any_number_of_devices(devices, masked):
    mask = MASK if masked else np.ones(8, bool)
    shards = jax.tree.map(lambda leaf: leaf.reshape(devices, -1, *leaf.shape[1:]), (X, mask))

    def local(x, mask):
        mask = mask if masked else None
        return batch_moments(x, mask, "devices"), product_moments(x, jnp.asarray(MATRIX), mask, "devices")

    found = jax.pmap(local, axis_name="devices", devices=jax.devices()[:devices])(*shards)
    wanted = jax.jit(batch_moments)(X, mask), jax.jit(product_moments)(X, MATRIX, mask)
    jax.tree.map(lambda ours, one: close(ours, np.broadcast_to(one, ours.shape)), *jax.device_get((found, wanted)))
