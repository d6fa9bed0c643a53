"""Where the repository is, and real preference data where it is at hand; a test that reads what is not is skipped."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts"
SHARED_DATA = ROOT.parent / "shared" / "data"
SHARED_CASES = ROOT.parent / "shared" / "cases"


def load(path: str) -> list[Any]:
    file = SHARED_DATA / path
    if not file.exists():
        pytest.skip(f"{path} is not here")
    content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    text = content.decode("utf-8")
    if text.startswith("["):
        rows: list[Any] = json.loads(text)
        return rows
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def load_all(pattern: str) -> list[Any]:
    files = sorted(SHARED_DATA.glob(pattern)) if SHARED_DATA.exists() else []
    if not files:
        pytest.skip(f"{pattern} is not here")
    return [row for file in files for row in load(str(file.relative_to(SHARED_DATA)))]
