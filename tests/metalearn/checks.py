"""What the tests of meta-learners share: tiny tasks, and checks that hold for every learner."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarep_jax.metalearn.meta_gradient import meta_gradient
from metarep_jax.types import Episode, Examples, Keys

WAY = 3

compiled = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # to compile faster


def classification(seed=0, way=WAY, shot=2, query=2, dim=4):
    """A task of random inputs [way × shot, dim] with class numbers."""
    draw = np.random.default_rng(seed).standard_normal  # numpy, here and below: it has nothing to compile

    def rows(each):
        label = np.repeat(np.arange(way, dtype=np.int32), each)
        return Examples(jnp.asarray(draw((way * each, dim)), jnp.float32), jnp.asarray(label))

    return Episode(rows(shot), rows(query))


def regression(seed=0, shot=6, query=5, weights=((1.0,), (-2.0,))):
    """A task of random inputs [n, dim] with targets inputs @ weights."""
    weights = np.array(weights)
    draw = np.random.default_rng(seed).standard_normal

    def rows(n):
        inputs = draw((n, len(weights)))
        return Examples(jnp.asarray(inputs, jnp.float32), jnp.asarray(inputs @ weights, jnp.float32))

    return Episode(rows(shot), rows(query))


def start(learner, episode, seed=2, noise=0.3):
    """The learner's first parameters with noise on each, so that nothing vanishes, and its first state.

    Kernels are noise alone where there is noise: to compile their initializers would take longer than most tests.
    """

    def init(key, episode):
        params, state = learner.init(key, episode)
        return jax.tree.map_with_path(lambda path, leaf: jnp.zeros_like(leaf) if drawn(path) else leaf, params), state

    def drawn(path):
        return noise and jax.tree_util.keystr(path).endswith("['kernel']")

    params, state = compiled(init)(jax.random.key(seed), episode)
    return added(params, like(params, seed + 1), noise), state


def like(tree, seed):
    """Standard normal noise of the tree's shapes and types."""
    draw = np.random.default_rng(seed).standard_normal
    return jax.tree.map(lambda leaf: draw(leaf.shape).astype(leaf.dtype), tree)


def added(tree, direction, size):
    return jax.tree.map(lambda leaf, along: jnp.asarray(np.asarray(leaf) + size * along, leaf.dtype), tree, direction)


def furthest(first, second):
    """The largest difference between two trees."""
    return max(jax.tree.leaves(jax.tree.map(lambda a, b: np.abs(np.asarray(a) - np.asarray(b)).max(), first, second)))


def check_refused(learner, episode, match):
    """Asserts that ``init`` raises a ValueError for this task, before anything is compiled."""
    with pytest.raises(ValueError, match=match):
        jax.eval_shape(learner.init, jax.random.key(0), episode)


def one(tree):
    """A batch of one."""
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[None]), tree)


def one_gradient(learner, params, state, episode):
    """``grads, state, metrics`` of the meta-gradient of one task, compiled."""
    keys = Keys(jax.random.split(jax.random.key(0), 1), jax.random.key(0))
    step = compiled(learner.meta_grad or meta_gradient(learner))
    return step(params, state, one(episode), keys, 0)


def adapted(learner, params, state, episode, ctx=None):
    """The task that the learner adapts to, and its outputs for the queries, compiled; ``ctx`` None: that of a test."""

    def both(params, state, episode):
        context = ctx or learner.test_context
        task = learner.adapt(params, state, episode.support, jax.random.key(0), context)
        return task, learner.predict(params, state, task, episode.query.inputs, context)

    return compiled(both)(params, state, episode)


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
        episode = jax.tree.map(double, episode)
        params, state = jax.tree.map(double, start(learner, episode, seed))
        direction = like(params, seed + 2)
        keys = Keys(jax.random.split(jax.random.key(seed), 1), jax.random.key(seed))
        meta_grad = learner.meta_grad or meta_gradient(learner)
        step = compiled(lambda params: meta_grad(params, state, one(episode), keys, 0))

        def loss(along):
            return float(step(added(params, direction, along))[2]["loss"])

        products = jax.tree.map(np.vdot, step(params)[0], direction)
        return float(sum(jax.tree.leaves(products))), (loss(size) - loss(-size)) / (2 * size)


def check_meta_gradient(learner, episode, *, rtol=1e-6, **how):
    """Asserts that the meta-gradient is the derivative of the loss after adaptation; see ``slopes``."""
    found, wanted = slopes(learner, episode, **how)
    assert abs(wanted) > 1e-4, "the loss hardly changes along this direction: nothing is tested"
    np.testing.assert_allclose(found, wanted, rtol=rtol)


def check_padding(learner, episode, norm, steps=None):
    """Asserts that masked rows of support and queries change no answer; ``steps`` None: as many as at test."""
    params, state = start(learner, episode)
    ctx = dataclasses.replace(learner.test_context, norm=norm, inner_steps=steps)
    output = "logits" if jnp.issubdtype(episode.support.label.dtype, jnp.integer) else "mean"

    def padded(rows, value):
        rows = np.asarray(rows)
        return np.concatenate([rows, np.full((2, *rows.shape[1:]), value, rows.dtype)])

    @compiled
    def answers(support, inputs, mask):
        task = learner.adapt(params, state, support, jax.random.key(0), ctx)
        return learner.predict(params, state, task, inputs, ctx, mask=mask)[output]

    support, inputs = episode.support, episode.query.inputs
    n, queries = len(support.label), len(inputs)
    wide = Examples(padded(support.inputs, 30.0), padded(support.label, 1), np.arange(n + 2) < n)
    found = np.asarray(answers(wide, padded(inputs, 20.0), np.arange(queries + 2) < queries))
    np.testing.assert_allclose(found[:queries], answers(support, inputs, None), rtol=1e-3, atol=1e-4)


def double(leaf):
    """A floating array in float64; any other as it is."""
    return jnp.asarray(np.asarray(leaf, np.float64)) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf
