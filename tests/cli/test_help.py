"""What the commands say of themselves, and that it works."""

import os
import runpy
import shlex
import subprocess
import sys

import click
import pytest

from decomp.cli.layout import WithExamples
from decomp.cli.main import COMMANDS, SECTIONS, main
from tests.conftest import ROOT


def commands(group=main, parent=None, name="decomp"):
    """Every command, with the words that name it."""
    context = group.context_class(group, info_name=name, parent=parent, **main.context_settings)
    yield context.command_path, group
    if isinstance(group, click.Group):
        for child in group.list_commands(context):
            yield from commands(group.get_command(context, child), context, child)


ALL = dict(commands())


def test_every_command_is_below_one_title():
    assert len(set(COMMANDS)) == len(COMMANDS)
    assert all(name in {path.split()[1] for path in ALL if " " in path} for name in COMMANDS)


def test_titles_of_commands_and_options(done):
    text = done("--help")
    for title in SECTIONS:
        assert f"\n{title}:\n" in text
    titles = [line for line in done("score", "--help").splitlines() if line.endswith(":") and line[0] != " "]
    assert titles[0] == "Text instead of a file:"
    assert {"Measures:", "Model:", "Windows:", "Rows that are kept:"} <= set(titles)
    assert titles[-2:] == ["Other options:", "Examples:"]
    assert len(titles) == len(set(titles))


@pytest.mark.parametrize("path", ALL)
def test_no_option_stands_without_a_title_but_manners(path):
    command = ALL[path]
    assert isinstance(command, WithExamples)
    loose = {option.name for option in command.ungrouped_options}
    if len(command.params) > 10:
        assert loose <= {"overwrite", "quiet"}


LINES = list(dict.fromkeys(line for command in ALL.values() for line in command.examples if line[:11] != "decomp demo"))
"""All examples, in order, but those of `decomp demo`, which are the test of that command."""


def test_examples_work_when_pasted(run, tmp_path):
    for line in LINES:
        program, *arguments = shlex.split(line)
        if program == "echo":
            text, to, name = arguments
            assert to == ">"
            (tmp_path / name).write_text(f"{text}\n", "utf-8")
            continue
        assert program == "decomp"
        result = run(*arguments)
        assert result.exit_code == 0, f"{line}\n{result.output}"


@pytest.mark.parametrize("path", ALL)
def test_examples_are_of_the_command_and_begin_with_what_makes_their_files(path):
    """Each list of examples works alone, from an empty folder."""
    made = set[str]()
    for line in ALL[path].examples:
        words = shlex.split(line)
        inputs = [word for word in words[1:] if word.endswith((".txt", ".tsv", ".parquet"))]
        *read, last = inputs or [""]
        new = words[words.index(last) - 1] in ("-o", ">") if last else False
        assert set(read if new else inputs) <= made, line
        made.add(last)
    assert any(line.startswith(path) for line in ALL[path].examples)


def test_examples_fit_the_page():
    for path, command in ALL.items():
        assert command.examples, path
        assert max(map(len, command.examples)) <= 100, path


def test_help_without_torch_or_colours():
    """As in a pipe: plain, and quick."""
    code = "import sys; sys.modules['torch'] = None; from decomp.cli.main import main; main(['score', '--help'])"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    shown = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "\x1b" not in shown.stdout
    assert "Rows that are kept:" in shown.stdout


def test_python_runs_the_package_as_the_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["__main__.py", "scor"])
    monkeypatch.delitem(sys.modules, "decomp.__main__", raising=False)  # else runpy warns of running it twice
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("decomp", run_name="__main__")
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("Usage: decomp [OPTIONS] COMMAND")


def test_shipped_inputs_are_used_unless_there_is_a_file_of_that_name(run, tmp_path):
    shipped = run("contrast", "demo-contrast.csv", "demo-opt", "--limit", 1)
    assert shipped.exit_code == 0
    (tmp_path / "demo-contrast.csv").write_text("prompt,target,foil\nThe cat,sat,ran\n", "utf-8")
    own = run("contrast", "demo-contrast.csv", "demo-opt", "--limit", 1)
    assert "\tĠcat\t" in own.stdout
    assert own.stdout != shipped.stdout
