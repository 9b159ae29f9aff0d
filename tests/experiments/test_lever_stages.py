"""What only the log of levers does with a trained stage 1."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.tables.engine import OmniglotConfig, run_table
from experiments.tables.omniglot_levers import TABLE, pieces_of
from metarep_jax.data import DataConfig, Splits, find_protocol, pool_of_arrays
from metarep_jax.encoders import EncoderConfig, make_encoder
from metarep_jax.pretrain import ObjectiveConfig
from metarep_jax.pretrain.heads import Head
from metarep_jax.report.results import read_result
from metarep_jax.stages import Compute, PretrainSettings, projector
from metarep_jax.stages.features import untrained_model
from metarep_jax.stages.projector import Projected, projector_features
from metarep_jax.stages.self_distil import self_distil

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 1)).astype(np.uint8)
ENCODER = EncoderConfig(name="mlp", width=6)
POOL = pool_of_arrays(IMAGES, np.arange(40) % 4)
NAMES = {part: tuple("abcd") for part in ("train", "val", "test")}
SPLITS = Splits(POOL, POOL, POOL, NAMES, find_protocol("vinyals-no-rotations", "omniglot"), DataConfig("omniglot"))


def test_projections_are_the_projectors_of_the_encoders_features_whitened_by_training_images(monkeypatch):
    module = Projected(make_encoder(ENCODER), Head((5, 3)))
    variables = module.init(jax.random.key(1), jnp.asarray(IMAGES))
    trained = SimpleNamespace(params=variables["params"], state=variables["batch_stats"])
    monkeypatch.setattr(projector, "train_objective", lambda *_, **__: (trained, None))
    settings = PretrainSettings(objective=ObjectiveConfig(name="simclr"), whiten=0.5)
    found = np.asarray(projector_features(settings, ENCODER, SPLITS, Compute())(jnp.asarray(IMAGES)))
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(np.cov(found, rowvar=False), np.eye(3), atol=1e-3)
    by_hand = np.asarray(module.apply(variables, jnp.asarray(IMAGES)))  # 40 rows are one batch: statistics are theirs
    affine, *_ = np.linalg.lstsq(np.c_[by_hand, np.ones(40)], found, rcond=None)
    np.testing.assert_allclose(np.c_[by_hand, np.ones(40)] @ affine, found, atol=1e-3)


def test_self_distillation_of_turned_images_is_refused():
    teacher = untrained_model(ENCODER, SPLITS, Compute(), 0.0)
    with pytest.raises(ValueError, match="leave rotations out"):
        self_distil(PretrainSettings(rotations=True), ENCODER, teacher, SPLITS, Compute(), views=2)


@pytest.mark.slow
def test_levers_from_end_to_end(tmp_path):
    names = ("base", "projector_kept", "self_distilled")
    data = DataConfig(name="glyphs")
    config = OmniglotConfig(data=data, budget="trial", rows=names, run_folder=tmp_path, episodes=20, devices=1)
    run_table(TABLE, config, pieces_of)
    table = read_result(tmp_path / "trial" / "table.json")
    assert tuple(table.cells) == names
    means = [row["5w1s"]["mean"] for row in table.cells.values()]
    assert len(set(means)) == 3 and min(means) > 20
