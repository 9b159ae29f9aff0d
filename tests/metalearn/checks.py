"""What the tests of meta-learners share: tiny tasks, and checks that hold for every learner."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from metarep_jax.metalearn.base import meta_gradient
from metarep_jax.types import Episode, Examples, Keys

WAY = 3


def classification(seed=0, way=WAY, shot=2, query=2, dim=4):
    """A task of random inputs [way × shot, dim] with class numbers."""
    keys = jax.random.split(jax.random.key(seed))

    def rows(key, each):
        return Examples(jax.random.normal(key, (way * each, dim)), jnp.repeat(jnp.arange(way), each))

    return Episode(rows(keys[0], shot), rows(keys[1], query))


def regression(seed=0, shot=6, query=5, weights=((1.0,), (-2.0,))):
    """A task of random inputs [n, dim] with targets inputs @ weights."""
    weights = jnp.array(weights)
    keys = jax.random.split(jax.random.key(seed))

    def rows(key, n):
        inputs = jax.random.normal(key, (n, len(weights)))
        return Examples(inputs, inputs @ weights)

    return Episode(rows(keys[0], shot), rows(keys[1], query))


def start(learner, episode, seed=2, noise=0.3):
    """The learner's first parameters with noise on each, so that nothing vanishes, and its first state."""
    params, state = learner.init(jax.random.key(seed), episode)
    return added(params, like(params, seed + 1), noise), state


def like(tree, seed):
    """Standard normal noise of the tree's shapes and types."""
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(jax.random.key(seed), max(len(leaves), 1))
    draws = [jax.random.normal(key, leaf.shape, leaf.dtype) for key, leaf in zip(keys, leaves, strict=False)]
    return jax.tree.unflatten(structure, draws)


def added(tree, direction, size):
    return jax.tree.map(lambda leaf, along: leaf + size * along, tree, direction)


def one(tree):
    """A batch of one."""
    return jax.tree.map(lambda leaf: leaf[None], tree)


def one_gradient(learner, params, state, episode):
    """``grads, state, metrics`` of the meta-gradient of one task, compiled."""
    keys = Keys(jax.random.split(jax.random.key(0), 1), jax.random.key(0))
    step = jax.jit(learner.meta_grad or meta_gradient(learner))
    return step(params, state, one(episode), keys, 0)


def slopes(learner, episode, *, seed=2, size=1e-6):
    """The meta-gradient along a random direction, and the central difference of the reported loss; in float64.

    Args:
      learner: its encoder must compute in float64 (``dtype=jnp.float64``).
      episode: one task, in any precision.
      seed: of the parameters, of the direction and of the learner's own randomness.
      size: half the distance between the two losses.

    Both sides come from one compiled function, so that a check costs one compilation.
    """
    with jax.enable_x64(True):
        episode = jax.tree.map(_double, episode)
        params, state = jax.tree.map(_double, start(learner, episode, seed))
        direction = like(params, seed + 2)
        keys = Keys(jax.random.split(jax.random.key(seed), 1), jax.random.key(seed))
        meta_grad = learner.meta_grad or meta_gradient(learner)
        step = jax.jit(lambda params: meta_grad(params, state, one(episode), keys, 0))

        def loss(along):
            return float(step(added(params, direction, along))[2]["loss"])

        products = jax.tree.map(jnp.vdot, step(params)[0], direction)
        return float(sum(jax.tree.leaves(products))), (loss(size) - loss(-size)) / (2 * size)


def check_meta_gradient(learner, episode, *, rtol=1e-6, **how):
    """Asserts that the meta-gradient is the derivative of the loss after adaptation; see ``slopes``."""
    found, wanted = slopes(learner, episode, **how)
    assert abs(wanted) > 1e-4, "the loss hardly changes along this direction: nothing is tested"
    np.testing.assert_allclose(found, wanted, rtol=rtol)


def check_padding(learner, episode, norm):
    """Asserts that masked rows of support and queries change no answer."""
    params, state = start(learner, episode)
    ctx = dataclasses.replace(learner.test_context, norm=norm)
    output = "logits" if jnp.issubdtype(episode.support.label.dtype, jnp.integer) else "mean"

    def padded(rows, value):
        return jnp.concatenate([rows, jnp.full((2, *rows.shape[1:]), value, rows.dtype)])

    @jax.jit
    def answers(support, inputs, mask):
        task = learner.adapt(params, state, support, jax.random.key(0), ctx)
        return learner.predict(params, state, task, inputs, ctx, mask=mask)[output]

    support, inputs = episode.support, episode.query.inputs
    n, queries = len(support.label), len(inputs)
    wide = Examples(padded(support.inputs, 30.0), padded(support.label, 1), jnp.arange(n + 2) < n)
    found = answers(wide, padded(inputs, 20.0), jnp.arange(queries + 2) < queries)
    np.testing.assert_allclose(found[:queries], answers(support, inputs, None), rtol=1e-3, atol=1e-4)


def _double(leaf):
    return leaf.astype(jnp.float64) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf
