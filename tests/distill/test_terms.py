"""Distillation terms against their closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarep_jax.distill import LossConfig, cross_entropy, distillation_loss, hint, make_loss, soft_targets
from metarep_jax.types import Examples

LABEL = jnp.array([0, 2, 1])
STUDENT = {"logits": jnp.array([[1.0, 0, 2], [0, 1, 0], [3, 1, 1]]), "features": jnp.ones((3, 2))}
TEACHER = {"logits": jnp.array([[2.0, 1, 0], [1, 1, 4], [0, 2, 0]]), "features": jnp.ones((3, 4))}


def value(term, student=STUDENT, teacher=TEACHER, mask=None):
    params = term.init(jax.random.key(0), student, teacher)
    return term.apply(params, student, teacher, Examples(jnp.zeros((3, 1)), LABEL, mask))


def softmax(logits):
    weights = np.exp(np.asarray(logits, np.float64))
    return weights / weights.sum(-1, keepdims=True)


def test_cross_entropy_is_the_mean_negative_log_probability():
    wanted = -np.log(softmax(STUDENT["logits"])[np.arange(3), LABEL]).mean()
    assert value(cross_entropy()) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_soft_targets_are_the_scaled_divergence(temperature):
    p, q = softmax(TEACHER["logits"] / temperature), softmax(STUDENT["logits"] / temperature)
    wanted = temperature**2 * (p * np.log(p / q)).sum(-1).mean()
    assert value(soft_targets(temperature)) == pytest.approx(wanted, rel=1e-5)


def test_soft_targets_of_equal_models_are_zero_with_zero_gradient():
    def loss(logits):
        return value(soft_targets(3.0), student={"logits": logits}, teacher={"logits": TEACHER["logits"]})

    np.testing.assert_allclose(loss(TEACHER["logits"]), 0, atol=1e-6)
    np.testing.assert_allclose(jax.grad(loss)(TEACHER["logits"]), 0, atol=1e-6)


def test_gradient_of_hot_soft_targets_is_the_difference_of_centred_logits():
    # Hinton et al. 2015, eq. 4: at high T the gradient tends to (z - v) / classes for zero-mean logits
    def centred(logits):
        return logits - logits.mean(-1, keepdims=True)

    student, teacher = centred(STUDENT["logits"]), centred(TEACHER["logits"])
    grad = jax.grad(lambda z: value(soft_targets(300.0), student={"logits": z}, teacher={"logits": teacher}))(student)
    np.testing.assert_allclose(3 * grad, (student - teacher) / 3, atol=0.02)


def test_no_gradient_reaches_the_teacher():
    term = distillation_loss({soft_targets(2.0): 1.0, hint(): 1.0})
    params = term.init(jax.random.key(0), STUDENT, TEACHER)
    batch = Examples(jnp.zeros((3, 1)), LABEL)
    grads = jax.grad(lambda teacher: term.apply(params, STUDENT, teacher, batch))(TEACHER)
    assert all(not leaf.any() for leaf in jax.tree.leaves(grads))


def test_hint_of_a_perfect_projection_is_zero():
    features = jax.random.normal(jax.random.key(1), (3, 2))
    term = hint()
    params = term.init(jax.random.key(0), {"features": features}, {"features": jnp.ones((3, 4))})
    assert params["kernel"].shape == (2, 4)
    teacher = {"features": features @ params["kernel"] + params["bias"]}
    batch = Examples(jnp.zeros((3, 1)), LABEL)
    np.testing.assert_allclose(term.apply(params, {"features": features}, teacher, batch), 0, atol=1e-12)


def test_hint_names_a_missing_layer_and_those_that_exist():
    with pytest.raises(ValueError, match="no layer 'block3'; it has: features, logits"):
        hint("block3").init(jax.random.key(0), STUDENT, TEACHER)


def test_weighted_sum_is_linear_in_its_weights():
    parts = {cross_entropy(): 0.7, soft_targets(2.0): 0.2}
    wanted = sum(weight * value(term) for term, weight in parts.items())
    assert value(distillation_loss(parts)) == pytest.approx(float(wanted), rel=1e-6)


def test_padding_does_not_count():
    mask = jnp.array([True, True, False])
    for term in (cross_entropy(), soft_targets(2.0)):
        changed = {"logits": STUDENT["logits"].at[2].set(99.0)}
        assert value(term, mask=mask) == pytest.approx(float(value(term, student=changed, mask=mask)), rel=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: distillation_loss({}), "at least one term"),
        (lambda: distillation_loss({cross_entropy(): -1.0}), "not be negative, got -1.0"),
        (lambda: soft_targets(0.0), "temperature must be positive, got 0.0"),
        (lambda: LossConfig(temperature=-1.0), "temperature must be positive"),
        (lambda: LossConfig(cross_entropy=0.0, soft_targets=0.0), "every weight is 0"),
    ],
)
def test_bad_settings_raise(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_make_loss_leaves_out_terms_of_weight_zero():
    only = make_loss(LossConfig(cross_entropy=1.0, soft_targets=0.0))
    assert value(only, teacher={}) == pytest.approx(float(value(cross_entropy())), rel=1e-6)
