"""What experiments.evaluate makes of a model: other learners from its encoder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.evaluate import EvaluateConfig
from metarep_jax.encoders import EncoderConfig, encoder_variables, make_encoder
from metarep_jax.encoders.features import Whitening
from metarep_jax.metalearn import LearnerConfig, make_learner
from metarep_jax.model import Model, ModelSpec
from metarep_jax.stages.evaluate import frozen_features
from metarep_jax.types import EpisodeSpec, Examples, episode_of

SHAPE, WAY = (4, 4, 1), 3
ENCODER = EncoderConfig(name="mlp", width=5)
INPUTS, LABELS = jax.random.uniform(jax.random.key(0), (6, *SHAPE)), np.repeat(np.arange(WAY), 2)


def model(name, whitening=None):
    """An untrained model whose learner is ``name``."""
    learner = LearnerConfig(name=name)
    method = make_learner(learner, make_encoder(ENCODER), way=WAY)
    params, state = method.init(jax.random.key(1), episode_of(EpisodeSpec(way=WAY), INPUTS))
    return Model(ModelSpec("learner", ENCODER, learner, SHAPE, way=WAY), params, state, whitening)


@pytest.mark.parametrize("name", ["finetune_head", "scratch"])
def test_a_fine_tuning_baseline_judges_any_models_features(name):
    trained = model("maml", Whitening(jnp.full(5, 0.3), 2 * jnp.eye(5)))
    found = frozen_features(trained, LearnerConfig(name=name, test_steps=3))
    assert set(found.params) == {"encoder"} and not found.fixed_way
    probability = found.adapt(INPUTS, LABELS).predict(INPUTS).probability
    method, ctx = found.learner(WAY), found.learner(WAY).test_context

    @jax.jit
    def logits():
        support = Examples(INPUTS, jnp.asarray(LABELS))
        task = method.adapt(trained.params, trained.learner_state, support, jax.random.key(0), ctx)
        return method.predict(trained.params, trained.learner_state, task, INPUTS, ctx)["logits"]

    np.testing.assert_allclose(probability, jax.nn.softmax(logits()), rtol=1e-4)


def test_a_learner_with_a_head_starts_from_the_models_encoder_and_an_untrained_head():
    trained = model("prototypical")
    found = frozen_features(trained, LearnerConfig(name="maml"))
    assert found.fixed_way and not found.params["head"]["kernel"].any()
    given = (encoder_variables(at.params, at.state) for at in (found, trained))
    jax.tree.map(np.testing.assert_array_equal, *given)


def test_an_unknown_learner_is_refused_before_anything_is_read():
    with pytest.raises(ValueError, match="unknown learner 'mmal'"):
        EvaluateConfig(learner=("finetune_head", "mmal"))
