"""A finished model is loaded for data that it takes, and for no other."""

from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from metarep_jax.data import DataConfig, splits_from_arrays
from metarep_jax.encoders import EncoderConfig
from metarep_jax.metalearn import LearnerConfig
from metarep_jax.model import Model, ModelSpec, save_model
from metarep_jax.stages.starting_models import load_model


def saved(folder, encoder, tokenizer=""):
    """A folder with a model whose weights do not matter."""
    spec = ModelSpec("learner", encoder, LearnerConfig(name="prototypical"), (40,), tokenizer=tokenizer)
    save_model(folder, Model(spec, {"encoder": {"weight": jnp.ones(2)}}, {"encoder": {}}))
    return folder


def splits_of(rate=8000, tokenizer="") -> Any:
    """What is asked of splits: recordings, or rows of token ids."""
    config, inputs = DataConfig("synthetic-speech", rate=rate), np.zeros((1, 40), np.int16)
    token_ids = SimpleNamespace(digest=tokenizer) if tokenizer else None
    splits: Any = splits_from_arrays(train=(inputs, np.zeros(1, np.int32)))
    return splits._replace(config=config, tokenizer=token_ids)


def test_recordings_at_another_rate_are_refused_with_the_flag_that_helps(tmp_path):
    folder = saved(tmp_path, EncoderConfig(name="waveform", rate=16_000))
    assert load_model(folder, splits_of(rate=16_000)).spec.encoder.get("rate") == 16_000
    with pytest.raises(ValueError, match=r"at 16000 Hz.*read at 8000 Hz; give --data.rate 16000"):
        load_model(folder, splits_of(rate=8000))


def test_token_ids_of_another_tokenizer_are_refused_with_the_flag_that_helps(tmp_path):
    folder = saved(tmp_path, EncoderConfig(name="transformer"), tokenizer="a1b2")
    assert load_model(folder, splits_of(tokenizer="a1b2")).spec.tokenizer == "a1b2"
    for other, said in (("c3d4", "token ids of the tokenizer c3d4"), ("", "no token ids")):
        with pytest.raises(ValueError, match=f"takes token ids of the tokenizer a1b2, the data are {said}; .*-from"):
            load_model(folder, splits_of(tokenizer=other))
