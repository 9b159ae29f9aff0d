"""The rows of experiments.evaluate: columns that there are classes for, means over models, an objective by itself."""

import json
import re
import shutil

import numpy as np
import pytest
from test_bad_input import folder_of_images

from experiments import evaluate
from experiments.cli import run_experiment
from experiments.configs import PretrainConfig
from experiments.flags import parse
from experiments.reports import pretrain_report
from metarep_jax.data import pool_of_arrays
from metarep_jax.data.protocols import find_protocol
from metarep_jax.stages.columns import EvaluateSettings
from metarep_jax.stages.result_cells import joined, mean_over_models


def cell(mean, ci95=1.0, n=10):
    return {"mean": mean, "ci95": ci95, "n": n}


@pytest.mark.parametrize(("classes", "ways"), [(1, []), (3, [3, 3]), (6, [5, 5])])
def test_columns_are_of_all_classes_where_there_are_too_few_for_any_way(classes, ways):
    label = np.repeat(np.arange(classes, dtype=np.int32), 7)
    pool = pool_of_arrays(np.zeros((len(label), 2, 2, 1), np.uint8), label, classes=classes)
    found = EvaluateSettings().columns(find_protocol("random-classes", "folder"), pool)
    assert [spec.way for spec in found] == ways


def test_several_models_give_the_mean_of_the_cells_that_all_have():
    first = {"a": {"x": cell(1.0), "y": cell(5.0)}, "b": {"x": cell(2.0)}}
    second = {"a": {"x": cell(3.0)}}
    assert mean_over_models([first]) == first
    found = mean_over_models([first, second])
    assert found.keys() == {"a"} and found["a"].keys() == {"x"}
    assert found["a"]["x"]["mean"] == 2.0
    assert found["a"]["x"]["ci95"] == pytest.approx(12.7062, rel=1e-4)  # Student's, of two
    assert joined(first, {"a": {"z": cell(0.0)}, "c": {}})["a"].keys() == {"x", "y", "z"}


def test_a_finished_autoencoder_is_judged_and_drawn_again_by_its_decoder_and_at_its_checkpoints(
    tmp_path, capsys, monkeypatch
):
    folder_of_images(tmp_path / "images", classes=14)
    common = ["--data.name", "folder", "--data.data-dir", tmp_path / "images", "--data.image-size", 8]
    common += ["--data.cache-dir", tmp_path / "cache", "--devices", 1, "--evaluate.ways", 2, "--evaluate.shots", 1]
    common += ["--evaluate.episodes", 4, "--evaluate.mode-episodes", 4]
    train = ["--encoder.name", "mlp", "--encoder.width", 4, "--pretrain.objective.name", "vae"]
    train += ["--pretrain.objective.latent", 2, "--pretrain.train.steps", 2, "--pretrain.train.batch-size", 4]
    train += ["--pretrain.optimiser.warmup-steps", 0, "--pretrain.train.no-tensorboard"]
    train += ["--pretrain.train.checkpoint-every", 1]

    def run(name, experiment, config, *words):
        words = [str(word) for word in (*common, "--run-folder", tmp_path / name, *words)]
        run_experiment(name, experiment, parse(config, "", args=words))
        return json.loads((tmp_path / name / "result.json").read_text())["cells"]

    trained = run("pretrain", pretrain_report, PretrainConfig, *train)
    folders = [tmp_path / "pretrain", tmp_path / "pretrain"]
    judged = run("evaluate", evaluate.work, evaluate.EvaluateConfig, "--model", *folders)
    assert {"model", "linear probe", "nearest neighbours"} <= judged.keys()
    own = {"loss", "elbo", "kl", "importance_weighted_bound"}
    assert own <= trained["pretrained"].keys()
    assert trained["pretrained"]["importance_weighted_bound"]["mean"] >= trained["pretrained"]["elbo"]["mean"]
    for column in own:
        assert judged["pretrained"][column]["mean"] == pytest.approx(trained["pretrained"][column]["mean"], rel=1e-4)
    for figure in ("reconstructions", "interpolations", "samples", "embedding"):
        assert (tmp_path / "evaluate" / "figures" / f"{figure}.png").is_file()

    monkeypatch.setattr(evaluate, "embedding_figure", lambda *args: tmp_path / "drawn above.png")
    last = run("last", evaluate.work, evaluate.EvaluateConfig, "--model", tmp_path / "pretrain", "--checkpoint", 2)
    assert last["model"] == judged["model"] and last["linear probe"] == judged["linear probe"]
    shutil.rmtree(tmp_path / "pretrain" / "model")
    latest = run("latest", evaluate.work, evaluate.EvaluateConfig, "--model", tmp_path / "pretrain", "--checkpoint", 0)
    assert latest == last
    refused = {"is not finished.*--checkpoint 0": [], "no checkpoint of step 9; there are: 1, 2": ["--checkpoint", 9]}
    for said, words in refused.items():
        with pytest.raises(SystemExit):
            run(
                f"refused{len(words)}", evaluate.work, evaluate.EvaluateConfig, "--model", tmp_path / "pretrain", *words
            )
        assert re.search(said, " ".join(capsys.readouterr().out.split()))
