"""Numbers as tables print them, and which rows and columns stand where."""

import dataclasses
import io

import pytest
from rich.console import Console

from metarep_jax.report.how_made import facts_table, settings_table
from metarep_jax.report.labels import cell_text, chance, column_label, columns_of, main_and_modes, number, row_label
from metarep_jax.report.markdown import write_report
from metarep_jax.report.published import shortfall, standing
from metarep_jax.report.results import make_result
from metarep_jax.report.tables import caption, duration, markdown_table, terminal_table


def cell(mean, ci95=0.25, n=600):
    return {"mean": mean, "ci95": ci95, "n": n}


CELLS = {
    "untrained": {"5w1s": cell(40.0), "parameters": cell(112345.0, None, 1), "20w1s": cell(12.5)},
    "student": {"5w1s": cell(98.125), "parameters": cell(9821.0, None, 1)},
    "student (one_query)": {"5w1s": cell(99.5)},
}


def result(cells=CELLS):
    return make_result(
        name="trial",
        command="python -m trial",
        config={},
        protocol="p: [brackets]",
        seeds=[3],
        cells=cells,
        wall_clock_s=75,
    )


@pytest.mark.parametrize(
    ("value", "column", "text"),
    [
        (98.125, "5w1s", "98.12"),
        (100.0, "5w1s", "100.0"),
        (112345.4, "parameters", "112,345"),
        (1234.5, "ms", "1,234"),
        (0.5, "", "0.50"),
    ],
)
def test_numbers_have_the_decimals_that_their_size_bears(value, column, text):
    assert number(value, column) == text


def test_a_cell_shows_its_interval_with_the_decimals_of_its_mean():
    assert cell_text(cell(98.1, 0.25), "5w1s") == "98.10 ± 0.25"
    assert cell_text(cell(129.34, 1.26), "ms") == "129.3 ± 1.3"
    assert cell_text(cell(3.0, None), "ratio") == "3.00"
    assert cell_text(None, "5w1s") == "–"


def test_names_become_words():
    assert column_label("20w5s") == "20-way 5-shot"
    assert row_label("student (one_query)") == "distilled student (one query)"
    assert row_label("nearest prototype") == "nearest prototype"
    assert chance("20w5s") == 5.0 and chance("parameters") is None


def test_parameters_stand_last_and_modes_apart():
    assert columns_of(CELLS) == ["5w1s", "20w1s", "parameters"]
    main, modes = main_and_modes(CELLS)
    assert list(main) == ["untrained", "student"] and list(modes) == ["student (one_query)"]


def test_the_markdown_table_has_every_cell_and_the_best_of_a_column_bold():
    lines = markdown_table(main_and_modes(CELLS)[0]).splitlines()
    assert lines[0] == "|  | 5-way 1-shot | 20-way 1-shot | parameters |"
    assert lines[2] == "| untrained encoder | 40.00 ± 0.25 | 12.50 ± 0.25 | 112,345 |"
    assert lines[3] == "| distilled student | **98.12 ± 0.25** | – | 9,821 |"


def test_the_terminal_table_shows_rows_in_order_and_says_what_they_are():
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(terminal_table(result()))
    text = console.export_text()
    assert text.index("untrained encoder") < text.index("distilled student ") < text.index("(one query)")
    assert "9,821" in text and "p: [brackets]" in text and "600 episodes" in text


def test_many_columns_are_spread_over_tables_that_fit_the_terminal():
    columns = [f"{turned}{way}w{shot}s" for turned in ("", "rotations_") for way in (5, 20) for shot in (1, 5)]
    numbers = {column: cell(90.0 + k / 10) for k, column in enumerate(columns)}
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(terminal_table(result({"simclr": numbers, "byol": numbers})))
    text = console.export_text()
    assert all(text.count(f"{90 + k / 10:.2f}±0.25") == 2 for k in range(8)) and "…" not in text
    assert text.count("SimCLR") == 2 and text.count("trial") == 1


@pytest.mark.parametrize(
    ("ours", "published", "higher", "found"),
    [
        (cell(98.3), cell(98.7, 0.4), True, ("within", 0.0)),
        (cell(98.2), cell(98.7, 0.4), True, ("below", 0.1)),
        (cell(-40.410001), cell(-40.41, None), True, ("within", 0.0)),  # the same at the precision of what is published
        (cell(99.2), cell(98.7, 0.4), True, ("above", 0.0)),
        (cell(98.7, 0.25), cell(98.7, None), True, ("within", 0.0)),
        (cell(98.5, 0.25), cell(98.7, None), True, ("below", 0.2)),  # our own interval, wide as it may be, buys nothing
        (cell(1.2), cell(1.13, 0.18), False, ("within", 0.0)),
        (cell(0.5), cell(1.13, 0.18), False, ("above", 0.0)),
        (cell(1.5), cell(1.13, 0.18), False, ("below", 0.19)),
    ],
)
def test_a_number_lies_within_the_published_interval_above_or_below_it(ours, published, higher, found):
    assert standing(ours, published, higher_is_better=higher) == found[0]
    assert shortfall(ours, published, higher_is_better=higher) == pytest.approx(found[1])


def test_published_numbers_stand_in_brackets_beside_ours():
    cells = {
        "maml": {"5w1s": cell(98.5), "5w1s_published": cell(98.7, 0.4, 1), "20w1s": cell(90.0)},
        "ridge": {"5w1s": cell(98.0), "5w1s_published": cell(98.55, None, 1), "20w1s_published": cell(94.7, None, 1)},
    }
    lines = markdown_table(cells).splitlines()
    assert lines[0] == "|  | 5-way 1-shot | 20-way 1-shot |"
    assert lines[2] == "| MAML | **98.50 ± 0.25** ✓ (98.70 ± 0.40) | 90.00 ± 0.25 |"
    assert lines[3] == "| R2-D2 (ridge regression) | 98.00 ± 0.25 (98.55) | – (94.70) |"
    assert "in brackets what was published" in caption(result(cells)) and "in brackets" not in caption(result({}))
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(terminal_table(result(cells)))
    assert "98.50±0.25 ✓" in console.export_text()


def test_a_caption_says_how_many_seeds_stand_behind_accuracies_and_of_a_merged_table_behind_its_cells():
    one = dataclasses.replace(result(), seeds=[0])
    assert ", 1 seed;" in caption(one)
    assert ", 3 seeds;" in caption(dataclasses.replace(one, seeds=[0, 1, 2]))
    merged = {"cells": {"maml": {"5w1s": {"seeds": 1}}, "best": {"5w1s": {"seeds": 3}}}}
    assert ", 1–3 seeds;" in caption(dataclasses.replace(one, config=merged))
    assert ", 3 models;" in caption(dataclasses.replace(one, config={"model": ["a", "b", "c"]}))
    assert "seed" not in caption(dataclasses.replace(one, cells={"maml": {"5shot": cell(0.9)}}))


def test_errors_are_best_when_low():
    cells = {"maml": {"5shot": cell(0.9, 0.05), "5shot_published": cell(1.13, 0.18, 1)}}
    assert markdown_table(cells).splitlines()[2] == "| MAML | 0.90 ± 0.05 ✓ (1.13 ± 0.18) |"


def test_columns_that_were_made_alike_share_a_line_of_settings():
    details = {
        "maml": {"5w1s": {"steps": "10", "norm": "transductive"}, "5w5s": {"steps": "20", "norm": "transductive"}},
        "ridge": {"5w1s": {"steps": "7", "note": "a, b; c"}, "5w5s": {"steps": "7", "note": "a, b; c"}},
    }
    made = dataclasses.replace(result(), config={"cells": details})
    assert settings_table(made).splitlines() == [
        "|  | norm | steps | note |",
        "| --- | --- | --- | --- |",
        "| MAML, 5-way 1-shot | transductive | 10 | – |",
        "| MAML, 5-way 5-shot | transductive | 20 | – |",
        "| R2-D2 (ridge regression) | – | 7 | a,<br>b;<br>c |",
    ]


def test_settings_that_all_rows_share_are_said_once():
    details = {
        "maml": {"5w1s": {"steps": "10", "norm": "running"}},
        "ridge": {"5w1s": {"steps": "7", "norm": "running"}},
    }
    table = settings_table(dataclasses.replace(result(), config={"cells": details}))
    assert table.startswith("All rows: norm running.\n\n|  | steps |\n")


def test_what_numbers_are_stands_in_short_lines():
    lines = facts_table(dataclasses.replace(result(), commit="0123456789abcdef")).splitlines()
    assert lines[:2] == ["| protocol | p: [brackets] |", "| --- | --- |"]
    assert "| command | `python -m trial` |" in lines and "| commit | `0123456789` |" in lines
    assert not any(line.startswith("| in brackets") for line in lines)


@pytest.mark.parametrize(("seconds", "text"), [(9.4, "9 s"), (75, "1 min 15 s"), (3600 * 2 + 300, "2 h 5 min")])
def test_durations_are_said_in_words(seconds, text):
    assert duration(seconds) == text


def test_the_report_links_figures_relative_to_itself_and_names_its_origin(tmp_path):
    figures = [tmp_path / "figures" / "views.png", tmp_path / "figures" / "bars.png"]
    text = write_report(tmp_path, result(), figures, ["Pretraining helps."]).read_text()
    assert "](figures/views.png)" in text and text.index("bars.png") < text.index("views.png")
    assert "- Pretraining helps." in text and "python -m trial" in text and "seeds: 3" in text
    assert str(tmp_path) not in text


def test_returns_are_best_when_high():
    cells = {"maml": {"1 update": cell(-11.0, 0.5), "1 update_published": cell(-11.68, None, 1)}}
    assert "✓" in markdown_table(cells)
    cells["maml"]["1 update"] = cell(-12.0, 0.5)
    assert "✓" not in markdown_table(cells)
