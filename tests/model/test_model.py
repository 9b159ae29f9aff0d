"""A model on disk and in use."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import metarep_jax
from metarep_jax.distill import classifier
from metarep_jax.encoders import EncoderConfig, make_encoder
from metarep_jax.encoders.features import fit_whitening
from metarep_jax.metalearn import LearnerConfig, make_learner
from metarep_jax.model import Model, ModelSpec, save_model
from metarep_jax.types import EpisodeSpec, episode_of

ENCODER = EncoderConfig(name="mlp", width=8)
SHAPE = (4, 4, 1)
IMAGES = np.asarray(jax.random.randint(jax.random.key(0), (6, *SHAPE), 0, 255), np.uint8)


def learner_model(name="prototypical", way=2):
    config = LearnerConfig(name=name)
    learner = make_learner(config, make_encoder(ENCODER), way=way)
    params, state = learner.init(jax.random.key(1), episode_of(EpisodeSpec(way, 1, 1), jnp.asarray(IMAGES)))
    return Model(ModelSpec("learner", ENCODER, config, SHAPE, way=way), params, state)


@pytest.mark.parametrize("name", ["prototypical", "maml"])
def test_a_loaded_model_predicts_what_the_saved_one_does(tmp_path, name):
    model = learner_model(name)
    save_model(tmp_path, model)
    loaded = metarep_jax.load(tmp_path)
    np.testing.assert_array_equal(loaded.embed(IMAGES), model.embed(IMAGES))
    labels = ["ж", "я"]
    ours = model.adapt(IMAGES[:2], labels).predict(IMAGES)
    theirs = loaded.adapt(IMAGES[:2], labels).predict(IMAGES)
    np.testing.assert_array_equal(ours.probability, theirs.probability)
    assert set(theirs.label) <= {"ж", "я"}


def test_nearest_prototype_gives_support_images_their_own_label():
    adapted = learner_model().adapt(IMAGES[:3], [7, 7, 3])
    assert adapted.predict(IMAGES[2:3]).label.tolist() == [3]
    np.testing.assert_allclose(adapted.predict(IMAGES).probability.sum(-1), 1, rtol=1e-5)


def test_adapting_leaves_the_model_as_it_was():
    model = learner_model()
    model.adapt(IMAGES[:2], [0, 1])
    with pytest.raises(ValueError, match="call adapt"):
        model.predict(IMAGES)


def test_whitening_is_part_of_the_model(tmp_path):
    model = learner_model()
    rows = jax.random.normal(jax.random.key(2), (50, 8))
    whitened = Model(model.spec, model.params, model.state, fit_whitening(rows))
    np.testing.assert_allclose(whitened.embed(IMAGES), fit_whitening(rows)(model.embed(IMAGES)), rtol=1e-4, atol=1e-5)
    save_model(tmp_path, whitened)
    np.testing.assert_array_equal(metarep_jax.load(tmp_path).embed(IMAGES), whitened.embed(IMAGES))


def test_a_classifier_predicts_names_without_adapting(tmp_path):
    model = classifier(make_encoder(ENCODER), 3, frozen=True)
    params, state = model.init(jax.random.key(3), jnp.asarray(IMAGES))
    spec = ModelSpec("classifier", ENCODER, LearnerConfig(), SHAPE, class_names=("a", "b", "c"))
    save_model(tmp_path, Model(spec, params, state))
    loaded = metarep_jax.load(tmp_path)
    wanted = model.outputs(params, state, jnp.asarray(IMAGES))[0]["logits"].argmax(-1)
    assert loaded.predict(IMAGES).label.tolist() == [spec.class_names[i] for i in wanted]
    with pytest.raises(ValueError, match="does not adapt"):
        loaded.adapt(IMAGES[:2], [0, 1])


def test_grey_images_need_no_channel_axis():
    model = learner_model()
    np.testing.assert_array_equal(model.embed(IMAGES[..., 0]), model.embed(IMAGES))


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda model: model.embed(np.zeros((2, 5, 5, 1), np.uint8)), r"shape \[n, 4, 4, 1\], got \[2, 5, 5, 1\]"),
        (lambda model: model.embed(np.zeros((2, *SHAPE), np.int32)), "uint8 images in 0–255 or floats"),
        (lambda model: model.adapt(IMAGES[:3], [0, 1]), "3 inputs but 2 labels"),
    ],
)
def test_wrong_inputs_are_refused(use, message):
    with pytest.raises(ValueError, match=message):
        use(learner_model())


def test_a_learner_with_a_head_refuses_another_number_of_classes():
    with pytest.raises(ValueError, match="trained for 2 classes, got examples of 3"):
        learner_model("maml").adapt(IMAGES[:3], [0, 1, 2])


def test_a_folder_without_a_model_says_where_models_are(tmp_path):
    save_model(tmp_path / "student", learner_model())
    with pytest.raises(FileNotFoundError, match=r"holds no finished model; finished models below it: .*student"):
        metarep_jax.load(tmp_path)
