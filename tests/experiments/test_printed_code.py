"""The code that pages print runs as it is printed; own methods run through the command line with their flags."""

import re
import runpy
import shlex
import sys
import traceback
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from printed import OWN, block_with, printed_commands, save_printed_modules

from experiments.readme import ROOT
from metarep_jax.encoders import EncoderConfig, make_encoder
from metarep_jax.metalearn import LearnerConfig
from metarep_jax.model import Model, ModelSpec
from metarep_jax.report.results import read_result
from metarep_jax.stages import compute, figures

SIZE = 8  # pixels a side
ROOMS = ("experiments", "metarep_jax")  # whose calls the reader's guide lists
DATA = "--data stripes:stripes --data.image-size 8 --data.per-class 4 --data.noise 0.1"
TEST = "--evaluate.ways 2 --evaluate.shots 1 --evaluate.episodes 4 --evaluate.mode-episodes 2 --devices 1"


def small_model(way=5):
    """A model that was not trained, for images of ``SIZE``."""
    encoder, learner = EncoderConfig("mlp", width=4), LearnerConfig("prototypical")
    variables = make_encoder(encoder).init(jax.random.key(0), jnp.zeros((2, SIZE, SIZE, 1)))
    spec = ModelSpec("learner", encoder, learner, (SIZE, SIZE, 1), way=way)
    return Model(spec, {"encoder": variables["params"]}, {"encoder": variables["batch_stats"]})


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """A reader who saved the printed methods in an empty folder; figures, which other tests draw, are left out."""
    save_printed_modules(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in [name for name in dir(figures) if name.endswith("_figure")]:
        monkeypatch.setattr(figures, name, lambda *args, **keywords: Path("none.png"))
    yield tmp_path
    for name in OWN:
        sys.modules.pop(name, None)


def run_printed(monkeypatch, page, method, *smaller):
    """Runs the command of ``page`` that names ``method``, with further flags that make it smaller; its result."""
    (words,) = [words for words in printed_commands()[page] if any(word == f"{method}:{method}" for word in words)]
    monkeypatch.setattr(sys, "argv", [*words, *shlex.split(" ".join(smaller)), "--run-folder", "run"])
    runpy.run_module(words[0], run_name="__main__")
    return read_result("run/result.json")


@pytest.mark.filterwarnings("ignore:.*found in sys.modules.*:RuntimeWarning")
class TestMethodsOfOnesOwn:
    """Printed code, through the command line."""

    def test_a_learner_of_ones_own_trains_with_its_flag(self, reader, monkeypatch):
        fit = "--meta.train.steps 3 --meta.train.batch-size 2 --meta.validation-episodes 2 --meta.episode.query 2"
        encoder = "--encoder mlp --encoder.width 4 --data.classes 12"
        result = run_printed(monkeypatch, "README.md", "discriminant", DATA, TEST, encoder, fit)
        assert result.config["meta"]["learner"] == {"name": "discriminant:discriminant", "l2": 0.1}
        assert "2w1s" in result.cells["meta_learned"]

    def test_a_data_set_an_encoder_and_an_objective_of_ones_own_train_with_their_flags(self, reader, monkeypatch):
        fit = "--pretrain.train.steps 3 --pretrain.train.batch-size 4 --pretrain.optimiser.warmup-steps 0"
        data = "--data.image-size 8 --data.per-class 4 --encoder.width 4"
        result = run_printed(monkeypatch, "CONTRIBUTING.md", "thumbnail", data, TEST, fit)
        assert result.config["data"]["classes"] == 30
        assert result.config["encoder"] == {"name": "filters:filters", "width": 4, "size": 3}
        assert result.config["pretrain"]["objective"] == {"name": "thumbnail:thumbnail", "side": 4}
        assert "2w1s" in result.cells["pretrained"]

    def test_a_term_of_ones_own_distils_with_its_flag(self, reader, monkeypatch):
        small_model().save("runs/metatrain-glyphs")
        fit = "--distill.train.steps 3 --distill.episode.way 2 --distill.episode.query 2"
        student = "--student mlp --student.width 4 --distill.validation-episodes 2 --data.classes 12"
        result = run_printed(monkeypatch, "CONTRIBUTING.md", "correlation", DATA, TEST, fit, student)
        terms = {term["name"]: term for term in result.config["distill"]["loss"]}
        assert terms["correlation:correlation"] == {"weight": 0.5, "name": "correlation:correlation", "power": 2.0}
        assert "2w1s" in result.cells["student"]


@pytest.mark.parametrize("name", OWN)
def test_printed_methods_have_at_most_thirty_lines(name):
    assert len(block_with(OWN[name], f"def {name}(").splitlines()) <= 30


def test_training_on_your_own_arrays_runs_as_printed(reader, monkeypatch, capsys):
    monkeypatch.setattr(compute, "local_devices", lambda requested=None: jax.devices()[:1])  # of eight on two cores
    code = block_with(ROOT / "README.md", "splits_from_arrays")
    assert len(code.splitlines()) <= 16
    random = np.random.default_rng(0)

    def some(first, classes, each):  # classes are shades of grey, under noise
        label = np.repeat(np.arange(first, first + classes), each)
        noise = random.integers(0, 20, (len(label), SIZE, SIZE))
        return (10 * label[:, None, None] + noise).astype(np.uint8), label

    parts = {"train": some(0, 8, 12), "val": some(8, 5, 7), "test": some(13, 5, 7)}
    exec(code, {f"{letter}_{part}": array for part, pair in parts.items() for letter, array in zip("xy", pair)})
    printed = dict(re.findall(r"^(5w\ds) ([\d.]+) ± [\d.]+%$", capsys.readouterr().out, re.MULTILINE))
    assert printed.keys() == {"5w1s", "5w5s"}
    assert float(printed["5w5s"]) > 50
    assert (reader / "runs" / "my-learner" / "model" / "spec.json").is_file()


def test_the_reader_s_guide_is_the_stack_of_a_training(reader, monkeypatch):
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    guide = re.findall(r"^\d+\. `(\S+): ([\w<>]+)`", page, re.MULTILINE)
    stacks = []

    def recorded(adapt):
        def adapt_and_record(params, state, support, key, ctx):
            if ctx.train:
                frames = [(Path(frame.filename), frame.name) for frame in traceback.extract_stack()]
                stacks.append(
                    [(path, name) for path, name in frames if any(path.is_relative_to(ROOT / room) for room in ROOMS)]
                )
            return adapt(params, state, support, key, ctx)

        return adapt_and_record

    make = LearnerConfig.build
    monkeypatch.setattr(
        LearnerConfig,
        "build",
        lambda *args, **keywords: (made := make(*args, **keywords))._replace(adapt=recorded(made.adapt)),
    )
    words = f"--learner maml --encoder mlp --encoder.width 4 --data.classes 12 {DATA} {TEST}"
    fit = "--meta.train.steps 1 --meta.train.batch-size 1 --meta.validation-episodes 1 --meta.episode.query 1"
    monkeypatch.setattr(sys, "argv", ["metatrain", *shlex.split(f"{words} {fit}"), "--run-folder", "run"])
    monkeypatch.delitem(sys.modules, "experiments.metatrain", raising=False)
    runpy.run_module("experiments.metatrain", run_name="__main__")
    seen = [(str(path.relative_to(ROOT)), name) for path, name in stacks[0] if path.name != Path(__file__).name]
    assert [hop for hop in seen if not hop[0].startswith("tests")] == guide[:-1]
    assert len(guide) <= 20


def test_the_use_of_a_model_runs_as_printed(reader, capsys):
    small_model().save("runs/quickstart-glyphs/student")
    images = np.random.default_rng(0).integers(0, 100, (4, SIZE, SIZE, 1), dtype=np.uint8)
    images[1::2, :, : SIZE // 2] += 150
    exec(block_with(ROOT / "README.md", "metarep_jax.load"), {"images": images, "support_images": images})
    assert capsys.readouterr().out.strip() == "['ka' 'ga' 'ka' 'ga']"
    assert (reader / "letters" / "model" / "spec.json").is_file()
    assert (reader / "letters-export" / "model.stablehlo").is_file()
