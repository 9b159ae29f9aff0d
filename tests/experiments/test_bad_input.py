"""Bad input at the command line: a clear error before anything compiles, and nothing on disk lost."""

import shutil

import numpy as np
import pytest
from PIL import Image

from experiments import distill, evaluate, metatrain
from experiments.cli import run_experiment
from experiments.configs import PretrainConfig
from experiments.flags import parse
from experiments.reports import pretrain_report

SIZE = 8


def folder_of_images(root, classes=6, images=4, channels=1):
    """Classes of random images, one folder each."""
    random = np.random.default_rng(0)
    for c in range(classes):
        place = root / f"class{c}"
        place.mkdir(parents=True)
        for i in range(images):
            shape = (SIZE, SIZE) if channels == 1 else (SIZE, SIZE, channels)
            Image.fromarray(random.integers(0, 255, shape).astype(np.uint8)).save(place / f"{i}.png")
    return root


@pytest.fixture
def images(tmp_path):
    return folder_of_images(tmp_path / "images")


EXPERIMENTS = {
    "pretrain": (PretrainConfig, pretrain_report),
    "metatrain": (metatrain.MetatrainConfig, metatrain.work),
    "distill": (distill.DistillConfig, distill.work),
    "evaluate": (evaluate.EvaluateConfig, evaluate.work),
}


def message_of(capsys, tmp_path, name, *words, data="folder", place="images"):
    """What the experiment says before it ends with a non-zero status."""
    config, work = EXPERIMENTS[name]
    common = ["--data.name", data, "--data.image-size", str(SIZE), "--data.cache-dir", str(tmp_path / "cache")]
    common += ["--data.data-dir", str(tmp_path / place), "--run-folder", str(tmp_path / "run"), "--devices", "2"]
    with pytest.raises(SystemExit) as ended:
        run_experiment(name, work, parse(config, "", args=[*common, *map(str, words)]))
    assert ended.value.code not in (0, None)
    output = capsys.readouterr()
    text = " ".join((output.out + output.err).split())
    assert "Traceback" not in text
    return text


def test_a_missing_data_folder_is_named(capsys, tmp_path):
    text = message_of(capsys, tmp_path, "pretrain", place="nowhere")
    assert "nowhere" in text
    assert "--data.data-dir" in text
    assert not (tmp_path / "run").exists()


def test_an_empty_data_folder_is_named(capsys, tmp_path):
    (tmp_path / "images").mkdir()
    assert "images" in message_of(capsys, tmp_path, "pretrain")


def test_omniglot_without_its_files_says_which_are_wanted(capsys, tmp_path):
    (tmp_path / "images").mkdir()
    assert "images_background" in message_of(capsys, tmp_path, "pretrain", data="omniglot")


def test_a_class_with_too_few_images_is_named_with_its_counts(capsys, tmp_path, images):
    for c in range(6):
        for i in (1, 2, 3):
            (images / f"class{c}" / f"{i}.png").unlink()
    text = message_of(capsys, tmp_path, "metatrain", "--meta.episode.way", 2, "--meta.episode.query", 5)
    assert "class" in text
    assert "6" in text


def test_more_ways_than_classes_are_refused(capsys, tmp_path, images):
    text = message_of(capsys, tmp_path, "metatrain", "--meta.episode.way", 40, "--meta.episode.query", 1)
    assert "40" in text


def test_a_truncated_image_is_named(capsys, tmp_path, images):
    broken = images / "class3" / "2.png"
    broken.write_bytes(broken.read_bytes()[:40])
    text = message_of(capsys, tmp_path, "pretrain")
    assert "2.png" in text.replace(" ", "")


def test_mixed_channel_counts_are_refused(capsys, tmp_path, images):
    folder_of_images(images / "colour", channels=3)
    text = message_of(capsys, tmp_path, "pretrain")
    assert "channel" in text


def test_a_protocol_of_another_data_set_is_refused(capsys, tmp_path, images):
    text = message_of(capsys, tmp_path, "pretrain", "--data.protocol", "vinyals")
    assert "vinyals" in text
    assert "random-classes" in text


@pytest.mark.parametrize(
    ("name", "flags", "known"),
    [
        ("pretrain", ["--encoder.name", "conv5"], "conv4"),
        ("metatrain", ["--meta.learner.name", "mmal"], "maml"),
        ("metatrain", ["--meta.learner.name", "no_such_module:learner"], "no_such_module"),
        ("pretrain", ["--pretrain.augment", "gylph"], "glyph"),
        ("pretrain", ["--pretrain.objective.name", "simclear"], "simclr"),
    ],
)
def test_unknown_names_list_what_exists(capsys, tmp_path, images, name, flags, known):
    assert known in message_of(capsys, tmp_path, name, *flags)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--pretrain.objective.name", "moco", "--pretrain.objective.queue", 20], "take a queue of 16 or 24"),
        (["--pretrain.objective.name", "moco", "--pretrain.objective.groups", 3], "shuffled batch norm in 3 groups"),
        (["--pretrain.objective.name", "swav"], "take at most 8 prototypes or a larger batch"),
        (
            ["--encoder.name", "vit", "--pretrain.objective.name", "mae", "--pretrain.objective.mask-ratio", 1.5],
            "mask_ratio must lie between 0 and 1, got 1.5",
        ),
        (["--pretrain.objective.name", "vae", "--pretrain.neighbours", 3], "leave neighbours at 0"),
        (["--pretrain.objective.name", "supcon", "--pretrain.neighbours", 3], "leave neighbours at 0"),
    ],
)
def test_settings_that_do_not_fit_an_objective_are_refused(capsys, tmp_path, images, flags, message):
    assert message in message_of(capsys, tmp_path, "pretrain", "--pretrain.train.batch-size", 8, *flags)


def test_an_unknown_tfds_name_lists_what_exists(capsys, tmp_path, images):
    assert "mnist" in message_of(capsys, tmp_path, "pretrain", data="mnistt")


def test_a_batch_that_the_devices_do_not_divide_is_refused(capsys, tmp_path, images):
    text = message_of(capsys, tmp_path, "pretrain", "--pretrain.train.batch-size", 5)
    assert "does not divide over 2 devices" in text


@pytest.mark.parametrize(
    "flags",
    [
        ["--pretrain.train.steps", 0],
        ["--pretrain.train.batch-size", -2],
        ["--pretrain.optimiser.learning-rate", -0.1],
        ["--pretrain.objective.temperature", 0],
        ["--data.image-size", 0],
        ["--encoder.width", 0],
        ["--evaluate.episodes", 0],
        ["--seed", -1],
    ],
)
def test_sizes_and_rates_that_are_not_positive_are_refused(capsys, tmp_path, images, flags):
    text = message_of(capsys, tmp_path, "pretrain", *flags)
    assert "must" in text
    assert str(flags[1]) in text


def test_an_encoder_that_does_not_fit_is_refused(capsys, tmp_path, images):
    text = message_of(capsys, tmp_path, "distill", "--teacher", tmp_path / "nothing")
    assert "holds no finished model" in text


def test_a_run_folder_of_another_config_is_kept(capsys, tmp_path, images):
    text = message_of(capsys, tmp_path, "pretrain", "--pretrain.train.batch-size", 5)
    before = (tmp_path / "run" / "config.json").read_bytes() if (tmp_path / "run" / "config.json").exists() else None
    text = message_of(capsys, tmp_path, "pretrain", "--pretrain.train.batch-size", 7)
    if before is not None:
        assert "another config" in text
        assert (tmp_path / "run" / "config.json").read_bytes() == before


def test_a_run_folder_in_use_is_refused(capsys, tmp_path, images):
    from metarep_jax.train import open_run

    with open_run(tmp_path / "run", {}):
        text = message_of(capsys, tmp_path, "pretrain")
    assert "in use by another process" in text


def test_a_data_folder_of_one_class_is_refused(capsys, tmp_path, images):
    for c in range(1, 6):
        shutil.rmtree(images / f"class{c}")
    assert "class" in message_of(capsys, tmp_path, "metatrain")
