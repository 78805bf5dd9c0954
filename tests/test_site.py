"""The documentation is whole: pages are in the navigation, links lead somewhere, commands and names exist."""

import re
import runpy
import shlex
from importlib import import_module
from pathlib import Path

import click
import pytest
import yaml

import decomp
from decomp.cli.main import DefaultGroup, main
from tests.conftest import ROOT

DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.rglob("*.md")), *sorted(ROOT.glob("*.md"))]
LINK = re.compile(r"(?<!`)\[[^\]]*\]\(([^)\s]+)\)")


def text_of(page: Path) -> str:
    """A page without what stands in blocks of code."""
    return re.sub(r"(?ms)^```.*?^```$", "", page.read_text("utf-8"))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as Python-Markdown makes them."""
    headings = re.findall(r"(?m)^#+ (.*)$", text_of(page))
    plain = [re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in headings]
    return {re.sub(r"[-\s]+", "-", heading) for heading in plain}


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def navigated(entries) -> list[str]:
    """The pages of a navigation."""
    if isinstance(entries, str):
        return [entries]
    return [page for entry in (entries.values() if isinstance(entries, dict) else entries) for page in navigated(entry)]


def test_every_page_is_in_the_navigation_once():
    pages = navigated(yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"])
    assert len(pages) > 10
    assert sorted(pages) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    for link in LINK.findall(text_of(page)):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        # The site has the folder docs alone.
        assert DOCS not in page.parents or DOCS in target.parents, f"{link} is not part of the site"
        assert not anchor or anchor in anchors(target), link


def commands(page: Path) -> list[list[str]]:
    """The arguments of every line of code that calls `decomp`."""
    lines = re.findall(r"(?m)^(?:    )?(decomp .*)$", page.read_text("utf-8"))
    return [shlex.split(line.replace("…", ""), comments=True)[1:] for line in lines]


def unknown(words: list[str], command: click.Command = main) -> list[str]:
    """The options and commands in a call that the command does not have."""
    if isinstance(command, click.Group):
        found = command.get_command(click.Context(command), words[0]) if words else None
        if found is not None:
            return unknown(words[1:], found)
        if isinstance(command, DefaultGroup):
            return unknown([next(iter(command.modules)), *words], command)
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    is_lost = isinstance(command, click.Group) and bool(words)
    return [word for word in words if word.startswith("-") and word not in {*known, "-", "--help"}] + words[:is_lost]


def test_commands_on_the_pages_exist():
    calls = [(name(page), call) for page in PAGES if page.name != "commands.md" for call in commands(page)]
    assert len(calls) > 40
    assert [(page, call, wrong) for page, call in calls if (wrong := unknown(call))] == []
    assert unknown(["score", "--no-such-option"]) == ["--no-such-option"]
    assert unknown(["scores"]) == ["scores"]


def documented() -> list[str]:
    """The names whose docstrings are shown."""
    return [
        found for page in DOCS.rglob("*.md") for found in re.findall(r"(?m)^::: ([\w.]+)$", page.read_text("utf-8"))
    ]


def test_documented_names_exist():
    for path in documented():
        try:
            import_module(path)
        except ModuleNotFoundError:
            module, _, member = path.rpartition(".")
            assert getattr(import_module(module), member).__doc__, path


def test_what_a_notebook_needs_is_documented():
    shown = {path.rpartition(".")[2] for path in documented()}
    assert set(decomp.__all__) - {"SCORES"} <= shown


def test_examples_in_docstrings_become_blocks():
    pytest.importorskip("griffe", reason="needs the extra docs")
    fenced = runpy.run_path(str(DOCS / "site" / "doctests.py"))["fenced"]
    assert fenced("Return 2.\n\n>>> 1 + 1\n2\n\nMore.") == "Return 2.\n\n```pycon\n>>> 1 + 1\n2\n```\n\nMore."
