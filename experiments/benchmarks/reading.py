"""Reading a stream of images, ours beside a PyTorch DataLoader with as many processes, on the same files.

    python -m experiments.benchmarks.reading --seconds 40

Both read in random order, decode by Pillow, cut the middle square, resize it by the same filter and hand over batches
of uint8; the pixels are compared before time is taken. Columns are photographs of 500 × 375 and of 1024 × 768 pixels
(JPEG) at 224 pixels, and 32 × 32 PNG. Of the larger ones ours decodes half as many pixels a side: the row
``pixel_difference`` is the mean absolute difference, of 255, to decoding all of them.
"""

import dataclasses
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tyro
from PIL import Image, ImageOps

from experiments.benchmarks import common, timing
from metarep_jax.data import DataConfig, load_splits, stream_reader
from metarep_jax.data.protocols import divide
from metarep_jax.data.splits import Splits, labelled

AHEAD = 2  # batches that a process of either side reads ahead
LEAST_SECONDS = 5.0  # of measuring a column
TURN_SECONDS = 1.5  # of one side before the other has its turn
SETTLING_SECONDS = 1.5  # before a turn counts: the other side's processes still fill what they hold ready
CHECKED = 16  # images whose pixels are compared
SEED = 0


class Folder(NamedTuple):
    """A folder of images to make, and the size to read them at."""

    count: int
    width: int
    height: int
    ending: str
    side: int
    batch: int


FOLDERS = {
    "jpeg_224": Folder(256, 500, 375, "jpg", side=224, batch=64),
    "large_jpeg_224": Folder(96, 1024, 768, "jpg", side=224, batch=64),
    "png_32": Folder(2048, 32, 32, "png", side=32, batch=256),
}


@dataclasses.dataclass(frozen=True)
class Config(common.PeerBenchmarkConfig):
    """Images a second that a stream reads, beside PyTorch's DataLoader."""

    workers: int | None = None
    """Processes that read, of either side; default: one a core."""
    data_dir: Path | None = None
    """A folder of images to read at 224 pixels; default: photograph-like ones are made in a temporary folder."""

    def __post_init__(self):
        super().__post_init__()
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"workers must be at least 1, got {self.workers}")
        if self.data_dir is not None and not self.data_dir.is_dir():
            raise ValueError(f"there is no folder {self.data_dir}; give one with images, or leave out --data-dir")


def main(config: Config) -> None:
    """Measures, prints the table and writes the result file."""
    started = time.perf_counter()
    common.start(config)
    workers, peers = config.workers or os.cpu_count() or 1, common.peers_present(config, "torch")
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as place:
        folders = {"given_224": FOLDERS["jpeg_224"]} if config.data_dir else FOLDERS
        for left, (column, folder) in zip(range(len(folders), 0, -1), folders.items()):
            root = config.data_dir or make_images(Path(place) / column, folder)
            remaining = (config.seconds - (time.perf_counter() - started)) / left
            cells = measure(root, Path(place) / "cache", folder, workers, peers, remaining)
            for row, cell in cells.items():
                rows.setdefault(row, {})[column] = cell
    protocol = (
        f"images a second, {workers} reading processes each, {AHEAD} batches ahead; "
        + "; ".join(f"{name}: batches of {f.batch} at {f.side}×{f.side}×3" for name, f in folders.items())
        + "; medians of turns; PyTorch decodes whole images, bilinear as ours"
    )
    common.finish("reading", config, rows, protocol=protocol, started=started)


def make_images(root: Path, folder: Folder) -> Path:
    """Photograph-like images: smooth fields of three scales under a little noise. Returns ``root``."""
    root.mkdir()
    random = np.random.default_rng(SEED)
    noise = random.normal(0, 6, (2 * folder.height, 2 * folder.width, 3)).astype(np.float32)
    for number in range(folder.count):
        y, x = random.integers(folder.height), random.integers(folder.width)
        pixels = 128 + noise[y : y + folder.height, x : x + folder.width]
        for cells, strength in ((4, 1.0), (16, 0.5), (48, 0.25)):
            field = Image.fromarray(random.integers(0, 256, (cells, cells, 3), np.uint8))
            smooth = np.asarray(field.resize((folder.width, folder.height), Image.Resampling.BICUBIC), np.float32)
            pixels += strength * (smooth - 128)
        file = root / f"{number:05d}.{folder.ending}"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, quality=90)
    return root


def measure(root: Path, cache: Path, folder: Folder, workers: int, peers: bool, seconds: float) -> dict[str, Any]:
    """The cells of one column; ``seconds`` count from now."""
    begin = time.perf_counter()
    reading = {"image_size": folder.side, "channels": 3, "per_class": 10, "stream": True, "workers": workers}
    splits = load_splits(DataConfig(name="folder", data_dir=root, cache_dir=cache, **reading))
    files = training_files(splits)
    reader = stream_reader(splits, folder.batch, seed=SEED)
    sides: dict[str, Iterator[Any]] = {"ours": reader}
    cells: dict[str, Any] = {}
    if peers:
        sides["torch"] = torch_batches(files, folder, workers)
    try:
        if peers:
            cells["pixel_difference"] = pixel_difference(next(reader), files, folder.side)
        steps = {name: (lambda batches=batches: next(batches)) for name, batches in sides.items()}
        for step in steps.values():
            step()  # its processes have started
        left = max(LEAST_SECONDS, seconds - (time.perf_counter() - begin))
        rates = take_turns(steps, left, held=workers * (2 * AHEAD + 2), size=folder.batch)
    finally:
        reader.close()
    cells |= {name: timing.median_cell(found) for name, found in rates.items()}
    if peers:
        cells["ratio"] = timing.median_cell(rates["ours"] / rates["torch"])  # of turns that follow each other
    return cells


def take_turns(steps: dict[str, Callable[[], Any]], seconds: float, *, held: int, size: int) -> dict[str, np.ndarray]:
    """Examples a second in each turn of each side, in both orders.

    Args:
      steps: take a batch of ``size``.
      seconds: in all; at least two turns of each side.
      held: batches that may have been read before a turn, and do not count.
    """
    rates: dict[str, list[float]] = {name: [] for name in steps}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or min(map(len, rates.values())) < 2:
        order = list(steps) if len(rates[next(iter(steps))]) % 2 == 0 else list(steps)[::-1]
        for name in order:
            run_for(steps[name], SETTLING_SECONDS, least=held)
            begin = time.perf_counter()
            batches = run_for(steps[name], TURN_SECONDS)
            rates[name].append(batches * size / (time.perf_counter() - begin))
    return {name: np.asarray(found) for name, found in rates.items()}


def run_for(step: Callable[[], Any], seconds: float, least: int = 1) -> int:
    """Steps for so long, at least ``least`` of them; how many."""
    end, count = time.perf_counter() + seconds, 0
    while time.perf_counter() < end or count < least:
        step()
        count += 1
    return count


def training_files(splits: Splits) -> list[Path]:
    """The files that a stream of ``splits`` reads, in the order of its index."""
    records: Any = splits.config.read()
    part = divide(splits.protocol, labelled(records, splits.config)).part
    return [records.files[row] for row in np.flatnonzero(part == 0).tolist()]


def pixel_difference(batch: dict[str, np.ndarray], files: Sequence[Path], side: int) -> dict[str, Any]:
    """The cell of the mean absolute difference, of 255, of our pixels to those of whole images.

    Raises:
      ValueError: where it is so large that these cannot be the same images.
    """
    peer = TorchImages(files, side)
    theirs = np.stack([peer.pixels(index) for index in batch["index"][:CHECKED].tolist()])
    difference = float(np.abs(batch["inputs"][:CHECKED].astype(int) - theirs).mean())
    if difference > 4:
        raise ValueError(f"pixels differ from PyTorch's by {difference:.1f} of 255 on average; they should be the same")
    return {"mean": difference, "ci95": None, "n": len(theirs)}


class TorchImages:
    """A map-style Dataset of (image, label), as one writes it with Pillow; picklable, for reading processes."""

    def __init__(self, files: Sequence[Path], side: int):
        self.files, self.side = list(files), side

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        import torch

        return torch.from_numpy(self.pixels(index)), 0

    def pixels(self, index: int) -> np.ndarray:
        """The image, [side, side, 3], uint8."""
        with Image.open(self.files[index]) as image:
            image = image.convert("RGB")
        if image.size != (self.side, self.side):
            image = ImageOps.fit(image, (self.side, self.side), method=Image.Resampling.BILINEAR)
        return np.array(image)


class EndlessShuffle:
    """A sampler of one random order after the other, so that no epoch ends and drains the DataLoader."""

    def __init__(self, rows: int):
        self.rows = rows

    def __iter__(self) -> Iterator[int]:
        random = np.random.default_rng(SEED)
        while True:
            yield from random.permutation(self.rows).tolist()


def torch_batches(files: Sequence[Path], folder: Folder, workers: int) -> Iterator[Any]:
    """PyTorch's batches; its processes are started anew ("spawn"), as JAX's threads ask for."""
    from torch.utils.data import DataLoader

    dataset: Any = TorchImages(files, folder.side)
    sampler: Any = EndlessShuffle(len(files))
    return iter(
        DataLoader(
            dataset,
            batch_size=folder.batch,
            sampler=sampler,
            num_workers=workers,
            persistent_workers=True,
            prefetch_factor=AHEAD,
            multiprocessing_context="spawn",
        )
    )


if __name__ == "__main__":
    main(tyro.cli(Config))
