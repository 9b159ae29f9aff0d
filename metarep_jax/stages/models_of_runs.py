"""The models of runs that are judged together: finished ones, or those of a checkpoint."""

from collections.abc import Sequence
from pathlib import Path

from metarep_jax.data import Splits
from metarep_jax.model import Model
from metarep_jax.stages.checkpoints import model_at
from metarep_jax.stages.starting_models import check_model, load_model


def models_of_runs(
    folders: Sequence[Path], checkpoint: int | None, splits: Splits, allow: Sequence[str] = ()
) -> tuple[list[Model], list[str]]:
    """The finished models of runs of one method, or those of the checkpoint that is asked for, and what to say of them.

    Args:
      folders: of the runs, one or several.
      checkpoint: the step of one; 0: the latest; None: the finished models.
      splits: the data that they are judged on.
      allow: modules of one's own that the models may name.

    Raises:
      FileNotFoundError: where there is no such model.
      ValueError: for models that do not fit the data, or differ in kind or step.
    """
    if checkpoint is None:
        for folder in folders:
            if not (folder / "model" / "spec.json").is_file() and (folder / "checkpoints").is_dir():
                raise FileNotFoundError(
                    f"the training in {folder} is not finished; its own command goes on with it, --checkpoint 0 judges "
                    "what there is"
                )
        models, notes = [load_model(folder, splits, allow) for folder in folders], []
    else:
        found = [model_at(folder, checkpoint or None, splits, allow=allow) for folder in folders]
        if len(steps := {at for _, at in found}) > 1:
            raise ValueError(f"the latest checkpoints are of steps {sorted(steps)}; give a step that all of them have")
        models, notes = [model for model, _ in found], [f"the checkpoint of step {steps.pop()}"]
        for model, folder in zip(models, folders, strict=True):
            check_model(model, folder, splits)
    if others := [str(folder) for folder, model in zip(folders, models) if model.spec != models[0].spec]:
        raise ValueError(f"a mean is over models of one kind; {', '.join(others)} differ from {folders[0]}")
    if len(models) > 1:
        notes.append(f"means over {len(models)} models; figures and rows of the objective are the first's")
    return models, notes
