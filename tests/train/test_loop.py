"""What the loop computes: accumulation, averages, seeds, streams, selection; and what it refuses."""

import dataclasses
import logging
import re
import time

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from metarep_jax.train import FitConfig, OptimiserConfig, TrainingDiverged, fit, read_lines
from metarep_jax.types import Feed

SHORT = FitConfig(steps=6, batch_size=tiny.SIZE, log_every=2, progress=False, tensorboard=False)
ADAM = OptimiserConfig(name="adam", learning_rate=0.01)


def run(
    folder, devices=1, feed=None, optimiser=ADAM, seed=0, validate=None, select=None, warn=None, nan_at=None, **set
):
    """A short run without refreshes."""
    return fit(
        tiny.trainable(nan_at, refreshed=False),
        feed or tiny.feed(),
        optimiser=optimiser,
        config=dataclasses.replace(SHORT, **set),
        seed=seed,
        folder=folder,
        validate=validate,
        select=select,
        warn=warn,
        devices=jax.devices()[:devices],
    )


def assert_close(one, other, rtol=1e-5, atol=1e-6):
    chex.assert_trees_all_close(one, other, rtol=rtol, atol=atol)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return run(tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize(("devices", "accumulate"), [(1, 4), (4, 2), (8, 1)])
def test_micro_batches_and_devices_compute_what_one_large_batch_does(plain, tmp_path, devices, accumulate):
    found = run(tmp_path, devices, accumulate=accumulate)
    assert_close(found.params, plain.params)
    assert found.metrics == pytest.approx(plain.metrics, rel=1e-4)


def test_averaged_weights_follow_their_closed_form_and_are_what_is_validated(plain, tmp_path):
    """The average after n updates: decay^n times the first weights, and (1 - decay) decay^(n-1-i) times the i-th."""
    decay, n, history, seen = 0.75, SHORT.steps, [], []
    run(tmp_path / "plain", validate=lambda params, *rest: history.append(params) or {"val": 0.0}, validate_every=1)
    start = tiny.trainable().init(*first_key_and_batch())[0]
    weights = [decay**n, *((1 - decay) * decay ** (n - 1 - i) for i in range(n))]
    wanted = jax.tree.map(lambda *leaves: sum(w * leaf for w, leaf in zip(weights, leaves)), start, *history)
    averaged = run(
        tmp_path / "averaged", average_decay=decay, validate=lambda params, *rest: seen.append(params) or {"val": 0.0}
    )
    assert_close(averaged.params, wanted)
    assert_close(seen[-1], averaged.params, rtol=0, atol=0)
    assert_close(history[-1], plain.params, rtol=0, atol=0)


def first_key_and_batch(seed=0):
    root = jax.random.split(jax.random.key(seed), 3)
    feed = tiny.feed()
    return root[0], feed.draw(feed.pool, root[1], 0, 0, 1)


def test_seeds_side_by_side_are_runs_of_their_own(plain, tmp_path):
    def validate(params, state, step):
        return {"val": jnp.sum(params["bias"])}

    both = run(tmp_path / "both", seeds=2, seed=0, validate=validate, devices=2)
    apart = [plain, run(tmp_path / "one", seed=1, validate=validate)]
    for i, alone in enumerate(apart):
        one = jax.tree.map(lambda leaf: leaf[i], (both.params, both.state))  # noqa: B023
        assert_close(one, (alone.params, alone.state))
        assert both.metrics[f"loss/seed{i}"] == pytest.approx(alone.metrics["loss"], rel=1e-4)
    assert both.metrics["val/seed1"] == pytest.approx(apart[1].metrics["val"], rel=1e-4)
    assert both.metrics["loss"] == pytest.approx(np.mean([alone.metrics["loss"] for alone in apart]), rel=1e-4)


def test_clipping_bounds_the_step_and_the_metrics_show_the_whole_gradient(plain, tmp_path):
    start = tiny.trainable().init(*first_key_and_batch())[0]
    clipped = run(tmp_path, optimiser=OptimiserConfig(name="sgd", learning_rate=1.0, clip_norm=0.01), steps=1)
    moved = jnp.sqrt(sum(jnp.sum((a - b) ** 2) for a, b in zip(*map(jax.tree.leaves, (clipped.params, start)))))
    assert moved == pytest.approx(0.01, rel=1e-3)
    assert clipped.metrics["gradient_norm"] > 0.1


def test_the_best_by_the_validation_metric_is_returned_else_the_last(plain, tmp_path):
    def validate(params, state, step):
        return {"val": -abs(step - 2.0)}

    best = run(tmp_path / "best", validate=validate, select="val", validate_every=2)
    assert (best.step, best.metrics["val"]) == (2, 0.0)
    assert_close(best.params, run(tmp_path / "two", steps=2, optimiser=ADAM).params, rtol=0, atol=0)
    last = run(tmp_path / "last", validate=validate, validate_every=2)
    assert (last.step, last.metrics["val"]) == (6, -4.0)
    assert_close(last.params, plain.params, rtol=0, atol=0)


def test_metrics_are_means_over_the_steps_of_a_line(tmp_path):
    run(tmp_path / "each", log_every=1)
    run(tmp_path / "pairs", log_every=4, checkpoint_every=3)
    each = [line["loss"] for line in read_lines(tmp_path / "each" / "metrics.jsonl")]
    pairs = [(line["step"], line["loss"]) for line in read_lines(tmp_path / "pairs" / "metrics.jsonl")]
    assert pairs == [(4, np.mean(each[:4])), (6, np.mean(each[4:]))]


class Stream:
    """The pool's own batches, as a host reader that remembers where it stands."""

    advice = "let it sleep less"

    def __init__(self, seed=0, fail_at=None, seconds=0.0):
        self.at, self.feed, self.fail_at, self.seconds = 0, tiny.feed(), fail_at, seconds
        self.root = jax.random.split(jax.random.key(seed), 3)[1]
        self.draw = jax.jit(lambda step: self.feed.draw(self.feed.pool, self.root, step, 0, 1))

    def __iter__(self):
        return self

    def __next__(self):
        if self.fail_at is not None and self.at >= self.fail_at:
            raise OSError(f"image {self.at}.png is truncated")
        time.sleep(self.seconds)
        self.at += 1
        return jax.device_get(self.draw(self.at - 1))

    def get_state(self):
        return str(self.at).encode()

    def set_state(self, state):
        self.at = int(state)


def test_a_stream_of_the_same_batches_trains_as_the_pool_does(plain, tmp_path):
    feed = Feed(tiny.SIZE, None, reader=Stream())
    assert_close(run(tmp_path, devices=2, feed=feed, accumulate=2).params, plain.params)


def test_a_stream_goes_on_from_the_last_batch_used_and_not_the_last_read(plain, tmp_path):
    with pytest.raises(TrainingDiverged):
        run(tmp_path, feed=Feed(tiny.SIZE, None, reader=Stream()), checkpoint_every=2, nan_at=4)
    resumed = run(tmp_path, feed=Feed(tiny.SIZE, None, reader=Stream()), checkpoint_every=2)
    assert_close(resumed.params, plain.params)


def test_a_run_whose_reader_is_slow_says_how_long_its_devices_wait(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        shown = {"steps": 16, "log_every": 4, "progress": True, "tensorboard": True}
        run(tmp_path, feed=Feed(tiny.SIZE, None, reader=Stream(seconds=0.05)), **shown)
    shares = [line.get("waiting_share", 0.0) for line in read_lines(tmp_path / "timing.jsonl")]
    assert len(shares) == 4 and all(0 <= share <= 1 for share in shares) and max(shares) > 0.8
    assert re.search(r"the devices wait for data \d+% of the time; let it sleep less", caplog.text)
    assert re.search(r"train: step 16 of 16, .*; loss .*, waits for data \d+%", caplog.text)
    [events] = (tmp_path / "tensorboard").iterdir()
    assert b"timing/waiting_share" in events.read_bytes()
    assert "waiting" not in (tmp_path / "metrics.jsonl").read_text()  # no two runs agree on it


def test_an_error_of_the_reader_is_raised_where_it_matters(tmp_path):
    with pytest.raises(OSError, match=r"image 3\.png is truncated"):
        run(tmp_path, feed=Feed(tiny.SIZE, None, reader=Stream(fail_at=3)))


def test_a_loss_that_is_not_a_number_names_its_step_with_several_seeds_too(tmp_path):
    with pytest.raises(TrainingDiverged, match="the loss is not finite at step 5") as raised:
        run(tmp_path, nan_at=5, seeds=2)
    assert raised.value.step == 5


def test_each_step_is_compiled_once(tmp_path, caplog):
    """After the first dispatch nothing is compiled, whatever the length of the others and whatever comes between."""
    counts = []

    def count(params, state, step):
        counts.append(caplog.text.count("Finished XLA compilation"))
        return {"val": float(step)}

    jax.config.update("jax_log_compiles", True)
    try:
        with caplog.at_level(logging.WARNING):
            run(tmp_path, 2, steps=9, steps_per_dispatch=4, checkpoint_every=3, validate=count, validate_every=1)
            run(tmp_path / "long", 2, steps=9, steps_per_dispatch=4, checkpoint_every=3, validate=count)
    finally:
        jax.config.update("jax_log_compiles", False)
    assert counts[0] > 0
    assert counts[:9] == [counts[0]] * 9
    assert counts[9] <= 2 * counts[0]


def test_a_steps_gradient_is_traced_once_whatever_its_dispatches(tmp_path):
    chex.clear_trace_counter()
    trainable = tiny.trainable(refreshed=False)
    once = trainable._replace(grads=chex.assert_max_traces(trainable.grads, n=1))
    config = dataclasses.replace(SHORT, steps=9, steps_per_dispatch=4, checkpoint_every=3, accumulate=2)
    fit(once, tiny.feed(), optimiser=ADAM, config=config, seed=0, folder=tmp_path, devices=jax.devices()[:2])


def test_gradients_that_are_not_the_parameters_tree_are_refused(tmp_path):
    trainable = tiny.trainable(refreshed=False)

    def grads(*args):
        found, state, metrics = trainable.grads(*args)
        return {"first": found["first"]}, state, metrics

    with pytest.raises(AssertionError, match="trees 0 and 1 do not match"):
        fit(
            trainable._replace(grads=grads), tiny.feed(), optimiser=ADAM, config=SHORT, seed=0, folder=tmp_path,
            devices=jax.devices()[:1],
        )  # fmt: skip


def test_what_a_run_shows_and_leaves(plain, tmp_path, caplog):
    """A warning once while it lasts, a line of the log outside a terminal, TensorBoard's events, and a profile."""
    with caplog.at_level(logging.INFO):
        shown = {"progress": True, "tensorboard": True, "profile": True}
        run(tmp_path, warn=lambda metrics: "the embeddings collapse", steps_per_dispatch=2, **shown)
    assert caplog.text.count("the embeddings collapse") == 1
    assert re.search(r"train: step 6 of 6, .* steps/s; loss \d", caplog.text)
    [events] = (tmp_path / "tensorboard").iterdir()
    assert b"gradient_norm" in events.read_bytes()
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
    steps = [line["step"] for line in read_lines(tmp_path / "timing.jsonl")]
    assert steps == [line["step"] for line in read_lines(tmp_path / "metrics.jsonl")] == [2, 4, 6]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"devices": 3}, "global batch of 8 does not divide over 3 devices; take a multiple of 3"),
        ({"accumulate": 3}, "does not divide over 1 devices times 3 accumulated micro-batches"),
        ({"batch_size": 16}, r"feed gives batches of 8 rows, FitConfig\.batch_size is 16"),
        ({"seed": -1}, "seed must not be negative, got -1"),
        ({"feed": Feed(tiny.SIZE, None)}, "needs a draw .* or a reader"),
        ({"optimiser": OptimiserConfig(schedule="cosine", warmup_steps=6)}, "warm-up of 6 steps must be shorter"),
    ],
)
def test_what_cannot_be_trained_is_refused_and_leaves_no_folder(tmp_path, changed, message):
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "run", **changed)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0), ("batch_size", -4), ("accumulate", 0), ("seeds", 0), ("log_every", 0), ("checkpoint_every", 0),
        ("keep", 0), ("steps_per_dispatch", 0), ("validate_every", -1), ("refresh_every", -1), ("average_decay", 1.0),
        ("average_decay", -0.1),
    ],
)  # fmt: skip
def test_sizes_and_rates_out_of_range_are_refused(field, value):
    with pytest.raises(ValueError, match=rf"FitConfig\.{field} must be .*, got {value}"):
        dataclasses.replace(SHORT, **{field: value})


def test_a_refreshed_pool_is_one_seed_on_the_device(tmp_path):
    with pytest.raises(ValueError, match="trains one seed"):
        tiny.train(tmp_path, dataclasses.replace(tiny.CONFIG, seeds=2))


def test_a_metric_to_select_by_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match="select='accuracy', but validate gives val"):
        run(tmp_path, validate=lambda params, state, step: {"val": 1.0}, select="accuracy")
