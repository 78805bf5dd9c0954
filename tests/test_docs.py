"""The documentation says what the commands say, and its examples give what it shows."""

import doctest
import re
import runpy
from importlib import import_module, metadata
from types import SimpleNamespace

import pytest

from decomp.models import registry
from decomp.models.registry import class_of
from tests.conftest import ROOT

PINNED = f"click=={metadata.version('click')}\n" in (ROOT / "constraints.txt").read_text()
FOLDERS = {"decomp": ROOT / "decomp", "decomp.models": ROOT / "models"}
EXAMPLES = sorted(
    ".".join([package, *path.relative_to(folder).with_suffix("").parts])
    for package, folder in FOLDERS.items()
    for path in folder.rglob("*.py")
    if ">>> " in path.read_text("utf-8")
)


@pytest.mark.skipif(not PINNED, reason="help is laid out by another version of click than the pinned one")
def test_commands_page_is_current():
    page = runpy.run_path(str(ROOT / "docs" / "make.py"))["page"]()
    assert (ROOT / "docs" / "commands.md").read_text("utf-8") == page, "run python docs/make.py"


@pytest.mark.parametrize("module", EXAMPLES)
def test_examples(module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(import_module(module), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted
    assert not result.failed


def test_the_readme_s_python_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert len(blocks) >= 2
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
    assert " rests on " in capsys.readouterr().out
    assert names["table"].matrix().shape == names["result"].delta_lp().numpy()[:, :-1].shape
    assert (tmp_path / "text.tsv").exists()


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
