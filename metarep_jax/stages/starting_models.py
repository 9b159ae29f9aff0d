"""Models that a stage starts from: of a finished run, or an encoder's weights from elsewhere."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from metarep_jax.data import Splits
from metarep_jax.model import Model, load
from metarep_jax.stages.compute import model_identity
from metarep_jax.stages.features import model_of_weights_file
from metarep_jax.train import Input

WEIGHTS = (".safetensors", ".pt", ".pth", ".bin")  # the last three are pickles, and refused with what to do


def load_model(folder: Path, splits: Splits, allow: Sequence[str] = ()) -> Model:
    """The model of a finished run, or the encoder whose weights a safetensors file holds, for these data.

    Args:
      folder: of the run, or a file NAME.safetensors of torchvision's ResNets or timm's Vision Transformers.
      splits: the data.
      allow: modules of one's own that the model may name.

    Raises:
      FileNotFoundError: when there is none.
      ValueError: when it does not take the data, or names a module that is not allowed.
    """
    folder = folder.expanduser()
    if folder.suffix in WEIGHTS:
        return model_of_weights_file(folder, splits)
    try:
        model = load(folder, allow=allow)
    except ValueError as error:
        words = str(error).replace("load(folder, allow=", "--allow MODULE, in code load(folder, allow=")
        raise ValueError(words) from error
    check_model(model, folder, splits)
    return model


def inputs_of_models(folders: Mapping[str, Path | None], splits: Splits, allow: Sequence[str] = ()) -> dict[str, Input]:
    """The digests of the models in the folders, by what they are to a run: "start", "teacher", "features".

    None is no folder. Raises what ``load_model`` does.
    """
    return {
        name: model_identity(load_model(folder, splits, allow), folder) for name, folder in folders.items() if folder
    }


def check_model(model: Model, folder: Path, splits: Splits) -> None:
    """Raises ValueError for a model, of ``folder``, that does not take the data: see ``load_model``."""
    own = "" if splits.tokenizer is None else splits.tokenizer.digest
    rate = model.spec.encoder.get("rate")
    if rate is not None and splits.train.inputs.ndim == 2 and not own and rate != splits.config.get("rate"):
        raise ValueError(
            f"the model in {folder} takes recordings at {rate} Hz, the data are read at "
            f"{splits.config.get('rate')} Hz; give --data.rate {rate}"
        )
    if model.spec.tokenizer != own:
        raise ValueError(
            f"the model in {folder} takes {_token_ids(model.spec.tokenizer)}, the data are {_token_ids(own)}; give "
            f"--data.tokenizer-from {folder}, if they are text"
        )


def _token_ids(tokenizer: str) -> str:
    return f"token ids of the tokenizer {tokenizer}" if tokenizer else "no token ids"
