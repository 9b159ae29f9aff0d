"""What all tests share: eight CPU devices, checked shapes, and functions compiled quickly and kept between runs."""

import gc
import os
from functools import partial
from importlib.metadata import version
from pathlib import Path

# Tests compile much and compute little: what unoptimised code takes longer to run is less than it is sooner there.
os.environ["XLA_FLAGS"] = " ".join(
    ["--xla_backend_optimization_level=0", "--xla_llvm_disable_expensive_passes=true"]
    + ["--xla_cpu_parallel_codegen_split_count=1"]  # one module a function: splitting costs more than cores give back
    + ["--xla_cpu_use_fusion_emitters=false"] * version("jaxlib").startswith("0.10.")  # later ones do not know it
    + [os.environ.get("XLA_FLAGS", "")]
)

import jax
import pytest
from jaxtyping import install_import_hook

jax.config.update("jax_num_cpu_devices", 8)
jax.devices()  # they start here: a test of a command line that asks for fewer must not leave fewer to the next one
worker = os.environ.get("PYTEST_XDIST_WORKER", "alone")  # each its own: entries are not written atomically
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parents[1] / "cache" / "xla" / worker))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # small ones too: tests repeat each other's
install_import_hook("metarep_jax", "beartype.beartype")
gc.set_threshold(50_000, 20, 100)  # traced functions stay alive, and to look through them all takes long


@pytest.fixture(autouse=True, scope="module")
def _old_objects_stay():
    """What a file's tests have compiled is not looked through again in those of the next."""
    yield
    gc.freeze()


def pytest_make_parametrize_id(val):
    """Functions by their names: their default ids hold addresses, which differ from worker to worker."""
    val = val.func if isinstance(val, partial) else val
    return val.__name__ if callable(val) and hasattr(val, "__name__") else None
