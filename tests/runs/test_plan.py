"""Plans: what a job will take is what it takes, and the script runs it."""

import re
import shlex
from pathlib import Path

import pytest

from decomp.runs.plan import LARGE, Plan, Sample, duration, longest, plan, written_pairs
from decomp.tables.work import WorkItem
from tests.commands import MODEL
from tests.conftest import ROOT

SENTENCES = (ROOT / "data" / "demo.sentitems").read_text("utf-8").replace("!ARTICLE", "").split()


def window(tokens, targets, cost):
    return WorkItem("a", tokens, targets, tokens * (tokens + 1) // 2, cost)


def test_pairs_that_are_written():
    assert written_pairs(window(6, 5, 1), None) == 1 + 2 + 3 + 4 + 5
    assert written_pairs(window(6, 2, 1), None) == 4 + 5
    assert written_pairs(window(6, 5, 1), 3) == 1 + 2 + 3 + 3 + 3


def test_all_windows_by_one():
    windows = [window(6, 5, 10), window(6, 2, 10), window(3, 2, 4)]
    one = Sample(windows[0], 2.0, 30, {"parquet": 300, "tsv": 1500}, 7)
    found = plan(windows, one, lambda each: written_pairs(each, None))
    assert (found.windows, found.tokens, found.rows, found.memory) == (3, 9, 54, 7)
    assert found.disk == {"parquet": 540, "tsv": 2700}
    assert found.seconds == pytest.approx(2.0 * 24 / 10)
    assert longest(windows) == 0


def test_shards_of_about_an_hour():
    assert [Plan(99, 0, 0, {}, 0, hours * 3600.0).shards for hours in (0, 0.5, 1.5, 50, 10**4)] == [1, 1, 2, 50, 99]
    assert Plan(10**5, 0, 0, {}, 0, 1e9).shards == 1000


def test_the_script():
    script = Plan(99, 0, 0, {}, 2**31, 10 * 3600.0).sbatch(["decomp", "score", "my corpus.txt", "gpt2"])
    assert "#SBATCH --array=1-10\n" in script
    assert "#SBATCH --mem=3G\n" in script
    assert "#SBATCH --time=1:35:00\n" in script
    assert script.endswith("decomp score 'my corpus.txt' gpt2 --shard \"$SLURM_ARRAY_TASK_ID/10\"")


def test_large_tables_are_warned_of():
    found = Plan(1, 1, 1, {"tsv": LARGE + 1, "parquet": LARGE}, 1, 1.0)
    assert "the tsv table will take 46.57 GiB: reduce it while it is written (--top" in found.warning("tsv")
    assert found.warning("parquet") is None


def test_durations():
    assert [duration(seconds) for seconds in (0, 59.6, 3600, 90061)] == ["0:00", "1:00", "1:00:00", "25:01:01"]


@pytest.mark.parametrize("options", [(), ("--unit", "word", "--top", 3), ("--decomposition-length", 4, "--no-bos")])
def test_what_the_command_says(run, done, options, tmp_path):
    articles = (" ".join(SENTENCES[i : i + 20]) for i in range(0, 80, 20))
    Path("my corpus.txt").write_text("".join(f"!ARTICLE\n{article}\n" for article in articles))
    result = run("score", "my corpus.txt", MODEL, *options, "--plan")
    assert result.exit_code == 0, result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my corpus.txt"]
    about = int(result.stderr.split("about ")[1].split(" rows")[0].replace(",", ""))
    rows = done("score", "my corpus.txt", MODEL, *options).count("\n") - 1
    assert about == pytest.approx(rows, rel=0.25)
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("decomp ")]
    done(*shlex.split(line)[1:])
    done("table", "runs/score", "-o", "table.tsv")
    assert Path("table.tsv").read_text("utf-8").count("\n") - 1 == rows
    done("status", "runs/score", "--watch")


def test_what_is_refused_is_refused_before(run):
    Path("c.txt").write_text("A cat.")
    Path("t.tsv").write_text("mine")
    assert "t.tsv exists" in run("score", "c.txt", MODEL, "--plan", "-o", "t.tsv").stderr


@pytest.mark.parametrize("options", [(), ("--format", "pt"), ("--store-dtype", "float16")])
def test_what_decompose_says(run, done, options, tmp_path):
    Path("c.txt").write_text("".join(f"!ARTICLE\n{' '.join(SENTENCES[i : i + 20])}\n" for i in range(0, 80, 20)))
    result = run("decompose", "c.txt", MODEL, 8, "--plan", *options)
    assert result.exit_code == 0, result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["c.txt"]
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("decomp ")]
    done(*shlex.split(line)[1:])
    stored = [path for path in Path("output").iterdir() if path.suffix in (".safetensors", ".pt")]
    size = re.search(rf"disk +{'pt' if '--format' in options else 'safetensors'} ([0-9.]+) KiB", result.stderr)
    assert 1024 * float(size[1]) == pytest.approx(sum(path.stat().st_size for path in stored), rel=0.2)
    assert result.stdout.endswith(f"# when all have ended: decomp deltalp c_opt-tiny-pre {MODEL}\n")


def test_large_files_are_warned_of():
    found = Plan(1, 1, None, {"safetensors": LARGE + 1}, 1, 1.0)
    assert "the safetensors files will take 46.57 GiB: use a shorter decomposition" in found.warning("safetensors")
