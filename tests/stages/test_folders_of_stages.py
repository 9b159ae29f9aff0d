"""A stage's folder knows what it was computed from, heals what was damaged, and goes on with more steps."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest
from stage_inputs import (
    ENCODER,
    compute,
    distil_settings,
    few_shot_data,
    fit_config,
    metatrain_settings,
    pretrain_settings,
)

from metarep_jax.stages import distil, metatrain, pretrain
from metarep_jax.train import read_lines


@pytest.fixture(scope="module")
def data():
    return few_shot_data()


@pytest.fixture(scope="module")
def other_data():
    return few_shot_data(name="other letters", seed=1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data):
    """A folder with finished features, which tests copy."""
    folder = tmp_path_factory.mktemp("trained")
    pretrain(pretrain_settings(), data, compute(folder), encoder=ENCODER)
    return folder


@pytest.fixture
def folder(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def files_in(folder):
    """Every file and its bytes, but for those that say who holds the folder."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".pid", ".lock")]
    return {path.relative_to(folder): path.read_bytes() for path in files if not path.name.startswith(".")}


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(other.params)))


def test_other_data_are_refused_before_anything_is_written_and_both_are_named(folder, other_data):
    before = files_in(folder)
    with pytest.raises(ValueError, match=r"begun on data letters \(digest \w+\), now there is data other letters"):
        pretrain(pretrain_settings(), other_data, compute(folder), encoder=ENCODER)
    assert files_in(folder) == before


def test_checkpoints_know_their_data_too(folder, other_data):
    (folder / "stage.json").unlink()
    shutil.rmtree(folder / "model")
    with pytest.raises(ValueError, match=r"the checkpoint .* was begun on data letters .*now .* other letters"):
        pretrain(pretrain_settings(), other_data, compute(folder), encoder=ENCODER)


@pytest.mark.parametrize("role", ["start", "teacher"])
def test_another_start_or_teacher_is_refused_before_anything_is_written(tmp_path, data, trained, role):
    first = pretrain(pretrain_settings(), data, compute(trained), encoder=ENCODER)
    second = dataclasses.replace(first, params=jax.tree.map(lambda leaf: leaf + 1, first.params))

    def run(model):
        if role == "start":
            return metatrain(metatrain_settings(), data, compute(tmp_path), start=model)
        return distil(distil_settings(), data, model, compute(tmp_path))

    run(first)
    before = files_in(tmp_path)
    with pytest.raises(ValueError, match=f"{role} prototypical over mlp has changed since the run folder"):
        run(second)
    assert files_in(tmp_path) == before


def test_settings_that_cannot_change_a_result_do_not_block_it(folder, data, caplog):
    other = fit_config(log_every=1, checkpoint_every=1, keep=5, steps_per_dispatch=1, profile=False)
    with caplog.at_level("INFO"):
        pretrain(pretrain_settings(train=other), data, dataclasses.replace(compute(folder), devices=2), encoder=ENCODER)
    assert f"the model is in {folder} already" in caplog.text
    with pytest.raises(ValueError, match=r"another config .*whiten: 0.25 before, 0.5 now"):
        pretrain(pretrain_settings(whiten=0.5), data, compute(folder), encoder=ENCODER)


def test_a_damaged_model_is_named_and_healed_from_its_checkpoints_without_training(folder, data, caplog):
    whole = pretrain(pretrain_settings(), data, compute(folder), encoder=ENCODER)
    lines = (folder / "metrics.jsonl").read_bytes()
    file = next((folder / "model").glob("*.safetensors"))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    healed = pretrain(pretrain_settings(), data, compute(folder), encoder=ENCODER)
    assert f"{file} is damaged" in caplog.text
    assert "written anew from the checkpoints" in caplog.text
    assert same(whole, healed) and (folder / "metrics.jsonl").read_bytes() == lines
    caplog.clear()
    assert same(whole, pretrain(pretrain_settings(), data, compute(folder), encoder=ENCODER))
    assert "damaged" not in caplog.text


def test_a_finished_training_goes_on_with_more_steps_and_its_model_is_the_newer_one(folder, data):
    before = pretrain(pretrain_settings(), data, compute(folder), encoder=ENCODER)
    longer = pretrain_settings(train=fit_config(steps=4))
    after = pretrain(longer, data, compute(folder), encoder=ENCODER)
    assert not same(before, after)
    assert [line["step"] for line in read_lines(folder / "metrics.jsonl")] == [2, 4]
    assert same(after, pretrain(longer, data, compute(folder), encoder=ENCODER))
    with pytest.raises(ValueError, match=r"has done 4 steps of 4, 3 are fewer; give --pretrain.train.steps 4 or more"):
        pretrain(pretrain_settings(train=fit_config(steps=3)), data, compute(folder), encoder=ENCODER)


def test_what_was_refused_before_training_binds_no_later_run(tmp_path, data):
    with pytest.raises(ValueError, match="fewer than a batch of 64"):
        pretrain(pretrain_settings(train=fit_config(batch_size=64)), data, compute(tmp_path), encoder=ENCODER)
    pretrain(pretrain_settings(), data, compute(tmp_path), encoder=ENCODER)
