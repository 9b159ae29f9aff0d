"""Which number format the forward and backward passes compute in; parameters stay float32."""

from typing import Any

import jax.numpy as jnp

from metarep_jax.backend import target_backend

PRECISIONS = ("auto", "float32", "bfloat16")


def compute_dtype(precision: str = "auto") -> Any:
    """The dtype to give to encoders: for "auto", float32 on a CPU and bfloat16 on accelerators.

    Raises:
      ValueError: for another name.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}; there are: {', '.join(PRECISIONS)}")
    if precision == "auto":
        precision = "float32" if target_backend() == "cpu" else "bfloat16"
    return jnp.dtype(precision)
