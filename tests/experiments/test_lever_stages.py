"""What only the log of levers does with a trained stage 1."""

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.tables import lever_stages, omniglot_levers
from experiments.tables.lever_stages import Projected, projector_features, self_distilled
from experiments.tables.rows import OmniglotRowsConfig, main
from metarep_jax.data import DataConfig, pool_of_arrays
from metarep_jax.encoders import EncoderConfig, make_encoder
from metarep_jax.pretrain import ObjectiveConfig
from metarep_jax.pretrain.heads import Head
from metarep_jax.report.results import read_result
from metarep_jax.stages import PretrainSettings

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 1)).astype(np.uint8)


def run_on_images() -> Any:
    """What is asked of a run."""
    config = SimpleNamespace(encoder=EncoderConfig(name="mlp", width=6))
    return SimpleNamespace(config=config, splits=SimpleNamespace(train=pool_of_arrays(IMAGES, np.arange(40) % 4)))


def test_projections_are_the_projectors_of_the_encoders_features_whitened_by_training_images(monkeypatch):
    run = run_on_images()
    module = Projected(make_encoder(run.config.encoder), Head((5, 3)))
    variables = module.init(jax.random.key(1), jnp.asarray(IMAGES))
    trained = SimpleNamespace(params=variables["params"], state=variables["batch_stats"])
    monkeypatch.setattr(lever_stages, "train_objective", lambda *_: trained)
    settings = PretrainSettings(objective=ObjectiveConfig(name="simclr"), whiten=0.5)
    found = np.asarray(projector_features(run, settings, None)(jnp.asarray(IMAGES)))
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(np.cov(found, rowvar=False), np.eye(3), atol=1e-3)
    by_hand = np.asarray(module.apply(variables, jnp.asarray(IMAGES)))  # 40 rows are one batch: statistics are theirs
    affine, *_ = np.linalg.lstsq(np.c_[by_hand, np.ones(40)], found, rcond=None)
    np.testing.assert_allclose(np.c_[by_hand, np.ones(40)] @ affine, found, atol=1e-3)


def test_self_distillation_of_turned_images_is_refused():
    with pytest.raises(ValueError, match="leave rotations out"):
        self_distilled(run_on_images(), PretrainSettings(rotations=True), None, None)


@pytest.mark.slow
def test_levers_from_end_to_end(tmp_path):
    names = ("base", "projector_kept", "self_distilled")
    data = DataConfig(name="glyphs")
    config = OmniglotRowsConfig(data=data, budget="trial", rows=names, run_folder=tmp_path, episodes=20, devices=1)
    main(omniglot_levers.TABLE, config, lambda: omniglot_levers.rows_of(config))
    table = read_result(tmp_path / "trial" / "table.json")
    assert tuple(table.cells) == names
    means = [row["5w1s"]["mean"] for row in table.cells.values()]
    assert len(set(means)) == 3 and min(means) > 20
