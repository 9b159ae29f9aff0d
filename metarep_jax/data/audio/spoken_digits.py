"""The Free Spoken Digit Dataset as its authors split it: takes 0 to 4 of each digit and speaker for testing."""

import jax
import numpy as np
from jaxtyping import Bool

from metarep_jax.data.audio.recordings import Digits
from metarep_jax.data.pools import pool_of_arrays
from metarep_jax.data.protocols import Protocol
from metarep_jax.data.splits import DataConfig, Splits, resolved
from metarep_jax.types import Pool

TEST_TAKES = 5  # the authors' test recordings are the takes below
DIGITS = tuple(map(str, range(10)))
PROTOCOL = Protocol(
    "fsdd-takes",
    "Free Spoken Digit Dataset: takes 0–4 of each digit and speaker for testing (300 recordings), 5–49 for training, "
    "as its authors have it; linear probes on mean and standard deviation over time, the penalty chosen on training "
    "recordings; unseen speaker: trained on five speakers and tested on the sixth, in turn",
    ("fsdd",),
    lambda classes: ([*range(len(classes.names))], [], [*range(len(classes.names))]),
)


def splits_of_digits(digits: Digits, data: DataConfig) -> Splits:
    """The training and the test recordings, labelled by their digits; nothing to validate on."""

    def pool(chosen: Bool[np.ndarray, " n"]) -> Pool:
        return pool_of_arrays(digits.rows[chosen], digits.digit[chosen], classes=len(DIGITS))

    test, none = is_test(digits), np.zeros(len(digits.take), bool)
    empty = jax.tree.map(lambda leaf: leaf[:0], pool(none))
    names = {"train": DIGITS, "val": (), "test": DIGITS}
    return Splits(pool(~test), empty, pool(test), names, PROTOCOL, resolved(data))


def is_test(digits: Digits) -> Bool[np.ndarray, " n"]:
    """Which recordings are for testing."""
    return digits.take < TEST_TAKES
