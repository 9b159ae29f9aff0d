"""Few-shot distillation: teacher and student both adapt on an episode's support set and meet on its queries."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from metarep_jax.distill.asked import check_needs, encoder_layers
from metarep_jax.metalearn.meta_gradient import mean_over_tasks
from metarep_jax.metalearn.tasks import TaskOutcome, check_trainable, run_task
from metarep_jax.types import Context, Episode, Examples, Keys, MetaLearner, Outputs, Term, Trainable


def distil_few_shot(
    student: MetaLearner,
    teacher: MetaLearner,
    teacher_params: Any,
    teacher_state: Any,
    loss: Term,
    *,
    teacher_context: Context | None = None,
    encoder_params: Any = None,
) -> Trainable:
    """Minimises ``loss`` of the student's query outputs and the frozen teacher's, over a batch of episodes.

    Encoders and learners of the two may differ; both are for the same number of classes. Queries that are masked count
    for neither, as in training and in evaluation.

    Args:
      student: the learner that trains, under its ``train_context``.
      teacher, teacher_params, teacher_state: the frozen learner; jitted into the same step.
      loss: a term or ``distillation_loss({...})`` of terms.
      teacher_context: how the teacher adapts; None means its ``test_context``.
      encoder_params: starts the student's encoder.

    Returns:
      A ``Trainable`` whose params and state are ``{"student", "terms"}``.

    Raises:
      ValueError: for a student that cannot be meta-trained; by ``init``, for terms that need what episodes lack.
    """
    check_trainable(student)
    context = dataclasses.replace(teacher_context or teacher.test_context, layers=encoder_layers(loss.asks_of_teacher))
    own_context = dataclasses.replace(student.train_context, layers=encoder_layers(loss.layers))

    def shown_by_teacher(episode: Episode, key: Array) -> Outputs:
        if not loss.asks_of_teacher:
            return {}
        outcome = run_task(teacher, teacher_params, teacher_state, episode, key, context)
        return jax.lax.stop_gradient(outcome.outputs)

    def shown_by_student(params: Any, state: Any, episode: Episode, key: Array) -> TaskOutcome:
        return run_task(student, params, state, episode, key, own_context)

    def init(key: Array, episodes: Episode) -> tuple[Any, Any]:
        student_key, term_key, adapt_key = jax.random.split(key, 3)
        episode = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), episodes)
        batch = batch_of(episode.query)
        check_needs(loss, batch, "the queries of episodes")
        params, state = student.init(student_key, episode, encoder_params)
        outputs = shown_by_student(params, state, episode, adapt_key).outputs
        terms, memory = loss.init(term_key, outputs, shown_by_teacher(episode, adapt_key), batch, 0)
        return {"student": params, "terms": terms}, {"student": state, "terms": memory}

    def task_loss(params: Any, state: Any, episode: Episode, key: Array) -> tuple[Array, tuple[Any, dict]]:
        adapt_key, teacher_key = jax.random.split(key)
        outcome = shown_by_student(params["student"], state["student"], episode, adapt_key)
        wanted = shown_by_teacher(episode, teacher_key)
        keys = Keys(jax.random.split(jax.random.fold_in(key, 1), episode.query.label.shape[0]), key)
        batch = batch_of(episode.query)
        value, memory = loss.apply(params["terms"], state["terms"], outcome.outputs, wanted, batch, keys)
        return value, ({"student": outcome.state, "terms": memory}, {**outcome.metrics, "loss": value})

    def grads(params: Any, state: Any, episodes: Episode, keys: Keys, step: Any) -> tuple[Any, Any, dict]:
        del step
        return mean_over_tasks(task_loss)(params, state, episodes, keys.example)

    return Trainable(init, grads)


def batch_of(query: Examples) -> dict:
    """Queries as terms take them."""
    batch = {"inputs": query.inputs, "label": query.label}
    return batch if query.mask is None else {**batch, "mask": query.mask}
