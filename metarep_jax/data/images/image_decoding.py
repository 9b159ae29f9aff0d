"""Encoded images to arrays of one shape: read, converted and resized by Pillow, in parallel threads.

A JPEG whose shorter side is at least two, four or eight times what is wanted is decoded at a half, a quarter or an
eighth, and one that is wanted in grey without its colours. ``experiments/benchmarks/reading.py`` measures how far the
pixels are then from those of the whole image. The result depends on the file and the form alone.
"""

import contextlib
import io
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

Encoded = Path | bytes  # an image file, or its content
Progress = Callable[[int, int], None]  # (images done, images in all)
GREY = ("1", "L", "LA", "La", "I;16", "I;16L", "I;16B", "I;16N")  # Pillow's modes of one channel and of 8 or 16 bits
ORIENTATION = 0x0112  # the EXIF tag
TURNS = {  # that bring an image of that orientation upright, by Pillow's names
    2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE",
    6: "ROTATE_270", 7: "TRANSVERSE", 8: "ROTATE_90",
}  # fmt: skip
HOLD_EXIF = {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"}  # entries of ``Image.info``, beside tags
FILTERS = {name: Image.Resampling[name.upper()] for name in ("bilinear", "bicubic", "lanczos")}
BLOCK = 64  # images that a thread takes at once


class Form(NamedTuple):
    """The shape that images are brought to: size × size × channels."""

    size: int  # pixels a side
    channels: int  # 1 (grey) or 3 (colour)
    resize: bool  # whether images of other sizes are cut to their middle square and resized, or refused
    convert: bool  # whether images of other channels are converted, or refused
    resample: str = "bilinear"  # the filter that resizes: of ``FILTERS``, each widened by how much an image shrinks


def form_of(file: Encoded, label: str, size: int | None, channels: int | None, resample: str = "bilinear") -> Form:
    """The form asked for, with what is left open taken from one image."""
    if size and channels:
        return Form(size, channels, True, True, resample)
    with _opened(file, label) as image:
        width, height = image.size
        if not size and width != height:
            raise ValueError(
                f"{label} is {width}×{height} pixels, not square; set --data.image-size to crop and resize"
            )
        own = _channels(image, label)
        return Form(size or width, channels or own, size is not None, channels is not None, resample)


def ignore_pillow_warnings() -> None:
    """From now on without Pillow's warnings, which name no file; what spoils an image is an error here."""
    warnings.filterwarnings("ignore", module="PIL")


@contextlib.contextmanager
def quiet_pillow() -> Iterator[None]:
    """The same within a block, for one thread at a time."""
    with warnings.catch_warnings():
        ignore_pillow_warnings()
        yield


@quiet_pillow()
def decode_all(
    files: Sequence[Encoded],
    rows: Sequence[int],
    what: str,
    *,
    size: int | None = None,
    channels: int | None = None,
    resample: str = "bilinear",
    progress: Progress | None = None,
) -> UInt8[np.ndarray, "n size size channels"]:
    """Decodes ``files[row]`` for every row.

    Args:
      files: encoded images.
      rows: which, at least one.
      what: names the data set in messages.
      size: pixels a side; None: images must be square, and of the first one's size.
      channels: 1 or 3; None: all must have as many as the first one.
      resample: of ``FILTERS``.
      progress: called with the number of images done and of all.

    Raises:
      ValueError: for an image that cannot be read, or whose size or channels differ (names it and the first), and
        for more pixels than the machine's memory holds.
    """
    first = label_of(files[rows[0]], rows[0], what)
    form = form_of(files[rows[0]], first, size, channels, resample)
    need, memory = len(rows) * form.size**2 * form.channels, _memory()
    if need > memory:
        raise ValueError(
            f"{len(rows)} images of {form.size}×{form.size}×{form.channels} take {need / 2**30:.1f} GiB, this machine "
            f"has {memory / 2**30:.1f} GiB; hold fewer of each class, --data.per-class, or stream, --data.stream"
        )
    images = np.empty((len(rows), form.size, form.size, form.channels), np.uint8)

    def work(start: int) -> int:
        for place in range(start, min(start + BLOCK, len(rows))):
            file = files[rows[place]]
            images[place] = decode(file, label_of(file, rows[place], what), form, first)
        return min(BLOCK, len(rows) - start)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        tasks, done = [pool.submit(work, start) for start in range(0, len(rows), BLOCK)], 0
        try:
            for task in tasks:
                done += task.result()
                if progress is not None:
                    progress(done, len(rows))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return images


def decode(file: Encoded, label: str, form: Form, first: str = "the first image") -> UInt8[np.ndarray, "size size c"]:
    """One image in that form, turned upright where its EXIF data say so.

    Args:
      file: the image.
      label: names it in messages; ``first`` names the one that the form was taken from.
      form: its result's shape.

    Raises:
      ValueError: when the image cannot be read or does not fit.
    """
    with _opened(file, label) as image:
        own = _channels(image, label)
        if own != form.channels and not form.convert:
            raise ValueError(
                f"images have different numbers of channels: {first} has {form.channels}, {label} has {own}; "
                "set --data.channels 1 or 3 to convert them"
            )
        if image.size != (form.size, form.size) and not form.resize:
            raise ValueError(
                f"images have different sizes: {first} is {form.size}×{form.size}, {label} {image.size[0]}×"
                f"{image.size[1]}; set --data.image-size to crop and resize them"
            )
        mode = "L" if form.channels == 1 else "RGB"
        try:
            reduced = image.draft(mode, (form.size, form.size))  # of JPEG, see above: its mode, and what it covers
            width, height = image.size if reduced is None else reduced[1][2:]  # of 65 pixels reduced to 33: 32.5
            image.load()
            turn = quarter_turn(image, label)
            shown = opaque(_in_8_bits(image))
            shown = shown if shown.mode == mode else shown.convert(mode)
            shown = _middle_square(shown, float(width), float(height), form)
            shown = shown if turn is None else shown.transpose(turn)
            pixels = np.frombuffer(shown.tobytes(), np.uint8)
        except UnusableImage:
            raise
        except Exception as error:  # whatever a damaged file makes its reader raise
            raise _unreadable(label, error) from error
    return pixels.reshape(form.size, form.size, form.channels)


def quarter_turn(image: Any, label: str) -> Any:
    """What brings the image upright, by its EXIF data, or None; other entries of them may be damaged.

    Raises:
      ValueError: when its EXIF data cannot be read at all.
    """
    if HOLD_EXIF.isdisjoint(image.info) and not hasattr(image, "tag_v2"):
        return None  # asking Pillow takes as long as a third of decoding 32 × 32 pixels
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    except Exception as error:  # struct.error and others
        raise UnusableImage(
            f"{label} has damaged EXIF data ({error}); save it anew without them, such as by `exiftool -all= FILE`"
        ) from error
    return Image.Transpose[TURNS[orientation]] if orientation in TURNS else None


def opaque(image: Any) -> Any:
    """The image without transparency: what is drawn is laid on white, or on black where it is bright itself.

    So icons whose shape is in their transparency alone stay visible, dark or bright. The ground depends on the image
    alone: black where its pixels, weighted by their opacity, are on average brighter than middle grey.
    """
    if not image.has_transparency_data:
        return image
    drawn = image.convert("RGBA")
    alpha = np.asarray(drawn.getchannel("A"), np.float64)
    if alpha.min() == 255:
        return drawn.convert("RGB")
    grey = np.asarray(drawn.convert("RGB").convert("L"), np.float64)
    bright = alpha.sum() > 0 and (alpha * grey).sum() / alpha.sum() > 127.5
    ground = Image.new("RGBA", drawn.size, (0, 0, 0, 255) if bright else (255, 255, 255, 255))
    return Image.alpha_composite(ground, drawn).convert("RGB")


def label_of(file: Encoded, row: int, what: str) -> str:
    """How messages name an image: its path, or its number in a data set."""
    return str(file) if isinstance(file, Path) else f"image {row} of {what}"


def _opened(file: Encoded, label: str) -> Any:
    try:
        return Image.open(io.BytesIO(file) if isinstance(file, bytes) else file)
    except Exception as error:  # whatever a damaged file makes its reader raise
        raise _unreadable(label, error) from error


def _middle_square(image: Any, width: float, height: float, form: Form) -> Any:
    """The middle square of the image's upper left ``width`` × ``height`` pixels, resized to the form's size."""
    if image.size == (width, height) == (form.size, form.size):
        return image
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return image.resize((form.size, form.size), FILTERS[form.resample], box=box)


def _in_8_bits(image: Any) -> Any:
    if not image.mode.startswith("I;16"):
        return image
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))


def _channels(image: Any, label: str) -> int:
    if image.mode in ("I", "F"):
        raise UnusableImage(f"{label} has 32-bit pixels, whose range is not known; save it with 8 bits a channel")
    return 1 if image.mode in GREY else 3  # transparency is no channel: see ``opaque``


class UnusableImage(ValueError):
    """An image that cannot be used, with its name and what to do."""


def _unreadable(label: str, error: BaseException) -> ValueError:
    return UnusableImage(f"{label} cannot be read as an image ({error}); replace it or remove it")


def _memory() -> float:
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):  # not on this platform
        return float("inf")
