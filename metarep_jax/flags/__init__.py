"""The command line of an experiment: a config's dataclasses are flags, and so are the keywords of what they choose.

@dataclasses.dataclass(frozen=True)
class Config:
    learner: LearnerConfig = LearnerConfig("maml")
    seed: int = 0

config = parse(Config, "What it does.")    # --learner imaml --learner.cg-steps 9 --seed 4
"""

from metarep_jax.flags.parsing import console, parse, parse_preset, print_error

__all__ = ["console", "parse", "parse_preset", "print_error"]
