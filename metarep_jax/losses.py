"""Losses and shares that every stage measures by, for predictions with any leading axes, as means of what counts."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Shaped


def masked_mean(
    values: Shaped[Array, "*rows"], mask: Shaped[Array, "*rows"] | None = None, axis_name: str | None = None
) -> Float[Array, ""]:
    """The mean of the ``values`` that ``mask`` keeps; 0 when it keeps none.

    Args:
      values: of any shape. Those that are left out may be anything, NaN included.
      mask: which values count; None: all.
      axis_name: the mapped axis over which the values are spread, or None. A device then returns its own sum over the
        mean of the devices' counts, so that the average over devices is the mean over all that counts, however
        unequally it is spread, and the average of gradients its gradient.
    """
    if mask is None:
        return values.mean()
    mask = mask.astype(bool)
    count = mask.sum() if axis_name is None else jax.lax.pmean(mask.sum(), axis_name)
    return jnp.sum(jnp.where(mask, values, 0)) / jnp.where(count > 0, count, 1)


def cross_entropy(
    logits: Float[Array, "*rows classes"],
    label: Shaped[Array, "..."],
    mask: Shaped[Array, "*rows"] | None = None,
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """Mean over rows of −Σ_c p_c log softmax(logits)_c, in nats.

    Args:
      logits: [*rows, classes].
      label: p as class numbers [*rows], or as distributions over the classes [*rows, classes], such as mixed labels.
      mask, axis_name: see ``masked_mean``.
    """
    if jnp.issubdtype(label.dtype, jnp.integer):
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, label)
    else:
        losses = optax.softmax_cross_entropy(logits, label)
    return masked_mean(losses, mask, axis_name)


def kl_divergence(
    logits: Float[Array, "*rows classes"],
    wanted: Float[Array, "*rows classes"],
    temperature: float = 1.0,
    mask: Shaped[Array, "*rows"] | None = None,
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """Mean over rows of KL(softmax(wanted / T) ‖ softmax(logits / T)), in nats.

    Args:
      logits, wanted: [*rows, classes], both before the softmax.
      temperature: T.
      mask, axis_name: see ``masked_mean``.
    """
    log_p, log_q = (jax.nn.log_softmax(scores / temperature) for scores in (wanted, logits))
    return masked_mean(optax.losses.kl_divergence_with_log_targets(log_q, log_p), mask, axis_name)


def squared_error(
    prediction: Float[Array, "*rows dim"],
    target: Float[Array, "*rows dim"],
    mask: Shaped[Array, "*rows"] | None = None,
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """Mean over rows and dimensions of (prediction − target)²."""
    return masked_mean(jnp.mean((prediction - target) ** 2, axis=-1), mask, axis_name)


def accuracy(
    logits: Float[Array, "*rows classes"],
    label: Int[Array, "*rows"],
    mask: Shaped[Array, "*rows"] | None = None,
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """The share of rows whose largest logit is the label's, in [0, 1]."""
    right = jnp.argmax(logits, -1) == label
    return masked_mean(right.astype(jnp.float32), mask, axis_name)
