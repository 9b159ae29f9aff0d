"""Weights from elsewhere: torchvision's ResNet-18/34/50 and timm's Vision Transformers, saved as safetensors."""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from metarep_jax.encoders.config import EncoderConfig, make_encoder
from metarep_jax.encoders.layers import PerChannel
from metarep_jax.encoders.pretrained_layouts import Source, Tensors, Way, network_of, some_of
from metarep_jax.encoders.tensor_files import read_tensors

UNUSED = re.compile(r"(fc|head)\.(weight|bias)|.*\.num_batches_tracked")  # the classifier, and counts of steps


class PretrainedEncoder(NamedTuple):
    """An encoder with its weights: ``make_encoder(encoder).apply(variables, images, running=True)``.

    ``encoder`` holds the mean and deviation of images that the weights expect, ``image_size`` their pixels a side.
    """

    encoder: EncoderConfig
    variables: PyTree
    image_size: int


def read_pretrained(
    path: Path | str,
    *,
    mean: PerChannel | None = None,
    std: PerChannel | None = None,
    image_size: int | None = None,
    heads: int | None = None,
) -> PretrainedEncoder:
    """The encoder whose weights a safetensors file holds: the ``state_dict()`` of a ResNet or a Vision Transformer.

    Its features are those of the network before its classifier, which is left out. Which network it is follows from
    the names and shapes. Where the model hub's ``config.json`` lies beside the file, its preprocessing counts.

    Args:
      path: of the file.
      mean, std: of images in [0, 1], by channel; None: what ``config.json`` says, else ImageNet's for a ResNet, and
        0.5 for a Vision Transformer (as timm's own; DeiT's and DINO's take ImageNet's).
      image_size: pixels a side; None: what ``config.json`` says, else 224; a Vision Transformer's positions fix it.
      heads: of a Vision Transformer's attention; None: as many as have 64 numbers each.

    Raises:
      ValueError: for a pickle, another architecture, or tensors that are missing, too many or of another shape: the
        message names them.
      FileNotFoundError: where there is no file.

    References:
      https://github.com/pytorch/vision (models/resnet.py) and https://github.com/huggingface/pytorch-image-models
      (models/vision_transformer.py) for the names of the tensors.
    """
    path = Path(path).expanduser()
    tensors = {name: value for name, value in read_tensors(path)[0].items() if not UNUSED.fullmatch(name)}
    try:
        network, hub = network_of(tensors, heads), _hub_settings(path)
        if network.image_size is not None and image_size not in (None, network.image_size):
            raise ValueError(f"its positions are of images of {network.image_size} pixels a side, not {image_size}")
        size = network.image_size or image_size or hub.get("image_size", 224)
        pixels = {
            "mean": mean if mean is not None else hub.get("mean", network.encoder.get("mean")),
            "std": std if std is not None else hub.get("std", network.encoder.get("std")),
        }
        encoder = dataclasses.replace(network.encoder, **pixels)
        blank = jax.ShapeDtypeStruct((1, size, size, network.channels), jnp.float32)
        wanted = jax.eval_shape(make_encoder(encoder).init, jax.random.key(0), blank)
        return PretrainedEncoder(encoder, _variables(wanted, tensors, network.source), size)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error


def _variables(wanted: PyTree, tensors: Tensors, source: Callable[[Way], Source]) -> PyTree:
    """The tree ``wanted`` of shapes, filled from ``tensors``, all of which it must use."""
    paths, structure = jax.tree.flatten_with_path(wanted)
    shapes = {tuple(part.key for part in path): leaf.shape for path, leaf in paths}
    sources = {way: source(way) for way in shapes}
    needed = {name for names, _ in sources.values() for name in names}
    if missing := needed - tensors.keys():
        raise ValueError(f"tensors are missing: {some_of(missing)}")
    if extra := tensors.keys() - needed:
        raise ValueError(f"tensors are left over, so that it must be another network: {some_of(extra)}")
    leaves = []
    for way, (names, make) in sources.items():
        given = [np.asarray(tensors[name], np.float32) for name in names]
        try:
            value = make(*given)
        except (ValueError, IndexError):
            value = np.zeros(0)
        if value.shape != shapes[way]:
            of = " and ".join(f"{name} {tensors[name].shape}" for name in names)
            raise ValueError(f"the shape of {of} does not fit {'/'.join(way[1:])}, which is {shapes[way]}")
        leaves.append(jnp.asarray(value))
    return jax.tree.unflatten(structure, leaves)


def _hub_settings(path: Path) -> dict[str, Any]:
    """What the model hub's ``config.json`` beside the file says of preprocessing; nothing where there is none."""
    beside = path.with_name("config.json")
    if not beside.is_file():
        return {}
    try:
        said = json.loads(beside.read_text()).get("pretrained_cfg", {})
        sizes = {"image_size": int(said["input_size"][1])} if "input_size" in said else {}
        return sizes | {key: tuple(map(float, said[key])) for key in ("mean", "std") if key in said}
    except (ValueError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"the config.json beside it cannot be read: {error}") from error
