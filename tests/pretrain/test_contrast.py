"""NT-Xent against its closed forms, and the signs of collapse."""

import jax
import numpy as np
import pytest

from metarep_jax.pretrain import collapse_warning, embedding_health, mutual_neighbours, nt_xent

compiled = jax.jit(nt_xent, static_argnames="temperature")
health_of = jax.jit(embedding_health)


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_loss_of_identical_embeddings_is_the_log_of_the_number_of_candidates():
    rows = np.ones((4, 3))
    loss, _ = compiled(rows, rows, temperature=0.5)
    assert loss == pytest.approx(np.log(2 * 4 - 1), rel=1e-6)


def test_loss_of_orthogonal_pairs_has_its_closed_form():
    rows = np.eye(3)
    loss, metrics = compiled(rows, rows, temperature=0.5)
    # one candidate at cosine 1 and 2·3 - 2 at cosine 0
    assert loss == pytest.approx(-2 + np.log(np.exp(2) + 4), rel=1e-6)
    assert metrics["contrastive_accuracy"] == 1


def test_loss_of_a_known_gram_matrix():
    first, second = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[0.6, 0.8], [1.0, 0.0]])
    loss, metrics = compiled(first, second, temperature=0.5)
    gram = np.array([[1, 0, 0.6, 1], [0, 1, 0.8, 0], [0.6, 0.8, 1, 0.6], [1, 0, 0.6, 1]]) / 0.5
    partner, terms = [2, 3, 0, 1], []
    for i in range(4):
        others = [j for j in range(4) if j != i]
        terms.append(np.log(np.exp(gram[i, others]).sum()) - gram[i, partner[i]])
    assert loss == pytest.approx(np.mean(terms), rel=1e-6)
    assert metrics["contrastive_accuracy"] == 0  # each view is closer to another image's than to its partner


def test_loss_equals_the_written_out_definition():
    first, second = normal(0, 2, 5, 7)
    loss, _ = compiled(first, second, temperature=0.3)
    z = np.concatenate([first, second])
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    s = np.exp(z @ z.T / 0.3)
    terms = [-np.log(s[i, (i + 5) % 10] / (s[i].sum() - s[i, i])) for i in range(10)]
    assert loss == pytest.approx(np.mean(terms), rel=1e-5)


def test_loss_ignores_the_length_of_embeddings():
    first, second = normal(1, 2, 4, 6)
    assert compiled(3 * first, second / 7)[0] == pytest.approx(float(compiled(first, second)[0]), rel=1e-5)


@jax.jit
@jax.value_and_grad
def of_one(pair):
    return nt_xent(pair[0], pair[1])[0]


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
def test_loss_and_gradient_over_devices_equal_those_of_one(devices):
    pair = np.random.default_rng(2).normal(size=(2, 8, 6))

    def shard(pair):
        loss, grad = jax.value_and_grad(lambda pair: nt_xent(pair[0], pair[1], axis_name="device")[0])(pair)
        return jax.lax.pmean(loss, "device"), grad

    split = pair.reshape(2, devices, 8 // devices, 6).swapaxes(0, 1)
    loss, grad = jax.device_get(jax.jit(jax.vmap(shard, axis_name="device"))(split))
    wanted_loss, wanted_grad = of_one(pair)
    np.testing.assert_allclose(loss, wanted_loss, rtol=1e-5)
    # each device's gradient is of its own mean: their sum over devices / devices is that of the global mean
    np.testing.assert_allclose(grad.swapaxes(0, 1).reshape(2, 8, 6) / devices, wanted_grad, rtol=2e-4, atol=1e-6)


def test_health_of_isotropic_and_of_collapsed_embeddings():
    spread = health_of(normal(2, 4000, 16))
    assert spread["embedding_std"] == pytest.approx(1, abs=0.02)
    assert spread["effective_rank"] == pytest.approx(16, rel=0.02)
    assert collapse_warning(spread) is None
    collapsed = health_of(1 + 1e-4 * normal(3, 100, 16))
    assert collapsed["embedding_std"] < 0.01
    assert "collapsed" in collapse_warning(collapsed)


def test_effective_rank_of_a_line_is_one():
    health = health_of(normal(4, 50, 1) * np.arange(1, 9))
    assert health["effective_rank"] == pytest.approx(1, abs=1e-3)
    assert "effective_rank" in collapse_warning(health)


def test_mutual_neighbours_find_pairs_and_leave_the_lonely_alone():
    angles = np.array([0.0, 0.01, 2.0, 2.01, 4.0])
    rows = jax.device_put(np.stack([np.cos(angles), np.sin(angles)], -1))
    found = np.asarray(mutual_neighbours(rows, k=1, block=2))
    assert found[:, 0].tolist() == [1, 0, 3, 2, 4]


def test_mutual_neighbours_are_mutual():
    rows = jax.device_put(normal(5, 40, 5))
    found = np.asarray(mutual_neighbours(rows, k=4, block=16))
    for i, row in enumerate(found):
        for j in row:
            assert i == j or i in found[j]
