"""Flags of a config: its dataclasses' fields, and the keywords of what it chooses; pure functions of the words typed.

@dataclasses.dataclass(frozen=True)
class Config:
    learner: LearnerConfig = LearnerConfig("maml")
    seed: int = 0

``--learner imaml --learner.cg-steps 9 --seed 4``: the words are read twice, first for the choices (``read_choices``),
then for the flags that the chosen factories have (``build_flags``, ``build_config``). ``experiments.flags`` does both.
"""

from metarep_jax.flags.building import build_config, build_flags, flag_type, named_flags
from metarep_jax.flags.words import check_paths, choices_in, long_forms, read_choices, switches

__all__ = [
    "build_config",
    "build_flags",
    "check_paths",
    "choices_in",
    "flag_type",
    "long_forms",
    "named_flags",
    "read_choices",
    "switches",
]
