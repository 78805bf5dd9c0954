"""The Ray engine: a pool's rows are those of one process, also when a worker dies."""

import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from decomp.cli.pool import Pool
from decomp.runs.manifest import open_run
from decomp.runs.work import journal_entries
from tests.conftest import ROOT

MODEL = str(ROOT / "tests" / "golden" / "opt-tiny-pre")


def kill_first_worker(folder, killed):
    """The process that made the first part, as soon as there is one."""
    while not killed:
        if (folder / "manifest.json").exists():
            pids = [e["pid"] for e in journal_entries(open_run(folder)) if "first" in e]
            if pids and pids[0] != os.getpid():
                os.kill(pids[0], signal.SIGKILL)
                killed.append(pids[0])
        time.sleep(0.05)


@pytest.fixture
def cluster():
    """The address of a cluster on this machine, with room for two workers."""
    pytest.importorskip("ray", reason="needs the extra ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    yield cluster.address
    cluster.shutdown()


def test_a_pool_gives_one_process_s_rows_though_a_worker_dies(done, tmp_path, cluster):
    words = (ROOT / "data" / "demo.sentitems").read_text("utf-8").replace("!ARTICLE", "").split()
    corpus = tmp_path / "c.txt"
    corpus.write_text("".join(f"!ARTICLE\n{' '.join(words[i : i + 30])}\n" for i in range(16)), "utf-8")
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // 2))
    try:
        done("score", corpus, MODEL, "-o", "plain.tsv")
    finally:
        torch.set_num_threads(threads)
    ray = ("--engine", "ray", "--ray-address", cluster, "--num-workers", 2)
    killed = []
    killer = threading.Thread(target=kill_first_worker, args=(Path("run").absolute(), killed))
    killer.start()
    try:
        done("score", corpus, MODEL, "--run", "run", "-o", "table.tsv", *ray)
    finally:
        killed.append(None)
        killer.join()
    assert Path("table.tsv").read_bytes() == Path("plain.tsv").read_bytes()
    assert killed[0] is not None
    run = open_run(Path("run"))
    entries = [e for e in journal_entries(run) if "first" in e]
    assert sorted(n for e in entries for n in range(e["first"], e["stop"])) == list(range(len(run.items)))
    assert len({e["pid"] for e in entries}) > 2


def test_without_ray(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    corpus = tmp_path / "c.txt"
    corpus.write_text("!ARTICLE\nA cat.\n")
    result = run("score", corpus, MODEL, "--run", "run", "--engine", "ray")
    assert result.exit_code == 2
    assert "--engine ray needs ray: pip install 'tokenwise-decomposition[ray]'" in result.stderr


class PretendRay:
    """Ray as the pool asks it, in this process: `deaths` says which calls of which worker die."""

    class exceptions:  # noqa: N801
        RayError = RuntimeError

    def __init__(self, deaths=()):
        self.deaths, self.made = dict(deaths), 0

    def remote(self, kind):
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda *given: self.actor(kind, given)))

    def actor(self, kind, given):
        number, self.made = self.made, self.made + 1
        worker = kind(*given)

        def method(name):
            def call(*arguments):
                def result():
                    if (reason := self.deaths.get((number, name))) is not None:
                        raise RuntimeError(reason)
                    return getattr(worker, name)(*arguments)

                return result

            return SimpleNamespace(remote=call)

        return SimpleNamespace(begin=method("begin"), run=method("run"))

    def wait(self, running):
        return running[:1], running[1:]

    def get(self, done):
        return done()


UNITS = [[range(0, 2)], [range(2, 3), range(3, 4)], [range(4, 5)]]


@pytest.mark.parametrize(
    ("deaths", "done", "reasons"),
    [
        ({}, 5, set()),
        ({(0, "begin"): "no\nValueError: no such model"}, 5, set()),
        ({(0, "begin"): "x", (1, "begin"): "OSError: gone"}, 0, {"its worker could not begin: OSError: gone"}),
        ({(0, "run"): "killed", (1, "run"): "killed"}, 0, {"its worker died, 4 times"}),
    ],
)
def test_units_go_to_who_is_there(monkeypatch, deaths, done, reasons):
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    pool = Pool(PretendRay(deaths), 2, 1, {})
    outcomes = list(pool.run(lambda: lambda items: {"a": items}, list("abcde"), UNITS))
    assert sorted(n for o in outcomes for n in o.items) == [0, 1, 2, 3, 4]
    assert sum(len(o.items) for o in outcomes if o.error is None) == done
    assert {o.error for o in outcomes} - {None} == reasons
    pieces = {o.items.start: o.pieces for o in outcomes if o.error is None}
    assert not pieces or pieces[2] == [{"a": ["c"]}, {"a": ["d"]}]
