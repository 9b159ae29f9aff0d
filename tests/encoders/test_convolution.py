"""PatchConv is nn.Conv: value, gradient and Hessian-vector product in float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from metarep_jax.encoders import convolution
from metarep_jax.encoders.layers import PatchConv, as_image_float, conv_layer, max_pool

close = partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-10)

CASES = {
    "odd image, stride 2, same": ((7, 9), (3, 3), 2, "SAME", True),
    "even image, stride 2, same": ((8, 6), (3, 3), (2, 2), "SAME", False),
    "stride 1": ((5, 6), (3, 3), 1, "SAME", True),
    "valid, stride 3": ((10, 11), (3, 3), 3, "VALID", True),
    "stride beyond the kernel": ((7, 8), (1, 1), (2, 3), "SAME", False),
    "explicit pairs": ((9, 8), (7, 5), (2, 1), ((3, 3), (0, 2)), True),
    "one number of zeros": ((6, 5), (2, 4), (1, 2), 2, False),
}


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("case", CASES)
def test_patch_conv_equals_flax_conv_up_to_second_derivatives(case):
    size, kernel, strides, padding, bias = CASES[case]
    x, tangent = np.random.default_rng(0).normal(size=(2, 3, *size, 2))
    settings = {"strides": strides, "padding": padding, "use_bias": bias, "param_dtype": jnp.float64}
    ours, flax = PatchConv(4, kernel, **settings), nn.Conv(4, kernel, **settings)

    def everything(layer, x, tangent):
        def loss(params, x):
            return jnp.sum(jnp.sin(layer.apply(params, x)))

        gradient, (y, params) = jax.grad(loss, (0, 1)), layer.init_with_output(jax.random.key(1), x)
        along = (jax.tree.map(jnp.ones_like, params), tangent)
        return params, (y, *jax.jvp(gradient, (params, x), along))

    both = jax.jit(lambda *given: [everything(layer, *given) for layer in (ours, flax)])
    (our_params, our_results), (params, results) = jax.device_get(both(x, tangent))
    jax.tree.map(np.testing.assert_array_equal, our_params, params)
    jax.tree.map(close, our_results, results)


def test_chunks_change_nothing_but_rounding(monkeypatch):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(11, 6, 6, 2)))
    layer = PatchConv(4, (3, 3), strides=2)
    params = jax.jit(layer.init)(jax.random.key(1), x)

    def derivatives():
        def loss(params, x):
            return jnp.sum(jnp.sin(layer.apply(params, x)))

        return jax.jvp(jax.grad(loss, (0, 1)), (params, x), (params, x))

    whole = jax.jit(lambda: derivatives())()
    monkeypatch.setattr(convolution, "CHUNK_BYTES", 2 * 9 * 18 * 8)  # two images: five chunks and one image over
    assert "scan" in str(jax.make_jaxpr(lambda x: layer.apply(params, x))(x))
    jax.tree.map(partial(close, rtol=1e-6), whole, jax.jit(lambda: derivatives())())


def test_kernels_of_different_tasks_do_not_mix():
    layer = PatchConv(3, (3, 3), strides=2)
    x = np.random.default_rng(0).normal(size=(2, 4, 5, 5, 2))

    @jax.jit
    def both(x):
        params = jax.vmap(layer.init)(jax.random.split(jax.random.key(1)), x)
        alone = [layer.apply(jax.tree.map(lambda leaf, task=task: leaf[task], params), x[task]) for task in range(2)]
        return jax.vmap(layer.apply)(params, x), alone

    together, alone = jax.device_get(both(x))
    for task in range(2):
        close(together[task], alone[task])


def test_a_kernel_larger_than_the_image_is_refused():
    with pytest.raises(ValueError, match="5×5 kernel with padding VALID does not fit into images"):
        jax.eval_shape(PatchConv(1, (5, 5), padding="VALID").init, jax.random.key(0), np.zeros((1, 4, 4, 1)))


def test_an_unknown_lowering_lists_those_that_exist():
    with pytest.raises(ValueError, match="'winograd'; there are: patches, lax"):
        conv_layer("winograd")


@pytest.mark.parametrize("size", [(6, 4), (7, 5)])
def test_max_pool_equals_flax_pooling_up_to_second_derivatives(size):
    x, tangent = np.random.default_rng(0).normal(size=(2, 2, *size, 3))

    def everything(pool, x, tangent):
        def loss(x):
            return jnp.sum(jnp.sin(pool(x)))

        return pool(x), *jax.jvp(jax.grad(loss), (x,), (tangent,))

    pools = max_pool, lambda x: nn.max_pool(x, (2, 2), (2, 2))
    for ours, flax in zip(*jax.jit(lambda *given: [everything(pool, *given) for pool in pools])(x, tangent)):
        close(ours, flax)


def test_bytes_become_fractions_and_floats_stay():
    close(jax.jit(as_image_float)(np.array([0, 51, 255], np.uint8)), [0, 0.2, 1], atol=1e-7)
    floats = jax.jit(lambda x: as_image_float(x, 0.5, 0.5, jnp.float64))
    close(floats(np.array([0.0, 0.25, 1.0])), [-1, -0.5, 1])
