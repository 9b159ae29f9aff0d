"""Data: sources to arrays, protocols, the pure episode sampler, feeds, and augmentations on the device."""

from metarep_jax.data.arrays import splits_from_arrays
from metarep_jax.data.defaults import default_augment, large_images_note
from metarep_jax.data.feeds import augmented_feed, batch_feed, episode_feed
from metarep_jax.data.images.augment import make_augment
from metarep_jax.data.images.image_stream import stream_reader
from metarep_jax.data.pools import joined_pools, pool_of_arrays, with_classmates, with_partners
from metarep_jax.data.protocols import Protocol, find_protocol
from metarep_jax.data.source_arrays import Source
from metarep_jax.data.splits import DataConfig, Splits, load_splits
from metarep_jax.data.subsets import with_labelled_classes, with_validation_classes
from metarep_jax.data.tasks.columns import fitting_episode, usable_columns
from metarep_jax.data.tasks.episodes import check_episode_spec, sample_episodes
from metarep_jax.data.text.tokens import text_feed

__all__ = [
    "DataConfig",
    "Protocol",
    "Source",
    "Splits",
    "augmented_feed",
    "batch_feed",
    "check_episode_spec",
    "default_augment",
    "episode_feed",
    "find_protocol",
    "fitting_episode",
    "joined_pools",
    "large_images_note",
    "load_splits",
    "make_augment",
    "pool_of_arrays",
    "sample_episodes",
    "splits_from_arrays",
    "stream_reader",
    "text_feed",
    "usable_columns",
    "with_classmates",
    "with_labelled_classes",
    "with_partners",
    "with_validation_classes",
]
