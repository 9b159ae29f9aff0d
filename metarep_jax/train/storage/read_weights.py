"""The weights in a checkpoint, by themselves: to judge a training that goes on, was ended, or came to its end."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from metarep_jax.train.storage.arrays import read_packed

STATE = "[0]['train']."  # how the names of a checkpoint's leaves begin: see ``resume.save_position``


class Weights(NamedTuple):
    """Of one checkpoint: arrays by name, such as "params['encoder']['Dense_0']['kernel']" or "state['encoder'][…]".

    Parameters are their average, where the training kept one.
    """

    step: int
    leaves: dict[str, np.ndarray]

    def has(self, part: str) -> bool:
        """Whether there is anything under a name, such as "params['student']"."""
        return any(name.startswith(part) for name in self.leaves)

    def tree(self, part: str, like: PyTree) -> PyTree:
        """The arrays under a name, in a tree of the structure and shapes of ``like``.

        Raises:
          ValueError: when one of them is missing or has another shape.
        """

        def leaf(path: Any, wanted: Any) -> jax.Array:
            name = f"{part}{jax.tree_util.keystr(path)}"
            if name not in self.leaves or self.leaves[name].shape != wanted.shape:
                actual = self.leaves[name].shape if name in self.leaves else "missing"
                raise ValueError(f"the checkpoint of step {self.step} does not fit: {name} is {actual}")
            return jnp.asarray(self.leaves[name])

        return jax.tree.map_with_path(leaf, like)


def read_weights(folder: Path | str, step: int | None = None) -> Weights:
    """The weights of one checkpoint of a training; nothing on disk is changed, and the training may be under way.

    Args:
      folder: the ``folder`` of ``fit``.
      step: of the checkpoint; None: the latest.

    Raises:
      FileNotFoundError: when there is no checkpoint, or none of that step; says which there are.
      ValueError: when it is damaged, or holds several seeds.
    """
    place = Path(folder).absolute() / "checkpoints"
    steps = sorted(int(path.name) for path in place.glob("*") if path.name.isdigit())
    if not steps or step not in (None, *steps):
        wanted = "no checkpoint" if step is None else f"no checkpoint of step {step}"
        hint = f"; there are: {', '.join(map(str, steps))}" if steps else ""
        raise FileNotFoundError(f"{folder} holds {wanted}{hint}")
    step = steps[-1] if step is None else step
    arrays, meta = read_packed(place / str(step), "given")
    if (seeds := meta["given"]["settings"]["fit"]["seeds"]) != 1:
        raise ValueError(f"the checkpoint {place / str(step)} holds {seeds} seeds; weights are read of one")
    named = zip([name for name, *_ in meta["leaves"]], arrays, strict=True)
    leaves = {name.removeprefix(STATE): leaf for name, leaf in named if name.startswith(STATE)}
    averages = {name: leaf for name, leaf in leaves.items() if name.startswith("average")}
    return Weights(step, leaves | {f"params{name.removeprefix('average')}": leaf for name, leaf in averages.items()})
