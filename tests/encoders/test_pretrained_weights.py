"""Weights from elsewhere give the features that they give there; other files are refused with what is wrong in them.

The comparison with PyTorch needs the extra ``peers`` and is skipped without.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from metarep_jax.encoders import EncoderConfig, make_encoder, read_pretrained
from metarep_jax.encoders.layers import IMAGENET_MEAN, IMAGENET_STD

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
RESNET = {"resnet18": ((2, 2, 2, 2), False), "resnet34": ((3, 4, 6, 3), False), "resnet50": ((3, 4, 6, 3), True)}


def features(pretrained, images):
    encoder = make_encoder(pretrained.encoder)
    return jax.jit(lambda images: encoder.apply(pretrained.variables, images, running=True))(jnp.asarray(images))


def torch_features(torch, module, images, mean, std):
    pixels = (images / 255 - np.array(mean)) / np.array(std)
    with torch.no_grad():
        return module(torch.tensor(pixels, dtype=torch.float32).permute(0, 3, 1, 2)).numpy()


def saved_by_torch(torch, module, path):
    pytest.importorskip("safetensors.torch").save_file(module.state_dict(), path)
    return path


@pytest.mark.parametrize("name", RESNET)
def test_features_of_a_resnet_are_those_of_pytorch(tmp_path, name):
    torch = pytest.importorskip("torch", reason="needs PyTorch: pip install -e .[peers]")
    from torch_networks import ResNet, randomise

    torch.manual_seed(0)
    module = randomise(ResNet(*RESNET[name], width=8))
    pretrained = read_pretrained(saved_by_torch(torch, module, tmp_path / "resnet.safetensors"))
    assert pretrained.encoder == EncoderConfig(name, width=8, stem="imagenet", mean=IMAGENET_MEAN, std=IMAGENET_STD)
    assert pretrained.image_size == 224
    wanted = torch_features(torch, module, IMAGES, IMAGENET_MEAN, IMAGENET_STD)
    np.testing.assert_allclose(features(pretrained, IMAGES), wanted, atol=1e-5 * np.abs(wanted).max())


def test_features_of_a_vision_transformer_are_those_of_pytorch(tmp_path):
    torch = pytest.importorskip("torch", reason="needs PyTorch: pip install -e .[peers]")
    from torch_networks import VisionTransformer, randomise

    torch.manual_seed(0)
    module = randomise(VisionTransformer(size=64, patch=16))
    path = saved_by_torch(torch, module, tmp_path / "vit.safetensors")
    with pytest.raises(ValueError, match="of width 24 is none of the usual ones; give heads= of its attention"):
        read_pretrained(path)
    pretrained = read_pretrained(path, heads=3)
    assert pretrained.image_size == 64
    assert pretrained.encoder.get("positions") == "learned" and pretrained.encoder.get("gelu") == "exact"
    wanted = torch_features(torch, module, IMAGES, (0.5,) * 3, (0.5,) * 3)
    np.testing.assert_allclose(features(pretrained, IMAGES), wanted, atol=1e-5 * np.abs(wanted).max())
    with pytest.raises(ValueError, match="its positions are of images of 64 pixels a side, not 32"):
        read_pretrained(path, heads=3, image_size=32)


@pytest.fixture(scope="module")
def tensors():
    """A ResNet-18 of width 2 as torchvision names its tensors."""
    random = np.random.default_rng(1)

    def norm(name, width):
        values = {key: random.uniform(0.5, 1.5, width) for key in ("weight", "bias", "running_mean", "running_var")}
        return {f"{name}.{key}": value for key, value in values.items()} | {f"{name}.num_batches_tracked": np.int64(3)}

    def conv(name, before, after, size):
        return {f"{name}.weight": random.normal(size=(after, before, size, size))}

    found = conv("conv1", 3, 2, 7) | norm("bn1", 2) | {"fc.weight": np.ones((5, 16)), "fc.bias": np.ones(5)}
    before = 2
    for stage, width in enumerate((2, 4, 8, 16), start=1):
        for block in range(2):
            name = f"layer{stage}.{block}"
            found |= conv(f"{name}.conv1", before, width, 3) | norm(f"{name}.bn1", width)
            found |= conv(f"{name}.conv2", width, width, 3) | norm(f"{name}.bn2", width)
            if before != width:
                found |= conv(f"{name}.downsample.0", before, width, 1) | norm(f"{name}.downsample.1", width)
            before = width
    return {name: np.asarray(value, np.float32) for name, value in found.items()}


def written(tmp_path, tensors):
    save_file(tensors, tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


def test_every_tensor_but_the_classifiers_is_used(tmp_path, tensors):
    pretrained = read_pretrained(written(tmp_path, tensors))
    params, stats = pretrained.variables["params"], pretrained.variables["batch_stats"]
    np.testing.assert_array_equal(params["Conv_0"]["kernel"][1, 2, 0, 1], tensors["conv1.weight"][1, 0, 1, 2])
    np.testing.assert_array_equal(
        params["BasicBlock_2"]["shortcut_norm"]["bias"], tensors["layer2.0.downsample.1.bias"]
    )
    np.testing.assert_array_equal(stats["BasicBlock_7"]["Norm_1"]["var"], tensors["layer4.1.bn2.running_var"])
    used = sum(leaf.size for leaf in jax.tree.leaves(pretrained.variables))
    unused = ("fc.", "num_batches_tracked")
    assert used == sum(value.size for name, value in tensors.items() if not any(word in name for word in unused))


def test_preprocessing_is_the_networks_own_that_of_the_config_beside_it_or_what_is_asked_for(tmp_path, tensors):
    path = written(tmp_path, tensors)
    half = {"mean": [0.5, 0.4, 0.3], "std": [0.5, 0.5, 0.5], "input_size": [3, 160, 160]}
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet18", "pretrained_cfg": half}))
    pretrained = read_pretrained(path)
    assert pretrained.encoder.get("mean") == (0.5, 0.4, 0.3) and pretrained.image_size == 160
    asked = read_pretrained(path, mean=0.1, image_size=64)
    assert (asked.encoder.get("mean"), asked.encoder.get("std"), asked.image_size) == (0.1, (0.5, 0.5, 0.5), 64)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"weights.safetensors: the config.json beside it cannot be read"):
        read_pretrained(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bn1.weight": None, "layer4.1.conv2.weight": None}, "are missing: bn1.weight, layer4.1.conv2.weight"),
        ({"layer1.0.se.weight": np.ones(2)}, "are left over, so that it must be another network: layer1.0.se.weight"),
        (
            {"layer3.2.conv1.weight": np.ones(2)},
            r"a ResNet of \(2, 2, 3, 2\) basic blocks is none of resnet18, resnet34",
        ),
        ({"conv1.weight": np.ones((2, 3, 3, 3))}, r"shape of conv1.weight \(2, 3, 3, 3\) does not fit Conv_0/kernel"),
        ({"layer1.0.conv1.weight": None}, "neither a torchvision ResNet-18/34/50 nor a timm Vision Transformer; its"),
    ],
)
def test_weights_of_another_network_are_refused_by_the_names_of_their_tensors(tmp_path, tensors, changes, message):
    changed = {**tensors, **changes}
    path = written(tmp_path, {name: value for name, value in changed.items() if value is not None})
    with pytest.raises(ValueError, match=f"weights.safetensors: .*{message}"):
        read_pretrained(path)


def test_heads_are_of_vision_transformers_alone(tmp_path, tensors):
    with pytest.raises(ValueError, match="heads=2 is of a Vision Transformer, but it holds a ResNet"):
        read_pretrained(written(tmp_path, tensors), heads=2)
