"""Objectives by name, with the settings that they take; neighbours for any objective of two views."""

import inspect
from typing import Literal, get_args, get_origin

import jax
import numpy as np
import pytest
from objective_checks import BATCH, SIZE, encoder, loss_of, noisy, plain, started

from metarep_jax.choices import REQUIRED, is_callable_type, parts_of
from metarep_jax.encoders.sequences import ContextEncoder
from metarep_jax.encoders.transformer import TextTransformer
from metarep_jax.encoders.vision_transformer import VisionTransformer
from metarep_jax.encoders.waveform import WaveformFrames
from metarep_jax.pretrain import (
    OBJECTIVES,
    ObjectiveConfig,
    byol,
    is_judged_alone,
    make_objective,
    simclr,
    with_neighbours,
)
from metarep_jax.types import Judge, Objective

SMALL = {"hidden": 6, "out": 4}


def own_objective(encoder, *, augment, out=3):
    """A user's objective that takes some of the settings."""
    return Objective(lambda *_: (out, augment), lambda *_: None, lambda *_: None)


def needy_objective(encoder):
    return own_objective(encoder, augment=None)._replace(needs=("money",))


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
    _, last = jax.jit(made.after_update)(jax.tree.map(np.zeros_like, params), state, 10)
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
    batch = {**BATCH, "partner": np.asarray(BATCH["inputs"])[::-1]}
    alone = loss_of(plain_byol, params, state)[0]
    assert loss_of(made, params, state, step=4, batch=batch)[0] == pytest.approx(float(alone), rel=1e-6)
    assert abs(float(loss_of(made, params, state, step=5, batch=batch)[0]) - float(alone)) > 0.01


@pytest.mark.parametrize("setting", [{"neighbours": 0}, {"neighbours": 2, "after": -1}])
def test_neighbours_out_of_range_are_refused(setting):
    with pytest.raises(ValueError, match="neighbours must be at least 1"):
        with_neighbours(simclr(encoder(), augment=noisy), **setting)


ENCODERS = {
    "mae": VisionTransformer(patch=2, width=8, depth=1, heads=2),
    "masked_lm": TextTransformer(20, width=8, depth=1, heads=2, longest=8),
    "cpc": ContextEncoder(WaveformFrames(4, (2, 2)), context=3),
}


def build(name, **settings):
    takes = inspect.signature(OBJECTIVES[name]).parameters
    views = {"augment": noisy} if "augment" in takes else {}
    factory = inspect.unwrap(OBJECTIVES[name])  # as without the tests' own check of types
    return factory(ENCODERS.get(name, encoder()), **views, **settings)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_setting_has_a_plain_type_a_default_and_a_line_of_help(name):
    for setting in ObjectiveConfig.settings_of(name).values():
        assert setting.help, setting.name
        assert setting.default is not REQUIRED
        plain = {bool, int, float, str, type(None)}
        parts = {part for part in parts_of(setting.type) if not is_callable_type(part)}
        texts = {arg for part in parts if get_origin(part) is Literal for arg in get_args(part)}
        tuples = {part for part in parts if get_origin(part) is tuple}
        literals = {part for part in parts if get_origin(part) is Literal}
        assert parts - literals - tuples <= plain and all(isinstance(text, str) for text in texts), setting


AT_LEAST_ONE = ("hidden", "out", "bottleneck", "queue", "groups", "shot", "prototypes", "iterations", "latent")
POSITIVE = ("temperature", "task_temperature", "teacher_temperature", "epsilon", "off_diagonal", "std")
POSITIVE += ("invariance", "variance", "covariance", "decoder_width", "decoder_depth", "decoder_heads", *AT_LEAST_ONE)
NOT_NEGATIVE = ("noise", "beta", "free_bits", "freeze_steps", "local_crops")
WRONG = {
    **dict.fromkeys(POSITIVE, (0, "must be positive, got 0")),
    **dict.fromkeys(NOT_NEGATIVE, (-1, "must not be negative, got -1")),
    "momentum": (1.0, r"must be in \[0, 1\), got 1.0"),
    "centre_momentum": (-0.1, r"must be in \[0, 1\), got -0.1"),
    "drop": (1.0, r"must be in \[0, 1\), got 1.0"),
    "share": (0.0, "must lie between 0 and 1, got 0.0"),
    "mask_ratio": (1.0, "must lie between 0 and 1, got 1.0"),
    "ahead": ((0,), "must name places of at least 1"),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_number_out_of_range_is_refused_with_the_objectives_and_the_settings_name(name):
    anything = {"binarise", "normalise", "halve_variance", "local_augment", "likelihood", "negatives"}
    settings = ObjectiveConfig.settings_of(name)
    for keyword in set(settings) - anything:
        value, sentence = WRONG[keyword]
        value = float(value) if settings[keyword].type is float else value
        owner = name.removeprefix("denoising_")
        with pytest.raises(ValueError, match=f"^{owner}: {keyword} {sentence}"):
            build(name, **{keyword: value})


@pytest.mark.parametrize(("name", "settings"), [("vae", {"likelihood": "poisson"}), ("cpc", {"negatives": "batch"})])
def test_unknown_words_are_refused_with_those_that_there_are(name, settings):
    with pytest.raises(ValueError, match=f"{name}: unknown .* there are: "):
        build(name, **settings)


@pytest.mark.parametrize("name", ["simclr", "supcon", "barlow", "vicreg", "byol", "moco_v3", "simsiam", "psco"])
def test_a_batch_of_one_is_refused_where_rows_are_compared_or_normalised(name):
    batch = jax.tree.map(lambda leaf: np.asarray(leaf)[:1], BATCH)
    with pytest.raises(ValueError, match=f"{name}: a batch must have at least 2 rows, since .*; got a batch of 1"):
        jax.eval_shape(build(name, **SMALL).init, jax.random.key(0), batch)


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        ("moco", {"queue": SIZE + 1}, f"queue of {SIZE + 1} embeddings cannot be filled by batches of {SIZE}"),
        ("moco", {"queue": SIZE, "groups": 5}, f"5 groups .* global batch of {SIZE}"),
        ("psco", {"queue": SIZE - 1}, f"queue of {SIZE - 1} embeddings"),
        ("swav", {"prototypes": SIZE + 1}, f"take at most {SIZE} prototypes or a larger batch"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused_before_the_first_step(name, settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        jax.eval_shape(build(name, **SMALL, **settings).init, jax.random.key(0), BATCH)


def test_an_objective_says_what_it_needs_and_one_of_your_own_that_takes_views_need_not():
    assert build("simclr").needs == ("views",)
    assert build("supcon").needs == ("views", "classmates")
    assert build("autoencoder").needs == build("rotation").needs == ()
    config = ObjectiveConfig("test_objective_config:own_objective")
    assert make_objective(config, encoder(), augment=noisy).needs == ("views",)


def test_an_unknown_need_is_refused():
    config = ObjectiveConfig("test_objective_config:needy_objective")
    with pytest.raises(ValueError, match="needs money; known needs: views, classmates"):
        make_objective(config, encoder())


@pytest.mark.parametrize("name", ["simclr", "test_objective_config:own_objective"])
def test_objectives_of_views_are_refused_where_there_are_none(name):
    with pytest.raises(ValueError, match=f"{name} needs views of images, and these inputs have none"):
        make_objective(ObjectiveConfig(name), encoder())


@pytest.mark.parametrize("name", ["supcon", "autoencoder", "rotation"])
def test_neighbours_are_refused_where_no_view_is_free_for_them(name):
    with pytest.raises(ValueError, match=f"{name} has none or takes labels for it; leave neighbours at 0"):
        make_objective(ObjectiveConfig(name), encoder(), augment=noisy, neighbours=2)


def test_a_loss_of_two_views_is_not_judged_alone_unless_the_objective_has_a_judge():
    assert not is_judged_alone(build("byol"))
    assert is_judged_alone(build("rotation")) and is_judged_alone(build("vae"))
    assert is_judged_alone(build("byol")._replace(judge=Judge()))
