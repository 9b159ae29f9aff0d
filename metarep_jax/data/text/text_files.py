"""Text files: where they lie, and what they say."""

from collections.abc import Sequence
from pathlib import Path


def read_utf8(file: Path) -> str:
    """The text of a file; raises ValueError that names the file and the place where it is not UTF-8."""
    return decode_utf8(file.read_bytes(), str(file))


def decode_utf8(content: bytes, what: str) -> str:
    """The text of ``content``, which messages call ``what``; a mark of byte order at its start is dropped."""
    if utf16 := utf16_of(content):
        raise ValueError(
            f"{what} is {utf16.upper()}, not UTF-8; convert it by iconv -f {utf16} -t utf-8 {what} > NEW.txt"
        )
    try:
        return content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{what} is not UTF-8: byte 0x{content[error.start]:02x} at offset {error.start} (line {line}); "
            f"convert it, such as by iconv -f latin1 -t utf-8 {what} > NEW.txt"
        ) from error


def utf16_of(content: bytes) -> str:
    """The form of UTF-16: "utf-16" with a mark of byte order, "utf-16le" or "utf-16be" where every other byte is mostly
    zero; "" if it is none."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    start = content[:2048]
    if len(start) >= 4 and start.count(0) > len(start) // 4:
        return "utf-16le" if start[1::2].count(0) > start[::2].count(0) else "utf-16be"
    return ""


def find_folder(data_dir: Path | None, what: str, places: Sequence[str], wanted: Sequence[str]) -> Path:
    """The first of ``places`` below ``data_dir`` that holds all files of ``wanted``.

    Raises:
      FileNotFoundError: says which files are wanted, and where.
    """
    if data_dir is None:
        raise FileNotFoundError(
            f"{what} needs {' and '.join(wanted)} in DATA_DIR/{places[0]}; give --data.data-dir DATA_DIR or set "
            "METAREP_DATA"
        )
    for place in places:
        if all((data_dir / place / file).is_file() for file in wanted):
            return data_dir / place
    looked = ", ".join(str(data_dir / place) for place in places)
    raise FileNotFoundError(f"{what} needs {' and '.join(wanted)}; looked in {looked}")
