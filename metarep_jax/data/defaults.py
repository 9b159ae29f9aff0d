"""Defaults that follow the data: views that suit them, and advice on their size."""

from metarep_jax.data.splits import Splits

LETTERS = ("glyphs", "omniglot")
SMALL = 64  # pixels a side, up to which grey images are taken for drawings, and steps are quick on a CPU


def default_augment(splits: Splits) -> str:
    """The preset of ``make_augment`` that suits the training inputs.

    "simclr" for colour images, "glyph" for letters and other small grey ones, "crop-flip" for larger grey ones, "none"
    for anything but images.
    """
    shape = splits.train.inputs.shape[1:]
    if len(shape) != 3:
        return "none"
    if splits.name in LETTERS or (shape[-1] == 1 and max(shape[:2]) <= SMALL):
        return "glyph"
    return "simclr" if shape[-1] == 3 else "crop-flip"


def large_images_note(splits: Splits) -> str | None:
    """What to say of images so large that steps are slow on a CPU, or None."""
    shape = splits.train.inputs.shape[1:]
    if len(shape) != 3 or max(shape[:2]) <= SMALL:
        return None
    height, width = shape[:2]
    factor = round(height * width / 32**2)
    return (
        f"images are {width}×{height}; --data.image-size 32 has {factor} times fewer pixels, and steps as much faster"
    )
