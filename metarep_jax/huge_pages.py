"""Memory in huge pages, which glibc must be asked for before a process starts.

A training step on a CPU maps and touches large temporary arrays anew; in pages of 2 MiB instead of 4 KiB a step of
ResNet-18 takes a fifth less time. Linux hands them out where ``TRANSPARENT`` says "madvise" and glibc, from 2.35 on, is
told to ask: by a variable that it reads at the start of a process, and not later.
"""

import itertools
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

TRANSPARENT = Path("/sys/kernel/mm/transparent_hugepage/enabled")
TUNABLE = "glibc.malloc.hugetlb"
SWITCH = "METAREP_HUGE_PAGES"  # "off": never


def restart_with_huge_pages() -> None:
    """Starts a ``python -m experiments.NAME`` again, in the same process and with the same words, with huge pages.

    Call it before anything large is imported. Does nothing where they are not to be had, are asked for already, or
    $METAREP_HUGE_PAGES is "off", and nothing in a program of any other name.
    """
    environment = with_huge_pages(os.environ, sys.orig_argv, offered=huge_pages_offered())
    if environment is not None:
        os.execve(sys.executable, sys.orig_argv, environment)


def with_huge_pages(environment: Mapping[str, str], words: Sequence[str], *, offered: bool) -> dict[str, str] | None:
    """The environment of an experiment that asks for huge pages; None where the process should stay as it is.

    Args:
      environment: of the running process.
      words: of its command line, Python's own among them.
      offered: whether the system hands them out.
    """
    tunables = environment.get("GLIBC_TUNABLES", "")
    experiment = any(pair[0] == "-m" and pair[1].startswith("experiments.") for pair in itertools.pairwise(words))
    if not offered or not experiment or TUNABLE in tunables or environment.get(SWITCH) == "off":
        return None
    return {**environment, "GLIBC_TUNABLES": ":".join(filter(None, [tunables, f"{TUNABLE}=1"]))}


def huge_pages_offered() -> bool:
    """Whether glibc can ask this system for huge pages."""
    name, version = platform.libc_ver()
    if sys.platform != "linux" or name != "glibc" or tuple(map(int, version.split(".")[:2])) < (2, 35):
        return False
    return TRANSPARENT.is_file() and "[madvise]" in TRANSPARENT.read_text()
