"""Figures: written whole, readable labels, and what they compute before they draw."""

import json
import warnings

import numpy as np
import pytest
from PIL import Image

from metarep_jax.report import figures
from metarep_jax.report.figures.canvas import printable, shortened, spread
from metarep_jax.report.figures.curves import _smoothed
from metarep_jax.report.figures.embedding import principal_components, project
from metarep_jax.report.figures.lines import halvings
from metarep_jax.report.figures.words import MISSED, RIGHT, WRONG, bars_of
from metarep_jax.report.results import difference
from metarep_jax.types import Episode, Examples

RANDOM = np.random.default_rng(0)


def size(path):
    with Image.open(path) as image:
        image.load()
        return image.size


@pytest.mark.parametrize("channels", [1, 3])
def test_views_take_bytes_and_floats_and_grow_by_the_row(tmp_path, channels):
    images = RANDOM.integers(0, 256, (4, 8, 8, channels), dtype=np.uint8)
    views = np.stack([images / 255.0] * 3, axis=1)
    figures.save_views(tmp_path / "four.png", images, views)
    figures.save_views(tmp_path / "two.png", images[:2], views[:2])
    (wide, tall), (as_wide, less) = size(tmp_path / "four.png"), size(tmp_path / "two.png")
    assert wide == as_wide and tall > less


def test_rows_of_images_have_room_for_their_names_and_pairs_for_the_way_between(tmp_path):
    images = RANDOM.random((3, 8, 8, 1))
    figures.save_reconstructions(tmp_path / "short.png", {"a": images, "b": images})
    figures.save_reconstructions(tmp_path / "long.png", {"original": images, "reconstruction": images})
    assert size(tmp_path / "long.png")[0] > size(tmp_path / "short.png")[0] + 80
    assert size(tmp_path / "long.png")[1] == size(tmp_path / "short.png")[1]
    for steps in (6, 9):
        figures.save_interpolations(tmp_path / f"{steps}.png", images, np.stack([images] * steps, axis=1), images)
    assert size(tmp_path / "9.png")[0] > size(tmp_path / "6.png")[0]


def test_a_gain_is_a_difference_with_the_interval_of_two_independent_numbers(tmp_path):
    cells = {
        "base": {"5w1s": {"mean": 89.0, "ci95": 0.3, "n": 9}},
        "queue": {"5w1s": {"mean": 84.5, "ci95": 0.4, "n": 9}},
        "views_8": {"5w1s": {"mean": 90.0, "ci95": None, "n": 9}},
    }
    assert difference(cells["queue"]["5w1s"], cells["base"]["5w1s"]) == pytest.approx((-4.5, 0.5))
    assert difference(cells["views_8"]["5w1s"], cells["base"]["5w1s"]) == pytest.approx((1.0, 0.3))
    figures.save_gains(tmp_path / "three.png", cells, base="base")
    figures.save_gains(tmp_path / "two.png", {row: cells[row] for row in ("base", "queue")}, base="base")
    assert size(tmp_path / "three.png")[1] > size(tmp_path / "two.png")[1]
    with pytest.raises(ValueError, match="no row 'best' to compare with; there are: base, queue, views_8"):
        figures.save_gains(tmp_path / "none.png", cells, base="best")


def test_samples_are_ten_a_row(tmp_path):
    for count in (10, 11, 20):
        figures.save_samples(tmp_path / f"{count}.png", RANDOM.random((count, 8, 8, 1)))
    ten, eleven, twenty = (size(tmp_path / f"{count}.png") for count in (10, 11, 20))
    assert ten[0] == eleven[0] and ten[1] < eleven[1] == twenty[1]


def test_an_episode_of_many_classes_stays_of_readable_size(tmp_path):
    label = np.arange(60)
    shown = Examples(RANDOM.random((60, 8, 8, 1)), label)
    figures.save_episode(tmp_path / "episode.png", Episode(shown, shown))
    assert max(size(tmp_path / "episode.png")) < 1600


def test_curves_skip_absent_files_and_cut_lines(tmp_path):
    file = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": step, "loss": 1.0 / step, "val_accuracy": 50.0}) for step in range(1, 60)]
    file.write_text("\n".join(lines) + '\n{"step": 60, "lo')
    figures.save_learning_curves(tmp_path / "curves.png", {"student": file, "absent": tmp_path / "none.jsonl"})
    figures.save_learning_curves(tmp_path / "empty.png", {"absent": tmp_path / "none.jsonl"})
    assert size(tmp_path / "curves.png")[0] > size(tmp_path / "empty.png")[0]


def test_smoothing_keeps_a_constant_and_a_line_in_the_middle():
    line = np.arange(300.0)
    np.testing.assert_allclose(_smoothed(np.full(300, 2.5)), 2.5)
    np.testing.assert_allclose(_smoothed(line)[10:-10], line[10:-10])


def test_principal_components_are_centred_uncorrelated_and_sorted_by_variance():
    found = principal_components(RANDOM.normal(size=(50, 6)) * np.arange(1, 7) + 3.0, 4)
    covariance = found.T @ found
    np.testing.assert_allclose(found.mean(0), 0.0, atol=1e-12)
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-9)
    assert (np.diff(np.diag(covariance)) < 0).all()


@pytest.mark.parametrize("shape", [(1, 3), (3, 1), (6, 4)])
def test_small_maps_have_two_dimensions_whatever_they_come_from(shape):
    assert project(RANDOM.normal(size=shape))[0].shape == (shape[0], 2)


def test_a_map_names_classes_in_any_script_without_warning(tmp_path):
    names = ["Greek α", "犬", "$x_1$", "a very long name of a class, of the kind that folders have/character12"]
    features, labels = RANDOM.normal(size=(12, 5)), np.repeat(np.arange(4), 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures.save_embedding_map(tmp_path / "map.png", features, labels, names)
    assert size(tmp_path / "map.png")[0] > 500


def test_characters_without_a_font_become_code_points_and_long_names_lose_their_middle():
    assert printable("a\U0010fffdЖ") == "aU+10FFFDЖ"
    short = shortened("Mkhedruli_(Georgian)/character03", 20)
    assert len(short) == 20 and short.startswith("Mkhedruli") and short.endswith("acter03") and "…" in short


def test_labels_are_spread_in_order_and_within_bounds():
    places = [0.5, 0.5, 0.51, 0.99, 0.0]
    moved = np.array(spread(places, 0.1, 0.0, 1.0))
    assert (np.diff(np.sort(moved)) >= 0.1 - 1e-6).all() and moved.min() >= 0 and moved.max() <= 1
    assert list(np.argsort(moved, kind="stable")) == list(np.argsort(places, kind="stable"))
    assert spread([0.2, 0.8], 0.1, 0.0, 1.0) == [0.2, 0.8]


def test_bars_give_each_row_its_space(tmp_path):
    def cells(rows):
        return {f"row{i}": {"5w1s": {"mean": 3.0 * i, "ci95": 1.0, "n": 10}} for i in range(rows)}

    figures.save_bars(tmp_path / "three.png", cells(3))
    figures.save_bars(tmp_path / "twenty.png", cells(20))
    assert size(tmp_path / "twenty.png")[1] - size(tmp_path / "three.png")[1] >= 17 * 30


def test_a_hidden_word_that_was_not_guessed_stands_below_the_guesses():
    right = figures.HiddenWord("my", "card", "is lost", [("bank", 0.5), ("card", 0.25)], 0.25)
    wrong = right._replace(truth="purse", of_truth=0.01)
    assert [bar[:2] for bar in bars_of(right)] == right.guesses
    assert [bar[2] for bar in bars_of(right)] == [WRONG, RIGHT]
    assert bars_of(wrong)[2] == ("purse", 0.01, MISSED) and len(bars_of(wrong)) == 3


def test_hidden_words_take_a_row_each(tmp_path):
    word = figures.HiddenWord("my " * 12, "card", "is lost " * 8, [("bank", 0.5), ("犬", 0.25)], 0.1)
    figures.save_masked_words(tmp_path / "three.png", [word] * 3)
    figures.save_masked_words(tmp_path / "one.png", [word])
    (wide, tall), (as_wide, less) = size(tmp_path / "three.png"), size(tmp_path / "one.png")
    assert wide == as_wide and tall > 2 * less


def test_lines_take_the_rows_that_have_every_column(tmp_path):
    """A row that is not finished leaves the figure as it is without it."""
    cell = {"mean": 90.0, "ci95": 1.0, "n": 10}
    whole = {"from_scratch": {"0 classes": cell, "10 classes": {**cell, "mean": 95.0}}}
    words = {"title": "accuracy", "xlabel": "classes"}
    figures.save_lines(tmp_path / "whole.png", whole, **words)
    figures.save_lines(tmp_path / "part.png", {**whole, "pretrained_first": {"0 classes": cell}}, **words)
    with Image.open(tmp_path / "whole.png") as one, Image.open(tmp_path / "part.png") as other:
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_halving_the_errors_goes_equally_far_up():
    np.testing.assert_allclose(halvings(np.array([96.0, 98.0, 99.0, 99.5, 100.0])), [-2, -1, 0, 1, np.log2(100)])


def test_a_slope_is_the_exponent_of_a_power_law(tmp_path):
    values = [1.0, 2.0, 4.0, 8.0]
    costs = [3 * value**1.5 for value in values]
    assert figures.log_slope(values, costs) == pytest.approx(1.5)
    with pytest.raises(ValueError, match="at least two points"):
        figures.log_slope([1.0], [2.0])
    with pytest.raises(ValueError, match="positive"):
        figures.log_slope([1.0, 2.0], [0.0, 2.0])
    line = (values, costs)
    figures.save_scaling(tmp_path / "one.png", {"ms": {"batch": line}})
    figures.save_scaling(tmp_path / "two.png", {"ms": {"batch": line, "tasks": ([8.0], [2.0])}, "MB": {"batch": line}})
    assert size(tmp_path / "two.png")[0] > size(tmp_path / "one.png")[0]
