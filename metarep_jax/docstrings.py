"""What docstrings say of arguments, which becomes the help of flags."""

import re


def argument_lines(docstring: str) -> dict[str, str]:
    """What a docstring's ``Args:`` say of each argument; lines of several names count for each of them."""
    section = re.search(r"^\s*Args:\n((?:[ \t]+.*\n?|\s*\n)*)", docstring, re.MULTILINE)
    if section is None:
        return {}
    lines = [line for line in section[1].splitlines() if line.strip()]
    indent = min((len(line) - len(line.lstrip()) for line in lines), default=0)
    found: dict[str, str] = {}
    names: list[str] = []
    for line in lines:
        start = re.match(rf"\s{{{indent}}}(\w+(?:, \w+)*): (.*)", line)
        if start and line[indent] != " ":
            names = start[1].split(", ")
            found |= dict.fromkeys(names, _sentence(start[2]))
        elif line[indent] == " ":
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
        else:
            break  # the next section
    return found


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] if text[:1].isascii() else text
