"""A trained model on disk and in use: ``load(run_folder)`` gives ``embed``, ``adapt`` and ``predict``."""

from __future__ import annotations

import dataclasses
import json
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cattrs
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Shaped

from metarep_jax.distill.students import classifier, classifier_encoder
from metarep_jax.encoders import EncoderConfig, encoder_variables, input_kind, make_encoder
from metarep_jax.encoders.features import Whitened, Whitening, whitened_stats
from metarep_jax.files import atomic_write
from metarep_jax.metalearn import LearnerConfig, adapts_encoder, make_learner
from metarep_jax.train.storage.arrays import load_tree, save_tree
from metarep_jax.types import Examples, MetaLearner


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """What is needed, beside the arrays, to build a model again."""

    kind: Literal["learner", "classifier"]
    encoder: EncoderConfig
    learner: LearnerConfig
    shape: tuple[int, ...]  # of one input, such as (28, 28, 1)
    way: int = 5  # learner: classes of an episode
    class_names: tuple[str, ...] = ()  # classifier: its classes
    tokenizer: str = ""  # of text: the digest of the tokenizer whose ids it takes


class Prediction(NamedTuple):
    """``label`` [n]: class names or the labels given to ``adapt``; ``probability`` [n, classes]."""

    label: np.ndarray
    probability: Float[Array, "n classes"]


@dataclasses.dataclass(frozen=True)
class Model:
    """A trained model. Immutable: ``adapt`` returns an adapted model and leaves this one as it is."""

    spec: ModelSpec
    params: Any
    state: Any
    whitening: Whitening | None = None
    task: Any = None
    labels: tuple[Any, ...] = ()
    _compiled: dict[int, Any] = dataclasses.field(default_factory=dict, repr=False)  # by way; adapted models share it

    def embed(self, x: Shaped[Array | np.ndarray, "n ..."]) -> Float[Array, "n dim"]:
        """Features of ``x`` [n, h, w, c], uint8 or float in [0, 1]."""
        features = _embedder(make_encoder(self.spec.encoder))(self.encoder_params, self._checked(x))
        return features if self.whitening is None else self.whitening(features)

    def adapt(self, inputs: Shaped[Array | np.ndarray, "n ..."], labels: Any) -> Model:
        """A model for the classes of a few labelled examples.

        Args:
          inputs: support examples [n, h, w, c].
          labels: one label an example, of any kind that sorts (numbers, names).

        Raises:
          ValueError: for a classifier of fixed classes, or fewer or more classes than the learner's head takes.
        """
        if self.spec.kind == "classifier":
            raise ValueError("this model classifies fixed classes and does not adapt; call predict, or load a learner")
        inputs = self._checked(inputs)
        names, index = np.unique(np.asarray(labels), return_inverse=True)
        if len(index) != len(inputs):
            raise ValueError(f"adapt: {len(inputs)} inputs but {len(index)} labels")
        if self.fixed_way and len(names) != self.spec.way:
            raise ValueError(f"this learner was trained for {self.spec.way} classes, got examples of {len(names)}")
        support = Examples(inputs, jnp.asarray(index, jnp.int32))
        adapt, _ = self._functions(len(names))
        task = adapt(self.params, self.learner_state, support, jax.random.key(0))
        return dataclasses.replace(self, task=task, labels=tuple(names.tolist()))

    def predict(self, x: Shaped[Array | np.ndarray, "n ..."]) -> Prediction:
        """The class of every row of ``x`` [n, h, w, c].

        Raises:
          ValueError: when a learner has not been adapted.
        """
        x = self._checked(x)
        if self.spec.kind == "classifier":
            logits = self._logits(x)
            names = self.spec.class_names
        elif self.task is None:
            raise ValueError("call adapt(inputs, labels) with a few labelled examples before predict")
        else:
            _, predict = self._functions(len(self.labels))
            logits = predict(self.params, self.learner_state, self.task, x)["logits"]
            names = self.labels
        return Prediction(np.asarray(names)[np.asarray(logits.argmax(-1))], jax.nn.softmax(logits))

    @property
    def encoder_params(self) -> Any:
        """The encoder's Linen variables: what the next stage starts from."""
        if self.spec.kind == "classifier":
            return classifier_encoder(self.params, self.state)
        return encoder_variables(self.params, self.state)

    def learner(self, way: int) -> MetaLearner:
        """The learner, for episodes of ``way`` classes."""
        return make_learner(self.spec.learner, self.encoder, way=way)

    @property
    def fixed_way(self) -> bool:
        """Whether the learner has a head of its own, for a fixed number of classes (MAML and its kin)."""
        return "head" in self.params

    @property
    def encoder(self) -> Any:
        """The encoder, its features whitened where the model has a whitening."""
        encoder = make_encoder(self.spec.encoder, adapted=adapts_encoder(self.spec.learner))
        return encoder if self.whitening is None else Whitened(encoder)

    @property
    def learner_state(self) -> Any:
        """The state that ``learner``'s functions take: with the whitening, where the model has one."""
        if self.whitening is None:
            return self.state
        return {**self.state, "encoder": whitened_stats(self.state["encoder"], self.whitening)}

    def _functions(self, way: int) -> Any:
        if way not in self._compiled:
            learner = self.learner(way)
            self._compiled[way] = tuple(
                jax.jit(partial(function, ctx=learner.test_context)) for function in (learner.adapt, learner.predict)
            )
        return self._compiled[way]

    @cached_property
    def _logits(self) -> Any:
        model = classifier(self.encoder, len(self.spec.class_names), frozen="frozen" in self.state)
        return jax.jit(lambda x: model.outputs(self.params, self.state, x)[0]["logits"])

    def _checked(self, x: Any) -> Array:
        x = jnp.asarray(x)
        if x.ndim == len(self.spec.shape) and self.spec.shape[-1] == 1 and x.shape[1:] == self.spec.shape[:-1]:
            x = x[..., None]  # grey images without a channel axis
        if x.shape[1:] != self.spec.shape:
            wanted = ", ".join(map(str, self.spec.shape))
            raise ValueError(f"this model takes inputs of shape [n, {wanted}], got {list(x.shape)}")
        kind, floating = input_kind(self.spec.encoder), jnp.issubdtype(x.dtype, jnp.floating)
        wanted, fits = {
            "tokens": ("token ids, int32", x.dtype == jnp.int32),
            "waves": ("16-bit samples, or floats in [−1, 1]", x.dtype == jnp.int16 or floating),
        }.get(kind, ("uint8 images in 0–255 or floats in [0, 1]", x.dtype == jnp.uint8 or floating))
        if not fits:
            raise ValueError(f"this model takes {wanted}, got {x.dtype}")
        return x


@lru_cache(maxsize=64)
def _embedder(encoder: nn.Module) -> Any:
    """Compiled once an encoder, whichever models share it."""
    return jax.jit(partial(encoder.apply, running=True))


def save_model(folder: Path, model: Model) -> None:
    """Writes ``model`` under ``folder``/model, with a digest of its arrays."""
    folder = Path(folder) / "model"
    arrays = {"params": model.params, "state": model.state}
    if model.whitening is not None:
        arrays["whitening"] = model.whitening._asdict()
    save_tree(folder / "arrays", arrays)
    text = json.dumps(cattrs.unstructure(model.spec), indent=2)
    atomic_write(folder / "spec.json", text + "\n")


def load(run_folder: Path | str) -> Model:
    """The model that a finished run left in ``run_folder``.

    Raises:
      FileNotFoundError: when there is no finished model, naming what is there.
      ValueError: when its arrays are damaged.
    """
    run_folder = Path(run_folder)
    folder = run_folder / "model"
    if not (folder / "spec.json").is_file():
        finished = sorted(str(found.parent.parent) for found in run_folder.glob("**/model/spec.json"))
        hint = f"; finished models below it: {', '.join(finished)}" if finished else ""
        raise FileNotFoundError(f"{run_folder} holds no finished model{hint}")
    spec = cattrs.structure(json.loads((folder / "spec.json").read_text()), ModelSpec)
    arrays = jax.tree.map(jnp.asarray, load_tree(folder / "arrays"))
    whitening = Whitening(**arrays["whitening"]) if "whitening" in arrays else None
    return Model(spec, arrays["params"], arrays["state"], whitening)
