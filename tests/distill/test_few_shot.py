"""Few-shot distillation and the fixed-class transfers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarep_jax.distill import (
    classifier,
    cross_entropy,
    distil_few_shot,
    distillation_loss,
    frozen_teacher,
    hint,
    soft_targets,
    train_classifier,
)
from metarep_jax.encoders.mlp import MLP
from metarep_jax.metalearn.logistic import logistic_regression
from metarep_jax.metalearn.prototypical import prototypical
from metarep_jax.types import Episode, Examples, Keys, Term


@pytest.fixture(scope="module")
def episodes():
    """Four tasks, 2-way 1-shot."""
    draw = np.random.default_rng(0).standard_normal

    def rows(each):
        label = np.tile(np.repeat(np.arange(2, dtype=np.int32), each), (4, 1))
        return Examples(jnp.asarray(draw((*label.shape, 3)), jnp.float32), jnp.asarray(label))

    return Episode(rows(1), rows(2))


@functools.cache
def learners():
    teacher, student = MLP(widths=(8, 6), norm="none"), MLP(widths=(4,), norm="none")
    return prototypical(teacher, way=2), prototypical(student, way=2)


def first(learner, episodes):
    """Its first parameters and state."""
    return initial(learner)(jax.random.key(2), jax.tree.map(lambda leaf: np.asarray(leaf)[0], episodes))


@functools.cache
def initial(learner):
    return jax.jit(learner.init)


def keys(n):
    return Keys(jax.random.split(jax.random.key(3), n), jax.random.key(4))


def test_a_student_equal_to_its_teacher_has_no_soft_loss_and_no_gradient(episodes):
    teacher, _ = learners()
    params, state = first(teacher, episodes)
    context = teacher.train_context
    trainable = distil_few_shot(teacher, teacher, params, state, soft_targets(2.0), teacher_context=context)
    start, state = jax.jit(trainable.init)(jax.random.key(5), episodes)
    start = {**start, "student": params}
    grads, _, metrics = jax.jit(trainable.grads)(start, state, episodes, keys(4), 0)
    assert metrics["loss"] == pytest.approx(0, abs=1e-6)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(grads)) < 1e-5


def test_the_gradient_is_that_of_the_mean_loss_over_tasks(episodes):
    teacher, student = learners()
    given = first(teacher, episodes)
    loss = distillation_loss({cross_entropy(): 1.0, soft_targets(2.0): 0.5, hint(): 0.1})
    trainable = distil_few_shot(student, teacher, *given, loss)
    params, state = jax.jit(trainable.init)(jax.random.key(5), episodes)

    def mean_loss(params):
        def one(episode):
            own = params["student"], state["student"]
            task = student.adapt(*own, episode.support, jax.random.key(0), student.train_context)
            shown = student.predict(*own, task, episode.query.inputs, student.train_context)
            task = teacher.adapt(*given, episode.support, jax.random.key(0), teacher.test_context)
            taught = teacher.predict(*given, task, episode.query.inputs, teacher.test_context)
            batch = {"inputs": episode.query.inputs, "label": episode.query.label}
            return loss.apply(params["terms"], state["terms"], shown, taught, batch, keys(4))[0]

        return jnp.mean(jax.lax.map(one, episodes))

    value, wanted = jax.jit(jax.value_and_grad(mean_loss))(params)
    grads, _, metrics = jax.jit(trainable.grads)(params, state, episodes, keys(4), 0)
    assert metrics["loss"] == pytest.approx(float(value), rel=1e-5)
    jax.tree.map(lambda got, want: np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6), grads, wanted)


@pytest.fixture(scope="module")
def batch():
    label = np.arange(12, dtype=np.int32) % 3
    inputs = (np.eye(5)[label] + 0.1 * np.random.default_rng(6).standard_normal((12, 5))).astype(np.float32)
    return jax.tree.map(jnp.asarray, {"inputs": inputs, "label": label, "index": np.arange(12, dtype=np.int32)})


def test_feature_extraction_trains_the_head_alone(batch):
    student = classifier(MLP(widths=(6,), norm="batch"), 3, frozen=True)
    trainable = train_classifier(student, cross_entropy())
    params, state = jax.jit(trainable.init)(jax.random.key(0), batch)
    assert set(params["student"]) == {"head"}
    grads, moved, _ = jax.jit(trainable.grads)(params, state, batch, keys(12), 0)
    assert np.abs(grads["student"]["head"]["kernel"]).max() > 0
    jax.tree.map(np.testing.assert_array_equal, moved, state)  # neither weights nor running statistics


def test_fine_tuning_trains_everything_and_moves_statistics(batch):
    student = classifier(MLP(widths=(6,), norm="batch"), 3)
    trainable = train_classifier(student, cross_entropy())
    params, state = jax.jit(trainable.init)(jax.random.key(0), batch)
    grads, moved, _ = jax.jit(trainable.grads)(params, state, batch, keys(12), 0)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(grads["student"]))
    changed = jax.tree.map(lambda a, b: bool((np.asarray(a) != np.asarray(b)).any()), moved, state)
    assert any(jax.tree.leaves(changed))


def test_a_classifier_learns_from_a_teacher_without_labels(batch):
    big, small = classifier(MLP(widths=(16, 8), norm="none"), 3), classifier(MLP(widths=(6,), norm="none"), 3)
    teacher = frozen_teacher(big, *jax.jit(big.init)(jax.random.key(7), batch["inputs"]))
    trainable = train_classifier(small, soft_targets(1.0), teacher=teacher)
    params, state = jax.jit(trainable.init)(jax.random.key(1), batch)

    def step(params, _):
        grads, _, metrics = trainable.grads(params, state, batch, keys(12), 0)
        return jax.tree.map(lambda leaf, grad: leaf - 0.3 * grad, params, grads), metrics["loss"]

    _, losses = jax.jit(lambda params: jax.lax.scan(step, params, None, length=101))(params)
    first, *_, last = np.asarray(losses)
    assert last < 0.2 * first


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        classifier(MLP(), 1)


def test_a_term_that_asks_a_teacher_where_there_is_none_is_refused():
    with pytest.raises(ValueError, match="reads logits of a teacher, and there is none"):
        train_classifier(classifier(MLP(), 3), soft_targets())


def test_terms_that_need_what_the_data_lack_are_refused(batch, episodes):
    remembers = cross_entropy()._replace(needs=("label", "index"))
    teacher, student = learners()
    start = first(teacher, episodes)
    with pytest.raises(ValueError, match="needs index of the queries of episodes, which have: inputs, label"):
        jax.eval_shape(distil_few_shot(student, teacher, *start, remembers).init, jax.random.key(0), episodes)
    unlabelled = {name: batch[name] for name in ("inputs", "index")}
    with pytest.raises(ValueError, match="needs label of batches, which have: index, inputs"):
        jax.eval_shape(train_classifier(classifier(MLP(), 3), remembers).init, jax.random.key(0), unlabelled)


def test_a_baseline_cannot_be_the_student(episodes):
    teacher, _ = learners()
    with pytest.raises(ValueError, match="cannot be meta-trained"):
        distil_few_shot(logistic_regression(MLP(), way=2), teacher, {}, {}, cross_entropy())


def test_a_hint_reads_any_layer_of_both_encoders_in_episodes_and_in_batches(episodes, batch):
    teacher, student = learners()
    start = first(teacher, episodes)
    trainable = distil_few_shot(student, teacher, *start, hint("layer1", "layer2"))
    params, state = jax.jit(trainable.init)(jax.random.key(0), episodes)
    assert params["terms"]["kernel"].shape == (4, 6)
    grads, _, _ = jax.jit(trainable.grads)(params, state, episodes, keys(4), 0)
    assert np.abs(grads["student"]["encoder"]["Dense_0"]["kernel"]).max() > 0
    big, small = classifier(MLP(widths=(16, 8), norm="none"), 3), classifier(MLP(widths=(6,), norm="none"), 3)
    model = frozen_teacher(big, *jax.jit(big.init)(jax.random.key(7), batch["inputs"]))
    trainable = train_classifier(small, hint("layer1"), teacher=model)
    params, state = jax.jit(trainable.init)(jax.random.key(0), batch)
    assert params["terms"]["kernel"].shape == (6, 16)
    refused = train_classifier(small, hint("layer1", "layer9"), teacher=model)
    with pytest.raises(ValueError, match="has no layer 'layer9'; it has: layer1, layer2"):
        jax.eval_shape(refused.init, jax.random.key(0), batch)


def test_masked_rows_of_a_batch_change_neither_loss_nor_accuracy_nor_statistics(batch):
    student = classifier(MLP(widths=(6,), norm="batch"), 3)
    trainable = train_classifier(student, distillation_loss({cross_entropy(): 1.0, hint(): 1.0}), teacher=first_pixels)
    params, state = jax.jit(trainable.init)(jax.random.key(0), batch)
    grads, mask = jax.jit(trainable.grads), np.arange(12) < 9
    batch = jax.tree.map(np.asarray, batch)
    far = {**batch, "inputs": np.where(mask[:, None], batch["inputs"], np.float32(50.0)), "mask": mask}
    cut = {name: rows[:9] for name, rows in batch.items()}
    found, wanted = grads(params, state, far, keys(12), 0), grads(params, state, cut, keys(9), 0)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), found, wanted)


def first_pixels(batch, layers=()):
    return {"features": batch["inputs"][:, :2]}


def test_a_term_remembers_from_step_to_step_and_is_told_how_many_examples_there_are(batch):
    def init(key, student, teacher, batch, size):
        return {}, {"bank": jnp.zeros((size, student["features"].shape[1]))}

    def apply(params, state, student, teacher, batch, keys):
        bank = state["bank"].at[batch["index"]].set(jax.lax.stop_gradient(student["features"]))
        return jnp.sum(student["features"] ** 2), {"bank": bank}

    remembers = Term(init, apply, layers=("features",), teacher_layers=(), needs=("index",))
    trainable = train_classifier(classifier(MLP(widths=(6,), norm="none"), 3), remembers, size=20)
    params, state = jax.jit(trainable.init)(jax.random.key(0), batch)
    _, moved, _ = jax.jit(trainable.grads)(params, state, batch, keys(12), 0)
    bank = np.asarray(moved["terms"]["bank"])
    assert bank.shape == (20, 6)
    assert bank[:12].any() and not bank[12:].any()
