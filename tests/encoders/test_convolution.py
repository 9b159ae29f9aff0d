"""Every lowering of a convolution is nn.Conv: value, gradient and Hessian-vector product."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from metarep_jax.encoders.convolution import (
    LOWERINGS,
    PassesConv,
    PatchConv,
    bilinear,
    chunks,
    conv_layer,
    geometry_of,
    patches,
    winograd,
)
from metarep_jax.encoders.layers import as_image_float, max_pool, overlapping_max_pool

close = partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-10)

CASES = {
    "odd image, stride 2, same": ((7, 9), (3, 3), 2, "SAME", True),
    "even image, stride 2, same": ((8, 6), (3, 3), (2, 2), "SAME", False),
    "stride 2, one at each side": ((8, 7), (3, 3), 2, 1, False),
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


@pytest.mark.parametrize("layer", [PatchConv, PassesConv])
@pytest.mark.parametrize("case", CASES)
def test_every_layer_equals_flax_conv_up_to_second_derivatives(layer, case):
    size, kernel, strides, padding, bias = CASES[case]
    x, tangent = np.random.default_rng(0).normal(size=(2, 3, *size, 2))
    settings = {"strides": strides, "padding": padding, "use_bias": bias, "param_dtype": jnp.float64}
    ours, flax = layer(4, kernel, **settings), nn.Conv(4, kernel, **settings)

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


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float64, 1e-12), (jnp.float32, 1e-5)])
@pytest.mark.parametrize(
    ("tile", "image", "padding"), [(4, (8, 9), "SAME"), (2, (4, 5), 1), (4, (12, 11), "VALID"), (2, (7, 7), "SAME")]
)
def test_tiles_equal_the_direct_algorithm_up_to_second_derivatives(monkeypatch, tile, image, padding, dtype, tolerance):
    monkeypatch.setattr(bilinear, "LEAST_RESULTS", {4: 1, 2: 1})
    geometry = geometry_of(image, (3, 3), 1, padding)
    assert bilinear.tile_of(geometry, 3, 16, 17, dtype) == tile
    draw = np.random.default_rng(0).normal
    x, along_x = jnp.asarray(draw(size=(2, 3, *image, 16)), dtype)
    kernel, along_kernel = jnp.asarray(draw(size=(2, 3, 3, 16, 17)) / 12, dtype)

    def everything(convolve):
        gradient = jax.grad(lambda x, kernel: jnp.sum(jnp.sin(convolve(x, kernel))), (0, 1))

        def along(x, kernel):
            return sum(map(jnp.vdot, gradient(x, kernel), (along_x, along_kernel)))

        forward_over_reverse = jax.jvp(gradient, (x, kernel), (along_x, along_kernel))
        return convolve(x, kernel), forward_over_reverse, jax.grad(along, (0, 1))(x, kernel)

    def flax(x, kernel):
        return lax.conv_general_dilated(
            x, kernel, geometry.strides, geometry.pads, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    ours = partial(bilinear.convolve, geometry=geometry)
    for one, other in zip(*map(jax.tree.leaves, jax.jit(lambda: [everything(ours), everything(flax)])())):
        assert one.dtype == dtype
        close(one, other, rtol=0, atol=tolerance * np.abs(other).max())


def test_the_tiles_transforms_filter_any_signal():
    signal, kernel = np.random.default_rng(0).normal(size=6), np.random.default_rng(1).normal(size=3)
    for m in (2, 4):
        inputs, of_kernel, result = winograd.transforms(m)
        found = result @ ((of_kernel @ kernel) * (inputs @ signal[: m + 2]))
        close(found, np.correlate(signal[: m + 2], kernel, "valid"))


def test_few_results_narrow_layers_and_low_precision_are_convolved_directly():
    geometry = geometry_of((16, 16), (3, 3), 1, "SAME")
    assert bilinear.tile_of(geometry, 8, 64, 64, jnp.float32) == 4
    assert bilinear.tile_of(geometry, 1, 64, 64, jnp.float32) == 0
    assert bilinear.tile_of(geometry, 8, 3, 64, jnp.float32) == 0
    assert bilinear.tile_of(geometry, 8, 64, 64, jnp.bfloat16) == 0
    assert bilinear.tile_of(geometry_of((16, 16), (3, 3), 2, "SAME"), 8, 64, 64, jnp.float32) == 0
    assert bilinear.tile_of(geometry_of((16, 16), (5, 5), 1, "SAME"), 8, 64, 64, jnp.float32) == 0


def test_chunks_change_nothing_but_rounding(monkeypatch):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(11, 6, 6, 2)))
    layer = PatchConv(4, (3, 3), strides=2)
    params = jax.jit(layer.init)(jax.random.key(1), x)

    def derivatives():
        def loss(params, x):
            return jnp.sum(jnp.sin(layer.apply(params, x)))

        return jax.jvp(jax.grad(loss, (0, 1)), (params, x), (params, x))

    whole = jax.jit(lambda: derivatives())()
    monkeypatch.setattr(patches, "CHUNK_BYTES", 2 * 9 * 18 * 8)  # two images: five chunks and one image over
    assert "scan" in str(jax.make_jaxpr(lambda x: layer.apply(params, x))(x))
    jax.tree.map(partial(close, rtol=1e-6), whole, jax.jit(lambda: derivatives())())


@pytest.mark.parametrize("each", [0, 1, 3, 4, 20])
def test_chunks_cover_every_example_once(each):
    x, y = jnp.asarray(np.random.default_rng(0).normal(size=(2, 11, 3)))
    close(chunks.map_chunks(lambda a, b: a * b, each, x, y), x * y)
    close(chunks.sum_chunks(lambda a, b: a.T @ b, each, x, y), x.T @ y)


@pytest.mark.parametrize("layer", [PatchConv, PassesConv])
def test_kernels_of_different_tasks_do_not_mix(layer):
    layer = layer(3, (3, 3), strides=2)
    x = np.random.default_rng(0).normal(size=(2, 4, 5, 5, 2))

    def of_one(params, x):
        return layer.apply(params, x), jax.grad(lambda *given: jnp.sum(layer.apply(*given) ** 3), (0, 1))(params, x)

    @jax.jit
    def both(x):
        params = jax.vmap(layer.init)(jax.random.split(jax.random.key(1)), x)
        alone = [of_one(jax.tree.map(lambda leaf, task=task: leaf[task], params), x[task]) for task in range(2)]
        return jax.vmap(of_one)(params, x), alone

    together, alone = jax.device_get(both(x))
    for task in range(2):
        jax.tree.map(close, jax.tree.map(lambda leaf, task=task: leaf[task], together), alone[task])


@pytest.mark.parametrize(("image", "strides"), [((8, 8), 1), ((4, 5), 1), ((7, 8), 2)])
def test_the_gradient_through_tasks_with_kernels_of_their_own_is_that_of_flax(monkeypatch, image, strides):
    monkeypatch.setattr(bilinear, "LEAST_RESULTS", {4: 1, 2: 1})
    geometry = geometry_of(image, (3, 3), strides, "SAME")
    x = jax.random.normal(jax.random.key(0), (2, 3, *image, 16), jnp.float64)
    kernel = jax.random.normal(jax.random.key(1), (2, 3, 3, 16, 16), jnp.float64)

    def gradient(convolve):
        return jax.grad(lambda *given: jnp.sum(jnp.sin(jax.vmap(convolve)(*given))), (0, 1))(x, kernel)

    ours = partial(bilinear.convolve, geometry=geometry)
    flax = partial(
        lax.conv_general_dilated,
        window_strides=geometry.strides,
        padding=geometry.pads,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    for one, other in zip(*jax.jit(lambda: [gradient(ours), gradient(flax)])()):
        close(one, other)


def test_a_mapped_axis_of_examples_joins_them():
    layer = PassesConv(3, (3, 3))
    x = np.random.default_rng(0).normal(size=(2, 4, 5, 5, 2))
    params = jax.jit(layer.init)(jax.random.key(1), x[0])
    close(
        jax.jit(jax.vmap(layer.apply, (None, 1), 1))(params, x.swapaxes(0, 1)),
        jax.vmap(layer.apply, (None, 0))(params, x).swapaxes(0, 1),
    )


@pytest.mark.parametrize("layer", [PatchConv, PassesConv])
def test_a_kernel_larger_than_the_image_is_refused(layer):
    with pytest.raises(ValueError, match="5×5 kernel with padding VALID does not fit into images"):
        jax.eval_shape(layer(1, (5, 5), padding="VALID").init, jax.random.key(0), np.zeros((1, 4, 4, 1)))


def test_an_unknown_lowering_lists_those_that_exist():
    assert all(callable(conv_layer(name)) for name in LOWERINGS)
    with pytest.raises(ValueError, match="'winograd'; there are: passes, patches, lax"):
        conv_layer("winograd")


@pytest.mark.parametrize("size", [(6, 4), (7, 5)])
@pytest.mark.parametrize(
    "pools",
    [
        (max_pool, lambda x: nn.max_pool(x, (2, 2), (2, 2))),
        (overlapping_max_pool, lambda x: nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))),
    ],
)
def test_max_pools_equal_flax_pooling_up_to_second_derivatives(size, pools):
    x, tangent = np.random.default_rng(0).normal(size=(2, 2, *size, 3))

    def everything(pool, x, tangent):
        def loss(x):
            return jnp.sum(jnp.sin(pool(x)))

        return pool(x), *jax.jvp(jax.grad(loss), (x,), (tangent,))

    for ours, flax in zip(*jax.jit(lambda *given: [everything(pool, *given) for pool in pools])(x, tangent)):
        close(ours, flax)


def test_bytes_become_fractions_and_floats_stay():
    close(jax.jit(as_image_float)(np.array([0, 51, 255], np.uint8)), [0, 0.2, 1], atol=1e-7)
    floats = jax.jit(lambda x: as_image_float(x, 0.5, 0.5, jnp.float64))
    close(floats(np.array([0.0, 0.25, 1.0])), [-1, -0.5, 1])
