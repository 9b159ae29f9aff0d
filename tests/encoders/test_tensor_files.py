"""Trees of arrays as safetensors: what comes back, and which files are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarep_jax.encoders.mlp import MLP
from metarep_jax.encoders.tensor_files import load_safetensors, read_tensors, save_safetensors


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_an_encoders_variables_come_back_as_they_were(tmp_path, norm):
    encoder, x = MLP(widths=(3, 2), norm=norm), np.ones((2, 4), np.float32)
    variables = {"batch_stats": {}, **jax.jit(encoder.init)(jax.random.key(0), x)}
    save_safetensors(tmp_path / "deep" / "encoder.safetensors", variables)
    found = load_safetensors(tmp_path / "deep" / "encoder.safetensors")
    assert jax.tree.structure(found) == jax.tree.structure(variables)
    jax.tree.map(np.testing.assert_array_equal, found, variables)
    names, _ = read_tensors(tmp_path / "deep" / "encoder.safetensors")
    assert "params/Dense_0/kernel" in names
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["encoder.safetensors"]


def test_number_formats_are_kept(tmp_path):
    tree = {"a": np.ones(3, jnp.bfloat16), "b": {"c": np.arange(3, dtype=np.int8), "d": np.float32(2)}}
    tree = jax.device_put(tree)
    save_safetensors(tmp_path / "tree.safetensors", tree)
    found = load_safetensors(tmp_path / "tree.safetensors")
    assert [leaf.dtype for leaf in jax.tree.leaves(found)] == [leaf.dtype for leaf in jax.tree.leaves(tree)]
    assert found["b"]["d"].shape == ()


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"a": {"b/c": jnp.ones(1)}}, "keys must be text without '/', got 'b/c'"),
        ({"a": {1: jnp.ones(1)}}, "keys must be text without '/', got 1"),
        ({"a": [jnp.ones(1)]}, "a is a list; give dicts of dicts of arrays"),
    ],
)
def test_trees_that_names_cannot_tell_are_refused(tmp_path, tree, message):
    with pytest.raises(ValueError, match=message):
        save_safetensors(tmp_path / "tree.safetensors", tree)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin"])
def test_pickles_are_refused_with_the_line_that_saves_safetensors(tmp_path, suffix):
    with pytest.raises(ValueError, match=r"weights.* is a pickle, .*safetensors.torch.save_file\(model.state_dict\(\)"):
        read_tensors(tmp_path / f"weights{suffix}")


def test_a_missing_and_a_damaged_file_are_named(tmp_path):
    path = tmp_path / "weights.safetensors"
    with pytest.raises(FileNotFoundError, match=r"there is no file .*weights\.safetensors"):
        load_safetensors(path)
    save_safetensors(path, {"a": jnp.ones(30)})
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(ValueError, match=r"weights\.safetensors is no safetensors file, or is damaged"):
        load_safetensors(path)
