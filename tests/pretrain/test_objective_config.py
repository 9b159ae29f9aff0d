"""Objectives by name, with the settings that they take; neighbours for any objective of two views."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from objective_checks import BATCH, encoder, loss_of, noisy, plain, started

from metarep_jax.pretrain import ObjectiveConfig, byol, make_objective, simclr, with_neighbours
from metarep_jax.types import Objective

SMALL = {"hidden": 6, "out": 4}


def own_objective(encoder, *, augment, out=3):
    """A user's objective that takes some of the settings."""
    return Objective(lambda *_: (out, augment), lambda *_: None, lambda *_: None)


def not_an_objective(encoder):
    return 3


def test_a_setting_that_an_objective_does_not_have_is_refused_with_those_that_it_has():
    with pytest.raises(ValueError, match="the objective simclr has no setting queue; it has: temperature, hidden, out"):
        ObjectiveConfig("simclr", queue=3)


def test_a_setting_reaches_the_objective():
    config = ObjectiveConfig(name="simclr", temperature=0.7, **SMALL)
    params, state = started(simclr(encoder(), augment=noisy, temperature=0.7, **SMALL))
    found = loss_of(make_objective(config, encoder(), augment=noisy), params, state)[0]
    assert found == loss_of(simclr(encoder(), augment=noisy, temperature=0.7, **SMALL), params, state)[0]


def test_the_teachers_schedule_ends_with_the_training():
    made = make_objective(ObjectiveConfig(name="byol", **SMALL), encoder(), augment=noisy, total_steps=10)
    params, state = started(made)
    _, last = made.after_update(jax.tree.map(jnp.zeros_like, params), state, 10)
    jax.tree.map(np.testing.assert_array_equal, last["teacher"], state["teacher"])


def test_an_objective_of_your_own_is_named_by_its_path():
    config = ObjectiveConfig(name="test_objective_config:own_objective", out=5)
    assert make_objective(config, encoder(), augment=noisy).init() == (5, noisy)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "simclear"}, r"unknown objective 'simclear' \(did you mean simclr\?\); there are: .*byol.*simclr"),
        ({"name": "no_such_module:objective"}, "cannot be loaded"),
    ],
)
def test_names_that_do_not_exist_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ObjectiveConfig(**settings)


@pytest.mark.parametrize("settings", [{"out": 0}, {"name": "moco", "queue": -4}])
def test_values_out_of_range_are_refused_by_the_objective(settings):
    with pytest.raises(ValueError, match=r"must be positive, got|must be at least 1"):
        make_objective(ObjectiveConfig(**settings), encoder(), augment=noisy)


def test_something_else_than_an_objective_is_refused():
    config = ObjectiveConfig(name="test_objective_config:not_an_objective")
    with pytest.raises(ValueError, match=r"returned int, wanted is a metarep_jax.types.Objective"):
        make_objective(config, encoder())


def test_neighbours_serve_any_objective_of_two_views_from_a_step_on():
    config = ObjectiveConfig(name="byol", **SMALL)
    made = make_objective(config, encoder(), augment=plain, neighbours=2, neighbours_after=5)
    plain_byol = byol(encoder(), augment=plain, **SMALL)
    params, state = started(plain_byol)
    batch = {**BATCH, "partner": BATCH["inputs"][::-1]}
    alone = loss_of(plain_byol, params, state)[0]
    assert loss_of(made, params, state, step=4, batch=batch)[0] == pytest.approx(float(alone), rel=1e-6)
    assert abs(float(loss_of(made, params, state, step=5, batch=batch)[0]) - float(alone)) > 0.01


@pytest.mark.parametrize("setting", [{"neighbours": 0}, {"neighbours": 2, "after": -1}])
def test_neighbours_out_of_range_are_refused(setting):
    with pytest.raises(ValueError, match="neighbours must be at least 1"):
        with_neighbours(simclr(encoder(), augment=noisy), **setting)
