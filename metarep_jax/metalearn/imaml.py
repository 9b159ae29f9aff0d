"""iMAML: the meta-gradient at the end of an inner loop, whatever way it went, by the implicit function theorem."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.scipy.sparse.linalg import cg
from jaxtyping import Array, PyTree

from metarep_jax.metalearn.inner import Adapted, inner_loop
from metarep_jax.metalearn.network import Output, check_inner_loop, inner_steps_of, network
from metarep_jax.metalearn.settings import check_at_least, check_positive
from metarep_jax.types import Context, Examples, MetaLearner, NormMode

CG_TOLERANCE = 1e-9  # of the residual, relative: out of reach in float32, so that cg_steps decides


def imaml(
    encoder: nn.Module,
    *,
    way: int,
    inner_lr: float = 0.1,
    inner_steps: int = 16,
    test_steps: int = 16,
    proximal: float = 2.0,
    test_proximal: float | None = None,
    cg_steps: int = 5,
    test_norm: NormMode = "transductive",
    output: Output = "logits",
) -> MetaLearner:
    """Learns θ0 so that the minimiser of L(φ) + λ/2 ‖φ − θ0‖² on the support set suits the queries.

    Its meta-gradient needs the minimiser alone and not the way to it, so that memory does not grow with the inner
    steps, and any inner optimiser could be used. The defaults are those of the authors' 5-way 1-shot Omniglot.

    Args:
      encoder: a module of ``metarep_jax.encoders``, made with ``adapted=True``.
      way: classes of an episode (for ``output="mean"``, target dimensions).
      inner_lr: α of the gradient descent that looks for the minimiser, on the mean support loss.
      inner_steps, test_steps: its steps in training and at test. The gradient is that of the minimiser: too few leave
        an error that grows with the distance to it (theorem 1), and so does a minimum at the kink of a ReLU, about
        which descent goes to and fro; the metrics ``support_loss/…`` then do not settle.
      proximal: λ, how strongly a task's weights are held to the initialisation. It must outweigh the most negative
        curvature of the support loss, or the minimiser is none.
      test_proximal: λ at test; None: as in training. The authors' evaluation command sets it to 0.
      cg_steps: iterations of conjugate gradients for the meta-gradient, a Hessian-vector product each.
      test_norm: whose statistics batch norm uses for the queries at test; training uses those of the query batch.
      output: "logits" with cross-entropy, or "mean" with squared error (regression).

    Returns:
      A ``MetaLearner`` with params ``{"encoder", "head"}`` whose ``task`` is the fast weights and the support set.
      The head starts at zero. ``Context.order`` is of no effect: there are no inner steps to differentiate.

    Raises:
      ValueError: for a rate or a λ that is not positive (at test it may be 0), a negative number of steps, or fewer
        than one iteration.

    References:
      Rajeswaran et al. 2019, https://arxiv.org/abs/1909.04630, eq. 3 and 6, algorithms 1 and 2.
    """
    if proximal <= 0 or cg_steps < 1:
        raise ValueError(f"iMAML needs proximal above 0 and cg_steps of at least 1, got {proximal} and {cg_steps}")
    check_positive("iMAML", inner_lr=inner_lr)
    check_at_least(0, "iMAML", test_proximal=test_proximal)
    check_inner_loop("iMAML", inner_steps=inner_steps, test_steps=test_steps, test_norm=test_norm)
    net = network(encoder, way, output, what="iMAML")

    def adapt(params: Any, state: Any, support: Examples, key: Array, ctx: Context) -> dict:
        del key

        def support_loss(weights: Any, given: tuple[Any, Examples]) -> Array:
            state, support = given
            return net.loss(net.support(weights, state, support, ctx), support)

        fast, losses = proximal_minimum(
            support_loss, params, (state, support), steps=inner_steps_of(ctx, inner_steps, test_steps),
            learning_rate=inner_lr, cg_steps=cg_steps,
            proximal=proximal if ctx.train or test_proximal is None else test_proximal,
        )  # fmt: skip
        return {"fast": fast, "support": support, "support_loss": losses}

    def predict(params: Any, state: Any, task: dict, inputs: Array, ctx: Context, mask: Any = None) -> dict:
        del params
        return net.query(task["fast"], state, task["support"], inputs, ctx, mask)

    contexts = Context(train=True), Context(norm=test_norm)
    return MetaLearner(net.init, adapt, predict, net.loss, None, *contexts)


def proximal_minimum(
    loss: Callable[[PyTree, PyTree], Array],
    start: PyTree,
    given: PyTree,
    *,
    steps: int,
    learning_rate: float,
    proximal: float,
    cg_steps: int,
) -> Adapted:
    """φ* = argmin_φ loss(φ, given) + λ/2 ‖φ − start‖² by gradient descent, with the derivative of the minimiser itself.

    At the minimum ∇loss(φ*) + λ (φ* − start) = 0, so that ∂φ*/∂start = λ (∇²loss(φ*) + λ I)⁻¹. This is symmetric, and
    the system is solved by ``cg_steps`` of conjugate gradients, whatever the number of inner ``steps``. Without steps
    φ* is ``start`` and its derivative the identity. No gradient reaches ``given``.

    Returns:
      φ*, and before each step the loss with its penalty.
    """

    def search(start: PyTree, given: PyTree) -> Adapted:
        def objective(weights: PyTree, step: Any) -> Array:
            del step
            away = jax.tree.map(lambda weight, origin: jnp.sum((weight - origin) ** 2), weights, start)
            return loss(weights, given) + proximal / 2 * sum(jax.tree.leaves(away))

        return inner_loop(objective, start, steps=steps, learning_rate=learning_rate)

    def forward(start: PyTree, given: PyTree) -> tuple[Adapted, tuple[PyTree, PyTree]]:
        found = minimum(start, given)
        return found, (found.weights, given)

    def backward(kept: tuple[PyTree, PyTree], cotangent: Adapted) -> tuple[PyTree, None]:
        weights, given = kept
        _, hessian = jax.linearize(lambda weights: jax.grad(loss)(weights, given), weights)

        def system(vector: PyTree) -> PyTree:
            return jax.tree.map(lambda curved, straight: curved + proximal * straight, hessian(vector), vector)

        solved, _ = cg(system, cotangent.weights, tol=CG_TOLERANCE, maxiter=cg_steps)
        return jax.tree.map(lambda leaf: proximal * leaf, solved), None

    minimum = jax.custom_vjp(search)
    minimum.defvjp(forward, backward)
    return minimum(start, given) if steps else search(start, given)
