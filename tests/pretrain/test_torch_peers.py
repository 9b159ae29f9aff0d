"""The benchmarks' PyTorch peers compute what ours compute: losses, gradients, teacher and queue."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from objective_checks import gradients, started

from experiments.benchmarks import self_supervised_steps as steps
from metarep_jax.encoders.features import unit_rows
from metarep_jax.pretrain import info_nce, nt_xent
from metarep_jax.pretrain.mae import masked_error
from metarep_jax.pretrain.simsiam import negative_cosine
from metarep_jax.types import Keys

torch = pytest.importorskip("torch")
ssl_peers = pytest.importorskip("experiments.benchmarks.ssl_peers")
torch_nets = pytest.importorskip("experiments.benchmarks.torch_nets")

CONFIG = steps.SelfSupervisedStepsConfig(batch=16, width=3, vit_width=8, vit_depth=1)
KEYS = Keys(jax.random.split(jax.random.key(1), CONFIG.batch), jax.random.key(2))
ROWS = jax.random.normal(jax.random.key(0), (4, 6, 5))


def on_torch(*arrays):
    return [torch.from_numpy(np.array(array)) for array in arrays]


def test_nt_xent_of_the_same_embeddings_is_ours():
    found = ssl_peers.nt_xent(on_torch(ROWS[:2].reshape(-1, 5))[0], 0.3)
    assert float(found) == pytest.approx(float(nt_xent(ROWS[0], ROWS[1], temperature=0.3)[0]), rel=1e-5)


def test_mocos_loss_of_the_same_embeddings_and_queue_is_ours():
    rows = unit_rows(ROWS)
    query, key, queue = rows[0], rows[1], rows[2:].reshape(-1, 5)
    found = ssl_peers.info_nce(*on_torch(query, key, queue), 0.2)
    assert float(found) == pytest.approx(float(info_nce(query, key, queue, temperature=0.2)[0]), rel=1e-5)


def test_byols_loss_of_the_same_embeddings_is_ours():
    q1, q2, z1, z2 = ROWS
    found = ssl_peers.byol_loss(*on_torch(np.concatenate([q1, q2]), np.concatenate([z1, z2])))
    ours = 2 + 2 * negative_cosine(q1, z2) + 2 + 2 * negative_cosine(q2, z1)
    assert float(found) == pytest.approx(float(ours), rel=1e-5)


def test_maes_loss_of_the_same_predictions_is_ours():
    masked = jax.random.bernoulli(jax.random.key(3), shape=(4, 6))
    found = ssl_peers.masked_error(*on_torch(ROWS, ROWS[::-1], masked))
    assert float(found) == pytest.approx(float(masked_error(ROWS, ROWS[::-1], masked, True)), rel=1e-5)


@pytest.mark.parametrize("name", steps.SETTINGS)
def test_from_the_same_weights_and_views_a_step_has_our_loss_gradient_and_queue(name):
    objective, views = steps.our_objective(name, CONFIG, None), steps.make_views(CONFIG)
    batch = jax.tree.map(jnp.asarray, steps.our_batch(name, views))
    params, state = started(objective, batch)
    if "teacher" in state:
        state["teacher"] = {part: params[part] for part in state["teacher"]}
    grads, after, metrics = jax.jit(gradients(objective))(params, state, batch, KEYS)
    peer = steps.torch_peer(name, CONFIG, params)
    if "queue" in state:
        peer.get_buffer("queue").copy_(*on_torch(state["queue"].rows))
    found = ssl_peers.update(
        peer,
        torch.optim.SGD([leaf for leaf in peer.parameters() if leaf.requires_grad], lr=0.0),
        steps.torch_inputs(name, views),
        *steps.drawn_order(name, KEYS, CONFIG.batch),
    )
    norm = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(grads)))
    assert float(found) == pytest.approx(float(metrics["loss"]), rel=1e-4)
    assert ssl_peers.gradient_norm(peer) == pytest.approx(float(norm), rel=1e-3)
    if "queue" in state:
        np.testing.assert_allclose(peer.get_buffer("queue"), after["queue"].rows, atol=1e-4)


def test_the_teacher_follows_by_its_momentum():
    peer = ssl_peers.BYOL(torch_nets.Conv4(1, 2, 16), hidden=3, out=2, momentum=0.9)
    with torch.no_grad():
        for student, teacher in zip(peer.student.parameters(), peer.teacher.parameters(), strict=True):
            student.fill_(2.0)
            teacher.fill_(1.0)
    peer.after_update()
    assert all(torch.allclose(leaf, torch.tensor(1.1)) for leaf in peer.teacher.parameters())


def test_parameters_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"only one side has: \['bias', 'wait'\]"):
        torch_nets.set_parameters(torch.nn.Linear(1, 1), {"weight": np.ones((1, 1)), "wait": np.ones(1)})
