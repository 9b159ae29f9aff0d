"""A training goes on with more steps, and knows what it was trained on."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from metarep_jax.train import FitConfig, OptimiserConfig, TrainingDiverged, fit
from metarep_jax.train.storage.checkpoints import Checkpoints
from metarep_jax.types import Feed, Trainable

SHORT = FitConfig(batch_size=tiny.SIZE, log_every=2, checkpoint_every=2, progress=False, tensorboard=False)
SGD = OptimiserConfig(name="sgd", learning_rate=8.0)
NO_STEP = "a finished training takes no step"


def moving(fail_at=None):
    """One weight that every step moves by its learning rate: its gradient is 1."""

    def grads(params, state, batch, keys, step):
        loss = jnp.sum(batch) if fail_at is None else jnp.where(step == fail_at - 1, jnp.nan, jnp.sum(batch))
        return jax.tree.map(jnp.ones_like, params), state, {"loss": loss}

    return Trainable(lambda key, batch: ({"w": jnp.zeros(())}, {}), grads)


def train(folder, steps, trainable=None, feed=None, optimiser=SGD, on_more_steps="stretch", select=None, **more):
    feed = feed or Feed(
        tiny.SIZE, jnp.zeros(tiny.SIZE), lambda pool, root, step, shard, shards: pool[: tiny.SIZE // shards]
    )
    config = FitConfig(**{**vars(SHORT), "steps": steps, "on_more_steps": on_more_steps} | more.pop("config", {}))
    settings = {"optimiser": optimiser, "config": config, "seed": 0, "folder": folder, "devices": jax.devices()[:1]}
    return fit(trainable or moving(), feed, select=select, **settings, **more)


def test_four_steps_and_four_more_are_eight_bit_by_bit(tmp_path):
    """A refresh that is due after the fourth, and was none while that was the last, is made up for."""

    def run(folder, steps):
        return train(folder, steps, tiny.trainable(), tiny.feed(), tiny.OPTIMISER_CONSTANT, config={"refresh_every": 2})

    whole = run(tmp_path / "whole", 8)
    assert run(tmp_path / "parts", 4).step == 4
    longer = run(tmp_path / "parts", 8)
    assert longer.step == 8
    jax.tree.map(np.testing.assert_array_equal, (longer.params, longer.state), (whole.params, whole.state))
    lines = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "parts")]
    assert lines[0] == lines[1]


@pytest.mark.parametrize(
    ("schedule", "on_more_steps", "rates"),
    [
        ("linear", "stretch", [8, 6, 4, 2, 4, 3, 2, 1]),
        ("halving", "stretch", [8, 8, 4, 4, 2, 2, 1, 1]),
        ("halving", "hold", [8, 8, 4, 4, 2, 2, 2, 2]),
    ],
)
def test_the_schedule_is_stretched_or_held(tmp_path, caplog, schedule, on_more_steps, rates):
    optimiser = OptimiserConfig(name="sgd", learning_rate=8.0, schedule=schedule, halve_every=2)
    assert train(tmp_path, 4, optimiser=optimiser).params["w"] == -sum(rates[:4])
    with caplog.at_level(logging.INFO):
        with pytest.raises(TrainingDiverged):  # interrupted after step 6
            train(tmp_path, 8, moving(fail_at=7), optimiser=optimiser, on_more_steps=on_more_steps)
        found = train(tmp_path, 8, optimiser=optimiser, on_more_steps=on_more_steps)
    assert found.params["w"] == -sum(rates)
    length = 4 if on_more_steps == "hold" else 8
    assert caplog.text.count(f"begun with 4 steps, now 8; the {schedule} schedule is that of {length} steps") == 1
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        settings = checkpoints._read_meta(8)["given"]["settings"]
    assert settings["course"]["history"] == [{"steps": 4, "done": 4, "now": 8, "schedule": on_more_steps}]
    assert settings["course"]["schedule_steps"] == length


def test_a_rate_of_zero_is_not_held(tmp_path):
    cosine = OptimiserConfig(name="sgd", schedule="cosine")
    train(tmp_path, 2, optimiser=cosine)
    with pytest.raises(ValueError, match=r"cosine schedule ends at zero after 2 steps: .* --….train.on-more-steps str"):
        train(tmp_path, 4, optimiser=cosine, on_more_steps="hold")


def test_fewer_steps_than_were_done_are_refused(tmp_path):
    train(tmp_path, 4)
    with pytest.raises(ValueError, match=r"has done 4 steps of 4, 3 are fewer; give --….train.steps 4 or more"):
        train(tmp_path, 3)
    assert train(tmp_path, 4).step == 4


def test_an_interrupted_training_may_end_earlier(tmp_path):
    with pytest.raises(TrainingDiverged):
        train(tmp_path, 8, moving(fail_at=3))
    assert train(tmp_path, 4).params["w"] == -32


def test_a_finished_training_is_its_checkpoint_without_a_step(tmp_path):
    """So that a model that was damaged on disk is written again in no time."""

    def none(*args):
        raise AssertionError(NO_STEP)

    def validate(params, state, step):
        return {"val": -abs(step - 2.0)}

    best = train(tmp_path / "best", 6, validate=validate, select="val", config={"validate_every": 2})
    last = train(tmp_path / "last", 6)
    again = moving()._replace(grads=none)
    found = train(tmp_path / "best", 6, again, validate=none, select="val", config={"validate_every": 2})
    assert (found.step, found.params["w"], found.metrics) == (2, -16, best.metrics)
    found = train(tmp_path / "last", 6, again)
    assert (found.step, found.params["w"], found.metrics) == (6, -48, last.metrics)


def test_what_is_shown_kept_and_validated_for_show_blocks_no_resume(tmp_path):
    with pytest.raises(TrainingDiverged):
        train(tmp_path, 6, moving(fail_at=5))
    free = {"log_every": 3, "checkpoint_every": 1, "keep": 4, "steps_per_dispatch": 2, "progress": True}
    found = train(tmp_path, 6, validate=lambda *rest: {"val": 0.0}, config=free | {"validate_every": 3})
    assert (found.step, found.params["w"]) == (6, -48)


def test_a_refresh_rhythm_that_follows_the_checkpoints_blocks_it(tmp_path):
    constant = {"trainable": tiny.trainable(), "feed": tiny.feed()}
    train(tmp_path, 2, **constant)
    with pytest.raises(ValueError, match=r"another config \(fit\.refresh_every: 2 before, 1 now\)"):
        train(tmp_path, 2, **constant, config={"checkpoint_every": 1})


def test_other_data_under_a_training_are_refused_with_both_named(tmp_path):
    birds, cats = ({"data": {"name": name, "digest": name * 9}} for name in ("birds", "cats"))
    train(tmp_path, 2, inputs=birds)
    message = r"the checkpoint .*2 was begun on data birds \(digest birds.*\), now there is data cats \(digest catsc"
    with pytest.raises(ValueError, match=message):
        train(tmp_path, 4, inputs=cats)
    train(tmp_path, 4, inputs=birds)
