"""A model as serialised StableHLO, for use without this package: ``jax.export``, for a batch of any size.

What reads it needs JAX and flatbuffers alone::

    exported = jax.export.deserialize(Path("model.stablehlo").read_bytes())
    answers = exported.call(x)

References:
  https://docs.jax.dev/en/latest/export/export.html
"""

import json
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import jax

from metarep_jax.data.text.tokenizer import FILE as TOKENIZER_FILE
from metarep_jax.encoders import input_dtype, input_kind, make_encoder
from metarep_jax.files import atomic_write
from metarep_jax.metalearn import make_learner
from metarep_jax.model.in_use import context_in_use
from metarep_jax.model.model import Answer, Model

PLATFORMS = ("cpu", "cuda", "tpu")
KNOWN_PLATFORMS = (*PLATFORMS, "rocm")
PREPROCESSING = {
    "images": "uint8 images in 0-255, {size}, as the training data's were (crop, polarity, order of channels); scaling "
    "to [0, 1] and normalising are inside",
    "tokens": f"rows of {{size}} token ids: [CLS], the text's tokens, [SEP], then zeros, by {TOKENIZER_FILE}",
    "waves": "16-bit samples of mono recordings, {size} a row, filled up with -32768 after a recording's end",
}


def export_model(
    model: Model, folder: Path, what: Answer | None = None, platforms: Sequence[str] | None = None
) -> Path:
    """Writes what a model computes to ``folder``: see ``Model.export``."""
    what = what or ("predict" if model.classes else "embed")
    if what not in get_args(Answer):
        raise ValueError(f"what must be one of {', '.join(get_args(Answer))}, got {what!r}")
    if unknown := sorted(set(platforms or ()) - {*KNOWN_PLATFORMS}):
        raise ValueError(f"unknown platform {unknown[0]!r}; there are: {', '.join(KNOWN_PLATFORMS)}")
    function = _answers(model) if what == "predict" else model.embedder(conv="lax")
    encoder = make_encoder(model.spec.encoder)
    dtype = jax.dtypes.canonicalize_dtype(input_dtype(encoder))
    exported = _lowered(function, model.spec.shape, dtype, platforms)
    kind, size = input_kind(encoder), " x ".join(map(str, model.spec.shape))
    description = {
        "format": "StableHLO, serialised by jax.export",
        "use": "jax.export.deserialize(open('model.stablehlo', 'rb').read()).call(x)",
        "output": "probabilities, a column a class" if what == "predict" else "features",
        "classes": list(model.classes) if what == "predict" else [],
        "input": {"shape": ["batch", *model.spec.shape], "dtype": str(dtype)},
        "preprocessing": PREPROCESSING[kind].format(size=size),
        "answers depend on other rows": _norm(model) == "transductive" and what == "predict",
        "platforms": list(exported.platforms),
        "versions": {
            **{name: version(name) for name in ("metarep_jax", "jax", "jaxlib")},
            "calling convention": exported.calling_convention_version,
        },
    }
    atomic_write(folder / "model.stablehlo", bytes(exported.serialize()))
    if model.tokenizer is not None:
        atomic_write(folder / TOKENIZER_FILE, model.tokenizer.text)
    atomic_write(folder / "export.json", json.dumps(description, indent=2, default=str, ensure_ascii=False) + "\n")
    return folder


def _lowered(
    function: Callable[[Any], Any], shape: tuple[int, ...], dtype: Any, platforms: Sequence[str] | None
) -> Any:
    (batch,) = jax.export.symbolic_shape("batch")
    x = jax.ShapeDtypeStruct((batch, *shape), dtype)

    def lower(platforms: Sequence[str]) -> Any:
        return jax.export.export(jax.jit(function), platforms=tuple(platforms))(x)

    try:
        return lower(platforms or PLATFORMS)
    except (NotImplementedError, ValueError):  # an operation that one of the platforms lacks
        if platforms is not None:
            raise
        return lower(("cpu",))
    except TypeError as error:  # Python's int() of the batch size, for instance
        raise ValueError(f"the encoder cannot be computed for a batch of any size, as an export is: {error}") from error


def _answers(model: Model) -> Callable[[Any], Any]:
    """Probabilities; of "one_query", row by row, since its usual blocks of rows need a batch of known size."""
    predict = model.predictor(conv="lax")
    return jax.vmap(lambda row: predict(row[None])[0]) if _norm(model) == "one_query" else predict


def _norm(model: Model) -> str | None:
    if model.spec.kind == "classifier" or model.task is None:
        return None
    learner = make_learner(model.spec.learner, model.encoder, way=len(model.labels))
    return context_in_use(learner, model.norm).norm
