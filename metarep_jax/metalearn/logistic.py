"""Logistic regression on frozen features: the strong few-shot baseline of "a good embedding is all you need"."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float, Int, PyTree

from metarep_jax.encoders import split_variables
from metarep_jax.encoders.features import unit_rows
from metarep_jax.metalearn.base import check_labels, seen_classes_only
from metarep_jax.metalearn.features import encode_support, query_outputs
from metarep_jax.metalearn.settings import check_at_least, check_one_of, check_positive
from metarep_jax.types import Context, Episode, Examples, MetaLearner, NormMode

SMALLEST_GRADIENT = 1e-8  # relative to the first: where L-BFGS has converged


def logistic_regression(
    encoder: nn.Module, *, way: int, l2: float = 1.0, iterations: int = 200, test_norm: NormMode = "running"
) -> MetaLearner:
    """Fits a linear classifier on the support set's features, scaled to unit length; the encoder stays as it is.

    Args:
      encoder: a module of ``metarep_jax.encoders``, trained already.
      way: classes of an episode.
      l2: strength of the penalty (the inverse of scikit-learn's ``C``).
      iterations: of L-BFGS, at most; it stops where it has converged (``fit_logistic``), usually after 8 to 50.
      test_norm: whose statistics batch norm uses for the queries.

    Raises:
      ValueError: for an ``l2`` that is not positive, or ``iterations`` below 1; by ``init`` for regression.

    References:
      Tian et al. 2020, https://arxiv.org/abs/2003.11539, section 3.
    """
    check_positive("logistic regression", l2=l2)
    check_at_least(1, "logistic regression", iterations=iterations)
    check_one_of(NormMode, "logistic regression", test_norm=test_norm)

    def init(key: Array, episode: Episode, encoder_params: Any = None) -> tuple[Any, Any]:
        check_labels(episode, "class numbers", "logistic regression")
        return split_variables({"encoder": encoder_params or encoder.init(key, episode.support.inputs)})

    def adapt(params: Any, state: Any, support: Examples, key: Array, ctx: Context) -> dict:
        del key
        features = unit_rows(encode_support(encoder, params, state, support, ctx))
        weights, bias = fit_logistic(features, support.label, way, l2=l2, iterations=iterations, mask=support.mask)
        return {"weights": weights, "bias": bias, "support": support}

    def predict(params: Any, state: Any, task: dict, inputs: Array, ctx: Context, mask: Any = None) -> dict:
        layers, _ = query_outputs(encoder, params, state, task["support"], inputs, ctx, mask)
        features = layers["features"]
        logits = unit_rows(features) @ task["weights"] + task["bias"]
        return {"logits": seen_classes_only(logits, task["support"]), **layers}

    return MetaLearner(
        init=init,
        adapt=adapt,
        predict=predict,
        test_context=Context(norm=test_norm),
        shares_encoder=True,
        untrainable="logistic_regression fits features that are trained already and cannot be meta-trained. "
        "newton_logistic is the same classifier, one class against the rest, that can be",
    )


@partial(jax.jit, static_argnames="classes")
def fit_logistic(
    features: Float[Array, "n dim"],
    label: Int[Array, " n"],
    classes: int,
    *,
    l2: float | Float[Array, ""] = 1.0,
    iterations: int | Int[Array, ""] = 200,
    mask: Array | None = None,
) -> tuple[Float[Array, "dim classes"], Float[Array, " classes"]]:
    """Multinomial logistic regression: minimises Σ cross-entropy + l2/2 ‖W‖² by L-BFGS, the bias unpenalised.

    A class without rows is left out of the softmax, as it is in the limit of its bias going to −∞: with it, there would
    be no minimiser to reach. Its weights and bias are 0, and its logits are for the caller to leave out.

    With fewer rows than dimensions the problem is solved in the span of the rows, where W = Xᵀ L⁻ᵀ V with
    X Xᵀ = L Lᵀ: the same minimiser, in n instead of dim unknowns a class.

    Args:
      features, label: X and the class numbers 0 … classes−1.
      classes: number of classes.
      l2: strength of the penalty, the inverse of scikit-learn's ``C``.
      iterations: of L-BFGS, at most. It stops where the gradient's length is 10⁻⁸ of that at W = 0, in single precision
        10⁻⁶: predicted probabilities are then within about 10⁻⁷ and 10⁻⁶ of those at the minimum.
      mask: which rows count; None: all.

    Returns:
      W [dim, classes] and the bias [classes].
    """
    n, dim = features.shape
    basis = jnp.eye(dim, dtype=features.dtype)
    if n < dim:
        gram = features @ features.T
        jitter = 10 * jnp.finfo(gram.dtype).eps * jnp.trace(gram) / n
        lower = jnp.linalg.cholesky(gram + jitter * jnp.eye(n, dtype=gram.dtype))
        basis = jax.scipy.linalg.solve_triangular(lower, features, lower=True).T
    rows = features @ basis
    mask = jnp.ones(n, features.dtype) if mask is None else mask

    def objective(fit: tuple[Array, Array]) -> Array:
        weights, bias = fit
        logits = seen_classes_only(rows @ weights + bias, Examples(rows, label, mask))
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, label)
        return jnp.sum(losses * mask) + 0.5 * l2 * jnp.sum(weights**2)

    start = (jnp.zeros((rows.shape[1], classes), features.dtype), jnp.zeros(classes, features.dtype))
    weights, bias = minimise(objective, start, iterations)
    return basis @ weights, bias


def minimise(objective: Callable[[PyTree], Array], start: PyTree, iterations: int | Int[Array, ""]) -> PyTree:
    """Where L-BFGS from ``start`` finds the smooth ``objective``'s gradient to be (nearly) 0, after so many at most."""
    solver = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(objective)
    steepest = optax.tree.norm(jax.grad(objective)(start))
    flat = steepest * max(SMALLEST_GRADIENT, 10 * float(jnp.finfo(steepest.dtype).eps))

    def goes_on(carry: tuple[PyTree, PyTree, Array, Array]) -> Array:
        _, _, step, slope = carry
        return (step < iterations) & (slope > flat)

    def iterate(carry: tuple[PyTree, PyTree, Array, Array]) -> tuple[PyTree, PyTree, Array, Array]:
        at, memory, step, _ = carry
        value, grad = value_and_grad(at, state=memory)
        updates, memory = solver.update(grad, memory, at, value=value, grad=grad, value_fn=objective)
        slope = optax.tree.norm(optax.tree.get(memory, "grad"))  # where the line search ended
        return optax.apply_updates(at, updates), memory, step + 1, slope

    return lax.while_loop(goes_on, iterate, (start, solver.init(start), jnp.zeros((), jnp.int32), steepest))[0]
