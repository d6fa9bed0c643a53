"""The data stages as the rules run them, one after the other, in a folder of a test's own."""

import json
from pathlib import Path
from typing import Any

import build_pairs
import clean_pairs
import convert_rows
import download
import download_file
import group_prompts
import index_joins
import join_tokens
import tokenize_pairs
from rewardline.core.settings import Settings
from rewardline.data.parquet import read_rows
from rewardline.data.sources.settings import DownloadSettings
from rewardline.tokens.settings import JoinTokensSettings, TokenizeSettings
from rewardline.tokens.store import TokenDataset
from rewardline.workflow import settings as stages
from rewardline.workflow.config import Config
from rewardline.workflow.resolve import resolve
from rewardline.workflow.runs import joined_sources, sources

Json = dict[str, Any]


def _program(main: Any, *options: str | Path, settings: Settings | None = None) -> None:
    given = ["--settings", settings.canonical_json()] if settings is not None else []
    assert main([*given, *map(str, options)]) == 0


def write_rows(path: Path, rows: list[Any]) -> str:
    """A JSON Lines file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def convert(folder: Path, config: Config, name: str, only_read: bool = False) -> list[Path]:
    """Read and convert all parts of a dataset; the manifests of its candidates (none if it is only to be read)."""
    files = sources(config)[name].files or []
    read = {}
    for part, file in stages.file_parts(files).items():
        read[part] = folder / "read" / name / part
        _program(download_file.main, "--name", name, "--output", read[part], settings=DownloadSettings(files=[file]))
    parts = [path / "manifest.json" for path in read.values()]
    joined = folder / "data" / name
    source = stages.download_settings(config, name, files)
    _program(download.main, "--name", name, "--parts", *parts, "--output", joined, settings=source)
    manifests: list[Path] = []
    if only_read:
        return manifests
    options: list[str | Path] = ["--dataset", joined / "manifest.json"] if len(files) > 1 else []
    if others := joined_sources(config, name):
        tables = [folder / "data" / other / "manifest.json" for other in others]
        index = folder / "joins" / name
        settings = stages.join_index_settings(config, name)
        _program(index_joins.main, "--data", *tables, "--output", index, settings=settings)
        options += ["--join-index", index / "manifest.json"]
    for part, place in stages.convert_parts(config, name, files).items():
        out = folder / "candidates" / name / part
        own = stages.convert_settings(config, name, place)
        data = read.get(part, joined) / "manifest.json"
        _program(convert_rows.main, "--name", name, "--data", data, *options, "--output", out, settings=own)
        manifests.append(out / "manifest.json")
    return manifests


def build(
    folder: Path,
    data: dict[str, list[Any]],
    shapes: dict[str, Json] | None = None,
    benchmarks: dict[str, list[Any]] | None = None,
    tables: dict[str, list[Any]] | None = None,
    training: Json | None = None,
    **mixture: Any,
) -> Json:
    """Build the pairs of the mixture `m` of rows, or of files where a row is a path; its stats.json.

    `training`: the settings of the run on it.
    """

    def entry(name: str, rows: list[Any]) -> Json:
        files = rows if rows and isinstance(rows[0], str) else [write_rows(folder / f"{name}.jsonl", rows)]
        return {"files": files, **(shapes or {}).get(name, {})}

    weights = mixture.pop("weights", {})
    config = resolve(
        {
            "datasets": {name: entry(name, rows) for name, rows in {**data, **(tables or {})}.items()},
            "benchmarks": {name: entry(name, rows) for name, rows in (benchmarks or {}).items()},
            "mixtures": {"m": {"datasets": {name: weights.get(name, 1.0) for name in data}, **mixture}},
            "models": {"x": {"path": "x"}},
            "runs": {
                "r": {"mixture": "m", "model": "x", "benchmarks": list(benchmarks or {}), "training": training or {}}
            },
        }
    )
    for name in tables or {}:
        convert(folder, config, name, only_read=True)
    own = [path for name in sorted(data) for path in convert(folder, config, name)]
    others = [path for name in sorted(benchmarks or {}) for path in convert(folder, config, name)]
    prompts = folder / "prompts"
    options: list[str | Path] = ["--data", *own, "--benchmarks", *others, "--output", prompts]
    _program(group_prompts.main, "--name", "m", *options, settings=stages.group_settings(config, "m"))
    compared, shards = prompts / "manifest.json", []
    for index in range(config.mixtures["m"].shards):
        out = folder / "shards" / str(index)
        settings = stages.clean_settings(config, "m", index)
        _program(clean_pairs.main, "--prompts", compared, "--candidates", *own, "--output", out, settings=settings)
        shards.append(out / "manifest.json")
    sources = [folder / "data" / name / "manifest.json" for name in data]
    options = ["--data", *sources, "--candidates", *own, "--prompts", compared, "--shards", *shards]
    options += ["--output", folder / "pairs" / "m"]
    _program(build_pairs.main, "--name", "m", *options, settings=stages.pairs_settings(config, "m"))
    stats: Json = json.loads((folder / "pairs" / "m" / "stats.json").read_text())
    return stats


def tokenize(
    folder: Path,
    base: Path,
    split: str = "train",
    max_reject_fraction: float = 0.99,
    reads_names: bool = False,
    **settings: Any,
) -> TokenDataset:
    """Tokenise the shards that `build` left, or the pairs of `pairs/m`."""
    options = TokenizeSettings.model_validate({"max_length": 64, "template": "plain", **settings})
    parts = sorted((folder / "shards").glob("[0-9]*")) or [folder / "pairs" / "m"]
    manifests = []
    for index, part in enumerate(parts):
        out = folder / "token-shards" / str(index)
        _program(tokenize_pairs.main, "--pairs", part, "--base", base, "--output", out, settings=options)
        manifests.append(out / "manifest.json")
    places: list[str | Path] = [
        "--stats",
        folder / "pairs" / "m" / "stats.json",
        "--shards",
        *manifests,
        "--output",
        folder / "tokens",
    ]
    own = JoinTokensSettings(max_reject_fraction=max_reject_fraction, reads_names=reads_names)
    _program(join_tokens.main, *places, settings=own)
    return TokenDataset(folder / "tokens", split)


def pairs(folder: Path, split: str) -> list[Json]:
    """The pairs of a split of the mixture."""
    return list(read_rows(folder / "pairs" / "m" / split))


def prompts(folder: Path, split: str) -> set[str]:
    """The last turns of the prompts of a split."""
    return {row["prompt"][-1]["content"] for row in pairs(folder, split)}
