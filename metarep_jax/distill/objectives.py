"""Feature distillation in the form of stage 1, whose loop, figures and checks then serve it."""

from typing import Any

from flax import linen as nn
from jaxtyping import Array

from metarep_jax.distill.batches import BatchLoss
from metarep_jax.pretrain.chain import encoder_features
from metarep_jax.types import Keys, Objective


def as_objective(encoder: nn.Module, distilled: BatchLoss) -> Objective:
    """Feature distillation as an objective of stage 1, whose params and state have the encoder at the top."""

    def flat(tree: Any) -> dict:
        return {**tree["student"], "terms": tree["terms"]}

    def nested(tree: Any) -> dict:
        return {"student": {"encoder": tree["encoder"]}, "terms": tree["terms"]}

    def init(key: Array, batch: dict, encoder_params: Any = None) -> tuple[Any, Any]:
        del encoder_params
        params, state = distilled.init(key, batch)
        return flat(params), flat(state)

    def loss(params: Any, state: Any, batch: dict, keys: Keys, step: Any) -> tuple[Array, tuple[Any, dict]]:
        del step
        value, (state, metrics) = distilled.loss(nested(params), nested(state), batch, keys)
        return value, (flat(state), metrics)

    return Objective(init, loss, encoder_features(encoder))
