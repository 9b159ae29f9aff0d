"""Distillation terms against their closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarep_jax.distill import (
    TERMS,
    cross_entropy,
    distillation_loss,
    feature_regression,
    hint,
    loss_of,
    make_loss,
    soft_targets,
)
from metarep_jax.types import Keys, Term

LABEL = jnp.array([0, 2, 1])
BATCH = {"inputs": jnp.array([[0.0]] * 3), "label": LABEL, "index": jnp.array([0, 1, 2])}
KEYS = Keys(jax.random.split(jax.random.key(0), 3), jax.random.key(1))
STUDENT = {"logits": jnp.array([[1.0, 0, 2], [0, 1, 0], [3, 1, 1]]), "features": jnp.array([[1.0] * 2] * 3)}
TEACHER = {"logits": jnp.array([[2.0, 1, 0], [1, 1, 4], [0, 2, 0]]), "features": jnp.array([[1.0] * 4] * 3)}


def value(term, student=STUDENT, teacher=TEACHER, mask=None):
    batch = BATCH if mask is None else {**BATCH, "mask": mask}

    @jax.jit
    def started_and_applied(student, teacher, batch):
        params, state = term.init(jax.random.key(0), student, teacher, BATCH, 3)
        return term.apply(params, state, student, teacher, batch, KEYS)[0]

    return started_and_applied(student, teacher, batch)


def applied(term, params, student, teacher, batch=None, state=None):
    return jax.jit(term.apply)(params, state or {}, student, teacher, batch or BATCH, KEYS)[0]


def started(term, student, teacher, size=3):
    return jax.jit(lambda key: term.init(key, student, teacher, BATCH, size))(jax.random.key(0))


def normal(seed, shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def softmax(logits):
    weights = np.exp(np.asarray(logits, np.float64))
    return weights / weights.sum(-1, keepdims=True)


def test_cross_entropy_is_the_mean_negative_log_probability():
    wanted = -np.log(softmax(STUDENT["logits"])[np.arange(3), LABEL]).mean()
    assert value(cross_entropy()) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_soft_targets_are_the_scaled_divergence(temperature):
    p, q = (softmax(np.asarray(outputs["logits"]) / temperature) for outputs in (TEACHER, STUDENT))
    wanted = temperature**2 * (p * np.log(p / q)).sum(-1).mean()
    assert value(soft_targets(temperature)) == pytest.approx(wanted, rel=1e-5)


def test_soft_targets_of_equal_models_are_zero_with_zero_gradient():
    def loss(logits):
        return value(soft_targets(3.0), student={"logits": logits}, teacher={"logits": TEACHER["logits"]})

    found, slope = jax.jit(jax.value_and_grad(loss))(TEACHER["logits"])
    np.testing.assert_allclose(found, 0, atol=1e-6)
    np.testing.assert_allclose(slope, 0, atol=1e-6)


def test_gradient_of_hot_soft_targets_is_the_difference_of_centred_logits():
    # Hinton et al. 2015, eq. 4: at high T the gradient tends to (z - v) / classes for zero-mean logits
    def centred(logits):
        return np.asarray(logits) - np.asarray(logits).mean(-1, keepdims=True)

    def loss(logits):
        return value(soft_targets(300.0), student={"logits": logits}, teacher={"logits": teacher})

    student, teacher = centred(STUDENT["logits"]), centred(TEACHER["logits"])
    grad = jax.jit(jax.grad(loss))(student)
    np.testing.assert_allclose(3 * np.asarray(grad), (student - teacher) / 3, atol=0.02)


def test_no_gradient_reaches_the_teacher():
    term = distillation_loss({soft_targets(2.0): 1.0, hint(): 1.0, feature_regression(): 1.0})
    params, state = started(term, STUDENT, TEACHER)
    grads = jax.jit(jax.grad(lambda teacher: applied(term, params, STUDENT, teacher, state=state)))(TEACHER)
    assert all(not np.asarray(leaf).any() for leaf in jax.tree.leaves(grads))


def test_hint_of_a_perfect_projection_is_zero():
    features, term = normal(1, (3, 2)), hint()
    params, _ = started(term, {"features": features}, TEACHER)
    assert params["kernel"].shape == (2, 4)
    kernel, bias = np.asarray(params["kernel"]), np.asarray(params["bias"])
    teacher = {"features": np.asarray(features) @ kernel + bias}
    np.testing.assert_allclose(applied(term, params, {"features": features}, teacher), 0, atol=1e-12)


def test_hint_names_a_missing_layer_and_those_that_exist():
    with pytest.raises(ValueError, match="no layer 'block3'; it has: features, logits"):
        hint("block3").init(jax.random.key(0), STUDENT, TEACHER, BATCH, 3)


def test_weighted_sum_is_linear_in_its_weights():
    parts = {cross_entropy(): 0.7, soft_targets(2.0): 0.2}
    wanted = sum(weight * float(value(term)) for term, weight in parts.items())
    assert value(distillation_loss(parts)) == pytest.approx(wanted, rel=1e-6)


def test_padding_does_not_count():
    mask = np.array([True, True, False])
    for term in (cross_entropy(), soft_targets(2.0)):
        changed = {"logits": np.where(mask[:, None], STUDENT["logits"], np.float32(99.0))}
        assert value(term, mask=mask) == pytest.approx(float(value(term, student=changed, mask=mask)), rel=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: distillation_loss({}), "at least one term"),
        (lambda: distillation_loss({cross_entropy(): -1.0}), "not be negative, got -1.0"),
        (lambda: soft_targets(0.0), "temperature must be positive, got 0.0"),
        (lambda: make_loss(loss_of({"soft_targets": 1.0}, soft_targets={"temperature": -1.0})), "must be positive"),
        (lambda: loss_of({}), "at least one term is needed; there are: cross_entropy, feature_regression, hint"),
    ],
)
def test_bad_settings_raise(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_loss_by_names_has_each_terms_own_settings_and_weight():
    loss = make_loss(loss_of({"cross_entropy": 1.0, "soft_targets": 0.5}, soft_targets={"temperature": 2.0}))
    wanted = float(value(cross_entropy())) + 0.5 * float(value(soft_targets(2.0)))
    assert value(loss) == pytest.approx(wanted, rel=1e-6)


def test_a_hint_is_half_the_mean_square_at_every_position_of_a_feature_map():
    ours, theirs = (normal(seed, (3, 2, 2, width)) for seed, width in ((1, 5), (2, 4)))
    term = hint("block1", "block2")
    assert (term.layers, term.asks_of_teacher) == (("block1",), ("block2",))
    params, _ = started(term, {"block1": ours}, {"block2": theirs})
    kernel, bias = np.asarray(params["kernel"]), np.asarray(params["bias"])
    wanted = 0.5 * np.mean((np.asarray(ours) @ kernel + bias - np.asarray(theirs)) ** 2)
    assert applied(term, params, {"block1": ours}, {"block2": theirs}) == pytest.approx(wanted, rel=1e-5)


def test_layers_that_differ_in_more_than_their_width_are_refused_with_both_shapes():
    ours, theirs = {"block1": jnp.zeros((3, 4, 4, 2))}, {"block1": jnp.zeros((3, 2, 2, 2))}
    with pytest.raises(ValueError, match=r"'block1' is \[4, 4, 2\] an example, the teacher's 'block1' \[2, 2, 2\]"):
        hint("block1").init(jax.random.key(0), ours, theirs, BATCH, 3)


def test_a_sum_asks_for_what_its_terms_ask_for_and_for_nothing_else():
    loss = distillation_loss({cross_entropy(): 1.0, hint("block1"): 1.0, feature_regression("features", "block2"): 1.0})
    assert loss.layers == ("logits", "block1", "features")
    assert loss.asks_of_teacher == ("block1", "block2")
    assert loss.needs == ("label",)
    assert cross_entropy().asks_of_teacher == ()


def counting(by):
    """A term of no value that counts its steps."""

    def init(key, student, teacher, batch, size):
        return {}, {"seen": jnp.zeros((), jnp.int32), "size": jnp.int32(size)}

    def apply(params, state, student, teacher, batch, keys):
        return by * student["logits"].sum(), {**state, "seen": state["seen"] + 1}

    return Term(init, apply, teacher_layers=())


def test_each_terms_state_moves_on_beside_the_others():
    loss = distillation_loss({counting(0.0): 1.0, cross_entropy(): 1.0, counting(1.0): 1.0})
    params, state = started(loss, STUDENT, TEACHER, 40)
    step = jax.jit(loss.apply)
    for _ in range(2):
        _, state = step(params, state, STUDENT, TEACHER, BATCH, KEYS)
    assert [int(each["seen"]) if each else None for each in state] == [2, None, 2]
    assert int(state[0]["size"]) == 40


def test_a_mixed_label_is_a_distribution_over_the_classes():
    weights = jnp.array([[1.0, 0, 0], [0.3, 0, 0.7], [0, 0.5, 0.5]])
    wanted = -np.mean(np.sum(np.asarray(weights) * np.log(softmax(STUDENT["logits"])), -1))
    batch = {**BATCH, "label": weights}
    assert applied(cross_entropy(), {}, STUDENT, {}, batch) == pytest.approx(wanted, rel=1e-5)


def test_terms_serve_predictions_with_several_leading_axes():
    """Pixels or words: the mean over those that count is that of the same rows in one axis."""
    mask = np.array([[True, False, True], [True, True, False]])
    scores = np.random.default_rng(0).standard_normal((2, 2, 3, 4)).astype(np.float32)
    tall = {"logits": scores[0]}, {"logits": scores[1]}
    batch = {"inputs": None, "label": np.arange(6).reshape(2, 3) % 4, "mask": mask}
    flat = [{"logits": outputs["logits"].reshape(6, 4)[mask.ravel()]} for outputs in tall]
    rows = {"inputs": None, "label": batch["label"].ravel()[mask.ravel()]}
    for term in (cross_entropy(), soft_targets(2.0)):
        wanted = applied(term, {}, *flat, rows)
        assert applied(term, {}, *tall, batch) == pytest.approx(float(wanted), rel=1e-5)


def test_every_term_can_be_made_without_settings():
    assert all(isinstance(make(), Term) for make in TERMS.values())
