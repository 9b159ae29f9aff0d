"""Images in folders: a folder a class, at any depth; also parted into training and testing, or without classes."""

from pathlib import Path

from PIL import Image

from metarep_jax.data.array_cache import digest
from metarep_jax.data.class_folders import read_class_folders
from metarep_jax.data.images.encoded_images import Records
from metarep_jax.data.walk import walk_files

WANTED = (
    "a folder with one folder of images a class (DIR/cat/1.jpg, DIR/dog/7.png), these in folders train, val and test "
    "(DIR/train/cat/1.jpg), or images without classes (DIR/1.jpg)"
)


def list_image_folder(root: Path | None) -> Records:
    """The images under ``root``; a class's name is its folder's path below ``root`` (or below its part), with slashes.

    Raises:
      FileNotFoundError: when no folder is given, or it does not exist.
      ValueError: when it holds no images, or images with and without a class side by side.
    """
    Image.preinit()  # the common formats first: opening a file asks them in the order in which they came
    endings = {ending for ending, name in Image.registered_extensions().items() if name in Image.OPEN}
    walk = walk_files(root, endings - {".h5", ".hdf", ".pdf", ".mpg", ".mpeg"}, "images that Pillow reads", WANTED)
    read = read_class_folders([file.name for file in walk.files], walk.root, "images", WANTED)
    return Records(
        files=[file.path for file in walk.files],
        label=read.label,
        names=read.names,
        group=("",) * len(read.names),
        what=str(root),
        key=digest((file.folder, file.path.name, file.size, file.changed) for file in walk.files),
        part=read.part,
    )
