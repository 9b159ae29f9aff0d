"""Frames of waveforms and of image patches: what each sees, and what the recurrent network knows of it."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from metarep_jax.encoders import EncoderConfig, make_encoder
from metarep_jax.encoders.log_mel import LogMel, from_mel, mel_filters, to_mel
from metarep_jax.encoders.sequences import ContextEncoder, PatchFrames, grid_size, moments
from metarep_jax.encoders.waveform import WaveformFrames, as_wave_float, hop, receptive_field
from metarep_jax.types import PAD_SAMPLE

STRIDES = (3, 2)
WAVES = (8000 * np.random.default_rng(0).normal(size=(2, 60))).astype(np.int16)


class Flat(nn.Module):
    """A square's pixels as its features."""

    @nn.compact
    def __call__(self, x, mask=None, running=False):
        return x.reshape(len(x), -1)


@cache
def context_encoder(**changed):
    encoder = ContextEncoder(WaveformFrames(6, STRIDES), context=5, **changed)
    return encoder, jax.jit(encoder.init)(jax.random.key(1), WAVES)


def test_default_strides_are_those_of_cpc():
    strides = WaveformFrames().strides
    assert (hop(strides), receptive_field(strides)) == (160, 465)


def test_a_frame_sees_its_receptive_field_and_nothing_else():
    frames = WaveformFrames(16, STRIDES, norm="none")

    @jax.jit
    def jacobian(samples):
        wave = as_wave_float(samples)
        variables = frames.init(jax.random.key(2), wave)
        return jax.jacobian(lambda wave: frames.apply(variables, wave)[0][0].sum(-1))(wave)

    seen = np.asarray(jacobian(WAVES[:1]))[:, 0]
    step, field = hop(STRIDES), receptive_field(STRIDES)
    assert (step, field) == (6, 15)
    assert seen.shape[0] == 1 + (60 - field) // step
    for frame, row in enumerate(seen):
        inside = np.flatnonzero(row)
        assert inside.min() == frame * step
        assert inside.max() == frame * step + field - 1


def test_filling_after_the_end_changes_nothing():
    encoder, variables = context_encoder()
    filled = np.pad(WAVES, ((0, 0), (0, 25)), constant_values=PAD_SAMPLE)
    both = jax.jit(lambda *waves: [encoder.apply(variables, each) for each in waves])
    np.testing.assert_allclose(*both(filled, WAVES), rtol=1e-4, atol=1e-6)


def test_frames_count_where_all_they_see_was_recorded_and_the_first_always():
    frames = WaveformFrames(2, STRIDES)
    waves = WAVES.copy()
    waves[0, 27:] = waves[1, 3:] = PAD_SAMPLE
    _, keep = jax.jit(lambda waves: frames.init_with_output(jax.random.key(3), waves))(waves)[0]
    assert np.asarray(keep).sum(1).tolist() == [1 + (27 - 15) // 6, 1]


def test_moments_are_mean_and_deviation_of_the_places_that_count():
    states, keep = np.random.default_rng(6).normal(size=(2, 5, 3)), np.ones((2, 5), bool)
    keep[0, 3:] = False

    @jax.jit
    def moments_and_gradient(states, equal, keep):
        return moments(states, keep), jax.grad(lambda states: moments(states, keep).sum())(equal)

    found, gradient = map(np.asarray, moments_and_gradient(states, np.ones((2, 5, 3)), keep))
    np.testing.assert_allclose(found[0], np.concatenate([states[0, :3].mean(0), states[0, :3].std(0)]), rtol=1e-5)
    np.testing.assert_allclose(found[1], np.concatenate([states[1].mean(0), states[1].std(0)]), rtol=1e-5)
    np.testing.assert_allclose(gradient[1], 1 / 5, rtol=1e-5)  # of the mean alone: nothing differs


def test_moments_are_read_out_of_frames_and_contexts():
    encoder, variables = context_encoder(readout="moments")

    @jax.jit
    def ours_and_wanted(waves):
        frames, contexts, keep = encoder.apply(variables, waves, method="sequence")
        both = jnp.concatenate([frames, contexts], axis=-1)
        return encoder.apply(variables, waves), moments(both, keep)

    found, wanted = ours_and_wanted(WAVES)
    assert found.shape == (2, 2 * (6 + 5))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    config = EncoderConfig(name="waveform", width=4, strides=STRIDES, context=5, readout="moments")
    features, _ = jax.eval_shape(make_encoder(config).init_with_output, jax.random.key(0), WAVES)
    assert features.shape == (2, 18)


def test_contexts_know_nothing_of_later_frames():
    encoder, variables = context_encoder()
    sequence = jax.jit(lambda waves: encoder.apply(variables, waves, method="sequence"))
    cut = 30  # the last sample that the frame at place (30 - 15) // 6 sees lies before it
    changed = np.concatenate([WAVES[:, :cut], -WAVES[:, cut:]], axis=1)
    last = (cut - 15) // 6
    one, other = (np.asarray(sequence(waves)[1]) for waves in (WAVES, changed))
    np.testing.assert_allclose(one[:, : last + 1], other[:, : last + 1], rtol=1e-5)
    assert not np.allclose(one[:, last + 2], other[:, last + 2], rtol=1e-3)


def test_samples_are_scaled_to_one_and_filling_is_silence():
    wave = np.array([[0, 16384, -32767, PAD_SAMPLE]], np.int16)
    np.testing.assert_allclose(jax.jit(as_wave_float)(wave), [[0, 0.5, -1, 0]], atol=1e-4)


def test_squares_overlap_and_lie_row_by_row():
    image = np.arange(7 * 9, dtype=np.float32).reshape(1, 7, 9, 1) / 63
    squares = jax.jit(lambda image: PatchFrames(Flat(), patch=3, stride=2).apply({}, image))
    frames, keep = map(np.asarray, squares(image))
    columns = grid_size(9, 3, 2)
    assert frames.shape == (1, 3 * 4, 9) and columns == 4 and keep.all()
    np.testing.assert_array_equal(frames[0, columns + 2], image[0, 2:5, 4:7].reshape(-1))


@pytest.mark.parametrize(
    ("config", "inputs"),
    [
        (EncoderConfig(name="waveform", width=4, strides=STRIDES, context=5), WAVES),
        (
            EncoderConfig(name="patches", width=4, patch=4, context=5),
            np.arange(200, dtype=np.uint8).reshape(2, 10, 10, 1),
        ),
    ],
)
def test_an_encoders_features_of_a_row_do_not_depend_on_the_others(config, inputs):
    encoder = make_encoder(config)
    variables = jax.jit(encoder.init)(jax.random.key(4), inputs)
    assert "batch_stats" not in variables
    both = jax.jit(lambda inputs: (encoder.apply(variables, inputs), encoder.apply(variables, inputs[1:])))
    whole, alone = map(np.asarray, both(inputs))
    assert whole.shape == (2, 5)
    np.testing.assert_allclose(alone, whole[1:], rtol=1e-5, atol=1e-6)


def test_mel_filters_sum_to_one_and_are_spaced_evenly_in_mel():
    filters = mel_filters(8000, 4000, 20)
    frequencies = np.fft.rfftfreq(4000, 1 / 8000)
    centres = frequencies[filters.argmax(0)]
    inside = (frequencies > centres[0] + 2) & (frequencies < centres[-1] - 2)  # a window has every second Hz
    np.testing.assert_allclose(filters.sum(1)[inside], 1, atol=1e-5)
    np.testing.assert_allclose(np.diff(to_mel(centres)), to_mel(4000) / 21, rtol=0.03)
    assert from_mel(to_mel(440.0)) == pytest.approx(440)


def test_log_mel_of_a_louder_recording_is_higher_by_the_logarithm_and_does_not_see_filling():
    wave = (0.2 * np.random.default_rng(5).normal(size=(2, 800))).astype(np.float32)
    features = jax.jit(lambda wave: LogMel(bins=8).apply({}, wave))
    one, louder = np.asarray(features(wave)), np.asarray(features(3 * wave))
    np.testing.assert_allclose(louder[:, :8] - one[:, :8], 2 * np.log(3), rtol=1e-3)
    np.testing.assert_allclose(louder[:, 8:], one[:, 8:], rtol=1e-2)
    samples = np.round(20000 * wave / np.abs(wave).max()).astype(np.int16)
    filled = np.pad(samples, ((0, 0), (0, 333)), constant_values=PAD_SAMPLE)
    np.testing.assert_allclose(features(filled), features(samples), rtol=1e-4, atol=1e-4)


def test_recordings_shorter_than_a_frame_are_refused():
    with pytest.raises(ValueError, match="waveforms of 14 samples are shorter than a frame, which sees 15"):
        jax.eval_shape(WaveformFrames(2, STRIDES).init, jax.random.key(0), WAVES[:, :14])


def test_strides_and_readouts_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"strides must be positive, at least one, got \(2, 0\)"):
        receptive_field((2, 0))
    with pytest.raises(ValueError, match="unknown readout 'last'; there are: context, frames, moments"):
        context_encoder(readout="last")
    with pytest.raises(ValueError, match="squares of 9 pixels by steps of 2 do not fit"):
        jax.eval_shape(PatchFrames(Flat(), patch=9, stride=2).apply, {}, np.zeros((1, 8, 8, 1)))
