"""The matrix products that a computation cannot do without, counted in its jaxpr."""

import math
from collections.abc import Callable
from typing import Any

import jax

from metarep_jax.types import Keys, Objective, batch_axis


def product_gflop(function: Callable[..., Any], *args: Any) -> float:
    """Products and sums of the matrix products and convolutions of ``function(*args)``, in GFLOP; nothing is computed.

    Convolutions by the direct algorithm, padding included, without the zeros between strided gradients. What the
    results do not depend on is not counted.

    Args:
      function: traceable, with convolutions as ``lax.conv_general_dilated`` (encoders made with ``conv="lax"``).
      args: arrays, or their shapes and number formats.
    """
    return 1e-9 * _flop(jax.make_jaxpr(function)(*args).jaxpr)


def objective_gflop(objective: Objective, batch: dict[str, Any]) -> float:
    """``product_gflop`` of the loss of a batch and its gradient, metrics left out.

    Args:
      objective: over an encoder made with ``conv="lax"``, without a mapped axis.
      batch: the global one.
    """
    size = batch_axis(batch)
    keys = Keys(jax.random.split(jax.random.key(0), size), jax.random.key(1))
    params, state = jax.eval_shape(objective.init, jax.random.key(0), batch)

    def gradient(params: Any, state: Any, batch: Any) -> Any:
        return jax.value_and_grad(lambda weights: objective.loss(weights, state, batch, keys, 0)[0])(params)

    return product_gflop(gradient, params, state, batch)


def _flop(jaxpr: Any) -> float:
    wanted, total = {id(var) for var in jaxpr.outvars}, 0.0
    for equation in reversed(jaxpr.eqns):
        if not any(id(var) in wanted for var in equation.outvars):
            continue
        wanted |= {id(var) for var in equation.invars}
        total += _flop_of(equation)
    return total


def _flop_of(equation: Any) -> float:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        left = equation.invars[0].aval.shape
        return 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)
    if name == "conv_general_dilated":
        kernel, axes = equation.invars[1].aval.shape, params["dimension_numbers"].rhs_spec
        window = math.prod(kernel[axis] for axis in axes[1:]) / math.prod(params["lhs_dilation"])
        return 2.0 * math.prod(equation.outvars[0].aval.shape) * window
    inner = [_flop(getattr(sub, "jaxpr", sub)) for value in params.values() for sub in _jaxprs(value)]
    return max(inner) * params.get("length", 1) if inner else 0.0  # of branches the largest


def _jaxprs(value: Any) -> list[Any]:
    several = value if isinstance(value, list | tuple) else [value]
    return [one for one in several if hasattr(one, "eqns") or hasattr(getattr(one, "jaxpr", None), "eqns")]
