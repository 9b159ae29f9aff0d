"""One of several processes that train the tiny model together: ``python two_processes.py PORT COUNT INDEX FOLDER``."""

import dataclasses
import sys
from pathlib import Path

import jax
import numpy as np
import tiny

from metarep_jax.train import start_processes
from metarep_jax.train.storage.arrays import load_tree, save_tree

CONFIG = dataclasses.replace(tiny.CONFIG, steps=60, accumulate=1)


def main(port, count, index, folder):
    jax.config.update("jax_num_cpu_devices", 4 // count)
    start_processes(f"localhost:{port}", count, index)
    fitted = tiny.train(folder, CONFIG, devices=jax.devices())
    again = tiny.train(folder, CONFIG, devices=jax.devices())  # finished: taken from the checkpoint, by all
    for one, other in zip(jax.tree.leaves(fitted.params), jax.tree.leaves(again.params), strict=True):
        np.testing.assert_array_equal(one, other)
    assert (fitted.step, len(jax.devices()), jax.process_count()) == (again.step, 4, count)
    if index == 0:  # as a run's model is: by the first process alone, while the others go their way
        save_tree(Path(f"{folder}.model"), fitted.params)
        jax.tree.map(np.testing.assert_array_equal, load_tree(Path(f"{folder}.model")), fitted.params)
    np.savez(Path(f"{folder}.{index}.npz"), *map(np.asarray, jax.tree.leaves((fitted.params, fitted.state))))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]), sys.argv[4])
