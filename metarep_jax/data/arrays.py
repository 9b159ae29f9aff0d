"""A user's own arrays as splits: checked, brought to one form, and classes numbered by their names."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped

from metarep_jax.data.array_checks import as_array, checked_inputs, checked_labels, kind_of
from metarep_jax.data.divisions import PARTS, UNLABELLED, Labelled
from metarep_jax.data.protocols import Protocol, divide, find_protocol
from metarep_jax.data.splits import DataConfig, Splits, assemble
from metarep_jax.data.text.tokenizer import Tokenizer

ARRAYS = "arrays"  # the data set's name where a user gave arrays


class Given(NamedTuple):
    """One part's arrays, after checks. ``label`` is None where there are none."""

    inputs: Shaped[np.ndarray, "n ..."]
    label: Shaped[np.ndarray, " n"] | None  # integers or strings


def splits_from_arrays(
    train: Any,
    val: Any = None,
    test: Any = None,
    *,
    name: str = ARRAYS,
    class_names: Sequence[str] | None = None,
    fixed_classes: bool | None = None,
    protocol: Protocol | str | None = None,
    held_out: float = 0.2,
    seed: int = 0,
    tokenizer: Tokenizer | None = None,
) -> Splits:
    """Splits of your own arrays, for the stages.

    ``splits_from_arrays(train=(x, y), test=(x2, y2))`` takes the parts as they are: of fixed classes where val and test
    have classes of train, for few-shot learning where all parts have classes of their own. ``splits_from_arrays((x, y),
    fixed_classes=True)`` holds out a share of each class, ``fixed_classes=False`` some of the classes.
    ``splits_from_arrays(x)`` has no classes: for pretraining.

    Args:
      train: (inputs, labels), or inputs alone. Inputs: images [n, h, w] or [n, h, w, channels] with 1 or 3 channels,
        uint8 or floats in [0, 1]; recordings [n, samples], int16; or rows of token ids [n, length], int32. Labels [n]:
        integers or strings.
      val, test: the same, for validation and testing.
      name: of the data, in captions and messages.
      class_names: of integer labels 0, 1, …; default: the labels themselves.
      fixed_classes: True: all parts have the same classes. False: each has classes of its own; equal integers of two
        parts then mean different classes. None: as the labels are.
      protocol: test episodes, captions, and how a single part is split; default: by ``fixed_classes``.
      held_out: share of each class's examples for validation, and as many for testing, where classes are fixed and
        train is the only part.
      seed: of how a single part is split.
      tokenizer: of rows of token ids.

    Raises:
      ValueError: for inputs or labels of another kind, or parts that share some classes and not others.
    """
    if not 0 < held_out < 0.5:
        raise ValueError(f"held_out must lie between 0 and 0.5, got {held_out}")
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
    given = zip(PARTS, (train, val, test))
    parts = {name: read_part(name, arrays) for name, arrays in given if arrays is not None or name == "train"}
    check_parts(parts)
    has_classes = parts["train"].label is not None
    same = same_classes(parts, fixed_classes)
    examples = labelled(parts, class_names, same, asked=fixed_classes is False)
    if len(parts) > 1:
        kind = "given-parts" if same or not has_classes else "classes-of-parts"
    elif fixed_classes is None or not has_classes:
        kind = "given-parts"  # all of it for training
    else:
        kind = "share-of-each-class" if fixed_classes else "random-classes"
        examples = examples._replace(part=None)
    chosen = protocol if isinstance(protocol, Protocol) else find_protocol(protocol or kind, ARRAYS)
    way = find_protocol(kind, ARRAYS) if isinstance(protocol, Protocol) and len(parts) > 1 else chosen
    division = divide(way, examples._replace(seed=seed, held_out=held_out))
    config = DataConfig(ARRAYS, called=name, held_out=held_out, split_seed=seed)
    inputs = np.concatenate([part.inputs for part in parts.values()])
    return assemble(inputs, division, chosen, config, tokenizer)


def read_part(part: str, arrays: Any) -> Given:
    """Inputs and labels of one part, checked."""
    if isinstance(arrays, dict) or (isinstance(arrays, tuple | list) and len(arrays) != 2):
        raise ValueError(f"{part}: give inputs and labels as a pair (x, y), or inputs alone; got {kind_of(arrays)}")
    inputs, label = arrays if isinstance(arrays, tuple | list) else (arrays, None)
    inputs = checked_inputs(as_array(inputs, part), part)
    return Given(inputs, None if label is None else checked_labels(label, len(inputs), part))


def check_parts(parts: dict[str, Given]) -> None:
    """Raises ValueError for parts that do not go together."""
    train = parts["train"]
    for name, part in parts.items():
        if part.inputs.shape[1:] != train.inputs.shape[1:] or part.inputs.dtype != train.inputs.dtype:
            raise ValueError(
                f"{name} has inputs of shape {part.inputs.shape[1:]} and {part.inputs.dtype}, train of "
                f"{train.inputs.shape[1:]} and {train.inputs.dtype}; bring them to one form"
            )
        if part.label is None and train.label is not None:
            raise ValueError(f"train has labels and {name} has none; give ({name}_inputs, {name}_labels)")
        kinds = {of.label.dtype.kind for of in (train, part) if of.label is not None}
        if len(kinds) > 1:
            raise ValueError(f"labels of train and {name} are integers here and strings there; give one kind")


def same_classes(parts: dict[str, Given], fixed_classes: bool | None) -> bool:
    """Whether the parts are of fixed classes, as asked for or as their labels are.

    Raises:
      ValueError: where they share some classes and not others, or not as asked for; names both meanings.
    """
    labels = {name: set(part.label.tolist()) for name, part in parts.items() if part.label is not None}
    if "train" not in labels:
        return False
    others = set().union(*(own for name, own in labels.items() if name != "train"))
    alone, shared = others - labels["train"], others & labels["train"]
    counted_apart = fixed_classes is False and parts["train"].label.dtype.kind == "i"  # type: ignore[union-attr]
    if counted_apart or {True: not alone, False: not shared, None: not alone or not shared}[fixed_classes]:
        return not alone if fixed_classes is None else fixed_classes
    first = f"{min(alone)!r} is only there" if alone else f"{min(shared)!r} is in both"
    raise ValueError(
        f"val and test share {len(shared)} classes with train and have {len(alone)} of their own ({first}). Fixed "
        "classes (fixed_classes=True): val and test hold classes of train only. Few-shot learning "
        "(fixed_classes=False): they hold classes that train does not have"
    )


def labelled(parts: dict[str, Given], class_names: Sequence[str] | None, same: bool, asked: bool) -> Labelled:
    """Classes and parts of all examples; ``asked``: equal integers of parts with classes of their own differ."""
    labels = {name: part.label.tolist() for name, part in parts.items() if part.label is not None}
    spelt: dict[Any, str] = {value: str(value) for own in labels.values() for value in sorted(set(own))}
    if class_names is not None and spelt:
        if isinstance(min(spelt), str) or not 0 <= min(spelt) <= max(spelt) < len(class_names):
            raise ValueError(
                f"class_names name integer labels from 0 to {len(class_names) - 1}; labels are from {min(spelt)!r} to "
                f"{max(spelt)!r}"
            )
        spelt = {value: str(class_names[value]) for value in spelt}
        if len(twice := [name for name, count in Counter(spelt.values()).items() if count > 1]):
            raise ValueError(f"class_names name two classes {twice[0]!r}; give each a name of its own")
    apart = asked and not same and len(spelt) < sum(len(set(own)) for own in labels.values())
    order: dict[str, None] = {}  # classes by their names, in the order of their labels
    for name in parts if apart else [""]:
        own = labels.get(name, []) if apart else spelt
        order.update(dict.fromkeys(f"{name} {spelt[value]}".strip() for value in sorted(set(own))))
    named: list[str] = []
    for name, part in parts.items():
        where = name if apart else ""
        own = labels.get(name)
        named += (
            [UNLABELLED] * len(part.inputs) if own is None else [f"{where} {spelt[value]}".strip() for value in own]
        )
    number = {name: c for c, name in enumerate(dict.fromkeys([*order, *named]))}
    part = np.repeat([PARTS.index(name) for name in parts], [len(of.inputs) for of in parts.values()])
    label = np.array([number[name] for name in named], np.int32)
    return Labelled(tuple(number), ("",) * len(number), label, part.astype(np.int32))
