"""Regressors of stages: which rate serves a network that was not trained to adapt, and what figures show of it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from metarep_jax.data.tasks.sinusoid_tasks import SinusoidSpec, sample_task
from metarep_jax.encoders.mlp import MLP
from metarep_jax.evaluate.regression import Regressor
from metarep_jax.metalearn.maml import maml
from metarep_jax.stages import Compute
from metarep_jax.stages.regression import (
    RegressionSettings,
    choose_rate,
    errors_at_test,
    functions_of_one_task,
    one_task,
    train_regressor,
)
from metarep_jax.train import FitConfig

LEARNER = partial(maml, MLP(widths=(4,), norm="none"), way=1, output="mean")


def untrained():
    learner = LEARNER(inner_lr=0.01)
    return Regressor(learner, *learner.init(jax.random.key(0), sample_task(jax.random.key(1), SinusoidSpec(5, 5))))


def test_of_several_rates_the_one_that_leaves_the_least_error_is_chosen():
    model, best = choose_rate(untrained(), lambda rate: LEARNER(inner_lr=rate), (1e-6, 0.01, 1e6), 5)
    assert best == 0.01 and model.params is not None
    before, after = errors_at_test(model, 5, (0, 1), tasks=200).mean(0)
    assert after < before


def test_functions_are_drawn_of_the_task_whose_points_are_shown():
    task = one_task(5)
    assert task.points.shape == (5, 2) and task.x.shape == task.truth.shape
    np.testing.assert_allclose(np.interp(task.points[:, 0], task.x, task.truth), task.points[:, 1], atol=0.01)
    drawn = functions_of_one_task(untrained(), 5, (0, 2))
    assert drawn.keys() == {0, 2} and all(line.shape == task.x.shape for line in drawn.values())
    assert jnp.abs(drawn[0] - drawn[2]).max() > 0


def test_a_regressor_goes_on_in_its_folder(tmp_path):
    train = FitConfig(steps=2, batch_size=2, log_every=1, checkpoint_every=1, tensorboard=False, progress=False)
    settings, compute = RegressionSettings(SinusoidSpec(3, 3), train=train), Compute(tmp_path, devices=1)
    once, again = (train_regressor(LEARNER(), settings, compute, identity={"row": "maml"}) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, once.params, again.params)
