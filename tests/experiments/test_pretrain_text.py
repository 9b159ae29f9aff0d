"""Stage 1 on text from the command line: trained, judged, kept with its tokenizer; and what does not fit is refused."""

import json

import pytest

from experiments import evaluate, metatrain, pretrain
from experiments.cli import run_experiment
from experiments.configs import PretrainConfig
from experiments.flags import parse
from experiments.reports import pretrain_report

WORDS = [f"{a}{b}" for a in ("ba", "ke", "lo", "mi") for b in ("n", "r", "s", "t", "x")]


def sentences(root, classes=6, each=8):
    """Intents told by two words of their own, and five class folds."""
    (root / "banking77").mkdir(parents=True)
    names = [f"intent{c}" for c in range(classes)]
    rows = [
        f"{WORDS[c]} {WORDS[(c + i) % 20]} please {WORDS[c + 6]},{name}"
        for c, name in enumerate(names)
        for i in range(each)
    ]
    for part in ("train", "test"):
        (root / "banking77" / f"{part}.csv").write_text("\n".join(["text,category", *rows]))
    fold = root / "folds" / "BANKING77" / "01"
    fold.mkdir(parents=True)
    for part, some in (("train", names[:2]), ("valid", names[2:4]), ("test", names[4:])):
        (fold / f"labels.{part}.txt").write_text("\n".join(some))
    return root


def run(tmp_path, experiment, name, *words):
    common = ["--data.name", "banking77", "--data.data-dir", tmp_path / "data", "--data.cache-dir", tmp_path / "cache"]
    common += ["--data.length", 8, "--data.vocabulary", 300, "--run-folder", tmp_path / name, "--devices", 2]
    common += ["--evaluate.ways", 2, "--evaluate.shots", 1, "--evaluate.episodes", 8]
    configs = {
        pretrain: PretrainConfig,
        evaluate: evaluate.EvaluateConfig,
        metatrain: metatrain.MetatrainConfig,
    }
    works = {pretrain: pretrain_report, evaluate: evaluate.work, metatrain: metatrain.work}
    config = parse(configs[experiment], "", args=[str(word) for word in (*common, *words)])
    run_experiment(name, works[experiment], config)


MODEL = ["--encoder.name", "transformer", "--encoder.width", 8, "--encoder.depth", 1, "--encoder.heads", 2]
TRAIN = ["--pretrain.objective.name", "masked_lm", "--pretrain.train.steps", 4, "--pretrain.train.batch-size", 8]
TRAIN += ["--pretrain.optimiser.warmup-steps", 0, "--pretrain.train.no-tensorboard"]


@pytest.mark.slow
def test_text_is_pretrained_on_judged_and_loaded_with_its_own_tokenizer_alone(tmp_path, capsys):
    sentences(tmp_path / "data")
    run(tmp_path, pretrain, "first", *MODEL, *TRAIN)
    cells = json.loads((tmp_path / "first" / "result.json").read_text())["cells"]
    assert {"2w1s", "loss", "masked_accuracy"} <= cells["pretrained"].keys()
    assert cells["unigram"].keys() == {"loss", "masked_accuracy"}
    assert (tmp_path / "first" / "tokenizer.json").is_file()
    words = json.loads((tmp_path / "first" / "masked_words.json").read_text())
    assert words and all(sum(p for _, p in word["guesses"]) <= 1.001 for word in words)
    assert "figures/masked_words.png" in (tmp_path / "first" / "report.md").read_text()
    tasks = ["--learner", "prototypical", "--start", tmp_path / "first", "--meta.episode.way", 2]
    tasks += ["--meta.train.steps", 2, "--meta.train.batch-size", 2, "--meta.train.no-tensorboard"]
    run(tmp_path, metatrain, "second", *tasks)
    spec = json.loads((tmp_path / "second" / "model" / "spec.json").read_text())
    assert spec["tokenizer"] == json.loads((tmp_path / "first" / "model" / "spec.json").read_text())["tokenizer"] != ""
    with pytest.raises(SystemExit):
        run(tmp_path, metatrain, "third", *tasks, "--meta.augment", "glyph")
    assert "meta.augment is for images" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(SystemExit):
        run(tmp_path, evaluate, "other", "--model", tmp_path / "first", "--data.no-lowercase")
    assert "takes token ids of the tokenizer" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (TRAIN, "the encoder conv4 takes images, the data are tokens; encoders that take those: transformer"),
        ([*MODEL, "--pretrain.train.steps", 4, "--pretrain.train.batch-size", 8], "simclr needs views of images"),
        ([*MODEL, *TRAIN, "--encoder.vocabulary", 20], "give a larger --encoder.vocabulary"),
        ([*MODEL, *TRAIN, "--pretrain.train.batch-size", 64], "fewer than a batch of 64 rows"),
    ],
)
def test_what_does_not_fit_text_is_refused_before_training(tmp_path, capsys, words, message):
    sentences(tmp_path / "data")
    with pytest.raises(SystemExit):
        run(tmp_path, pretrain, "first", *words)
    assert message in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_running_text_is_judged_by_its_objective_beside_unigram_frequencies(tmp_path):
    texts = tmp_path / "texts"
    texts.mkdir()
    for part, lines in (("train", 60), ("test", 12)):
        (texts / f"{part}.txt").write_text(
            "\n".join(f"{WORDS[i % 20]} {WORDS[(3 * i) % 20]} here" for i in range(lines))
        )
    run(tmp_path, pretrain, "running", *MODEL, *TRAIN, "--data.name", "text", "--data.data-dir", texts)
    cells = json.loads((tmp_path / "running" / "result.json").read_text())["cells"]
    assert set(cells) == {"untrained", "pretrained", "unigram"}
    assert all(found.keys() == {"loss", "masked_accuracy"} for found in cells.values())
