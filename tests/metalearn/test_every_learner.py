"""What must hold for every learner, whatever it computes: symmetries, padding, chunks, devices, float types, labels."""

import dataclasses
import functools
import inspect
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import classification, compiled, double, regression, start

from metarep_jax.encoders.mlp import MLP
from metarep_jax.metalearn import LEARNERS, LearnerConfig, adapts_encoder, trains
from metarep_jax.metalearn.base import UNREACHABLE
from metarep_jax.metalearn.meta_gradient import meta_gradient
from metarep_jax.train.parallel import map_step, mean_over_devices, replicate, shard
from metarep_jax.types import Episode, Examples, Keys

WAY, SHOT, TASKS, WIDTHS = 3, 2, 4, (5,)
ALL = np.ones(WAY * SHOT, bool)
WHOLE = WAY * SHOT  # minibatches hold the whole support set: then they agree however it is ordered and padded

SETTINGS = {  # beside few inner steps: what keeps a learner small, and without chance
    "cavia": {"context": 2},
    "relation": {"hidden": 6},
    "logistic_regression": {"iterations": 30},
    "reptile": {"inner_batch": WHOLE, "test_batch": WHOLE},
    "finetune_head": {"test_batch": WHOLE, "inner_lr": 0.3},
    "finetune_cosine_head": {"test_batch": WHOLE, "inner_lr": 0.3},
    "finetune_all": {"test_batch": WHOLE, "inner_lr": 0.3},
    "scratch": {"test_batch": WHOLE, "inner_lr": 0.3},
}
FEW_STEPS = {"inner_steps": 1, "test_steps": 2, "iterations": 2}
MORE = {  # learners under other settings
    "prototypical_cosine": ("prototypical", {"distance": "cosine"}),
    "matching_full_context": ("matching", {"full_context": True, "reads": 2}),
}
CASES = {name: (name, SETTINGS.get(name, {})) for name in LEARNERS} | MORE
TRAINED = [case for case, (name, _) in CASES.items() if trains(name)]
BASELINES = sorted(set(LEARNERS) - {name for name in LEARNERS if trains(name)})
QUICK = {"maml", "prototypical", "reptile", "ridge"}  # one of each kind; the others take 5 to 10 s each to compile
READS_IN_ORDER = {"matching_full_context"}  # an LSTM over the support set
ITERATED = {"logistic_regression"}  # L-BFGS, which comes as near to its minimum as the root of the numbers' precision
REGRESSION = [name for name in LEARNERS if "output" in inspect.signature(LEARNERS[name]).parameters]
REGRESSION.remove("finetune_cosine_head")  # the parameter belongs to the other kinds of fine-tuning
INNER_LOOP = [name for name in LEARNERS if "test_steps" in inspect.signature(LEARNERS[name]).parameters]


OWN_META_GRADIENT = {"maml_pp", "reptile"}  # and nothing else takes its tasks in chunks by itself


def make(case, dtype=jnp.float32, norm="batch", way=WAY, **how):
    name, settings = CASES[case]
    takes = inspect.signature(LEARNERS[name]).parameters
    few = {key: value for key, value in FEW_STEPS.items() if key in takes}
    return LEARNERS[name](MLP(widths=WIDTHS, norm=norm, dtype=dtype), way=way, **{**few, **settings, **how})


def stacked(trees):
    """By numpy, here and below: it has nothing to compile."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


@functools.cache
def setting(case):
    """The learner, parameters and state, and a batch of tasks."""
    learner = make(case)
    tasks = [classification(seed, WAY, SHOT) for seed in range(TASKS)]
    episodes = stacked(tasks)
    keys = jax.random.split(jax.random.key(7), TASKS)
    return learner, *start(learner, tasks[0]), episodes, Keys(keys, keys[0])


def gradient(learner, chunk):
    if learner.meta_grad is None:
        return meta_gradient(learner, chunk)
    return functools.partial(learner.meta_grad, chunk=chunk)


def in_order(case, order, chunk):
    """The meta-gradient of the tasks in that order, on one device."""
    learner, params, state, episodes, keys = setting(case)
    moved, example = jax.tree.map(lambda leaf: leaf[order], (episodes, keys.example))
    return compiled(gradient(learner, chunk))(params, state, moved, keys._replace(example=example), 0)


@functools.cache
def meta_gradients(case):
    """On two devices, one task at a time; what each of them found is the same."""
    learner, params, state, episodes, keys = setting(case)

    def step(params, source):
        episodes, example = source
        return mean_over_devices(gradient(learner, 1)(params, state, episodes, Keys(example, keys.shared), 0))

    used = jax.devices()[:2]
    parts = jax.tree.map(lambda leaf: leaf.reshape(2, -1, *leaf.shape[1:]), (episodes, keys.example))
    found = jax.tree.map(np.asarray, map_step(step, used)(replicate(params, used), shard(parts, used)))
    first, second = (jax.tree.map(lambda leaf, device=device: leaf[device], found) for device in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, second)
    return first


def up_to_a_constant(logits):
    """A constant added to all classes' logits changes no probability."""
    return logits - logits.max(-1, keepdims=True)


def close(found, wanted, rtol=1e-4, atol=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), found, wanted)


@pytest.mark.parametrize(
    "case", [case if case in QUICK else pytest.param(case, marks=pytest.mark.slow) for case in TRAINED]
)
def test_one_device_all_tasks_at_once_and_double_precision_change_no_meta_gradient(case):
    _, params, state, episodes, keys = setting(case)
    with jax.enable_x64(True):
        learner = make(case, jnp.float64)
        given = jax.tree.map(double, (params, state, episodes))
        found = compiled(gradient(learner, TASKS))(*given, keys, 0)
        assert {leaf.dtype for leaf in jax.tree.leaves(found[0])} <= {jnp.dtype(jnp.float64)}
        found = jax.tree.map(np.asarray, found)
    close(found, meta_gradients(case), rtol=2e-3, atol=2e-4)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(found[0])) > 1e-4


@pytest.mark.parametrize(
    "case", [case if case in OWN_META_GRADIENT else pytest.param(case, marks=pytest.mark.slow) for case in TRAINED]
)
def test_pairs_of_tasks_in_another_order_change_no_meta_gradient(case):
    """By the shared meta-gradient, ``test_base`` sees to that."""
    close(in_order(case, np.array([3, 1, 0, 2]), 2), meta_gradients(case))


def answers(learner, ctx, output="logits"):
    def answer(params, state, support, inputs, mask=None):
        task = learner.adapt(params, state, support, jax.random.key(0), ctx)
        return learner.predict(params, state, task, inputs, ctx, **({} if mask is None else {"mask": mask}))[output]

    return answer


def with_renamed_outputs(params, renamed):
    """Every axis as long as there are outputs (no other is) in the new order."""
    back = np.argsort(renamed)

    def rename(leaf):
        leaf = np.asarray(leaf)
        for axis in np.flatnonzero(np.array(leaf.shape) == WAY):
            leaf = np.take(leaf, back, axis)
        return leaf

    return jax.tree.map(rename, params)


@pytest.mark.parametrize("case", CASES)
def test_order_names_and_padding_change_no_answer_and_what_was_compiled_once_serves_any_way_and_shot(case):
    learner, params, state, episodes, _ = setting(case)
    task = jax.tree.map(lambda leaf: leaf[0], episodes)
    with jax.enable_x64(case in ITERATED):
        if case in ITERATED:
            learner, (params, state, task) = make(case, jnp.float64), jax.tree.map(double, (params, state, task))
        answers_agree(case, learner, params, state, task)


def answers_agree(case, learner, params, state, task):
    """Of one task: whole, in another order, with other names for its classes, and padded, in one compiled function."""
    (x, y, _), (xq, _, _) = task
    order, renamed = np.array([4, 0, 3, 5, 1, 2]), np.array([2, 0, 1])
    small, few = np.array([False, True, True, False, False, False]), np.arange(WHOLE) < 3  # 2-way 1-shot, 3 queries
    far = np.where(small[:, None], x, 20.0), np.where(small, y, 0), np.where(few[:, None], xq, -20.0)
    tasks = {
        "whole": (params, Examples(x, y, ALL), xq, ALL),
        "ordered": (params, Examples(x[order], y[order], ALL), xq, ALL),
        "renamed": (with_renamed_outputs(params, renamed), Examples(x, renamed[y], ALL), xq, ALL),
        "small": (params, Examples(x, y, small), xq, few),
        "far": (params, Examples(*far[:2], small), far[2], few),
    }
    answer = answers(learner, learner.test_context)
    every_params, *rest = stacked(tasks.values())
    found = np.asarray(compiled(jax.vmap(answer, (0, None, 0, 0, 0)))(every_params, state, *rest))
    found = dict(zip(tasks, map(up_to_a_constant, found)))

    @compiled
    def alone(params, state, x, y, xq):
        whole = answer(params, state, Examples(x, y), xq)
        return whole, answer(params, state, Examples(x[1:3], y[1:3], jnp.ones(2, bool)), xq[:3])

    whole, compact = map(np.asarray, alone(params, state, x, y, xq))
    assert np.ptp(whole) > 1e-3
    np.testing.assert_array_equal(compact[:, 2], UNREACHABLE)
    whole, compact = up_to_a_constant(whole), up_to_a_constant(compact)
    close(found["whole"], whole)
    if case not in READS_IN_ORDER:
        close(found["ordered"], whole)
    close(found["renamed"][:, renamed], whole)
    close(found["small"][:3], compact)
    close(found["far"][:3], compact)


@pytest.mark.parametrize("case", INNER_LOOP)
def test_without_inner_steps_the_support_set_says_nothing(case):
    learner, params, state, episodes, _ = setting(case)
    ctx = dataclasses.replace(learner.test_context, inner_steps=0, norm="running")
    support, query = jax.tree.map(lambda leaf: leaf[:2], episodes)
    answer = compiled(jax.vmap(answers(learner, ctx), (None, None, 0, None)))
    first, other = np.asarray(answer(params, state, support, query.inputs[0]))
    assert case in BASELINES or np.ptp(first) > 1e-3  # baselines' heads start at zero
    np.testing.assert_array_equal(first, other)


@pytest.mark.parametrize("case", REGRESSION)
def test_in_regression_too_order_and_padding_change_no_answer(case):
    learner = make(case, norm="none", way=2, output="mean")
    given = regression(shot=WHOLE, weights=((1.0, 0.5), (-2.0, 0.1)))
    params, state = start(learner, given)
    (x, y, _), inputs = jax.tree.map(np.asarray, (given.support, given.query.inputs))
    order, part = np.array([4, 0, 3, 5, 1, 2]), np.arange(WHOLE) < 3
    padded = Examples(np.where(part[:, None], x, 20.0), np.where(part[:, None], y, -20.0), part)
    supports = [Examples(x, y, ALL), Examples(x[order], y[order], ALL), Examples(x, y, part), padded]
    answer = compiled(jax.vmap(answers(learner, learner.test_context, "mean"), (None, None, 0, None)))
    whole, ordered, small, far = np.asarray(answer(params, state, stacked(supports), inputs))
    assert whole.shape == (len(inputs), 2) and np.abs(whole - small).max() > 1e-3
    close(ordered, whole)
    close(far, small)


@pytest.mark.parametrize("case", BASELINES)
def test_baselines_refuse_to_be_meta_trained(case):
    with pytest.raises(ValueError, match="cannot be meta-trained"):
        in_order(case, np.arange(TASKS), TASKS)


@pytest.mark.parametrize("case", LEARNERS)
def test_labels_that_a_learner_cannot_take_are_refused(case):
    with pytest.raises(ValueError, match="takes classification: class numbers"):
        make(case).init(jax.random.key(0), regression())
    if case in REGRESSION:
        with pytest.raises(ValueError, match="takes regression: float targets"):
            make(case, norm="none", output="mean").init(jax.random.key(0), classification())


TRANSDUCTIVE = {"maml", "anil", "boil", "cavia", "meta_sgd", "meta_curvature", "maml_pp", "imaml"}  # at test


@pytest.mark.parametrize(
    "case", [case if case in TRANSDUCTIVE | QUICK else pytest.param(case, marks=pytest.mark.slow) for case in CASES]
)
def test_in_use_an_answer_is_the_same_alone_in_company_and_in_any_order(case):
    """By default; a test may let batch norm use the statistics of all queries, as MAML's own does."""
    learner, params, state, episodes, _ = setting(case)
    support, query = jax.tree.map(lambda leaf: leaf[0], episodes)
    assert learner.use_context.norm != "transductive"
    answer = compiled(answers(learner, learner.use_context))
    order = np.array([3, 0, 5, 1, 4, 2])
    far = np.where(np.arange(len(query.inputs))[:, None] < 1, query.inputs, 30.0)
    together = np.asarray(answer(params, state, support, query.inputs))
    close(np.asarray(answer(params, state, support, query.inputs[order])), together[order])
    close(np.asarray(answer(params, state, support, far))[:1], together[:1])
    alone = np.concatenate([answer(params, state, support, query.inputs[row : row + 1]) for row in range(2)])
    close(alone, together[:2])


def test_in_use_maml_is_as_good_one_by_one_as_together():
    """On classes that lie apart, whose single images a transductive norm would map to one point."""
    learner = make("maml", inner_steps=3, test_steps=3, inner_lr=1.0)
    centres = 3 * np.random.default_rng(5).standard_normal((WAY, 4))

    def rows(each, seed):
        label = np.repeat(np.arange(WAY, dtype=np.int32), each)
        noise = 0.2 * np.random.default_rng(seed).standard_normal((len(label), 4))
        return Examples(jnp.asarray(centres[label] + noise, jnp.float32), jnp.asarray(label))

    support, query = rows(SHOT, 0), rows(10, 1)
    params, state = compiled(learner.init)(jax.random.key(0), Episode(support, query))
    answer = compiled(answers(learner, learner.use_context))
    together = np.asarray(answer(params, state, support, query.inputs)).argmax(-1)
    alone = np.concatenate([answer(params, state, support, inputs[None]) for inputs in query.inputs]).argmax(-1)
    np.testing.assert_array_equal(alone, together)
    assert np.mean(together == query.label) > 0.9


@pytest.mark.parametrize("name", LEARNERS)
def test_every_setting_of_a_learner_is_described_and_of_a_plain_type(name):
    for setting in LearnerConfig.settings_of(name).values():
        assert setting.help, f"{name}: {setting.name} has no line in Args"
        kinds = typing.get_args(setting.type) or (setting.type,)
        plain = (bool, int, float, str, type(None), *typing.get_args(setting.type))
        assert all(kind in plain for kind in kinds), f"{name}: {setting.name} is {setting.type}"


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("maml", {"inner_lr": 0.0}, "MAML: inner_lr must be positive, got 0.0"),
        ("maml", {"test_steps": -1}, "MAML: test_steps must be at least 0, got -1"),
        ("anil", {"inner_lr": -1.0}, "ANIL: inner_lr must be positive"),
        ("boil", {"inner_steps": -2}, "BOIL: inner_steps must be at least 0"),
        ("meta_curvature", {"inner_lr": 0.0}, "Meta-Curvature: inner_lr must be positive"),
        ("meta_sgd", {"inner_steps": -1}, "Meta-SGD: inner_steps must be at least 0"),
        ("maml_pp", {"inner_lr": 0.0}, r"MAML\+\+: inner_lr must be positive"),
        ("imaml", {"test_proximal": -1.0}, "iMAML: test_proximal must be at least 0"),
        ("cavia", {"test_steps": -1}, "CAVIA: test_steps must be at least 0"),
        ("reptile", {"train_shot": 0}, "Reptile: train_shot must be at least 1"),
        ("prototypical", {"temperature": 0.0}, "Prototypical Networks: temperature must be positive"),
        ("matching", {"temperature": -1.0}, "Matching Networks: temperature must be positive"),
        ("relation", {"hidden": 0}, "Relation Networks: hidden must be at least 1"),
        ("ridge", {"l2": 0.0}, "l2 must be positive"),
        ("newton_logistic", {"l2": -1.0}, "l2 must be positive"),
        ("svm", {"diagonal": -1.0}, "diagonal must be at least 0"),
        ("logistic_regression", {"iterations": 0}, "iterations must be at least 1"),
        ("finetune_head", {"weight_decay": -1.0}, r"fine-tuning \(head\): weight_decay must be at least 0"),
        ("scratch", {"test_batch": 0}, r"fine-tuning \(scratch\): test_batch must be at least 1"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused_by_the_factory_itself(name, settings, words):
    with pytest.raises(ValueError, match=words):
        LEARNERS[name](MLP(widths=WIDTHS), way=WAY, **settings)


def test_learners_say_of_themselves_what_may_be_assumed():
    shares = {name for name in LEARNERS if not adapts_encoder(name)}
    inner = {"maml", "boil", "meta_sgd", "meta_curvature", "maml_pp", "reptile", "imaml", "finetune_all", "scratch"}
    assert shares == set(LEARNERS) - inner
    assert {"logistic_regression", "finetune_head", "scratch"} < set(BASELINES) and "ridge" not in BASELINES
    assert adapts_encoder(LearnerConfig("cavia", context_at="input"))  # features beside a context are the task's
