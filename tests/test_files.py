"""Files written whole or not at all."""

from pathlib import Path

import pytest

from metarep_jax.files import atomic_open, atomic_write, check_on_disk


def test_text_and_bytes_replace_what_was_there_and_leave_nothing_beside(tmp_path):
    path = tmp_path / "new" / "file"
    for content in ("first é", b"\x00second"):
        atomic_write(path, content)
        assert path.read_bytes() == (content if isinstance(content, bytes) else content.encode())
    assert [file.name for file in path.parent.iterdir()] == ["file"]


def test_writers_of_one_file_at_one_time_do_not_meet(tmp_path):
    with atomic_open(tmp_path / "file") as one, atomic_open(tmp_path / "file") as other:  # as of hosts with one disk
        one.write(b"one")
        other.write(b"other")
    assert (tmp_path / "file").read_bytes() == b"one"  # the last to end
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("place", ["gs://bucket/run", Path("gs://bucket/run"), "s3://bucket", "https://host/file"])
def test_addresses_are_refused_as_folders(place):
    with pytest.raises(ValueError, match=r"--run-folder .* is an address, not a folder: .* that all of them share"):
        check_on_disk(place, "--run-folder")


def test_folders_on_a_disk_and_dotted_paths_are_no_addresses():
    for place in ("runs/a", "/tmp/a:b", "C:/runs", "my_module:my_source", "localhost:1234", "", Path("~/runs")):
        check_on_disk(place, "--run-folder")


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
