"""Log-mel features of waveforms: what speech recognisers took before features were learned. The baseline for audio."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Shaped

from metarep_jax.encoders.sequences import moments
from metarep_jax.encoders.settings import check_positive
from metarep_jax.encoders.waveform import as_wave_float, recorded_samples

FLOOR = 1e-6  # of energies before their logarithm: near the rounding of 16-bit samples


def log_mel(*, rate: int = 8000, bins: int = 40) -> nn.Module:
    """Log-mel energies of recordings; nothing is learned.

    Args:
      rate: samples a second of the recordings; a run takes that of its data.
      bins: filters; there are twice as many features.

    Raises:
      ValueError: for a setting that is not positive.
    """
    return LogMel(rate=rate, bins=bins)


class LogMel(nn.Module):
    """Waveforms [n, t] to features [n, 2 · bins]: mean and standard deviation over time of log-mel energies.

    Nothing is learned. Energies of overlapping windows of 25 ms, every 10 ms, are summed by ``bins`` triangular filters
    that are spaced evenly in mel, and their logarithms are taken. Source: Davis & Mermelstein 1980,
    https://doi.org/10.1109/TASSP.1980.1163420, without the last cosine transform.
    """

    rate: int = 8000
    bins: int = 40
    window: float = 0.025
    step: float = 0.010
    takes = "waves"

    def __post_init__(self) -> None:
        check_positive(self, "rate", "bins", "window", "step")
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: Shaped[Array, "n t"], mask: Bool[Array, " n"] | None = None, running: bool = False
    ) -> Float[Array, "n dim"]:
        del mask, running
        width, step = round(self.rate * self.window), round(self.rate * self.step)
        if x.shape[1] < width:
            raise ValueError(f"waveforms of {x.shape[1]} samples are shorter than a window of {width}")
        start = jnp.arange(1 + (x.shape[1] - width) // step) * step
        keep = (start + width <= recorded_samples(x)[:, None]).at[:, 0].set(True)
        windows = as_wave_float(x)[:, start[:, None] + jnp.arange(width)] * np.hanning(width)
        energy = jnp.square(jnp.abs(jnp.fft.rfft(windows))) / width
        found = jnp.log(energy @ mel_filters(self.rate, width, self.bins) + FLOOR)
        return moments(found, keep)


def mel_filters(rate: int, width: int, bins: int) -> Float[np.ndarray, "frequencies bins"]:
    """Triangles over the frequencies of a window of ``width`` samples: each rises from the centre of the one before to
    its own, and falls to the next one's. Between the first and the last centre they sum to 1."""
    frequencies = np.fft.rfftfreq(width, 1 / rate)
    corners = from_mel(np.linspace(0, to_mel(rate / 2), bins + 2))
    up = (frequencies[:, None] - corners[:-2]) / (corners[1:-1] - corners[:-2])
    down = (corners[2:] - frequencies[:, None]) / (corners[2:] - corners[1:-1])
    return np.maximum(np.minimum(up, down), 0).astype(np.float32)


def to_mel(frequency: Any) -> Any:
    """Hz to mel (O'Shaughnessy 1987): equal steps sound equally far apart."""
    return 2595 * np.log10(1 + np.asarray(frequency) / 700)


def from_mel(mel: Any) -> Any:
    """The inverse of ``to_mel``."""
    return 700 * (10 ** (np.asarray(mel) / 2595) - 1)
