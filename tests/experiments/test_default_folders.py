"""Default run folders: no two documented commands share one, and data of a folder are called after it."""

import importlib
import shlex

import pytest

from experiments.configs import PretrainConfig
from experiments.flags import parse
from experiments.metatrain import MetatrainConfig

CONFIGS = {
    "pretrain": "PretrainConfig",
    "metatrain": "MetatrainConfig",
    "distill": "DistillConfig",
    "transfer": "TransferConfig",
    "rounds": "RoundsConfig",
    "evaluate": "EvaluateConfig",
}
OWN = "from metarep_jax.encoders.mlp import MLP\ndef my_learner(encoder, *, way): ...\ndef my_objective(encoder): ...\n"
OWN += "def my_encoder(): return MLP(widths=(2,))\n"


@pytest.mark.parametrize("experiment", CONFIGS)
def test_documented_commands_write_folders_of_their_own(experiment, tmp_path, monkeypatch):
    (tmp_path / "my_module.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module(f"experiments.{experiment}")
    lines = [
        line.partition(" # ")[0] for line in (module.__doc__ or "").splitlines() if "python -m experiments." in line
    ]
    folders = []
    for line in lines:
        _, _, name, *words = shlex.split(line)
        assert name == f"experiments.{experiment}"
        config = parse(getattr(module, CONFIGS[experiment]), "", args=words)
        folders.append(str(config.run_folder or config.default_folder))
    assert len(folders) > 1
    assert len(set(folders)) == len(folders), folders


def test_the_plainest_command_keeps_the_plainest_name_and_folders_of_data_have_their_own():
    assert MetatrainConfig().default_folder == "glyphs"
    for kind in ("birds", "cars"):
        config = parse(PretrainConfig, "", args=["--data", "folder", "--data.data-dir", f"/data/{kind}/"])
        assert config.default_folder == f"folder-{kind}"
