"""What all tests share: eight CPU devices, checked shapes, and functions compiled quickly and kept between runs."""

import os
from functools import partial
from importlib.metadata import version
from pathlib import Path

# Tests compile much and compute little: what unoptimised code takes longer to run is less than it is sooner there.
os.environ["XLA_FLAGS"] = " ".join(
    ["--xla_backend_optimization_level=0"]
    + ["--xla_cpu_use_fusion_emitters=false"] * version("jaxlib").startswith("0.10.")  # later ones do not know it
    + [os.environ.get("XLA_FLAGS", "")]
)

import jax
from jaxtyping import install_import_hook

jax.config.update("jax_num_cpu_devices", 8)
jax.devices()  # they start here: a test of a command line that asks for fewer must not leave fewer to the next one
worker = os.environ.get("PYTEST_XDIST_WORKER", "alone")  # each its own: entries are not written atomically
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parents[1] / "cache" / "xla" / worker))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
install_import_hook("metarep_jax", "beartype.beartype")


def pytest_make_parametrize_id(val):
    """Functions by their names: their default ids hold addresses, which differ from worker to worker."""
    val = val.func if isinstance(val, partial) else val
    return val.__name__ if callable(val) and hasattr(val, "__name__") else None
