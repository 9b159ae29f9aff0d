"""Which settings decide a result: two configs that differ in others are the same training."""

import json
from collections.abc import Mapping
from typing import Any

# Nested dicts of these names are left out wherever they stand.
SHOWN = frozenset({"progress", "profile", "tensorboard"})
WHERE = frozenset({"data_dir", "cache_dir", "tokenizer_from", "workers"})
# Of the whole config, and of every FitConfig in it. A checkpoint's course is compared by ``resume.plan_course``.
WHOLE = frozenset({"run_folder", "devices", "coordinator", "processes", "process_index", "inputs", "history", "course"})
FIT = frozenset({"steps", "on_more_steps", "log_every", "checkpoint_every", "steps_per_dispatch", "keep"})
LATER = {"lars_norm": "sum", "on_more_steps": "stretch"}  # settings that came later, with what held before they came


def check_same_config(before: dict, now: dict, what: str, *, other_steps: bool = False) -> None:
    """Raises ValueError that names the settings in which two configs (nested dicts) differ.

    Settings that cannot change a result are not compared; nor, with ``other_steps``, are numbers of steps.
    """
    uses = now.get("course", {})
    differences = config_differences(deciding_settings(before, uses), deciding_settings(now, uses))
    if not other_steps:
        lengths = changed_steps(before, now).items()
        differences += [f"{name}: {old!r} before, {new!r} now" for name, (old, new) in lengths]
    if differences:
        raise ValueError(
            f"{what} belongs to another config ({'; '.join(differences)}); use those settings or another folder"
        )


def deciding_settings(config: Any, uses: Mapping[str, Any]) -> dict[str, Any]:
    """The config (nested dicts) without what cannot change a result.

    Args:
      config: of a run, or of a checkpoint.
      uses: what is known of the training: "selects", whether the best by validation is chosen (else
        ``validate_every`` decides nothing), and "refreshes", whether a pool is refreshed.
    """
    kept = {name: value for name, value in config.items() if name not in WHOLE}
    return _prune(kept, uses)


def changed_steps(before: dict, now: dict) -> dict[str, tuple[int, int]]:
    """The numbers of steps (or epochs) in which two configs differ, by their names: before and now."""
    old, new = _flat(_plain(before)), _flat(_plain(now))
    lengths = [name for name in _lengths(_plain(before)) if name in new and old[name] != new[name]]
    return {name: (old[name], new[name]) for name in lengths}


def config_differences(before: dict, now: dict) -> list[str]:
    """The settings in which two configs (nested dicts, one perhaps read from JSON) differ.

    None counts as absent: a setting that came later, with None by default, is no difference.
    """
    old, new = _flat(_plain(before)), _flat(_plain(now))

    def value(config: dict, name: str) -> Any:
        return config.get(name, LATER.get(name.rpartition(".")[2]))

    return [
        f"{name}: {old.get(name, '(absent)')!r} before, {new.get(name, '(absent)')!r} now"
        for name in sorted(old.keys() | new.keys())
        if value(old, name) != value(new, name)
    ]


def _is_fit(tree: Any) -> bool:
    """Whether a dict is a ``FitConfig``'s."""
    return isinstance(tree, dict) and {"steps", "batch_size", "accumulate"} <= tree.keys()


def _prune(tree: Any, uses: Mapping[str, Any]) -> Any:
    if not isinstance(tree, dict):
        return tree
    kept = {name: _prune(value, uses) for name, value in tree.items() if name not in SHOWN | WHERE}
    if any(map(_is_fit, tree.values())):
        kept.pop("epochs", None)
    if not _is_fit(tree):
        return kept
    kept = {name: value for name, value in kept.items() if name not in FIT}
    if uses.get("selects") is False:
        kept.pop("validate_every", None)
    if "refreshes" in uses:
        kept.pop("refresh_every", None)
    if uses.get("refreshes"):
        kept["refresh_every"] = tree["refresh_every"] or tree["validate_every"] or tree["checkpoint_every"]
    return kept


def _lengths(tree: dict, prefix: str = "") -> list[str]:
    own = [f"{prefix}steps"] if _is_fit(tree) else []
    if "epochs" in tree and any(map(_is_fit, tree.values())):
        own.append(f"{prefix}epochs")
    dicts = {name: child for name, child in tree.items() if isinstance(child, dict)}
    return own + [length for name, child in dicts.items() for length in _lengths(child, f"{prefix}{name}.")]


def _plain(config: Any) -> Any:
    return json.loads(json.dumps(config, default=str))


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {
        key: leaf
        for name, child in tree.items()
        for key, leaf in _flat(child, f"{prefix}.{name}" if prefix else str(name)).items()
    }
