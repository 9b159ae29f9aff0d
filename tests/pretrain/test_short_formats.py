"""Everything that trains computes in the encoder's number format, and rounds neither losses nor parameters to it."""

import jax
import jax.numpy as jnp
import pytest
from jax.extend.core import jaxprs_in_params

from metarep_jax.data import make_augment
from metarep_jax.distill import classifier, feature_regression
from metarep_jax.encoders import EncoderConfig, make_encoder
from metarep_jax.pretrain import OBJECTIVES
from metarep_jax.pretrain.heads import Head
from metarep_jax.types import Keys

IMAGES = jax.ShapeDtypeStruct((16, 16, 16, 1), jnp.uint8)
ENCODERS = {"mae": EncoderConfig("vit", width=8, depth=1, heads=2), "autoencoder": EncoderConfig(width=8)}
OBJECTIVES_HERE = {"mae": 0, "autoencoder": 0, "rotation": 0, "byol": 1}  # and their float32 products: a covariance


def float32_products(function, *shapes):
    """How many products of the traced function have two factors of float32, without those that it asks to be so."""

    def count(jaxpr):
        found = 0
        for equation in jaxpr.eqns:
            if equation.primitive.name in ("dot_general", "conv_general_dilated"):
                factors = {str(variable.aval.dtype) for variable in equation.invars}
                found += factors == {"float32"} and equation.params["precision"] is None
            found += sum(map(count, jaxprs_in_params(equation.params)))
        return found

    return count(jax.make_jaxpr(function)(*shapes).jaxpr)


@pytest.mark.parametrize("name", OBJECTIVES_HERE)
def test_decoders_and_heads_compute_in_the_encoders_format(name):
    encoder = make_encoder(ENCODERS.get(name, EncoderConfig(width=8)), dtype=jnp.bfloat16, conv="lax")
    views = {} if name in ENCODERS else {"augment": make_augment("none")}
    objective = OBJECTIVES[name](encoder, **views)
    keys = jax.eval_shape(lambda: Keys(jax.random.split(jax.random.key(0), 16), jax.random.key(0)))
    params, state = jax.eval_shape(objective.init, keys.shared, {"inputs": IMAGES})
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))

    def loss(params, state, images, keys):
        return objective.loss(params, state, {"inputs": images}, keys, 0)[0]

    assert jax.eval_shape(loss, params, state, IMAGES, keys).dtype == jnp.float32
    assert float32_products(jax.grad(loss), params, state, IMAGES, keys) == OBJECTIVES_HERE[name]


@pytest.mark.parametrize("last_norm", [False, True])
def test_a_head_gives_what_follows_it_its_own_format(last_norm):
    head, rows = Head((8, 4), last_norm=last_norm), jax.ShapeDtypeStruct((6, 5), jnp.bfloat16)
    variables = jax.eval_shape(head.init, jax.random.key(0), rows)
    outputs = jax.eval_shape(lambda *args: head.apply(*args, mutable=["batch_stats"])[0], variables, rows)
    assert outputs.dtype == jnp.bfloat16


def test_a_classifiers_logits_and_a_regression_are_computed_in_the_students_format_and_measured_in_float32():
    encoder = make_encoder(EncoderConfig(width=8), dtype=jnp.bfloat16, conv="lax")
    student, term = classifier(encoder, 3), feature_regression()
    params, state = jax.eval_shape(student.init, jax.random.key(0), IMAGES)
    features, wanted = (
        {"features": jax.ShapeDtypeStruct((16, dim), kind)} for dim, kind in ((8, "bfloat16"), (6, "f4"))
    )
    own, memory = jax.eval_shape(lambda *outputs: term.init(jax.random.key(0), *outputs, {}, 0), features, wanted)

    def loss(params, state, own, images, wanted):
        outputs, _ = student.outputs(params, state, images, train=True)
        keys = Keys(jax.random.split(jax.random.key(0), 16), jax.random.key(0))
        return outputs["logits"].sum() + term.apply(own, memory, outputs, wanted, {}, keys)[0]

    assert jax.eval_shape(loss, params, state, own, IMAGES, wanted).dtype == jnp.float32
    assert float32_products(jax.grad(loss), params, state, own, IMAGES, wanted) == 0
