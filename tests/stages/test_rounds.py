"""Rounds of clusters and tasks: from end to end on letters, and what is refused."""

import dataclasses

import numpy as np
import pytest

from metarep_jax.data import DataConfig, load_splits
from metarep_jax.data.tasks.pseudo_tasks import TaskConfig
from metarep_jax.encoders import EncoderConfig
from metarep_jax.stages import Compute, RoundsSettings, rounds
from metarep_jax.stages.features import untrained_model
from metarep_jax.train import FitConfig, OptimiserConfig
from metarep_jax.types import EpisodeSpec

META = dataclasses.replace(
    RoundsSettings().meta,
    episode=EpisodeSpec(way=3, shot=1, query=1),
    tasks=TaskConfig("clusters", clustering="dense", neighbours=8, radius=0.7, partitions=1),
    optimiser=OptimiserConfig(name="adam", learning_rate=1e-3),
    train=FitConfig(steps=4, batch_size=2, validate_every=4, tensorboard=False, progress=False),
)


def test_rounds_without_clusters_are_refused():
    with pytest.raises(ValueError, match="labels"):
        RoundsSettings(meta=dataclasses.replace(META, tasks=TaskConfig("labels")))
    with pytest.raises(ValueError, match="views"):
        RoundsSettings(views=-1)
    with pytest.raises(ValueError, match=r"whiten_after must lie between 0 and 0.5, got 0.7"):
        RoundsSettings(whiten_after=0.7)


@pytest.mark.slow
def test_each_round_starts_from_the_one_before_and_a_finished_one_is_not_trained_again(tmp_path, caplog):
    splits, compute = load_splits(DataConfig(name="glyphs")), Compute(tmp_path / "run", devices=1)
    settings = RoundsSettings(rounds=2, views=1, meta=META)
    start = untrained_model(EncoderConfig(width=4), splits, compute, 0.25)
    with caplog.at_level("INFO"):
        first = rounds(settings, splits, start, compute)
        assert "is in" not in caplog.text
        again = rounds(settings, splits, start, compute)
    images = splits.test.inputs[:5]
    assert len(first) == 2 and caplog.text.count("is in") == 2
    for one, other in zip(first, again, strict=True):
        assert (one.embed(images) == other.embed(images)).all()
    less = rounds(dataclasses.replace(settings, whiten_after=0.0), splits, start, compute)
    for one, other in zip(first, less, strict=True):
        assert one.whitening and other.whitening
        turned = one.whitening.matrix @ one.whitening.matrix.T, other.whitening.matrix @ other.whitening.matrix.T
        assert abs(turned[0] - turned[1]).max() > 1e-3  # the encoder is the same, and what follows it is not
        assert (abs(turned[1] - np.eye(len(turned[1]))) < 1e-4).all()
    features = [model.embed(images) for model in (start, *first)]
    assert (features[0] != features[1]).any() and (features[1] != features[2]).any()
