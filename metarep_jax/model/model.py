"""A trained model in use: ``embed``, ``layers``, ``adapt`` and ``predict``, and its way to disk."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from metarep_jax.data.tokenizer import FILE as TOKENIZER_FILE
from metarep_jax.data.tokenizer import Tokenizer, load_tokenizer
from metarep_jax.distill.students import classifier, classifier_encoder
from metarep_jax.encoders import encoder_layers, encoder_variables, make_encoder
from metarep_jax.encoders.features import Whitened, Whitening, whitened_stats
from metarep_jax.files import atomic_write
from metarep_jax.metalearn import adapts_encoder, make_learner
from metarep_jax.model.inputs import check_inputs_in_use, check_labels
from metarep_jax.model.spec import ModelSpec, spec_of_json, spec_to_json
from metarep_jax.model.storage import read_arrays, read_model, write_model
from metarep_jax.types import Context, Examples, MetaLearner, NormMode

Inputs = (
    Any  # arrays [n, *shape]: images, token ids or waveforms; or a list of texts, where the model has its tokenizer
)


class Prediction(NamedTuple):
    """``label`` [n]: class names or the labels given to ``adapt``; ``probability`` [n, classes]."""

    label: np.ndarray
    probability: Float[Array, "n classes"]


@dataclasses.dataclass(frozen=True)
class Model:
    """A trained model. Immutable: ``adapt`` returns an adapted model and leaves this one as it is.

    ``task``, ``labels`` and ``norm`` are of an adapted model. ``tokenizer``, of a model of text, lets it take texts.
    """

    spec: ModelSpec
    params: Any
    state: Any
    whitening: Whitening | None = None
    task: Any = None
    labels: tuple[Any, ...] = ()
    norm: NormMode | None = None
    tokenizer: Tokenizer | None = None

    def embed(self, x: Inputs) -> Float[Array, "n dim"]:
        """Features of ``x`` [n, h, w, c], uint8 or float in [0, 1]; each row's depend on that row alone."""
        embed, x = _embedder(self._bare_encoder), self._checked(x)
        variables = self.encoder_params
        if not x.shape[0]:
            return jnp.zeros((0, jax.eval_shape(embed, variables, self._one_row(x)).shape[-1]))
        features = embed(variables, x)
        return features if self.whitening is None else self.whitening(features)

    def layers(self, x: Inputs, names: Sequence[str] | None = None) -> dict[str, Array]:
        """The encoder's layers, such as ``block1``, of ``x`` [n, h, w, c], by name, in the order of the computation.

        Args:
          x: as ``embed`` takes it.
          names: the layers to compute; None: all.

        Raises:
          ValueError: for a layer that the encoder does not have; lists those that it has.
        """
        return encoder_layers(self._bare_encoder, self.encoder_params, self._checked(x), names=names)

    def adapt(self, inputs: Inputs, labels: Any, *, norm: NormMode | None = None) -> Model:
        """A model for the classes of a few labelled examples.

        Args:
          inputs: support examples [n, h, w, c].
          labels: one label an example, whole numbers or names.
          norm: whose statistics batch norm uses, now and in ``predict`` (see ``metalearn/norm_modes.py``). None: those
            of the learner's test, except that no answer depends on what else is asked about: "support" stands in for
            "transductive", which tables may use, and whose numbers you get by asking for it.

        Raises:
          ValueError: for a classifier of fixed classes, inputs or labels that do not fit, or fewer or more classes
            than the learner's head takes.
        """
        if self.spec.kind == "classifier":
            raise ValueError("this model classifies fixed classes and does not adapt; call predict, or load a learner")
        inputs = self._checked(inputs)
        classes, index = check_labels(labels, len(inputs))
        if self.fixed_way and len(classes) != self.spec.way:
            raise ValueError(f"this learner was trained for {self.spec.way} classes, got examples of {len(classes)}")
        support = Examples(inputs, jnp.asarray(index, jnp.int32))
        adapt, _ = self._functions(len(classes), norm)
        task = adapt(self.params, self.learner_state, support, jax.random.key(0))
        return dataclasses.replace(self, task=task, labels=tuple(classes.tolist()), norm=norm)

    def predict(self, x: Inputs, *, norm: NormMode | None = None) -> Prediction:
        """The class of every row of ``x`` [n, h, w, c].

        Args:
          x: as ``embed`` takes it.
          norm: of a learner: as in ``adapt``; None: as that was called. A row's answer depends on the other rows of
            the call under "transductive", and never else.

        Raises:
          ValueError: when a learner has not been adapted.
        """
        x = self._checked(x)
        predict, names = self._predictor(norm)
        probability = predict(x) if x.shape[0] else jnp.zeros((0, len(names)))
        return Prediction(np.asarray(names)[np.asarray(probability.argmax(-1))], probability)

    def save(self, folder: Path | str) -> None:
        """Writes the model under ``folder``/model, for ``load``: JSON, arrays as safetensors, and the tokenizer of a
        model of text. What it was adapted to is not kept.

        Raises:
          OSError: when it cannot be written; a model that was there is kept.
        """
        folder = Path(folder).expanduser() / "model"
        arrays = {"params": self.params, "state": self.state}
        if self.whitening is not None:
            arrays["whitening"] = self.whitening._asdict()
        if self.tokenizer is not None:
            atomic_write(folder / TOKENIZER_FILE, self.tokenizer.text)
        write_model(folder, spec_to_json(self.spec), arrays)

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

    @property
    def _bare_encoder(self) -> nn.Module:
        return make_encoder(self.spec.encoder)

    def _predictor(self, norm: NormMode | None) -> tuple[Any, tuple[Any, ...]]:
        """``x -> probabilities`` and the names of their columns."""
        if self.spec.kind == "classifier":
            names = self.spec.class_names
            predict = _classifying(self.encoder, len(names), "frozen" in self.state)
            return partial(predict, self.params, self.state), names
        if self.task is None:
            raise ValueError("call adapt(inputs, labels) with a few labelled examples before predict")
        _, predict = self._functions(len(self.labels), norm or self.norm)
        return partial(predict, self.params, self.learner_state, self.task), self.labels

    def _functions(self, way: int, norm: NormMode | None) -> tuple[Any, Any]:
        learner = self.learner(way)
        return _compiled(learner, context_in_use(learner, norm))

    def _checked(self, x: Inputs) -> Array:
        return check_inputs_in_use(x, self.spec.shape, self._bare_encoder, self.tokenizer)

    def _one_row(self, x: Array) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((1, *self.spec.shape), x.dtype)


def context_in_use(learner: MetaLearner, norm: NormMode | None) -> Context:
    """The context of an answer in use: as at test, but not transductive unless ``norm`` says so.

    Raises:
      ValueError: for a norm mode that does not exist.
    """
    if norm is None:
        return learner.use_context
    if norm not in get_args(NormMode):
        raise ValueError(f"unknown norm {norm!r}; there are: {', '.join(get_args(NormMode))}")
    return dataclasses.replace(learner.test_context, norm=norm)


def save_model(folder: Path, model: Model) -> None:
    """``model.save(folder)``."""
    model.save(folder)


def load(run_folder: Path | str, *, allow: Sequence[str] | str = ()) -> Model:
    """The model that a finished run, or ``Model.save``, left in ``run_folder``.

    No code that the folder names runs unless it is allowed: an encoder or learner of its author's own is refused.

    Args:
      run_folder: the folder of the run, or of the model in it.
      allow: modules, or packages of modules, whose code the model may name, such as ``["my_module"]``.

    Raises:
      FileNotFoundError: when there is no finished model, naming what is there.
      ValueError: when one of its files is damaged (names it), it names code that is not allowed, or it was written by
        a newer version.
    """
    folder, plain = read_model(run_folder)
    spec = spec_of_json(plain, folder / "spec.json", allow)
    arrays = jax.tree.map(jnp.asarray, read_arrays(folder, plain))
    whitening = Whitening(**arrays["whitening"]) if "whitening" in arrays else None
    return Model(spec, arrays["params"], arrays["state"], whitening, tokenizer=_tokenizer_near(folder, spec.tokenizer))


def _tokenizer_near(folder: Path, digest: str) -> Tokenizer | None:
    """The tokenizer that a model needs: beside it, in its run's folder, or in that of which it is a stage."""
    for place in (folder, *folder.absolute().parents[:2]) if digest else ():
        if (place / TOKENIZER_FILE).is_file():
            try:
                return load_tokenizer(place, digest)
            except ValueError:  # another run's, or damaged: texts are then refused, token ids are not
                continue
    return None


@lru_cache(maxsize=64)
def _compiled(learner: MetaLearner, ctx: Context) -> tuple[Any, Any]:
    """``adapt``, and ``predict`` as probabilities, of the learner; compiled once, whichever models share it."""
    adapt = jax.jit(partial(learner.adapt, ctx=ctx))
    return adapt, jax.jit(lambda *args: jax.nn.softmax(learner.predict(*args, ctx=ctx)["logits"]))


@lru_cache(maxsize=64)
def _classifying(encoder: Any, classes: int, frozen: bool) -> Any:
    """``(params, state, inputs) -> probabilities`` of a classifier of fixed classes, compiled once."""
    model = classifier(encoder, classes, frozen=frozen)
    return jax.jit(lambda params, state, x: jax.nn.softmax(model.outputs(params, state, x)[0]["logits"]))


@lru_cache(maxsize=64)
def _embedder(encoder: nn.Module) -> Any:
    """Compiled once an encoder, whichever models share it."""
    return jax.jit(partial(encoder.apply, running=True))
