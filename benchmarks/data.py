"""Time, memory and storage of the data stages.

    python benchmarks/data.py --pairs 250000 1000000

For each size, Snakemake runs up to the tokens of synthetic pairs (a prompt and two answers of 100 words each, whose
frequencies follow Zipf's law) in four JSON Lines files, with two shards on two cores. Then the code of the tokenize
stage and the tokenizer alone process samples of the pairs alternately, in one single-threaded process per shard.
Prints a Markdown table: the seconds and the peak resident memory of each program, the rates, and bytes on disk per
distinct token.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

FILES = 4
WORDS = 100
SAMPLES = 5  # of each shard
SYLLABLES = [a + b for a in "bcdfghjklmnprstvwz" for b in ("a", "e", "i", "o", "u", "ar", "en", "is", "on", "ul")]


def vocabulary(rng: np.random.Generator, size: int = 50_000) -> list[str]:
    """Words of one to four syllables."""
    return ["".join(rng.choice(SYLLABLES, size=rng.integers(1, 5))) for _ in range(size)]


def write_pairs(folder: Path, pairs: int, seed: int) -> None:
    """Write `FILES` JSON Lines files; 10% of prompts have two pairs, 0.1% are near-duplicates of the previous one."""
    rng = np.random.default_rng(seed)
    words = np.array(vocabulary(rng), dtype=object)
    folder.mkdir(parents=True)
    for number in range(FILES):
        with (folder / f"part-{number}.jsonl").open("w", encoding="utf-8") as stream:
            prompt = ""
            for row in range(pairs // FILES):
                ranks = np.minimum(rng.zipf(1.2, size=3 * WORDS) - 1, len(words) - 1)
                chosen_words = words[ranks]
                texts = [" ".join(chosen_words[k * WORDS : (k + 1) * WORDS]) + "." for k in range(3)]
                if row % 1000 == 999:
                    prompt += " please"
                elif row % 10:
                    prompt = texts[0]
                stream.write(json.dumps({"prompt": prompt, "chosen": texts[1], "rejected": texts[2]}) + "\n")


def configuration(folder: Path, shards: int) -> Path:
    """A configuration for the files in `folder`."""
    config = {
        "datasets": {"synthetic": {"files": [str(folder / "part-*.jsonl")]}},
        "mixtures": {"synthetic": {"datasets": {"synthetic": 1.0}, "shards": shards}},
        "models": {"bpe": {"max_length": 1024, "init": {
            "config": {"model_type": "llama", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
                       "num_attention_heads": 1, "max_position_embeddings": 1024},
            "tokenizer": {"mixture": "synthetic", "vocab_size": 32000}}}},
        "runs": {"synthetic": {"mixture": "synthetic", "model": "bpe"}},
    }  # fmt: skip
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


class Memory:
    """Peak resident memory of each program's processes, in MiB, and the times at which it was first and last seen."""

    def __init__(self) -> None:
        self.peak: dict[str, float] = defaultdict(float)
        self.seen: dict[str, list[float]] = {}

    def measure(self, root: psutil.Process) -> None:
        """Measure all descendants of the process `root`."""
        for process in root.children(recursive=True):
            try:
                command = process.cmdline()
                name = next((Path(part).name for part in command if part.endswith(".py")), "")
                if not name or "python" not in Path(command[0]).name:
                    continue
                status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
            except (psutil.Error, OSError, IndexError):
                continue
            lines = [line for line in status.splitlines() if line.startswith("VmHWM")]
            if lines:
                self.peak[name] = max(self.peak[name], int(lines[0].split()[1]) / 1024)
                now = time.perf_counter()
                self.seen.setdefault(name, [now, now])[1] = now


def run_pipeline(folder: Path, config: Path, target: str, cores: int) -> Memory:
    """Run Snakemake in `folder` up to `target`, and measure memory meanwhile."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder)]
    command += ["--configfile", str(ROOT / "config/config.yaml"), str(config), "--cores", str(cores)]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    (folder / "config").mkdir()
    shutil.copy(ROOT / "config/config.yaml", folder / "config/config.yaml")
    memory = Memory()
    with (folder / "snakemake.log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen([*command, "--", target], stdout=log, stderr=log, env=environment)
        root = psutil.Process(process.pid)
        while process.poll() is None:
            memory.measure(root)
            time.sleep(0.1)
    if process.returncode:
        sys.exit((folder / "snakemake.log").read_text(encoding="utf-8")[-3000:])
    return memory


def texts(part: Path, complete: bool) -> Iterator[list[str]]:
    """Texts of a folder of pairs, 512 pairs at a time: the prompt with each answer if `complete`, else separately."""
    from rewardline.data.parquet import read_rows
    from rewardline.tokens.templates import PLAIN

    rows: Iterator[Any] = iter(read_rows(part / "train"))
    while batch := list(islice(rows, 512)):
        batch_texts = []
        for row in batch:
            head, bodies, *_ = PLAIN.render(row["prompt"], [row["chosen"], row["rejected"]])
            batch_texts += [head + body for body in bodies] if complete else [head, *bodies]
        yield batch_texts


def tokenizing_times(job: tuple[Path, Path]) -> dict[str, float]:
    """Seconds of the stage and of the tokenizer alone for samples of a shard, alternately and in one thread."""
    os.environ.update(RAYON_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
    import logging

    from tokenizers import Tokenizer

    from rewardline.core.artifacts import write_manifest
    from rewardline.data.pairs.manifests import ShardManifest
    from rewardline.data.parquet import PartWriter, count_rows, read_typed_rows
    from rewardline.data.schema import PAIR_SCHEMA, Pair
    from rewardline.tokens.settings import TokenizeSettings
    from rewardline.tokens.tokenize_pairs import tokenize

    logging.disable(logging.INFO)
    base, part = job
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    settings = TokenizeSettings(max_length=1024, template="plain")
    seconds = dict.fromkeys(("stage", "complete", "separate"), 0.0)
    manifest = ShardManifest.read(part / "manifest.json")
    rows = read_typed_rows(part / "train", Pair)
    size = manifest.train // SAMPLES
    with tempfile.TemporaryDirectory() as name:
        for number in range(SAMPLES):
            sample = Path(name) / str(number)
            parts = {}
            for split, some in (("train", islice(rows, size)), ("eval", [])):
                writer = PartWriter[Pair](sample / split, PAIR_SCHEMA)
                for row in some:
                    writer.add(row)
                parts[split] = writer.close()
            train = count_rows(parts["train"])
            write_manifest(sample, manifest.model_copy(update={"train": train, "eval": 0, "parts": parts}))
            out = sample / "tokens"
            out.mkdir()
            seconds["stage"] += tokenize(settings, sample, base, out).seconds or 0.0
            for kind in ("complete", "separate"):
                for batch in texts(sample, kind == "complete"):
                    start = time.perf_counter()
                    tokenizer.encode_batch_fast(batch, add_special_tokens=False)
                    seconds[kind] += time.perf_counter() - start
    return seconds


def compare(folder: Path, shards: int) -> dict[str, float]:
    """Seconds of the stage and of the tokenizer alone on samples of all shards, in one process per shard."""
    base = folder / "results/base/bpe"
    jobs = [(base, folder / f"results/shards/pairs/synthetic/{shard}") for shard in range(shards)]
    with multiprocessing.get_context("spawn").Pool(shards) as pool:
        times = pool.map(tokenizing_times, jobs)
    return {kind: sum(one[kind] for one in times) for kind in times[0]}


def measure(pairs: int, cores: int, keep: Path | None) -> dict[str, Any]:
    """All measurements for a number of pairs."""
    with tempfile.TemporaryDirectory(dir=keep) as name:
        folder = Path(name)
        write_pairs(folder / "input", pairs, seed=1)
        config = configuration(folder / "input", cores)
        memory = run_pipeline(folder, config, "results/tokens/synthetic/bpe/manifest.json", cores)
        tokens = json.loads((folder / "results/tokens/synthetic/bpe/manifest.json").read_text(encoding="utf-8"))
        disk = sum(path.stat().st_size for path in (folder / "results/tokens/synthetic/bpe").glob("*.arrow"))
        distinct = sum(entry["tokens"] for entry in tokens["splits"].values())
        tokenized = sum(entry["pairs"] for entry in tokens["splits"].values())
        seconds = {program: last - first for program, (first, last) in memory.seen.items()}
        return {
            "pairs": pairs,
            "seconds": seconds,
            "peak": dict(memory.peak),
            "stage": tokenizing_seconds(folder),
            "tokenizing": compare(folder, cores),
            "bytes_per_token": disk / distinct,
            "tokens": distinct,
            "tokenized": tokenized,
        }


def tokenizing_seconds(folder: Path) -> float:
    """Seconds from the loaded tokenizer to the last shard written, from the manifests of the shards."""
    return max(
        json.loads(path.read_text(encoding="utf-8"))["seconds"]
        for path in folder.glob("results/shards/tokens/synthetic/bpe/*/manifest.json")
    )


def report(figures: list[dict[str, Any]]) -> str:
    """The measurements as a Markdown table."""
    programs = sorted(
        {name for one in figures for name in one["seconds"]}, key=lambda name: figures[0]["seconds"].get(name, 0.0)
    )
    lines = ["| | " + " | ".join(f"{one['pairs']:,} pairs" for one in figures) + " |", "|---|" + "---|" * len(figures)]
    for name in programs:
        cells = [f"{one['seconds'].get(name, 0):.0f} s, {one['peak'].get(name, 0):.0f} MiB" for one in figures]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")

    def share(one: dict[str, Any], kind: str) -> str:
        return f"{one['tokenizing'][kind] / one['tokenizing']['stage']:.0%}"

    rows = {
        "pairs/s tokenized": lambda one: f"{one['tokenized'] / one['stage']:,.0f}",
        "of the tokenizer's rate on complete conversations": lambda one: share(one, "complete"),
        "of the tokenizer's rate on each prompt and answer once": lambda one: share(one, "separate"),
        "bytes on disk per distinct token": lambda one: f"{one['bytes_per_token']:.2f}",
        "largest process": lambda one: f"{max(one['peak'].values()):.0f} MiB",
    }
    return "\n".join(lines + [f"| {key} | " + " | ".join(map(cell, figures)) + " |" for key, cell in rows.items()])


def main() -> int:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--pairs", type=int, nargs="+", default=[20_000])
    options.add_argument("--cores", type=int, default=2)
    options.add_argument("--folder", type=Path, help="parent of the temporary folder")
    args = options.parse_args()
    figures = []
    for pairs in args.pairs:
        figures.append(measure(pairs, args.cores, args.folder))
        print(report(figures), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
