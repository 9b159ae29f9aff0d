"""Image folders: classes by folder, shapes as asked for, and every bad folder refused by name."""

import logging
import struct

import numpy as np
import pytest
from PIL import Image, ImageOps

from metarep_jax.data import DataConfig, load_splits
from metarep_jax.data.images.encoded_images import Reading, some_of_each
from metarep_jax.data.images.image_decoding import decode_all
from metarep_jax.data.images.image_folder import list_image_folder

BICUBIC = Image.Resampling.BICUBIC


def config(root, **changed):
    return DataConfig(**({"name": "folder", "data_dir": root, "cache_dir": root.parent / "cache"} | changed))


def test_classes_are_the_folders_that_hold_images_at_any_depth(image_folder):
    splits = load_splits(config(image_folder))
    assert splits.protocol.name == "random-classes"
    names = splits.class_names
    assert [len(names[part]) for part in ("train", "val", "test")] == [4, 1, 1]
    assert sorted(sum(names.values(), ())) == sorted(f"{'deep/er' if c % 2 else 'flat'}/class{c}" for c in range(6))
    for part in ("train", "val", "test"):
        pool = getattr(splits, part)
        assert pool.inputs.shape[1:] == (6, 6, 1)
        for name, count, members in zip(names[part], pool.count, pool.members):
            c = int(name[-1])
            assert count == 3 + c
            found = sorted(int(pool.inputs[row, 0, 0, 0]) for row in members[:count])
            assert found == [20 * c + i for i in range(3 + c)]


def test_a_second_start_reads_the_cache_and_another_form_or_file_does_not(image_folder, monkeypatch):
    first = load_splits(config(image_folder))
    decoded = []
    monkeypatch.setattr(
        "metarep_jax.data.images.encoded_images.decode_all", lambda *a, **k: decoded.append(1) or decode_all(*a, **k)
    )
    again = load_splits(config(image_folder))
    np.testing.assert_array_equal(first.train.inputs, again.train.inputs)
    assert not decoded
    assert load_splits(config(image_folder, image_size=4)).train.inputs.shape[1:] == (4, 4, 1)
    Image.fromarray(np.full((6, 6), 255, np.uint8)).save(image_folder / "flat" / "class0" / "0.png")
    load_splits(config(image_folder))
    assert len(decoded) == 2


def test_a_damaged_cache_is_built_again_and_said_so(image_folder, caplog):
    first = load_splits(config(image_folder))
    (cache,) = (image_folder.parent / "cache").glob("*.npz")
    for damage in (lambda b: b[:-30], lambda b: b[:300] + bytes([b[300] ^ 1]) + b[301:], lambda b: b""):
        cache.write_bytes(damage(cache.read_bytes()))
        with caplog.at_level(logging.WARNING):
            caplog.clear()
            again = load_splits(config(image_folder))
        assert "damaged" in caplog.text
        np.testing.assert_array_equal(first.train.inputs, again.train.inputs)
    assert [path.name for path in cache.parent.iterdir()] == [cache.name]


def test_a_cache_that_cannot_be_written_costs_the_cache_but_not_the_data(image_folder, caplog):
    (image_folder.parent / "cache").write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        assert load_splits(config(image_folder)).train.count.size == 4
    assert "cannot be written" in caplog.text


def test_at_most_so_many_images_of_a_class_are_held(image_folder):
    splits = load_splits(config(image_folder, per_class=4))
    assert max(int(pool.count.max()) for pool in splits[:3]) == 4
    label = np.array([1, 0, 1, 1, 2, 0, 1])
    rows = some_of_each(label, 2, seed=0)
    assert list(rows) == sorted(rows)
    np.testing.assert_array_equal(np.bincount(label[rows]), [2, 2, 1])
    assert any((some_of_each(label, 2, seed) != rows).any() for seed in range(1, 9))


def test_images_are_cut_to_their_middle_square_and_turned_upright(image_folder):
    wide = np.zeros((4, 12), np.uint8)
    wide[:2, 4:8] = 200
    upright = Image.Exif()
    upright[274] = 3  # stored upside down
    file = image_folder / "flat" / "class0" / "wide.png"
    Image.fromarray(wide).save(file, exif=upright)
    (image,) = decode_all([file], [0], "test", size=4)
    np.testing.assert_array_equal(image[..., 0], [[0] * 4] * 2 + [[200] * 4] * 2)


@pytest.mark.parametrize(
    ("mode", "channels"), [("1", 1), ("L", 1), ("LA", 1), ("I;16", 1), ("RGB", 3), ("RGBA", 3), ("P", 3), ("CMYK", 3)]
)
def test_every_mode_of_pillow_has_one_or_three_channels(tmp_path, mode, channels):
    file = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    grey = np.full((5, 5), 128, np.uint8)
    image = Image.fromarray(grey.astype(np.uint16) * 256) if mode == "I;16" else Image.fromarray(grey).convert(mode)
    image.save(file)
    (found,) = decode_all([file], [0], "test")
    assert found.shape == (5, 5, channels)
    if mode not in ("1", "CMYK"):
        assert (found == 128).all()


def test_mixed_channels_are_refused_by_two_names_or_converted(image_folder):
    Image.new("RGB", (6, 6)).save(image_folder / "flat" / "class4" / "colour.png")
    with pytest.raises(ValueError, match=r"0\.png has 1, .*colour\.png has 3; set --data\.channels"):
        load_splits(config(image_folder))
    assert load_splits(config(image_folder, channels=3)).test.inputs.shape[-1] == 3


def test_mixed_sizes_are_refused_by_two_names(image_folder):
    Image.new("L", (6, 7)).save(image_folder / "flat" / "class4" / "tall.png")
    with pytest.raises(ValueError, match=r"0\.png is 6×6, .*tall\.png 6×7; set --data\.image-size"):
        load_splits(config(image_folder))


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"no image", lambda b: b""])
def test_an_image_that_cannot_be_read_is_named(image_folder, damage):
    file = image_folder / "deep" / "er" / "class3" / "2.png"
    Image.effect_noise((64, 64), 50).save(file)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ValueError, match=r"class3/2\.png cannot be read as an image"):
        load_splits(config(image_folder, image_size=6))


def test_a_folder_that_is_missing_empty_or_without_classes_is_refused(image_folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"--data\.data-dir DIR or METAREP_DATA"):
        load_splits(DataConfig(name="folder"))
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        load_splits(config(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no images"):
        load_splits(config(tmp_path / "empty"))
    Image.new("L", (6, 6)).save(image_folder / "stray.png")
    with pytest.raises(ValueError, match=r"1 images lie in .*stray\.png"):
        load_splits(config(image_folder))


def test_progress_is_told_up_to_the_last_image(image_folder):
    told = []
    load_splits(config(image_folder), progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (33, 33)


def test_links_in_a_circle_end(image_folder):
    (image_folder / "flat" / "circle").symlink_to(image_folder)
    assert len(list_image_folder(image_folder).names) == 6


@pytest.mark.parametrize(("field", "value"), [("image_size", 0), ("per_class", 0), ("split_seed", -1), ("workers", -1)])
def test_sizes_that_make_no_sense_are_refused(field, value):
    with pytest.raises(ValueError, match=f"--data.{field.replace('_', '-')} must be at least"):
        load_splits(DataConfig("folder", **{field: value}))


@pytest.mark.parametrize(
    ("ink", "ground"), [((0, 0, 0), 255), ((200, 0, 0), 255), ((255, 255, 255), 0), ((250, 250, 0), 0)]
)
def test_icons_whose_shape_is_in_their_transparency_stay_visible(tmp_path, ink, ground):
    drawn = np.zeros((6, 6, 4), np.uint8)
    drawn[..., :3] = ink
    drawn[:3, :, 3] = 255
    Image.fromarray(drawn).save(tmp_path / "icon.png")
    (image,) = decode_all([tmp_path / "icon.png"], [0], "test", size=6, channels=3)
    np.testing.assert_array_equal(image[:3], np.broadcast_to(ink, (3, 6, 3)))
    assert (image[3:] == ground).all()


def test_half_transparent_and_palette_images_are_laid_on_their_ground(tmp_path):
    Image.new("LA", (2, 2), (0, 51)).save(tmp_path / "grey.png")
    palette = Image.new("P", (2, 2), 0)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    palette.save(tmp_path / "palette.png", transparency=0)
    grey, clear = (decode_all([tmp_path / f"{name}.png"], [0], "test")[0] for name in ("grey", "palette"))
    assert grey.shape == (2, 2, 1) and (grey == 204).all()
    assert clear.shape == (2, 2, 3) and (clear == 255).all()


def test_broken_entries_of_exif_data_do_no_harm_and_unreadable_ones_are_named(tmp_path, monkeypatch):
    image = Image.fromarray(np.arange(36, dtype=np.uint8).reshape(6, 6))
    image.save(tmp_path / "turned.png", exif=_exif_with_a_broken_rational())
    (found,) = decode_all([tmp_path / "turned.png"], [0], "test")
    np.testing.assert_array_equal(found[..., 0], np.rot90(np.asarray(image), -1))

    def refuse(self):
        raise struct.error("unpack requires a buffer of 8 bytes")

    monkeypatch.setattr(Image.Image, "getexif", refuse)
    with pytest.raises(ValueError, match=r"turned\.png has damaged EXIF data \(unpack requires .*exiftool -all= FILE"):
        decode_all([tmp_path / "turned.png"], [0], "test")


def test_truncated_exif_data_spoil_no_image_and_warn_of_nothing(tmp_path):
    entry = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x1a\x01\x05\0\x01\0\0\0\xff\xff\0\0"
    Image.new("RGB", (4, 4)).save(tmp_path / "cut.jpg", exif=entry)
    assert decode_all([tmp_path / "cut.jpg"], [0], "test").shape == (1, 4, 4, 3)


def photograph(width, height):
    """Smooth colours under a little noise."""
    random = np.random.default_rng(0)
    smooth = Image.fromarray(random.integers(40, 216, (6, 8, 3), np.uint8)).resize((width, height), BICUBIC)
    return Image.fromarray((np.asarray(smooth) + random.normal(0, 4, (height, width, 3))).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize(
    ("width", "height", "decoded"),
    [(63, 47, (63, 47)), (81, 65, (41, 33)), (160, 130, (40, 33)), (256, 300, (32, 38)), (901, 700, (113, 88))],
)
def test_a_jpeg_is_decoded_at_a_fraction_where_that_leaves_enough_pixels(tmp_path, monkeypatch, width, height, decoded):
    photograph(width, height).save(tmp_path / "photo.jpg", quality=95)
    with Image.open(tmp_path / "photo.jpg") as image:
        whole = np.asarray(ImageOps.fit(image, (32, 32), method=Image.Resampling.BILINEAR)).astype(int)
    seen, load = [], Image.Image.load
    monkeypatch.setattr(Image.Image, "load", lambda image: seen.append(image.size) or load(image))
    (found,) = decode_all([tmp_path / "photo.jpg"], [0], "test", size=32, channels=3)
    assert seen[0] == decoded and min(decoded) >= 32
    assert np.abs(found - whole).mean() <= (0 if decoded == (width, height) else 2)  # of 255


def test_a_colour_jpeg_wanted_in_grey_is_its_luminance(tmp_path):
    photograph(40, 40).save(tmp_path / "photo.jpg", quality=95)
    (found,) = decode_all([tmp_path / "photo.jpg"], [0], "test", size=40, channels=1)
    with Image.open(tmp_path / "photo.jpg") as image:
        converted = np.asarray(image.convert("L")).astype(int)
    assert np.abs(found[..., 0] - converted).max() <= 2


@pytest.mark.parametrize("name", ["bilinear", "bicubic", "lanczos"])
def test_images_are_resized_by_the_filter_asked_for(image_folder, name):
    random = np.random.default_rng(0)
    for file in image_folder.rglob("*.png"):
        Image.fromarray(random.integers(0, 256, (9, 9), np.uint8)).save(file)
    splits = load_splits(config(image_folder, image_size=5, **({} if name == "bilinear" else {"resample": name})))
    first = image_folder / splits.class_names["train"][0] / "0.png"
    with Image.open(first) as image:
        wanted = np.asarray(image.resize((5, 5), Image.Resampling[name.upper()]))
    assert (np.asarray(splits.train.inputs)[..., 0] == wanted).all((1, 2)).any()
    with pytest.raises(ValueError, match=r"--data\.resample must be one of bilinear, bicubic, lanczos, got 'box'"):
        Reading(resample="box")


def _exif_with_a_broken_rational():
    """Orientation 6, and a negative resolution, which Pillow reads but cannot write."""
    entries = struct.pack(">HHIHH", 274, 3, 1, 6, 0) + struct.pack(">HHII", 282, 10, 1, 38)
    directory = struct.pack(">H", 2) + entries + struct.pack(">I", 0)
    return b"Exif\0\0" + b"MM\0*" + struct.pack(">I", 8) + directory + struct.pack(">ii", -1, 3)
