"""The features of a projector that was trained with an encoder, to be judged in place of the encoder's."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from flax import linen as nn
from jaxtyping import Array, Float, Shaped

from metarep_jax.data import Splits
from metarep_jax.encoders import EncoderConfig, make_encoder, refit_statistics
from metarep_jax.encoders.features import compute_features, fit_whitening
from metarep_jax.pretrain.heads import Head
from metarep_jax.stages.compute import Compute
from metarep_jax.stages.features import fitting_rows
from metarep_jax.stages.pretrain import PretrainSettings, train_objective


class Projected(nn.Module):
    """An encoder and the projector after it, called as an encoder is."""

    encoder: nn.Module
    projector: nn.Module

    def __call__(self, x: Shaped[Array, "n ..."], mask: Any = None, running: bool = False) -> Float[Array, "n dim"]:
        return self.projector(self.encoder(x, mask, running), running)


def projector_features(
    settings: PretrainSettings, encoder: EncoderConfig, splits: Splits, compute: Compute
) -> Callable[[Shaped[Array, "n ..."]], Float[Array, "n dim"]]:
    """The projections of a SimCLR that was trained in the folder of ``compute``; norms and whitening are fitted on
    training images, as those of features are."""
    trained, _ = train_objective(settings, splits, compute, encoder=encoder)  # from its last checkpoint
    params = {name: trained.params[name] for name in ("encoder", "projector")}
    widths = tuple(params["projector"][f"Dense_{index}"]["kernel"].shape[1] for index in (0, 1))
    module, rows = Projected(make_encoder(encoder), Head(widths)), fitting_rows(splits)
    stats = {name: trained.state[name] for name in params}
    variables = refit_statistics(module, {"params": params, "batch_stats": stats}, rows)
    embed = jax.jit(partial(module.apply, variables, running=True))
    whitening = fit_whitening(compute_features(embed, rows), power=settings.whiten)
    return lambda inputs: whitening(embed(inputs))
