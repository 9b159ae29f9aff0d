"""What a model computes, as functions compiled once, whichever models share them."""

import dataclasses
from functools import lru_cache, partial
from typing import Any, get_args

import jax
from flax import linen as nn

from metarep_jax.distill.students import classifier
from metarep_jax.types import Context, MetaLearner, NormMode


def context_in_use(learner: MetaLearner, norm: NormMode | None) -> Context:
    """The context of an answer in use: as at test, but not transductive unless ``norm`` says so.

    Raises:
      ValueError: for a norm mode that does not exist.
    """
    if norm is None:
        return learner.use_context
    if norm not in get_args(NormMode):
        raise ValueError(f"unknown norm {norm!r}; there are: {', '.join(get_args(NormMode))}")
    return dataclasses.replace(learner.test_context, norm=norm)


@lru_cache(maxsize=64)
def embedding(encoder: nn.Module) -> Any:
    """``(variables, inputs) -> features``."""
    return jax.jit(partial(encoder.apply, running=True))


@lru_cache(maxsize=64)
def adapting(learner: MetaLearner, ctx: Context) -> Any:
    """``(params, state, support, key) -> task``."""
    return jax.jit(partial(learner.adapt, ctx=ctx))


@lru_cache(maxsize=64)
def predicting(learner: MetaLearner, ctx: Context) -> Any:
    """``(params, state, task, inputs) -> probabilities`` of an adapted learner."""
    return jax.jit(lambda *args: jax.nn.softmax(learner.predict(*args, ctx=ctx)["logits"]))


@lru_cache(maxsize=64)
def classifying(encoder: nn.Module, classes: int, frozen: bool) -> Any:
    """``(params, state, inputs) -> probabilities`` of a classifier of fixed classes."""
    model = classifier(encoder, classes, frozen=frozen)
    return jax.jit(lambda params, state, x: jax.nn.softmax(model.outputs(params, state, x)[0]["logits"]))
