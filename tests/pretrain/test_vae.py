"""The VAE against integrals, and its bounds where everything is Gaussian and the evidence is known."""

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarep_jax.encoders.decoder import MLPDecoder
from metarep_jax.encoders.features import Identity
from metarep_jax.pretrain.evidence import importance_weighted_bound
from metarep_jax.pretrain.likelihoods import bernoulli, gaussian, gaussian_kl
from metarep_jax.pretrain.vae import vae
from metarep_jax.pretrain.vae_model import vae_model
from metarep_jax.types import Keys

STD = 0.5
WEIGHT = np.diag([1.5, 0.7]) @ np.eye(2, 4)  # rows at right angles: the posterior's covariance is diagonal
BIAS = np.array([0.1, -0.2, 0.3, 0.0])
ROWS = np.random.default_rng(0).normal(size=(6, 2)) @ WEIGHT + BIAS
SETTINGS = {"latent": 2, "likelihood": "gaussian", "std": STD, "decoder": partial(MLPDecoder, widths=())}
STATE = {"encoder": {}, "moments": {}, "decoder": {}}


def evidence(rows):
    """log p(x) of x = zW + b + σε."""
    covariance = WEIGHT.T @ WEIGHT + STD**2 * np.eye(4)
    apart = rows - BIAS
    quadratic = np.einsum("ni,ij,nj->n", apart, np.linalg.inv(covariance), apart)
    return -0.5 * (quadratic + np.linalg.slogdet(2 * np.pi * covariance)[1])


def posterior():
    """Mean as an affine map of x, and variances: of p(z|x)."""
    variance = 1 / (1 + np.diag(WEIGHT @ WEIGHT.T) / STD**2)
    slope = WEIGHT.T * variance / STD**2
    return slope, -BIAS @ slope, variance


def params_of(slope, intercept, variance):
    """Parameters of a VAE over Identity features with that posterior, and the true decoder."""
    kernel = np.concatenate([slope, np.zeros((4, 2))], axis=1)
    moments = {"kernel": kernel, "bias": np.concatenate([intercept, np.log(variance)])}
    decoder = {"Dense_0": {"kernel": WEIGHT, "bias": BIAS}}
    return jax.tree.map(
        partial(jnp.asarray, dtype=jnp.float32), {"encoder": {}, "moments": moments, "decoder": decoder}
    )


def test_divergence_is_the_integral():
    z, divergence = np.linspace(-12, 12, 200_001), jax.jit(gaussian_kl)
    for mean, variance in ((0.0, 1.0), (1.3, 0.4), (-0.5, 2.5)):
        q = np.exp(-0.5 * (z - mean) ** 2 / variance) / np.sqrt(2 * np.pi * variance)
        p = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
        integral = np.trapezoid(q * (np.log(q + 1e-300) - np.log(p)), z)
        assert divergence(np.float32(mean), np.float32(np.log(variance))) == pytest.approx(integral, abs=1e-5)


def test_likelihoods_are_distributions():
    logits = np.tile(np.array([[-1.3, 0.4]], np.float32), (4, 1))
    corners = np.array([[a, b] for a in (0.0, 1.0) for b in (0.0, 1.0)], np.float32)
    assert np.exp(np.asarray(jax.jit(bernoulli)(logits, corners))).sum() == pytest.approx(1, rel=1e-5)
    x = np.linspace(-8, 8, 20_001, dtype=np.float32)[:, None]
    density = np.exp(np.asarray(jax.jit(lambda mean, x: gaussian(mean, x, 0.6))(np.full_like(x, 0.7), x)))
    assert np.trapezoid(density, x[:, 0]) == pytest.approx(1, rel=1e-4)


def test_with_the_true_posterior_every_bound_is_the_evidence():
    model = vae_model(Identity(), **SETTINGS)
    params = params_of(*posterior())
    bound = jax.jit(partial(importance_weighted_bound, model), static_argnames="samples")
    for samples in (1, 7):
        found = bound(params, STATE, np.float32(ROWS), jax.random.key(1), samples=samples)
        np.testing.assert_allclose(found, evidence(ROWS), rtol=1e-4)


def test_elbo_is_below_the_importance_weighted_bound_which_is_below_the_evidence():
    slope, intercept, variance = posterior()
    wrong = np.full(2, 0.3)
    params = params_of(0.5 * slope, intercept, wrong)
    model = vae_model(Identity(), **SETTINGS)
    bound = jax.jit(partial(importance_weighted_bound, model), static_argnames="samples")
    x = np.repeat(np.float32(ROWS[:1]), 20_000, axis=0)
    elbo, tighter = (np.asarray(bound(params, STATE, x, jax.random.key(2), samples=k)).mean() for k in (1, 30))
    apart = (ROWS[0] @ (0.5 * slope) + intercept) - (ROWS[0] @ slope + intercept)
    divergence = 0.5 * np.sum((wrong + apart**2) / variance - 1 - np.log(wrong / variance))
    assert elbo == pytest.approx(evidence(ROWS[:1])[0] - divergence, abs=0.06)  # log p(x) - KL(q ‖ p(z|x))
    assert elbo + 0.1 < tighter < evidence(ROWS[:1])[0]


def test_the_loss_is_the_negative_elbo_and_beta_weighs_its_divergence():
    params = params_of(*posterior())
    batch, keys = (
        {"inputs": jnp.asarray(ROWS, jnp.float32)},
        Keys(jax.random.split(jax.random.key(3), 6), jax.random.key(4)),
    )

    @jax.jit
    def losses(params, batch):
        return [vae(Identity(), beta=beta, **SETTINGS).loss(params, STATE, batch, keys, 0) for beta in (1.0, 3.0)]

    (loss, (_, metrics)), (heavier, (_, its_metrics)) = jax.device_get(losses(params, batch))
    slope, intercept, variance = posterior()
    kl = 0.5 * np.sum((ROWS @ slope + intercept) ** 2 + variance - 1 - np.log(variance), axis=1).mean()
    assert metrics["kl"] == pytest.approx(kl, rel=1e-4)
    assert loss == pytest.approx(-float(metrics["elbo"]), rel=1e-5)
    assert heavier == pytest.approx(float(loss) + 2 * kl, rel=1e-4)
    assert its_metrics["elbo"] == metrics["elbo"]


def test_free_bits_are_charged_whether_spent_or_not_and_bring_no_gradient():
    still = {"kernel": np.zeros((4, 4), np.float32), "bias": np.zeros(4, np.float32)}  # the posterior is the prior
    params = params_of(*posterior()) | {"moments": still}
    batch, keys = (
        {"inputs": jnp.asarray(ROWS, jnp.float32)},
        Keys(jax.random.split(jax.random.key(3), 6), jax.random.key(4)),
    )

    @partial(jax.jit, static_argnums=(1, 2))
    @jax.value_and_grad
    def loss(moments, free_bits, beta):
        objective = vae(Identity(), free_bits=free_bits, beta=beta, **SETTINGS)
        return objective.loss(params | {"moments": moments}, STATE, batch, keys, 0)[0]

    with_free, without = (float(loss(still, free_bits, 1.0)[0]) for free_bits in (0.25, 0.0))
    assert with_free - without == pytest.approx(2 * 0.25, rel=1e-4)
    near = {**still, "bias": np.array([0.2, 0.1, -0.1, 0.1], np.float32)}  # spends less than 0.25 nats
    free, none = (loss(near, 0.25, beta)[1] for beta in (1.0, 0.0))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), free, none)


def test_drawing_pixels_leaves_black_and_white_alone():
    batch = {"inputs": jnp.asarray((ROWS > 0) * 255, jnp.uint8)}
    keys = Keys(jax.random.split(jax.random.key(3), 6), jax.random.key(4))

    @jax.jit
    def losses(batch):
        found = []
        for binarise in (False, True):
            objective = vae(Identity(), latent=2, binarise=binarise, decoder=SETTINGS["decoder"])
            params, state = objective.init(jax.random.key(5), batch)
            found.append(objective.loss(params, state, batch, keys, 0)[0])
        return found

    plain, drawn = map(float, losses(batch))
    assert plain == drawn


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"latent": 0}, "latent must be positive, got 0"),
        ({"std": 0.0}, "std must be positive, got 0.0"),
        ({"beta": -1.0}, "beta must not be negative, got -1.0"),
        ({"free_bits": -0.1}, "free_bits must not be negative"),
        ({"likelihood": "poisson"}, "unknown likelihood 'poisson'; there are: bernoulli, gaussian"),
    ],
)
def test_settings_out_of_range_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(vae)(Identity(), **changed)  # as without the tests' own check of types
