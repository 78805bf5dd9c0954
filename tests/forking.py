"""Runs commands in forks of one warm process, so that a test can kill and stop many without waiting for imports.

Reads lines of JSON: a list of commands that run at the same time, each with the arguments of `decomp`, the seconds
after which it is killed (None: never), and the file for what it says (None: none). Answers with the list of their
process ids, and once all have ended with that of their exit statuses, as `os.waitpid` gives them.
"""

import gc
import json
import os
import signal
import sys
import threading
import traceback
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

import torch
from transformers.utils.logging import disable_progress_bar

from decomp.cli.main import main
from decomp.models import load_model
from decomp.runs import parts
from tests.paths import MODEL


def begin(arguments: list[str], seconds: float | None, said: str | None) -> tuple[int, threading.Timer]:
    """Start a command; return its process id, and what will kill it."""
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_RDWR), 1)
        if said is not None:
            os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT), 2)
        # Signals may be ignored here, as they are in the background of a script.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        run_and_leave(arguments)
    timer = threading.Timer(seconds or 0, os.kill, (child, signal.SIGKILL))
    if seconds is not None:
        timer.start()
    return child, timer


def run_and_leave(arguments: list[str]) -> NoReturn:
    """Run a command, and end this process as soon as it has: to take all that is imported apart lasts longer."""
    status: object = 1
    try:
        main(arguments)
    except SystemExit as left:
        status = left.code
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else 1)


def end(child: int, timer: threading.Timer) -> int:
    """Wait for a command; return its exit status."""
    _, status = os.waitpid(child, 0)
    timer.cancel()
    return status


def import_what_is_imported_by(*commands: list[str]) -> None:
    """Import all modules that commands import: a fork runs them, so that what else they begin is not in this one."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.dup2(os.open(os.devnull, os.O_RDWR), 1)
        with TemporaryDirectory() as folder:
            os.chdir(folder)
            Path("text.txt").write_text("A text.\n", "utf-8")
            for command in commands:
                main(command, standalone_mode=False)
            os.write(writing, "\n".join(sys.modules).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as told:
        names = told.read().splitlines()
    os.wait()
    for name in names:
        with suppress(ImportError):  # made by other modules, as six.moves is
            import_module(name)


def serve() -> None:
    torch.set_num_threads(1)
    disable_progress_bar()  # which begins a thread
    # Most of what commands import, and nothing but imports: once here, in place of once there and once here.
    import_module("decomp.jobs")
    import_what_is_imported_by(
        ["score", "text.txt", "demo-opt", "--run", "run", "-o", "table.tsv", "-q"],
        ["decompose", "text.txt", "demo-opt", "4", "--output-dir", "stored", "-q"],
    )
    load_model(MODEL)  # makes tables of what checkpoints may be named, once
    gc.collect()
    gc.freeze()  # else the collector of each fork writes to all pages, and so copies them
    parts.FOLDER_SIZE = 4  # of which a run of a test's size has several
    for line in sys.stdin:
        begun = [begin(*command) for command in json.loads(line)]
        print(json.dumps([child for child, _ in begun]), flush=True)
        print(json.dumps([end(*each) for each in begun]), flush=True)


if __name__ == "__main__":
    serve()
