"""Loss, gradient and updated parameters on 1, 2, 4 and 8 devices are those of one function of the whole batch."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metarep_jax.distill import cross_entropy, distil_few_shot
from metarep_jax.encoders import EncoderConfig, make_encoder
from metarep_jax.encoders.mlp import MLP
from metarep_jax.metalearn import LearnerConfig, make_learner
from metarep_jax.pretrain import simclr
from metarep_jax.train import AXIS, meta_learning, pretraining
from metarep_jax.train.parallel import map_step, replicate, unreplicate
from metarep_jax.train.step import Roots, initial_state, make_roots, make_update
from metarep_jax.types import EpisodeSpec, Keys, episode_of

SIZE, RATE = 16, 0.1
IMAGES = jax.random.normal(jax.random.key(1), (SIZE, 8, 8, 1))
SPEC = EpisodeSpec(way=2, shot=1, query=2)
ENCODER = EncoderConfig(name="mlp", width=6)


def noisy(keys, images):
    """Views that depend on their key, by a rule that compiles fast."""
    phase = jax.random.key_data(keys).astype(jnp.float32) / 2**30
    return images + 0.3 * jnp.sin(phase[:, :1, None, None] + images * phase[:, 1:, None, None])


def contrastive(encoder, axis_name):
    return pretraining(simclr(encoder(axis_name), augment=noisy, hidden=8, out=4, axis_name=axis_name))


def learner(name):
    return make_learner(LearnerConfig(name=name, inner_steps=1), make_encoder(ENCODER), way=SPEC.way)


def taught(axis_name):
    del axis_name
    teacher = learner("prototypical")
    params, state = teacher.init(jax.random.key(5), episode_of(SPEC, IMAGES))
    return distil_few_shot(learner("maml"), teacher, params, state, cross_entropy())


def image_batch():
    return {"inputs": IMAGES, "index": jnp.arange(SIZE)}


def episode_batch():
    rows = jax.random.normal(jax.random.key(2), (SIZE, 6, 8, 8, 1))
    episode = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (SIZE, *leaf.shape)), episode_of(SPEC, IMAGES))
    support = episode.support._replace(inputs=rows[:, :2])
    return episode._replace(support=support, query=episode.query._replace(inputs=rows[:, 2:]))


STAGES = {
    "SimCLR, MLP": (partial(contrastive, lambda axis: MLP(widths=(8, 6), norm="batch", axis_name=axis)), image_batch),
    "SimCLR, Conv4": (
        partial(contrastive, lambda axis: make_encoder(EncoderConfig(name="conv4", width=4), axis_name=axis)),
        image_batch,
    ),
    "MAML": (lambda axis: meta_learning(learner("maml"), SPEC), episode_batch),
    "prototypical networks": (lambda axis: meta_learning(learner("prototypical"), SPEC), episode_batch),
    "distillation": (taught, episode_batch),
}


def updated(trainable, batch, train, devices):
    """One update by plain gradient descent."""

    def batch_at(source, root, turn, step, micro, part):
        each = SIZE // len(devices)
        return jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, part * each, each), source)

    update = make_update(trainable, optax.sgd(RATE), batch_at, size=SIZE, shards=len(devices))
    step = map_step(lambda train, source, roots: update(train, source, roots, jnp.int32(0)), devices)
    return unreplicate(step(replicate(train, devices), replicate(batch, devices), make_roots([3])))


@pytest.mark.parametrize(
    ("stage", "counts"),
    [
        ("SimCLR, MLP", (2, 8)),
        ("MAML", (8,)),
        *(pytest.param(stage, (1, 2, 4, 8), marks=pytest.mark.slow) for stage in STAGES),
    ],
)
def test_any_number_of_devices_computes_the_same_update(stage, counts):
    make, batch = STAGES[stage][0], STAGES[stage][1]()
    roots: Roots = make_roots([3])
    train = jax.jit(lambda: initial_state(make(None), optax.sgd(RATE), roots, batch, False))()
    key = jax.random.fold_in(roots.step, 0)
    keys = Keys(jax.random.split(key, SIZE), jax.random.fold_in(key, 2**31 - 1))
    grads, state, metrics = jax.jit(make(None).grads)(train.params, train.state, batch, keys, 0)
    assert optax.tree.norm(grads) > 1e-3
    for count in counts:
        after, found = updated(make(AXIS), batch, train, jax.devices()[:count])
        np.testing.assert_allclose(found["loss"], metrics["loss"], rtol=2e-5)
        np.testing.assert_allclose(found["gradient_norm"], optax.tree.norm(grads), rtol=1e-4)
        gradient = jax.tree.map(lambda old, new: (old - new) / RATE, train.params, after.params)
        for one, other in zip(jax.tree.leaves(gradient), jax.tree.leaves(grads), strict=True):
            np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-5)
        for one, other in zip(jax.tree.leaves(after.state), jax.tree.leaves(state), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
