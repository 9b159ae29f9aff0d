"""Contrastive predictive coding: from the past, predict which frames come next, among frames that do not."""

from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Bool, Float

from metarep_jax.encoders import split_variables
from metarep_jax.encoders.sequences import ContextEncoder
from metarep_jax.losses import masked_mean
from metarep_jax.pretrain.chain import encoder_features
from metarep_jax.pretrain.checks import with_least_batch
from metarep_jax.pretrain.devices import gather_rows, own_rows
from metarep_jax.pretrain.modules import trained
from metarep_jax.types import Keys, Metrics, Objective

Negatives = Literal["within", "across", "all"]


class Predictors(nn.Module):
    """One linear map from contexts to frames for each number of places ahead (W_k in the paper)."""

    count: int

    @nn.compact
    def __call__(self, contexts: Float[Array, "n l context"], dim: int) -> Float[Array, "k n l dim"]:
        start = nn.initializers.lecun_normal(batch_axis=(0,))
        kernel = self.param("kernel", start, (self.count, contexts.shape[-1], dim), jnp.float32)
        return jnp.einsum("nlc,kcd->knld", contexts, kernel)


def cpc(
    encoder: nn.Module,
    *,
    ahead: tuple[int, ...] = tuple(range(1, 13)),
    negatives: Negatives = "within",
    axis_name: str | None = None,
) -> Objective:
    """From the GRU's state at every place of a sequence, each of several next frames is predicted, contrastively.

    Args:
      encoder: a ``ContextEncoder``: frames, and the GRU over them. It is handed on whole.
      ahead: how many places ahead is predicted, once for each; at least 1 each. For image patches, multiples of the
        grid's columns predict what lies below.
      negatives: frames "within" the same sequence, which leave out what all its frames share (the speaker); those of
        other sequences at the same place ("across"), which keep it; or "all" frames of all sequences.
      axis_name: the mapped axis over which the batch is sharded, or None.

    Returns:
      An ``Objective``; its loss is the mean InfoNCE over all predictions of the global batch, its metric
      ``prediction_accuracy`` the share of them whose frame has the highest score.

    Raises:
      ValueError: for places ahead that are not positive, unknown negatives, or an encoder without frames; by ``init``
        for places beyond the sequences' length, and for a batch of one whose negatives are of other sequences.

    References:
      van den Oord et al. 2018, https://arxiv.org/abs/1807.03748, sections 2.2, 2.3 and 3.1 (12 frames ahead).
    """
    ahead = tuple(ahead)
    if not ahead or min(ahead) < 1:
        raise ValueError(f"cpc: ahead must name places of at least 1, got {ahead}")
    if negatives not in get_args(Negatives):
        raise ValueError(f"cpc: unknown negatives {negatives!r}; there are: {', '.join(get_args(Negatives))}")
    if not isinstance(encoder, ContextEncoder):
        raise ValueError(f"cpc needs an encoder of sequences (waveform, patches), got {type(encoder).__name__}")
    predictors = Predictors(len(ahead))

    def init(key: Array, batch: dict, encoder_params: Any = None) -> tuple[Any, Any]:
        encoder_key, predictors_key = jax.random.split(key)
        inputs = batch["inputs"][:2]
        variables = encoder_params or encoder.init(encoder_key, inputs)
        sequence: Any = encoder.apply(variables, inputs, method="sequence")
        frames, contexts, _ = sequence
        if frames.shape[1] <= max(ahead):
            raise ValueError(
                f"cpc: predicts up to {max(ahead)} frames ahead, but sequences have {frames.shape[1]} in all"
            )
        start = predictors.init(predictors_key, contexts, frames.shape[-1])
        return split_variables({"encoder": variables, "predictors": start})

    def loss(params: Any, state: Any, batch: dict, keys: Keys, step: Any) -> tuple[Array, tuple[Any, dict]]:
        del keys, step
        (frames, contexts, keep), state = trained(encoder, "encoder", params, state, batch["inputs"], method="sequence")
        frames, contexts = frames.astype(jnp.float32), contexts.astype(jnp.float32)
        predicted, state = trained(predictors, "predictors", params, state, contexts, frames.shape[-1])
        value, metrics = next_frame_loss(predicted, frames, keep, ahead=ahead, negatives=negatives, axis_name=axis_name)
        return value, (state, metrics)

    if negatives == "across":
        init = with_least_batch("cpc", init, "since negatives are of other sequences")
    return Objective(init, loss, encoder_features(encoder))


def next_frame_loss(
    predicted: Float[Array, "k n l dim"],
    frames: Float[Array, "n l dim"],
    keep: Bool[Array, "n l"],
    *,
    ahead: tuple[int, ...],
    negatives: Negatives,
    axis_name: str | None = None,
) -> tuple[Float[Array, ""], Metrics]:
    """InfoNCE of predictions against the frames that came: cross-entropy of inner products over N candidates.

    Args:
      predicted: for each of ``ahead``, at each place, what comes so many places later.
      frames: what is there.
      keep: which frames count; others are neither predicted, nor predicted from, nor candidates.
      ahead: k numbers of places.
      negatives: the candidates. "within": all frames of the same sequence (N = l); "across": the frames at the same
        place of all sequences of the global batch (N = their number); "all": all frames of all sequences. The right
        frame is always among them, and counted in N once.
      axis_name: the mapped axis over which the sequences are sharded, or None.

    Returns:
      The mean over the predictions that count, in nats, and ``prediction_accuracy``; scores that do not depend on the
      frame give log N.
    """
    n, length, _ = frames.shape
    own, place = own_rows(n, axis_name), jnp.arange(length)
    everyone, counted = (gather_rows(rows, axis_name) if negatives != "within" else rows for rows in (frames, keep))

    @jax.checkpoint  # the scores of one number of places at a time: those of all need not be held
    def one(carry: None, predicted_and_step: tuple[Array, Array]) -> tuple[None, tuple[Array, Array, Array]]:
        prediction, step = predicted_and_step
        target = jnp.minimum(place + step, length - 1)
        counts = keep & keep[:, target] & (place + step < length)
        if negatives == "within":
            scores, candidate = jnp.einsum("nld,nmd->nlm", prediction, frames), keep[:, None, :]
            right = jnp.broadcast_to(target, (n, length))
        elif negatives == "across":
            scores = jnp.einsum("nld,mld->nlm", prediction, everyone[:, target])
            candidate, right = counted[:, target].T[None], jnp.broadcast_to(own[:, None], (n, length))
        else:
            scores = jnp.einsum("nld,md->nlm", prediction, everyone.reshape(-1, everyone.shape[-1]))
            candidate, right = counted.reshape(1, 1, -1), own[:, None] * length + target
        scores = jnp.where(candidate, scores, -1e9)  # finite: a row without candidates must not make NaN gradients
        losses = optax.softmax_cross_entropy_with_integer_labels(scores, right)
        return carry, (losses, scores.argmax(-1) == right, counts)

    steps = jnp.asarray(ahead, jnp.int32)
    _, (losses, hits, counts) = lax.scan(one, None, (predicted, steps))
    accuracy = masked_mean(hits.astype(losses.dtype), counts, axis_name)
    return masked_mean(losses, counts, axis_name), {"prediction_accuracy": accuracy}
