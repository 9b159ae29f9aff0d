"""Experiments: pages of config, stage and report, each a command (see README.md)."""

from metarep_jax.huge_pages import restart_with_huge_pages

restart_with_huge_pages()
