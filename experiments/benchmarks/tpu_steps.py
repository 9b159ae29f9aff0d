"""The training steps that ``ahead_of_time`` compiles: what each trains, and the arrays that its batches come from.

Shapes stand for data: nothing is computed. Encoders are made as a run on a TPU makes them, in bfloat16.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from metarep_jax.data import batch_feed, episode_feed, make_augment
from metarep_jax.distill import classifier, distil_few_shot, frozen_teacher, loss_of, make_loss, train_classifier
from metarep_jax.encoders import EncoderConfig, make_encoder
from metarep_jax.metalearn.maml import maml
from metarep_jax.metalearn.prototypical import prototypical
from metarep_jax.pretrain import OBJECTIVES
from metarep_jax.train import AXIS, compute_dtype, meta_learning, pretraining
from metarep_jax.types import EpisodeSpec, Feed, MetaLearner, Pool, Trainable, episode_of

CLASSES, EACH, SIDE = 964, 20, 28  # of Omniglot's background alphabets, at the size that the literature takes
TEACHER, STUDENT = 64, 18  # filters of Conv4, as in the distillation stage's defaults


class Step(NamedTuple):
    """What is trained, where its global batches come from, and what it is, in words."""

    trainable: Trainable
    feed: Feed
    what: str


class Shapes:
    """A reader without images: what ``fit`` takes from a stream are their shapes."""

    def __init__(self, rows: int, side: int):
        self._batch = {"inputs": np.zeros((rows, side, side, 3), np.uint8)}

    def __iter__(self) -> Iterator[PyTree]:
        return self

    def __next__(self) -> PyTree:
        return self._batch

    def get_state(self) -> bytes:
        """It has no position."""
        return b""

    def set_state(self, state: bytes) -> None:
        """It has no position."""


def omniglot() -> Any:
    """The shapes of Omniglot's training pool."""
    return pool_of(CLASSES, EACH, (SIDE, SIDE, 1))


def pool_of(classes: int, each: int, image: tuple[int, ...]) -> Any:
    """The shapes of a pool of so many images of each class."""
    shapes = ((classes * each, *image), (classes * each,), (classes, each), (classes,))
    leaves: Any = map(jax.ShapeDtypeStruct, shapes, (np.uint8, np.int32, np.int32, np.int32))
    return Pool(*leaves)


def encoder_of(name: str = "conv4", **settings: Any) -> Any:
    """An encoder whose batch statistics are those of all devices."""
    return make_encoder(EncoderConfig(name, **settings), axis_name=AXIS, dtype=compute_dtype())


def on_glyphs(objective: str, batch: int = 256) -> Step:
    """A contrastive objective or one like it, on warped views of small images that lie on the device."""
    made = OBJECTIVES[objective](encoder_of(), augment=make_augment("glyph"), axis_name=AXIS)
    return Step(pretraining(made), batch_feed(omniglot(), batch), f"Conv4-64, {batch} of {SIDE}×{SIDE}, views by warp")


def on_photos(name: str, batch: int, side: int = 224) -> Step:
    """SimCLR of a residual network, on streamed photographs."""
    encoder = encoder_of(name, stem="imagenet")
    made = OBJECTIVES["simclr"](encoder, augment=make_augment("simclr"), axis_name=AXIS)
    return Step(pretraining(made), streamed(batch, side), f"{name}, {batch} of {side}×{side}")


def masked(batch: int = 256, side: int = 224) -> Step:
    """MAE of a ViT-B/16, with the paper's decoder."""
    encoder = encoder_of("vit", patch=16, width=768, depth=12, heads=12, readout="cls")
    made = OBJECTIVES["mae"](encoder, decoder_width=512, decoder_depth=8, decoder_heads=16)
    return Step(pretraining(made), streamed(batch, side), f"ViT-B/16, decoder 8 × 512, {batch} of {side}×{side}")


def streamed(batch: int, side: int) -> Feed:
    """Batches of photographs from a reader on the host."""
    return Feed(batch, None, reader=Shapes(batch, side))


def adapted(conv: str = "auto", steps: int = 5, tasks: int = 32) -> Step:
    """Second-order MAML of Conv4."""
    encoder = make_encoder(EncoderConfig(readout="mean"), dtype=compute_dtype(), adapted=True, conv=conv)
    spec = EpisodeSpec(way=5, shot=1, query=15)
    learner = maml(encoder, way=spec.way, inner_steps=steps)
    what = f"Conv4-64, {tasks} tasks 5-way 1-shot, 15 queries, {steps} inner steps"
    return Step(meta_learning(learner, spec), episode_feed(omniglot(), spec, tasks), what)


def adapted_resnet12(conv: str = "auto", steps: int = 5, tasks: int = 4, side: int = 84) -> Step:
    """Second-order MAML of ResNet-12."""
    encoder = make_encoder(EncoderConfig("resnet12"), dtype=compute_dtype(), adapted=True, conv=conv)
    spec, pool = EpisodeSpec(way=5, shot=1, query=15), pool_of(64, 600, (side, side, 3))  # miniImageNet's
    learner = maml(encoder, way=spec.way, inner_steps=steps)
    what = f"ResNet-12 at {side}×{side}, {tasks} tasks 5-way 1-shot, 15 queries, {steps} inner steps"
    return Step(meta_learning(learner, spec), episode_feed(pool, spec, tasks), what)


def by_prototypes(way: int = 60, tasks: int = 4) -> Step:
    """Prototypical Networks of Conv4."""
    spec = EpisodeSpec(way=way, shot=1, query=5)
    learner = prototypical(make_encoder(EncoderConfig(), dtype=compute_dtype()), way=way)
    what = f"Conv4-64, {tasks} tasks {way}-way 1-shot, 5 queries"
    return Step(meta_learning(learner, spec), episode_feed(omniglot(), spec, tasks), what)


def distilled_few_shot(way: int = 20, tasks: int = 4) -> Step:
    """Few-shot distillation: a narrow student on its teacher's episodes, both prototypical."""
    spec = EpisodeSpec(way=way, shot=1, query=5)

    def learner(width: int) -> MetaLearner:
        return prototypical(make_encoder(EncoderConfig(width=width), dtype=compute_dtype()), way=way)

    teacher = learner(TEACHER)
    params, state = weights(lambda key: teacher.init(key, episode_of(spec, jnp.zeros((1, SIDE, SIDE, 1), jnp.uint8))))
    loss = make_loss(loss_of({"cross_entropy": 1.0, "soft_targets": 1.0}))
    what = f"Conv4-{STUDENT} of Conv4-{TEACHER}, {tasks} tasks {way}-way 1-shot, 5 queries"
    return Step(
        distil_few_shot(learner(STUDENT), teacher, params, state, loss), episode_feed(omniglot(), spec, tasks), what
    )


def distilled_classes(batch: int = 256) -> Step:
    """Distillation of a classifier into a narrow one."""
    teacher = classifier(make_encoder(EncoderConfig(width=TEACHER), dtype=compute_dtype()), CLASSES)
    params, state = weights(lambda key: teacher.init(key, jnp.zeros((1, SIDE, SIDE, 1), jnp.uint8)))
    student = classifier(encoder_of(width=STUDENT), CLASSES)
    loss = make_loss(loss_of({"cross_entropy": 1.0, "soft_targets": 1.0}), axis_name=AXIS)
    trainable = train_classifier(
        student, loss, teacher=frozen_teacher(teacher, params, state), augment=make_augment("glyph"), axis_name=AXIS
    )
    what = f"Conv4-{STUDENT} of Conv4-{TEACHER}, {CLASSES} classes, {batch} of {SIDE}×{SIDE}"
    return Step(trainable, batch_feed(omniglot(), batch), what)


def weights(init: Callable[[Any], PyTree]) -> PyTree:
    """Random numbers in the place of trained parameters and state, which the compiler must not know to be zero."""
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(init, jax.random.key(0))
    return jax.tree.map(lambda leaf: random.random(leaf.shape, np.float32).astype(leaf.dtype), shapes)


STEPS: dict[str, Callable[[], Step]] = {
    "simclr_conv4": lambda: on_glyphs("simclr"),
    "simclr_resnet18": lambda: on_photos("resnet18", 256),
    "moco_conv4": lambda: on_glyphs("moco"),
    "byol_conv4": lambda: on_glyphs("byol"),
    "mae_vit_b16": masked,
    "maml_conv4": adapted,
    "maml_conv4_native": lambda: adapted(conv="lax"),
    "maml_resnet12": adapted_resnet12,
    "maml_resnet12_native": lambda: adapted_resnet12(conv="lax"),
    "prototypical_conv4": by_prototypes,
    "distil_few_shot": distilled_few_shot,
    "distil_classes": distilled_classes,
    "simclr_resnet50": lambda: on_photos("resnet50", 4096),
}
