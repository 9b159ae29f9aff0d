"""Models out of checkpoints: the learner, the student or the features that a training would end with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarep_jax.data import splits_from_arrays
from metarep_jax.distill import classifier
from metarep_jax.encoders import EncoderConfig, make_encoder
from metarep_jax.metalearn import LearnerConfig, make_learner
from metarep_jax.model import ModelSpec
from metarep_jax.stages.checkpoints import FILE, model_at, write_card
from metarep_jax.train.step import TrainState
from metarep_jax.train.storage.checkpoints import Checkpoints
from metarep_jax.types import EpisodeSpec, episode_of

SHAPE = (4, 4, 1)
IMAGES = np.random.default_rng(0).integers(0, 256, (12, *SHAPE)).astype(np.uint8)


def encoder(norm="batch"):
    return EncoderConfig(name="mlp", width=3, norm=norm)


def splits_of_images():
    """Twelve images of four classes."""
    return splits_from_arrays((IMAGES, np.arange(12) % 4))


def write(folder, params, state, scored=False, step=7):
    """A checkpoint, in a folder of a training by whose validation the best is kept, or not."""
    with Checkpoints(folder / "checkpoints", scored=scored, settings={"fit": {"seeds": 1}}) as checkpoints:
        checkpoints.save(step, {"train": TrainState(params, state, (), None, np.int32(step))}, {}, 0.5)


def assert_same(found, wanted):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize("name", ["prototypical", "maml", "maml_pp", "reptile"])
@pytest.mark.parametrize("student", [False, True])
def test_a_learner_comes_with_all_it_trains_and_a_students_terms_stay_behind(tmp_path, name, norm, student):
    spec = ModelSpec("learner", encoder(norm), LearnerConfig(name=name), SHAPE, way=2)
    learner = make_learner(spec.learner, make_encoder(spec.encoder, adapted=True), way=2)
    params, state = learner.init(jax.random.key(1), episode_of(EpisodeSpec(way=2), jnp.asarray(IMAGES)))
    write_card(tmp_path, spec)
    trained = (params, state)
    if student:
        trained = {"student": params, "terms": ({"kernel": np.ones(2)},)}, {"student": state, "terms": ({},)}
    write(tmp_path, *trained, scored=True)
    model, step = model_at(tmp_path, None, splits_of_images())
    assert (model.spec, step) == (spec, 7)
    assert_same(model.params, params)
    assert_same(model.state, state)


@pytest.mark.parametrize("frozen", [False, True])
def test_a_classifier_comes_with_its_encoder_wherever_it_stands(tmp_path, frozen):
    spec = ModelSpec("classifier", encoder(), LearnerConfig(), SHAPE, class_names=("a", "b", "c"))
    made = classifier(make_encoder(spec.encoder), 3, frozen=frozen)
    params, state = made.init(jax.random.key(1), jnp.asarray(IMAGES[:2]))
    write_card(tmp_path, spec)
    write(tmp_path, {"student": params, "terms": ()}, {"student": state, "terms": ()})
    model, _ = model_at(tmp_path, 7, splits_of_images())
    assert_same((model.params, model.state), (params, state))


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_frozen_features_are_whitened_anew_and_the_objectives_own_arrays_stay_behind(tmp_path, norm):
    learner = LearnerConfig(name="prototypical", distance="cosine")
    spec = ModelSpec("learner", encoder(norm), learner, SHAPE)
    variables = make_encoder(spec.encoder).init(jax.random.key(1), jnp.asarray(IMAGES[:2]))
    write_card(tmp_path, spec, whiten=0.5)
    state = {"encoder": variables.get("batch_stats", {}), "queue": (np.zeros(3),)}
    write(tmp_path, {"encoder": variables["params"], "projector": {"kernel": np.ones(2)}}, state)
    model, _ = model_at(tmp_path, 7, splits_of_images())
    assert_same(model.params["encoder"], variables["params"])
    covariance = np.cov(np.asarray(model.embed(jnp.asarray(IMAGES))), rowvar=False)
    spread = np.diag(covariance)  # of a unit that no image excites, none
    assert spread.max() > 0.9
    np.testing.assert_allclose(covariance, np.diag(spread.round()), atol=1e-3)


def test_checkpoints_of_which_nothing_is_told_are_refused_with_what_helps(tmp_path):
    write(tmp_path, {}, {})
    with pytest.raises(FileNotFoundError, match=f"{FILE} is missing.*own command writes it"):
        model_at(tmp_path, None, splits_of_images())
