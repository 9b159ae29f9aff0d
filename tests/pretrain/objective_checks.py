"""What the tests of image objectives share: tiny images and views, and the check that devices do not matter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarep_jax.encoders.mlp import MLP
from metarep_jax.pretrain.queue import Queue
from metarep_jax.train.parallel import AXIS, mean_over_devices
from metarep_jax.types import Keys

SIZE, RATE = 32, 0.5
BATCH = {
    "inputs": jax.random.normal(jax.random.key(1), (SIZE, 6)),
    "index": jnp.asarray(np.arange(SIZE)),
    "label": jnp.asarray(np.arange(SIZE) % 5),
}
KEYS = Keys(jax.random.split(jax.random.key(2), SIZE), jax.random.key(3))
all_devices = pytest.mark.parametrize(  # eight tell what there is to tell; others compile as much again
    "count", [n if n == 8 else pytest.param(n, marks=pytest.mark.slow) for n in (1, 2, 4, 8)]
)


def encoder(axis_name=None, norm="batch"):
    return MLP(widths=(5,), norm=norm, axis_name=axis_name)


def noisy(keys, images):
    """Views that depend on their key, by a rule that compiles fast."""
    phase = jax.random.key_data(keys).astype(jnp.float32) / 2**30
    return images + 0.3 * jnp.sin(phase[:, :1] + images * phase[:, 1:])


def plain(keys, images):
    """Views that are the images."""
    del keys
    return images


def started(objective, batch=BATCH):
    """Params and state of the right shapes, by numbers that need no compilation; the teacher is not the student."""
    random = np.random.default_rng(0)

    def fill(path, leaf):
        name = jax.tree_util.keystr(path)
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return np.zeros(leaf.shape, leaf.dtype)
        if name.endswith(("['mean']", "['centre']")):
            return np.zeros(leaf.shape, np.float32)
        if name.endswith(("['var']", "['scale']")):
            return np.ones(leaf.shape, np.float32)
        return np.asarray(random.normal(size=leaf.shape) / np.sqrt(leaf.shape[0]), np.float32)

    shapes = jax.eval_shape(objective.init, jax.random.key(5), batch)
    params, state = jax.tree.map_with_path(fill, shapes)
    queue = state.get("queue")
    if queue is not None:
        lengths = np.linalg.norm(queue.rows, axis=1, keepdims=True)
        state = {**state, "queue": Queue(queue.rows / lengths, queue.place)}
    return jax.tree.map(jnp.asarray, (params, state))


def gradients(objective):
    """``(params, state, batch, keys) -> grads, new state, metrics`` of the first step."""

    def grads(params, state, batch, keys):
        (loss, (state, metrics)), grads = jax.value_and_grad(objective.loss, has_aux=True)(
            params, state, batch, keys, 0
        )
        return grads, state, {"loss": loss, **metrics}

    return grads


def check_devices(make, count, batch=BATCH):
    """An objective's gradient and new state on ``count`` devices are those of the whole batch.

    ``make``: axis name -> objective; ``batch``: of ``SIZE`` rows. The update and ``after_update`` follow from them
    without the devices meeting.
    """
    params, state = started(make(None), batch)
    grads, moved, metrics = jax.device_get(jax.jit(gradients(make(None)))(params, state, batch, KEYS))
    most = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(grads))
    assert most > 1e-3

    def local(params, state, batch, example, shared):
        return mean_over_devices(gradients(make(AXIS))(params, state, batch, Keys(example, shared)))

    mapped = jax.pmap(local, AXIS, in_axes=(None, None, 0, 0, None), devices=jax.devices()[:count])
    batch = jax.tree.map(lambda leaf: np.reshape(leaf, (count, SIZE // count, *leaf.shape[1:])), jax.device_get(batch))
    example = KEYS.example.reshape(count, SIZE // count)
    everywhere = jax.device_get(mapped(params, state, batch, example, KEYS.shared))
    for found in (jax.tree.map(lambda leaf, device=device: leaf[device], everywhere) for device in range(count)):
        for name, value in metrics.items():
            ties = 1.01 / (2 * SIZE) if "accuracy" in name else 1e-5  # rounding decides between two equal candidates
            np.testing.assert_allclose(found[2][name], value, rtol=1e-4, atol=ties, err_msg=name)
        for tree, wanted, scale in ((found[0], grads, most), (found[1], moved, 1.0)):
            for (path, one), other in zip(jax.tree.leaves_with_path(tree), jax.tree.leaves(wanted), strict=True):
                name = jax.tree_util.keystr(path)
                np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * scale, err_msg=name)


def cosine(one, other):
    """The mean cosine between rows."""
    lengths = jnp.linalg.norm(one, axis=-1) * jnp.linalg.norm(other, axis=-1)
    return jnp.mean(jnp.sum(one * other, -1) / jnp.maximum(lengths, 1e-12))  # a row of zeros counts 0


def loss_of(objective, params, state, step=0, batch=BATCH, keys=KEYS):
    """Loss, new state and metrics."""
    value, (state, metrics) = jax.jit(objective.loss)(params, state, batch, keys, step)
    return value, state, metrics
