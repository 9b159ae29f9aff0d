"""The pages: their tables are those of the result files, and what they link to is there."""

import dataclasses
import re

import pytest

from experiments.readme import PAGES, ROOT, main
from metarep_jax.report.readme import read_results, redrawn
from metarep_jax.report.results import make_result, write_result

RESULTS = ROOT / "experiments" / "results"
IDS = [str(page.relative_to(ROOT)) for page in PAGES]


def trial(name="trial"):
    cells = {
        "meta_scratch": {"5w1s": {"mean": 90.0, "ci95": 0.3, "n": 600}},
        "meta_pretrained": {"5w1s": {"mean": 95.04, "ci95": 0.4, "n": 600}},
    }
    return make_result(name=name, command="c", config={}, protocol="p", seeds=[0], cells=cells, wall_clock_s=75)


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_pages_agree_with_the_result_files(page):
    text = page.read_text(encoding="utf-8")
    assert redrawn(text, read_results(RESULTS)) == text, "run python -m experiments.readme"


def test_the_readme_lets_people_in():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


def test_every_result_file_is_shown_on_a_page():
    shown = set(re.findall(r"<!-- (?:table|value): (\w+)", "".join(page.read_text(encoding="utf-8") for page in PAGES)))
    assert shown == set(read_results(RESULTS))


def test_drawing_names_the_pages_that_it_changes_and_with_check_changes_none(tmp_path, capsys):
    write_result(tmp_path / "trial.json", trial())
    page = tmp_path / "page.md"
    page.write_text("<!-- value: trial / meta_pretrained / 5w1s --><!-- end -->")
    with pytest.raises(SystemExit, match=r"page\.md"):
        main((page,), tmp_path, check=True)
    assert "95.0%" not in page.read_text()
    main((page,), tmp_path)
    assert "95.0%" in page.read_text() and "page.md" in capsys.readouterr().out
    main((page,), tmp_path, check=True)


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


def test_an_overview_has_a_line_a_result():
    spec = "trial | a trial | meta_pretrained / 5w1s | page.md#trial\nnone | to come | a / b | page.md"
    lines = redrawn(f"<!-- overview\n{spec}\n-->\nold\n<!-- end overview -->", {"trial": trial()}).splitlines()
    assert "old" not in lines
    (line,) = [line for line in lines if line.startswith("| a trial")]
    assert "`c`" in line and "1 min 15 s" in line and "[details](page.md#trial)" in line
    assert "meta-learned after pretraining, 5-way 1-shot: 95.04 ± 0.40" in line
    assert "not measured yet" in "\n".join(line for line in lines if line.startswith("| to come"))


def test_a_grid_picks_its_cells_out_of_many_results():
    rows = "ways | trial / meta_pretrained / 5w1s | none / a / b\nlast | trial / meta_scratch / 5w1s |"
    spec = f"what | ours | theirs\n{rows}"
    drawn = redrawn(f"<!-- grid\n{spec}\n-->\nold\n<!-- end grid -->", {"trial": trial()})
    lines = drawn.splitlines()
    assert "| what | ours | theirs |" in lines and "old" not in lines
    assert "| ways | 95.04 ± 0.40 | not measured yet |" in lines
    assert "| last | 90.00 ± 0.30 |  |" in lines
    assert redrawn(drawn, {"trial": trial()}) == drawn
    with pytest.raises(ValueError, match="'ways' has 1 cells, the table's columns are what, ours, theirs"):
        redrawn("<!-- grid\nwhat | ours | theirs\nways | \n-->\n<!-- end grid -->", {})


@pytest.mark.parametrize(
    ("line", "says"), [("trial | only", "NAME | what"), ("trial | w | nobody | l", "ROW / COLUMN")]
)
def test_a_line_of_an_overview_of_another_form_is_an_error(line, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        redrawn(f"<!-- overview\n{line}\n-->\n<!-- end overview -->", {"trial": trial()})


def test_a_result_file_under_another_name_is_an_error(tmp_path):
    write_result(tmp_path / "other.json", trial())
    with pytest.raises(ValueError, match=r"trial\.json"):
        read_results(tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_and_figures_inside_the_repository_lead_somewhere(page):
    for target in re.findall(r"\[[^]]*\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        place, _, anchor = target.partition("#")
        if place.startswith("http"):
            continue
        file = page.parent / place if place else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), target


def anchors(text):
    """Those of a page's headings: small letters, without punctuation, and hyphens for spaces."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
