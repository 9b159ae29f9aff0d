"""Norm modes in their closed forms, by an encoder that is one batch norm and by one with two layers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import compiled

from metarep_jax.encoders.mlp import MLP
from metarep_jax.metalearn.norm_modes import query_forward

SUPPORT = jnp.array([[1.0], [3.0], [50.0]])
QUERY = jnp.array([[2.0], [4.0]])
COUNTS = jnp.array([True, True, False])


def one_norm(rows, mask, running):
    """(x − mean) / std over the rows of the mask; running averages are 0 and 2."""
    if running:
        return rows / 2.0
    weight = jnp.ones(len(rows)) if mask is None else mask.astype(jnp.float32)
    mean = (weight @ rows) / weight.sum()
    return (rows - mean) / jnp.sqrt((weight @ (rows - mean) ** 2) / weight.sum())


def forward(mode, **masks):
    return np.asarray(compiled(lambda masks: query_forward(one_norm, SUPPORT, QUERY, mode, **masks))(masks))[:, 0]


def standardised(value, rows):
    return (value - np.mean(rows)) / np.std(rows)


def test_each_mode_has_its_closed_form_and_padding_does_not_count():
    np.testing.assert_allclose(forward("running"), [1, 2])
    np.testing.assert_allclose(forward("transductive"), [-1, 1], rtol=1e-6)
    np.testing.assert_allclose(forward("transductive", query_mask=jnp.array([True, True])), [-1, 1], rtol=1e-6)
    np.testing.assert_allclose(forward("support", support_mask=COUNTS), [0, 2], atol=1e-6)
    alone = [standardised(2, [1, 3, 2]), standardised(4, [1, 3, 4])]
    np.testing.assert_allclose(forward("one_query", support_mask=COUNTS), alone, atol=1e-6)
    everything = [standardised(2, [1, 3, 50, 2]), standardised(4, [1, 3, 50, 4])]
    np.testing.assert_allclose(forward("one_query"), everything, rtol=1e-5)


@pytest.fixture(scope="module")
def two_layers():
    encoder = MLP(widths=(6, 4))
    support, query = (np.random.default_rng(i).standard_normal((n, 3)).astype(np.float32) for i, n in ((0, 5), (1, 7)))
    support = jnp.asarray(support)
    variables = compiled(encoder.init)(jax.random.key(2), support)

    @partial(compiled, static_argnames="mode")
    def forward(query, mode, **masks):
        return query_forward(
            lambda rows, mask, running: encoder.apply(variables, rows, mask, running), support, query, mode, **masks
        )

    return lambda *given, **masks: np.asarray(forward(*given, **masks)), query


@pytest.mark.parametrize("mode", ["support", "one_query", "running"])
def test_a_query_does_not_depend_on_the_others(two_layers, mode):
    forward, query = two_layers
    alone = np.concatenate([forward(query[i : i + 1], mode) for i in range(len(query))])
    np.testing.assert_allclose(forward(query, mode), alone, atol=1e-5)


def test_transductive_queries_do_depend_on_the_others(two_layers):
    forward, query = two_layers
    assert np.abs(forward(query, "transductive")[:3] - forward(query[:3], "transductive")).max() > 0.1


def test_padded_queries_do_not_move_the_others(two_layers):
    forward, query = two_layers
    mask = np.arange(7) < 5
    padded = np.where(mask[:, None], query, np.float32(100.0))
    for mode in ("transductive", "support", "one_query"):
        found = forward(padded, mode, query_mask=mask)[:5]
        np.testing.assert_allclose(found, forward(query[:5], mode), atol=1e-5)
