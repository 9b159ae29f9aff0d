"""All stages on a user's own arrays, as in the README: few-shot learning, fixed classes, and images without classes."""

import numpy as np
import pytest
from stage_inputs import (
    ENCODER,
    class_settings,
    compute,
    distil_settings,
    fit_config,
    images,
    metatrain_settings,
    part,
    pretrain_settings,
)

from experiments.configs import PretrainConfig
from experiments.reports import pretrain_report as pretrain_work
from metarep_jax import load, splits_from_arrays
from metarep_jax.pretrain import ObjectiveConfig
from metarep_jax.stages import (
    Compute,
    EvaluateSettings,
    class_accuracy,
    distil,
    evaluate,
    metatrain,
    pretrain,
    transfer,
)
from metarep_jax.types import EpisodeSpec


def test_three_stages_and_their_judgement_in_a_dozen_lines(tmp_path):
    train, val, test = part("abcde"), part("fgh"), part("xyz")

    splits = splits_from_arrays(train=train, val=val, test=test)
    features = pretrain(pretrain_settings(), splits, Compute(f"{tmp_path}/features", devices=1), encoder=ENCODER)
    learner = metatrain(metatrain_settings(), splits, Compute(tmp_path / "learner", devices=1), start=features)
    student = distil(distil_settings(), splits, learner, Compute(tmp_path / "student", devices=1))
    columns = evaluate(student, splits, EvaluateSettings(ways=(2,), shots=(1, 2), episodes=20))

    assert columns.keys() == {"2w1s", "2w2s"} and all(0 <= value.mean <= 100 for value in columns.values())
    support, labels = part("xy", 1)
    answer = load(tmp_path / "student").adapt(support, labels).predict(support)
    assert answer.label.tolist() == ["x", "y"]


def test_fixed_classes_are_learned_from_their_training_part_and_judged_on_the_one_for_testing(tmp_path):
    splits = splits_from_arrays(train=part("abc"), test=part("abc", 4, seed=0), name="pets")
    teacher = transfer(class_settings(train=fit_config(30, 9)), splits, compute(tmp_path / "supervised"))
    assert class_accuracy(teacher, splits, compute(tmp_path)).n == 12
    assert teacher.spec.class_names == ("a", "b", "c")
    student = distil(distil_settings(), splits, teacher, compute(tmp_path / "student"), mode="classes")
    assert set(student.predict(splits.test.inputs).label) <= {"a", "b", "c"}


@pytest.mark.parametrize("objective", ["simclr", "autoencoder"])
def test_images_without_classes_are_judged_by_the_objective_itself_and_by_signs_of_collapse(tmp_path, objective):
    data = images(1, 24)
    splits = splits_from_arrays(train=data[:16], test=data[16:], name="photos")
    assert not splits.labelled
    settings = pretrain_settings(objective=ObjectiveConfig(objective))
    config = PretrainConfig(encoder=ENCODER, pretrain=settings, devices=1)
    report = pretrain_work(config, splits, compute(tmp_path))
    assert {"untrained", "pretrained"} <= report.cells.keys()
    for row in ("untrained", "pretrained"):
        assert np.isfinite(report.cells[row]["loss"]["mean"])
        assert 0 <= report.cells[row]["feature_std"]["mean"] <= 1.01
        assert {"feature_std", "feature_rank"} <= report.cells[row].keys()
    assert "no few-shot episodes: they need 2 classes or more to tell apart, and test has 1" in report.notes


def test_images_without_classes_make_tasks_of_their_own(tmp_path):
    from metarep_jax.data.tasks.pseudo_tasks import TaskConfig

    splits = splits_from_arrays(train=images(1, 16), name="photos")
    settings = metatrain_settings(
        tasks=TaskConfig("augmentations"), augment="shift", episode=EpisodeSpec(3, 1, 2), train=fit_config(batch_size=2)
    )
    assert metatrain(settings, splits, compute(tmp_path), encoder=ENCODER).spec.way == 3


def test_features_of_fixed_classes_are_judged_by_probes_on_the_part_for_testing(tmp_path):
    splits = splits_from_arrays(train=part("abc"), test=part("abc", 4, seed=0), name="pets")
    settings = pretrain_settings()
    config = PretrainConfig(encoder=ENCODER, pretrain=settings, devices=1, evaluate=EvaluateSettings(episodes=4))
    report = pretrain_work(config, splits, compute(tmp_path))
    assert {"3w1s", "linear probe", "nearest neighbours"} <= report.cells["pretrained"].keys()
    assert report.cells["pretrained"]["linear probe"]["n"] == 12
