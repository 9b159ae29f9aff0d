"""Importing experiments and making configs starts no backend: devices are chosen when the command line is known."""

import subprocess
import sys
from pathlib import Path

MODULES = [
    f"experiments.{name}"
    for name in ("pipeline", "metatrain", "distill", "transfer", "rounds", "evaluate", "masked_lm", "compare")
]
CODE = """
import importlib, sys
from metarep_jax.distill import TermConfig
from metarep_jax.encoders import EncoderConfig
from metarep_jax.metalearn import LearnerConfig
from jax._src import xla_bridge
for name in sys.argv[1:]:
    importlib.import_module(name)
    assert not xla_bridge.backends_are_initialized(), f"{name} starts a backend"
for kind in (LearnerConfig, EncoderConfig, TermConfig):
    for name in kind.known:
        kind(name)
        assert not xla_bridge.backends_are_initialized(), f"{kind.__name__}({name!r}) starts a backend"
"""


def test_neither_imports_nor_configs_start_a_backend():
    root = Path(__file__).parents[2]
    tables = [f"experiments.tables.{path.stem}" for path in sorted((root / "experiments/tables").glob("[a-z]*.py"))]
    command = [sys.executable, "-c", CODE, *MODULES, *tables]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
    assert done.returncode == 0, done.stderr
