"""Autoencoders against principal components, and what corruption does to what the encoder sees."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from metarep_jax.encoders.decoder import ImageDecoder, MLPDecoder, make_decoder
from metarep_jax.pretrain.autoencoder import autoencoder, corrupt, denoising_autoencoder
from metarep_jax.types import Keys

KEYS = Keys(jax.random.split(jax.random.key(1), 40), jax.random.key(2))


class Linear(nn.Module):
    """A linear encoder."""

    dim: int

    @nn.compact
    def __call__(self, x, mask=None, running=False):
        return nn.Dense(self.dim)(x)


linear_decoder = partial(MLPDecoder, widths=())


def dense(kernel, bias):
    return {"Dense_0": {"kernel": jnp.asarray(kernel, jnp.float32), "bias": jnp.asarray(bias, jnp.float32)}}


def test_at_principal_components_the_gradient_is_zero_and_the_loss_is_the_variance_left_out():
    random = np.random.default_rng(0)
    rows = random.normal(size=(40, 6)) @ random.normal(size=(6, 6)) + random.normal(size=6)
    mean, (values, vectors) = rows.mean(0), np.linalg.eigh(np.cov(rows.T, bias=True))
    objective, state = autoencoder(Linear(2), decoder=linear_decoder), {"encoder": {}, "decoder": {}}
    batch = {"inputs": jnp.asarray(rows, jnp.float32)}
    step = jax.jit(jax.value_and_grad(lambda params: objective.loss(params, state, batch, KEYS, 0)[0]))
    for kept, left_out in ((slice(4, 6), slice(0, 4)), (slice(0, 2), slice(2, 6))):  # the first, and other, components
        basis = vectors[:, kept]
        loss, gradient = step({"encoder": dense(basis, -mean @ basis), "decoder": dense(basis.T, mean)})
        assert loss == pytest.approx(values[left_out].sum() / 6, rel=1e-4)
        for leaf in jax.tree.leaves(gradient):
            np.testing.assert_allclose(leaf, 0, atol=1e-5)


def test_nets_that_copy_what_they_see_lose_exactly_what_was_dropped():
    rows = jax.random.uniform(jax.random.key(3), (40, 5), minval=0.1)
    params = {"encoder": dense(jnp.eye(5), jnp.zeros(5)), "decoder": dense(jnp.eye(5), jnp.zeros(5))}
    objective = denoising_autoencoder(Linear(5), decoder=linear_decoder, drop=0.5)
    loss, _ = objective.loss(params, {"encoder": {}, "decoder": {}}, {"inputs": rows}, KEYS, 0)
    seen = corrupt(KEYS.example, rows, 0.0, 0.5)
    assert 0.4 < np.mean(seen == 0) < 0.6
    assert loss == pytest.approx(float(jnp.where(seen == 0, rows**2, 0).mean()), rel=1e-5)


def test_corruption_without_strength_is_none_and_each_row_has_its_own():
    rows = jnp.ones((40, 500))
    np.testing.assert_array_equal(corrupt(KEYS.example, rows, 0.0, 0.0), rows)
    noisy = corrupt(KEYS.example, rows, 0.3, 0.0)
    assert float(jnp.std(noisy - rows)) == pytest.approx(0.3, rel=0.02)
    np.testing.assert_array_equal(corrupt(KEYS.example[3:5], rows[3:5], 0.3, 0.0), noisy[3:5])
    assert not np.allclose(noisy[0], noisy[1])


@pytest.mark.parametrize("shape", [(28, 28, 1), (9, 6, 3), (7,), (5, 4)])
def test_a_decoder_gives_inputs_of_the_shape_asked_for(shape):
    decoder = make_decoder(shape)
    assert isinstance(decoder, ImageDecoder if len(shape) == 3 else MLPDecoder)
    found = jax.eval_shape(lambda: decoder.init_with_output(jax.random.key(0), jnp.zeros((2, 3)))[0])
    assert found.shape == (2, *shape)


def test_corruption_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"drop must be in \[0, 1\), got 1.0"):
        autoencoder(Linear(2), drop=1.0)
    with pytest.raises(ValueError, match=r"noise must not be negative, got -0.1"):
        autoencoder(Linear(2), noise=-0.1)
