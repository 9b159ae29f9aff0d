"""Settings are read off factories: names, keywords, defaults, descriptions; a user's own are no different."""

import dataclasses
import functools
import json
from pathlib import Path

import cattrs
import pytest

from metarep_jax.choices import REQUIRED, Choice, keywords_of
from metarep_jax.docstrings import argument_lines
from metarep_jax.model import modules_named


def plain(base, *, width: int = 4, rates: tuple[float, ...] = (0.1,), where: Path | None = None, axis: str = "x"):
    """A factory.

    Args:
      base: what is built upon.
      width: how wide it is,
        in units.
      rates, where: of steps, and
        of files.

    Returns:
      width: this is no argument.
    """
    return base, width, rates, where, axis


def own(base, *, sharpness: float, flag: bool = False):
    return base, sharpness, flag


class PlainConfig(Choice):
    """A kind for these tests."""

    what = "toy"
    known = {"plain": plain, "wide": functools.partial(plain, width=9)}  # noqa: RUF012
    supplied = frozenset({"base", "axis"})
    default = "plain"


def test_keywords_are_those_of_the_signature_with_the_lines_of_its_docstring():
    found = keywords_of(plain, PlainConfig.supplied)
    assert list(found) == ["width", "rates", "where"]
    assert (found["width"].type, found["width"].default) == (int, 4)
    assert found["width"].help == "How wide it is, in units."
    assert found["rates"].help == found["where"].help == "Of steps, and of files."
    assert keywords_of(own, PlainConfig.supplied)["sharpness"].default is REQUIRED


def test_a_keyword_that_is_bound_already_is_no_setting():
    assert list(PlainConfig.settings_of("wide")) == ["rates", "where"]
    assert PlainConfig("wide").build("b")[1] == 9


def test_equal_settings_are_equal_choices_however_they_are_written():
    assert PlainConfig() == PlainConfig("plain", width=4, rates=[0.1])
    assert hash(PlainConfig(width=5)) == hash(PlainConfig("plain", width=5))
    assert PlainConfig(width=5) != PlainConfig()
    assert dataclasses.replace(PlainConfig(width=5), rates=(1.0,)) == PlainConfig(width=5, rates=(1.0,))


def test_a_choice_builds_with_what_is_supplied_and_leaves_alone_what_the_factory_does_not_take():
    choice = PlainConfig(width=5, where="~/there")
    assert choice.build("b", axis="y", other=3) == ("b", 5, (0.1,), Path.home() / "there", "y")
    assert choice.get("width") == 5
    assert choice.get("depth", 7) == 7


def test_json_holds_every_keyword_so_that_later_defaults_change_nothing():
    text = json.dumps(cattrs.unstructure(PlainConfig(width=5)), default=str)
    assert json.loads(text) == {"name": "plain", "width": 5, "rates": [0.1], "where": None}
    assert cattrs.structure(json.loads(text), PlainConfig) == PlainConfig(width=5)


def test_a_factory_of_ones_own_is_named_by_its_path_and_what_it_needs_is_said():
    name = f"{__name__}:own"
    assert PlainConfig(name, sharpness=2.0).build("b") == ("b", 2.0, False)
    with pytest.raises(ValueError, match=f"the toy {name} needs sharpness"):
        PlainConfig(name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"name": "plane"},
            r"unknown toy 'plane' \(did you mean plain\?\); there are: plain, wide; or .*:my_toy",
        ),
        ({"name": "no_such:thing"}, "toy 'no_such:thing' cannot be loaded: No module named 'no_such'"),
        ({"depth": 3}, "the toy plain has no setting depth; it has: width, rates, where"),
        ({"axis": "y"}, "has no setting axis"),
    ],
)
def test_what_does_not_exist_is_refused_with_what_does(settings, message):
    with pytest.raises(ValueError, match=message):
        PlainConfig(**settings)


def test_something_else_than_what_is_wanted_is_refused():
    with pytest.raises(ValueError, match=r"toy plain returned tuple, wanted is a builtins\.int"):
        PlainConfig().build("b", wanted=int)


def test_modules_that_plain_values_name_are_listed_at_any_depth():
    tree = {
        "encoder": {"name": "mine:net"},
        "more": [{"name": "plain"}, {"loss": {"name": "a.b:c"}}],
        "name": "tfds x:y",
    }
    assert modules_named(tree) == ("tfds x", "mine", "a.b")


def test_lines_of_arguments_end_where_the_next_section_begins():
    assert argument_lines("What it does.\n\nArgs:\n  a: one\n    two\n  b, c: three\n\nRaises:\n  d: four") == {
        "a": "One two", "b": "Three", "c": "Three",
    }  # fmt: skip
