"""A training run of a tiny model that uses everything a checkpoint must hold; imported by tests and child processes.

Its pool is refreshed, its weights are averaged, its state moves, its noise has keys, and validation selects.
"""

import dataclasses
import resource
import sys
from pathlib import Path

import jax
import jax.numpy as jnp

from metarep_jax.train import FitConfig, OptimiserConfig, fit
from metarep_jax.types import Feed, Partnered, Pool, Trainable

SIZE = 8
OPTIMISER = OptimiserConfig(name="adamw", learning_rate=0.01, weight_decay=0.01, schedule="cosine", clip_norm=1.0)
OPTIMISER_CONSTANT = dataclasses.replace(OPTIMISER, schedule="constant")
CONFIG = FitConfig(
    steps=400,
    batch_size=SIZE,
    accumulate=2,
    average_decay=0.9,
    log_every=10,
    validate_every=50,
    checkpoint_every=20,
    steps_per_dispatch=7,
    progress=False,
)


def trainable(nan_at: int | None = None, refreshed: bool = True) -> Trainable:
    """Two layers that predict a partner's row, with noise."""

    def init(key, batch):
        first, second = jax.random.split(key)
        width = batch["inputs"].shape[1]
        weights = {"first": jax.random.normal(first, (width, 6)), "second": jax.random.normal(second, (6, width))}
        return weights | {"bias": jnp.zeros(6)}, {"mean": jnp.zeros(width)}

    def loss(params, batch, keys, step):
        noise = 0.1 * jax.vmap(lambda key: jax.random.normal(key, batch["inputs"].shape[1:]))(keys.example)
        hidden = jnp.tanh((batch["inputs"] + noise) @ params["first"] + params["bias"])
        value = jnp.mean((hidden @ params["second"] - batch["partner"]) ** 2)
        return value if nan_at is None else jnp.where(step == nan_at - 1, jnp.nan, value)

    def grads(params, state, batch, keys, step):
        value, gradient = jax.value_and_grad(loss)(params, batch, keys, step)
        return gradient, {"mean": 0.9 * state["mean"] + 0.1 * batch["inputs"].mean(0)}, {"loss": value}

    def refresh(params, state, pool, key):
        del state
        hidden = jnp.tanh(pool.pool.inputs @ params["first"]) + jax.random.normal(key, (6,))
        return pool._replace(partner=jnp.argsort(hidden[:, :1], axis=0).astype(jnp.int32))

    return Trainable(init, grads, refresh=refresh) if refreshed else Trainable(init, grads)


def draw(partnered, root, step, shard, shards):
    """Rows of a step's global batch, and their partners."""
    pool, each = partnered.pool, SIZE // shards
    rows = jax.random.randint(jax.random.fold_in(root, step), (SIZE,), 0, pool.inputs.shape[0])
    rows = jax.lax.dynamic_slice_in_dim(rows, shard * each, each)
    return {"inputs": pool.inputs[rows], "partner": pool.inputs[partnered.partner[rows, 0]]}


def feed() -> Feed:
    """Forty rows of noise, each at first its own partner."""
    inputs = jax.random.normal(jax.random.key(7), (40, 4))
    pool = Pool(inputs, jnp.zeros(40, jnp.int32), jnp.zeros((1, 40), jnp.int32), jnp.array([40]))
    return Feed(SIZE, Partnered(pool, jnp.arange(40, dtype=jnp.int32)[:, None]), draw)


def validate(params, state, step):
    """The best is neither the last nor the first."""
    del state
    return {"val_accuracy": -abs(step - 210.0) + 1e-3 * float(jnp.sum(params["first"]))}


def train(folder, config=CONFIG, seed=3, nan_at=None, **more):
    """The run, on the first two devices unless told otherwise."""
    more = {"devices": jax.devices()[:2], "validate": validate, "select": "val_accuracy"} | more
    return fit(trainable(nan_at), feed(), optimiser=OPTIMISER, config=config, seed=seed, folder=folder, **more)


def child(folder, cache, file_bytes=None, **more):
    """The run in a process of its own, which may write no file of more than ``file_bytes``, as on a full disk."""
    if file_bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    jax.config.update("jax_num_cpu_devices", 2)
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    from metarep_jax.train import TrainingDiverged

    try:
        train(Path(folder), **more)
    except (ValueError, OSError, TrainingDiverged) as error:
        Path(f"{folder}.error").write_text(f"{type(error).__name__}: {error}")
        sys.exit(1)
