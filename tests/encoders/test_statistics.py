"""Statistics of batch norm, taken anew."""

import jax
import jax.numpy as jnp
import numpy as np

from metarep_jax.encoders.mlp import MLP
from metarep_jax.encoders.statistics import refit_statistics

ROWS = 3 + 2 * jax.random.normal(jax.random.key(0), (12, 4))


def untrained(norm):
    encoder = MLP(widths=(5, 3), norm=norm)
    return encoder, encoder.init(jax.random.key(1), ROWS)


def test_over_one_batch_running_averages_normalise_as_the_batch_does():
    encoder, variables = untrained("batch")
    refit = refit_statistics(encoder, variables, ROWS)
    found, wanted = encoder.apply(refit, ROWS, running=True), encoder.apply(variables, ROWS)
    assert np.ptp(wanted) > 0.1 and np.abs(encoder.apply(variables, ROWS, running=True) - wanted).max() > 0.1
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_over_batches_they_are_the_means_of_the_batches_own_and_what_they_were_before_does_not_count():
    encoder, variables = untrained("batch")
    other = {**variables, "batch_stats": jax.tree.map(lambda leaf: leaf + 7, variables["batch_stats"])}
    found = refit_statistics(encoder, other, ROWS, batch=4)["batch_stats"]
    each = [refit_statistics(encoder, variables, ROWS[start::3])["batch_stats"] for start in range(3)]
    wanted = jax.tree.map(lambda *leaves: jnp.mean(jnp.stack(leaves), 0), *each)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, wanted)


def test_without_batch_norm_there_is_nothing_to_take():
    encoder, variables = untrained("layer")
    assert refit_statistics(encoder, variables, ROWS) is variables
