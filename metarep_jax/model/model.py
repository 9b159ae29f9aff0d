"""A trained model in use: ``embed``, ``layers``, ``adapt`` and ``predict``, and its way to disk."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from metarep_jax.data.text.tokenizer import FILE as TOKENIZER_FILE
from metarep_jax.data.text.tokenizer import Tokenizer, load_tokenizer
from metarep_jax.distill.students import classifier_encoder
from metarep_jax.encoders import encoder_layers, encoder_variables, make_encoder
from metarep_jax.encoders.features import Whitened, Whitening, whitened_stats
from metarep_jax.files import atomic_write
from metarep_jax.metalearn import adapts_encoder, make_learner
from metarep_jax.model.in_use import adapting, classifying, context_in_use, embedding, predicting
from metarep_jax.model.inputs import check_inputs_in_use, check_labels
from metarep_jax.model.spec import ModelSpec, spec_of_json, spec_to_json
from metarep_jax.model.storage import read_arrays, read_model, write_model
from metarep_jax.types import Examples, MetaLearner, NormMode

# Arrays [n, *shape]: images, token ids or waveforms; or a list of texts, where the model has its tokenizer.
Inputs = Any
Answer = Literal["predict", "embed"]


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
        x, embed = self._checked(x), self.embedder()
        if x.shape[0]:
            return embed(x)
        row = jax.ShapeDtypeStruct((1, *self.spec.shape), x.dtype)
        return jnp.zeros((0, jax.eval_shape(embed, row).shape[-1]))

    def layers(self, x: Inputs, names: Sequence[str] | None = None) -> dict[str, Array]:
        """The encoder's layers, such as ``block1``, of ``x`` [n, h, w, c], by name, in the order of the computation.

        Args:
          x: as ``embed`` takes it.
          names: the layers to compute; None: all.

        Raises:
          ValueError: for a layer that the encoder does not have; lists those that it has.
        """
        x, encoder = self._checked(x), make_encoder(self.spec.encoder)
        return encoder_layers(encoder, self.encoder_params, x, names=names)

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
        learner = self.learner(len(classes))
        adapt = adapting(learner, context_in_use(learner, norm))
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
        predict, names = self.predictor(norm), self.classes
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

    def learner(self, way: int, dtype: Any = jnp.float32) -> MetaLearner:
        """The learner, for episodes of ``way`` classes, whose encoder computes in ``dtype``."""
        return make_learner(self.spec.learner, self._encoder("auto", dtype), way=way)

    @property
    def fixed_way(self) -> bool:
        """Whether the learner has a head of its own, for a fixed number of classes (MAML and its kin)."""
        return "head" in self.params

    @property
    def head_way(self) -> int | None:
        """The number of classes of such a head; None: it adapts to any number."""
        return self.spec.way if self.fixed_way else None

    @property
    def encoder(self) -> Any:
        """The encoder, its features whitened where the model has a whitening."""
        return self._encoder("auto")

    @property
    def classes(self) -> tuple[Any, ...]:
        """What the columns of ``predict``'s probabilities are of: fixed classes, or the labels given to ``adapt``."""
        return self.spec.class_names if self.spec.kind == "classifier" else self.labels

    @property
    def learner_state(self) -> Any:
        """The state that ``learner``'s functions take: with the whitening, where the model has one."""
        if self.whitening is None:
            return self.state
        return {**self.state, "encoder": whitened_stats(self.state["encoder"], self.whitening)}

    def export(self, folder: Path | str, what: Answer | None = None, *, platforms: Sequence[str] | None = None) -> Path:
        """Writes what the model computes as serialised StableHLO, for use without this package.

        Args:
          folder: gets ``model.stablehlo``, ``export.json``, which says how to use it, and the tokenizer of a model of
            text.
          what: "predict", probabilities of a classifier or an adapted model, or "embed", features; None: probabilities
            where the model has classes, else features.
          platforms: of "cpu", "cuda", "rocm" and "tpu"; None: all of cpu, cuda and tpu, or cpu alone where the
            encoder's operations do not exist on others.

        Returns:
          The folder.

        Raises:
          ValueError: for probabilities of a learner that has not been adapted, or an encoder of one's own that cannot
            be computed for a batch of any size.
        """
        from metarep_jax.model.export import export_model

        return export_model(self, Path(folder).expanduser(), what, platforms)

    def predictor(self, norm: NormMode | None = None, *, conv: str = "auto") -> Callable[[Array], Array]:
        """``x -> probabilities``, compiled: what ``predict`` computes; see there. ``conv``: how convolutions are."""
        encoder = self._encoder(conv)
        if self.spec.kind == "classifier":
            classify = classifying(encoder, len(self.spec.class_names), "frozen" in self.state)
            return partial(classify, self.params, self.state)
        if self.task is None:
            raise ValueError("call adapt(inputs, labels) with a few labelled examples before predict")
        learner = make_learner(self.spec.learner, encoder, way=len(self.labels))
        predict = predicting(learner, context_in_use(learner, norm or self.norm))
        return partial(predict, self.params, self.learner_state, self.task)

    def embedder(self, *, conv: str = "auto") -> Callable[[Array], Array]:
        """``x -> features``, compiled: what ``embed`` computes. ``conv``: how convolutions are."""
        embed = partial(embedding(make_encoder(self.spec.encoder, conv=conv)), self.encoder_params)
        whitening = self.whitening
        return embed if whitening is None else lambda x: whitening(embed(x))

    def _encoder(self, conv: str, dtype: Any = jnp.float32) -> Any:
        encoder = make_encoder(self.spec.encoder, adapted=adapts_encoder(self.spec.learner), conv=conv, dtype=dtype)
        return encoder if self.whitening is None else Whitened(encoder)

    def _checked(self, x: Inputs) -> Array:
        return check_inputs_in_use(x, self.spec.shape, make_encoder(self.spec.encoder), self.tokenizer)


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
