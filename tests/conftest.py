"""Where things are, and the commands as a person runs them."""

import gc
import logging
from collections.abc import Iterator
from importlib import import_module

import pytest
import torch.testing
from click.testing import CliRunner

from decomp.cli.main import main
from tests.guard import guarded
from tests.paths import ROOT
from tests.sharing import loading_once, one_test

# Before any test imports it.
torch.testing.assert_close = guarded(torch.testing.assert_close)

SHARED = ROOT.parent / "shared"

needs_shared = pytest.mark.skipif(
    not (SHARED / "golden").is_dir(),
    reason="needs ../shared/golden: corpora and files of the original code, not shipped",
)


LONG = (
    "tests/runs/test_pool.py",
    "tests/runs/test_run.py",
    "tests/real/",
    "tests/report/test_browser.py",
    "tests/cli/",
)
"""Files with tests of many seconds. They come first, so that workers that share the tests end together."""


def pytest_sessionstart() -> None:
    """What is imported with the tests stays: to look for cycles in it, time and again, takes seconds."""
    gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    torch.manual_seed(0)
    with one_test():
        yield


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loading = import_module("decomp.models.loading")
    monkeypatch.setattr(loading, "load_both", loading_once(loading.load_both))

    def run(*args):
        return CliRunner().invoke(main, [str(a) for a in args])

    yield run
    # What --quiet hushes would stay hushed in this process.
    logging.getLogger("decomp").setLevel(logging.NOTSET)


@pytest.fixture
def done(run):
    def done(*args):
        result = run(*args)
        assert result.exit_code == 0, result.output
        return result.stdout

    return done
