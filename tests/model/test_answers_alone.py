"""An answer depends on nothing but its own input: whatever learner, in any company, and in any order."""

from functools import cache

import jax
import numpy as np
import pytest

from metarep_jax.encoders import EncoderConfig, make_encoder
from metarep_jax.metalearn import LEARNERS, LearnerConfig, make_learner
from metarep_jax.model import Model, ModelSpec
from metarep_jax.types import EpisodeSpec, episode_of

ENCODER = EncoderConfig("mlp", width=4)
SHAPE = (4, 4, 1)
RANDOM = np.random.default_rng(0)
SUPPORT = RANDOM.integers(0, 255, (4, *SHAPE), np.uint8)
QUERIES = RANDOM.integers(0, 255, (3, *SHAPE), np.uint8)
LABELS = ["one", "two", "one", "two"]
TRANSDUCTIVE = {  # at test, as their papers do it
    "maml", "anil", "boil", "cavia", "meta_sgd", "meta_curvature", "maml_pp", "imaml",
}  # fmt: skip


@cache
def adapted(name, **how):
    if how:  # adapted in another way, of the same parameters
        return adapted(name).adapt(SUPPORT, LABELS, **how)
    config = LearnerConfig(name)
    learner = make_learner(config, make_encoder(ENCODER), way=2)
    init = jax.jit(lambda x: learner.init(jax.random.key(0), episode_of(EpisodeSpec(2, 1, 1), x)))
    return Model(ModelSpec("learner", ENCODER, config, SHAPE, way=2), *init(SUPPORT)).adapt(SUPPORT, LABELS)


def answers(model, inputs, **how):
    return np.asarray(model.predict(inputs, **how).probability)


@pytest.mark.parametrize("name", sorted(LEARNERS))
def test_queries_have_the_same_answers_one_by_one_and_in_any_company_and_order(name):
    model = adapted(name)
    together = answers(model, QUERIES)
    alone = [answers(model, QUERIES[row : row + 1])[0] for row in range(3)]
    np.testing.assert_allclose(together, alone, rtol=2e-4, atol=1e-6)
    crowd = np.concatenate([QUERIES[2:], SUPPORT[:1], QUERIES[:1]])  # of another order, and with a stranger
    np.testing.assert_allclose(answers(model, crowd)[::-2], together[::2], rtol=2e-4, atol=1e-6)
    if name in TRANSDUCTIVE:
        assert np.ptp(together, axis=0).max() > 1e-6  # and they are answers to the inputs


@pytest.mark.parametrize("name", ["maml", "anil", "cavia"])
def test_whoever_wants_transductive_answers_says_so_when_adapting_or_predicting(name):
    asked = adapted(name, norm="transductive")
    together = answers(asked, QUERIES)
    np.testing.assert_array_equal(together, answers(adapted(name), QUERIES, norm="transductive"))
    assert np.abs(together - answers(adapted(name), QUERIES)).max() > 1e-6
