"""Streams through Grain: the same batches for any number of processes, and exact continuation."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from metarep_jax.data import DataConfig, batch_feed, load_splits, stream_reader

SIZE = 4


@pytest.fixture
def streamed(image_folder):
    """A function of the number of workers: splits of a folder that is streamed."""
    return lambda workers=0, **changed: load_splits(
        DataConfig(
            name="folder",
            data_dir=image_folder,
            cache_dir=image_folder.parent / "cache",
            stream=True,
            workers=workers,
            **changed,
        )
    )


def take(reader, count):
    return [next(reader) for _ in range(count)]


def assert_same(one, other):
    assert len(one) == len(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_an_epoch_shows_every_training_image_once_with_its_label(streamed):
    splits = streamed(per_class=2)
    total = sum(3 + int(name[-1]) for name in splits.class_names["train"])
    reader = stream_reader(splits, 1)
    assert reader.rows == total
    batches = take(reader, 2 * total)
    reader.close()
    for epoch in (batches[:total], batches[total:]):
        assert sorted(int(batch["index"][0]) for batch in epoch) == list(range(total))
    for batch in batches:
        name = splits.class_names["train"][batch["label"][0]]
        assert 0 <= int(batch["inputs"][0, 0, 0, 0]) - 20 * int(name[-1]) < 3 + int(name[-1])
    assert int(splits.train.count.max()) == 2
    assert {key: (leaf.shape[1:], leaf.dtype) for key, leaf in batches[0].items()} == {
        key: (leaf.shape[1:], leaf.dtype)
        for key, leaf in batch_feed(splits.train, 1).draw(splits.train, jax.random.key(0), 0, 0, 1).items()
    }


def test_worker_processes_give_the_same_batches_and_go_on_exactly_where_they_were(streamed):
    alone = stream_reader(streamed(0), SIZE, seed=3)
    expected = take(alone, 12)
    alone.close()
    reader = stream_reader(streamed(2), SIZE, seed=3)
    try:
        assert_same(take(reader, 5), expected[:5])
        position = reader.get_state()
        assert_same(take(reader, 4), expected[5:9])
    finally:
        reader.close()
    later = stream_reader(streamed(2), SIZE, seed=3)
    try:
        later.set_state(position)
        assert_same(take(later, 4), expected[5:9])
        later.set_state(position)
        assert_same(take(later, 7), expected[5:12])
    finally:
        later.close()


def test_a_position_in_this_process_is_restored_exactly_too(streamed):
    reader = stream_reader(streamed(), SIZE)
    take(reader, 3)
    position = reader.get_state()
    expected = take(reader, 9)
    reader.set_state(position)
    assert_same(take(reader, 9), expected)
    other = stream_reader(streamed(), SIZE)
    other.set_state(position)
    assert_same(take(other, 9), expected)


def test_processes_read_their_parts_of_the_same_global_batch(streamed):
    splits = streamed()
    whole = take(stream_reader(splits, SIZE), 3)
    parts = [take(stream_reader(splits, SIZE, process=p, processes=2), 3) for p in range(2)]
    assert_same([jax.tree.map(lambda a, b: np.concatenate([a, b]), *pair) for pair in zip(*parts)], whole)


def test_a_position_in_another_stream_is_refused(streamed):
    splits = streamed()
    reader = stream_reader(splits, SIZE)
    position = reader.get_state()
    with pytest.raises(ValueError, match="seed was 0, is 1"):
        stream_reader(splits, SIZE, seed=1).set_state(position)
    assert json.loads(position)["of"]["size"] == SIZE


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_an_image_that_cannot_be_read_is_named_while_streaming(streamed, image_folder, workers):
    splits = streamed(workers, per_class=1)
    for file in image_folder.rglob("*.png"):
        file.write_bytes(b"no image")
    reader = stream_reader(splits, SIZE)
    try:
        with pytest.raises(Exception, match=r"\.png cannot be read as an image"):
            next(reader)
    finally:
        reader.close()


def test_pillow_warnings_in_reading_processes_stay_there(streamed, image_folder, capfd, recwarn):
    entry = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x1a\x01\x05\0\x01\0\0\0\xff\xff\0\0"  # cut short: Pillow warns
    for file in [*image_folder.rglob("*.png")]:
        Image.new("RGB", (6, 6)).save(file.with_suffix(".jpg"), exif=entry)
        file.unlink()
    for workers in (0, 1):
        reader = stream_reader(streamed(workers), SIZE)
        try:
            assert next(reader)["inputs"].shape == (SIZE, 6, 6, 3)
        finally:
            reader.close()
    assert "PIL" not in capfd.readouterr().err and not recwarn.list


def test_a_reader_that_is_too_slow_advises_more_processes_up_to_the_cores(streamed, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    assert "--data.workers: now 2, this machine has 4 cores" in stream_reader(streamed(2), SIZE).advice
    assert "save the images at 6 pixels" in stream_reader(streamed(4), SIZE).advice


def test_batches_decoded_by_processes_leave_no_shared_memory_behind(streamed):
    place = Path("/dev/shm")
    if not place.is_dir():
        pytest.skip("shared memory has no folder here")
    reader = stream_reader(streamed(2), SIZE)
    before = {*place.iterdir()}
    try:
        batches = take(reader, 3)
    finally:
        reader.close()
    assert len(batches) == 3
    assert not {file for file in {*place.iterdir()} - before if file.name.startswith("psm_")}


def test_what_cannot_be_streamed_is_refused(streamed, tmp_path):
    with pytest.raises(ValueError, match="3 processes"):
        stream_reader(streamed(), SIZE, process=0, processes=3)
    with pytest.raises(ValueError, match="fits in memory"):
        stream_reader(load_splits(DataConfig(cache_dir=tmp_path)), SIZE)


def test_mixed_sizes_met_while_streaming_are_refused_by_name(streamed, image_folder):
    splits = streamed(per_class=1)
    for file in image_folder.rglob("*.png"):
        Image.new("L", (7, 7)).save(file)
    with pytest.raises(Exception, match=r"\.png 7×7; set --data\.image-size"):
        next(stream_reader(splits, SIZE))
