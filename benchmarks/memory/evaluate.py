"""Memory that scripts/evaluate.py needs for many pairs.

    python benchmarks/memory/evaluate.py --pairs 50000 200000

The input is random tokens, two answers per prompt, and a random Llama so small that its own cost is negligible. Prints
the peak resident memory of the complete stage, metrics included, and its rate.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from rewardline.core.files import write_json
from rewardline.core.hashing import file_sha256
from rewardline.tokens.store import Comparison, ComparisonPair, ShardWriter, TokenManifest

VOCABULARY = 1000


def write_tokens(folder: Path, pairs: int) -> None:
    """Write a folder of tokens, as the tokenize stage does."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    splits = {}
    for split, count in (("train", 1), ("eval", pairs)):
        writer = ShardWriter(folder, split)
        for number in range(count):
            ids = [rng.integers(5, VOCABULARY, rng.integers(4, 20)).astype(np.int32) for _ in range(3)]
            pair = ComparisonPair(f"{number:016x}", "d", f"subset {number % 50}", chosen=0, rejected=1)
            writer.add(Comparison(f"{number:016x}", ids[0], ids[1:], [pair]))
        splits[split] = writer.close()
    names = {"template": "plain", "chat_template": None, "end_token": "<|end|>", "pad_token": "<|pad|>"}
    numbers = {"max_length": 64, "end_id": 1, "pad_id": 0, "num_padding_at_beginning": 0, "vocabulary": VOCABULARY}
    counts = {"truncated_pairs": 0, "truncated_tokens": 0, "dropped": {}, "reject_examples": []}
    manifest = TokenManifest.model_validate({**names, **numbers, **counts, "splits": splits})
    write_json(folder / "manifest.json", manifest.as_json())


def write_model(folder: Path) -> None:
    """Write a model folder with what the evaluate stage reads of it."""
    from transformers import AutoModelForSequenceClassification, LlamaConfig

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=VOCABULARY, num_labels=1, pad_token_id=0, **sizes)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    write_json(folder / "run.json", {"weights_sha256": file_sha256(folder / "model.safetensors")})


def measure(folder: Path, pairs: int) -> str:
    """Evaluate this number of pairs; returns a row of the table."""
    write_tokens(folder / "tokens", pairs)
    settings = {"run": "r", "name": "r", "mixture": "m", "model": "x", "seed": 0, "benchmark": "eval"}
    folders = {"--model": folder / "model", "--tokens": folder / "tokens", "--output": folder / "out"}
    options = [str(part) for option in folders.items() for part in option]
    program = [sys.executable, str(ROOT / "scripts/evaluate.py"), "--settings", json.dumps(settings)]
    begin = time.perf_counter()
    child = subprocess.Popen([*program, *options])
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit("evaluate.py failed")
    seconds = time.perf_counter() - begin
    return f"| {pairs:,} | {usage.ru_maxrss / 1024:.0f} MiB | {pairs / seconds:,.0f} |"


def main() -> int:
    """Run the benchmark."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--pairs", type=int, nargs="+", default=[50_000, 200_000])
    print("| pairs | peak RSS | pairs/s, start-up included |\n|---|---|---|")
    for pairs in options.parse_args().pairs:
        with tempfile.TemporaryDirectory() as temporary:
            write_model(Path(temporary) / "model")
            print(measure(Path(temporary), pairs), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
