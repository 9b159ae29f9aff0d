"""WAV files to waves, and waves to rows of 16-bit samples at one rate and of one length."""

import io
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from math import gcd
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int16

from metarep_jax.types import PAD_SAMPLE

Say = Callable[[str], None]  # takes a sentence for the user
INT16 = -32768  # the lowest 16-bit sample
FULL = 32767  # of a 16-bit sample; −32768 is kept for filling


def read_wav(content: Path | bytes, what: str) -> tuple[int, Float[np.ndarray, "..."]]:
    """Samples a second, and samples: [n], or [n, channels] where there are several; integers become floats in [−1, 1],
    floats stay (see ``in_range``).

    Raises:
      ValueError: when it cannot be read, is empty, or holds NaN; ``what`` names it.
    """
    from scipy.io import wavfile

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", wavfile.WavFileWarning)  # chunks of notes beside the samples
            rate, samples = wavfile.read(io.BytesIO(content) if isinstance(content, bytes) else content)
    except Exception as error:  # whatever a damaged file makes its reader raise
        raise ValueError(f"{what} cannot be read as WAV ({error}); replace it or remove it") from error
    if samples.dtype == np.uint8:
        wave = (samples.astype(np.float32) - 128) / 128
    elif np.issubdtype(samples.dtype, np.integer):
        wave = samples.astype(np.float32) / -float(np.iinfo(samples.dtype).min)
    else:
        wave = samples.astype(np.float32)
    if not wave.size or not np.isfinite(wave).all():
        raise ValueError(f"{what} holds {'NaN or infinite' if wave.size else 'no'} samples; replace it or remove it")
    return int(rate), wave


def in_range(found: Sequence[tuple[int, Float[np.ndarray, "..."]]], say: Say) -> list[tuple[int, np.ndarray]]:
    """The recordings with samples in [−1, 1]; what lies beyond is scaled, not clipped, and it is said.

    Floats that are whole numbers of up to ±32,768 are samples of 16 bits, and so are all other recordings of whole
    numbers beside them; any other recording beyond ±1 is divided by its largest sample.
    """
    peaks = [float(np.abs(wave).max(initial=0)) for _, wave in found]
    if max(peaks, default=0) <= 1:
        return list(found)
    whole = [peak <= -INT16 and np.array_equal(wave, np.round(wave)) for (_, wave), peak in zip(found, peaks)]
    of_16_bits = any(peak > 1 for peak, integers in zip(peaks, whole) if integers)
    scales = [1 / -INT16 if of_16_bits and integers else 1 / max(peak, 1.0) for peak, integers in zip(peaks, whole)]
    if of_16_bits:
        say(f"of {len(found)} recordings {sum(whole)} hold whole numbers as floats and are divided by {-INT16:,}")
    beyond = sum(peak > 1 and not (of_16_bits and integers) for peak, integers in zip(peaks, whole))
    if beyond:
        say(f"of {len(found)} recordings {beyond} have samples beyond ±1 and are divided by their largest sample")
    return [(rate, (wave * np.float32(scale))) for (rate, wave), scale in zip(found, scales)]


def mixed(found: Sequence[tuple[int, Float[np.ndarray, "..."]]], say: Say) -> list[tuple[int, Float[np.ndarray, " _"]]]:
    """The waves with one channel each: the mean where there are several, which is said."""
    several = sum(wave.ndim > 1 for _, wave in found)
    if several:
        say(f"of {len(found)} recordings {several} in stereo are mixed down to one channel")
    return [(rate, wave if wave.ndim == 1 else wave.mean(1)) for rate, wave in found]


def at_rate(found: Sequence[tuple[int, Float[np.ndarray, " _"]]], rate: int, say: Say) -> list[Float[np.ndarray, " _"]]:
    """The waves at one rate; those at another are resampled (by a polyphase low-pass filter), and it is said."""
    others = Counter(own for own, _ in found if own != rate)
    if others:
        from scipy.signal import resample_poly

        rates = ", ".join(f"{count} at {own} Hz" for own, count in sorted(others.items()))
        say(f"of {len(found)} recordings {rates} are resampled to {rate} Hz")
        return [
            wave
            if own == rate
            else resample_poly(wave, rate // gcd(rate, own), own // gcd(rate, own)).astype(np.float32)
            for own, wave in found
        ]
    return [wave for _, wave in found]


def as_rows(waves: Sequence[Float[np.ndarray, " _"]], samples: int, say: Say) -> Int16[np.ndarray, "n samples"]:
    """Waves as 16-bit rows of one length: the middle of longer ones, which is said, and shorter ones filled up."""
    rows = np.full((len(waves), samples), PAD_SAMPLE, np.int16)
    for row, wave in zip(rows, waves, strict=True):
        begin = max(len(wave) - samples, 0) // 2
        kept = wave[begin : begin + samples]
        row[: len(kept)] = np.clip(np.round(kept * FULL), -FULL, FULL).astype(np.int16)
    longer = sum(len(wave) > samples for wave in waves)
    if longer:
        say(f"of {longer} recordings longer than {samples} samples the middle is kept")
    return rows
