"""Finding functions and statement blocks in source code, as ranges of characters."""

import ast
import re
import warnings
from collections.abc import Callable, Iterator
from itertools import accumulate

LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
INDENTED_HEADER = re.compile(r":\s*(#.*)?$")
BRACE_TOKEN = re.compile(
    r"""  (?P<skipped> //[^\n]* | /\*.*?\*/                                   # comments
          | "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*' | `(?:\\.|[^`\\])*`     # strings
          | (?:(?<=[=(,:;!&|?\[])|(?<=return)) \s* /(?![/*])                  # regular expressions
            (?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n\[])+/ )
        | (?P<bracket> [][(){};,] )""",
    re.VERBOSE | re.DOTALL,
)
LITERAL_BEFORE = re.compile(r"(?:[=(\[,:?&|!+]|\breturn)$")
"""The characters after which an opening brace begins an object literal, not a block."""
REST_OF_LINE = re.compile(r"[ \t]*[);,]*[ \t]*(?:\r?\n|\Z)")


def lines_of(text: str) -> list[str]:
    """Return the lines of a text, with their line ends, divided as compilers divide them."""
    return LINE.findall(text)


def python_blocks(text: str) -> Iterator[range]:
    """Yield the compound statements of Python, decorators included; nothing where the text is not Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    starts = [0, *accumulate(map(len, lines_of(text)))]
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt) and (hasattr(node, "body") or hasattr(node, "cases")):
            first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
            yield range(starts[first - 1], starts[node.end_lineno or node.lineno])


def indented_blocks(text: str) -> Iterator[range]:
    """Yield lines that end in a colon, each with the more indented lines after it, for Python that does not parse."""
    lines = lines_of(text)
    starts = [0, *accumulate(map(len, lines))]
    depths = [len(line) - len(line.lstrip()) if line.strip() else None for line in lines]
    for first, line in enumerate(lines):
        depth = depths[first]
        if depth is None or not INDENTED_HEADER.search(line.rstrip()):
            continue
        last = first
        for number, other in enumerate(depths[first + 1 :], first + 1):
            if other is not None and other <= depth:
                break
            last = number if other is not None else last
        if last > first:
            yield range(starts[first], starts[last + 1])


def brace_blocks(text: str) -> Iterator[range]:
    """Yield the blocks in braces of languages like JavaScript, each with its statement; object literals are left out.

    Strings, comments, templates and regular expressions are skipped. A template inside a template's `${}` is not
    recognised.
    """
    opened: list[tuple[str, int]] = []
    """The open brackets, `o` for that of an object literal, each with the start of the statement around it."""
    start = 0
    for match in BRACE_TOKEN.finditer(text):
        bracket, inner = match["bracket"], opened[-1][0] if opened else "{"
        if bracket is None:
            if not text[start : match.start()].strip():
                start = match.end()
        elif bracket in "([":
            opened.append((bracket, start))
        elif bracket == "{":
            is_object = LITERAL_BEFORE.search(text[start : match.start()].rstrip())
            opened.append(("o" if is_object else "{", start))
            start = match.end()
        elif bracket in ")]}":
            # A part of a file may close what it did not open.
            kind, start = opened.pop() if opened else ("", match.end())
            if kind == "{" and bracket == "}":
                yield whole_lines(text, start, match.end())
                if not opened or opened[-1][0] == "{":
                    start = match.end()
        elif (bracket == ";" and inner == "{") or (bracket == "," and inner == "o"):
            start = match.end()


def whole_lines(text: str, start: int, stop: int) -> range:
    """Return a range without white space in front, and up to the end of its line where only punctuation is left."""
    start += len(text[start:stop]) - len(text[start:stop].lstrip())
    line = max(text.rfind("\n", 0, start), text.rfind("\r", 0, start)) + 1
    if not text[line:start].strip():
        start = line
    rest = REST_OF_LINE.match(text, stop)
    return range(start, rest.end() if rest else stop)


PARSERS: tuple[Callable[[str], Iterator[range]], ...] = (python_blocks, brace_blocks, indented_blocks)
"""The finders of blocks, of which the first that finds any in a text is used."""


def enclosing_block(text: str, start: int, stop: int) -> range | None:
    """Return the smallest block around the characters [start, stop); None where there is none."""
    blocks = next((found for parser in PARSERS if (found := list(parser(text)))), [])
    return min((block for block in blocks if block.start <= start and stop <= block.stop), key=len, default=None)
