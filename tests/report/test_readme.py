"""The README: its tables are those of the result files, and its code runs as printed."""

import re
from pathlib import Path

import pytest

from metarep_jax.report.readme import read_results, redrawn
from metarep_jax.report.results import make_result, write_result

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
