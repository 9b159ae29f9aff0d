"""Linear probes and nearest neighbours on a model's frozen features, as rows of a result."""

import jax

from metarep_jax.data import Splits
from metarep_jax.data.tasks.episodes import smallest_class
from metarep_jax.encoders.features import compute_features
from metarep_jax.evaluate import Interval, linear_probe, nearest_neighbours, split_examples
from metarep_jax.model import Model
from metarep_jax.report.results import Cells
from metarep_jax.stages.result_cells import as_cells


def probe_rows(model: Model, splits: Splits) -> Cells:
    """The rows of a linear probe and of nearest neighbours; see ``probes``."""
    column = f"all {splits.test.count.shape[0]} classes"
    return {row: as_cells({column: value}) for row, value in probes(model, splits).items()}


def probes(model: Model, splits: Splits) -> dict[str, Interval]:
    """Accuracy in % of a linear probe and of nearest neighbours on frozen features.

    Of fixed classes, they learn from the training part and are judged on the part for testing; else, of the test
    classes, a quarter of each class's examples is held out, always the same. Nothing where ``probe_note`` says why.
    """
    if probe_note(splits):
        return {}
    pool, embed = splits.test, model.embed
    features = compute_features(embed, pool.inputs)
    if splits.fixed_classes:
        split = (compute_features(embed, splits.train.inputs), splits.train.label, features, pool.label)
    else:
        train, test = split_examples(pool, jax.random.key(0))
        split = (features[train], pool.label[train], features[test], pool.label[test])
    return {"linear probe": linear_probe(*split), "nearest neighbours": nearest_neighbours(*split)}


def probe_note(splits: Splits) -> str | None:
    """Why there is no linear probe and there are no nearest neighbours, if so."""
    pool, names = splits.test, splits.class_names["test"]
    if (classes := pool.count.shape[0]) < 2:
        return f"no linear probe: it needs 2 test classes or more, and there is {classes}" if classes else None
    name, smallest = smallest_class(pool, names)
    if smallest < 2 and not splits.fixed_classes:
        return (
            f"no linear probe and no nearest neighbours: class {name!r} of test has {smallest} example, and each class "
            "needs one to learn from and one to be tested on"
        )
    return None
