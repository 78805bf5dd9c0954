"""Runs commands in forks of one warm process, so that a test can kill many without waiting for imports.

Reads lines of JSON: arguments of `decomp`, and the seconds after which the command is killed (None: never).
Answers each with the exit status, as `os.waitpid` gives it.
"""

import json
import os
import signal
import sys
import threading

import torch

from decomp.cli.main import main
from decomp.models import load_model
from decomp.runs import parts


def serve() -> None:
    torch.set_num_threads(1)
    load_model("demo-opt")
    parts.FOLDER_SIZE = 4  # of which a run of a test's size has several
    for line in sys.stdin:
        arguments, seconds = json.loads(line)
        child = os.fork()
        if child == 0:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, 1)
            main(arguments)
        timer = threading.Timer(seconds or 0, os.kill, (child, signal.SIGKILL))
        if seconds is not None:
            timer.start()
        _, status = os.waitpid(child, 0)
        timer.cancel()
        print(json.dumps(status), flush=True)


if __name__ == "__main__":
    serve()
