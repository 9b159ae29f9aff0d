"""The README: its tables are those of the result files, and its code runs as printed."""

import dataclasses
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarep_jax.encoders import EncoderConfig, make_encoder
from metarep_jax.metalearn import LearnerConfig, make_learner
from metarep_jax.metalearn.meta_gradient import meta_gradient
from metarep_jax.model import Model, ModelSpec, save_model
from metarep_jax.report.readme import read_results, redrawn
from metarep_jax.report.results import make_result, write_result
from metarep_jax.types import Episode, Examples, Keys

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"


def trial(name="trial"):
    cells = {
        "meta_scratch": {"5w1s": {"mean": 90.0, "ci95": 0.3, "n": 600}},
        "meta_pretrained": {"5w1s": {"mean": 95.04, "ci95": 0.4, "n": 600}},
    }
    return make_result(name=name, command="c", config={}, protocol="p", seeds=[0], cells=cells, wall_clock_s=75)


def test_the_readme_agrees_with_the_result_files():
    text = README.read_text(encoding="utf-8")
    assert redrawn(text, read_results(ROOT / "experiments" / "results")) == text, "run python -m experiments.readme"


def test_drawing_replaces_what_is_between_markers_and_nothing_else():
    marked = "then <!-- value: trial / meta_pretrained / 5w1s -->?<!-- end -->."
    text = f"before\n<!-- table: trial -->\nold\n<!-- end table -->\n{marked}"
    drawn = redrawn(text, {"trial": trial()})
    assert drawn.startswith("before\n<!-- table: trial -->\n") and "old" not in drawn
    assert "| meta-learned after pretraining | **95.04 ± 0.40** |" in drawn
    assert drawn.endswith("5w1s -->95.0%<!-- end -->.")
    assert redrawn(drawn, {"trial": trial()}) == drawn


def test_differences_carry_the_interval_of_both():
    text = "<!-- value: trial / meta_pretrained minus meta_scratch / 5w1s --><!-- end -->"
    assert ">+5.0 ± 0.5 points<" in redrawn(text, {"trial": trial()})
    assert ">1 min 15 s<" in redrawn("<!-- value: trial / wall_clock --><!-- end -->", {"trial": trial()})


def test_what_was_not_measured_is_said_to_be_so():
    text = "<!-- table: none -->\n<!-- end table --> <!-- value: none / a / b -->7<!-- end -->"
    assert redrawn(text, {}).count("not measured yet") == 2
    assert "not measured yet" in redrawn("<!-- settings: none -->\n<!-- end settings -->", {})


def test_settings_are_drawn_between_their_markers():
    made = dataclasses.replace(trial(), config={"cells": {"maml": {"5w1s": {"steps": "10"}}}})
    drawn = redrawn("<!-- settings: trial -->\nold\n<!-- end settings -->", {"trial": made})
    assert "| MAML | 10 |" in drawn and "old" not in drawn
    assert redrawn(drawn, {"trial": made}) == drawn


@pytest.mark.parametrize("query", ["trial / nobody / 5w1s", "trial / meta_scratch / 9w9s", "trial / meta_scratch"])
def test_a_marker_for_what_a_result_lacks_is_an_error(query):
    with pytest.raises(ValueError, match="trial"):
        redrawn(f"<!-- value: {query} --><!-- end -->", {"trial": trial()})


def test_a_result_file_under_another_name_is_an_error(tmp_path):
    write_result(tmp_path / "other.json", trial())
    with pytest.raises(ValueError, match=r"trial\.json"):
        read_results(tmp_path)


def test_figures_that_the_readme_shows_are_there():
    for target in re.findall(r"!\[[^]]*\]\(([^)]+)\)", README.read_text(encoding="utf-8")):
        assert target.startswith("http") or (ROOT / target).is_file(), target


def test_links_inside_the_repository_lead_somewhere():
    for target in re.findall(r"(?<!!)\[[^]]*\]\(([^)#]+)\)", README.read_text(encoding="utf-8")):
        assert target.startswith("http") or (ROOT / target).exists(), target


def code_blocks():
    return re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def test_the_learner_printed_in_the_readme_learns(tmp_path, monkeypatch):
    code = next(block for block in code_blocks() if "def discriminant" in block)
    assert len([line for line in code.splitlines() if line.strip()]) <= 30
    (tmp_path / "discriminant.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    encoder = make_encoder(EncoderConfig(name="mlp", width=8))
    learner = make_learner(LearnerConfig(name="discriminant:discriminant", l2=0.1), encoder, way=2)
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 4, 4, 1), dtype=np.uint8)  # [class, task, image, ...]
    images[0] //= 2  # a darker class
    label = np.repeat(np.arange(2), 3)

    def half(first):
        rows = images[:, :, first : first + 3].swapaxes(0, 1).reshape(4, 6, 4, 4, 1)
        return Examples(jnp.asarray(rows), jnp.tile(label, (4, 1)))

    episodes = Episode(half(0), half(3))
    params, state = learner.init(jax.random.key(0), jax.tree.map(lambda leaf: leaf[0], episodes))
    keys = Keys(jax.random.split(jax.random.key(1), 4), jax.random.key(2))
    gradient = jax.jit(meta_gradient(learner))
    losses = []
    for _ in range(20):
        grads, state, metrics = gradient(params, state, episodes, keys, 0)
        params = jax.tree.map(lambda leaf, slope: leaf - 0.1 * slope, params, grads)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.9 * losses[0]


def test_the_use_of_a_model_printed_in_the_readme_runs(tmp_path, monkeypatch, capsys):
    code = next(block for block in code_blocks() if "metarep_jax.load" in block)
    encoder, learner = EncoderConfig(name="mlp", width=4), LearnerConfig(name="prototypical")
    images = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 1), dtype=np.uint8)
    variables = make_encoder(encoder).init(jax.random.key(0), jnp.asarray(images))
    model = Model(
        ModelSpec("learner", encoder, learner, (28, 28, 1)),
        {"encoder": variables["params"]},
        {"encoder": variables["batch_stats"]},
    )
    save_model(tmp_path / "runs" / "quickstart-glyphs" / "student", model)
    monkeypatch.chdir(tmp_path)
    exec(code, {"images": images, "support_images": images})
    assert capsys.readouterr().out.strip() == "['ka' 'ga' 'ka' 'ga']"
