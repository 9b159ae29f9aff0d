"""Logistic regression on frozen features: the strong few-shot baseline of "a good embedding is all you need"."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float, Int

from metarep_jax.encoders import split_variables
from metarep_jax.encoders.features import unit_rows
from metarep_jax.metalearn.base import check_labels, cross_entropy, refuse_meta_training, seen_classes_only
from metarep_jax.metalearn.features import encode_queries, encode_support
from metarep_jax.types import Context, Episode, Examples, MetaLearner, NormMode


def logistic_regression(
    encoder: nn.Module, *, way: int, l2: float = 1.0, iterations: int = 30, test_norm: NormMode = "running"
) -> MetaLearner:
    """Fits a linear classifier on the support set's features, scaled to unit length; the encoder stays as it is.

    Args:
      encoder: a module of ``metarep_jax.encoders``, trained already.
      way: classes of an episode.
      l2: strength of the penalty (the inverse of scikit-learn's ``C``).
      iterations: of L-BFGS.
      test_norm: whose statistics batch norm uses for the queries.

    Raises:
      ValueError: for ``iterations`` below 1; by ``init`` for regression, by ``meta_grad`` always.

    References:
      Tian et al. 2020, https://arxiv.org/abs/2003.11539, section 3.
    """
    if iterations < 1:
        raise ValueError(f"logistic regression takes at least 1 iteration, got iterations={iterations}")

    def init(key: Array, episode: Episode, encoder_params: Any = None) -> tuple[Any, Any]:
        check_labels(episode, "class numbers", "logistic regression")
        return split_variables({"encoder": encoder_params or encoder.init(key, episode.support.inputs)})

    def adapt(params: Any, state: Any, support: Examples, key: Array, ctx: Context) -> dict:
        del key
        features = unit_rows(encode_support(encoder, params, state, support, ctx))
        weights, bias = fit_logistic(features, support.label, way, l2=l2, iterations=iterations, mask=support.mask)
        return {"weights": weights, "bias": bias, "support": support}

    def predict(params: Any, state: Any, task: dict, inputs: Array, ctx: Context, mask: Any = None) -> dict:
        features, _ = encode_queries(encoder, params, state, task["support"], inputs, ctx, mask)
        logits = unit_rows(features) @ task["weights"] + task["bias"]
        return {"logits": seen_classes_only(logits, task["support"]), "features": features}

    refused = refuse_meta_training(
        "logistic_regression fits features that are trained already",
        "newton_logistic is the same classifier, one class against the rest, that can be",
    )
    return MetaLearner(init, adapt, predict, cross_entropy, refused, test_context=Context(norm=test_norm))


def fit_logistic(
    features: Float[Array, "n dim"],
    label: Int[Array, " n"],
    classes: int,
    *,
    l2: float | Float[Array, ""] = 1.0,
    iterations: int = 30,
    mask: Array | None = None,
) -> tuple[Float[Array, "dim classes"], Float[Array, " classes"]]:
    """Multinomial logistic regression: minimises Σ cross-entropy + l2/2 ‖W‖² by L-BFGS, the bias unpenalised.

    A class without rows is left out of the softmax, as it is in the limit of its bias going to −∞: with it, there would
    be no minimiser to reach. Its weights and bias are 0, and its logits are for the caller to leave out.

    With fewer rows than dimensions the problem is solved in the span of the rows, where W = Xᵀ L⁻ᵀ V with
    X Xᵀ = L Lᵀ: the same minimiser, in n instead of dim unknowns a class.
    """
    n, dim = features.shape
    basis = jnp.eye(dim, dtype=features.dtype)
    if n < dim:
        gram = features @ features.T
        jitter = 1e-6 * jnp.trace(gram) / n
        lower = jnp.linalg.cholesky(gram + jitter * jnp.eye(n, dtype=gram.dtype))
        basis = jax.scipy.linalg.solve_triangular(lower, features, lower=True).T
    rows = features @ basis
    mask = jnp.ones(n, features.dtype) if mask is None else mask

    def objective(fit: tuple[Array, Array]) -> Array:
        weights, bias = fit
        logits = seen_classes_only(rows @ weights + bias, Examples(rows, label, mask))
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, label)
        return jnp.sum(losses * mask) + 0.5 * l2 * jnp.sum(weights**2)

    solver = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(objective)

    def iterate(carry: Any, _: None) -> tuple[Any, None]:
        fit, solver_state = carry
        value, grad = value_and_grad(fit, state=solver_state)
        updates, solver_state = solver.update(grad, solver_state, fit, value=value, grad=grad, value_fn=objective)
        return (optax.apply_updates(fit, updates), solver_state), None

    start = (jnp.zeros((rows.shape[1], classes), features.dtype), jnp.zeros(classes, features.dtype))
    ((weights, bias), _), _ = jax.lax.scan(iterate, (start, solver.init(start)), None, length=iterations)
    return basis @ weights, bias
