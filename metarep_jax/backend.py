"""Which kind of device the code is traced for: the fastest form of some computations differs between them."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import jax

BACKENDS = ("cpu", "gpu", "tpu")
_TARGET: ContextVar[str | None] = ContextVar("target_backend", default=None)


def target_backend() -> str:
    """The backend that what is traced now will run on: JAX's own, unless ``compiling_for`` says otherwise."""
    return _TARGET.get() or jax.default_backend()


@contextlib.contextmanager
def compiling_for(backend: str) -> Iterator[None]:
    """Has everything within traced for ``backend``, which this machine need not have: for compilation ahead of time.

    What was traced before keeps its form: trace new function objects within.

    Raises:
      ValueError: for an unknown backend.
    """
    if backend not in BACKENDS:
        raise ValueError(f"unknown backend {backend!r}; there are: {', '.join(BACKENDS)}")
    token = _TARGET.set(backend)
    try:
        yield
    finally:
        _TARGET.reset(token)
