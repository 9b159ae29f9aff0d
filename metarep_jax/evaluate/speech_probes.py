"""Linear probes on features of spoken digits: who speaks, which digit, and which digit of a speaker never heard."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from metarep_jax.data.audio.recordings import Digits
from metarep_jax.data.audio.spoken_digits import TEST_TAKES, is_test
from metarep_jax.evaluate.intervals import Interval, interval
from metarep_jax.evaluate.probes import chosen_l2, probe_hits

FOLDS = 5  # of the training takes, to choose the penalty on


def probe_digits(features: Float[Array, "n dim"], digits: Digits) -> dict[str, Interval]:
    """Accuracies in % on the test recordings: speaker, digit, and digit_unseen_speaker.

    For the last, a probe is trained on all speakers but one and tested on the test recordings of that one, in turn. A
    probe's penalty is chosen on training recordings: over folds of takes, or of speakers where the test speaker is new.
    """
    test = is_test(digits)
    take = (digits.take - TEST_TAKES) % FOLDS
    known = {
        name: probe(features, label, ~test, test, take)
        for name, label in {"speaker": digits.speaker, "digit": digits.digit}.items()
    }
    unseen = [
        probe(features, digits.digit, ~test & (digits.speaker != one), test & (digits.speaker == one), digits.speaker)
        for one in range(len(digits.speakers))
    ]
    return {name: interval(hits) for name, hits in (known | {"digit_unseen_speaker": np.concatenate(unseen)}).items()}


def probe(
    features: Float[Array, "n dim"],
    label: Int[np.ndarray, " n"],
    train: Bool[np.ndarray, " n"],
    test: Bool[np.ndarray, " n"],
    fold: Int[np.ndarray, " n"],
) -> Float[np.ndarray, " m"]:
    """100 or 0 for each test recording, by a probe whose penalty is chosen over the folds of the training ones."""
    x, y = features[train], jnp.asarray(label[train])
    l2 = chosen_l2(x, y, jnp.asarray(fold[train]))
    return probe_hits(x, y, features[test], jnp.asarray(label[test]), l2=l2)
