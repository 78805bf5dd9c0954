"""Functions and statement blocks of source code, as ranges of characters; whole lines where they stand alone."""

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
"""What stands before the brace of an object, not of a block."""
REST_OF_LINE = re.compile(r"[ \t]*[);,]*[ \t]*(?:\r?\n|\Z)")


def lines_of(text: str) -> list[str]:
    """Return a text's lines with their ends, as compilers count them."""
    return LINE.findall(text)


def python_blocks(text: str) -> Iterator[range]:
    """Yield compound statements, decorators included; nothing where the text is no Python."""
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
    """Yield lines that end in a colon, each with the deeper ones after it: for Python that does not parse."""
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
    """Yield braces with the statement that they belong to, in languages like JavaScript, but not those of objects.

    Strings, comments, templates and regular expressions are stepped over; a template inside a template's
    `${}` is not understood.
    """
    opened: list[tuple[str, int]] = []
    """Brackets on the way, `o` for an object's, and where the statement around each began."""
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
    """Return a stretch without white space in front, to the ends of its lines where only punctuation stands there."""
    start += len(text[start:stop]) - len(text[start:stop].lstrip())
    line = max(text.rfind("\n", 0, start), text.rfind("\r", 0, start)) + 1
    if not text[line:start].strip():
        start = line
    rest = REST_OF_LINE.match(text, stop)
    return range(start, rest.end() if rest else stop)


PARSERS: tuple[Callable[[str], Iterator[range]], ...] = (python_blocks, brace_blocks, indented_blocks)
"""The first that finds blocks in a text is believed."""


def enclosing_block(text: str, start: int, stop: int) -> range | None:
    """Return the smallest block around a stretch of the text, None where there is none."""
    blocks = next((found for parser in PARSERS if (found := list(parser(text)))), [])
    return min((block for block in blocks if block.start <= start and stop <= block.stop), key=len, default=None)
