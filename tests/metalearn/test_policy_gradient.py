"""Policy gradients against closed forms: on a blind walk with quadratic costs everything is known."""

import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarep_jax.data.control.environments import Environment, Trajectories, environment_feed, task_of
from metarep_jax.encoders.features import Identity
from metarep_jax.encoders.mlp import MLP
from metarep_jax.evaluate.returns import returns_by_updates
from metarep_jax.metalearn.meta_gradient import meta_gradient
from metarep_jax.metalearn.policies import Gaussian, GaussianHead
from metarep_jax.metalearn.policy_gradient import policy_gradient
from metarep_jax.metalearn.reinforce import credit, linear_baseline, policy_loss, returns_to_go
from metarep_jax.types import Context, Episode, EpisodeSpec, Examples, Keys

KEY = jax.random.key(0)
MEAN, STD, GOAL = 0.3, 0.5, 1.1
ESTIMATORS = ["surrogate", "dice"]


def walk(horizon: int = 1) -> Environment:
    """A point on a line that adds up its actions and sees nothing; the reward is −(position − goal)²."""

    def step(key, state, action, goal):
        state = state + action[0]
        return jnp.zeros(1), state, -((state - goal) ** 2), jnp.bool_(False)

    return Environment(
        sample=lambda key: jax.random.normal(key),
        reset=lambda key, goal: (jnp.zeros(1), jnp.zeros_like(goal)),
        step=step,
        action_size=1,
        action_limit=1.0,
        horizon=horizon,
    )


def exact_loss(theta, horizon=1):
    """The expected cost a step of θ = (mean, log σ): after t steps the position is normal, (t mean, t σ²)."""
    steps = np.arange(1, horizon + 1)
    return jnp.mean((steps * theta[0] - GOAL) ** 2 + steps * jnp.exp(2 * theta[1]))


exact_slope = jax.jit(jax.grad(exact_loss), static_argnums=1)
THETA = np.array([MEAN, np.log(STD)], np.float32)


def learner(horizon=1, **how):
    return policy_gradient(Identity(), walk(horizon), **{"discount": 1.0, "standardise": False, **how})


def start(method, task, theta=THETA):
    params, state = jax.jit(method.init)(KEY, task)
    dense = {**params["head"]["Dense_0"], "bias": theta[:1]}
    return {**params, "head": {"Dense_0": dense, "log_std": theta[1:]}}, state


def theta_of(tree):
    return jnp.concatenate([tree["head"]["Dense_0"]["bias"], tree["head"]["log_std"]])


@functools.cache
def task(trajectories, query=None):
    return task_of(jnp.float32(GOAL), EpisodeSpec(way=1, shot=trajectories, query=query or trajectories))


def gradients(method, trajectories, tasks):
    """Of that many tasks, one by one: [tasks, 2]."""
    given = task(trajectories)
    params, state = start(method, given)

    def one(key):
        keys = Keys(key[None], key)
        return theta_of(meta_gradient(method)(params, state, jax.tree.map(lambda leaf: leaf[None], given), keys, 0)[0])

    return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(KEY, tasks)), np.float64)


def agrees(found, wanted, precision):
    """The mean of ``found`` [n, ...] lies within four standard errors of ``wanted``, and these are small enough."""
    error = found.std(0) / len(found) ** 0.5
    assert (error < precision).all(), error
    assert (np.abs(found.mean(0) - wanted) < 4 * error).all(), (found.mean(0), wanted, error)


def test_the_reward_still_to_come_is_summed_and_discounted():
    rewards, discounted = jnp.array([[1.0, 2.0, 4.0], [0.0, 0.0, 8.0]]), jax.jit(returns_to_go, static_argnums=1)
    np.testing.assert_allclose(discounted(rewards), [[7, 6, 4], [8, 8, 8]])
    np.testing.assert_allclose(discounted(rewards, 0.5), [[3, 4, 4], [2, 4, 8]])


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_gradient_of_few_trajectories_is_on_average_that_of_the_expected_return(estimator):
    """With 3 trajectories, a baseline fitted to the trajectory that it judges would take a third off the gradient."""
    found = gradients(learner(3, inner_steps=0, estimator=estimator), trajectories=3, tasks=20000)
    wanted = np.asarray(exact_slope(THETA, 3))
    agrees(found, wanted, precision=0.05 * np.abs(wanted).max())


def test_a_baseline_lowers_the_variance_of_the_gradient_and_leaves_its_mean():
    log_prob = Gaussian(jnp.float32(MEAN), jnp.float32(np.log(STD)))

    def one(key, with_baseline):
        action = MEAN + STD * jax.random.normal(key, (4, 1))
        seen = Trajectories(jnp.zeros((4, 1, 1)), action[..., None], 10 - (action - GOAL) ** 2, jnp.ones((4, 1), bool))
        judged = credit(seen, jnp.ones(4, bool))
        judged = judged if with_baseline else judged._replace(baseline=jnp.zeros((4, 1)))

        def loss(mean):
            density = log_prob._replace(mean=mean).log_prob(action)
            return policy_loss(density[:, None], seen, judged, jnp.ones(4, bool))

        return jax.grad(loss)(jnp.float32(MEAN))

    keys = jax.random.split(KEY, 20000)
    bare, based = (np.asarray(jax.jit(jax.vmap(partial(one, with_baseline=on)))(keys)) for on in (False, True))
    for found in (bare, based):
        agrees(found, 2 * (MEAN - GOAL), precision=0.1)
    assert based.std() < 0.2 * bare.std()


# What the update's derivative is made of: second derivatives of the expected return in (mean, log σ).
CURVATURE = {
    "dice": [[-2.0, 0.0], [0.0, -4 * STD**2]],
    "surrogate": [[0.0, 4 * (MEAN - GOAL)], [4 * (MEAN - GOAL), 4 * STD**2]],  # E[∇² log π · advantage]
}


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_meta_gradient_has_its_closed_form_and_only_dice_knows_the_curvature_of_the_return(estimator):
    rate = 0.1
    moved = THETA - np.float32(rate) * np.asarray(exact_slope(THETA, 1))
    wanted = (np.eye(2) + rate * np.asarray(CURVATURE[estimator])) @ np.asarray(exact_slope(moved, 1))
    found = gradients(learner(inner_lr=rate, estimator=estimator), trajectories=2000, tasks=60)
    agrees(found, wanted, precision=0.02)


def test_recomputing_in_mixed_mode_changes_no_meta_gradient():
    plain = gradients(learner(), trajectories=4, tasks=2)
    found = gradients(learner(remat=True, mixed=True), trajectories=4, tasks=2)
    np.testing.assert_allclose(found, plain, rtol=1e-4)


def pieces(n=5, horizon=4):
    """Trajectories of noise, the last steps of some of them past their end."""
    draw = np.random.default_rng(0)

    def normal(*shape):
        return draw.standard_normal((n, horizon, *shape), np.float32)

    mask = np.arange(horizon) < np.array([4, 2, 4, 3, 4])[:n, None]
    return Trajectories(normal(2), normal(1), np.where(mask, normal(), 0), mask), normal()


@partial(jax.jit, static_argnames="estimator")
def value_and_slope(log_prob, seen, counts, estimator="surrogate"):
    judged = credit(seen, counts, discount=0.9, standardise=True)
    return jax.value_and_grad(policy_loss)(log_prob, seen, judged, counts, discount=0.9, estimator=estimator)


def test_both_estimators_have_the_same_value_and_gradient():
    seen, log_prob = pieces()
    surrogate, dice = (value_and_slope(log_prob, seen, np.ones(5, bool), estimator) for estimator in ESTIMATORS)
    assert float(dice[0]) == pytest.approx(float(surrogate[0])) == pytest.approx(-float(seen.reward.mean()))
    np.testing.assert_allclose(dice[1], surrogate[1], atol=1e-6)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_neither_trajectories_that_do_not_count_nor_steps_after_an_end_change_anything(estimator):
    seen, log_prob = pieces()
    wanted = value_and_slope(log_prob, seen, np.ones(5, bool), estimator)
    noise = 30 * np.random.default_rng(9).standard_normal((2, 4), np.float32)
    mask = np.concatenate([seen.mask, np.ones((2, 4), bool)])
    observation, action = (np.concatenate([leaf, 30 * leaf[:2]]) for leaf in (seen.observation, seen.action))
    observation = np.where(mask[..., None], observation, np.float32(7.0))
    padded = Trajectories(observation, action, np.concatenate([seen.reward, noise]), mask)
    log_prob = np.concatenate([np.where(seen.mask, log_prob, np.float32(-50.0)), noise])
    value, slope = map(np.asarray, value_and_slope(log_prob, padded, np.arange(7) < 5, estimator))
    assert value == pytest.approx(float(wanted[0]), rel=1e-5)
    np.testing.assert_allclose(slope[:5], wanted[1], atol=1e-5)
    assert not slope[5:].any()


def test_standardised_advantages_have_mean_0_and_deviation_1_over_the_steps_that_were_taken():
    seen, _ = pieces()

    @jax.jit
    def advantages(seen):
        judged = credit(seen, jnp.ones(5, bool), discount=0.9, standardise=True)
        return judged.scale * (returns_to_go(seen.reward, 0.9) - judged.baseline)

    advantage = np.asarray(advantages(seen))[seen.mask]
    assert advantage.mean() == pytest.approx(0, abs=1e-5)
    assert advantage.std() == pytest.approx(1, rel=1e-4)


def test_the_baseline_finds_returns_that_are_linear_in_its_features():
    state = np.random.default_rng(0).random((8, 30, 2), np.float32)
    time = np.arange(30, dtype=np.float32) / 100
    returns = 3 - 2 * state[..., 0] + state[..., 1] ** 2 - 4 * time + 5 * time**2
    seen = Trajectories(state, state, returns, np.ones((8, 30), bool))
    np.testing.assert_allclose(jax.jit(linear_baseline)(seen, returns, np.ones(8, bool)), returns, atol=0.02)
    alone = jax.jit(linear_baseline)(jax.tree.map(lambda leaf: leaf[:1], seen), returns[:1], np.ones(1, bool))
    assert not np.asarray(alone).any()


def test_densities_are_those_of_the_normal_distribution():
    policy = Gaussian(jnp.array([[0.5, -1.0]]), jnp.asarray(np.log([0.5, 2.0]), jnp.float32))
    wanted = -0.5 * (4 + 0.25) - np.log(0.5 * 2.0) - np.log(2 * np.pi)
    np.testing.assert_allclose(jax.jit(Gaussian.log_prob)(policy, jnp.array([[1.5, 0.0]])), [wanted], rtol=1e-6)


@pytest.mark.parametrize(("log_std", "counts", "slope"), [(np.log(0.1), 0.4, 0.0), (np.log(0.7), 0.7, 1.0)])
def test_a_deviation_below_the_least_counts_for_the_least_and_has_no_gradient(log_std, counts, slope):
    def std(value):
        variables = {"params": {"log_std": value[None], "Dense_0": {"kernel": jnp.ones((2, 1)), "bias": jnp.zeros(1)}}}
        return GaussianHead(1, 0.4).apply(variables, jnp.ones((3, 2))).log_std[0]

    value, gradient = jax.jit(jax.value_and_grad(std))(np.float32(log_std))
    assert (np.exp(value), float(gradient)) == (pytest.approx(counts), slope)
    with pytest.raises(ValueError, match="least_std must be positive, got 0"):
        learner(least_std=0.0)


def test_returns_rise_update_by_update_as_gradient_descent_has_it():
    """θ ← θ − α ∇ cost, the rate halved after the first step; the return is less noisy where σ is small."""
    theta, rate = np.array([MEAN, -3.0], np.float32), 0.2
    method, fixed = learner(inner_lr=rate), walk()._replace(sample=lambda key: jnp.float32(GOAL))
    params, state = start(method, task(1), theta)
    judge = partial(returns_by_updates, method, params, state, fixed, updates=3, trajectories=500)
    found = jax.jit(jax.vmap(judge))(jax.random.split(KEY, 20))
    wanted, cost = [], jax.jit(exact_loss)
    for step in range(4):
        wanted.append(-float(cost(theta)))
        theta = theta - np.float32(rate / (1 if step == 0 else 2)) * np.asarray(exact_slope(theta, 1))
    np.testing.assert_allclose(np.asarray(found).mean(0), wanted, rtol=0.03, atol=1e-3)
    assert found.shape == (20, 4)


@pytest.fixture(scope="module")
def small():
    """A network that sees its state, and a task of two trajectories."""
    method = policy_gradient(MLP(widths=(5,), norm="none"), walk(3), inner_steps=2)
    given = task(2)
    return method, *jax.jit(method.init)(KEY, given), given


@partial(jax.jit, static_argnames=("method", "ctx"))
def outcome(method, params, state, given, seed, ctx):
    adapted = method.adapt(params, state, given.support, jax.random.key(seed), ctx)
    return adapted, method.predict(params, state, adapted, given.query.inputs, ctx)


def test_the_key_decides_everything_and_every_update_has_trajectories_of_its_own(small):
    method, params, state, given = small
    ctx = Context(inner_steps=2)
    (task, found), (_, again), (_, other) = (outcome(method, params, state, given, seed, ctx) for seed in (1, 1, 2))
    jax.tree.map(np.testing.assert_array_equal, found, again)
    actions = (np.asarray(outputs["trajectories"].action) for outputs in (found, other))
    assert np.not_equal(*actions).all()
    support_return = np.asarray(task["support_return"])
    assert not np.isin(support_return, np.mean(found["return"])).any()
    still = policy_gradient(MLP(widths=(5,), norm="none"), walk(3), inner_lr=0.0)
    returns = np.asarray(outcome(still, params, state, given, 1, ctx)[0]["support_return"])
    assert returns.shape == (2,) and returns[0] != returns[1]
    assert float(returns[0]) == pytest.approx(float(support_return[0]), rel=1e-6)


def test_without_updates_the_policy_is_the_initial_one(small):
    method, params, state, given = small
    adapted, found = outcome(method, params, state, given, 1, Context(inner_steps=0))
    jax.tree.map(np.testing.assert_array_equal, adapted["fast"], params)
    loss = jax.jit(method.loss)(found, given.query)
    assert float(loss) == pytest.approx(-float(np.mean(found["return"])) / 3, rel=1e-5)


def test_tasks_of_another_kind_are_refused():
    rows = Examples(jnp.asarray(np.zeros((4, 2), np.float32)), jnp.asarray(np.arange(4)))
    with pytest.raises(ValueError, match="are the parameters of its environment"):
        learner().init(KEY, Episode(rows, rows))


def test_its_feed_goes_with_it():
    feed = environment_feed(walk(), EpisodeSpec(way=1, shot=2, query=2), 3)
    assert feed.draw is not None
    first = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[0]), feed.draw(feed.pool, KEY, 0, 0, 1))
    params, _ = jax.eval_shape(learner().init, KEY, first)
    assert params["head"]["Dense_0"]["kernel"].shape == (1, 1)
