"""Signals end a command, wherever it is."""

import os
import signal
import subprocess
import sys
import time

import pytest

from decomp.cli.signals import signals_end_the_command


def test_signals_end_a_command_and_nothing_else():
    """Where they end processes; what ignores them, as after nohup, or handles them, goes on to."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with pytest.raises(SystemExit) as ended, signals_end_the_command():
            os.kill(os.getpid(), signal.SIGHUP)
        assert ended.value.code == 129
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with signals_end_the_command():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


class SignalledWhileItGoes:
    """An object during whose finalisation a signal comes."""

    def __init__(self, number):
        self.number = number

    def __del__(self):
        signal.raise_signal(self.number)
        time.sleep(0)


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGHUP, SystemExit), (signal.SIGTERM, SystemExit)]
)
def test_a_signal_is_not_lost_where_python_drops_errors(number, error, capsys):
    def command():
        SignalledWhileItGoes(number)
        for _ in range(1000):
            time.sleep(0.01)

    hook, ending = sys.unraisablehook, signal.getsignal(number)
    if number != signal.SIGINT:
        signal.signal(number, signal.SIG_DFL)
    try:
        with pytest.raises(error), signals_end_the_command():
            command()
    finally:
        signal.signal(number, ending)
    assert capsys.readouterr().err == ""
    assert sys.unraisablehook is hook


def test_other_errors_are_told_there_as_before(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)

    class Failing:
        def __del__(self):
            raise RuntimeError("a file is gone")

    with signals_end_the_command():
        Failing()
    assert [str(lost.exc_value) for lost in told] == ["a file is gone"]


def test_a_process_of_a_command_ends_without_a_search_for_cycles():
    """And no other process that has the commands: a test, say, which goes on."""
    told = "import atexit, gc, sys; atexit.register(lambda: print(gc.get_freeze_count() > 0))"
    alone, called = "sys.argv = ['decomp', '--version']; main()", "main(['--version'])"
    for command, frozen in ((alone, "True"), (called, "False")):
        code = f"{told}; from decomp.cli.main import main; {command}"
        said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
        assert said.splitlines()[-1] == frozen
