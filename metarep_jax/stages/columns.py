"""Which columns of test episodes a model is judged on."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from metarep_jax.data import Protocol, Splits, usable_columns
from metarep_jax.model import Model
from metarep_jax.typed_settings import Settings
from metarep_jax.types import EpisodeSpec, Pool


@dataclasses.dataclass(frozen=True)
class EvaluateSettings(Settings):
    """Test episodes."""

    ways: tuple[int, ...] | None = None
    """Classes of an episode; one column for each pair of way and shot. Default: the protocol's (5 and 20)."""
    shots: tuple[int, ...] | None = None
    """Support examples a class; default: the protocol's (1 and 5)."""
    query: int | None = None
    """Queries a class; default: the protocol's, at most what the smallest class leaves."""
    episodes: int | None = None
    """Episodes of the main figures; default: the protocol's (2,000)."""
    mode_episodes: int = 200
    """Episodes of the figures under the other batch-norm modes."""
    views: int = 0
    """Frozen features of images are averaged over so many slightly moved views ("nudge") beside the image itself."""
    every_mode: bool = False
    """Judge every column under the other batch-norm modes, not the first alone (slow: one_query runs the whole support
    set anew for each query)."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("ways", "shots"):
            values = getattr(self, name)
            if values is not None and (not values or min(values) < 1):
                raise ValueError(f"evaluate.{name} must be positive, got {values}")
        if self.views < 0:
            raise ValueError(f"evaluate.views must not be negative, got {self.views}")
        for name in ("episodes", "mode_episodes", "query"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"evaluate.{name} must be at least 1, got {value}")

    def specs(self, protocol: Protocol, pool: Pool) -> list[EpisodeSpec]:
        """The episodes of each column; ways beyond the pool's classes are left out."""
        classes = pool.count.shape[0] * (4 if protocol.test_rotations == "classes" else 1)
        smallest = int(np.asarray(pool.count).min())
        query = self.query or protocol.query
        return [
            EpisodeSpec(way, shot, max(min(query, smallest - shot), 1), protocol.test_rotations)
            for way in self.ways or protocol.ways
            if way <= classes
            for shot in self.shots or protocol.shots
        ]

    def columns(self, protocol: Protocol, pool: Pool) -> list[EpisodeSpec]:
        """``specs`` that every class can serve; where there are too few classes for any way, those of all classes; of a
        single class, none."""
        return self._usable(protocol, pool)[0]

    def notes(self, splits: Splits) -> list[str]:
        """A sentence on each column that the test classes cannot serve."""
        return self._usable(splits.protocol, splits.test, splits.class_names["test"])[1]

    def _usable(self, protocol: Protocol, pool: Pool, names: Sequence[str] = ()) -> tuple[list[EpisodeSpec], list[str]]:
        return usable_columns(
            pool,
            self.ways or protocol.ways,
            self.shots or protocol.shots,
            self.query or protocol.query,
            protocol.test_rotations,
            class_names=names,
        )

    def columns_of(self, model: Model, protocol: Protocol, pool: Pool) -> list[EpisodeSpec]:
        """``columns`` that a model can take: of one with a head of its own, those of its way."""
        specs = self.columns(protocol, pool)
        if not model.fixed_way or any(spec.way == model.spec.way for spec in specs):
            return specs
        return [
            spec
            for spec in dataclasses.replace(self, ways=(model.spec.way,)).columns(protocol, pool)
            if spec.way == model.spec.way
        ]
