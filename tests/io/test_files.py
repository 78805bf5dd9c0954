"""What may be written where."""

import os
import re

import pytest

from decomp.io.files import check_outputs, complete_or_absent
from tests.commands import CORPUS, MODEL, refused


def test_none_of_the_outputs_exists_and_the_folder_takes_files(tmp_path):
    check_outputs([tmp_path / "a", None, tmp_path / "b"], [tmp_path / "c", None, "gpt2"])
    assert os.listdir(tmp_path) == []


def test_an_existing_file_is_replaced_on_request_only(tmp_path):
    path = tmp_path / "a"
    path.write_text("precious")
    with pytest.raises(ValueError, match=r"a exists: give --overwrite"):
        check_outputs([path])
    check_outputs([path], overwrite=True)
    assert path.read_text() == "precious"


@pytest.mark.parametrize("overwrite", [False, True])
def test_never_replaced(tmp_path, overwrite):
    source, folder, pipe, link = (tmp_path / name for name in ("source", "folder", "pipe", "link"))
    source.write_text("precious")
    folder.mkdir()
    (folder / "part").write_text("precious")
    os.mkfifo(pipe)
    link.symlink_to(source)
    for path, message in (
        (source, "source is an input"),
        (tmp_path / "folder" / ".." / "source", "source is an input"),
        (link, "link is an input"),
        (folder / "part", "part is in the input folder"),
        (tmp_path, "is a folder: give the name of a file"),
        (pipe, "pipe is a device or a pipe"),
        (tmp_path / "/dev/null", "/dev/null is a device or a pipe"),
        (tmp_path / "nowhere" / "a", "can't write into .*nowhere: No such file or directory"),
        (source / "a", "can't write .*source/a: Not a directory"),
        (tmp_path / ("a" * 300), "can't write .*: File name too long"),
    ):
        with pytest.raises(ValueError, match=message):
            check_outputs([path], [source, folder], overwrite)


def test_two_outputs_with_one_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="a is given for two outputs"):
        check_outputs([tmp_path / "a", tmp_path / ".." / tmp_path.name / "a"], overwrite=True)


@pytest.mark.parametrize("name", ["a" * 240, "é" * 120])
def test_long_names(tmp_path, name):
    with complete_or_absent(tmp_path / name) as beside:
        beside.write_text("whole")
    assert os.listdir(tmp_path) == [name]


def commands(output):
    """Every command that writes a table."""
    return [
        ("score", CORPUS, MODEL, "-o", output),
        ("contrast", "items.csv", MODEL, "-o", output),
        ("layers", "facts.jsonl", MODEL, "-o", output),
        ("neurons", "items.jsonl", MODEL, "-o", output),
        ("neurons", "check", "items.jsonl", MODEL, "neurons.tsv", "-o", output),
        ("edges", "prompts.json", MODEL, "--mask-value", "0", "-o", output),
        ("edges", "check", "edges.tsv", "prompts.json", MODEL, "-o", output),
        ("evaluate", "agreement", CORPUS, MODEL, "-o", output),
        ("evaluate", "alignment", "items.csv", MODEL, "-o", output),
        ("evaluate", "faithfulness", CORPUS, MODEL, "-o", output),
    ]


@pytest.mark.parametrize("number", range(len(commands(""))))
def test_all_commands_check_their_outputs_before_they_load_a_model(run, tmp_path, monkeypatch, number):
    monkeypatch.setattr("decomp.models.loading.load_both", None)
    for name in ("facts.jsonl", "items.jsonl", "neurons.tsv", "prompts.json", "edges.tsv"):
        (tmp_path / name).touch()
    (tmp_path / "items.csv").write_text("prompt,target,foil\na,b,c\n")
    (tmp_path / "there.tsv").write_text("precious")
    for output, message in (
        ("x.html", r"x.html: .html is no format of a table: use one of .tsv, .csv, .jsonl, .parquet"),
        ("there.tsv", "there.tsv exists"),
        ("nowhere/x.tsv", "can't write into nowhere"),
        (".", "is a folder"),
    ):
        assert re.search(message, refused(run(*commands(output)[number])))
    assert (tmp_path / "there.tsv").read_text() == "precious"


def test_a_re_run_replaces_what_the_run_wrote_and_nothing_else(run, done, tmp_path):
    corpus = tmp_path / "c.txt"
    corpus.write_text("!ARTICLE\nA cat sat there.\n")
    done("score", corpus, MODEL, "--run", "run", "-o", "a.tsv")
    table = (tmp_path / "a.tsv").read_bytes()
    done("score", corpus, MODEL, "--run", "run", "-o", "a.tsv")
    (tmp_path / "notes.tsv").write_text("precious")
    for output, message in (("notes.tsv", "notes.tsv exists"), (corpus, "c.txt: .txt is no format")):
        assert message in refused(run("score", corpus, MODEL, "--run", "run", "-o", output))
    for more in ((), ("--overwrite",)):
        arguments = ("score", corpus, MODEL, "--run", "run", "--format", "tsv", *more)
        assert "c.txt is an input" in refused(run(*arguments, "-o", corpus))
        assert "manifest.json is an input" in refused(run(*arguments, "-o", "run/manifest.json"))
    assert (tmp_path / "notes.tsv").read_text() == "precious"
    (tmp_path / "a.tsv").write_text("my own edit")
    assert "a.tsv exists" in refused(run("score", corpus, MODEL, "--run", "run", "-o", "a.tsv"))
    (tmp_path / "a.tsv").unlink()
    done("score", corpus, MODEL, "--run", "run", "-o", "a.tsv")
    assert (tmp_path / "a.tsv").read_bytes() == table
