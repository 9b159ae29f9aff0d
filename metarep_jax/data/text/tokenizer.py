"""Tokenizers: trained on a corpus by the library ``tokenizers``, kept with the run, and known by their digest."""

import dataclasses
import hashlib
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from metarep_jax.files import atomic_write
from metarep_jax.typed_settings import Settings
from metarep_jax.types import END_TOKEN, FIRST_TOKEN, PAD_TOKEN

FILE = "tokenizer.json"
LEAST = 300  # tokens: special ones, 256 bytes, and some to spare
RESERVED = re.compile(r"\[(PAD|CLS|SEP|MASK)\]")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # ids 0 to 4, as metarep_jax.types names them


@dataclasses.dataclass(frozen=True)
class TextConfig(Settings):
    """How text becomes rows of tokens."""

    length: int = 64
    """Tokens a row: longer sentences are cut, shorter ones filled up; running text is cut into rows of this length."""
    vocabulary: int = 8192
    """Most tokens of the tokenizer (byte pairs), which is trained on the training classes' text."""
    lowercase: bool = True
    """Whether capitals become small letters."""
    tokenizer_from: Path | None = None
    """Takes the tokenizer of that run's folder instead of training one."""

    def __post_init__(self):
        super().__post_init__()
        for name, least in (("length", 3), ("vocabulary", LEAST)):
            if getattr(self, name) < least:
                raise ValueError(f"--data.{name} must be at least {least}, got {getattr(self, name)}")


class Tokenizer:
    """Lines of text to rows of token ids and back. ``text`` is the library's own JSON form of it."""

    def __init__(self, text: str):
        from tokenizers import Tokenizer as Trained

        try:
            self._trained: Any = Trained.from_str(text)
        except Exception as error:  # the library raises plain Exception
            raise ValueError(f"this is not a tokenizer: {error}") from error
        found = tuple(self._trained.id_to_token(i) for i in range(len(SPECIAL)))
        if found != SPECIAL:
            raise ValueError(f"the tokenizer's first tokens are {found}, wanted {SPECIAL}; train it with this library")
        self.text = text

    @cached_property
    def digest(self) -> str:
        """Tells this tokenizer from any other."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]

    @property
    def size(self) -> int:
        """How many tokens there are; ids are below it."""
        return self._trained.get_vocab_size()

    def ids(self, lines: Sequence[str]) -> list[list[int]]:
        """Each line's token ids, without [CLS] and [SEP]. Special tokens that the text spells are text, [UNK] apart."""
        spelt = [RESERVED.sub(r"[ \1 ]", line) for line in lines]
        found = self._trained.encode_batch(spelt, add_special_tokens=False)
        return [line.ids for line in found]

    def rows(self, lines: Sequence[str], length: int) -> Int[np.ndarray, "n length"]:
        """Each line as [CLS], its first ``length`` − 2 tokens, [SEP], and padding."""
        if length < 3:
            raise ValueError(
                f"a row of tokens needs a length of at least 3, for [CLS], a token and [SEP], got {length}"
            )
        rows = np.full((len(lines), length), PAD_TOKEN, np.int32)
        for row, ids in zip(rows, self.ids(lines), strict=True):
            kept = [FIRST_TOKEN, *ids[: length - 2], END_TOKEN]
            row[: len(kept)] = kept
        return rows

    def words(self, ids: Any) -> str:
        """The text of some token ids, without special tokens."""
        return self._trained.decode([int(i) for i in ids], skip_special_tokens=True)

    def token(self, number: int) -> str:
        """The token of that id; a word's first one begins with Ġ, which stands for the space before it."""
        return self._trained.id_to_token(int(number))


def train_tokenizer(lines: Iterable[str], *, vocabulary: int = 8192, lowercase: bool = True) -> Tokenizer:
    """A tokenizer of at most ``vocabulary`` tokens: bytes, and the pairs of tokens most frequent within words, merged.

    The same lines give the same tokenizer, on every machine (the library's WordPiece does not: it numbers letters in
    the order of a randomised table). Working on bytes, it knows every text.

    Args:
      lines: the training text; nothing else should be used.
      vocabulary: the greatest number of tokens, special ones and 256 bytes included; a small corpus gives fewer.
      lowercase: whether capitals become small letters.

    Raises:
      ValueError: for a vocabulary without room for bytes and special tokens.

    References:
      Sennrich et al. 2015, https://arxiv.org/abs/1508.07909; Radford et al. 2019 (GPT-2), section 2.2, for bytes.
    """
    from tokenizers import Tokenizer as Untrained
    from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

    if vocabulary < LEAST:
        raise ValueError(f"a tokenizer needs a vocabulary of at least {LEAST}, got {vocabulary}")
    made: Any = Untrained(models.BPE())
    steps = [normalizers.NFC(), normalizers.Lowercase()] if lowercase else [normalizers.NFC()]
    made.normalizer = normalizers.Sequence(steps)
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(lines, trainer)
    return Tokenizer(made.to_str())


def keep_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    """Writes the tokenizer into a run's folder, or finds it there.

    Raises:
      ValueError: when the folder holds another one.
    """
    file = Path(folder) / FILE
    if file.is_file():
        load_tokenizer(file, tokenizer.digest)
        return
    atomic_write(file, tokenizer.text)


def load_tokenizer(file: Path, digest: str | None = None) -> Tokenizer:
    """The tokenizer in a file, or in a run's folder.

    Args:
      file: where it lies.
      digest: that of the tokenizer it must be; None: any.

    Raises:
      FileNotFoundError: when there is none.
      ValueError: when it is damaged, or another one than ``digest`` names.
    """
    file = Path(file).expanduser()
    file = file / FILE if file.is_dir() else file
    if not file.is_file():
        raise FileNotFoundError(f"there is no tokenizer at {file}; a run on text leaves one in its folder")
    try:
        found = Tokenizer(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ValueError(f"the tokenizer {file} cannot be used: {error}") from error
    if digest is not None and found.digest != digest:
        raise ValueError(
            f"the tokenizer {file} is of another run: its digest is {found.digest}, wanted {digest}. Ids of one "
            "tokenizer mean nothing to a model of another; use the tokenizer of the model's own run"
        )
    return found
