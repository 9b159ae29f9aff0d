"""Flags come from the chosen factories: their defaults, their descriptions, and refusals that list what there is."""

import dataclasses
from typing import ClassVar

import pytest

from experiments.flags import parse, parse_preset
from metarep_jax.choices import Choice, WeightedChoices
from metarep_jax.metalearn import LearnerConfig
from metarep_jax.pretrain import ObjectiveConfig
from metarep_jax.train import FitConfig


def my_learner(encoder, *, way: int, sharpness: float, shape: tuple[int, ...] = (1, 2), on: bool = False):
    """One of my own.

    Args:
      sharpness: how sharp it is.
    """


@dataclasses.dataclass(frozen=True)
class Meta:
    """Stage 2."""

    learner: LearnerConfig = LearnerConfig("maml", inner_lr=0.3)
    """The learner."""
    rounds: int = 2

    def __post_init__(self):
        if self.rounds < 1:
            raise ValueError(f"meta.rounds must be at least 1, got {self.rounds}")


@dataclasses.dataclass(frozen=True)
class Config:
    """All of it."""

    meta: Meta = Meta()
    objective: ObjectiveConfig = ObjectiveConfig("simclr")
    seed: int = 0
    """All randomness follows from it."""

    shorthands: ClassVar[dict[str, str]] = {"learner": "meta.learner"}


def read(*args):
    return parse(Config, "What it does.", args=list(map(str, args)))


def message_of(capsys, *args):
    with pytest.raises(SystemExit) as stopped:
        read(*args)
    assert stopped.value.code == 2
    captured = capsys.readouterr()
    return " ".join((captured.out + captured.err).split())


def test_without_flags_the_config_is_its_defaults():
    assert read() == Config()


def test_a_named_choice_has_its_own_defaults_and_flags():
    config = read("--learner", "imaml", "--meta.learner.cg-steps", 9, "--seed", 4)
    assert config.meta.learner == LearnerConfig("imaml", cg_steps=9)
    assert config.seed == 4


def test_the_presets_values_stay_where_the_name_stays():
    assert read("--meta.learner.order", 1).meta.learner == LearnerConfig("maml", inner_lr=0.3, order=1)
    assert read("--meta.learner", "maml").meta.learner.get("inner_lr") == 0.3
    assert read("--meta.learner", "anil").meta.learner == LearnerConfig("anil")


def test_one_of_ones_own_has_flags_of_its_own():
    name = f"{__name__}:my_learner"
    config = read("--learner", name, "--learner.sharpness", 2, "--learner.shape", 3, 4, "--learner.on", "True")
    assert config.meta.learner == LearnerConfig(name, sharpness=2.0, shape=(3, 4), on=True)


def test_switches_may_be_followed_by_true_and_false():
    assert read("--meta.learner.remat", "true").meta.learner.get("remat") is True
    assert read("--meta.learner.remat=False") == Config()


def test_a_flag_that_the_chosen_factory_does_not_have_is_refused_with_those_that_it_has(capsys):
    said = message_of(capsys, "--learner", "maml", "--meta.learner.cg-steps", 9)
    assert "the learner maml has no setting --meta.learner.cg-steps; it has: --meta.learner.inner-lr" in said


def test_names_and_values_that_cannot_be_are_refused(capsys):
    assert "unknown learner 'mamml' (did you mean maml?)" in message_of(capsys, "--learner", "mamml")
    assert "--meta.rounds must be at least 1, got 0" in message_of(capsys, "--meta.rounds", 0)
    assert "--meta.learner.sharpness" in message_of(capsys, "--learner", f"{__name__}:my_learner")


def test_help_describes_the_flags_of_what_is_chosen(capsys):
    with pytest.raises(SystemExit):
        read("--learner", f"{__name__}:my_learner", "--help")
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "How sharp it is. (required)" in said
    assert "All randomness follows from it. (default: 0)" in said
    assert "Divides the cosines" in said or "--objective.temperature FLOAT" in said


def test_a_preset_is_the_first_argument(capsys):
    presets = {"small": ("A small one.", Config(seed=3)), "large": ("A large one.", Config(seed=5))}
    assert parse_preset(presets, "All.", ["large", "--meta.rounds", "4"]) == Config(Meta(rounds=4), seed=5)
    with pytest.raises(SystemExit):
        parse_preset(presets, "All.", ["medium"])
    assert "unknown preset 'medium'; there are: small, large" in " ".join(capsys.readouterr().out.split())


def a_term(*, sharpness: float = 1.0):
    """A term.

    Args:
      sharpness: how sharp it is.
    """


def another(*, width: int = 3):
    """Another term."""


class TermConfig(Choice):
    what = "term"
    known = {"a_term": a_term, "another": another}  # noqa: RUF012
    default = "a_term"
    weighted = True


class LossConfig(WeightedChoices):
    kind = TermConfig


@dataclasses.dataclass(frozen=True)
class WithLoss:
    """A config with a weighted sum."""

    loss: LossConfig = LossConfig(((TermConfig("a_term", sharpness=2.0), 0.5),))


def test_several_terms_have_each_their_weight_and_flags():
    assert parse(WithLoss, "", args=[]) == WithLoss()
    flags = ["--loss", "a_term", "another", "--loss.another.weight", "3", "--loss.another.width", "5"]
    members = ((TermConfig("a_term", sharpness=2.0), 0.5), (TermConfig("another", width=5), 3.0))
    assert parse(WithLoss, "", args=flags).loss == LossConfig(members)
    own = f"{__name__}:another"
    assert parse(WithLoss, "", args=["--loss", own, "--loss.another.width", "7"]).loss == LossConfig(
        ((TermConfig(own, width=7), 1.0),)
    )


def test_weights_and_terms_that_cannot_be_are_refused(capsys):
    for flags, message in [
        (["--loss", "hin"], "unknown term 'hin'"),
        (
            ["--loss.a-term.width", "3"],
            "the term a_term has no setting --loss.a-term.width; it has: --loss.a-term.weight",
        ),
        (["--loss.a-term.weight", "-1"], "the weight of the term a_term must be positive, got -1.0"),
    ]:
        with pytest.raises(SystemExit):
            parse(WithLoss, "", args=flags)
        assert message in " ".join(capsys.readouterr().out.split())


def test_refusals_name_flags_as_they_are_typed(capsys):
    config = dataclasses.make_dataclass("WithTraining", [("train", FitConfig, FitConfig())], frozen=True)
    for kind, flags, message in [
        (config, ["--train.batch-size", "0"], "error: --train.batch-size must be at least 1, got 0"),
        (Config, ["--meta.rounds", "0"], "error: --meta.rounds must be at least 1, got 0"),
        (Config, ["--learner.inner-lr", "-1"], "error: --meta.learner: "),
    ]:
        with pytest.raises(SystemExit):
            parse(kind, "", args=flags)
        assert message in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    "words", [["--run-folder", "gs://bucket/run"], ["--data.data-dir=gs://bucket"], ["--start", "s3://b"]]
)
def test_every_flag_refuses_an_address_by_its_own_name(words, capsys):
    with pytest.raises(SystemExit):
        parse(Config, "", args=words)
    assert f"{words[0].partition('=')[0]} " in capsys.readouterr().out
