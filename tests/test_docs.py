"""The documentation says what the commands say, and its examples give what it shows."""

import doctest
import re
import runpy
from importlib import import_module, metadata
from types import SimpleNamespace

import pytest

from decomp.locate.conventions import EDGES, NEURONS
from decomp.measures import SCORES
from decomp.measures.conventions import CONVENTIONS
from decomp.models import registry
from decomp.models.families import FAMILIES
from decomp.models.registry import class_of
from tests.conftest import ROOT

PINNED = all(
    f"{name}=={metadata.version(name)}\n" in (ROOT / "constraints.txt").read_text() for name in ("click", "cloup")
)
FOLDERS = {"decomp": ROOT / "decomp", "decomp.models": ROOT / "models"}
EXAMPLES = sorted(
    ".".join([package, *path.relative_to(folder).with_suffix("").parts])
    for package, folder in FOLDERS.items()
    for path in folder.rglob("*.py")
    if ">>> " in path.read_text("utf-8")
)


@pytest.mark.skipif(not PINNED, reason="help is laid out by other versions of click and cloup than the pinned one")
def test_commands_page_is_current():
    page = runpy.run_path(str(ROOT / "docs" / "make.py"))["page"]()
    assert (ROOT / "docs" / "commands.md").read_text("utf-8") == page, "run python docs/make.py"


@pytest.mark.usefixtures("_measures_as_they_were")
@pytest.mark.parametrize("module", EXAMPLES)
def test_examples(module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(import_module(module), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted
    assert not result.failed


def run_blocks(page):
    """The names that the Python of a page leaves, its blocks run in order."""
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL):
        exec(block, names)
    return names


def test_the_readme_s_python_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = run_blocks(ROOT / "README.md")
    assert " rests on " in capsys.readouterr().out
    assert names["table"].matrix().shape == names["result"].delta_lp().numpy()[:, :-1].shape
    assert (tmp_path / "text.tsv").exists()


def test_the_first_steps_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = run_blocks(ROOT / "docs" / "start.md")
    assert " rests on " in capsys.readouterr().out
    assert len(names["several"]) == 2
    assert len(names["stored"]) == len(names["result"])


@pytest.mark.usefixtures("_measures_as_they_were")
def test_the_measure_of_the_docs_works(capsys):
    names = run_blocks(ROOT / "docs" / "own-measure.md")
    assert names["table"].measures() == ["delta_lp", "recency"]
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["delta_lp", "recency", "<random>"]


@pytest.fixture
def _measures_as_they_were():
    before = dict(SCORES)
    yield
    SCORES.clear()
    SCORES.update(before)


def test_all_families_are_in_the_table_of_models():
    page = (ROOT / "docs" / "architectures.md").read_text("utf-8")
    for family in FAMILIES:
        line = f"| {family.name} | `{family.model_type}` | `{family.examples[0]}` | {family.positions} |"
        assert f"{line} {'gate' if 'gate' in family.rules else 'activation'} |" in page


def test_all_measures_are_among_those_to_choose():
    page = (ROOT / "docs" / "measures.md").read_text("utf-8")
    assert set(SCORES) <= set(re.findall(r"`(\w+)`", "".join(re.findall(r"(?m)^\| (`[^|]*) \|", page))))


def conventions():
    return (ROOT / "docs" / "conventions.md").read_text("utf-8")


def test_conventions_are_options_that_commands_have():
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", (ROOT / "docs" / "commands.md").read_text("utf-8")))
    assert set(re.findall(r"`[^`]*`", conventions())) >= {"`--no-bos`", "`--convention eap-ig`"}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", conventions())) <= options


def test_conventions_page_has_them_all():
    rows = {line.split("|")[1].strip(" `"): line for line in conventions().splitlines() if line.startswith("| `")}
    for convention in CONVENTIONS.values():
        assert convention.as_options() in rows[convention.name]
        assert all(f"`{function}`" in rows[convention.name] for function in convention.functions.values())
    assert {name for known in (EDGES, NEURONS) for name in known} <= set(re.findall(r"[\w-]+", conventions()))


def test_conventions_page_has_all_names_in_angle_brackets():
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "decomp").rglob("*.py"))
    names = set(re.findall(r'"(<[a-z_]+>)"', sources))
    assert len(names) >= 10
    assert names == set(re.findall(r"`(<[a-z_]+>)`", conventions()))


def test_the_page_on_looking_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "looking.md").read_text("utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, object] = {}
    exec(block, names)
    assert len(names["same"]) == len(names["table"])
    known = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", (ROOT / "docs" / "commands.md").read_text("utf-8")))
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page)) <= known


def test_the_version_is_the_same_everywhere():
    (version,) = re.findall(r'(?m)^version = "(.*)"$', (ROOT / "pyproject.toml").read_text("utf-8"))
    assert re.findall(r"(?m)^version: (.*)$", (ROOT / "CITATION.cff").read_text("utf-8")) == [version]
    assert re.findall(r"(?m)^## (.*)$", (ROOT / "CHANGELOG.md").read_text("utf-8"))[0] == version


def test_the_readme_s_places_exist():
    _, _, end = (ROOT / "README.md").read_text("utf-8").partition("## Where to look")
    places = re.findall(r"`([\w/.-]+)`", end)
    assert len(places) > 15
    assert [place for place in places if not (ROOT / place).exists()] == []


@pytest.mark.usefixtures("_registry_as_it_was")
def test_the_architecture_of_the_docs_works(capsys):
    family, check = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "architectures.md").read_text("utf-8"), re.DOTALL
    )
    assert len(family.splitlines()) < 100
    names: dict[str, object] = {"__name__": "my_stablelm"}
    exec(family, names)
    assert class_of(SimpleNamespace(model_type="stablelm")) is names["DecomposedStableLm"]
    exec(check, names)
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.fixture
def _registry_as_it_was():
    yield
    registry.REGISTERED.pop("stablelm", None)
