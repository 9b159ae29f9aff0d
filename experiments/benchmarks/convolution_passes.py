"""The three passes of one convolution, each by itself: by the library's layers, and by PyTorch."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from experiments.benchmarks.convolution_shapes import Convolution
from experiments.benchmarks.timing import Candidate
from metarep_jax.encoders.layers import ConvLowering, conv_layer, conv_lowering
from metarep_jax.train.parallel import replicate, shard

PASSES: tuple[str, ...] = ("forward", "input_gradient", "weight_gradient")
WORST = 1e-3  # by which results may differ, of the largest entry: sums of up to a million products in float32


class Pass(NamedTuple):
    """One pass: ``run`` computes it, ``result`` gives what it computes as an array laid out as ours."""

    run: Candidate
    result: Callable[[], np.ndarray]
    name: str = ""

    def check(self, other: np.ndarray, who: str) -> None:
        """Raises ValueError where ``other`` is not this pass's result up to rounding."""
        mine = self.result()
        worst = float(np.abs(mine - other).max() / np.abs(mine).max())
        if not worst < WORST:
            raise ValueError(f"{self.name} by {who} differs from PyTorch's by {worst:.1e} of the largest entry")


def layer_of(shape: Convolution, lowering: str) -> nn.Module:
    """The library's layer that computes ``shape``. Raises ValueError for a lowering that does not exist."""
    return conv_layer(lowering)(shape.filters, shape.kernel, strides=shape.strides, padding=shape.pads, use_bias=False)


def passes_of(layer: nn.Module) -> dict[str, Callable[..., Any]]:
    """Functions of (kernel, images, cotangent of the result)."""

    def convolve(kernel: Any, images: Any) -> Any:
        return layer.apply({"params": {"kernel": kernel}}, images)

    def input_gradient(kernel: Any, images: Any, cotangent: Any) -> Any:
        return jax.vjp(lambda x: convolve(kernel, x), images)[1](cotangent)[0]

    def weight_gradient(kernel: Any, images: Any, cotangent: Any) -> Any:
        return jax.vjp(lambda k: convolve(k, images), kernel)[1](cotangent)[0]

    forward = lambda kernel, images, cotangent: convolve(kernel, images)  # noqa: E731
    return dict(zip(PASSES, (forward, input_gradient, weight_gradient)))


def named_lowering(name: str) -> str:
    """The lowering of that name, or for "auto" the backend's own of large networks."""
    return conv_lowering("auto", on_cpu="passes") if name == "auto" else name


def check_lowerings(flag: str, lowerings: Sequence[str], shapes: Sequence[Convolution]) -> None:
    """Raises ValueError for a lowering that does not exist, or that one of the shapes cannot take: says which can.

    Args:
      flag: by which they were given, such as ``--lowerings``.
      lowerings: names, "auto" among them.
      shapes: convolutions that each has to compute.
    """
    for lowering in map(named_lowering, lowerings):
        conv_layer(lowering)
        for shape in shapes:
            try:
                _try_lowering(lowering, shape)
            except (TypeError, ValueError) as error:
                every = [name for name in get_args(ConvLowering) if name != "auto" and _takes(name, shape)]
                raise ValueError(
                    f"{flag} {lowering} cannot take {shape.words} ({error}); those that can: {', '.join(every)}"
                ) from error


def our_passes(shape: Convolution, images: int, lowering: str, devices: list) -> dict[str, Pass]:
    """The library's passes on a batch of ``images``, spread over the devices."""
    kernel, rows, cotangent = arrays_of(shape, images)

    def spread(batch: np.ndarray) -> Any:
        return shard(batch.reshape(len(devices), -1, *batch.shape[1:]), devices)

    given = replicate(kernel, devices), spread(rows), spread(cotangent)
    functions = passes_of(layer_of(shape, lowering))
    with ThreadPoolExecutor(len(functions)) as pool:  # most of the benchmark's time is compilation
        lowered = [jax.pmap(function, devices=devices).lower(*given) for function in functions.values()]
        compiled = dict(zip(functions, pool.map(lambda each: each.compile(), lowered)))

    def result(name: str) -> np.ndarray:
        made = np.asarray(compiled[name](*given))
        return made.sum(0) if name == "weight_gradient" else made.reshape(-1, *made.shape[2:])

    return {
        name: Pass(lambda run=run: jax.block_until_ready(run(*given)), partial(result, name), name)
        for name, run in compiled.items()
    }


def torch_passes(shape: Convolution, images: int) -> dict[str, Pass]:
    """PyTorch's passes on the same batch, channels last, turned by 180° where ours pads only the end."""
    import torch

    turned = any(before != after for before, after in shape.pads)

    def laid_out(batch: np.ndarray, order: tuple[int, ...], sides: tuple[int, int]) -> torch.Tensor:
        batch = np.flip(batch, sides) if turned else batch
        return torch.from_numpy(batch.transpose(order).copy()).contiguous(memory_format=torch.channels_last)

    kernel, rows, cotangent = arrays_of(shape, images)
    weight = laid_out(kernel, (3, 2, 0, 1), (0, 1))
    x, dy = (laid_out(batch, (0, 3, 1, 2), (1, 2)) for batch in (rows, cotangent))
    strides, pads = list(shape.strides), [max(pad) for pad in shape.pads]

    def backward(*mask: bool) -> Any:
        return torch.ops.aten.convolution_backward(
            dy, x, weight, None, strides, pads, [1, 1], False, [0, 0], 1, [*mask, False]
        )

    def ours(found: torch.Tensor, kernel: bool = False) -> np.ndarray:
        made = found.numpy().transpose((2, 3, 1, 0) if kernel else (0, 2, 3, 1))
        return np.flip(made, (0, 1) if kernel else (1, 2)) if turned else made

    forward = lambda: torch.nn.functional.conv2d(x, weight, None, strides, pads)  # noqa: E731
    steps = {
        "forward": Pass(forward, lambda: ours(forward())),
        "input_gradient": Pass(lambda: backward(True, False), lambda: ours(backward(True, False)[0])),
        "weight_gradient": Pass(lambda: backward(False, True), lambda: ours(backward(False, True)[1], kernel=True)),
    }
    return {name: step._replace(name=f"{name} of {shape.words}") for name, step in steps.items()}


@lru_cache(maxsize=1)
def arrays_of(shape: Convolution, images: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random kernel [kh, kw, in, out], images [n, h, w, in] and cotangent [n, oh, ow, out]."""
    random = np.random.default_rng(0)
    kernel = random.standard_normal((*shape.kernel, shape.image[-1], shape.filters), np.float32)
    rows = random.standard_normal((images, *shape.image), np.float32)
    return kernel, rows, random.standard_normal((images, *shape.out), np.float32)


def _try_lowering(lowering: str, shape: Convolution) -> None:
    kernel = (*shape.kernel, shape.image[-1], shape.filters)
    given = [jax.ShapeDtypeStruct(sizes, jnp.float32) for sizes in (kernel, (2, *shape.image), (2, *shape.out))]
    for function in passes_of(layer_of(shape, lowering)).values():
        jax.eval_shape(function, *given)


def _takes(lowering: str, shape: Convolution) -> bool:
    try:
        _try_lowering(lowering, shape)
    except (TypeError, ValueError):
        return False
    return True
