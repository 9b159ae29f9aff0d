"""A model on disk and in use."""

from functools import cache

import jax
import numpy as np
import pytest

import metarep_jax
from metarep_jax.data.text.tokenizer import keep_tokenizer, train_tokenizer
from metarep_jax.distill import classifier
from metarep_jax.encoders import EncoderConfig, make_encoder
from metarep_jax.encoders.features import fit_whitening
from metarep_jax.metalearn import LearnerConfig, make_learner
from metarep_jax.model import Model, ModelSpec, save_model
from metarep_jax.types import EpisodeSpec, episode_of

ENCODER = EncoderConfig(name="mlp", width=8)
SHAPE = (4, 4, 1)
IMAGES = np.random.default_rng(0).integers(0, 255, (6, *SHAPE), np.uint8)


def started(learner, inputs, way=2):
    """Params and state of a learner before its first episode."""
    return jax.jit(lambda x: learner.init(jax.random.key(1), episode_of(EpisodeSpec(way, 1, 1), x)))(inputs)


@cache
def learner_model(name="prototypical", way=2):
    config = LearnerConfig(name=name)
    params, state = started(make_learner(config, make_encoder(ENCODER), way=way), IMAGES, way)
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
    np.testing.assert_allclose(np.asarray(adapted.predict(IMAGES).probability).sum(-1), 1, rtol=1e-5)


def test_adapting_leaves_the_model_as_it_was():
    model = learner_model()
    model.adapt(IMAGES[:2], [0, 1])
    with pytest.raises(ValueError, match="call adapt"):
        model.predict(IMAGES)


def test_whitening_is_part_of_the_model(tmp_path):
    model = learner_model()
    rows = np.random.default_rng(2).normal(size=(50, 8)).astype(np.float32)
    whitening = jax.jit(fit_whitening)(rows)
    whitened = Model(model.spec, model.params, model.state, whitening)
    np.testing.assert_allclose(whitened.embed(IMAGES), whitening(model.embed(IMAGES)), rtol=1e-4, atol=1e-5)
    save_model(tmp_path, whitened)
    np.testing.assert_array_equal(metarep_jax.load(tmp_path).embed(IMAGES), whitened.embed(IMAGES))


def test_a_classifier_predicts_names_without_adapting(tmp_path):
    model = classifier(make_encoder(ENCODER), 3, frozen=True)
    params, state = jax.jit(model.init)(jax.random.key(3), IMAGES)
    spec = ModelSpec("classifier", ENCODER, LearnerConfig(), SHAPE, class_names=("a", "b", "c"))
    save_model(tmp_path, Model(spec, params, state))
    loaded = metarep_jax.load(tmp_path)
    wanted = np.asarray(jax.jit(model.outputs)(params, state, IMAGES)[0]["logits"]).argmax(-1)
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
        (lambda model: model.adapt(IMAGES[:3], [0, 1]), "adapt: there are 3 inputs and 2 labels"),
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


def floats(value):
    return np.full((2, *SHAPE), value, np.float32)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (floats(255.0), r"floats in \[0, 1\], got floats from 255 to 255; divide them by 255, or give uint8 images"),
        (floats(-2.0), "got floats from -2 to -2; give them as they were before they were normalised"),
        (floats(np.nan), "no finite numbers"),
        (floats(np.inf), "no finite numbers"),
        (np.zeros((2, 4, 4, 3), np.uint8), "3 channels, not 1; .*train with --data.channels 3"),
        (np.zeros((2, 8, 8, 1), np.uint8), "resize the images, or train with --data.image-size 8"),
        (IMAGES[0], r"of a single input give x\[None\]"),
        (["a cat", "a dog"], "this model takes uint8 images .*, got texts"),
        ("a cat", "this model takes uint8 images .*, got a text"),
        ([[1], [1, 2]], "inputs must all have one shape"),
    ],
)
def test_inputs_that_would_get_a_wrong_answer_are_refused_in_words(x, message):
    with pytest.raises(ValueError, match=message):
        learner_model().embed(x)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.eye(2, dtype=int), r"one-hot rows of shape \(2, 2\); give labels.argmax\(1\)"),
        ([("cat", 1), ("dog", 2)], r"one integer or string an example, got shape \(2, 2\)"),
        ([("cat",), ("dog", 2)], "integers or strings, got a tuple of 1"),
        ([0.5, 1.0], r"integers or strings, got a float64; give labels.astype\(int\)"),
        ([None, "cat"], "integers or strings, got a NoneType"),
        ([1, "cat"], "some labels are strings and others numbers; give one kind"),
        ([[1], [1]], r"of shape \(2, 1\), wanted is \[n\]; give labels\[:, 0\]"),
        ([np.nan, 1.0], "some are NaN or infinite: leave those examples out"),
        ("cat", r"one integer or string an example, got shape \(\)"),
    ],
)
def test_labels_that_are_no_classes_are_refused_in_words(labels, message):
    with pytest.raises(ValueError, match=message):
        learner_model().adapt(IMAGES[:2], labels)


def test_no_inputs_have_no_answers_and_no_examples_are_refused():
    model = learner_model()
    assert model.embed(IMAGES[:0]).shape == (0, 8)
    assert model.embed([]).shape == (0, 8)
    prediction = model.adapt(IMAGES[:2], ["a", "b"]).predict(IMAGES[:0])
    assert prediction.label.shape == (0,)
    assert prediction.probability.shape == (0, 2)
    with pytest.raises(ValueError, match="adapt needs labelled examples, got none"):
        model.adapt(IMAGES[:0], [])


def test_an_image_just_beyond_the_range_by_rounding_is_taken():
    x = floats(1.0 + 1e-6)
    np.testing.assert_allclose(learner_model().embed(x), learner_model().embed(floats(1.0)), rtol=1e-4)


def test_layers_come_by_name_and_those_that_are_not_there_are_refused():
    model = learner_model()
    layers = model.layers(IMAGES)
    assert all(value.shape[0] == len(IMAGES) for value in layers.values())
    name = next(iter(layers))
    assert list(model.layers(IMAGES, [name])) == [name]
    with pytest.raises(ValueError, match=f"has no layer 'blockk'; it has: {', '.join(layers)}"):
        model.layers(IMAGES, ["blockk"])


TEXT = EncoderConfig("transformer", width=8, depth=1, heads=2, vocabulary=400)


@cache
def text_arrays():
    learner = make_learner(LearnerConfig("prototypical"), make_encoder(TEXT), way=2)
    return started(learner, np.zeros((1, 6), np.int32))


def text_model(**more):
    return Model(ModelSpec("learner", TEXT, LearnerConfig("prototypical"), (6,), way=2, **more), *text_arrays())


def test_a_model_of_text_takes_texts_where_its_tokenizer_is_beside_it_or_in_its_runs_folder(tmp_path):
    tokenizer = train_tokenizer(["a cat sat", "a dog ran"] * 20, vocabulary=300)
    model = text_model(tokenizer=tokenizer.digest)
    model.save(tmp_path / "pretrain")
    texts = ["a dog", "a cat sat"]
    with pytest.raises(ValueError, match=r"got texts, and its tokenizer is not beside it; .*rows\(texts, 6\)"):
        metarep_jax.load(tmp_path / "pretrain").embed(texts)
    keep_tokenizer(tmp_path, tokenizer)
    loaded = metarep_jax.load(tmp_path / "pretrain")
    np.testing.assert_array_equal(loaded.embed(texts), model.embed(tokenizer.rows(texts, 6)))
    loaded.save(tmp_path / "elsewhere" / "mine")
    (tmp_path / "tokenizer.json").unlink()
    assert metarep_jax.load(tmp_path / "elsewhere" / "mine").embed(texts).shape == (2, 8)
    with pytest.raises(ValueError, match="this is one text; give a list of texts"):
        loaded.embed("a dog")


def test_token_ids_that_no_tokenizer_of_the_model_gives_are_refused():
    with pytest.raises(ValueError, match="token ids lie from 0 to 399, got 0 to 400"):
        text_model().embed(np.array([[0, 1, 2, 3, 4, 400]], np.int32))
