"""CPC's loss against its definition: who is told apart from whom, and what is counted."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarep_jax.encoders.mlp import MLP
from metarep_jax.encoders.sequences import ContextEncoder
from metarep_jax.encoders.waveform import WaveformFrames
from metarep_jax.pretrain.cpc import cpc, next_frame_loss

AHEAD, N, LENGTH, DIM = (1, 3), 4, 7, 5
FRAMES = np.random.default_rng(0).normal(size=(N, LENGTH, DIM)).astype(np.float32)
PREDICTED = np.random.default_rng(1).normal(size=(len(AHEAD), N, LENGTH, DIM)).astype(np.float32)
ALL = np.ones((N, LENGTH), bool)
SOME = ALL.copy()
SOME[1, 5:] = SOME[2, 2:] = False
MODES = {"within": LENGTH, "across": N, "all": N * LENGTH}
compiled = jax.jit(next_frame_loss, static_argnames=("ahead", "negatives", "axis_name"))


def loss_of(negatives, predicted=PREDICTED, frames=FRAMES, keep=ALL, ahead=AHEAD):
    return compiled(predicted, frames, keep, ahead=ahead, negatives=negatives)


@pytest.mark.parametrize(("negatives", "candidates"), MODES.items())
def test_a_scorer_that_does_not_look_at_the_frames_loses_the_log_of_the_candidates(negatives, candidates):
    loss, _ = loss_of(negatives, predicted=np.zeros_like(PREDICTED))
    assert loss == pytest.approx(np.log(candidates), rel=1e-6)


@pytest.mark.parametrize("negatives", MODES)
def test_the_loss_is_the_written_out_definition_over_frames_that_count(negatives):
    frames, predicted, keep = (np.asarray(x, np.float64) for x in (FRAMES, PREDICTED, SOME))
    losses, hits = [], []
    for k, step in enumerate(AHEAD):
        for i in range(N):
            for t in range(LENGTH - step):
                if not (keep[i, t] and keep[i, t + step]):
                    continue
                pairs = {
                    "within": [(i, u) for u in range(LENGTH)],
                    "across": [(j, t + step) for j in range(N)],
                    "all": [(j, u) for j in range(N) for u in range(LENGTH)],
                }[negatives]
                scores = {pair: predicted[k, i, t] @ frames[pair] for pair in pairs if keep[pair]}
                right = scores[i, t + step]
                losses.append(np.log(sum(np.exp(score - right) for score in scores.values())))
                hits.append(right == max(scores.values()))
    loss, metrics = loss_of(negatives, keep=SOME)
    assert loss == pytest.approx(np.mean(losses), rel=1e-5)
    assert metrics["prediction_accuracy"] == pytest.approx(np.mean(hits), rel=1e-5)


def test_negatives_within_a_sequence_leave_out_the_other_sequences():
    other = np.concatenate([FRAMES[:1], np.zeros_like(FRAMES[1:])])
    one = jax.jit(jax.grad(lambda frames: loss_of("within", frames=frames)[0]))
    np.testing.assert_allclose(np.asarray(one(FRAMES))[0], np.asarray(one(other))[0], rtol=1e-5)


def test_negatives_across_sequences_leave_out_the_other_places():
    """Predicting place 3 from place 0 of every sequence, nothing but place 3 matters."""
    keep, other = np.zeros_like(ALL), FRAMES.copy()
    keep[:, [0, 3]] = True
    other[:, 4:] = other[:, 1:3] = 9.0
    one = loss_of("across", keep=keep, ahead=(3,), predicted=PREDICTED[:1])
    two = loss_of("across", keep=keep, ahead=(3,), predicted=PREDICTED[:1], frames=other)
    assert float(one[0]) == float(two[0])
    whole = loss_of("all", keep=keep, ahead=(3,), predicted=np.zeros_like(PREDICTED[:1]))
    assert whole[0] == pytest.approx(np.log(2 * N), rel=1e-6)  # frames that do not count are no candidates


@pytest.mark.parametrize("negatives", MODES)
def test_accuracy_is_over_the_predictions_that_count(negatives):
    frames = np.eye(N * LENGTH, dtype=np.float32).reshape(N, LENGTH, -1)
    right = np.stack([np.roll(frames, -step, axis=1) for step in AHEAD])
    assert loss_of(negatives, right, frames, SOME)[1]["prediction_accuracy"] == 1
    wrong = np.stack([-right[0], right[1]])  # those one place ahead are wrong: 6 + 4 + 1 + 6 of 17 + (4 + 2 + 0 + 4)
    accuracy = loss_of(negatives, wrong, frames, SOME)[1]["prediction_accuracy"]
    assert accuracy == pytest.approx(10 / 27, rel=1e-6)


def test_sequences_in_which_nothing_counts_lose_nothing_and_have_no_gradient():
    value, gradient = jax.jit(jax.value_and_grad(lambda frames: loss_of("all", frames=frames, keep=~ALL)[0]))(FRAMES)
    assert value == 0 and not np.asarray(gradient).any()


@pytest.mark.parametrize("negatives", ["across", "all"])
@pytest.mark.parametrize("devices", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_candidates_are_those_of_the_global_batch(negatives, devices):
    def whole(predicted, frames):
        return loss_of(negatives, predicted, frames, SOME)[0]

    def shard(predicted, frames, keep):
        def local(predicted, frames):
            return next_frame_loss(predicted, frames, keep, ahead=AHEAD, negatives=negatives, axis_name="device")[0]

        value, grads = jax.value_and_grad(local, (0, 1))(predicted, frames)
        return jax.lax.pmean(value, "device"), grads

    each = N // devices
    split = np.moveaxis(PREDICTED.reshape(len(AHEAD), devices, each, LENGTH, DIM), 1, 0)
    rows = (FRAMES.reshape(devices, each, LENGTH, DIM), SOME.reshape(devices, each, LENGTH))
    loss, (for_predicted, for_frames) = jax.device_get(jax.jit(jax.vmap(shard, axis_name="device"))(split, *rows))
    wanted, grads = jax.jit(jax.value_and_grad(whole, (0, 1)))(PREDICTED, FRAMES)
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)
    joined = np.moveaxis(for_predicted, 0, 1).reshape(PREDICTED.shape) / devices
    np.testing.assert_allclose(joined, grads[0], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(for_frames.reshape(FRAMES.shape) / devices, grads[1], rtol=1e-4, atol=1e-7)


def waveform():
    return ContextEncoder(WaveformFrames(4, (2, 2)), context=3)


@pytest.mark.parametrize("ahead", [(), (0, 1), (-2,)])
def test_places_that_are_not_ahead_are_refused(ahead):
    with pytest.raises(ValueError, match="ahead must name places of at least 1"):
        cpc(waveform(), ahead=ahead)


def test_unknown_negatives_and_encoders_are_refused():
    with pytest.raises(ValueError, match="unknown negatives 'batch'; there are: within, across, all"):
        inspect.unwrap(cpc)(waveform(), negatives="batch")  # as without the tests' own check of types
    with pytest.raises(ValueError, match="needs an encoder of sequences"):
        cpc(MLP())


def test_sequences_that_are_too_short_are_refused():
    objective = cpc(waveform(), ahead=(1, 12))
    with pytest.raises(ValueError, match="up to 12 frames ahead, but sequences have 4 in all"):
        jax.eval_shape(objective.init, jax.random.key(0), {"inputs": jnp.zeros((2, 24), jnp.int16)})
