"""Clusters of mutual neighbourhoods: Jaccard distances in closed form, and rows that lie apart."""

import jax.numpy as jnp
import numpy as np
import pytest

from metarep_jax.data.tasks.reciprocal import dense_clusters, nearest_rows, neighbourhood_distances


def groups(count, each, spread=1e-3, dim=8, seed=0):
    """``count`` far directions, ``each`` rows about every one of them."""
    random = np.random.default_rng(seed)
    centres = np.eye(dim)[:count]
    rows = np.repeat(centres, each, 0) + spread * random.normal(size=(count * each, dim))
    return rows, np.repeat(np.arange(count), each)


def is_stored(apart):
    """Which pairs the sparse distances hold, zeros among them."""
    found = np.zeros(apart.shape, bool)
    found[np.repeat(np.arange(len(found)), np.diff(apart.indptr)), apart.indices] = True
    return found


def test_rows_of_one_group_have_the_same_neighbourhood_and_those_of_two_groups_share_none():
    rows, label = groups(3, 4)
    apart = neighbourhood_distances(rows, neighbours=3, smooth=1)
    np.testing.assert_array_equal(is_stored(apart), label[:, None] == label)
    np.testing.assert_allclose(apart.data, 0, atol=1e-3)


def test_the_distance_is_one_minus_the_shared_weight_over_the_whole():
    """Four rows on a circle, 40° apart, two neighbours each: mutual ones are the next rows, the ends have one."""
    angle = np.deg2rad([0, 40, 80, 120])
    rows = np.stack([np.cos(angle), np.sin(angle)], 1)
    near = np.exp(2 * (np.cos(np.deg2rad(40)) - 1))
    weights = np.array([[1, near, 0, 0], [near, 1, near, 0], [0, near, 1, near], [0, 0, near, 1]])
    weights /= weights.sum(1, keepdims=True)
    least = np.minimum(weights[:, None], weights).sum(-1)
    most = np.maximum(weights[:, None], weights).sum(-1)
    # The nearest two of an end are the next two rows, of which only the next one counts it among its own two.
    apart = neighbourhood_distances(rows, neighbours=2, smooth=1)
    stored = is_stored(apart)
    np.testing.assert_array_equal(stored, least > 0)
    dense = np.where(stored, apart.toarray(), 1.0)
    np.testing.assert_allclose(dense, 1 - least / most, atol=1e-6)


def test_the_distance_is_symmetric_and_zero_to_itself():
    rows = np.random.default_rng(1).normal(size=(40, 5))
    apart = neighbourhood_distances(rows, neighbours=6).toarray()
    np.testing.assert_allclose(apart, apart.T, atol=1e-6)
    np.testing.assert_allclose(np.diag(apart), 0, atol=1e-6)


def test_the_nearest_rows_leave_out_the_row_itself_even_among_copies():
    found = nearest_rows(jnp.ones((5, 2)), k=3)
    assert all(len({place, *row}) == 4 for place, row in enumerate(found.tolist()))


def test_the_nearest_rows_are_those_of_a_sort_whatever_the_block():
    rows = np.random.default_rng(2).normal(size=(23, 4)).astype(np.float32)
    products = rows @ rows.T
    np.fill_diagonal(products, -np.inf)
    for block in (5, 23, 512):
        np.testing.assert_array_equal(nearest_rows(rows, k=4, block=block), np.argsort(-products, axis=1)[:, :4])


def test_groups_become_clusters_and_a_row_that_lies_apart_has_none():
    rows, label = groups(3, 10, spread=0.05)
    rows = np.concatenate([rows, np.eye(8)[-1:]])
    found = dense_clusters(rows, neighbours=5, radius=0.6, least=3)
    assert found[-1] == -1
    pairs = {(a, b) for a, b in zip(label.tolist(), found[:-1].tolist()) if b >= 0}
    assert len(pairs) == len({b for _, b in pairs}) and {a for a, _ in pairs} == {0, 1, 2}


def test_scaling_rows_changes_nothing():
    rows, _ = groups(3, 6, spread=0.2)
    first = neighbourhood_distances(rows, neighbours=4).toarray()
    second = neighbourhood_distances(rows * np.linspace(1, 9, len(rows))[:, None], neighbours=4).toarray()
    np.testing.assert_allclose(first, second, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "word"), [({"radius": 0.0}, "radius"), ({"radius": 1.0}, "radius"), ({"neighbours": 18}, "17")]
)
def test_settings_out_of_range_are_refused(settings, word):
    with pytest.raises(ValueError, match=word):
        dense_clusters(groups(3, 6)[0], **settings)
