"""The tables that the demo is made of: YAML files in `templates`, which explain themselves."""

from pathlib import Path

import yaml
from pydantic import BaseModel, TypeAdapter


class Statement(BaseModel, extra="forbid"):
    """How a prompt states its facts."""

    each: str
    start: str = ""
    between: str = " "
    last: str = ""
    end: str = ""
    draw: list[list[str]] = []
    upto: float = 0.0


class Kind(BaseModel, extra="forbid"):
    """A kind of question."""

    question: str | list[str] = ""
    answers: list[str] = []
    topic: str = ""
    size: int | list[int] = 1
    variants: list[str] = []
    same: list[str] = []
    draw: list[list[str]] = []
    context: list[Statement] = []
    context_last: bool = False
    pool: str = ""
    columns: list[int] = [0]
    fact: str = ""
    aside: str = ""
    extras: list[str] = []
    asides: list[tuple[str, str]] = []


def _read(name: str) -> object:
    path = Path(__file__).parent / "templates" / f"{name}.yaml"
    return yaml.load(path.read_text(encoding="utf-8"), yaml.CSafeLoader)  # ten times as fast as safe_load


KINDS = TypeAdapter(dict[str, Kind]).validate_python(_read("questions"))
PHRASES = TypeAdapter(dict[str, list[str]]).validate_python(_read("phrases"))
TABLES = TypeAdapter(dict[str, list[list[str]]]).validate_python(_read("tables"))
TABLES |= {name: [[text] for text in texts] for name, texts in PHRASES.items()}
GROUPS = TypeAdapter(dict[str, dict[str, int]]).validate_python(_read("shares"))
WEIGHTED = {group: [name for name, share in shares.items() for _ in range(share)] for group, shares in GROUPS.items()}
"""Names of kinds by group, each as often as its share says, to draw from."""
ANY = WEIGHTED["questions"] + WEIGHTED["talk"]
