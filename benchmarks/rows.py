"""Rows per second of one core, from files to clean pairs, by the form of the rows; and what peers need for less.

    python benchmarks/rows.py --rows 20000 --rounds 5 --transcripts data/hh-rlhf/helpful-base/test.jsonl.gz

Each round prepares each form of rows with rewardline (reading, conversion and cleaning), with `datasets` as TRL's
RewardTrainer does (loading, and a map for each step up to the texts that it tokenizes), and as DeepSpeed-Chat does
(loading, and a loop over the rows that joins texts), each in a process of its own with one thread. Neither peer checks
rows, compares prompts or splits by them. `--before FOLDER` adds another version of rewardline, in whose folder this
version's programs are. Prints a Markdown table of medians: thousands of rows per second of CPU time without start-up.
"""

import argparse
import gc
import gzip
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
STAGES = "read", "convert", "clean"
SYLLABLES = [one + two for one in "bdfgklmnprst" for two in ("a", "e", "i", "o", "u", "ar", "en", "is")]
Json = dict[str, Any]


def texts(seed: int) -> Iterator[str]:
    """Texts of 100 words whose frequencies fall with their rank."""
    rng = random.Random(seed)
    words = ["".join(rng.choices(SYLLABLES, k=rng.randint(1, 4))) for _ in range(30_000)]
    while True:
        yield " ".join(words[int(len(words) ** rng.random()) - 1] for _ in range(100)) + "."


def rows_of(form: str, count: int) -> Iterator[Json]:
    """Generated rows of a form; each prompt comes once."""
    source, rng = texts(len(form)), random.Random(1)
    for _ in range(count):
        prompt, one, two = islice(source, 3)
        if form == "pairs":
            yield {"prompt": prompt, "chosen": one, "rejected": two}
        elif form == "messages":
            sides = [[("user", prompt), ("assistant", answer)] for answer in (one, two)]
            chosen, rejected = ([{"role": role, "content": text} for role, text in side] for side in sides)
            yield {"chosen": chosen, "rejected": rejected}
        else:
            scores = {"score_a": rng.randint(1, 5), "score_b": rng.randint(1, 9) + 0.5}
            yield {"prompt": prompt, "response_a": one, "response_b": two, **scores}


def rewardline(data: Path, folder: Path) -> Json:
    """CPU seconds of each stage, with the garbage collector as the programs of the stages have it."""
    from rewardline.core import cli
    from rewardline.core.artifacts import write_manifest
    from rewardline.data import convert
    from rewardline.data.formats.settings import ConvertSettings
    from rewardline.data.pairs import cleaning, grouping
    from rewardline.data.pairs.settings import CleanSettings, Decontamination, GroupSettings
    from rewardline.data.sources.dataset import file_inputs
    from rewardline.data.sources.store import write_rows

    gc.set_threshold(getattr(cli, "COLLECT_AFTER", gc.get_threshold()[0]))  # earlier versions leave it as it is
    seconds: Json = {}

    def stage(name: str, make: Callable[[Path], Any]) -> Path:
        out = folder / name
        out.mkdir()
        start = time.process_time()
        made = make(out)
        seconds[name] = time.process_time() - start
        write_manifest(out, made)
        return out / "manifest.json"

    shared = {"seed": 1, "near_duplicates": 0.8}
    groups = GroupSettings(
        caps={}, eval_fraction=0.05, max_reject_fraction=1, decontamination=Decontamination(), **shared
    )
    clean = CleanSettings(weights={"d": 1.0}, keep_all=False, **shared)
    rows = stage("read", lambda out: write_rows("d", file_inputs({str(data): data}, None), out))
    pairs = stage("convert", lambda out: convert.convert("d", ConvertSettings(), rows, None, [], [], out))
    prompts = stage("group", lambda out: grouping.group_prompts("m", groups, [pairs], [], out))
    stage("clean", lambda out: cleaning.clean_shard(clean, prompts, [pairs], out))
    return seconds


def _sides(row: Json) -> tuple[str, str]:
    if "score_a" not in row:
        return "chosen", "rejected"
    return ("response_a", "response_b") if row["score_a"] > row["score_b"] else ("response_b", "response_a")


def trl(data: Path, folder: Path) -> Json:
    """CPU seconds of loading and of the maps up to the texts; scores are made preferences by one more map."""
    from datasets import load_dataset

    start = time.process_time()
    rows = load_dataset("json", data_files=str(data), split="train", cache_dir=str(folder))
    if "score_a" in rows.column_names:
        rows = rows.map(lambda row: dict(zip(("chosen", "rejected"), map(row.get, _sides(row)), strict=True)))
    if isinstance(rows[0]["chosen"], str):
        rows = rows.map(lambda row: {side: row[side] + "</s>" for side in ("chosen", "rejected")})
    if "prompt" in rows.column_names:
        rows = rows.map(lambda row: {side: row["prompt"] + row[side] for side in ("chosen", "rejected")})
    assert len(rows[len(rows) - 1]["chosen"])
    return {"all": time.process_time() - start}


def deepspeed_chat(data: Path, folder: Path) -> Json:
    """CPU seconds of loading, and of joining the texts of each row."""
    from datasets import load_dataset

    start = time.process_time()
    joined = []
    for row in load_dataset("json", data_files=str(data), split="train", cache_dir=str(folder)):
        prompt = f" Human: {row['prompt']} Assistant: " if "prompt" in row else ""
        sides = [row[side] for side in _sides(row)]
        answers = [side if isinstance(side, str) else " ".join(turn["content"] for turn in side) for side in sides]
        joined.append([prompt + answer + "</s>" for answer in answers])
    assert joined
    return {"all": time.process_time() - start}


METHODS: dict[str, Callable[[Path, Path], Json]] = {
    "rewardline": rewardline,
    "before": rewardline,
    "TRL": trl,
    "DeepSpeed-Chat": deepspeed_chat,
}


def measured(method: str, data: Path, scripts: Path) -> Json:
    """The CPU seconds of a method in a new process."""
    names = ("OMP_NUM_THREADS", "ARROW_NUM_THREADS", "HF_DATASETS_DISABLE_PROGRESS_BARS")
    environment = {**os.environ, **dict.fromkeys(names, "1"), "PYTHONPATH": str(scripts)}
    command = [sys.executable, __file__, "--method", method, "--file", str(data)]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    result: Json = json.loads(done.stdout.splitlines()[-1])
    return result


def run_one(method: str, data: Path) -> int:
    """Print the seconds of a method, whose imports come before."""
    import pandas  # noqa: F401 - as an import, it is part of the start-up

    first = data.with_name(f"first-{method}.jsonl")
    with data.open("rb") as stream:
        first.write_bytes(b"".join(islice(stream, 100)))
    METHODS[method](first, Path(tempfile.mkdtemp(dir=data.parent)))  # imports, and what is made at the first use
    print(json.dumps(METHODS[method](data, Path(tempfile.mkdtemp(dir=data.parent)))))
    return 0


def report(rates: dict[str, dict[str, list[float]]], stages: dict[str, list[Json]]) -> str:
    """Medians of the rates by form and method, and ratios to rewardline's in the same round with their range."""
    methods = [method for method in METHODS if any(method in of_form for of_form in rates.values())]
    lines = ["| rows | " + " | ".join(methods) + " | " + " | ".join(f"CPU µs to {name}" for name in STAGES) + " |"]
    lines.append("|---" * (1 + len(methods) + len(STAGES)) + "|")
    for form, of_form in rates.items():
        cells = [form]
        for method in methods:
            ratios = [own / other for own, other in zip(of_form["rewardline"], of_form[method], strict=True)]
            span = f" ({median(ratios):.1f}x, {min(ratios):.1f}-{max(ratios):.1f})" if method != "rewardline" else ""
            cells.append(f"{median(of_form[method]) / 1000:.1f}{span}")
        cells += [f"{1e6 * median(one[name] for one in stages[form]):.0f}" for name in STAGES]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rows", type=int, default=20_000)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--transcripts", type=Path, nargs="*", default=[], help="files of HH-RLHF")
    options.add_argument("--before", type=Path, help="folder of another version")
    options.add_argument("--method", choices=METHODS, help=argparse.SUPPRESS)
    options.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    args = options.parse_args()
    if args.method:
        return run_one(args.method, args.file)
    with tempfile.TemporaryDirectory() as name:
        files = {form: Path(name) / form / "rows.jsonl" for form in ("pairs", "messages", "scores")}
        for form, path in files.items():
            path.parent.mkdir()
            path.write_text("".join(json.dumps(row) + "\n" for row in rows_of(form, args.rows)), encoding="utf-8")
        if args.transcripts:
            files["transcripts"] = Path(name) / "transcripts" / "rows.jsonl"
            files["transcripts"].parent.mkdir()
            lines = b"".join(gzip.decompress(path.read_bytes()) for path in args.transcripts).splitlines(keepends=True)
            files["transcripts"].write_bytes(b"".join(lines[: args.rows]))
        counts = {form: len(path.read_bytes().splitlines()) for form, path in files.items()}
        rates: dict[str, dict[str, list[float]]] = {form: {} for form in files}
        stages: dict[str, list[Json]] = {form: [] for form in files}
        for _ in range(args.rounds):
            for form, path in files.items():
                for method in METHODS:
                    if method == "before" and not args.before:
                        continue
                    found = measured(method, path, (args.before if method == "before" else ROOT) / "scripts")
                    seconds = found["all"] if "all" in found else sum(found[stage] for stage in STAGES)
                    rates[form].setdefault(method, []).append(counts[form] / seconds)
                    if method == "rewardline":
                        stages[form].append({stage: found[stage] / counts[form] for stage in STAGES})
            print(report(rates, stages), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
