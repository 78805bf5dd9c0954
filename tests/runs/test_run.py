"""Runs: whatever stops them, the same command goes on, and the result is that of a run that nothing stopped."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import pytest
import torch

from decomp.cli.main import main
from decomp.corpus.batches import in_batches
from decomp.io import files
from decomp.io.files import ABANDONED, CannotWriteError, complete_or_absent
from decomp.runs.cost import CostModel
from decomp.runs.manifest import open_run, start_or_resume
from decomp.runs.parts import TableParts
from decomp.runs.run import Run, Shard, parse_shard
from decomp.runs.status import status_of
from decomp.runs.tables import table_of
from decomp.runs.work import Journal, Outcome, journal_entries, keep, outcomes
from decomp.tables.blocks import block_of
from decomp.tables.work import WorkItem
from tests.conftest import ROOT

MODEL = str(ROOT / "tests" / "golden" / "opt-tiny-pre")
SENTENCES = (ROOT / "data" / "demo.sentitems").read_text("utf-8").replace("!ARTICLE", "").split()


FOLDER_SIZE = 4
"""Of which a run of the corpus has several."""


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """As the processes that are killed have: another number of threads rounds otherwise."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _small_folders(monkeypatch):
    monkeypatch.setattr("decomp.runs.parts.FOLDER_SIZE", FOLDER_SIZE)


def write_corpus(folder):
    """Twelve articles of several lengths."""
    path = folder / "c.txt"
    texts = (" ".join(SENTENCES[i : i + 4 + 3 * (i % 7)]) for i in range(0, 60, 5))
    path.write_text("".join(f"!ARTICLE\n{text}\n" for text in texts), "utf-8")
    return path


@pytest.fixture
def corpus(tmp_path):
    return write_corpus(tmp_path)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What the command makes of the corpus, once for all tests: `plain.tsv` without a run, and a run."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("decomp.runs.parts.FOLDER_SIZE", FOLDER_SIZE)
        patch.chdir(folder)
        for output in (("-o", "plain.tsv"), ("--run", "run")):
            main(["score", str(write_corpus(folder)), MODEL, "-q", *output], standalone_mode=False)
    return folder


@pytest.fixture
def plain(made):
    return (made / "plain.tsv").read_bytes()


@pytest.fixture
def whole(made, tmp_path, monkeypatch):
    """A complete run of the corpus in the folder `run`."""
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(made / "run", tmp_path / "run")


class Forks:
    """Commands in forks of one process that has imported all."""

    def __init__(self, server):
        self.server = server

    def begin(self, *commands):
        """Start commands at the same time, each as (arguments, seconds until SIGKILL, file for what it says)."""
        lines = [[list(map(str, arguments)), seconds, said] for arguments, seconds, said in commands]
        self.server.stdin.write(json.dumps(lines) + "\n")
        self.server.stdin.flush()
        return self.answer()

    def answer(self):
        """The process ids after `begin`; the exit statuses once all have ended."""
        return json.loads(self.server.stdout.readline())

    def __call__(self, arguments, seconds=None):
        """The exit status of one command, killed after so many seconds."""
        self.begin((arguments, seconds, None))
        (status,) = self.answer()
        return status


@pytest.fixture(scope="module")
def forks():
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.forking"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    ) as server:
        yield Forks(server)
        server.stdin.close()


def computed(run):
    """How often each window was."""
    entries = [e for e in journal_entries(run) if "first" in e and e["error"] is None]
    return [number for e in entries for number in range(e["first"], e["stop"])]


def parts(folder):
    return sorted(p for p in Path(folder).glob("parts/*/*") if not p.name.startswith("."))


def refused(result):
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    return line


@pytest.mark.parametrize("options", [(), ("--batch-size", 3), ("--format", "jsonl"), ("--unit", "word", "--span", 2)])
def test_a_run_is_the_plain_command(done, corpus, options):
    done("score", corpus, MODEL, "-o", "plain", *options)
    done("score", corpus, MODEL, "--run", "run", "-o", "table", *options)
    assert Path("table").read_bytes() == Path("plain").read_bytes()
    before = [p.stat().st_mtime_ns for p in parts("run")]
    done("score", corpus, MODEL, "--run", "run", "-o", "table", *options)
    assert [p.stat().st_mtime_ns for p in parts("run")] == before
    run = open_run(Path("run"))
    assert computed(run) == list(range(len(run.items)))


def test_decomp_table_takes_a_run(done, plain, whole):
    done("table", "run", "-o", "table.tsv")
    assert Path("table.tsv").read_bytes() == plain


def test_other_libraries_read_the_parts(whole):
    reason = "needs duckdb, polars and pandas (extra test)"
    duckdb, polars, pandas = (pytest.importorskip(name, reason=reason) for name in ("duckdb", "polars", "pandas"))
    import pyarrow.dataset

    table = list(table_of(open_run(Path("run"))).rows())
    total, count = sum(row[-1] for row in table), len(table)
    frame = pandas.read_parquet("run/parts")
    lazy = polars.scan_parquet("run/parts/*/*.parquet").select(polars.sum("score"), polars.len())
    arrow = pyarrow.dataset.dataset("run/parts").to_table()
    sums = {
        "duckdb": duckdb.sql("SELECT sum(score), count(source_token) FROM 'run/parts/*/*.parquet'").fetchall()[0],
        "polars": lazy.collect().row(0),
        "pandas": (frame["score"].sum(), frame["source_token"].count()),
        "arrow": (arrow["score"].to_numpy().sum(), arrow["source_token"].length()),
    }
    for name, (found, rows) in sums.items():
        assert rows == count, name
        assert found == pytest.approx(total, rel=1e-4), name
    assert [str(arrow.schema.field(name).type) for name in ("position", "score")] == ["int32", "float"]


def killed(forks, arguments, times, made, seed):
    """Kill a command at random moments, so many times, some of them while it makes what `made` lists; yield after each.

    Where it is quicker than the signal, most of what it made is taken back.
    """
    moments, kills, while_making, latest = random.Random(seed), 0, 0, 1.0
    # A busy machine is killed before it begins.
    while kills < times or (while_making < times // 4 and kills < 100):
        before = set(made())
        status = forks(arguments, moments.uniform(0.1, 1) * latest)
        if status == 0:
            latest *= 0.8
            for path in made()[1:]:
                path.unlink()
        else:
            assert status == signal.SIGKILL
            kills += 1
            making = bool(set(made()) - before)
            while_making += making
            latest *= 1 if making else 1.1
        yield
    assert while_making >= times // 4


def test_killed_twenty_times(forks, done, corpus, plain, tmp_path):
    arguments = ("score", corpus, MODEL, "--run", tmp_path / "run", "-o", tmp_path / "table.tsv")
    for _ in killed(forks, arguments, 20, lambda: parts("run"), seed=5):
        for part in parts("run"):
            assert part.read_bytes().endswith(b"PAR1")
    assert forks(arguments) == 0
    assert Path("table.tsv").read_bytes() == plain


def test_decompose_killed(forks, done, corpus, tmp_path):
    def stored(folder):
        return sorted(Path(folder).glob("*.safetensors"))

    done("decompose", corpus, MODEL, 8, "--output-dir", "whole")
    arguments = ("decompose", corpus, MODEL, 8, "--output-dir", tmp_path / "output")
    for _ in killed(forks, arguments, 6, lambda: stored("output"), seed=7):
        pass
    assert forks(arguments) == 0
    assert len(stored("whole")) > 12
    assert [path.name for path in stored("output")] == [path.name for path in stored("whole")]
    for one, other in zip(stored("output"), stored("whole"), strict=True):
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("step", ["mkstemp", "fsync", "link", "replace"])
def test_killed_at_each_step_of_writing(done, corpus, plain, monkeypatch, step):
    class KilledError(BaseException):
        pass

    def killed(*_args, **_options):
        raise KilledError

    owner = files.tempfile if step == "mkstemp" else Path if step == "replace" else os
    with monkeypatch.context() as patch:
        patch.setattr(owner, step, killed)
        # A killed process removes nothing.
        patch.setattr(Path, "unlink", lambda *_args, **_options: None)
        with pytest.raises(KilledError):
            start_and_fail(corpus)
    done("score", corpus, MODEL, "--run", "run", "-o", "table.tsv")
    assert Path("table.tsv").read_bytes() == plain


def start_and_fail(corpus):
    main(["score", str(corpus), MODEL, "--run", "run", "-q"], standalone_mode=False)


def test_abandoned_files_go_and_young_ones_stay(done, corpus, plain, whole):
    part = parts("run")[0]
    old, young = part.with_name(f".{part.name}.a.part"), part.with_name(f".{part.name}.b.part")
    for path in (old, young):
        path.write_bytes(b"half a")
    os.utime(old, (time.time(), time.time() - 2 * ABANDONED))
    done("score", corpus, MODEL, "--run", "run", "-o", "table.tsv")
    assert (old.exists(), young.exists()) == (False, True)
    assert Path("table.tsv").read_bytes() == plain


def test_interrupted(run, done, corpus, plain, monkeypatch):
    from decomp.tables.scoring import Scorer

    part, calls = Scorer.part, []

    def interrupted(*arguments):
        calls.append(0)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return part(*arguments)

    monkeypatch.setattr(Scorer, "part", interrupted)
    result = run("score", corpus, MODEL, "--run", "run", "-o", "table.tsv", "--batch-size", 1)
    assert result.exit_code == 130
    total = len(open_run(Path("run")).items)
    assert f"Stopped: 3 of {total} windows are done and kept. The same command goes on from here." in result.stderr
    done("score", corpus, MODEL, "--run", "run", "-o", "table.tsv", "--batch-size", 1)
    assert len(calls) == total + 1
    assert Path("table.tsv").read_bytes() == plain


def stopped(forks, sent, begun, *arguments):
    """Start the command, send it a signal when `begun`, and return its exit code and what it said."""
    said = Path("said").absolute()
    (process,) = forks.begin((("score", *arguments), None, str(said)))
    while not begun():
        os.kill(process, 0)  # an error where it has ended
        time.sleep(0.01)
    os.kill(process, sent)
    (status,) = forks.answer()
    text = said.read_text("utf-8")
    said.unlink()
    assert "Traceback" not in text
    return os.waitstatus_to_exitcode(status), text


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_interrupts(forks, corpus, tmp_path, monkeypatch, sent, code):
    corpus.write_text(corpus.read_text("utf-8") * 8, "utf-8")
    monkeypatch.chdir(tmp_path)
    returned, said = stopped(forks, sent, lambda: parts("run"), corpus, MODEL, "--run", tmp_path / "run")
    assert returned == code
    assert "windows are done and kept. The same command goes on from here." in said
    assert 0 < len(open_run(Path("run")).done()) < len(open_run(Path("run")).items)
    assert not list(Path("run").glob("**/.*.part"))


def test_a_signal_leaves_no_file_behind(forks, corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    corpus.write_text(corpus.read_text("utf-8") * 8, "utf-8")

    def begun():
        return any(tmp_path.glob(".table.tsv.*.part"))

    assert stopped(forks, signal.SIGTERM, begun, corpus, MODEL, "-o", tmp_path / "table.tsv") == (143, "")
    assert list(tmp_path.iterdir()) == [corpus]


def test_a_failing_window_stops_no_other(run, done, corpus, plain, monkeypatch):
    from decomp.tables.scoring import Scorer

    part = Scorer.part

    def failing(self, model, batch):
        if batch[0].window.article == 4:
            raise RuntimeError("out of\nluck")
        return part(self, model, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Scorer, "part", failing)
        result = run("score", corpus, MODEL, "--run", "run", "-o", "table.tsv")
    assert result.exit_code == 1
    assert "windows failed, the first with: RuntimeError: out of luck" in result.stderr
    assert not Path("table.tsv").exists()
    status = status_of(open_run(Path("run")))
    failed = sum(map(len, status.failed))
    assert failed >= 1
    assert status.done.items == status.total.items - failed
    text = done("status", "run")
    assert "article 4, window 0: RuntimeError: out of luck" in text
    assert f"{status.done.items} of {status.total.items} windows" in text
    assert "windows are missing in run" in refused(run("table", "run"))
    done("score", corpus, MODEL, "--run", "run", "-o", "table.tsv")
    assert Path("table.tsv").read_bytes() == plain
    assert "failed" not in done("status", "run")


def test_full_disk(run, done, corpus, plain, monkeypatch):
    fsync, calls = os.fsync, []

    def full(handle):
        calls.append(0)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        line = refused(run("score", corpus, MODEL, "--run", "run", "-o", "table.tsv"))
        assert "can't write run/parts/" in line
        assert "No space left on device" in line
    assert len(parts("run")) == 1
    done("score", corpus, MODEL, "--run", "run", "-o", "table.tsv")
    assert Path("table.tsv").read_bytes() == plain


def test_full_disk_without_a_run(run, corpus, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert "No space left on device" in refused(run("score", corpus, MODEL, "-o", "table.tsv"))
    assert list(Path().glob("*table*")) == list(Path().glob(".*table*")) == []


def test_full_disk_of_decompose(run, done, corpus, monkeypatch):
    with monkeypatch.context() as patch:
        full = OSError(errno.ENOSPC, "No space")
        patch.setattr("decomp.core.storage.save_file", lambda *_: (_ for _ in ()).throw(full))
        assert "can't write c_opt-tiny-pre_0 into output" in refused(run("decompose", corpus, MODEL, 8))
    done("decompose", corpus, MODEL, 8)


def test_a_changed_request_is_refused(run, done, corpus, whole):
    line = refused(run("score", corpus, MODEL, "--run", "run", "--stride", 7, "--dtype", "float64"))
    assert 'model.dtype: "float32" in the run, "float64" asked' in line
    assert "options.stride: null in the run, 7 asked" in line
    corpus.write_text("!ARTICLE\nSomething else.\n")
    assert "corpus: " in refused(run("score", corpus, MODEL, "--run", "run"))
    done("score", corpus, MODEL, "--run", "run", "--overwrite")
    assert len(open_run(Path("run")).items) == 1


def test_a_run_keeps_the_rule_it_was_begun_with(run, done, corpus):
    done("score", corpus, MODEL, "--run", "run", "--gate-rule", "frozen", "--shard", "1/2")
    line = refused(run("score", corpus, MODEL, "--run", "run"))
    assert 'options.gate_rule: "frozen" in the run, "half" asked' in line
    done("score", corpus, MODEL, "--run", "run", "--gate-rule", "frozen")
    assert open_run(Path("run")).request["options"]["gate_rule"] == "frozen"


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff", b'{"version": 4}', b'{"version": 4, "items": {"a": 1}}', b"[" * 10**5],
)
def test_a_damaged_manifest(run, corpus, content, whole):
    Path("run/manifest.json").write_bytes(content)
    for arguments in (("score", corpus, MODEL, "--run", "run"), ("status", "run"), ("table", "run")):
        assert "run/manifest.json is damaged" in refused(run(*arguments))


def test_a_newer_manifest(run, whole):
    path = Path("run/manifest.json")
    text = path.read_text()
    path.write_text(text.replace('"version": 4', '"version": 5', 1))
    assert "has version 5, this package reads up to 4" in refused(run("status", "run"))
    path.write_text(text.replace('"version": 4', '"version": 3', 1))
    assert "has version 3, of an older package" in refused(run("status", "run"))


def flip_a_digit(content):
    place = max(i for i, byte in enumerate(content) if chr(byte).isdigit())
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def cut_the_end(content):
    return content[:-9]


@pytest.mark.parametrize("damage", [flip_a_digit, cut_the_end, lambda content: b"", lambda content: b"nonsense"])
def test_a_damaged_part(run, corpus, damage, whole):
    path = parts("run")[1]
    path.write_bytes(damage(path.read_bytes()))
    for arguments in (("score", corpus, MODEL, "--run", "run"), ("table", "run", "-o", "table.tsv")):
        assert f"{path} is damaged: remove it" in refused(run(*arguments))
    assert not Path("table.tsv").exists()


def test_a_part_with_another_window_s_content(run, done, corpus):
    done("score", corpus, MODEL, "--run", "run", "--batch-size", 1)
    first, second = parts("run")[:2]
    second.write_bytes(first.read_bytes())
    assert f"{second} is damaged" in refused(run("table", "run"))
    second.unlink()
    moved = second.with_name(f"{second.name[:17]}{first.name[17:]}")
    moved.write_bytes(first.read_bytes())
    assert f"{moved} is damaged" in refused(run("score", corpus, MODEL, "--run", "run", "--batch-size", 1))


def test_a_part_that_is_a_folder(run, corpus, whole):
    path = parts("run")[1]
    path.unlink()
    path.mkdir()
    assert f"can't read {path} (Is a directory)" in refused(run("score", corpus, MODEL, "--run", "run"))
    assert f"can't read {path} (Is a directory)" in refused(run("table", "run"))


def test_a_damaged_journal_is_passed_over(done, corpus, plain, whole):
    before = done("status", "run")
    (journal,) = Path("run/journal").iterdir()
    entries = ["[" * 10**5, "3", "null", "{}", '{"time": "soon"}', '{"time": 1}', '{"time": 1, "shard": 3}']
    entries += ['{"time": 1, "shard": "9/2"}', '{"time": 1, "shard": "1/1", "first": 0}']
    entries += ['{"time": 1, "shard": "1/1", "first": 0, "stop": 10000, "seconds": 1, "error": null}']
    entries += ['{"time": 1, "shard": "1/1", "first": "a", "stop": 3, "seconds": 1, "error": null}']
    journal.write_text(journal.read_text("utf-8") + "\n".join(entries) + "\x00", "utf-8")
    Path("run/journal/folder.jsonl").mkdir()
    assert done("status", "run").split("last wrote")[0] == before.split("last wrote")[0]
    done("score", corpus, MODEL, "--run", "run", "-o", "table.tsv")
    assert Path("table.tsv").read_bytes() == plain


def test_bad_requests(run, corpus):
    Path("other").mkdir()
    Path("other", "thesis.txt").write_text("")
    assert "other is no run, and not empty" in refused(run("score", corpus, MODEL, "--run", "other"))
    assert os.listdir("other") == ["thesis.txt"]
    assert "other is no run" in refused(run("status", "other"))
    assert "give --run" in refused(run("score", corpus, MODEL, "--shard", "1/2"))
    assert "give --run" in refused(run("score", corpus, MODEL, "--engine", "ray"))
    assert "--overwrite would remove" in refused(
        run("score", corpus, MODEL, "--run", "run", "--shard", "1/2", "--overwrite")
    )
    for shard in ("0/2", "3/2", "2", "a/b"):
        assert "I/N with I from 1 to N" in refused(run("score", corpus, MODEL, "--run", "run", "--shard", shard))


def test_two_shards_at_once(forks, corpus, done, plain, tmp_path):
    command = ("score", corpus, MODEL, "--run", tmp_path / "run", "-q", "--shard")
    forks.begin(*(((*command, shard), None, None) for shard in ("1/2", "2/2")))
    assert forks.answer() == [0, 0]
    done("table", "run", "-o", "table.tsv")
    assert Path("table.tsv").read_bytes() == plain
    run = open_run(Path("run"))
    assert sorted(computed(run)) == list(range(len(run.items)))
    assert len({e["pid"] for e in journal_entries(run)}) == 2
    assert [str(share.shard) for share in status_of(run).shares] == ["1/2", "2/2"]
    assert "shard 2/2" in done("status", "run")


def make_run(folder, lengths, batch_size=1, unit_cost=0):
    cost = CostModel(2, 8, 100, None)
    windows = [WorkItem(str(i), n, n - 1, cost.pairs(n), cost(n)) for i, n in enumerate(lengths)]
    return Run(
        folder,
        {"command": "score"},
        "window",
        windows,
        in_batches(lengths, batch_size, 0),
        unit_cost,
        TableParts(("a",), len(lengths)),
    )


@pytest.mark.parametrize("count", [1, 2, 3, 7, 50])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_shards_share_all_work_in_equal_parts(tmp_path, count, batch_size):
    lengths = [random.Random(i).randint(2, 200) for i in range(90)]
    run = make_run(tmp_path, lengths, batch_size)
    shares = [run.share(Shard(i, count)) for i in range(1, count + 1)]
    assert [batch for share in shares for batch in share] == run.batches
    costs = [sum(map(run.cost, share)) for share in shares]
    largest = max(map(run.cost, run.batches))
    assert max(costs) - min(costs) <= 2 * largest


def test_units_are_bounded_by_cost_and_broken_by_what_is_done(tmp_path):
    run = make_run(tmp_path, [10] * 10, unit_cost=3 * CostModel(2, 8, 100, None)(10))
    assert [len(unit) for unit in run.units(Shard())] == [3, 3, 3, 1]
    run.store.write(tmp_path, range(4, 5), [block_of(("a",), [])])
    assert [[b.start for b in unit] for unit in run.units(Shard())] == [[0, 1, 2], [3], [5, 6, 7], [8, 9]]


def test_overlapping_parts_count_once(tmp_path):
    run = make_run(tmp_path, [10] * 6)
    for windows in (range(0, 3), range(2, 5), range(3, 4), range(0, 2), range(4, 6)):
        run.store.write_part(tmp_path, windows, [block_of(("a",), [(n,)]) for n in windows])
    assert list(table_of(run).rows()) == [(0,), (1,), (2,), (3,), (4,), (5,)]
    run.store.tidy(tmp_path)
    assert [windows for windows, _ in run.store.all(tmp_path)] == [range(0, 3), range(3, 4), range(4, 6)]


def write_windows(run, *ranges):
    for windows in ranges:
        run.store.write(run.folder, windows, [block_of(("a",), [(n,)]) for n in windows])


def test_a_folder_s_parts_become_one(tmp_path):
    run = make_run(tmp_path, [10] * 10)
    write_windows(run, range(0, 1), range(2, 3), range(3, 5), range(5, 7), range(8, 10))
    assert len(parts(tmp_path)) == 5
    write_windows(run, range(1, 2))
    assert [windows for windows, _ in run.store.all(tmp_path)] == [range(0, 5), range(5, 7), range(8, 10)]
    write_windows(run, range(7, 8))  # the last folder is complete as soon as all windows are
    assert [windows for windows, _ in run.store.all(tmp_path)] == [range(0, 5), range(5, 8), range(8, 10)]
    assert list(table_of(run).rows()) == [(n,) for n in range(10)]


def test_parts_become_one_whatever_their_order_and_the_same_bytes(tmp_path):
    contents = set()
    for number in range(6):
        run = make_run(tmp_path / str(number), [10] * 4)
        pieces = [range(0, 1), range(1, 2), range(2, 4)]
        random.Random(number).shuffle(pieces)
        write_windows(run, *pieces)
        (part,) = parts(run.folder)
        contents.add((part.name, part.read_bytes()))
    assert len(contents) == 1


def test_a_damaged_part_does_not_become_one_with_others(tmp_path):
    run = make_run(tmp_path, [10] * 3)
    write_windows(run, range(0, 1), range(1, 2))
    part = parts(tmp_path)[1]
    part.write_bytes(cut_the_end(part.read_bytes()))
    write_windows(run, range(2, 3))
    assert len(parts(tmp_path)) == 3
    with pytest.raises(ValueError, match=rf"{part} is damaged: remove it"):
        table_of(run)


def test_killed_between_the_whole_and_its_pieces(tmp_path, monkeypatch):
    run = make_run(tmp_path, [10] * 3)
    with monkeypatch.context() as patch:
        patch.setattr(TableParts, "tidy", lambda *_: None)
        write_windows(run, range(0, 1), range(1, 2), range(2, 3))
    assert len(parts(tmp_path)) == 3
    assert list(table_of(run).rows()) == [(0,), (1,), (2,)]
    run.store.tidy(tmp_path)
    assert len(parts(tmp_path)) == 1
    assert list(table_of(run).rows()) == [(0,), (1,), (2,)]


def test_parts_that_come_while_others_are_tidied_stay(tmp_path, monkeypatch):
    run, coming = make_run(tmp_path, [10] * 10), iter(range(1, 4))
    write_windows(run, range(0, 1))
    every = TableParts.all

    def looked_through(self, folder):
        """As another shard has it, which writes one as soon as this one has looked."""
        found, number = every(self, folder), next(coming)
        self.write_part(folder, range(number, number + 1), [block_of(("a",), [(number,)])])
        return found

    with monkeypatch.context() as patch:
        patch.setattr(TableParts, "all", looked_through)
        run.store.tidy(tmp_path)
    assert run.store.done(tmp_path) == {*range(next(coming))}


def test_outcomes_cut_a_part_where_a_batch_fails():
    def compute(batch):
        if batch.start in (0, 3):
            raise ValueError("no")
        if batch.start == 6:
            raise KeyboardInterrupt
        return {"a": batch.start}

    results = outcomes([range(i, i + 1) for i in range(8)], compute)
    assert [(o.items, o.pieces, o.error) for o in islice(results, 4)] == [
        (range(0, 1), [], "no"),
        (range(1, 3), [{"a": 1}, {"a": 2}], None),
        (range(3, 4), [], "no"),
        (range(4, 6), [{"a": 4}, {"a": 5}], None),
    ]
    with pytest.raises(KeyboardInterrupt):
        next(results)


def test_nothing_to_write_on_is_no_failing_window():
    def compute(_):
        raise CannotWriteError("full")

    with pytest.raises(CannotWriteError, match="full"):
        list(outcomes([range(1)], compute))


def test_rate_and_time_left(tmp_path, monkeypatch):
    run = start_or_resume(make_run(tmp_path / "run", [10, 10, 20, 20]))
    first, second = (Journal(run.folder / "journal" / name, Shard()) for name in ("a.jsonl", "b.jsonl"))
    for journal, windows, now in (
        (first, range(0, 1), 1000.0),
        (second, range(1, 2), 1000.0),
        (first, range(2, 3), 5010.0),
    ):
        monkeypatch.setattr("time.time", lambda now=now: now)
        keep(run, Outcome(windows, [block_of(("a",), [])], None, 10.0, "h", 1), journal)
    with first.path.open("a") as file:
        file.write('{"time": 1')
    status = status_of(run)
    assert status.done.items == 3
    # Of the last ten minutes of work: one window of 210 pairs in ten seconds.
    assert status.pairs_per_second == pytest.approx(21.0)
    assert status.seconds_left == pytest.approx(10.0)


def test_cost_of_pairs():
    cost = CostModel(3, 8, 100, 5)
    assert cost.pairs(9) == sum(min(i + 1, 5) for i in range(9))
    assert cost(9) - cost(8) == 5 * (20 * 3 * 64 + 1600) + 24 * 3 * 64 + 1600


def test_whoever_is_first_makes_the_file(tmp_path, monkeypatch):
    for links in (True, False):
        if not links:
            monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "no links")))
        path = tmp_path / str(links)
        for content in (b"first", b"second"):
            with complete_or_absent(path, keep_existing=True) as beside:
                beside.write_bytes(content)
        assert path.read_bytes() == b"first"
    assert len(os.listdir(tmp_path)) == 2


def test_shards_are_parsed():
    assert parse_shard("3/8") == Shard(3, 8)
    with pytest.raises(ValueError, match=r"such as 3/8, not '0/8'"):
        parse_shard("0/8")
