"""Synthetic speech: made-up words of vowel-like sounds, for trying things out without a download. It is not speech.

A word is three sounds out of eight, each with two formants (resonances, in Hz, close to those of English vowels); a
voice glides from one to the next. Every recording has a voice (pitch, size of the vocal tract), a pace and noise of its
own. What is measured on it says little about real recordings.
"""

import itertools
import logging
from pathlib import Path

import numpy as np
from jaxtyping import Float

from metarep_jax.data.array_cache import cached, digest
from metarep_jax.data.audio.wav import as_rows
from metarep_jax.data.source_arrays import Source, from_arrays, to_arrays

log = logging.getLogger(__name__)
WORDS, EACH = 40, 20
FORMANTS = np.array(  # first and second, of eight vowels, rounded (Peterson & Barney 1952, table II, men)
    [(270, 2290), (390, 1990), (530, 1840), (660, 1720), (730, 1090), (570, 840), (440, 1020), (300, 870)], float
)
BANDWIDTH = 90.0  # Hz, of a resonance
SHORTEST, LONGEST = 0.35, 0.8  # seconds a word
VERSION = 1  # of what is made: another number makes caches anew


def load_synthetic_speech(rate: int, samples: int, cache_dir: Path) -> Source:
    """40 words of 20 recordings; the same ones on every machine, made in seconds at first, then from ``cache_dir``."""
    log.info("the speech is synthetic: %d made-up words of vowel-like sounds, %d recordings each", WORDS, EACH)
    key = digest([VERSION, rate, samples])
    return from_arrays(cached(cache_dir, "synthetic-speech", key, lambda: to_arrays(make_words(rate, samples))))


def make_words(rate: int, samples: int) -> Source:
    """All recordings; each word's from random numbers of its own."""
    random = np.random.default_rng(0)
    sounds = [word for word in itertools.product(range(len(FORMANTS)), repeat=3) if len(set(word)) == 3]
    words = [sounds[i] for i in random.choice(len(sounds), WORDS, replace=False)]
    waves = [speak(FORMANTS[list(word)], rate, np.random.default_rng([1, w, i]))
             for w, word in enumerate(words) for i in range(EACH)]  # fmt: skip
    names = tuple(f"synthetic word {''.join(map(str, word))}" for word in words)
    label = np.repeat(np.arange(WORDS, dtype=np.int32), EACH)
    return Source(as_rows(waves, samples, log.info), label, names, ("",) * WORDS)


def speak(formants: Float[np.ndarray, "sounds 2"], rate: int, random: np.random.Generator) -> Float[np.ndarray, " t"]:
    """One recording of the sounds in a row, in [−1, 1]: harmonics of a pitch, as loud as the resonances let them be."""
    pitch, tract = random.uniform(90, 240), random.uniform(0.9, 1.15)
    time = np.arange(int(rate * random.uniform(SHORTEST, LONGEST))) / rate
    place = time / time[-1] * (len(formants) - 1)
    resonance = np.stack([np.interp(place, np.arange(len(formants)), track) for track in (formants * tract).T])
    voice = pitch * (1 + 0.1 * np.cos(np.pi * time / time[-1] + random.uniform(-0.5, 0.5)))
    phase = 2 * np.pi * np.cumsum(voice) / rate
    wave = np.zeros_like(time)
    for harmonic in range(1, int(rate / 2 / (1.2 * pitch)) + 1):
        distance = (harmonic * voice - resonance) / BANDWIDTH
        wave += (1 / (1 + distance**2)).sum(0) / harmonic**0.5 * np.sin(harmonic * phase)
    wave *= np.sin(np.pi * np.minimum(np.minimum(time, time[-1] - time) / 0.08, 0.5))  # fades of 40 ms
    wave *= random.uniform(0.4, 0.9) / np.abs(wave).max()
    return (wave + random.uniform(0.002, 0.02) * random.standard_normal(len(wave))).astype(np.float32)
