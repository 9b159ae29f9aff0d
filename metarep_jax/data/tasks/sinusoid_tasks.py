"""Sinusoids: the regression tasks of MAML, drawn by a pure function."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from metarep_jax.data.feeds import shard_keys
from metarep_jax.typed_settings import Settings
from metarep_jax.types import Episode, Examples, Feed

AMPLITUDE = (0.1, 5.0)
PHASE = (0.0, jnp.pi)
INPUT = (-5.0, 5.0)


@dataclasses.dataclass(frozen=True)
class SinusoidSpec(Settings):
    """A task: ``shot`` points to adapt on and ``query`` points to be judged on.

    ``told``: amplitude and phase stand beside every x, for a network that need not find them out.
    """

    shot: int = 10
    query: int = 10
    told: bool = False

    def __post_init__(self):
        super().__post_init__()
        for name in ("shot", "query"):
            if getattr(self, name) < 1:
                raise ValueError(f"SinusoidSpec.{name} must be at least 1, got {getattr(self, name)}")


class Sinusoid(NamedTuple):
    """x ↦ ``amplitude`` · sin(x − ``phase``)."""

    amplitude: Float[Array, ""]
    phase: Float[Array, ""]

    def __call__(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return self.amplitude * jnp.sin(x - self.phase)


def sample_sinusoid(key: Key[Array, ""]) -> Sinusoid:
    """Amplitude uniform in 0.1–5, phase uniform in 0–π (Finn et al. 2017, section 5.1)."""
    first, second = jax.random.split(key)
    return Sinusoid(
        jax.random.uniform(first, minval=AMPLITUDE[0], maxval=AMPLITUDE[1]),
        jax.random.uniform(second, minval=PHASE[0], maxval=PHASE[1]),
    )


def sample_task(key: Key[Array, ""], spec: SinusoidSpec) -> Episode:
    """One task, its points uniform in −5–5: inputs [n, 1] (or [n, 3] where the task is ``told``) and targets [n, 1].

    Pure, jit-able, and to be mapped over keys by ``vmap``. Two specs with the same key give the same function, and,
    with the same ``shot``, the same support points.
    """
    of_function, of_support, of_query = jax.random.split(key, 3)
    sinusoid = sample_sinusoid(of_function)

    def points(key: Array, count: int) -> Examples:
        x = jax.random.uniform(key, (count, 1), minval=INPUT[0], maxval=INPUT[1])
        return Examples(inputs_of(sinusoid, x, spec.told), sinusoid(x))

    return Episode(points(of_support, spec.shot), points(of_query, spec.query))


def inputs_of(sinusoid: Sinusoid, x: Float[Array, "n 1"], told: bool) -> Float[Array, "n columns"]:
    """What a network is given for ``x``: x alone, or, where it is ``told``, amplitude and phase too."""
    if not told:
        return x
    return jnp.concatenate([x, jnp.full_like(x, sinusoid.amplitude), jnp.full_like(x, sinusoid.phase)], axis=1)


def sinusoid_feed(spec: SinusoidSpec, tasks: int) -> Feed:
    """Batches of ``tasks`` tasks of ``spec``, with a leading task axis; no two steps draw the same.

    Raises:
      ValueError: for fewer than one task.
    """
    if tasks < 1:
        raise ValueError(f"sinusoid_feed: tasks must be at least 1, got {tasks}")

    def draw(pool: Any, root: Key[Array, ""], step: Any, shard: Any, shards: int) -> Episode:
        del pool
        keys = shard_keys(root, 0, step, tasks, shard, shards)
        return jax.vmap(lambda key: sample_task(key, spec))(keys)

    return Feed(tasks, jnp.zeros(()), draw)  # the pool holds nothing: tasks are made, not drawn from data
