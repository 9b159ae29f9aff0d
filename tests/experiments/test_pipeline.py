"""The experiments end to end, tiny, on a folder of images made here."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.cli import parse_preset, run_experiment
from experiments.presets.pipeline import PRESETS
from experiments.reports import pipeline_report
from metarep_jax import load
from metarep_jax.report.results import read_result

CLASSES, IMAGES, SIZE = 16, 8, 8


@pytest.fixture(scope="module")
def image_folder(tmp_path_factory):
    """Sixteen classes of noisy copies of a random pattern each."""
    root = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for c in range(CLASSES):
        folder = root / f"group{c % 2}" / f"class{c:02d}"
        folder.mkdir(parents=True)
        pattern = random.integers(0, 200, (SIZE, SIZE))
        for i in range(IMAGES):
            noisy = np.clip(pattern + random.integers(0, 50, (SIZE, SIZE)), 0, 255)
            Image.fromarray(noisy.astype(np.uint8)).save(folder / f"{i}.png")
    return root


def flags(image_folder, run_folder, **changed):
    """A scaled-down pipeline."""
    given = {
        "data.data-dir": image_folder,
        "data.cache-dir": run_folder.parent / "cache",
        "data.image-size": SIZE,
        "run-folder": run_folder,
        "devices": 2,
        "encoder.name": "mlp",
        "encoder.width": 8,
        "encoder.norm": "none",  # the student's is the batch norm, whose modes are judged
        "pretrain.epochs": 1,
        "pretrain.train.batch-size": 16,
        "meta.learner.inner-steps": 1,
        "meta.learner.test-steps": 1,
        "meta.episode.way": 2,
        "meta.episode.query": 1,
        "meta.train.steps": 2,
        "meta.train.batch-size": 2,
        "meta.validation-episodes": 4,
        "distill.student.name": "mlp",
        "distill.student.width": 4,
        "distill.learner.inner-steps": 1,
        "distill.learner.test-steps": 1,
        "distill.episode.way": 2,
        "distill.epochs": 1,
        "distill.train.batch-size": 2,
        "distill.validation-episodes": 4,
        "evaluate.episodes": 8,
        "evaluate.mode-episodes": 4,
    } | changed
    words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    return ["classic", *words, "--evaluate.ways", "2", "--evaluate.shots", "1"]


def run_pipeline(words):
    """The experiment's command line."""
    run_experiment("pipeline", pipeline_report, parse_preset(PRESETS, None, words))


def test_the_classic_preset_runs_to_its_table_and_skips_what_is_finished(image_folder, tmp_path, caplog):
    folder = tmp_path / "run"
    run_pipeline(flags(image_folder, folder))
    result = read_result(folder / "result.json")
    for row in ("untrained", "pretrained", "meta_scratch", "meta_pretrained", "student"):
        cell = result.cells[row]["2w1s"]
        assert 0 <= cell["mean"] <= 100 and cell["n"] == 8
    assert result.cells["student"]["parameters"]["mean"] < result.cells["meta_scratch"]["parameters"]["mean"]
    for figure in ("views", "episode", "curves", "embedding", "bars"):
        assert (folder / "figures" / f"{figure}.png").stat().st_size > 1000
    assert {f"student ({mode})" for mode in ("running", "support", "one_query")} < result.cells.keys()
    assert "random-classes" in (folder / "report.md").read_text()
    images = np.zeros((2, SIZE, SIZE, 1), np.uint8)
    assert load(folder / "student").adapt(images, [0, 1]).predict(images).probability.shape == (2, 2)
    before = (folder / "student" / "metrics.jsonl").read_bytes()
    with caplog.at_level("INFO"):
        run_pipeline(flags(image_folder, folder))
    assert caplog.text.count("already") == 4  # stages
    assert (folder / "student" / "metrics.jsonl").read_bytes() == before
    again = read_result(folder / "result.json")
    assert again.cells == result.cells


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"meta.episode.way": 30}, "30"),
        ({"meta.episode.shot": 6, "meta.episode.query": 5}, "class"),
        ({"pretrain.train.batch-size": 15}, "device"),
        ({"data.protocol": "vinyals"}, "vinyals"),
        ({"meta.optimiser.warmup-steps": 2}, "--meta.optimiser.warmup-steps"),
        ({"distill.episode.shot": 8}, "--distill.episode.shot"),
        ({"meta.tasks.source": "augmentations", "meta.augment": "none"}, "set --meta.augment"),
    ],
)
def test_bad_settings_end_with_a_message_and_leave_no_half_run(image_folder, tmp_path, capsys, changed, message):
    with pytest.raises(SystemExit) as ended:
        run_pipeline(flags(image_folder, tmp_path / "run", **changed))
    assert ended.value.code != 0
    output = capsys.readouterr()
    assert message in output.out + output.err
    assert "Traceback" not in output.out + output.err
    assert not list(tmp_path.rglob("checkpoints"))  # no stage was begun


@pytest.mark.parametrize("name", ["pretrain", "metatrain", "distill", "evaluate", "pipeline", "quickstart"])
@pytest.mark.slow
def test_every_experiment_explains_itself(name):
    words = [sys.executable, "-m", f"experiments.{name}", "--help"]
    shown = subprocess.run(words, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert "usage" in shown.stdout.lower()
    assert len(shown.stdout) > 500


def test_result_files_in_the_repository_follow_the_schema():
    for path in (Path(__file__).parents[2] / "experiments" / "results").glob("*.json"):
        read_result(path)
        assert json.loads(path.read_text())["name"] == path.stem
