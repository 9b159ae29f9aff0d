"""A trained objective on disk: what comes back, and what is refused."""

import json

import jax
import numpy as np
import pytest
from objective_checks import encoder, started

from metarep_jax.pretrain import ObjectiveConfig, make_objective
from metarep_jax.pretrain.queue import Queue
from metarep_jax.pretrain.trained import TrainedObjective, load_objective, save_objective


def own_objective(encoder, *, drop: float = 0.5):
    return make_objective(ObjectiveConfig("autoencoder", drop=drop), encoder)


def trained(name="vae", **settings):
    config = ObjectiveConfig(name, **settings)
    params, state = started(make_objective(config, encoder()))
    return TrainedObjective(config, "none", 7, params, state)


def test_an_objective_comes_back_with_its_settings_and_arrays(tmp_path):
    before = trained(latent=3)
    save_objective(tmp_path, before)
    after = load_objective(tmp_path)
    assert after is not None and after[:3] == before[:3] and after.config.get("latent") == 3
    jax.tree.map(np.testing.assert_array_equal, after[3:], before[3:])


def test_a_stage_without_an_objective_has_none_and_trees_that_are_no_dicts_are_not_kept(tmp_path):
    queue = trained()._replace(state={"queue": Queue(np.zeros((2, 2)), np.int32(0))})
    save_objective(tmp_path, queue)
    assert load_objective(tmp_path) is None


def test_an_objective_of_your_own_is_loaded_only_where_its_module_is_allowed(tmp_path):
    save_objective(tmp_path, trained("test_trained:own_objective", drop=0.25))
    with pytest.raises(ValueError, match=r"names 'test_trained:own_objective'.*allow it: .*allow=\['test_trained'\]"):
        load_objective(tmp_path)
    with pytest.raises(ValueError, match="would run the code of the module"):
        load_objective(tmp_path, allow="test_train")
    loaded = load_objective(tmp_path, allow="test_trained")
    assert loaded is not None and loaded.config.get("drop") == 0.25


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("{", "cannot be used"), (json.dumps({"config": {"name": "vea"}}), r"did you mean vae")],
)
def test_a_damaged_objective_is_named(tmp_path, text, sentence):
    save_objective(tmp_path, trained())
    file = tmp_path / "objective" / "config.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=f"the objective in {file} .*{sentence}"):
        load_objective(tmp_path)
