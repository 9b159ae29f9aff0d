"""Which few-shot episodes a pool can serve: columns of a table, and the training episode; with notes on the rest."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from metarep_jax.data.tasks.episodes import TURNS, smallest_class
from metarep_jax.types import EpisodeSpec, Pool, Rotations


def usable_columns(
    pool: Pool,
    ways: Sequence[int],
    shots: Sequence[int],
    query: int,
    rotations: Rotations = "none",
    *,
    class_names: Sequence[str] = (),
    part: str = "test",
) -> tuple[list[EpisodeSpec], list[str]]:
    """The columns that the pool can serve, and a sentence on each that it cannot.

    Where there are too few classes for any of ``ways``, the way is the number of classes.

    Args:
      pool: the examples that episodes are drawn from.
      ways, shots: a column for each pair, such as a protocol's.
      query: queries a class, at most what the smallest class leaves; at least one must be left.
      rotations: of the episodes; with "classes" every quarter turn of a class is one.
      class_names: of the pool's classes, for the sentences.
      part: what the pool is, such as "test", for the sentences.
    """
    classes = pool.count.shape[0]
    if classes < 2:
        return [], [f"no few-shot episodes: they need 2 classes or more to tell apart, and {part} has {classes}"]
    options = classes * (TURNS if rotations == "classes" else 1)
    notes = []
    kept = [way for way in ways if way <= options]
    if not kept:
        kept = [classes]
        notes.append(f"episodes are of {classes} ways, not {_listed(ways)}: {part} has {classes} classes")
    elif large := [way for way in ways if way > options]:
        notes.append(f"no columns of {_listed(large)} ways: {part} has {options} classes")
    name, smallest = smallest_class(pool, class_names)
    if many := [shot for shot in shots if shot >= smallest]:
        notes.append(
            f"no columns of {_listed(many)} shots: class {name!r} of {part} has {_examples(smallest)}, and "
            f"{min(many) + 1} are needed for {min(many)} shots and a query"
        )
    specs = [
        EpisodeSpec(way, shot, min(query, smallest - shot), rotations)
        for way in kept
        for shot in shots
        if shot < smallest
    ]
    return specs, notes


def fitting_episode(
    pool: Pool, spec: EpisodeSpec, *, class_names: Sequence[str] = (), part: str = "train"
) -> tuple[EpisodeSpec, list[str]]:
    """The episode with its way and queries shrunk to what the pool can serve, and a sentence on each that was.

    Shots stay: check them with ``check_episode_spec``.
    """
    options = pool.count.shape[0] * (TURNS if spec.rotations == "classes" else 1)
    notes = []
    if 2 <= options < spec.way:
        least = None if spec.least_way is None else min(spec.least_way, options)
        notes.append(f"training episodes are of {options} ways, not {spec.way}: {part} has {options} classes")
        spec = dataclasses.replace(spec, way=options, least_way=least)
    name, smallest = smallest_class(pool, class_names)
    if 1 <= smallest - spec.shot < spec.query:
        notes.append(
            f"training episodes have {smallest - spec.shot} queries a class, not {spec.query}: class {name!r} of "
            f"{part} has {_examples(smallest)}"
        )
        spec = dataclasses.replace(spec, query=smallest - spec.shot)
    return spec, notes


def _examples(count: int) -> str:
    return "1 example" if count == 1 else f"{count} examples"


def _listed(values: Sequence[int]) -> str:
    return " or ".join(str(value) for value in np.unique(values).tolist())
