"""The HTML document of a page: texts and tables packed into one file that needs no network and runs no other script."""

import base64
import hashlib
import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from decomp.io.files import check_outputs, write_whole
from decomp.measures.registry import SCORES
from decomp.report.page.packing import Packing, in_steps, packed, steps_for
from decomp.report.page.tabs import Tab
from decomp.report.readable import one_line, visible
from decomp.report.texts import ShownText

SCRIPTS = ("payload", "units", "colours", "text", "panel", "matrix", "distance", "tables", "exports", "main")
"""The files of the page's script, in order."""
STRONGEST = 3
"""The number of sources that are listed for each word where scripts don't run."""
PARAGRAPH = 120
"""The number of tokens after which a paragraph ends with the next sentence."""


@dataclass(frozen=True)
class Page:
    """The content of a page: its title, texts, measures, and tabs of other tables."""

    title: str
    texts: Sequence[ShownText]
    measures: Sequence[str]
    about: Mapping[str, Any] = field(default_factory=dict)
    """The account of how the table was made."""
    tabs: Sequence[Tab] = ()


def write_page(page: Page, path: Path, overwrite: bool = False) -> None:
    """Write a page to a file that is complete or absent. ValueError for a file that exists, unless `overwrite`."""
    check_page(path, overwrite=overwrite)
    write_whole(path, document(page).encode())


def check_page(path: Path, inputs: Sequence[Path | str | None] = (), overwrite: bool = False) -> None:
    """Raise ValueError for a page's file that has no suffix of HTML, exists already, or is one of the inputs."""
    if path.suffix not in (".html", ".htm"):
        raise ValueError(f"{path} must end in .html: a report is a page for a browser")
    check_outputs([path], inputs, overwrite)


def document(page: Page) -> str:
    """Return a page as HTML."""
    style, script = compact(part("page.css")), compact("".join(part(f"{name}.js") for name in SCRIPTS))
    policy = (
        f"default-src 'none'; script-src '{digest(script)}'; style-src '{digest(style)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return filled(
        part("page.html"),
        policy=policy,
        title=html.escape(visible(page.title)),
        style=style,
        plain="\n".join(plain_text(page)),
        data=payload(page),
        script=script,
    )


def part(name: str) -> str:
    """Return the content of one of the package's files for pages."""
    return resources.files("decomp.report.page").joinpath(name).read_text("utf-8")


def compact(code: str) -> str:
    """Return a script or style sheet without indentation, empty lines and lines of comment."""
    lines = (line.strip() for line in code.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith(("//", "/**")))


def filled(template: str, **values: str) -> str:
    """Return a template with each `{{name}}` replaced by its value; values are not searched for names."""
    before, *rest = template.split("{{")
    filled_in = [before]
    for piece in rest:
        name, _, after = piece.partition("}}")
        filled_in += [values[name], after]
    return "".join(filled_in)


def digest(content: str) -> str:
    """Return the digest of a script or style sheet as the Content-Security-Policy spells it."""
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}"


def payload(page: Page) -> str:
    """Return all content of the page as one packed text."""
    packing = Packing()
    most = steps_for(sum(text.scores.size for text in page.texts))
    about = {
        "title": visible(page.title),
        "about": plain_facts(page.about),
        "measures": [measure_facts(name) for name in page.measures],
        "steps": most,
        "texts": [packed_text(text, packing, most) for text in page.texts],
        "tabs": [tab.packed() for tab in page.tabs],
    }
    return packed(about, packing.content)


def packed_text(text: ShownText, packing: Packing, most: int) -> dict[str, Any]:
    """Return a text in the form that the page's script reads; its arrays are added to the packing."""
    return {
        "name": visible(text.name),
        "pieces": list(text.pieces),
        "paragraphs": paragraphs(text),
        "facts": plain_facts(text.facts),
        "evidence": list(text.evidence),
        "segments": {str(place): one_line(name) for place, name in text.segments.items()},
        "predictions": [[[one_line(t), round(p, 4)] for t, p in likely] for likely in text.predictions],
        "gap": text.completeness_gap,
        "arrays": packed_arrays(text, packing, most),
    }


def packed_arrays(text: ShownText, packing: Packing, most: int) -> dict[str, Any]:
    """Return the places of a text's arrays in the packing, to which they are added; scores are in `most` steps."""
    scores, sizes = in_steps(text.scores, text.starts, most)
    back = np.repeat(text.targets, np.diff(text.starts)) - text.sources
    arrays = {
        "positions": packing.add(text.positions, "int32"),
        "words": packing.add(text.words, "int32"),
        "sentences": packing.add(text.sentences, "int32"),
        "targets": packing.add(text.targets, "int32"),
        "log2Prob": packing.add(text.log2_prob, "float32"),
        "starts": packing.add(text.starts, "int32"),
        "back": packing.add(back, "int32"),
        "sizes": packing.add(sizes, "float32"),
        "scores": packing.add(scores, "int8" if most < 2**7 else "int16"),
        **{f"extra:{name}": packing.add(values, "float32") for name, values in text.extra.items()},
    }
    if text.stops is not None:
        arrays["stops"] = packing.add(text.stops, "int32")
    if text.entropy is not None:
        arrays["entropy"] = packing.add(text.entropy, "float32")
    return arrays


def paragraphs(text: ShownText) -> list[int]:
    """Return the places at which paragraphs begin: segments, groups, lines, and sentences of a long paragraph."""
    starts, sentences = [0], text.sentences.tolist()
    for place in range(1, len(text.pieces)):
        new_line = "\n" in text.pieces[place - 1] and text.words[place] != text.words[place - 1]
        ended = sentences[place] != sentences[place - 1] and place - starts[-1] >= PARAGRAPH
        if new_line or ended or place in text.segments or place in text.blocks:
            starts.append(place)
    return starts


def plain_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts that are known, with control characters in their texts replaced."""
    known = {name: value for name, value in facts.items() if value is not None and value == value}
    return {
        name: plain_facts(value)
        if isinstance(value, Mapping)
        else visible(value)
        if isinstance(value, str)
        else value
        if isinstance(value, bool | int | float)
        else visible(str(value))
        for name, value in known.items()
    }


def measure_facts(name: str) -> dict[str, str]:
    """Return the facts about a measure that the page shows: its name, what it measures, its unit."""
    base, _, function = name.partition(":")
    measure = SCORES.get(base)
    unit, _, _ = (measure.unit if measure else "").partition(", or that of the function")
    return {
        "name": name,
        "what": measure.line if measure else "",
        "unit": "" if function else unit,
        "source": measure.citation if measure else "",
    }


def plain_text(page: Page) -> Iterator[str]:
    """Yield the texts for browsers without scripts, a line for each word: its surprisal, its strongest sources."""
    for text in page.texts:
        yield f"<h2>{html.escape(visible(text.name))}</h2><pre>"
        ends = dict(zip(text.targets.tolist(), range(len(text.targets)), strict=True))
        for place, piece in enumerate(text.pieces):
            said = one_line(piece)
            if (target := ends.get(place)) is not None:
                said += f" {0 - text.log2_prob[target]:.1f}: {strongest_sources(text, target)}"
            yield html.escape(said)
        yield "</pre>"


def strongest_sources(text: ShownText, target: int) -> str:
    """Return the strongest sources of a target by the first measure, as text; never the beginning of sequence."""
    pairs = np.arange(text.starts[target], text.starts[target + 1])
    pairs = pairs[(text.positions[text.sources[pairs]] >= 0) & ~np.isnan(text.scores[0, pairs])]
    order = pairs[np.argsort(-text.scores[0, pairs], kind="stable")][:STRONGEST]
    return " ".join(f"{text.source(text.sources[n])} {text.scores[0, n]:+.1f}" for n in order)
