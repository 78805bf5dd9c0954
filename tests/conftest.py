"""Where things are."""

from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"

needs_shared = pytest.mark.skipif(not (SHARED / "golden").is_dir(), reason="needs ../shared")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
