"""Few-shot distillation: teacher and student both adapt on an episode's support set and meet on its queries."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from metarep_jax.metalearn.meta_gradient import mean_over_tasks
from metarep_jax.types import Context, Episode, Keys, MetaLearner, Outputs, Term, Trainable


def distil_few_shot(
    student: MetaLearner,
    teacher: MetaLearner,
    teacher_params: Any,
    teacher_state: Any,
    loss: Term,
    *,
    teacher_context: Context | None = None,
    encoder_params: Any = None,
    chunk: int | None = None,
) -> Trainable:
    """Minimises ``loss`` of the student's query outputs and the frozen teacher's, over a batch of episodes.

    Encoders and learners of the two may differ; both are for the same number of classes.

    Args:
      student: the learner that trains, under its ``train_context``.
      teacher, teacher_params, teacher_state: the frozen learner; jitted into the same step.
      loss: a term or ``distillation_loss({...})`` of terms.
      teacher_context: how the teacher adapts; None means its ``test_context``.
      encoder_params: starts the student's encoder.
      chunk: tasks taken at once; None chooses for the backend.
    """
    context = teacher.test_context if teacher_context is None else teacher_context

    def taught(episode: Episode, key: Array) -> Outputs:
        task = teacher.adapt(teacher_params, teacher_state, episode.support, key, context)
        outputs = teacher.predict(teacher_params, teacher_state, task, episode.query.inputs, context)
        return jax.lax.stop_gradient(_shown(outputs))

    def shown(params: Any, state: Any, episode: Episode, key: Array) -> Outputs:
        task = student.adapt(params, state, episode.support, key, student.train_context)
        return student.predict(params, state, task, episode.query.inputs, student.train_context)

    def init(key: Array, episodes: Episode) -> tuple[Any, Any]:
        student_key, term_key, adapt_key = jax.random.split(key, 3)
        episode = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), episodes)
        params, state = student.init(student_key, episode, encoder_params)
        terms = loss.init(term_key, shown(params, state, episode, adapt_key), taught(episode, adapt_key))
        return {"student": params, "terms": terms}, state

    def task_loss(params: Any, state: Any, episode: Episode, key: Array) -> tuple[Array, tuple[Any, dict]]:
        adapt_key, teacher_key = jax.random.split(key)
        outputs = shown(params["student"], state, episode, adapt_key)
        value = loss.apply(params["terms"], _shown(outputs), taught(episode, teacher_key), episode.query)
        accuracy = jnp.mean(jnp.argmax(outputs["logits"], -1) == episode.query.label)
        return value, (outputs.get("state", state), {"loss": value, "accuracy": accuracy})

    def grads(params: Any, state: Any, episodes: Episode, keys: Keys, step: Any) -> tuple[Any, Any, dict]:
        del step
        return mean_over_tasks(task_loss, chunk)(params, state, episodes, keys.example)

    return Trainable(init, grads)


def _shown(outputs: Outputs) -> Outputs:
    return {name: value for name, value in outputs.items() if name != "state"}
