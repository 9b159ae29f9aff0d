"""Few-shot tasks drawn from a pool, as a pure function: the same key gives the same episode on every machine."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int, Key, Shaped, UInt

from metarep_jax.types import Episode, EpisodeSpec, Examples, Pool

TURNS = 4
MIXED = 1  # under an episode's key: its way and shot
TRAINING_FLAGS = ("--meta.episode.way", "--meta.episode.shot", "--meta.episode.query")
TEST_FLAGS = ("--evaluate.ways", "--evaluate.shots", "--evaluate.query")
SCORED = 2048  # up to so many candidates, scoring all of them is faster than drawing one after another


def sample_episodes(key: Key[Array, ""], pool: Pool, spec: EpisodeSpec) -> Episode:
    """One episode: ``way`` distinct classes, and ``shot + query`` distinct examples of each.

    Pure, jit-able, and to be mapped over keys by ``vmap``. Classes, their order, and examples are uniform. Examples
    are ordered by class: labels are 0 … way-1, each repeated. Check the spec with ``check_episode_spec`` before
    (inside ``jit`` the sizes of classes are not known, and a class that is too small would repeat examples).

    Args:
      key: chooses everything.
      pool: any classes of any sizes; images [n, h, w, c], square ones where rotations are asked for.
      spec: with rotations "classes", a class under each of four quarter turns is a class of its own, so that an
        episode may hold the same class under two turns; with "random", each class of the episode is turned by one
        random number of quarter turns.

    Returns:
      ``support.inputs`` [way·shot, ...], ``query.inputs`` [way·query, ...] and their labels, int32; masks where
      ``spec`` makes mixed episodes.
    """
    classes, most = pool.members.shape
    options = classes * TURNS if spec.rotations == "classes" else classes
    each = spec.shot + spec.query
    if spec.way > options:
        raise ValueError(f"an episode of {spec.way} classes cannot be drawn from {options}")
    if each > most:
        raise ValueError(f"an episode needs {each} examples a class, the largest class has {most}")
    needed = (draws(spec.way, options), spec.way * draws(each, most), spec.way)
    bits = jax.random.bits(key, (sum(needed),), jnp.uint32)  # all at once: quicker to run and to compile than apart
    for_classes, for_examples, for_turns = jnp.split(bits, [needed[0], needed[0] + needed[1]])
    chosen = distinct(for_classes, spec.way, jnp.int32(options), options)
    own = chosen % classes
    place = jax.vmap(lambda bits, count: distinct(bits, each, count, most))(
        for_examples.reshape(spec.way, -1), pool.count[own]
    )
    rows = pool.members[own[:, None], place]  # [way, each]
    images = pool.inputs[rows]
    if spec.rotations == "classes":
        images = quarter_turns(images, chosen // classes)
    elif spec.rotations == "random":
        images = quarter_turns(images, (for_turns % TURNS).astype(jnp.int32))
    label = jnp.arange(spec.way, dtype=jnp.int32)

    def part(images: Array, each: int) -> Examples:
        return Examples(images.reshape(spec.way * each, *images.shape[2:]), jnp.repeat(label, each))

    episode = Episode(part(images[:, : spec.shot], spec.shot), part(images[:, spec.shot :], spec.query))
    return mixed(jax.random.fold_in(key, MIXED), episode, spec) if spec.mixed else episode


def mixed(key: Key[Array, ""], episode: Episode, spec: EpisodeSpec) -> Episode:
    """The episode with masks that leave a random number of its classes, and of each class's support examples.

    Way and shot are uniform between ``spec.least_way`` and ``spec.way``, and ``spec.least_shot`` and ``spec.shot``;
    one that is None stays whole. The first classes and the first examples of each are left, so that the shapes, and
    with them the compiled step, are the same for every episode.
    """
    way_key, shot_key = jax.random.split(key)
    way = jax.random.randint(way_key, (), spec.way if spec.least_way is None else spec.least_way, spec.way + 1)
    shot = jax.random.randint(shot_key, (), spec.shot if spec.least_shot is None else spec.least_shot, spec.shot + 1)
    support, query = episode
    kept = jnp.tile(jnp.arange(spec.shot) < shot, spec.way)
    return Episode(
        support._replace(mask=(support.label < way) & kept),
        query._replace(mask=query.label < way),
    )


def draws(k: int, most: int) -> int:
    """How many random words ``distinct`` needs."""
    return most if most <= max(SCORED, 4 * k) else k


def distinct(bits: UInt[Array, " b"], k: int, count: Int[Array, ""], most: int) -> Int[Array, " k"]:
    """``k`` distinct numbers of 0 … count-1 in uniformly random order.

    Few candidates are scored at random and the k best taken (ties of the 24-bit scores fall to the smaller number: a
    bias of less than most/2²⁴). Many candidates are drawn one after another by a Fisher–Yates shuffle that keeps only
    the places it has touched, k² work instead of ``most`` (its bias: less than most/2³²).

    Args:
      bits: ``draws(k, most)`` random words.
      k: how many numbers.
      count: of candidates, at least k; may be traced.
      most: what ``count`` can be at most.
    """
    if len(bits) == most:
        score = jnp.where(jnp.arange(most) < count, (bits >> 8).astype(jnp.float32), -1.0)
        return lax.top_k(score, k)[1].astype(jnp.int32)
    left = jnp.maximum(count - jnp.arange(k, dtype=jnp.int32), 1)
    target = jnp.arange(k, dtype=jnp.int32) + (bits % left.astype(jnp.uint32)).astype(jnp.int32)
    steps = jnp.arange(k, dtype=jnp.int32)  # step i swaps places i and target[i]

    def draw(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        taken, displaced = carry  # displaced[j]: what the swap of step j put into place target[j]

        def held(place: Array) -> Array:
            """What lies in a place that is still to be drawn from: the latest swap into it decides."""
            last = jnp.max(jnp.where((target == place) & (steps < i), steps, -1))
            return jnp.where(last >= 0, displaced[last], place)

        return taken.at[i].set(held(target[i])), displaced.at[i].set(held(i))

    empty = jnp.zeros((k,), jnp.int32)
    return lax.fori_loop(0, k, draw, (empty, empty))[0]


def quarter_turns(images: Shaped[Array, "n *shape"], turns: Int[Array, " n"]) -> Shaped[Array, "n *shape"]:
    """Each leading row's images [..., h, w, c] turned by its number of quarter turns, as by ``jnp.rot90``.

    Raises:
      ValueError: for images that are not square.
    """
    if images.ndim < 4 or images.shape[-3] != images.shape[-2]:
        raise ValueError(f"quarter turns need square images [..., h, w, c], got shape {tuple(images.shape)}")
    turns = turns.reshape(-1, *[1] * (images.ndim - 1))
    half = jnp.where(turns % 4 >= 2, images[..., ::-1, ::-1, :], images)
    return jnp.where(turns % 2 == 1, jnp.rot90(half, axes=(-3, -2)), half)


def check_episode_spec(
    pool: Pool,
    spec: EpisodeSpec,
    class_names: Sequence[str] = (),
    split_name: str = "",
    flags: Sequence[str] = TRAINING_FLAGS,
) -> None:
    """Raises ValueError when ``pool`` cannot give episodes of ``spec``: says which class, the counts, and the flag.

    Args:
      pool: on any device.
      spec: the episode.
      class_names: of the pool's classes, for the message.
      split_name: such as "train", for the message.
      flags: that set the way, the shot and the queries, as they are typed.
    """
    way_flag, shot_flag, query_flag = flags
    where = f" of the {split_name} split" if split_name else ""
    classes = pool.count.shape[0]
    options = classes * (TURNS if spec.rotations == "classes" else 1)
    if spec.way > options:
        turned = f" ({classes} under {TURNS} quarter turns)" if spec.rotations == "classes" else ""
        raise ValueError(
            f"episodes of {spec.way} ways need as many classes; there are {options}{turned}{where}; set {way_flag} "
            f"{options} or less, or give another split of classes by --data.protocol"
        )
    need = spec.shot + spec.query
    name, smallest = smallest_class(pool, class_names)
    if smallest < need:
        few = int(np.sum(np.asarray(pool.count) < need))
        more = f" ({few} classes have too few)" if few > 1 else ""
        change = (
            f"set {query_flag} {smallest - spec.shot} or less" if smallest > spec.shot
            else f"lower {shot_flag} and {query_flag} to {smallest} together" if smallest > 1
            else "every class needs 2 or more"
        )  # fmt: skip
        raise ValueError(
            f"class {name!r}{where} has {smallest} images, but {spec.shot}-shot episodes with {spec.query} queries "
            f"need {need}{more}; {change}, or add examples or remove the class"
        )
    if spec.rotations != "none" and (pool.inputs.ndim != 4 or pool.inputs.shape[1] != pool.inputs.shape[2]):
        raise ValueError(
            f"rotations need square images [h, w, c], got {tuple(pool.inputs.shape[1:])}; set --data.image-size, or a "
            "--data.protocol without rotations"
        )


def smallest_class(pool: Pool, class_names: Sequence[str] = ()) -> tuple[str, int]:
    """The name of the first class with the fewest examples, and their number."""
    count = np.asarray(pool.count)
    first = int(np.argmin(count))
    return class_names[first] if first < len(class_names) else str(first), int(count[first])
