"""Point navigation against transitions worked out by hand; rollouts and the feed of tasks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarep_jax.data.control.environments import environment_feed, rollout
from metarep_jax.data.control.navigation_environment import NavigationParameters, NavigationState, navigation
from metarep_jax.types import EpisodeSpec

KEY = jax.random.key(0)
GOALS = NavigationParameters(jnp.array([[0.3, 0.0], [0.0, -0.4], [0.5, 0.5]]))


def moved(position, action, goal, **how):
    state = NavigationState(jnp.array(position))
    return navigation(**how).step(KEY, state, jnp.array(action), NavigationParameters(jnp.array(goal)))


@pytest.mark.parametrize(("reward", "wanted"), [("distance", -0.5), ("squared_distance", -0.25)])
def test_a_step_moves_by_the_action_and_pays_for_the_distance_that_remains(reward, wanted):
    observation, state, found, done = moved([0.1, 0.2], [0.05, -0.1], [0.45, 0.5], reward=reward)
    np.testing.assert_allclose(observation, [0.15, 0.1], rtol=1e-6)
    np.testing.assert_array_equal(state.position, observation)
    assert float(found) == pytest.approx(wanted, rel=1e-6)
    assert not done


def test_each_number_of_an_action_is_clipped():
    observation, *_ = moved([0.0, 0.0], [0.7, -5.0], [0.3, 0.3])
    np.testing.assert_allclose(observation, [0.1, -0.1], rtol=1e-6)


@pytest.mark.parametrize(("away", "ends"), [(0.0099, True), (0.0101, False)])
def test_an_episode_ends_within_a_hundredth_of_the_goal(away, ends):
    *_, done = moved([0.0, 0.0], [0.06, 0.08], [0.06 + 0.6 * away, 0.08 + 0.8 * away])
    assert bool(done) is ends


def test_a_task_starts_at_the_origin_and_its_goal_is_uniform_in_the_unit_square():
    environment = navigation()
    goals = jax.vmap(environment.sample)(jax.random.split(KEY, 4000)).goal
    assert jnp.abs(goals).max() <= 0.5
    np.testing.assert_allclose(goals.mean(0), 0, atol=4 * (1 / 12 / 4000) ** 0.5)
    np.testing.assert_allclose(jnp.cov(goals.T), np.eye(2) / 12, atol=5e-3)
    observation, state = environment.reset(KEY, NavigationParameters(goals[0]))
    assert not observation.any() and not state.position.any()


def test_a_point_at_rest_earns_what_the_documentation_says():
    """The mean distance to the origin over the unit square is (√2 + log(1 + √2)) / 6 = 0.3826, the mean square 1/6."""
    goals = jax.vmap(navigation().sample)(jax.random.split(KEY, 4000)).goal
    distance = np.linalg.norm(goals, axis=1)
    assert distance.mean() == pytest.approx((2**0.5 + np.log(1 + 2**0.5)) / 6, rel=0.02)
    assert (distance**2).mean() == pytest.approx(1 / 6, rel=0.03)


def straight(key, observation):
    """Straight to the right, faster than the point can go."""
    del key
    return jnp.full_like(observation, 1.0) * jnp.array([1.0, 0.0])


def test_a_rollout_is_what_its_policy_does_until_the_goal_and_pays_nothing_after():
    found = rollout(KEY, navigation(horizon=6), straight, GOALS)
    np.testing.assert_allclose(found.observation[1, :, 0], 0.1 * np.arange(6), rtol=1e-6)
    assert not found.observation[..., 1].any()
    np.testing.assert_array_equal(found.mask, [[1, 1, 1, 0, 0, 0], [1] * 6, [1] * 6])
    np.testing.assert_allclose(found.reward[0], [-0.2, -0.1, 0, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(found.reward[1], -np.hypot(0.1 * np.arange(1, 7), 0.4), rtol=1e-5)


def noisy(key, observation):
    """A random walk."""
    return 0.1 * jax.random.normal(key, observation.shape)


def test_the_same_key_gives_the_same_rollout_and_another_another():
    environment = navigation(horizon=5)
    found, again, other = (rollout(jax.random.key(i), environment, noisy, GOALS) for i in (1, 1, 2))
    jax.tree.map(np.testing.assert_array_equal, found, again)
    assert (found.action != other.action).all()


def test_the_feed_draws_tasks_by_step_and_key_however_they_are_divided():
    spec = EpisodeSpec(way=1, shot=3, query=2)
    feed = environment_feed(navigation(), spec, 4)
    assert feed.draw is not None
    whole = feed.draw(feed.pool, KEY, 5, 0, 1)
    halves = [feed.draw(feed.pool, KEY, 5, shard, 2) for shard in range(2)]
    jax.tree.map(lambda a, *b: np.testing.assert_array_equal(a, jnp.concatenate(b)), whole, *halves)
    goals = whole.support.inputs.goal
    assert goals.shape == (4, 3, 2) and whole.query.inputs.goal.shape == (4, 2, 2)
    np.testing.assert_array_equal(goals, jnp.repeat(goals[:, :1], 3, 1))
    assert len(np.unique(np.asarray(goals)[:, 0])) == 8
    assert (feed.draw(feed.pool, KEY, 6, 0, 1).support.inputs.goal != goals).all()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: navigation(horizon=0), "at least 1 step, got horizon=0"),
        (lambda: environment_feed(navigation(), EpisodeSpec(way=1), 0), "tasks must be at least 1, got 0"),
        (lambda: environment_feed(navigation(), EpisodeSpec(way=5), 4), "EpisodeSpec.way must be 1, got 5"),
    ],
)
def test_what_cannot_be_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
