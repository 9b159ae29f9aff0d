"""Sentences with classes out of any TFDS data set that has them, without TensorFlow."""

from pathlib import Path
from typing import Any

from metarep_jax.data.images.tfds_images import find_builder, quiet
from metarep_jax.data.text.text_files import decode_utf8


def tfds_sentences(name: str, data_dir: Path | None, cache_dir: Path) -> list[tuple[str, str]]:
    """The sentences and class names of all labelled splits together; found or prepared as ``tfds_records`` does.

    Raises:
      ValueError: for an unknown name, a data set that cannot be prepared here, or one without sentences and labels.
    """
    builder = find_builder(name, data_dir, cache_dir)
    text, label = text_and_label(builder, name)
    names = builder.info.features[label].names
    with quiet():
        source = builder.as_data_source(split="all")
    pairs = []
    for row in range(len(source)):
        example = source[row]
        if int(example[label]) >= 0:  # -1 marks rows without a label
            pairs.append((decode_utf8(example[text], f"example {row} of {name}"), names[int(example[label])]))
    return pairs


def text_and_label(builder: Any, name: str) -> tuple[str, str]:
    """The names of the text feature and of the class label; where there are several texts, the first."""
    import tensorflow_datasets as tfds

    features = dict(builder.info.features.items())
    texts = [key for key, feature in features.items() if isinstance(feature, tfds.features.Text)]
    labels = [key for key, feature in features.items() if isinstance(feature, tfds.features.ClassLabel)]
    if not texts or not labels:
        raise ValueError(
            f"the TFDS data set {name!r} has no pair of a text and a class label; its features are "
            f"{', '.join(f'{key}: {type(feature).__name__}' for key, feature in features.items())}"
        )
    return texts[0], labels[0]
