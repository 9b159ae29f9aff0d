"""What a compiler's HLO text says of a program: its matrix products, meetings of the devices, and calls of the host.

Two texts are read: of the program as it was lowered (``lowered.as_text(dialect="hlo", debug_info=True)``), which names
the line of Python behind each operation, and as it was optimised for the device (``compiled.as_text()``).
"""

import math
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_COMPUTATION = re.compile(r"(?:ENTRY )?%?([\w.\-]+)(?: \(.*)? \{")
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][a-z0-9\-]*)\((.*)")
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+\w*)\[([\d,]*)\]")
_CALLED = re.compile(r"(?:to_apply|body|calls|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TABLE_ROW = re.compile(r"(\d+) (?:\"(.*)\"|\{(.*)\})$")
_TABLES = ("FileNames", "FunctionNames", "FileLocations", "StackFrames")

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


class Instruction(NamedTuple):
    """One operation: ``type`` as it is printed, ``rest`` what follows its opening bracket."""

    name: str
    type: str
    kind: str
    rest: str
    computation: str


class Product(NamedTuple):
    """A matrix product or convolution of the lowered program."""

    float32: bool  # both of its factors are
    full_precision: bool  # asked for by ``precision=lax.Precision.HIGHEST``
    flop: float  # of all its executions in one step; loops whose length is not written out count once
    place: str  # the innermost function of this package behind it, "metalearn/prototypical.py: distances"


def instructions(text: str) -> Iterator[Instruction]:
    """Every operation of an HLO text, in its order."""
    computation = ""
    for line in text.splitlines():
        if match := _INSTRUCTION.match(line):
            yield Instruction(match[1], match[2], match[3], match[4], computation)
        elif match := _COMPUTATION.match(line):
            computation = match[1]


def products(text: str) -> list[Product]:
    """The products of a lowered program, with the function of Python that each comes from."""
    found = list(instructions(text))
    types = {(each.computation, each.name): each.type for each in found}
    times, places = _executions(text, found), _Places(text)
    return [
        _product(each, types, times.get(each.computation, 0), places)
        for each in found
        if each.kind in ("dot", "convolution")
    ]


def collectives(text: str) -> list[int]:
    """The bytes of each meeting of the devices of an optimised program: of what each of them gets."""
    kinds = {name for kind in COLLECTIVES for name in (kind, f"{kind}-start")}
    return [_largest(each.type) for each in instructions(text) if each.kind in kinds]


def host_calls(text: str) -> list[str]:
    """The operations by which a lowered or optimised program waits for the host, by name."""
    return [each.name for each in instructions(text) if _calls_host(each)]


def _calls_host(each: Instruction) -> bool:
    if each.kind in ("send", "recv"):
        return "is_host_transfer=true" in each.rest
    target = re.search(r'custom_call_target="([^"]*)"', each.rest)
    return each.kind in ("infeed", "outfeed") or (target is not None and "callback" in target[1].lower())


def _product(each: Instruction, types: dict, times: int, places: "_Places") -> Product:
    left, right = (types[each.computation, name] for name in _operands(each.rest)[:2])
    size = math.prod(_shape(each.type))
    if each.kind == "dot":
        match = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", each.rest)
        summed = math.prod(_shape(left)[axis] for axis in _numbers(match[1] if match else ""))
    else:
        match = re.search(r"dim_labels=\w+_(\w+)->", each.rest)
        kernel = _shape(right)
        summed = math.prod(kernel) / max(kernel[match[1].index("o")] if match else 1, 1)
        if match := re.search(r"lhs_dilate=([\dx]+)", each.rest):  # that many of its factors are zeros in between
            summed /= math.prod(int(step) for step in match[1].split("x"))
    return Product(
        float32=all(kind.startswith("f32[") for kind in (left, right)),
        full_precision="operand_precision={highest,highest}" in each.rest,
        flop=2.0 * size * summed * times,
        place=places.of(each.rest),
    )


def _executions(text: str, found: Sequence[Instruction]) -> dict[str, int]:
    """How often each computation runs in one step, as far as the text says."""
    calls: dict[str, list[str]] = {}
    for each in found:
        called = _CALLED.findall(each.rest) if each.kind in ("call", "while", "conditional", "fusion") else []
        for branches in _BRANCHES.findall(each.rest):
            called += [name.strip().lstrip("%") for name in branches.split(",")]
        calls.setdefault(each.computation, []).extend(called)
    entry = re.search(r"^ENTRY %?([\w.\-]+)", text, re.MULTILINE)
    times: dict[str, int] = {}

    def visit(name: str) -> None:
        times[name] = times.get(name, 0) + 1
        for called in calls.get(name, ()):
            visit(called)

    if entry:
        visit(entry[1])
    return times


class _Places:
    """The tables at the head of a lowered program's text, from operations to functions of Python."""

    def __init__(self, text: str):
        self._tables: dict[str, dict[int, str]] = {name: {} for name in _TABLES}
        table = None
        for line in text.splitlines():
            if line in self._tables:
                table = self._tables[line]
            elif table is not None and (match := _TABLE_ROW.match(line)):
                table[int(match[1])] = match[2] or match[3]
            elif table is not None and line:  # the tables are over
                break

    def of(self, rest: str) -> str:
        """The innermost function of this package in an operation's stack, or its name in the traced program."""
        match = re.search(r"stack_frame_id=(\d+)", rest)
        frame = int(match[1]) if match else 0
        while frame in self._tables["StackFrames"]:
            fields = _fields(self._tables["StackFrames"][frame])
            location = _fields(self._tables["FileLocations"][fields["file_location_id"]])
            file = self._tables["FileNames"][location["file_name_id"]].rpartition("/metarep_jax/")
            if file[1]:
                function = self._tables["FunctionNames"][location["function_name_id"]]
                return f"{file[2]}: {function.partition('.')[0]}"
            parent = fields["parent_frame_id"] - 1  # printed one higher: 1 is "none"
            frame = parent if parent != frame else 0
        named = re.search(r'op_name="([^"]*)"', rest)
        return named[1] if named else "?"


def _fields(row: str) -> dict[str, int]:
    return {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", row)}


def _operands(rest: str) -> list[str]:
    return [word.split()[-1].lstrip("%") for word in rest.partition(")")[0].split(",") if word.strip()]


def _shape(type: str) -> list[int]:
    match = _ARRAY.search(type)
    return _numbers(match[2]) if match else []


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",") if word]


def _largest(type: str) -> int:
    """Bytes of the largest array of a type, which of a started collective's tuple is its result or as large."""
    sizes = [math.prod(_numbers(shape)) * _bytes(dtype) for dtype, shape in _ARRAY.findall(type)]
    return max(sizes, default=0)


def _bytes(dtype: str) -> int:
    bits = re.search(r"\d+", dtype)
    return max(int(bits[0]) // 8, 1) if bits else 1
