"""What would spoil a training is said before its first step, with what to change; what is left out has its note."""

import dataclasses
import importlib
import json
from pathlib import Path

import numpy as np
import pytest
from stage_inputs import (
    ENCODER,
    FEW,
    class_settings,
    compute,
    distil_settings,
    few_shot_data,
    fit_config,
    images,
    metatrain_settings,
    part,
    pretrain_settings,
)

from metarep_jax.data import splits_from_arrays
from metarep_jax.encoders import EncoderConfig
from metarep_jax.metalearn import LearnerConfig
from metarep_jax.model import ModelSpec
from metarep_jax.pretrain import ObjectiveConfig
from metarep_jax.stages import (
    Compute,
    DistilSettings,
    EvaluateSettings,
    MetatrainSettings,
    distil,
    evaluate,
    metatrain,
    pretrain,
    transfer,
)
from metarep_jax.stages.class_probes import probe_note, probes
from metarep_jax.stages.distil import with_fitting_episode as distil_episode
from metarep_jax.stages.evaluate import few_shot_rows, frozen_features
from metarep_jax.stages.features import untrained_model
from metarep_jax.stages.figures import serves_tasks, views_figure
from metarep_jax.stages.metatrain import validation, with_fitting_episode
from metarep_jax.train import FitConfig, OptimiserConfig
from metarep_jax.types import EpisodeSpec


@pytest.fixture(scope="module")
def data():
    return few_shot_data()


@pytest.fixture(scope="module")
def fixed():
    """Three classes whose test examples are new."""
    return splits_from_arrays(part("abc"), None, part("abc", 3, seed=5), name="pets")


def refused(tmp_path, stage, *args, **kwargs):
    """The message of a stage that is refused, which leaves no trained step behind."""
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the caller looks at the words)
        stage(*args, compute(tmp_path), **kwargs)
    assert not (tmp_path / "checkpoints").is_dir() or not any((tmp_path / "checkpoints").iterdir())
    assert not (tmp_path / "stage.json").exists()
    return str(error.value)


def model_for(data, encoder=ENCODER, way=None, learner=None):
    """An untrained model; with a ``way``, of a learner that has a head for it."""
    model = untrained_model(encoder, data, compute("."), 0.25)
    if way is None:
        return model
    model = dataclasses.replace(model, spec=dataclasses.replace(model.spec, way=way), whitening=None)
    return frozen_features(model, LearnerConfig(learner or "maml"))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"train": fit_config(batch_size=31)},
            "has 30 examples, fewer than a batch of 31; set --pretrain.train.batch-si",
        ),
        ({"train": fit_config(batch_size=1)}, "simclr: a batch must have at least 2 rows, since it contrasts them"),
        (
            {"optimiser": OptimiserConfig(warmup_steps=9)},
            "the warm-up of 9 steps must be shorter than the training of 2 steps; lower --pretrain.optimiser.warmup-st",
        ),
    ],
)
def test_batches_and_warm_ups_that_do_not_fit_a_training_are_refused(tmp_path, data, changed, message):
    said = refused(tmp_path, lambda at: pretrain(pretrain_settings(**changed), data, at, encoder=ENCODER))
    assert message in said


def test_an_encoder_for_other_inputs_is_refused_by_every_stage_with_its_own_flag(tmp_path, data, fixed):
    text = EncoderConfig("transformer")
    calls = {
        "--encoder": [
            lambda at: pretrain(pretrain_settings(), data, at, encoder=text),
            lambda at: metatrain(metatrain_settings(), data, at, encoder=text),
            lambda at: transfer(class_settings(encoder=text), fixed, at),
        ],
        "--student": [lambda at: distil(distil_settings(student=text), data, model_for(data), at)],
    }
    for flag, stages in calls.items():
        for stage in stages:
            said = refused(tmp_path, stage)
            assert "the encoder transformer takes tokens, the data are images" in said and f"by {flag}" in said


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"channels": 3}, r"takes inputs of shape (4, 4, 3), letters gives (4, 4, 1); set --data.channels 3 to match"),
        ({"size": 8}, r"takes inputs of shape (8, 8, 1), letters gives (4, 4, 1); set --data.image-size 8 to match"),
    ],
)
def test_teachers_and_starts_of_other_channels_or_sizes_are_refused(tmp_path, data, fixed, shape, message):
    other = model_for(few_shot_data(**shape))
    said = refused(tmp_path, lambda at: distil(distil_settings(), data, other, at))
    assert f"the model of --teacher {message}" in said
    said = refused(tmp_path, lambda at: transfer(class_settings(), fixed, at, start=other, mode="fine-tune"))
    assert f"the model of --start {message.replace('letters', 'pets')}" in said


def test_teachers_of_another_kind_are_refused_with_the_mode_that_takes_them(tmp_path, data, fixed):
    classifier = transfer(class_settings(), fixed, compute(tmp_path / "classifier"))
    said = refused(tmp_path / "student", lambda at: distil(distil_settings(), data, classifier, at))
    assert "needs a teacher that adapts" in said and "classifies 3 fixed classes" in said and "--mode classes" in said
    said = refused(
        tmp_path / "student", lambda at: distil(distil_settings(), fixed, model_for(data), at, mode="classes")
    )
    assert "--mode classes needs a teacher that classifies" in said and "is a prototypical learner" in said


def test_with_few_classes_the_default_episode_shrinks_in_training_too_and_one_that_was_asked_for_is_refused(tmp_path):
    few = few_shot_data(train="abc", val="", test="xy", each=4)
    settings, notes = with_fitting_episode(MetatrainSettings(), few, ENCODER)
    assert settings.episode == EpisodeSpec(2, 1, 3)  # MAML has a head: test classes count too
    assert notes == [
        "training episodes are of 3 ways, not 5: train has 3 classes",
        "training episodes have 3 queries a class, not 5: class 'a' of train has 4 examples",
        "training episodes are of 2 ways, not 3: test has 2 classes, and the learner has a head for the way that it is "
        "trained with alone",
    ]
    settings, _ = with_fitting_episode(MetatrainSettings(learner=LearnerConfig("prototypical")), few, ENCODER)
    assert settings.episode.way == 3
    asked = metatrain_settings(episode=EpisodeSpec(4, 1, 2))
    said = refused(tmp_path, lambda at: metatrain(asked, few, at, encoder=ENCODER))
    assert "episodes of 4 ways need as many classes; there are 3 of the train split; set --meta.episode.way 3" in said
    said = refused(tmp_path, lambda at: distil(distil_settings(episode=EpisodeSpec(2, 4, 2)), few, model_for(few), at))
    assert "has 4 images, but 4-shot episodes" in said and "--distill.episode.shot" in said


def test_a_learner_at_its_defaults_is_trained_and_judged_where_there_are_two_test_classes(tmp_path, caplog):
    few = few_shot_data(train="abc", val="fg", test="xy")
    settings = MetatrainSettings(
        learner=LearnerConfig("maml", inner_steps=1, test_steps=1), train=fit_config(1, 2), validation_episodes=2
    )
    model = metatrain(settings, few, compute(tmp_path), encoder=ENCODER)
    assert model.spec.way == 2 and "meta-learn: training episodes are of 2 ways, not 3" in caplog.text
    assert evaluate(model, few, EvaluateSettings(episodes=2)).keys() == {"2w1s", "2w5s"}


def test_a_default_student_takes_the_way_of_a_teacher_with_a_head():
    data = few_shot_data(train="abcde", test="wxyz")
    episode, notes = distil_episode(DistilSettings(student=ENCODER), data, teacher_way=3)
    assert episode.way == 3 and notes == ["training episodes are of 3 ways, not 20: the teacher has a head for those"]


def test_columns_that_test_classes_cannot_serve_are_left_out_with_a_note(tmp_path):
    one_image = splits_from_arrays(
        part("abc"), None, (images(2)[:7], ["x"] * 6 + ["y"]), name="letters", fixed_classes=False
    )
    model = model_for(one_image)
    assert few_shot_rows({"model": model}, one_image, FEW, compute(tmp_path)) == {"model": {}}
    assert FEW.notes(one_image) == [
        "no columns of 1 shots: class 'y' of test has 1 example, and 2 are needed for 1 shots and a query"
    ]
    assert probes(model, one_image) == {} and "class 'y' of test has 1 example" in (probe_note(one_image) or "")
    assert not serves_tasks(one_image, model)
    data = few_shot_data()
    assert [spec.name for spec in EvaluateSettings().columns(data.protocol, data.test)] == ["3w1s", "3w5s"]
    assert EvaluateSettings().notes(data) == ["episodes are of 3 ways, not 5 or 20: test has 3 classes"]
    two = few_shot_data(train="ab", test="x")
    assert EvaluateSettings().columns(two.protocol, two.test) == []
    assert "they need 2 classes or more to tell apart, and test has 1" in EvaluateSettings().notes(two)[0]


def test_a_model_with_a_head_is_judged_at_its_own_way_where_no_column_is_of_it(tmp_path):
    data = few_shot_data(test="uvwxyz")
    model = model_for(data, way=3)
    specs = EvaluateSettings().columns_of(model, data.protocol, data.test)
    assert [spec.name for spec in specs] == ["3w1s", "3w5s"]


def test_a_validation_class_with_one_image_is_said_and_loses_no_training(tmp_path, caplog):
    one_image = splits_from_arrays(
        part("abc"), (images(2)[:7], ["f"] * 6 + ["g"]), part("xyz"), name="letters", fixed_classes=False
    )
    with caplog.at_level("INFO"):
        metatrain(metatrain_settings(), one_image, compute(tmp_path), encoder=ENCODER)
    assert "nothing to choose the best checkpoint by, the last is kept" in caplog.text
    assert "class 'g' of val has 1 example" in caplog.text


@pytest.mark.parametrize(("name", "ways"), [("prototypical", "2 ways"), ("maml", None)])
def test_few_validation_classes_validate_at_fewer_ways_where_the_learner_has_no_head(caplog, name, ways):
    card = ModelSpec("learner", ENCODER, LearnerConfig(name), (4, 4, 1), way=3)
    with caplog.at_level("INFO"):
        validate = validation(card, few_shot_data(val="fg"), compute("."), 2)
    assert (validate is not None) == (ways is not None)
    assert f"episodes are of {ways or '2 ways'}, not 3 or 5: val has 2 classes" in caplog.text


def test_too_few_training_classes_or_none_are_refused(tmp_path, fixed):
    one = few_shot_data(train="a", test="x")
    said = refused(tmp_path, lambda at: metatrain(metatrain_settings(), one, at, encoder=ENCODER))
    assert "meta-learning needs 2 training classes or more to tell apart, and there is 1" in said
    unlabelled = splits_from_arrays(images(3), name="photos")
    said = refused(tmp_path, lambda at: metatrain(metatrain_settings(), unlabelled, at, encoder=ENCODER))
    assert "photos has examples without classes" in said and "--tasks augmentations" in said
    said = refused(tmp_path, lambda at: transfer(class_settings(), unlabelled, at))
    assert "a classifier needs 2 training classes or more, and photos has examples without classes" in said
    said = refused(tmp_path, lambda at: metatrain(metatrain_settings(), fixed, at, encoder=ENCODER))
    assert "needs test classes that training does not see, and pets has the same 3 classes" in said
    assert "--data.protocol random-classes" in said


def test_fixed_classes_without_test_examples_and_classes_of_one_example_are_refused(tmp_path):
    everything = splits_from_arrays(part("abc"), name="pets")
    said = refused(tmp_path, lambda at: transfer(class_settings(), everything, at))
    assert "pets holds no test examples of its classes; give a part for testing" in said
    single = splits_from_arrays((images(2)[:7], ["a"] * 6 + ["b"]), None, part("xy"), fixed_classes=False)
    said = refused(tmp_path, lambda at: transfer(class_settings(), single, at))
    assert "class 'b' has one example, and a quarter of each class is held out" in said


def test_objectives_that_need_labels_are_refused_where_there_are_none(tmp_path):
    settings = pretrain_settings(objective=ObjectiveConfig("supcon"))
    said = refused(
        tmp_path, lambda at: pretrain(settings, splits_from_arrays(images(3), name="photos"), at, encoder=ENCODER)
    )
    assert "supcon needs labels, and photos has none" in said


def test_fewer_images_than_the_figure_of_views_shows_are_drawn(tmp_path):
    few = splits_from_arrays(images(1, 3))
    assert views_figure(tmp_path, few, compute(tmp_path), "none").is_file()


def test_probes_of_fixed_classes_learn_from_the_training_part(fixed):
    found = probes(model_for(fixed), fixed)
    assert found.keys() == {"linear probe", "nearest neighbours"}
    assert found["linear probe"].n == fixed.test.label.shape[0] == 9


OTHER = EncoderConfig("mlp", width=5)
LATE = OptimiserConfig(warmup_steps=9)  # refused once all is said, before anything compiles


def test_large_images_are_said_with_the_flag_that_helps(tmp_path, caplog):
    large = few_shot_data(size=96, each=2)
    refused(tmp_path, lambda at: pretrain(pretrain_settings(optimiser=LATE), large, at, encoder=ENCODER))
    assert "images are 96×96; --data.image-size 32 has 9 times fewer pixels" in caplog.text


def test_views_suit_the_data_and_are_said(tmp_path, caplog):
    for channels, views in ((1, "glyph"), (3, "simclr")):
        data = few_shot_data(channels=channels)
        with caplog.at_level("INFO"):
            settings = pretrain_settings(augment="auto", optimiser=LATE)
            refused(tmp_path / views, pretrain, settings, data, encoder=ENCODER)
        assert f"views by {views}, which suits the data; another by --pretrain.augment" in caplog.text
    assert np.isfinite(probes(model_for(data), data)["linear probe"].mean)


def test_several_seeds_at_once_are_refused_with_the_flag_for_one_after_the_other():
    with pytest.raises(ValueError, match=r"train.seeds must be 1 in a stage, got 2; give --seeds 2"):
        Compute(Path("unused")).training_devices(FitConfig(seeds=2))


def test_a_classifier_of_recordings_sees_in_training_what_it_predicts_from(tmp_path):
    waves = np.random.default_rng(0).integers(-9000, 9000, (8, 256)).astype(np.int16)
    data = splits_from_arrays((waves, [0, 1] * 4), test=(waves, [0, 1] * 4), name="sounds")
    settings = class_settings(
        encoder=EncoderConfig("log_mel", bins=8),
        optimiser=OptimiserConfig(name="sgd", learning_rate=1e-30),
        train=fit_config(1, 8, log_every=1),
    )
    model = transfer(settings, data, compute(tmp_path))
    logged = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    probability = model.predict(waves).probability[np.arange(8), [0, 1] * 4]
    assert logged["loss"] == pytest.approx(float(-np.log(probability).mean()), rel=0.2)
    views = class_settings(encoder=settings.encoder, augment="simclr")
    assert "views are for images, and sounds has none" in refused(tmp_path / "b", lambda at: transfer(views, data, at))


def test_an_encoder_beside_another_ones_start_is_refused(tmp_path, data):
    said = refused(tmp_path, lambda at: metatrain(metatrain_settings(), data, at, start=model_for(data), encoder=OTHER))
    assert "the encoder is that of start" in said and "give one of them" in said


def test_the_encoder_of_a_start_may_be_named_as_it_was_before_the_data_fitted_it(tmp_path, data, monkeypatch):
    module = importlib.import_module("metarep_jax.stages.metatrain")  # the package has the function by that name
    monkeypatch.setattr(module, "fitted_encoder", lambda encoder, splits: OTHER)
    settings = metatrain_settings(optimiser=LATE)
    said = refused(tmp_path, lambda at: metatrain(settings, data, at, start=model_for(data), encoder=ENCODER))
    assert "the warm-up of 9 steps" in said
