"""The types that cross rooms: data as it flows, and the interfaces of the three stages.

An algorithm is a ``NamedTuple`` of pure functions, made by a factory with keyword arguments, the way an optax
optimiser is. Fields that few methods need have defaults. ``params`` is what a gradient reaches, ``state`` is what a
step changes by other means (running statistics, queues, momentum teachers); both are trees of arrays.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key, PyTree, Shaped

from metarep_jax import losses
from metarep_jax.typed_settings import Settings

Metrics = dict[str, Any]
Outputs = dict[str, Any]
Params = Any
State = Any

NormMode = Literal["transductive", "support", "one_query", "running"]
Rotations = Literal["none", "classes", "random"]
Need = Literal["views", "classmates"]

PAD_TOKEN = 0  # fills up rows of token ids after their end: inputs stay plain arrays, and tell their length themselves
UNKNOWN_TOKEN, FIRST_TOKEN, END_TOKEN, MASK_TOKEN = 1, 2, 3, 4  # [UNK], [CLS], [SEP] and [MASK]
SPECIAL_TOKENS = 5  # ids below are none of a text's own
PAD_SAMPLE = -32768  # the same for 16-bit waveforms; no recording holds it (its lowest sample becomes −32767)


class Examples(NamedTuple):
    """Labelled examples of one task: ``inputs`` [n, ...], ``label`` [n] (or targets [n, d]), ``mask`` [n] or None.

    Rows whose mask is False are padding: they enter neither losses nor batch statistics.
    """

    inputs: PyTree[Shaped[Array, "..."]]
    label: Shaped[Array, "..."]
    mask: Bool[Array, "..."] | None = None


class Episode(NamedTuple):
    """One task: what a learner adapts on (``support``) and what it is judged on (``query``)."""

    support: Examples
    query: Examples


@dataclasses.dataclass(frozen=True)
class EpisodeSpec(Settings):
    """The shape of a task.

    With ``least_way`` or ``least_shot`` episodes are mixed: each draws its own number of classes and of support
    examples a class between these and ``way`` and ``shot``, and masks the rest.
    """

    way: int = 5
    """Classes of a task."""
    shot: int = 1
    """Support examples a class."""
    query: int = 15
    """Query examples a class."""
    rotations: Rotations = "none"
    """classes: every quarter turn of a class is a class of its own; random: each class of an episode is turned by one
    random quarter turn."""
    least_way: int | None = None
    """Mixed episodes: the least number of classes."""
    least_shot: int | None = None
    """Mixed episodes: the least number of support examples a class."""

    def __post_init__(self):
        super().__post_init__()
        for name, least in (("way", 1), ("shot", 1), ("query", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"EpisodeSpec.{name} must be at least {least}, got {getattr(self, name)}")
        for name, most in (("least_way", self.way), ("least_shot", self.shot)):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= most:
                raise ValueError(f"EpisodeSpec.{name} must lie between 1 and {most}, got {value}")

    @property
    def mixed(self) -> bool:
        """Whether episodes differ in way or shot."""
        return self.least_way is not None or self.least_shot is not None

    @property
    def name(self) -> str:
        """The column's name in result files, such as ``5w1s``."""
        return f"{self.way}w{self.shot}s"


class Pool(NamedTuple):
    """A labelled data set that lives on the device, with a table of where each class's examples are."""

    inputs: Shaped[Array, "n ..."]  # images stay uint8
    label: Int[Array, " n"]  # 0 … classes-1
    members: Int[Array, "classes most"]  # members[c, :count[c]] are the rows of class c; the rest is padding
    count: Int[Array, " classes"]


class Partnered(NamedTuple):
    """A pool whose examples have partners that may stand for them as a second view: a row draws one of its k."""

    pool: Pool
    partner: Int[Array, "n k"]  # rows of the pool


class Keys(NamedTuple):
    """Randomness of one step: ``example`` has one key an example (or task) of this device's slice of the global
    batch, ``shared`` is the same on every device. Neither depends on how many devices there are."""

    example: Key[Array, " n"]
    shared: Key[Array, ""]


class Feed(NamedTuple):
    """Where ``fit`` takes batches from: an on-device pool with a pure ``draw``, or a host ``reader``.

    ``draw(pool, root, step, shard, shards)`` gives this shard's slice of step's global batch of ``size`` rows.
    ``reader`` (streams) is an iterator of host batches, this process's rows of the global batch, with
    ``get_state() -> bytes`` and ``set_state(bytes)``; ``draw`` is then None.
    """

    size: int
    pool: PyTree
    draw: Callable[[PyTree, Key[Array, ""], Int[Array, ""], Any, int], PyTree] | None = None
    reader: Reader | None = None


@runtime_checkable
class Reader(Protocol):
    """A host iterator whose position can be saved and restored.

    It may have ``close()``, and ``advice``: what to do where training waits for it, as the end of a sentence.
    """

    def __next__(self) -> PyTree: ...
    def __iter__(self) -> Iterator[PyTree]: ...
    def get_state(self) -> bytes: ...
    def set_state(self, state: bytes) -> None: ...


@dataclasses.dataclass(frozen=True)
class Context:
    """What may differ between training and test. Hashable, so that it is static under ``jit``.

    ``inner_steps`` None means the learner's own number. ``order`` 1 drops second derivatives.
    ``norm`` says whose statistics batch norm uses for the queries (see ``metalearn/norm_modes.py``). ``layers`` names
    those of the encoder that ``predict`` returns beside its other outputs, such as "block1".
    """

    train: bool = False
    inner_steps: int | None = None
    norm: NormMode = "transductive"
    order: int = 2
    layers: tuple[str, ...] = ()


def _keep(params: Params, state: State, *unused: Any) -> tuple[Params, State]:
    del unused
    return params, state


def _keep_pool(params: Params, state: State, pool: PyTree, key: Any) -> PyTree:
    del params, state, key
    return pool


class Judge(NamedTuple):
    """What a trained objective can be judged by beside its loss; None for what it cannot do.

    All are pure functions of ``params`` and ``state``. Norms use running averages: an answer belongs to its own row.
    """

    reconstruct: Callable[..., dict[str, Array]] | None = None  # (params, state, inputs, keys [n]) -> rows by name
    interpolate: Callable[..., Array] | None = None  # (params, state, first, second, steps) -> [n, steps, ...]
    sample: Callable[..., Array] | None = None  # (params, state, key, count, shape) -> [count, *shape]
    bounds: Callable[..., dict[str, Array]] | None = (
        None  # (params, state, inputs, key) -> bounds on log p(x) [n], nats
    )
    guess: Callable[..., Any] | None = None  # (params, state, tokens, place [n]) -> pretrain.masked_lm.Guesses


class Objective(NamedTuple):
    """Stage 1: a loss whose target comes from the data itself.

    ``batch`` is a dict: ``inputs``, ``index`` [n] of the example, ``mask`` and ``label`` where there are any. ``init``
    is called with a whole global batch, and raises ValueError for one that is too small or of another size than the
    objective can train on.

    ``needs``: "views" where the target is another view of an image, by the ``augment`` that the factory was called
    with; the second view may then be one of a ``partner`` in the batch. "classmates" where those partners are images of
    the same label.
    """

    init: Callable[..., tuple[Params, State]]  # (key, batch, encoder_params=None)
    loss: Callable[[Params, State, dict, Keys, Any], tuple[Any, tuple[State, Metrics]]]
    features: Callable[[Params, State, PyTree], Array]  # (params, state, inputs) -> [batch, dim]
    after_update: Callable[[Params, State, Any], tuple[Params, State]] = _keep
    refresh: Callable[[Params, State, PyTree, Any], PyTree] = _keep_pool
    needs: tuple[Need, ...] = ()
    judge: Judge | None = None


def query_loss(outputs: Outputs, query: Examples) -> Array:
    """The loss of a learner that names none: cross-entropy where there are logits, else squared error of the mean."""
    if "logits" in outputs:
        return losses.cross_entropy(outputs["logits"], query.label, query.mask)
    return losses.squared_error(outputs["mean"], query.label, query.mask)


def query_metrics(outputs: Outputs, query: Examples) -> Metrics:
    """The metrics of a learner that names none: accuracy where there are logits."""
    if "logits" not in outputs:
        return {}
    return {"accuracy": losses.accuracy(outputs["logits"], query.label, query.mask)}


class MetaLearner(NamedTuple):
    """Stage 2: an initialisation and an update rule.

    ``params`` is ``{"encoder", "head", "rule"}`` (θ0 and φ together; a learner has those it needs). ``adapt`` is
    U_φ(θ0, D_train) and returns only what differs per task. ``predict`` returns ``{"logits" | "mean", "features"}``,
    and, when ``ctx.train``, may return ``"state"``, the state after this pass; ``mask=`` [n] comes with it where
    some queries are padding. ``metrics(outputs, query)`` are scalars beside the loss.

    ``meta_grad`` None means the default, ``metalearn.meta_gradient``; one of its own takes ``chunk=``, tasks at once,
    where that is asked for. ``episode_spec`` maps the test episode's spec to the one to train on.

    ``shares_encoder`` says that the encoder is the same function of its inputs for all tasks: its features of a data
    set may then be computed once, and its convolutions need not be prepared for weights of a task's own.
    ``untrainable`` says, of a baseline that judges an encoder, why it cannot be meta-trained, and what to do instead.
    """

    init: Callable[..., tuple[Params, State]]  # (key, episode, encoder_params=None)
    adapt: Callable[..., Any]  # (params, state, support, key, ctx) -> task
    predict: Callable[..., Outputs]  # (params, state, task, inputs, ctx, mask=None) -> outputs
    loss: Callable[[Outputs, Examples], Array] = query_loss
    meta_grad: Callable[..., tuple[Params, State, Metrics]] | None = None
    train_context: Context = Context(train=True)
    test_context: Context = Context()
    episode_spec: Callable[[EpisodeSpec], EpisodeSpec] = lambda spec: spec
    metrics: Callable[[Outputs, Examples], Metrics] = query_metrics
    shares_encoder: bool = False
    untrainable: str = ""

    @property
    def trainable(self) -> bool:
        """Whether it can be meta-trained."""
        return not self.untrainable

    @property
    def use_context(self) -> Context:
        """How a trained model answers: as at test, except that no answer depends on what else is asked about.

        A test may let batch norm use the statistics of all queries; in use those of the support set stand in for them.
        """
        norm = "support" if self.test_context.norm == "transductive" else self.test_context.norm
        return dataclasses.replace(self.test_context, norm=norm)


class Term(NamedTuple):
    """Stage 3: one summand of a distillation loss, which compares outputs of a student and a teacher.

    Outputs are dicts of named layers: ``logits`` [*rows, classes], ``features`` [n, dim], and those of the encoder that
    are asked for. ``batch`` is a dict: ``inputs``, ``label``, ``mask`` and ``index`` where there are any.

    ``layers`` are those of the student that it reads, ``teacher_layers`` those of the teacher (None: the same; (): the
    teacher is not asked); only these are computed and kept. ``needs`` names what a batch must have: "label", "index".
    ``state`` is what a step changes, such as a memory bank; floats in it are averaged over devices, so that it must be
    written from gathered rows, the same on all.
    """

    init: Callable[..., tuple[Params, State]]  # (key, student, teacher, batch, size of the data): {}, {} for most
    apply: Callable[..., tuple[Array, State]]  # (params, state, student, teacher, batch, keys) -> scalar, state
    layers: tuple[str, ...] = ("logits",)
    teacher_layers: tuple[str, ...] | None = None
    needs: tuple[str, ...] = ()

    @property
    def asks_of_teacher(self) -> tuple[str, ...]:
        """The layers of the teacher that it reads."""
        return self.layers if self.teacher_layers is None else self.teacher_layers


class Trainable(NamedTuple):
    """What the one training loop runs; every stage reduces to it (``train/trainable.py``).

    ``grads`` returns local means; only ``train/parallel.py`` averages over devices.
    """

    init: Callable[[Any, PyTree], tuple[Params, State]]  # (key, batch)
    grads: Callable[[Params, State, PyTree, Keys, Any], tuple[Params, State, Metrics]]
    after_update: Callable[[Params, State, Any], tuple[Params, State]] = _keep
    refresh: Callable[[Params, State, PyTree, Any], PyTree] = _keep_pool


def episode_of(spec: EpisodeSpec, inputs: Shaped[Array, "..."]) -> Episode:
    """A blank episode of the right shapes, for ``init``: zeros like one row of ``inputs`` [n, ...]."""

    def rows(each: int) -> Examples:
        label = jnp.repeat(jnp.arange(spec.way), each)
        return Examples(jnp.zeros((spec.way * each, *inputs.shape[1:]), inputs.dtype), label)

    return Episode(rows(spec.shot), rows(max(spec.query, 1)))


def batch_axis(tree: PyTree) -> Any:
    """The length of the leading axis that the tree's leaves share: an int, or a symbol while a model is exported."""
    return jax.tree.leaves(tree)[0].shape[0]
