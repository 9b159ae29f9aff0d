"""Files written whole or not at all."""

import pytest

from metarep_jax.files import atomic_open, atomic_write


def test_text_and_bytes_replace_what_was_there_and_leave_nothing_beside(tmp_path):
    path = tmp_path / "new" / "file"
    for content in ("first é", b"\x00second"):
        atomic_write(path, content)
        assert path.read_bytes() == (content if isinstance(content, bytes) else content.encode())
    assert [file.name for file in path.parent.iterdir()] == ["file"]


def test_an_error_on_the_way_keeps_the_old_content(tmp_path):
    path = tmp_path / "file"
    atomic_write(path, "old")

    def fail_half_way():
        with atomic_open(path) as file:
            file.write(b"ne")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        fail_half_way()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
