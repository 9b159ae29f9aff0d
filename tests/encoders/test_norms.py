"""Norms: closed forms, masks, running averages, and the same statistics on any number of devices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarep_jax.encoders.layers import Norm
from metarep_jax.encoders.norms import batch_moments, product_moments

close = partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-5)
X = 3 + 2 * jax.random.normal(jax.random.key(0), (8, 3, 2, 4))
MASK = jnp.arange(8) < 5


def apply(norm, x, *args, **kwargs):
    return norm.apply(norm.init(jax.random.key(1), x), x, *args, **kwargs)


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
    assert Norm("none").init(jax.random.key(0), X) == {}
    np.testing.assert_array_equal(apply(Norm("none"), X), X)


def test_an_unknown_norm_lists_those_that_exist():
    with pytest.raises(ValueError, match="'instance'; there are: batch, group, layer, none"):
        apply(Norm("instance"), X)


def test_masked_rows_do_not_enter_the_statistics():
    padded = jnp.where(MASK[:, None, None, None], X, 1e6)
    close(apply(Norm("batch"), padded, MASK)[:5], apply(Norm("batch"), X[:5]))


def test_no_row_at_all_gives_finite_results_and_gradients():
    value, grad = jax.value_and_grad(lambda x: apply(Norm("batch"), x, jnp.zeros(8, bool)).sum())(X)
    assert jnp.isfinite(value)
    assert jnp.isfinite(grad).all()


def test_running_averages_move_by_a_tenth_and_are_used_when_asked():
    norm = Norm("batch")
    variables = norm.init(jax.random.key(0), X)
    close(variables["batch_stats"]["mean"], 0)
    _, moved = norm.apply(variables, X, mutable=["batch_stats"])
    close(moved["batch_stats"]["mean"], 0.1 * X.mean((0, 1, 2)))
    close(moved["batch_stats"]["var"], 0.9 + 0.1 * X.var((0, 1, 2)))
    variables = {**variables, **moved}
    y = norm.apply(variables, X[:1], None, True)
    stats = moved["batch_stats"]
    close(y, (X[:1] - stats["mean"]) / jnp.sqrt(stats["var"] + 1e-5))


def test_zero_scale_starts_as_nothing():
    close(apply(Norm("batch", zero_scale=True), X), 0)


def test_statistics_of_half_precision_are_computed_in_single():
    x = 100 + jax.random.normal(jax.random.key(0), (4096, 2))
    mean, var = batch_moments(x.astype(jnp.bfloat16))
    assert mean.dtype == var.dtype == jnp.float32
    assert apply(Norm("batch"), x.astype(jnp.bfloat16)).dtype == jnp.bfloat16
    close(mean, 100, atol=0.1)
    close(var, 1, atol=0.2)


@pytest.mark.parametrize("mask", [None, MASK])
def test_moments_of_a_product_are_those_of_the_product(mask):
    matrix = jax.random.normal(jax.random.key(1), (4, 6))
    for ours, direct in zip(product_moments(X, matrix, mask), batch_moments(X @ matrix, mask)):
        close(ours, direct)


def test_a_fitted_norm_of_a_product_is_the_norm_of_the_product():
    matrix = jax.random.normal(jax.random.key(1), (4, 6))
    for kind in ("batch", "group", "none"):
        norm = Norm(kind)
        variables = norm.init(jax.random.key(0), X @ matrix)
        fitted = norm.apply(variables, X, MASK, False, matrix, method="fitted")
        close(fitted(X), norm.apply(variables, X @ matrix, MASK), atol=1e-4)


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
@pytest.mark.parametrize("masked", [False, True])
def test_statistics_are_the_same_on_any_number_of_devices(devices, masked):
    matrix = jax.random.normal(jax.random.key(1), (4, 6))
    mask = MASK if masked else jnp.ones(8, bool)
    shards = jax.tree.map(lambda leaf: leaf.reshape(devices, -1, *leaf.shape[1:]), (X, mask))

    def local(x, mask):
        mask = mask if masked else None
        return batch_moments(x, mask, "devices"), product_moments(x, matrix, mask, "devices")

    found = jax.pmap(local, axis_name="devices", devices=jax.devices()[:devices])(*shards)
    wanted = batch_moments(X, mask), product_moments(X, matrix, mask)
    jax.tree.map(lambda ours, one: close(ours, jnp.broadcast_to(one, ours.shape)), found, wanted)
