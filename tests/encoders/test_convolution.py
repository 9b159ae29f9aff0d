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
    x, tangent = jax.random.normal(jax.random.key(0), (2, 3, *size, 2))
    settings = {"strides": strides, "padding": padding, "use_bias": bias, "param_dtype": jnp.float64}
    ours, flax = PatchConv(4, kernel, **settings), nn.Conv(4, kernel, **settings)
    params = flax.init(jax.random.key(1), x)
    jax.tree.map(np.testing.assert_array_equal, params, ours.init(jax.random.key(1), x))

    def everything(layer):
        def loss(params, x):
            return jnp.sum(jnp.sin(layer.apply(params, x)))

        gradient = jax.grad(loss, (0, 1))
        along = (jax.tree.map(jnp.ones_like, params), tangent)
        return layer.apply(params, x), *jax.jvp(gradient, (params, x), along)

    jax.tree.map(close, jax.jit(partial(everything, ours))(), jax.jit(partial(everything, flax))())


def test_chunks_change_nothing_but_rounding(monkeypatch):
    x = jax.random.normal(jax.random.key(0), (11, 6, 6, 2))
    layer = PatchConv(4, (3, 3), strides=2)
    params = layer.init(jax.random.key(1), x)

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
    x = jax.random.normal(jax.random.key(0), (2, 4, 5, 5, 2))
    params = jax.jit(jax.vmap(layer.init))(jax.random.split(jax.random.key(1)), x)
    together = jax.jit(jax.vmap(layer.apply))(params, x)
    for task in range(2):
        close(together[task], layer.apply(jax.tree.map(lambda leaf, task=task: leaf[task], params), x[task]))


def test_a_kernel_larger_than_the_image_is_refused():
    with pytest.raises(ValueError, match="5×5 kernel with padding VALID does not fit into images"):
        PatchConv(1, (5, 5), padding="VALID").init(jax.random.key(0), jnp.zeros((1, 4, 4, 1)))


def test_an_unknown_lowering_lists_those_that_exist():
    with pytest.raises(ValueError, match="'winograd'; there are: patches, lax"):
        conv_layer("winograd")


@pytest.mark.parametrize("size", [(6, 4), (7, 5)])
def test_max_pool_equals_flax_pooling_up_to_second_derivatives(size):
    x, tangent = jax.random.normal(jax.random.key(0), (2, 2, *size, 3))

    def everything(pool):
        def loss(x):
            return jnp.sum(jnp.sin(pool(x)))

        return pool(x), *jax.jvp(jax.grad(loss), (x,), (tangent,))

    for ours, flax in zip(everything(max_pool), everything(lambda x: nn.max_pool(x, (2, 2), (2, 2)))):
        close(ours, flax)


def test_bytes_become_fractions_and_floats_stay():
    close(as_image_float(jnp.array([0, 51, 255], jnp.uint8)), [0, 0.2, 1], atol=1e-7)
    close(as_image_float(jnp.array([0.0, 0.25, 1.0]), 0.5, 0.5, jnp.float64), [-1, -0.5, 1])
