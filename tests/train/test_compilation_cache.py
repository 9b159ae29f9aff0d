"""The cache of compiled programs: kept, bounded, and never in the place of one's own."""

import logging
import subprocess
import sys

import jax
import pytest

from metarep_jax.train import use_compilation_cache

PROGRAM = """
import sys, jax, jax.numpy as jnp
from pathlib import Path
from metarep_jax.train import compilation_cache
compilation_cache.LEAST_SECONDS = 0.0
compilation_cache.use_compilation_cache(Path(sys.argv[1]), most=int(sys.argv[2]))
for size in range(1, 4):
    jax.jit(lambda x: jnp.tanh(x) @ x.T)(jnp.ones((size, 2)))
"""


@pytest.fixture
def own_settings():
    names = ("compilation_cache_dir", "compilation_cache_max_size", "persistent_cache_min_compile_time_secs")
    before = {f"jax_{name}": getattr(jax.config, f"jax_{name}") for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def sizes(folder, most):
    subprocess.run([sys.executable, "-c", PROGRAM, str(folder), str(most)], check=True)
    return [path.stat().st_size for path in folder.rglob("*-cache")]


def test_programs_are_kept_and_those_used_longest_ago_make_room(tmp_path):
    found = sizes(tmp_path / "large", 1 << 30)
    assert len(found) >= 3
    bounded = sizes(tmp_path / "small", sum(found) // 2)
    assert 0 < sum(bounded) <= sum(found) // 2


def test_a_cache_of_ones_own_stays(tmp_path, own_settings):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "own"))
    use_compilation_cache(tmp_path / "ours")
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "own")
    assert not (tmp_path / "ours").exists()


def test_a_folder_that_cannot_be_written_is_said_and_costs_nothing_else(tmp_path, own_settings, caplog):
    jax.config.update("jax_compilation_cache_dir", None)
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING):
        use_compilation_cache(tmp_path / "file" / "compiled")
    assert "compiled programs are not kept" in caplog.text
    assert jax.config.jax_compilation_cache_dir is None
