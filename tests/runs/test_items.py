"""Runs of every command that takes long: in shards or stopped and resumed, their tables are those of the plain command,
byte for byte."""

import errno
import json
import os
import pickle
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from decomp.cli.pool import Worker
from decomp.runs.manifest import open_run
from decomp.runs.work import outcomes
from tests.commands import MODEL, refused

ITEMS = "prompt,target,foil,evidence\nThe cats,sleep,slept,cats\nA dog,ran,run,\nThe old dog,ran,run,dog\n"
FACTS = "fact,relation,subject,target_true,target_false\n"
FACTS += "a,The {} can,cat,run,sleep\nb,The {} can,dog,sleep,run\nb,A {} can,dog,sleep,run\nc,The {} can,cup,a,the\n"
PROMPTS = [
    {"clean": "The cats", "corrupt": "The dogs", "answers": [" a"], "wrong_answers": [" the"]},
    {"clean": "A cat a cat", "corrupt": "A dog a dog", "answers": [" the"], "wrong_answers": [" a"]},
    {"clean": "The dogs", "corrupt": "The cats", "answers": [" the"], "wrong_answers": [" a"]},
]
BOTH = ("--measure", "gradient_x_activation", "--measure", "direct", "--function", "contrast_logit")
CORPUS = ("--batch-size", 1, "--measure", "delta_lp")
COMMANDS = {
    "contrast": ("contrast", "items.csv", MODEL, "--measure", "delta_lp", "--batch-size", 1),
    "layers": ("layers", "facts.csv", MODEL, *BOTH, "--memory", "200KiB"),
    "neurons": ("neurons", "facts.csv", MODEL, "--steps", 2, "--threshold", 0.5),
    "neurons --counts": ("neurons", "facts.csv", MODEL, "--steps", 2, "--counts", "--contrast"),
    "neurons check": ("neurons", "check", "facts.csv", MODEL, "neurons.tsv", "--draws", 2),
    "edges": ("edges", "prompts.json", MODEL, "--mask-value", 0.5, "--ablation", "token_mean", "--over-prompts", "sum"),
    "edges check": ("edges", "check", "edges.tsv", "prompts.json", MODEL, "--keep", 3, "--ablation", "token_mean"),
    "faithfulness": ("evaluate", "faithfulness", "corpus.txt", MODEL, *CORPUS, "--draws", 2, "--targets", 5),
    "agreement": ("evaluate", "agreement", "corpus.txt", MODEL, *CORPUS, "--measure", "attention"),
    "alignment": ("evaluate", "alignment", "items.csv", MODEL, "--measure", "delta_lp", "--batch-size", 1),
    "layers --aggregate": ("layers", "facts.csv", MODEL, *BOTH, "--memory", "200KiB", "--aggregate"),
}
"""Each of at least two batches."""
NEEDED = {"neurons check": {"neurons": "neurons.tsv"}, "edges check": {"edges": "edges.tsv"}}
"""By command those that it reads the tables of."""


@pytest.fixture(autouse=True)
def _inputs(run):
    Path("items.csv").write_text(ITEMS, "utf-8")
    Path("facts.csv").write_text(FACTS, "utf-8")
    Path("corpus.txt").write_text("!ARTICLE\nThe old dog ran.\n!ARTICLE\nA cat sat on the cup.\n", "utf-8")
    Path("prompts.json").write_text(json.dumps({"prompts": PROMPTS}), "utf-8")


@pytest.fixture
def stopped_after(monkeypatch):
    """Stop commands, as Ctrl-C does, after so many batches."""

    def stop(count):
        left = [count]

        def counting(unit, compute):
            def counted(batch):
                if not left[0]:
                    raise KeyboardInterrupt
                left[0] -= 1
                return compute(batch)

            return outcomes(unit, counted)

        monkeypatch.setattr("decomp.cli.running.outcomes", counting)

    return stop


@pytest.mark.parametrize("name", COMMANDS)
def test_sharded_or_resumed_is_alone(run, done, stopped_after, name):
    command = COMMANDS[name]
    for before, table in NEEDED.get(name, {}).items():
        done(*COMMANDS[before], "-o", table)
    said = done(*command, "-o", "alone.tsv")
    alone = Path("alone.tsv").read_bytes()
    assert said == done(*command, "--run", "whole", "-o", "whole.tsv")
    shards = [done(*command, "--run", "shards", "--shard", f"{i}/2", "-o", "shards.tsv") for i in (2, 1)]
    assert shards == ["", said]
    stopped_after(1)
    assert run(*command, "--run", "resumed", "-o", "resumed.tsv").exit_code == 130
    some = open_run(Path("resumed")).done()
    assert 0 < len(some) < len(open_run(Path("resumed")).items)
    assert not Path("resumed.tsv").exists()
    assert f"done    {len(some)} of " in done("status", "resumed")
    stopped_after(10**6)
    done(*command, "--run", "resumed", "-o", "resumed.tsv")
    done("table", "resumed", "-o", "table.tsv")
    for way in ("whole", "shards", "resumed", "table"):
        assert Path(f"{way}.tsv").read_bytes() == alone, way


@pytest.mark.parametrize("name", NEEDED)
def test_a_run_s_folder_is_its_table(done, name):
    ((before, table),) = NEEDED[name].items()
    done(*COMMANDS[before], "-o", table)
    expected = done(*COMMANDS[name])
    done(*COMMANDS[before], "--run", "run")
    assert done(*["run" if word == table else word for word in COMMANDS[name]]) == expected


def test_a_run_is_a_tab_of_a_report(done):
    done(*COMMANDS["edges"], "-o", "edges.tsv")
    done(*COMMANDS["edges"], "--run", "edges")
    pages = [Path("file.html"), Path("run.html")]
    for source, page in zip(("edges.tsv", "edges"), pages, strict=True):
        done("report", source, "-o", page, "--title", "edges")
    of_file, of_run = (page.read_text("utf-8") for page in pages)
    assert len(of_run) == pytest.approx(len(of_file), abs=300)


def test_another_request_is_refused(run, done):
    command = COMMANDS["contrast"]
    done(*command, "--run", "run")
    assert "is the run of another request (options.multi_token" in refused(
        run(*command, "--run", "run", "--multi-token", "sum")
    )
    Path("items.csv").write_text(ITEMS.replace("cats", "dogs"), "utf-8")
    assert "tokens: " in refused(run(*command, "--run", "run"))


@dataclass
class PretendPool:
    """A pool in this process, whose workers are sent what others would be sent."""

    workers: int = 2
    threads: int = 1

    def run(self, start, items, units):
        worker = Worker(pickle.loads(pickle.dumps(start)), self.threads)
        for unit in units[::-1]:
            own = pickle.dumps((unit, items[unit[0].start : unit[-1].stop]))
            yield from pickle.loads(pickle.dumps(worker.run(*pickle.loads(own))))


@pytest.mark.parametrize("name", COMMANDS)
def test_a_pool_is_alone(done, monkeypatch, name):
    command = COMMANDS[name]
    for before, table in NEEDED.get(name, {}).items():
        done(*COMMANDS[before], "-o", table)
    done(*command, "-o", "alone.tsv")
    monkeypatch.setattr("decomp.cli.running.check_ray", lambda: None)
    monkeypatch.setattr("decomp.cli.running.open_pool", lambda *_: nullcontext(PretendPool()))
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    done(*command, "--run", "run", "--engine", "ray", "-o", "pool.tsv")
    assert Path("pool.tsv").read_bytes() == Path("alone.tsv").read_bytes()


def test_full_disk_where_only_the_table_is_missing(run, done, monkeypatch):
    command = COMMANDS["layers --aggregate"]
    done(*command, "-o", "alone.tsv")
    done(*command, "--run", "run")
    (table,) = Path("run").glob("table-*.parquet")
    table.unlink()
    assert "its table is not made yet: run its command again" in refused(run("table", "run"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))
        assert "No space left on device" in refused(run(*command, "--run", "run", "-o", "table.tsv"))
    assert not Path("table.tsv").exists()
    done(*command, "--run", "run", "-o", "table.tsv")
    assert Path("table.tsv").read_bytes() == Path("alone.tsv").read_bytes()
    assert "can only be written as it is, decomp table run -o FILE" in refused(run("table", "run", "--summary"))
    (table,) = Path("run").glob("table-*.parquet")
    table.write_bytes(table.read_bytes()[:-9])
    assert f"{table} is damaged: remove it" in refused(run("table", "run"))
    done(*command, "--run", "run")
    assert table.exists()
    done("table", "run")


def test_pictures_beside_a_run_s_table_are_its_own(run, done):
    pytest.importorskip("matplotlib", reason="needs matplotlib (extra plot)")
    command = (*COMMANDS["layers"], "--plot", "heat.png", "-o", "table.tsv")
    done(*command, "--run", "run")
    done(*command, "--run", "run")
    Path("heat.png").write_bytes(b"mine")
    assert "heat.png exists" in refused(run(*command, "--run", "run"))
