"""A new encoder that learns another one's features, averaged over views."""

from metarep_jax.data import Splits
from metarep_jax.encoders import EncoderConfig
from metarep_jax.model import Model
from metarep_jax.stages.compute import Compute
from metarep_jax.stages.distil import DistilSettings, distil
from metarep_jax.stages.pretrain import PretrainSettings


def self_distil(
    settings: PretrainSettings, encoder: EncoderConfig, teacher: Model, splits: Splits, compute: Compute, *, views: int
) -> Model:
    """A new encoder that learned the ``teacher``'s features, averaged over views of each training image.

    Args:
      settings: of stage 1, whose views, length and optimiser it shares.
      encoder: the new one.
      teacher: frozen features.
      splits: the data.
      compute: where and how.
      views: of each image.

    Raises:
      ValueError: for settings with turned images, of which the teacher's features are not at hand.
    """
    if settings.rotations:
        raise ValueError("self-distillation learns the features of images as they are; leave rotations out")
    same = {name: getattr(settings, name) for name in ("augment", "epochs", "optimiser", "train", "whiten")}
    return distil(DistilSettings(student=encoder, views=views, **same), splits, teacher, compute, mode="features")
