"""Commands that pages and docstrings print exist, with the flags that they are given; nothing is computed."""

import functools
import importlib.util
import runpy
import sys

import pytest
import tyro
from printed import printed_commands, save_printed_modules

from experiments import cli, flags

YOURS = """
from metarep_jax.distill.terms import soft_targets
from metarep_jax.encoders.conv4 import conv4 as my_encoder
from metarep_jax.metalearn.ridge import ridge
from metarep_jax.pretrain.simclr import simclr as my_objective


def my_learner(encoder, *, way, l2: float = 1.0):
    return ridge(encoder, way=way)
"""
ALREADY: set[tuple[str, ...]] = set()  # commands are printed in several places, and each costs time


class Parsed(BaseException):
    """Raised once a command line was parsed."""


def without_effect(target):
    """A function with the flags of ``target`` that does nothing; dataclasses have no effect."""
    if isinstance(target, type):
        return target
    return functools.wraps(target)(lambda *args, **keywords: None)


@pytest.fixture
def parsing_only(monkeypatch, tmp_path):
    """Programs end where their command line was parsed."""
    (tmp_path / "my_module.py").write_text(YOURS)
    save_printed_modules(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    inside: list[bool] = []
    plain_cli = tyro.cli

    def tyro_cli(target, **keywords):
        config = plain_cli(target if inside else without_effect(target), **keywords)
        if inside:
            return config
        raise Parsed

    def ending(parse):
        def parse_and_end(*args, **keywords):
            inside.append(True)
            try:
                parse(*args, **keywords)
            finally:
                inside.pop()
            raise Parsed

        return parse_and_end

    monkeypatch.setattr(tyro, "cli", tyro_cli)
    monkeypatch.setattr(cli, "parse", ending(flags.parse))
    monkeypatch.setattr(cli, "parse_preset", ending(flags.parse_preset))
    yield
    for name in ("my_module", "discriminant", "stripes", "filters", "thumbnail", "correlation"):
        sys.modules.pop(name, None)


@pytest.mark.filterwarnings("ignore:.*found in sys.modules.*:RuntimeWarning")
@pytest.mark.parametrize("place", printed_commands())
def test_printed_commands_have_the_flags_that_they_are_printed_with(place, parsing_only, monkeypatch, capsys):
    for module, *words in printed_commands()[place]:
        if (module, *words) in ALREADY:
            continue
        ALREADY.add((module, *words))
        assert importlib.util.find_spec(module) is not None, f"{place} prints {module}"
        monkeypatch.setattr(sys, "argv", [module, *words])
        try:
            runpy.run_module(module, run_name="__main__")
        except Parsed:
            continue
        except SystemExit:
            pytest.fail(f"{place} prints: {' '.join([module, *words])}\n{capsys.readouterr()}")
        pytest.fail(f"{module} reads no command line")
