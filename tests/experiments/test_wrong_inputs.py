"""Each experiment with what it cannot use: a sentence that says what to do, and never a traceback."""

import pytest
from test_bad_input import SIZE, folder_of_images

from experiments import distill, evaluate, metatrain, rounds, transfer
from experiments.cli import errors_as_messages, run_experiment, with_data_dir
from experiments.configs import PretrainConfig
from experiments.flags import parse
from experiments.reports import pretrain_report
from metarep_jax.data import DataConfig, load_splits

EXPERIMENTS = {
    "pretrain": (PretrainConfig, pretrain_report),
    "metatrain": (metatrain.MetatrainConfig, metatrain.work),
    "distill": (distill.DistillConfig, distill.work),
    "transfer": (transfer.TransferConfig, transfer.work),
    "rounds": (rounds.RoundsConfig, rounds.work),
    "evaluate": (evaluate.EvaluateConfig, evaluate.work),
}
ENCODER = ["--encoder", "mlp", "--encoder.width", "2"]


def run(root, folder, name, *words, data="images"):
    """Runs an experiment on the images of a folder, in one step."""
    config, work = EXPERIMENTS[name]
    common = ["--data", "folder", "--data.data-dir", root / data, "--data.cache-dir", root / "cache"]
    common += ["--run-folder", folder, "--devices", 1]
    if name not in ("transfer",):
        common += ["--evaluate.episodes", 2, "--evaluate.mode-episodes", 2]
    run_experiment(name, work, parse(config, "", args=[str(word) for word in (*common, *words)]))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Images, images in colour, in given parts, a file; and runs of features and of a classifier."""
    root = tmp_path_factory.mktemp("root")
    folder_of_images(root / "images", classes=10)
    folder_of_images(root / "colour", classes=10, channels=3)
    for part in ("train", "test"):
        folder_of_images(root / "parts" / part, classes=3)
    (root / "file.png").write_bytes(next((root / "images").glob("*/*.png")).read_bytes())
    short = [
        "--pretrain.augment",
        "none",
        "--pretrain.train.steps",
        1,
        "--pretrain.train.batch-size",
        4,
        "--pretrain.optimiser.warmup-steps",
        0,
    ]
    run(root, root / "features", "pretrain", *ENCODER, *short)
    run(root, root / "classifier", "transfer", *ENCODER, "--transfer.train.steps", 1, "--transfer.train.batch-size", 4)
    return root


@pytest.mark.parametrize(
    ("name", "words", "data", "said"),
    [
        ("pretrain", [], "file.png", "file.png is a file"),
        ("pretrain", ["--encoder", "transformer"], "images", "takes tokens, the data are images"),
        ("pretrain", ["--pretrain.train.batch-size", 500], "images", "fewer than a batch of 500"),
        (
            "pretrain",
            ["--pretrain.train.steps", 5, "--pretrain.train.batch-size", 8],
            "images",
            "lower --pretrain.optimiser.warmup-steps",
        ),
        ("metatrain", [], "parts", "needs test classes that training does not see"),
        ("metatrain", ["--start", "nowhere"], "images", "nowhere holds no finished model"),
        ("metatrain", ["--start", "file.png"], "images", "file.png"),
        ("metatrain", ["--start", "features"], "colour", "channels"),
        ("metatrain", ["--tasks", "clusters"], "images", "give --start or --features"),
        ("metatrain", ["--learner", "finetune_head"], "images", "judge it with experiments.evaluate --learner"),
        ("distill", ["--teacher", "nowhere"], "images", "nowhere holds no finished model"),
        ("distill", ["--teacher", "classifier"], "images", "needs a teacher that adapts to new classes"),
        ("distill", ["--teacher", "features", "--mode", "classes"], "images", "needs a teacher that classifies"),
        ("distill", ["--teacher", "features"], "colour", "set --data.channels 1 to match"),
        (
            "distill",
            ["--teacher", "features", "--mode", "features", "--student", "transformer"],
            "images",
            "by --student",
        ),
        ("transfer", ["--start", "features", "--mode", "fine-tune"], "colour", "set --data.channels 1 to match"),
        ("transfer", ["--mode", "fine-tune"], "images", "--mode fine-tune needs --start"),
        ("rounds", ["--start", "features"], "colour", "channels"),
        ("evaluate", ["--model", "features"], "colour", "--data.channels"),
        ("evaluate", ["--model", "file.png"], "images", "holds no finished model"),
    ],
)
def test_what_cannot_be_used_is_said_without_a_traceback(capsys, root, tmp_path, name, words, data, said):
    paths = [root / word if word in ("nowhere", "file.png", "features", "classifier") and before != "--mode" else word
             for before, word in zip(["", *words], words)]  # fmt: skip
    with pytest.raises(SystemExit) as ended:
        run(root, tmp_path / "run", name, *paths, data=data)
    assert ended.value.code not in (0, None)
    assert said in " ".join(capsys.readouterr().out.split())
    assert not (tmp_path / "run" / "config.json").exists()  # a later run with other settings may have the folder


def test_another_data_folder_is_refused_by_the_folder_of_a_run(capsys, root):
    with pytest.raises(SystemExit):
        run(root, root / "features", "pretrain", *ENCODER, data="colour")
    text = " ".join(capsys.readouterr().out.split())
    assert "was begun on data folder in" in text and str(root / "colour") in text.replace(" ", "")
    assert SIZE == 8


def test_a_data_folder_that_the_data_set_does_not_read_is_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"glyphs reads no files, .*passed over; .* such as --data folder"):
        load_splits(DataConfig("glyphs", data_dir=tmp_path))
    monkeypatch.setenv("METAREP_DATA", str(tmp_path))
    assert with_data_dir(DataConfig("glyphs")).data_dir is None
    assert with_data_dir(DataConfig("folder")).data_dir == tmp_path


def test_ctrl_c_outside_of_training_ends_with_a_sentence(capsys):
    with pytest.raises(SystemExit) as ended, errors_as_messages():
        raise KeyboardInterrupt
    assert ended.value.code == 130
    assert "interrupted; the same command goes on from what is finished" in " ".join(capsys.readouterr().out.split())


def test_another_setting_of_the_data_is_named_and_not_the_data(capsys, root):
    with pytest.raises(SystemExit):
        run(root, root / "features", "pretrain", *ENCODER, "--data.image-size", 6)
    text = " ".join(capsys.readouterr().out.split())
    assert "data.image_size: None before, 6 now" in text and "has changed" not in text
