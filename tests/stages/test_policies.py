"""Policies of stages: trained in a folder that goes on, and judged on the same new tasks whatever their step sizes."""

import dataclasses

import jax
import numpy as np
import pytest

from metarep_jax.data.control.navigation_environment import navigation
from metarep_jax.encoders.mlp import MLP
from metarep_jax.evaluate.step_sizes import Policy
from metarep_jax.stages import Compute
from metarep_jax.stages.policies import (
    TEST,
    PolicyFamily,
    PolicySettings,
    ReturnSettings,
    judge_on,
    judge_policies,
    train_policy,
    untrained_policy,
)
from metarep_jax.train import FitConfig

FIT = FitConfig(steps=2, batch_size=2, log_every=1, checkpoint_every=1, tensorboard=False, progress=False)
FAMILY = PolicyFamily(
    "navigation", navigation(horizon=4), MLP(widths=(4,), norm="none"), PolicySettings(trajectories=2, train=FIT)
)
RETURNS = ReturnSettings(rates=(0.1,), tasks=3, choice_tasks=2, trajectories=2, updates=2)


def test_a_policy_goes_on_in_its_folder_and_another_one_is_refused_there(tmp_path):
    compute = Compute(tmp_path, devices=1)
    params, _ = train_policy(FAMILY, compute)
    again, _ = train_policy(FAMILY, compute)
    jax.tree.map(np.testing.assert_array_equal, params, again)
    start, _ = untrained_policy(FAMILY, 0)
    assert jax.tree.structure(start) == jax.tree.structure(params)
    other = dataclasses.replace(FAMILY, settings=dataclasses.replace(FAMILY.settings, inner_lr=0.3))
    with pytest.raises(ValueError, match="inner_lr"):
        train_policy(other, compute)


def test_returns_before_any_update_do_not_depend_on_the_step_size_and_those_after_do():
    params, state = untrained_policy(FAMILY, 0)
    judge = judge_on(FAMILY, RETURNS, Compute(devices=1), TEST, RETURNS.tasks)
    small, large = (judge(Policy(params, state, rate, 0.0), 0) for rate in (0.1, 2.0))
    assert small.shape == (3, 3)
    np.testing.assert_array_equal(small[:, 0], large[:, 0])
    assert (small[:, 1] != large[:, 1]).all()


def test_the_step_size_of_the_first_update_is_kept_where_the_training_fixes_it():
    weights = [untrained_policy(FAMILY, seed) for seed in (0, 1)]
    returns, (first, later) = judge_policies(FAMILY, weights, RETURNS, Compute(devices=1), first=0.5)
    assert first == 0.5 and later in (0.0, 0.1)
    assert [each.shape for each in returns] == [(3, 3)] * 2 and (returns[0] != returns[1]).all()


@pytest.mark.parametrize("name", ["tasks", "choice_tasks", "trajectories"])
def test_judging_on_nothing_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        ReturnSettings(**{name: 0})
