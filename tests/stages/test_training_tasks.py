"""Where training tasks come from, as the flags of experiments.metatrain say."""

from typing import Any

import jax
import numpy as np
import pytest

from experiments.flags import parse
from experiments.metatrain import MetatrainConfig
from metarep_jax.data import pool_of_arrays, splits_from_arrays
from metarep_jax.data.tasks.pseudo_tasks import TaskConfig
from metarep_jax.encoders.mlp import MLP
from metarep_jax.metalearn import LearnerConfig, make_learner
from metarep_jax.stages import Compute, MetatrainSettings
from metarep_jax.stages.metatrain import has_head, training_episode, training_tasks
from metarep_jax.stages.pretrain import enough_to_validate
from metarep_jax.train import FitConfig
from metarep_jax.types import EpisodeSpec

SPEC = EpisodeSpec(way=2, shot=1, query=1)


@pytest.fixture(scope="module")
def splits():
    """What these functions look at of splits: ten images of one class."""
    images = np.random.default_rng(0).integers(0, 255, (10, 4, 4, 1)).astype(np.uint8)
    return splits_from_arrays((images, ["only"] * 10))


def settings(source, augment="none", **more):
    tasks = TaskConfig(source=source, clusters=2, partitions=1)
    return MetatrainSettings(tasks=tasks, augment=augment, train=FitConfig(batch_size=3), **more)


def test_the_shorthand_for_tasks_reaches_their_settings_and_the_learners_still_does():
    config = parse(MetatrainConfig, "", args=["--tasks", "clusters", "--learner", "prototypical"])
    assert config.meta.tasks.source == "clusters"
    assert config.meta.learner.name == "prototypical"
    assert MetatrainConfig().meta.tasks.source == "labels"


@pytest.mark.parametrize("source", ["augmentations", "clusters"])
def test_tasks_without_labels_do_not_need_classes(splits, source):
    assert training_episode(splits, SPEC, labelled=False) == SPEC
    feed = training_tasks(settings(source, "glyph"), splits, Compute(), SPEC, lambda x: x.reshape(len(x), -1) / 255)
    draw: Any = feed.draw
    episodes = jax.eval_shape(lambda: draw(feed.pool, jax.random.key(0), 0, 0, 1))
    assert episodes.support.inputs.shape == (3, 2, 4, 4, 1)
    with pytest.raises(ValueError, match="as many classes"):
        training_episode(splits, SPEC)


@pytest.mark.parametrize(
    ("source", "said"), [("augmentations", "set --meta.augment"), ("clusters", "give --start or --features")]
)
def test_what_tasks_without_labels_need_is_asked_for(splits, source, said):
    with pytest.raises(ValueError, match=said):
        training_tasks(settings(source), splits, Compute(), SPEC, None)


@pytest.mark.parametrize(("told", "used"), [(None, 2), (8, 8)])
def test_a_training_uses_as_many_devices_as_divide_its_batch_unless_it_is_told_how_many(told, used):
    assert len(Compute(devices=told).training_devices(FitConfig(batch_size=2))) == used


@pytest.mark.parametrize(("name", "wanted"), [("maml", True), ("reptile", True), ("prototypical", False)])
def test_learners_with_a_head_of_their_own_are_known_before_anything_compiles(splits, name, wanted):
    learner = make_learner(LearnerConfig(name=name), MLP(widths=(4,)), way=SPEC.way)
    assert has_head(learner, splits.train, learner.episode_spec(SPEC)) == wanted


@pytest.mark.parametrize(("counts", "wanted"), [((2,) * 5, True), ((2,) * 4, False), ((1, 2, 2, 2, 2), False)])
def test_features_are_validated_where_there_are_classes_and_images_for_it(counts, wanted):
    label = np.repeat(np.arange(len(counts)), counts)
    assert enough_to_validate(pool_of_arrays(np.zeros((len(label), 2, 2, 1), np.uint8), label)) == wanted
