"""Models on disk: whole or named as damaged, of older versions, and without running what they name."""

import json
import shutil
import sys
from functools import cache
from pathlib import Path

import jax
import numpy as np
import pytest

import metarep_jax
from metarep_jax.encoders import EncoderConfig, make_encoder
from metarep_jax.metalearn import LearnerConfig, make_learner
from metarep_jax.model import Model, ModelSpec, is_whole, spec_of_json, spec_to_json
from metarep_jax.train.storage.arrays import save_tree
from metarep_jax.types import EpisodeSpec, episode_of

SHAPE = (4, 4, 1)
IMAGES = np.random.default_rng(0).integers(0, 255, (6, *SHAPE), np.uint8)
VERSION_1 = json.loads((Path(__file__).parent / "spec_version_1.json").read_text())


@cache
def untrained(name="prototypical", encoder="mlp"):
    config, settings = LearnerConfig(name=name), EncoderConfig(name=encoder, width=4)
    learner = make_learner(config, make_encoder(settings), way=2)
    init = jax.jit(lambda x: learner.init(jax.random.key(1), episode_of(EpisodeSpec(2, 1, 1), x)))
    return Model(ModelSpec("learner", settings, config, SHAPE, way=2), *init(IMAGES))


def edit_spec(folder, **values):
    file = folder / "model" / "spec.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """A saved model whose learner is a module that writes a file when it is imported."""
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    package = tmp_path / "code" / "strange_package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "strange_learner.py").write_text(
        "from pathlib import Path\nPath(__file__).with_name('ran').touch()\n"
        "from metarep_jax.metalearn.prototypical import prototypical as learner\n"
    )
    untrained().save(tmp_path / "run")
    yield tmp_path / "run", package / "ran"
    for name in ("strange_package", "strange_package.strange_learner"):
        sys.modules.pop(name, None)


def test_a_strangers_model_runs_no_code(stranger):
    folder, ran = stranger
    for path in ("strange_package.strange_learner:learner", "strange_package.strange_learner:a b", "os:system"):
        edit_spec(folder, learner={"name": path})
        module = path.partition(":")[0]
        with pytest.raises(
            ValueError, match=rf"spec.json names '{path}'.*allow it: load\(folder, allow=\['{module}'\]"
        ):
            metarep_jax.load(folder)
        assert not ran.exists()


@pytest.mark.parametrize("allow", [["strange_package"], "strange_package.strange_learner"])
def test_a_model_of_an_allowed_module_or_package_is_loaded(stranger, allow):
    folder, ran = stranger
    edit_spec(folder, learner={"name": "strange_package.strange_learner:learner"})
    model = metarep_jax.load(folder, allow=allow)
    assert ran.exists()
    assert model.adapt(IMAGES[:2], ["a", "b"]).predict(IMAGES[:2]).label.tolist() == ["a", "b"]


def test_allowing_a_module_allows_none_whose_name_only_begins_so(stranger):
    folder, ran = stranger
    edit_spec(folder, learner={"name": "strange_package.strange_learner:learner"})
    with pytest.raises(ValueError, match="If you trust it"):
        metarep_jax.load(folder, allow=["strange", "strange_package.strange"])
    assert not ran.exists()


def test_a_model_is_saved_whole_with_every_setting_and_its_version(tmp_path):
    model = untrained()
    model.save(tmp_path)
    plain = json.loads((tmp_path / "model" / "spec.json").read_text())
    assert plain["version"] == 2
    assert plain["learner"] == {"name": "prototypical", **model.spec.learner.settings}
    assert is_whole(tmp_path)
    assert metarep_jax.load(tmp_path / "model").spec == metarep_jax.load(tmp_path).spec == model.spec


def test_saving_over_a_model_leaves_one_file_of_arrays(tmp_path):
    model = untrained()
    model.save(tmp_path)
    params = jax.tree.map(lambda leaf: np.asarray(leaf) + 1, model.params)
    Model(model.spec, params, model.state).save(tmp_path)
    assert len(list((tmp_path / "model").glob("arrays*"))) == 1
    jax.tree.map(np.testing.assert_array_equal, metarep_jax.load(tmp_path).params, params)


def test_a_save_that_is_interrupted_leaves_the_model_that_was_there(tmp_path, monkeypatch):
    model = untrained()
    model.save(tmp_path)

    def full(path, content):
        if Path(path).name == "spec.json":
            raise OSError("the disk is full")
        Path(path).write_bytes(content)

    monkeypatch.setattr("metarep_jax.model.storage.atomic_write", full)
    with pytest.raises(OSError, match="full"):
        Model(model.spec, jax.tree.map(lambda leaf: np.asarray(leaf) + 1, model.params), model.state).save(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, metarep_jax.load(tmp_path).params, model.params)


def damage_digest(folder):
    file = next(folder.glob("arrays-*.safetensors"))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_digest, r"arrays-\w+.safetensors is damaged: its digest is not the one in spec.json"),
        (lambda folder: next(folder.glob("arrays-*")).unlink(), r"arrays-\w+.safetensors is damaged: .*No such file"),
        (lambda folder: (folder / "spec.json").write_text('{"kind": '), r"spec.json is damaged: "),
        (lambda folder: (folder / "spec.json").write_text("[]"), r"spec.json is damaged: it does not describe a model"),
    ],
)
def test_a_damaged_file_is_named_with_what_heals_it(tmp_path, damage, message):
    untrained().save(tmp_path)
    damage(tmp_path / "model")
    assert not is_whole(tmp_path)
    with pytest.raises(ValueError, match=rf"{message}.*The command that trained the model heals it"):
        metarep_jax.load(tmp_path)


def test_a_folder_without_a_model_is_not_whole(tmp_path):
    assert not is_whole(tmp_path)


def test_a_spec_of_version_1_loads_with_what_its_encoder_and_learner_have():
    spec = spec_of_json(VERSION_1, "spec.json")
    assert spec.learner == LearnerConfig("prototypical", distance="cosine")
    assert spec.encoder == EncoderConfig(name="conv4", width=32)
    assert (spec.shape, spec.way) == ((28, 28, 1), 5)
    assert spec_of_json(spec_to_json(spec), "spec.json") == spec


@pytest.mark.parametrize(
    "encoder", ["conv4", "mlp", "resnet12", "vit", "patches", "transformer", "waveform", "log_mel"]
)
def test_the_union_of_settings_of_version_1_builds_every_encoder(encoder):
    old = {**VERSION_1["encoder"], "name": encoder, "width": 16}
    spec = spec_of_json({**VERSION_1, "encoder": old}, "spec.json")
    assert spec.encoder == EncoderConfig(name=encoder) or spec.encoder == EncoderConfig(name=encoder, width=16)
    make_encoder(spec.encoder)


def test_a_folder_of_version_1_answers_as_the_model_that_was_saved(tmp_path):
    model = untrained("maml")
    encoder = {**VERSION_1["encoder"], "name": "mlp", "width": 4}
    old = {**VERSION_1, "encoder": encoder, "learner": {**VERSION_1["learner"], "name": "maml", "distance": None}}
    save_tree(tmp_path / "model" / "arrays", {"params": model.params, "state": model.state})
    (tmp_path / "model" / "spec.json").write_text(json.dumps({**old, "shape": SHAPE, "way": 2}))
    loaded = metarep_jax.load(tmp_path)
    assert loaded.spec == model.spec
    np.testing.assert_array_equal(loaded.embed(IMAGES), model.embed(IMAGES))
    shutil.rmtree(tmp_path / "model" / "arrays")
    with pytest.raises(ValueError, match="model/arrays is damaged"):
        metarep_jax.load(tmp_path)


@pytest.mark.parametrize("encoder", ["resnet18", "resnet34", "resnet50"])
def test_a_resnet_of_version_1_is_refused_with_the_reason(encoder):
    old = {**VERSION_1, "encoder": {**VERSION_1["encoder"], "name": encoder}}
    with pytest.raises(ValueError, match=f"strided convolutions of {encoder} padded one side only.*Train it anew"):
        spec_of_json(old, "spec.json")


def test_a_newer_version_is_refused_with_both_versions():
    with pytest.raises(ValueError, match=r"spec.json has version 3, this library reads versions 1 to 2"):
        spec_of_json({**VERSION_1, "version": 3}, "spec.json")


def test_values_that_no_spec_has_are_refused():
    plain = spec_of_json(VERSION_1, "spec.json")
    with pytest.raises(ValueError, match=r"runs/a/spec.json does not describe a model.*way"):
        spec_of_json({**spec_to_json(plain), "way": "five"}, "runs/a/spec.json")


def test_an_encoder_that_does_not_exist_is_named_with_those_that_do():
    plain = spec_to_json(spec_of_json(VERSION_1, "spec.json"))
    with pytest.raises(ValueError, match=r"unknown encoder 'conv5' \(did you mean conv4\?\)"):
        spec_of_json({**plain, "encoder": {**plain["encoder"], "name": "conv5"}}, "spec.json")
