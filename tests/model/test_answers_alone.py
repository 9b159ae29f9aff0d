"""An answer depends on nothing but its own input: whatever learner, in any company, and in any order."""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarep_jax.encoders import EncoderConfig, make_encoder
from metarep_jax.metalearn import LEARNERS, LearnerConfig, make_learner
from metarep_jax.model import Model, ModelSpec
from metarep_jax.types import EpisodeSpec, episode_of

ENCODER = EncoderConfig("mlp", width=4)
SHAPE = (4, 4, 1)
KEY = jax.random.key(0)
SUPPORT = np.asarray(jax.random.randint(KEY, (4, *SHAPE), 0, 255), np.uint8)
QUERIES = np.asarray(jax.random.randint(jax.random.key(1), (3, *SHAPE), 0, 255), np.uint8)
LABELS = ["one", "two", "one", "two"]
TRANSDUCTIVE = {  # at test, as their papers do it
    "maml", "anil", "boil", "cavia", "meta_sgd", "meta_curvature", "maml_pp", "imaml",
}  # fmt: skip


@lru_cache(maxsize=1)
def adapted(name, **how):
    config = LearnerConfig(name)
    learner = make_learner(config, make_encoder(ENCODER), way=2)
    params, state = learner.init(KEY, episode_of(EpisodeSpec(2, 1, 1), jnp.asarray(SUPPORT)))
    return Model(ModelSpec("learner", ENCODER, config, SHAPE, way=2), params, state).adapt(SUPPORT, LABELS, **how)


@pytest.mark.parametrize("name", sorted(LEARNERS))
def test_queries_have_the_same_answers_one_by_one_and_in_any_company_and_order(name):
    model = adapted(name)
    together = model.predict(QUERIES).probability
    alone = [model.predict(QUERIES[row : row + 1]).probability[0] for row in range(3)]
    np.testing.assert_allclose(together, alone, rtol=2e-4, atol=1e-6)
    crowd = np.concatenate([QUERIES[2:], SUPPORT[:1], QUERIES[:1]])  # of another order, and with a stranger
    np.testing.assert_allclose(model.predict(crowd).probability[::-2], together[::2], rtol=2e-4, atol=1e-6)
    if name in TRANSDUCTIVE:
        assert np.ptp(np.asarray(together), axis=0).max() > 1e-6  # and they are answers to the inputs


@pytest.mark.parametrize("name", ["maml", "anil", "cavia"])
def test_whoever_wants_transductive_answers_says_so_when_adapting_or_predicting(name):
    asked = adapted(name, norm="transductive")
    together = asked.predict(QUERIES).probability
    np.testing.assert_array_equal(together, adapted(name).predict(QUERIES, norm="transductive").probability)
    assert np.abs(together - adapted(name).predict(QUERIES).probability).max() > 1e-6
