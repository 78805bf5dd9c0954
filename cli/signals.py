"""Signals that end a command: as an error wherever it is, so that unfinished files are removed on the way out."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from types import FrameType

ENDING = ("SIGTERM", "SIGHUP")
"""Signals by which schedulers and terminals end a command; not all systems have both."""
AGAIN = 0.01
"""The seconds after which a signal is sent again whose error was lost."""


def leave(number: int, frame: FrameType | None) -> None:
    """Exit with the shell's code for a signal (143 for SIGTERM)."""
    sys.exit(128 + number)


def signal_of(error: BaseException | None) -> int | None:
    """Return the number of the signal that raised an error, None for all other errors."""
    match error:
        case KeyboardInterrupt():
            return signal.SIGINT
        case SystemExit(code=int(code)) if code > 128:
            return code - 128
    return None


def send_again(otherwise: Callable[["sys.UnraisableHookArgs"], object], lost: "sys.UnraisableHookArgs") -> None:
    """Send a signal again whose error was raised in a `__del__`, where Python prints errors and goes on.

    What became of other errors there is told by `otherwise`.
    """
    number = signal_of(lost.exc_value)
    if number is None:
        otherwise(lost)
    else:
        # Not at once: this function is still called from there.
        threading.Timer(AGAIN, signal.raise_signal, (number,)).start()


@contextmanager
def signals_end_the_command() -> Iterator[None]:
    """Make signals that end processes raise SystemExit instead; those that are ignored or handled stay so."""
    with ExitStack() as before:
        if threading.current_thread() is threading.main_thread():  # no other may set them
            for number in (getattr(signal, name) for name in ENDING if hasattr(signal, name)):
                if signal.getsignal(number) == signal.SIG_DFL:
                    before.callback(signal.signal, number, signal.signal(number, leave))
            before.callback(setattr, sys, "unraisablehook", sys.unraisablehook)
            sys.unraisablehook = partial(send_again, sys.unraisablehook)
        yield
