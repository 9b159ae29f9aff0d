"""Meta-learners: factories of ``types.MetaLearner``. A learner of your own is named by its dotted path."""

from metarep_jax.metalearn.config import LEARNERS, LearnerConfig, adapts_encoder, make_learner, trains

__all__ = ["LEARNERS", "LearnerConfig", "adapts_encoder", "make_learner", "trains"]
