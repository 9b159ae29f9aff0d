"""Exported models answer as the models do, without this package."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from metarep_jax.distill import classifier
from metarep_jax.encoders import EncoderConfig, make_encoder
from metarep_jax.encoders.features import fit_whitening
from metarep_jax.metalearn import LearnerConfig, make_learner
from metarep_jax.model import Model, ModelSpec
from metarep_jax.types import EpisodeSpec, episode_of

ENCODER = EncoderConfig("conv4", width=4, readout="mean")
SHAPE = (16, 16, 1)
IMAGES = np.random.default_rng(0).integers(0, 255, (5, *SHAPE), np.uint8)
STRANGER = """
import json, sys
sys.modules["metarep_jax"] = None  # an import of it fails
import jax, numpy as np
for folder in sys.argv[2:]:
    exported = jax.export.deserialize(bytearray(open(f"{folder}/model.stablehlo", "rb").read()))
    x = np.load(sys.argv[1]).astype(json.load(open(f"{folder}/export.json"))["input"]["dtype"])
    np.savez(f"{folder}/answers.npz", five=exported.call(x), one=exported.call(x[:1]))
"""


def learner(name, whitening=None):
    config = LearnerConfig(name)
    method = make_learner(config, make_encoder(ENCODER), way=2)
    init = jax.jit(lambda x: method.init(jax.random.key(1), episode_of(EpisodeSpec(2, 1, 1), x)))
    return Model(ModelSpec("learner", ENCODER, config, SHAPE, way=2), *init(IMAGES), whitening)


def student():
    params, state = jax.jit(classifier(make_encoder(ENCODER), 3).init)(jax.random.key(3), IMAGES)
    spec = ModelSpec("classifier", ENCODER, LearnerConfig(), SHAPE, class_names=("ж", "b", "c"))
    return Model(spec, params, state)


def test_what_is_exported_answers_as_the_model_without_this_package_and_for_any_batch(tmp_path):
    whitening = jax.jit(fit_whitening)(np.random.default_rng(2).normal(size=(50, 4)).astype(np.float32))
    adapted = {name: learner(name).adapt(IMAGES[:2], ["a", "b"]) for name in ("maml", "reptile")}
    models = {"student": student(), "encoder": learner("prototypical", whitening), **adapted}
    for name, model in models.items():
        model.export(tmp_path / name)
    np.save(tmp_path / "images.npy", IMAGES)
    folders = [str(tmp_path / name) for name in models]
    command = [sys.executable, "-c", STRANGER, str(tmp_path / "images.npy"), *folders]
    subprocess.run(command, check=True, cwd=tmp_path)
    for name, model in models.items():
        ours = np.asarray(model.embed(IMAGES) if name == "encoder" else model.predict(IMAGES).probability)
        with np.load(tmp_path / name / "answers.npz") as theirs:
            np.testing.assert_allclose(theirs["five"], ours, rtol=1e-5, atol=1e-6, err_msg=name)
            np.testing.assert_allclose(theirs["one"], ours[:1], rtol=1e-5, atol=1e-6, err_msg=name)
    said = json.loads((tmp_path / "student" / "export.json").read_text())
    assert said["classes"] == ["ж", "b", "c"]
    assert said["input"] == {"shape": ["batch", *SHAPE], "dtype": "uint8"}
    assert "scaling to [0, 1] and normalising are inside" in said["preprocessing"]
    assert said["platforms"] == ["cpu", "cuda", "tpu"]
    assert json.loads((tmp_path / "encoder" / "export.json").read_text())["output"] == "features"


def test_probabilities_of_a_learner_that_was_not_adapted_are_not_exported(tmp_path):
    with pytest.raises(ValueError, match="call adapt"):
        learner("maml").export(tmp_path, "predict")
    assert not any(tmp_path.iterdir())


def test_an_unknown_platform_is_refused_with_those_that_there_are(tmp_path):
    with pytest.raises(ValueError, match="unknown platform 'gpu'; there are: cpu, cuda, tpu, rocm"):
        student().export(tmp_path, platforms=["gpu"])
    assert not any(tmp_path.iterdir())


def test_an_export_says_when_answers_depend_on_other_rows(tmp_path):
    learner("maml").adapt(IMAGES[:2], ["a", "b"], norm="transductive").export(tmp_path, platforms=["cpu"])
    said = json.loads((tmp_path / "export.json").read_text())
    assert said["answers depend on other rows"]
    assert said["platforms"] == ["cpu"]
