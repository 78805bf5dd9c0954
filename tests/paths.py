"""The paths of the repository and of the smallest model in it."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
MODEL = str(ROOT / "tests" / "golden" / "opt-tiny-pre")
