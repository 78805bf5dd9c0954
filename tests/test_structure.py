"""What imports what, and when."""

import ast
import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT

FLOORS = {
    **{"io": 0, "corpus": 1, "core": 2, "models": 3, "measures": 3, "tables": 4, "runs": 5, "locate": 5},
    **{"evaluation": 5, "settings": 5, "report": 6, "jobs": 7, "api": 8, "cli": 9, "__main__": 10},
}
"""Imports point to the same folder or to a lower floor; `models` stands on the core."""


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def room_of(module):
    """The folder (or file at the top) of the package that a module is in."""
    parts = module.split(".")
    return parts[1] if parts[0] == "decomp" and len(parts) > 1 else None


def files_of(room):
    place = ROOT / (room if room in ("models", "cli") else f"decomp/{room}")
    return list(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]


@pytest.mark.parametrize("room", [room for room in FLOORS if files_of(room)[0].exists()])
def test_imports_point_one_way(room):
    files = files_of(room)
    assert files
    for path in files:
        for name in imports_of(path):
            other = room_of(name)
            if other is None or other == room:
                continue
            assert other in FLOORS, f"{path} imports {name}"
            assert FLOORS[other] < FLOORS[room], f"{path} imports {name}"


VERBS = """
Add Append Apply Ask Begin Call Carry Change Check Choose Close Compute Convert Copy Count Cut Decompose Describe Do
Draw End Evaluate Exit Fill Find Follow Forget Freeze Give Go Have Hold Hook Import Keep Label Lay List Load Make Mark
Measure Merge Move Multiply Note Open Prepare Print Put Raise Read Record Refuse Register Remove Rename Replace Return
Run Save Say Score See Send Set Show Silence Start Stop Store Suppress Take Tell Tokenise Try Turn Use Wait Warn Work
Write Yield
""".split()  # noqa: SIM905
"""What a docstring of a function begins with."""


@pytest.mark.parametrize("room", FLOORS)
def test_docstrings_say_what_functions_do(room):
    for path in files_of(room):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef) and (docstring := ast.get_docstring(node)):
                assert docstring.split()[0].strip(",") in VERBS, f"{path}:{node.lineno} {docstring}"


FRAGMENTS = "And As By From How Its Of Their These Those What Where Which".split()  # noqa: SIM905
"""Words that do not begin a docstring of a module, class or field which makes sense alone."""


def other_docstrings(path):
    """The docstrings of a file that are no function's: of the module, its classes, and after assignments."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef):
            texts = (part.value for part in node.body if isinstance(part, ast.Expr))
            yield from (text.value for text in texts if isinstance(text, ast.Constant) and isinstance(text.value, str))


@pytest.mark.parametrize(
    "room", ["io", "corpus", "core", "models", "measures", "tables", "runs", "locate", "evaluation", "report", "cli"]
)
def test_docstrings_of_fields_and_classes_are_no_fragments(room):
    for path in files_of(room):
        for docstring in other_docstrings(path):
            assert docstring.split()[0].strip(",:") not in FRAGMENTS, f"{path} {docstring}"


@pytest.mark.parametrize("room", ["core", "measures", "tables", "runs", "locate", "evaluation", "report"])
def test_nothing_below_the_models_knows_them(room):
    for path in files_of(room):
        assert not [name for name in imports_of(path) if name.startswith(("decomp.models", "decomp.cli"))], path


@pytest.mark.parametrize(
    "code",
    [
        "import decomp",
        "import decomp.cli.main; decomp.cli.main.main(['--help'], standalone_mode=False)",
        "import decomp.cli.main; decomp.cli.main.main(['measures'], standalone_mode=False)",
        "import decomp.cli.main; decomp.cli.main.main(['models'], standalone_mode=False)",
    ],
)
def test_light_imports(code):
    check = f"import sys\n{code}\nassert not {{'torch', 'transformers'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def test_every_folder_of_the_package_is_packaged():
    """What is imported from a bare checkout is there when installed, too."""
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    (packages,) = re.findall(r"^packages = (\[.+\])$", project, re.MULTILINE)[:1]
    folders = [path.parent.relative_to(ROOT) for path in (ROOT / "decomp").rglob("__init__.py")]
    expected = {".".join(folder.parts) for folder in folders} | {"decomp.models", "decomp.cli", "decomp.data"}
    assert set(ast.literal_eval(packages)) == expected
    assert '"py.typed"' in project
    assert (ROOT / "decomp" / "py.typed").exists()
