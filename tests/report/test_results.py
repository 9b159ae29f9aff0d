"""Result files: what is written is read again, and what does not follow the schema is refused with a reason."""

import dataclasses
import json
import math
import os

import pytest

from metarep_jax.report.results import make_result, read_result, write_result

CELL = {"mean": 98.125, "ci95": 0.2, "n": 2000}


def a_result(**changed):
    given = {
        "name": "trial",
        "command": "python -m experiments.trial",
        "config": {"seed": 0},
        "protocol": "vinyals: 1028/172/423",
        "seeds": [0],
        "cells": {"student": {"5w1s": CELL, "parameters": {"mean": 9821, "ci95": None, "n": 1}}},
        "wall_clock_s": 12.0,
    }
    return make_result(**(given | changed))


def test_a_result_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "deep" / "result.json"
    result = a_result()
    write_result(path, result)
    assert read_result(path) == result
    assert [file.name for file in path.parent.iterdir()] == ["result.json"]


def test_provenance_is_filled_in():
    result = a_result()
    assert {"python", "jax", "jaxlib", "flax", "optax", "metarep_jax"} <= set(result.versions)
    assert result.device["platform"] == "cpu" and result.device["count"] == 8
    assert result.device["cores"] == os.cpu_count() and result.device["cpu"]
    assert result.commit is None or len(result.commit.removesuffix("+dirty")) == 40


def test_absolute_paths_are_cut_to_their_names_and_tuples_become_lists(tmp_path):
    config = {
        "data": {"data_dir": tmp_path / "letters"},
        "teacher": f"{tmp_path}/teacher",
        "ways": (5, 20),
        "rate": 0.5,
    }
    assert a_result(config=config).config == {
        "data": {"data_dir": "letters"},
        "teacher": "teacher",
        "ways": [5, 20],
        "rate": 0.5,
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: found.pop("commit"), "commit"),
        (lambda found: found.update(more=1), "more"),
        (lambda found: found.update(seeds=["0"]), r"expected int, got '0' in seeds\[0\]"),
        (lambda found: found.update(wall_clock_s=True), "wall_clock_s"),
        (lambda found: found["cells"]["student"]["5w1s"].update(mean="98"), "student.*5w1s.*mean"),
        (lambda found: found["cells"]["student"]["5w1s"].pop("n"), "'n'|in n|field n|student.*5w1s"),
        (lambda found: found["cells"]["student"]["5w1s"].update(n=0), "'student', '5w1s' needs a finite mean and n"),
        (lambda found: found["cells"]["student"]["5w1s"].update(ci95=-1.0), "interval -1"),
    ],
)
def test_a_file_that_breaks_the_schema_is_refused_with_the_field(tmp_path, change, message):
    found = dataclasses.asdict(a_result())
    change(found)
    path = tmp_path / "broken.json"
    path.write_text(json.dumps(found))
    with pytest.raises(ValueError, match=message) as refused:
        read_result(path)
    assert "broken.json" in str(refused.value)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]"])
def test_a_file_that_is_no_result_at_all_is_refused_by_name(tmp_path, text):
    path = tmp_path / "half.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"half\.json is not a result file"):
        read_result(path)


@pytest.mark.parametrize("mean", [math.nan, math.inf])
def test_a_mean_that_is_not_finite_never_gets_into_a_result(mean):
    with pytest.raises(ValueError, match="'a', 'b' needs a finite mean"):
        a_result(cells={"a": {"b": {"mean": mean, "ci95": 0.0, "n": 1}}})


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    write_result(path, a_result())
    before = path.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_result(path, a_result(name="other"))
    assert path.read_bytes() == before
