"""An objective judged by what it says it can do, whoever wrote it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarep_jax.data import pool_of_arrays
from metarep_jax.evaluate.objective_judge import Pictures, draw_pictures, judge_objective, judge_rows
from metarep_jax.types import Judge, Objective

KEY = jax.random.key(0)
IMAGES = np.random.default_rng(0).uniform(size=(20, 4, 4, 1)).astype(np.float32)
LABELS = np.repeat(np.arange(5), 4).astype(np.int32)
POOL = pool_of_arrays(IMAGES, LABELS)


def factor(judge=None):
    """Loses its parameter times the mean of a batch; starts at 1."""

    def loss(params, state, batch, keys, step):
        return params * batch["inputs"].mean(), (state, {})

    return Objective(lambda *_: (jnp.float32(1.0), {}), loss, lambda *_: jnp.zeros(0), judge=judge)


def test_a_trained_objective_stands_beside_its_untrained_self():
    rows = judge_rows(factor(), 3.0, {}, train=POOL, test=POOL, key=KEY)
    assert rows["untrained"]["loss"].mean == pytest.approx(IMAGES.mean(), rel=1e-5)
    assert rows["pretrained"]["loss"].mean == pytest.approx(3 * IMAGES.mean(), rel=1e-5)
    assert rows.keys() == {"untrained", "pretrained"}


def test_bounds_of_a_judge_are_means_over_the_inputs():
    judge = Judge(bounds=lambda params, state, inputs, key: {"nats": params * inputs.sum((1, 2, 3))})
    report = judge_objective(factor(judge), 3.0, {}, train=POOL, test=POOL)
    assert report.rows["pretrained"]["nats"].mean == pytest.approx(3 * IMAGES.sum() / 20, rel=1e-5)
    assert report.rows["untrained"]["nats"].mean == pytest.approx(IMAGES.sum() / 20, rel=1e-5)
    assert report.pictures == Pictures() and report.words == []


def test_pictures_are_of_one_image_of_each_class():
    judge = Judge(
        reconstruct=lambda params, state, images, keys: {"original": images, "negative": 1 - images},
        interpolate=lambda params, state, first, second, steps: jnp.stack([first] * (steps - 1) + [second], axis=1),
        sample=lambda params, state, key, count, shape: jnp.full((count, *shape), 0.5),
    )
    pictures = draw_pictures(factor(judge), 1.0, {}, POOL, key=KEY)
    assert pictures.reconstructions is not None and pictures.interpolations is not None
    assert list(pictures.reconstructions) == ["original", "negative"]  # in the judge's order
    np.testing.assert_array_equal(pictures.reconstructions["original"], IMAGES[::4])
    first, between, second = pictures.interpolations
    np.testing.assert_array_equal(first, IMAGES[[0, 4]])
    np.testing.assert_array_equal(second, IMAGES[[8, 12]])
    np.testing.assert_array_equal(between[:, -1], second)
    assert pictures.samples is not None and pictures.samples.shape[1:] == (4, 4, 1)


def test_inputs_that_are_no_images_give_no_pictures():
    judge = Judge(reconstruct=lambda params, state, rows, keys: {"original": rows})
    rows = pool_of_arrays(IMAGES.reshape(20, -1), LABELS)
    assert draw_pictures(factor(judge), 1.0, {}, rows, key=KEY) == Pictures()


def test_an_objective_that_guesses_tokens_is_compared_with_their_frequencies():
    tokens = pool_of_arrays(np.full((4, 6), 7, np.int32), np.zeros(4, np.int32))
    rows = judge_rows(factor(Judge(guess=lambda *_: ())), 1.0, {}, train=tokens, test=tokens, key=KEY, vocabulary=9)
    assert rows["unigram"]["masked_accuracy"].mean == 100


def test_objectives_of_views_are_judged_in_batches_that_divide_those_they_were_trained_in():
    sizes = []

    def loss(params, state, batch, keys, step):
        sizes.append(len(batch["inputs"]))
        return batch["inputs"].mean(), (state, {})

    views = factor()._replace(loss=loss, needs=("views",))
    judge_rows(views, 1.0, {}, train=POOL, test=POOL, key=KEY, batch=48)
    assert set(sizes) == {16}  # of 20 rows
