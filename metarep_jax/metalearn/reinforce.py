"""Estimators of the policy gradient: what was earned after each action, less what was to be expected."""

from typing import Literal, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from metarep_jax.data.control.environments import Trajectories

Estimator = Literal["surrogate", "dice"]

RIDGE = 1e-5  # of the baseline's fit, on features of unit length: enough for float32, too little to be a bias


class Credit(NamedTuple):
    """How actions are judged, [n, horizon]: advantage = ``scale`` × (discounted reward to go − ``baseline``)."""

    baseline: Float[Array, "n horizon"]
    scale: Float[Array, ""]


def returns_to_go(rewards: Float[Array, "n horizon"], discount: float = 1.0) -> Float[Array, "n horizon"]:
    """Σ_{t' ≥ t} discount^(t'−t) reward_t' for every step t."""
    return rewards @ _discounts(rewards.shape[1], discount)


def linear_baseline(
    trajectories: Trajectories, returns: Float[Array, "n horizon"], counts: Bool[Array, " n"]
) -> Float[Array, "n horizon"]:
    """Returns to go as a linear function of (s, s², t, t², t³, 1), with t in hundreds of steps, by ridge regression.

    Each trajectory is judged by a fit to all others that count. A fit to itself too, as the original makes it, knows
    part of the noise that it should only take the mean of, and shrinks the expected gradient; this one leaves it
    exactly as it is.

    References:
      Duan et al. 2016, https://arxiv.org/abs/1604.06778, appendix: the features.
    """
    state, time = trajectories.observation, jnp.arange(returns.shape[1], dtype=returns.dtype)[:, None] / 100
    powers = jnp.concatenate([time, time**2, time**3, jnp.ones_like(time)], axis=1)
    powers = jnp.broadcast_to(powers, (*returns.shape, 4))
    features = jnp.concatenate([state, state**2, powers], axis=2)
    kept = features * (trajectories.mask & counts[:, None])[..., None]
    others = 1 - jnp.eye(len(returns), dtype=returns.dtype)
    gram = jnp.einsum("nm,mtf,mtg->nfg", others, kept, features)
    moment = jnp.einsum("nm,mtf,mt->nf", others, kept, returns)
    square = jnp.diagonal(gram, axis1=1, axis2=2)
    size = jnp.sqrt(jnp.where(square > 0, square, 1))  # features of unit length: positions may be large, times are not
    gram = gram / (size[:, :, None] * size[:, None]) + RIDGE * jnp.eye(features.shape[2], dtype=features.dtype)
    weights = jnp.linalg.solve(gram, (moment / size)[..., None])[..., 0] / size
    return jnp.einsum("ntf,nf->nt", features, weights)


def credit(
    trajectories: Trajectories, counts: Bool[Array, " n"], *, discount: float = 1.0, standardise: bool = False
) -> Credit:
    """The baseline of ``linear_baseline``; ``standardise`` makes advantages of the task have mean 0 and deviation 1."""
    returns = returns_to_go(trajectories.reward, discount)
    baseline = linear_baseline(trajectories, returns, counts)
    if not standardise:
        return Credit(baseline, jnp.ones((), returns.dtype))
    kept = trajectories.mask & counts[:, None]
    steps = jnp.maximum(kept.sum(), 1)
    mean = jnp.sum(jnp.where(kept, returns - baseline, 0)) / steps
    spread = jnp.sqrt(jnp.sum(jnp.where(kept, (returns - baseline - mean) ** 2, 0)) / steps)
    return Credit(baseline + mean, 1 / (spread + 1e-8))


def policy_loss(
    log_prob: Float[Array, "n horizon"],
    trajectories: Trajectories,
    judged: Credit,
    counts: Bool[Array, " n"],
    *,
    discount: float = 1.0,
    estimator: Estimator = "surrogate",
) -> Float[Array, ""]:
    """The loss of a policy that collected ``trajectories``: its value is the negative mean reward a step of the
    horizon, its gradient the policy gradient of that, which reaches the policy through ``log_prob`` alone.

    - "surrogate": −log π(a_t) times advantage (REINFORCE). Its second derivatives take the trajectories as given.
    - "dice": the same value and gradient; its derivatives of every order are unbiased estimates of the expected
      return's own, at more variance, since they also say how the policy changes what it collects.

    ``discount`` below 1 shortens the time over which an action is judged: less variance, and a bias.

    Args:
      log_prob: of the actions, differentiable in the policy's weights.
      trajectories, judged: constants.
      counts: which trajectories count.

    References:
      Williams 1992, Simple statistical gradient-following algorithms for connectionist reinforcement learning.
      Foerster et al. 2018, https://arxiv.org/abs/1802.05098, eq. 6 and 8 (DiCE and its baseline); Farquhar et al. 2019,
      https://arxiv.org/abs/1909.10549, section 4 (its discount).
    """
    log_prob = jnp.where(trajectories.mask, log_prob, 0)
    if estimator == "surrogate":
        returns = returns_to_go(trajectories.reward, discount)
        gain = log_prob * (returns - judged.baseline)
    else:
        so_far = log_prob @ _discounts(log_prob.shape[1], discount).T
        gain = _magic(so_far) * trajectories.reward - _magic(log_prob) * judged.baseline
    gain = jnp.where(trajectories.mask, judged.scale * gain, 0)
    size = jnp.maximum(counts.sum(), 1) * log_prob.shape[1]
    gain, reward = (jnp.sum(jnp.where(counts[:, None], rows, 0)) / size for rows in (gain, trajectories.reward))
    return -(reward + gain - lax.stop_gradient(gain))


def _magic(log_prob: Array) -> Array:
    """1, whose derivatives are those of the probability that ``log_prob`` is of, relative to it (DiCE's MagicBox)."""
    return jnp.exp(log_prob - lax.stop_gradient(log_prob))


def _discounts(horizon: int, discount: float) -> Float[Array, "later earlier"]:
    """discount^(later − earlier), and 0 for what is not later."""
    steps = jnp.arange(horizon)
    ahead = steps[:, None] - steps[None]
    return jnp.where(ahead >= 0, discount ** jnp.maximum(ahead, 0).astype(float), 0)
