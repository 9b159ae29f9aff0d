"""Published numbers, in one place, each with its source."""

import re

from metarep_jax.report.published import Published

COLUMNS = {
    "omniglot_supervised": ("5w1s", "5w5s", "20w1s", "20w5s"),
    "sinusoid": ("5shot", "10shot"),
    "omniglot_unsupervised": (
        *("5w1s", "5w5s", "20w1s", "20w5s"),
        *("rotations_5w1s", "rotations_5w5s", "rotations_20w1s", "rotations_20w5s"),
    ),
    "omniglot_levers": ("5w1s", "20w1s"),
    "label_efficiency": ("0 classes", "10 classes", "32 classes", "103 classes", "325 classes", "1028 classes"),
    "intents": ("banking77_5w1s", "banking77_5w5s", "clinc150_5w1s", "clinc150_5w5s"),
    "spoken_digits": ("speaker", "digit", "digit_unseen_speaker"),
    "navigation": ("0 updates", "1 update", "2 updates", "3 updates"),
}
ARXIV = "https://arxiv.org/abs/"
# Numbers in the order of the table's columns; – where the source has none. "?" after the source: not checked.
ROWS = {
    "omniglot_supervised": {
        "maml": ("98.7±0.4 99.9±0.1 95.8±0.3 98.9±0.2", "1703.03400"),
        "first_order_maml": ("98.3±0.5 99.2±0.2 89.4±0.5 97.9±0.1", "1803.02999"),
        "anil": ("– – 96.2 98.0", "1909.09157?"),
        "meta_sgd": ("99.53±0.26 99.93±0.09 95.93±0.38 98.97±0.19", "1707.09835"),
        "maml_pp": ("99.47 99.93 97.65 99.33", "1810.09502"),
        "imaml": ("99.50±0.26 99.74±0.11 96.18±0.36 99.14±0.10", "1909.04630"),
        "reptile": ("95.39±0.09 98.90±0.10 88.14±0.15 96.65±0.33", "1803.02999"),
        "reptile_transductive": ("97.68±0.04 99.48±0.06 89.43±0.14 97.12±0.32", "1803.02999"),
        "prototypical": ("98.8 99.7 96.0 98.9", "1703.05175"),
        # The paper does not say of its Omniglot rows whether they use full context; they stand beside the plain form.
        "matching": ("98.1 98.9 93.8 98.5", "1606.04080"),
        "relation": ("99.6±0.2 99.8±0.1 97.6±0.2 99.1±0.1", "1711.06025"),
        "ridge": ("98.55 99.66 94.7 98.9", "1805.08136?"),
    },
    "sinusoid": {
        "maml": ("1.13±0.18 0.77±0.11", "1707.09835"),
        "meta_sgd": ("0.90±0.16 0.53±0.09", "1707.09835"),
    },
    # Vinyals' classes with rotations, but UMTRA's split, which its paper does not name. SimCLR and MoCo v2 as PsCo's
    # authors ran them.
    "omniglot_unsupervised": {
        "umtra": ("– – – – 83.80 95.43 74.25 92.12", "1811.11819"),
        "cactus": ("– – – – 68.84 87.78 48.09 73.36", "1810.02334"),
        "simclr": ("– – – – 92.13 97.06 80.95 91.60", "2303.00996?"),
        "moco": ("– – – – 92.66 97.38 82.13 92.34", "2303.00996?"),
        "psco": ("– – – – 96.37 99.13 89.60 97.07", "2303.00996?"),
        "best": ("– – – – 97.03 99.19 91.28 97.37", "1912.12178?"),
        "prototypical": ("– – – – 98.35 99.58 95.31 98.81", "1810.02334?"),
    },
    "omniglot_levers": {},
    "label_efficiency": {},
    "intents": {
        # ProtAugment, from BERT-base, which was pretrained on large corpora: an upper reference, not this method.
        "masked_lm_prototypical": ("89.56 94.71 96.49 98.74", "2105.12995?"),
    },
    "spoken_digits": {},
    "navigation": {"maml": ("-40.41 -11.68 -3.33 -3.23", "1703.03400")},
}


def published(table: str, row: str, column: str) -> Published | None:
    """What was published for a cell of ``table``; None where nothing was."""
    if row not in ROWS[table]:
        return None
    numbers, source = ROWS[table][row]
    found = re.fullmatch(r"(-?[\d.]+)(?:±([\d.]+))?", numbers.split()[COLUMNS[table].index(column)])
    if found is None:
        return None
    interval = None if found[2] is None else float(found[2])
    return Published(float(found[1]), interval, ARXIV + source.removesuffix("?"), not source.endswith("?"))
