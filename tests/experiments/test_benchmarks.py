"""The benchmarks: what they measure, in which order, and what they say to bad input."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from experiments.benchmarks import (
    common,
    contrastive_step,
    convolution,
    convolution_passes,
    flops,
    memory,
    meta_step,
    resnet_step,
    scaling,
    timing,
)
from experiments.benchmarks.convolution_shapes import Convolution, convolutions_of
from metarep_jax.encoders.conv4 import conv4
from metarep_jax.encoders.convolution import PassesConv, PatchConv
from metarep_jax.types import Trainable

STRIDED = Convolution((8, 6, 3), (3, 3), (2, 2), ((0, 1), (0, 1)), 4)
EVEN = Convolution((5, 5, 2), (3, 3), (1, 1), ((1, 1), (1, 1)), 3)


def test_candidates_take_turns_in_both_orders():
    order = []
    steps = {name: lambda name=name: order.append(name) for name in "ab"}
    timing.alternate(steps, 0.0, turn_seconds=0.0)
    turns = [name for name, before in zip(order[4:], ["", *order[4:]]) if name != before]
    assert order[:4] == list("aabb")
    assert turns[:3] == ["a", "b", "a"]  # a then b, b then a: the last of a round begins the next


def test_a_setting_is_compared_with_the_faster_peer():
    times = {name: np.full(5, ms) for name, ms in (("ours", 2.0), ("slow", 9.0), ("fast", 3.0), ("product_x", 1.0))}
    found = timing.compared(times, gflop=0.5 * timing.product_rate(times) * 2e-3)
    assert found["best_peer"]["mean"] == 3.0 and found["ratio_to_best_peer"]["mean"] == 1.5
    assert found["share_of_peak"]["mean"] == pytest.approx(0.5)
    assert timing.compared({"ours": times["ours"]}).keys() == {"ours"}


def test_conv4s_convolutions_are_read_off_it():
    found = convolutions_of(conv4(width=8, conv="lax"), (28, 28, 1))
    assert [shape.image for shape in found] == [(28, 28, 1), (14, 14, 8), (7, 7, 8), (4, 4, 8)]
    assert [shape.out for shape in found] == [(14, 14, 8), (7, 7, 8), (4, 4, 8), (2, 2, 8)]
    assert found[1].gflop == pytest.approx(1e-9 * 2 * 7 * 7 * 8 * 9 * 8)
    with pytest.raises(ValueError, match="conv='lax'"):
        convolutions_of(nn.Dense(3), (2,))


def test_networks_share_what_they_have_in_common():
    found = convolution.networks(("resnet18", "cifar_resnet"))
    assert {name: len(shapes) for name, shapes in found.items()} == {
        "resnet18 32 px": 20,
        "resnet18 224 px": 20,
        "cifar resnet 32 px": 21,
    }
    assert sorted({shape.filters for shape in found["cifar resnet 32 px"]}) == [16, 32, 64]
    assert len(set(found["resnet18 32 px"])) == 11


@pytest.mark.parametrize("shape", [STRIDED, EVEN], ids=["padded at the end", "padded around"])
def test_the_passes_of_a_convolution_are_those_of_linens_and_of_pytorch(shape):
    devices = jax.devices()[:2]
    kernel, rows, cotangent = map(jnp.asarray, convolution_passes.arrays_of(shape, 4))
    layer = nn.Conv(shape.filters, shape.kernel, shape.strides, shape.pads, use_bias=False)
    y, pull = jax.vjp(lambda k, x: layer.apply({"params": {"kernel": k}}, x), kernel, rows)
    expected = dict(zip(convolution_passes.PASSES, (y, *reversed(pull(cotangent)))))
    ours = convolution_passes.our_passes(shape, 4, "patches", devices)
    for name, step in ours.items():
        np.testing.assert_allclose(step.result(), expected[name], atol=1e-4)
    pytest.importorskip("torch")
    for name, step in convolution_passes.torch_passes(shape, 4).items():
        step.check(np.asarray(expected[name]), "ours")
        with pytest.raises(ValueError, match=f"{name} of .* by nobody differs"):
            step.check(np.asarray(expected[name]) + 1, "nobody")


def test_a_lowering_that_a_shape_cannot_take_is_refused_with_those_that_can(monkeypatch):
    def layers(name):
        def unstrided(*args, strides, **settings):
            if max(strides) > 1:
                raise ValueError("no strides")
            return PatchConv(*args, strides=strides, **settings)

        return {"patches": unstrided, "passes": PassesConv, "lax": nn.Conv}[name]

    monkeypatch.setattr(convolution_passes, "conv_layer", layers)
    convolution_passes.check_lowerings("--conv", ("patches",), [EVEN])
    with pytest.raises(
        ValueError, match=r"--conv patches cannot take 8×6×3 3×3 /2 → 4 .*no strides.* can: passes, lax$"
    ):
        convolution_passes.check_lowerings("--conv", ("patches",), [EVEN, STRIDED])


def test_an_unknown_lowering_is_refused_with_those_that_there_are():
    with pytest.raises(ValueError, match=r"'winograd'; there are: .*patches"):
        convolution_passes.check_lowerings("--conv", ("winograd",), [EVEN])


def test_a_trace_goes_into_a_new_folder_alone(tmp_path):
    with pytest.raises(ValueError, match=f"--profile {tmp_path} is there already.*new folder"):
        meta_step.MetaStepConfig(profile=tmp_path)
    config = meta_step.MetaStepConfig(profile=tmp_path / "new")
    common.trace(config, {"step": lambda: jax.block_until_ready(jnp.ones(2) + 1)})
    assert list((tmp_path / "new" / "step").rglob("*.xplane.pb"))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: resnet_step.ResNetStepConfig(size=(64,)), "--size takes one or more of 32, 224; got"),
        (lambda: convolution.ConvolutionConfig(encoder=("vgg",)), "--encoder takes one or more of conv4, .*'vgg'"),
        (lambda: scaling.ScalingConfig(axis=("width",)), "--axis takes one or more of batch, .*'width'"),
        (lambda: scaling.ScalingConfig(points=1), "--points must be at least 2.*got 1"),
        (lambda: scaling.ScalingConfig(memory=0.0), "--memory must be positive, got 0"),
    ],
    ids=["size", "encoder", "axis", "points", "memory"],
)
def test_settings_out_of_range_say_what_is_possible(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_products_are_counted_without_what_the_result_does_not_need():
    def function(x, w):
        unused = x @ w @ w
        return jax.lax.scan(lambda rows, _: (jnp.tanh(rows @ w), None), x, length=3)[0], unused.shape

    shapes = jax.ShapeDtypeStruct((4, 5), jnp.float32), jax.ShapeDtypeStruct((5, 5), jnp.float32)
    assert flops.product_gflop(lambda x, w: function(x, w)[0], *shapes) == pytest.approx(1e-9 * 3 * 2 * 4 * 5 * 5)


def test_a_step_counts_each_convolution_thrice_and_the_first_one_twice():
    config = contrastive_step.Config(batch=2, width=8)
    convolutions = convolutions_of(conv4(width=8, conv="lax"), (28, 28, 1))
    batch = {"inputs": np.zeros((2, 28, 28, 1), np.uint8)}
    found = flops.objective_gflop(contrastive_step.objective_of(config, "none", None, "lax"), batch)
    each = 3 * sum(shape.gflop for shape in convolutions) - convolutions[0].gflop
    heads = 3 * 2e-9 * (32 * 256 + 256 * 128)
    assert found == pytest.approx(4 * (each + heads) + 3 * 2e-9 * 4 * 4 * 128, rel=0.02)  # less at odd sides' edges


def tiny_work(devices):
    def grads(params, state, batch, keys, step):
        return jax.tree.map(jnp.ones_like, params), state, {"loss": batch["inputs"].mean()}

    trainable = Trainable(lambda key, batch: ({"w": jnp.zeros(3)}, {}), grads)
    return scaling.Work(trainable, {"inputs": np.ones((4, 2), np.float32)}, devices)


def test_a_point_beyond_the_memory_is_not_run_and_its_estimate_is_said(capsys):
    work = tiny_work(jax.devices()[:2])
    assert scaling.measure("batch 4", work, limit=1.0, seconds=0.0) is None
    said = " ".join(capsys.readouterr().out.split())
    assert "batch 4: stopped before it: an estimated" in said and "--memory" in said
    cells = scaling.measure("batch 4", work, limit=None, seconds=0.0)
    assert cells is not None and cells["ms"]["mean"] > 0 and cells["compiled_mb"]["mean"] > 0


def test_the_step_of_a_point_is_the_training_loops():
    work = tiny_work(jax.devices()[:2])
    compiled, start = scaling.compile_step(work)
    step, last = common.stepping(compiled, start(), work.batch, work.devices)
    step()
    params, _ = jax.jit(work.trainable.init)(None, None)
    other, expected = common.training_step(
        work.trainable, params, {}, work.batch, devices=work.devices, optimiser=optax.adam(1e-3)
    )
    other()
    np.testing.assert_array_equal(last[0].params["w"], expected[0].params["w"])


def test_an_axis_is_doubled_in_multiples_of_the_devices():
    assert scaling.values_of("batch", 3, [None] * 3) == [66, 132, 264]
    assert scaling.values_of("inner-steps", 3, [None] * 2) == [1, 2, 4]
    assert scaling.values_of("devices", 4, [None] * 6) == [1, 2, 4]


def test_memory_of_devices_that_tell_is_that_of_the_fullest():
    full, empty = (
        SimpleNamespace(platform="gpu", memory_stats=lambda used=used: {"bytes_limit": 10, "bytes_in_use": used})
        for used in (7, 1)
    )
    assert memory.available([full, empty]) == 3.0
    assert memory.available(jax.devices()) > 0


@pytest.mark.parametrize("stem", ["small", "imagenet"])
def test_pytorchs_resnet_has_our_features_from_our_weights(stem):
    torch = pytest.importorskip("torch")
    from experiments.benchmarks.torch_resnet import ResNet18
    from metarep_jax.encoders.resnet import resnet18

    images = np.random.default_rng(0).random((3, 16, 16, 3), np.float32)
    encoder = resnet18(width=2, stem=stem, conv="lax")
    random = np.random.default_rng(1)
    shapes = jax.eval_shape(encoder.init, jax.random.key(0), images)
    variables = jax.tree.map(lambda leaf: random.normal(1, 0.3, leaf.shape).astype(np.float32), shapes)
    ours, _ = encoder.apply(variables, jnp.asarray(images), mutable=["batch_stats"])
    peer = ResNet18(3, 2, stem)
    arrays = peer.arrays(variables["params"])
    with torch.no_grad():
        for name, leaf in peer.named_parameters():
            leaf.copy_(torch.from_numpy(arrays.pop(name).copy()))
        found = peer(torch.from_numpy(images).permute(0, 3, 1, 2))
    assert not arrays
    np.testing.assert_allclose(found.numpy(), ours, atol=1e-3)
