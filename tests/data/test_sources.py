"""Sources as choices: each has its own settings beside those that all share; a user's own is no different."""

import dataclasses
from pathlib import Path
from typing import Literal

import cattrs
import numpy as np
import pytest

from experiments.flags import parse
from metarep_jax.data import DataConfig, Source, load_splits
from metarep_jax.data.sources import SOURCES

SHARED = {"protocol", "data_dir", "cache_dir", "split_seed", "held_out"}


def stripes(*, size: int = 4, kind: Literal["h", "v"] = "h", data_dir: Path | None) -> Source:
    """Striped images.

    Args:
      size: pixels a side.
      kind: across or down.
    """
    assert data_dir is not None
    images = np.zeros((12, size, size, 1), np.uint8)
    images[:, ::2] = 255 if kind == "h" else 0
    return Source(images, np.arange(12) // 3, names=("a", "b", "c", "d"))


def with_parts() -> Source:
    """Two classes in given parts."""
    return Source(np.zeros((4, 2, 2, 1), np.uint8), np.array([0, 1, 0, 1]), ("a", "b"), (), np.array([0, 0, 2, 2]))


def no_data() -> dict:
    """Nothing that could be used."""
    return {}


def too_many_labels() -> Source:
    """A label without a name."""
    return Source(np.zeros((2, 2, 2, 1), np.uint8), np.array([0, 2]), ("a", "b"))


def test_a_source_of_ones_own_has_its_own_settings_beside_the_shared_ones(tmp_path):
    config = DataConfig(f"{__name__}:stripes", size=6, data_dir=tmp_path, cache_dir=tmp_path)
    assert set(config.settings) == {"size", "kind", *SHARED}
    assert DataConfig.settings_of(config.name)["size"].help == "Pixels a side."
    splits = load_splits(config)
    assert splits.train.inputs.shape[1:] == (6, 6, 1) and splits.protocol.name == "random-classes"
    assert load_splits(DataConfig(f"{__name__}:with_parts")).protocol.name == "given-parts"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no_data", "returned dict, wanted is a metarep_jax.data.Source"),
        ("too_many_labels", "there are 2 names of classes and labels from 0 to 2"),
        ("missing", "cannot be loaded: .*has no attribute 'missing'"),
    ],
)
def test_a_source_that_gives_no_data_is_refused(name, said):
    with pytest.raises(ValueError, match=said):
        load_splits(DataConfig(f"{__name__}:{name}"))


def test_a_setting_that_a_source_does_not_have_is_refused_with_those_that_it_has():
    with pytest.raises(
        ValueError, match=r"the data set fsdd has no setting image_size; it has: protocol, .* rate, seconds"
    ):
        DataConfig("fsdd", image_size=28)


@pytest.mark.parametrize("name", [*SOURCES, "tfds:mnist", "mnist", "mnist:3.0.1", "tfds-text:ag_news", "tfds-audio:x"])
def test_every_setting_of_every_source_is_described(name):
    settings = DataConfig.settings_of(name)
    assert settings.keys() >= SHARED
    assert all(setting.help for setting in settings.values())
    assert {"dataset", "corpus", "kind"}.isdisjoint(settings)


def test_a_config_becomes_plain_values_and_back():
    config = DataConfig("folder", image_size=32, protocol="share-of-each-class", split_seed=3)
    plain = cattrs.unstructure(config)
    assert (plain["name"], plain["image_size"], plain["protocol"], plain["stream"]) == (
        "folder",
        32,
        config.protocol,
        False,
    )
    assert cattrs.structure(plain, DataConfig) == config


def test_arrays_cannot_be_loaded_by_name():
    with pytest.raises(ValueError, match=r"arrays have no name to load them by; give them to .*splits_from_arrays"):
        load_splits(DataConfig("arrays"))


@pytest.mark.parametrize(("name", "value"), [("split_seed", -1), ("held_out", 0.0)])
def test_shared_settings_out_of_range_are_refused_at_once(name, value):
    with pytest.raises(ValueError, match=f"--data.{name.replace('_', '-')} must"):
        DataConfig(**{name: value})


@dataclasses.dataclass(frozen=True)
class Flags:
    """Flags of the data."""

    data: DataConfig = DataConfig()


def test_each_source_has_flags_of_its_own(tmp_path, capsys):
    def read(*args):
        return parse(Flags, None, args=[str(arg) for arg in args]).data

    config = read("--data", "folder", "--data.data-dir", tmp_path, "--data.image-size", 28, "--data.stream", "True")
    assert config == DataConfig("folder", data_dir=tmp_path, image_size=28, stream=True)
    assert read("--data", f"{__name__}:stripes", "--data.kind", "v").get("kind") == "v"
    assert read("--data", "brown+wikitext2", "--data.no-lowercase").get("lowercase") is False
    with pytest.raises(SystemExit):
        read("--data", "fsdd", "--data.image-size", 28)
    assert "the data set fsdd has no setting --data.image-size; it has: --data.protocol" in capsys.readouterr().out
