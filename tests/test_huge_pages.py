"""Experiments ask for huge pages once, where there are any, and no other program does."""

import json
import os
import subprocess
import sys

import pytest

from metarep_jax.huge_pages import huge_pages_offered, with_huge_pages

EXPERIMENT = ["python", "-m", "experiments.pretrain", "--seed", "1"]


def test_an_experiment_is_started_again_with_the_tunable_beside_others():
    found = with_huge_pages({"GLIBC_TUNABLES": "glibc.malloc.check=1", "HOME": "/h"}, EXPERIMENT, offered=True)
    assert found == {"GLIBC_TUNABLES": "glibc.malloc.check=1:glibc.malloc.hugetlb=1", "HOME": "/h"}
    assert with_huge_pages(found, EXPERIMENT, offered=True) is None  # once


@pytest.mark.parametrize(
    ("environment", "words", "offered"),
    [
        ({}, EXPERIMENT, False),
        ({"METAREP_HUGE_PAGES": "off"}, EXPERIMENT, True),
        ({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}, EXPERIMENT, True),
        ({}, ["python", "-m", "pytest", "experiments.pretrain"], True),
        ({}, ["python", "experiments.py"], True),
    ],
)
def test_other_programs_and_machines_stay_as_they_are(environment, words, offered):
    assert with_huge_pages(environment, words, offered=offered) is None


@pytest.mark.skipif(not huge_pages_offered(), reason="this system hands out no huge pages on request")
def test_a_command_keeps_its_words_and_its_process(tmp_path):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments/__init__.py").write_text(
        "from metarep_jax.huge_pages import restart_with_huge_pages\nrestart_with_huge_pages()\n"
    )
    (tmp_path / "experiments/show.py").write_text(
        "import json, os, sys\nprint(json.dumps([sys.argv[1:], os.getpid(), os.environ['GLIBC_TUNABLES']]))\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "GLIBC_TUNABLES"}
    words = [sys.executable, "-m", "experiments.show", "--name", "two words"]
    with subprocess.Popen(words, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as process:
        given, pid, tunables = json.loads(process.communicate()[0])
    assert (given, pid, tunables) == (words[3:], process.pid, "glibc.malloc.hugetlb=1")
