"""Projectors: their layers by hand, in training and by running averages."""

import jax
import numpy as np
import pytest

from metarep_jax.pretrain.heads import Head

ROWS = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)


@pytest.mark.parametrize("running", [False, True])
def test_a_head_normalises_hidden_units_by_the_batch_or_by_running_averages(running):
    head = Head((5, 3))
    variables = jax.device_get(jax.jit(head.init)(jax.random.key(1), ROWS))
    stats = {"mean": np.linspace(-1, 1, 5, dtype=np.float32), "var": np.linspace(0.5, 2, 5, dtype=np.float32)}
    name = next(iter(variables["batch_stats"]))
    params = variables["params"]
    apply = jax.jit(head.apply, static_argnums=2)
    found = apply({"params": params, "batch_stats": {name: stats}}, ROWS, running)
    hidden = np.asarray(ROWS @ params["Dense_0"]["kernel"], np.float64)
    mean, var = (stats["mean"], stats["var"]) if running else (hidden.mean(0), hidden.var(0))
    wanted = np.maximum((hidden - mean) / np.sqrt(var + 1e-5), 0) @ params["Dense_1"]["kernel"]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
