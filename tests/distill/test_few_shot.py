"""Few-shot distillation and the fixed-class transfers."""

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
from metarep_jax.metalearn.prototypical import prototypical
from metarep_jax.types import EpisodeSpec, Keys, episode_of

SPEC = EpisodeSpec(way=2, shot=1, query=2)


@pytest.fixture(scope="module")
def episodes():
    key = jax.random.key(0)
    blank = episode_of(SPEC, jnp.zeros((1, 3)))
    batch = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (4, *leaf.shape)), blank)
    noise = jax.random.normal(key, batch.query.inputs.shape)
    return batch._replace(
        support=batch.support._replace(inputs=jax.random.normal(jax.random.key(1), batch.support.inputs.shape)),
        query=batch.query._replace(inputs=noise),
    )


def learners():
    teacher, student = MLP(widths=(8, 6), norm="none"), MLP(widths=(4,), norm="none")
    return prototypical(teacher, way=2), prototypical(student, way=2)


def keys(n):
    return Keys(jax.random.split(jax.random.key(3), n), jax.random.key(4))


def test_a_student_equal_to_its_teacher_has_no_soft_loss_and_no_gradient(episodes):
    teacher, _ = learners()
    params, state = teacher.init(jax.random.key(2), jax.tree.map(lambda leaf: leaf[0], episodes))
    context = teacher.train_context
    trainable = distil_few_shot(teacher, teacher, params, state, soft_targets(2.0), teacher_context=context)
    start, state = trainable.init(jax.random.key(5), episodes)
    start = {**start, "student": params}
    grads, _, metrics = jax.jit(trainable.grads)(start, state, episodes, keys(4), 0)
    assert metrics["loss"] == pytest.approx(0, abs=1e-6)
    assert max(jnp.abs(leaf).max() for leaf in jax.tree.leaves(grads)) < 1e-5


def test_the_gradient_is_that_of_the_mean_loss_over_tasks(episodes):
    teacher, student = learners()
    given = teacher.init(jax.random.key(2), jax.tree.map(lambda leaf: leaf[0], episodes))
    loss = distillation_loss({cross_entropy(): 1.0, soft_targets(2.0): 0.5, hint(): 0.1})
    trainable = distil_few_shot(student, teacher, *given, loss)
    params, state = trainable.init(jax.random.key(5), episodes)

    def mean_loss(params):
        def one(episode):
            task = student.adapt(params["student"], state, episode.support, jax.random.key(0), student.train_context)
            shown = student.predict(params["student"], state, task, episode.query.inputs, student.train_context)
            task = teacher.adapt(*given, episode.support, jax.random.key(0), teacher.test_context)
            taught = teacher.predict(*given, task, episode.query.inputs, teacher.test_context)
            return loss.apply(params["terms"], shown, taught, episode.query)

        return jnp.mean(jnp.stack([one(jax.tree.map(lambda leaf, i=i: leaf[i], episodes)) for i in range(4)]))

    value, wanted = jax.value_and_grad(mean_loss)(params)
    grads, _, metrics = trainable.grads(params, state, episodes, keys(4), 0)
    assert metrics["loss"] == pytest.approx(float(value), rel=1e-5)
    jax.tree.map(lambda got, want: np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6), grads, wanted)


@pytest.fixture(scope="module")
def batch():
    label = jnp.arange(12) % 3
    inputs = jax.nn.one_hot(label, 5) + 0.1 * jax.random.normal(jax.random.key(6), (12, 5))
    return {"inputs": inputs, "label": label, "index": jnp.arange(12)}


def test_feature_extraction_trains_the_head_alone(batch):
    student = classifier(MLP(widths=(6,), norm="batch"), 3, frozen=True)
    trainable = train_classifier(student, cross_entropy())
    params, state = trainable.init(jax.random.key(0), batch)
    assert set(params["student"]) == {"head"}
    grads, moved, _ = trainable.grads(params, state, batch, keys(12), 0)
    assert jnp.abs(grads["student"]["head"]["kernel"]).max() > 0
    jax.tree.map(np.testing.assert_array_equal, moved, state)  # neither weights nor running statistics


def test_fine_tuning_trains_everything_and_moves_statistics(batch):
    student = classifier(MLP(widths=(6,), norm="batch"), 3)
    trainable = train_classifier(student, cross_entropy())
    params, state = trainable.init(jax.random.key(0), batch)
    grads, moved, _ = trainable.grads(params, state, batch, keys(12), 0)
    assert all(jnp.abs(leaf).max() > 0 for leaf in jax.tree.leaves(grads["student"]))
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), moved, state)
    assert any(jax.tree.leaves(changed))


def test_a_classifier_learns_from_a_teacher_without_labels(batch):
    big, small = classifier(MLP(widths=(16, 8), norm="none"), 3), classifier(MLP(widths=(6,), norm="none"), 3)
    teacher = frozen_teacher(big, *big.init(jax.random.key(7), batch["inputs"]))
    trainable = train_classifier(small, soft_targets(1.0), teacher=teacher)
    params, state = trainable.init(jax.random.key(1), batch)
    step = jax.jit(lambda params: trainable.grads(params, state, batch, keys(12), 0))
    first = float(step(params)[2]["loss"])
    for _ in range(100):
        params = jax.tree.map(lambda leaf, grad: leaf - 0.3 * grad, params, step(params)[0])
    assert float(step(params)[2]["loss"]) < 0.2 * first


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        classifier(MLP(), 1)
