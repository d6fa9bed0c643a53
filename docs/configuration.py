"""Generate config/schema.yaml and the tables of config/README.md from the pydantic models of the configuration.

python docs/configuration.py            fail if they are not
python docs/configuration.py --write    write them
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from rewardline.evaluation.published.registry import BENCHMARKS
from rewardline.training.settings import TrainingSettings
from rewardline.workflow.config import (
    AuditEntry,
    AverageEntry,
    BenchmarkEntry,
    Config,
    DatasetEntry,
    EnsembleEntry,
    EvaluationEntry,
    Grid,
    MixtureEntry,
    ModelEntry,
    RunEntry,
    ScoringEntry,
    SelectEntry,
    SweepEntry,
    ToLabelEntry,
)

SCHEMA = ROOT / "config" / "schema.yaml"
README = ROOT / "config" / "README.md"
TABLES: dict[str, tuple[type[BaseModel], ...]] = {
    "datasets": (DatasetEntry,),
    "mixtures": (MixtureEntry,),
    "models": (ModelEntry,),
    "runs": (RunEntry, SweepEntry, EnsembleEntry, AverageEntry),
    "runs.*.grid": (Grid,),
    "runs.*.training": (TrainingSettings,),
    "benchmarks": (BenchmarkEntry,),
    "audits": (AuditEntry,),
    "scoring": (ScoringEntry,),
    "to_label": (ToLabelEntry,),
    "evaluation": (EvaluationEntry,),
    "select": (SelectEntry,),
}
"""By the name of a table in README.md: the models whose keys it lists."""
BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}
"""Pydantic's names for bounds, which it does not translate in types that allow null, and those of JSON Schema."""
HEAD = """\
# Every key of the configuration as a JSON Schema: type, default, bounds and meaning.
# Generated from the pydantic models in scripts/rewardline by `python docs/configuration.py --write`.
"""


def schema() -> str:
    """The content of schema.yaml."""
    content = {"$schema": "https://json-schema.org/draft/2020-12/schema", **_plain(Config.model_json_schema())}
    return HEAD + yaml.safe_dump(content, sort_keys=False, width=120, allow_unicode=True)


def _plain(node: Any) -> Any:
    """A schema without titles that repeat the names of keys, and with the bounds named as in JSON Schema."""
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    items = node.items()
    return {BOUNDS.get(key, key): _plain(value) for key, value in items if key != "title" or isinstance(value, dict)}


def table(name: str) -> str:
    """The table of a section, in Markdown."""
    fields: dict[str, FieldInfo] = {}
    for model in TABLES[name]:
        fields |= {field.alias or key: field for key, field in model.model_fields.items() if key not in fields}
    if name == "benchmarks":
        fields = {key: field for key, field in fields.items() if key not in DatasetEntry.model_fields}
    rows = [f"| `{key}` | {default(field)} | {field.description} |" for key, field in fields.items()]
    return "\n".join(["| key | default | meaning |", "|---|---|---|", *rows])


def benchmarks() -> str:
    """The tables of the published benchmarks: what each is, and how its figures are computed."""
    about = [
        f"| `{name}` | {one.title} | {one.measures} | {one.size} | {one.license} | {one.source} |"
        for name, one in BENCHMARKS.items()
    ]
    computed = [f"| `{name}` | {one.figures} |" for name, one in BENCHMARKS.items()]
    return "\n".join(
        [
            *(
                "| `scoring` | benchmark | what it measures | size | license | source |",
                "|---|---|---|---|---|---|",
                *about,
            ),
            *("", "| `scoring` | figures |", "|---|---|", *computed),
        ]
    )


def default(field: FieldInfo) -> str:
    """The default of a key as YAML; empty where there is none."""
    value = field.default
    if field.is_required() or value is None:
        return ""
    if isinstance(value, BaseModel):
        return json.dumps(value.model_dump(mode="json", exclude_defaults=True))
    if isinstance(value, float) and 0 < value < 1e-3:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return value if isinstance(value, str) else json.dumps(value)


def readme(text: str) -> str:
    """README.md with its tables generated from the models."""
    for name in (*TABLES, "published benchmarks"):
        content = table(name) if name in TABLES else benchmarks()
        before, begin, rest = text.partition(f"<!-- table of {name} -->\n")
        _, end, after = rest.partition("\n<!-- end of table -->")
        assert end, f"{README} has no table of {name}"
        text = before + begin + content + end + after
    return text


def main() -> int:
    """Check the files, or write them."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--write", action="store_true", help="write the files instead of checking them")
    write = options.parse_args().write
    current = README.read_text(encoding="utf-8")
    for path, content in ((SCHEMA, schema()), (README, readme(current))):
        if write:
            path.write_text(content, encoding="utf-8")
        elif path.read_text(encoding="utf-8") != content:
            print(f"{path.relative_to(ROOT)} is not current; run: python docs/configuration.py --write")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
