"""Statistics of batch norm, taken anew."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from metarep_jax.encoders.mlp import MLP
from metarep_jax.encoders.statistics import refit_statistics

ROWS = jnp.asarray(np.random.default_rng(0).normal(3, 2, (12, 4)), jnp.float32)


def untrained(norm):
    encoder = MLP(widths=(5, 3), norm=norm)
    return encoder, jax.jit(encoder.init)(jax.random.key(1), ROWS)


def test_over_one_batch_running_averages_normalise_as_the_batch_does():
    encoder, variables = untrained("batch")
    refit = refit_statistics(encoder, variables, ROWS)
    running, batch = jax.jit(partial(encoder.apply, running=True)), jax.jit(encoder.apply)
    found, before, wanted = (
        np.asarray(y) for y in (running(refit, ROWS), running(variables, ROWS), batch(variables, ROWS))
    )
    assert np.ptp(wanted) > 0.1 and np.abs(before - wanted).max() > 0.1
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_over_batches_they_are_the_means_of_the_batches_own_and_what_they_were_before_does_not_count():
    encoder, variables = untrained("batch")
    other = {**variables, "batch_stats": jax.tree.map(lambda leaf: np.asarray(leaf) + 7, variables["batch_stats"])}
    found = refit_statistics(encoder, other, ROWS, batch=4)["batch_stats"]
    parts = [jnp.asarray(np.asarray(ROWS)[start::3]) for start in range(3)]
    each = jax.device_get([refit_statistics(encoder, variables, part)["batch_stats"] for part in parts])
    wanted = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *each)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, wanted)


def test_without_batch_norm_there_is_nothing_to_take():
    encoder, variables = untrained("layer")
    assert refit_statistics(encoder, variables, ROWS) is variables
