"""Public preference data outside of the repository; a test that reads what is not there is skipped."""

import gzip
import json
from typing import Any

import pytest

from support.paths import SHARED_DATA

DATA = SHARED_DATA


def load(path: str) -> list[Any]:
    file = DATA / path
    if not file.exists():
        pytest.skip(f"{path} is not here")
    content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    text = content.decode("utf-8")
    if text.startswith("["):
        rows: list[Any] = json.loads(text)
        return rows
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def load_all(pattern: str) -> list[Any]:
    files = sorted(DATA.glob(pattern)) if DATA.exists() else []
    if not files:
        pytest.skip(f"{pattern} is not here")
    return [row for file in files for row in load(str(file.relative_to(DATA)))]
