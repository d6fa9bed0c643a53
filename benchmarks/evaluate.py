"""Compare the speed of scoring with rewardline, a plain Hugging Face loop and DeepSpeed-Chat.

    python benchmarks/evaluate.py --data hh-rlhf/harmless-base/test.jsonl.gz --model tiny

--data is a file of transcripts as in Anthropic/hh-rlhf; without it, the pairs of the demo generator are used.
DeepSpeed-Chat is the evaluation of its step 2: all sequences padded to the maximum length, chosen and rejected ones as
the two halves of a batch. The plain loop pads each batch to its longest sequence, in the order of the data, chosen and
rejected separately. All methods score the same pairs with the same weights and threads, alternately in one process.
Measured is the time from token ids to scores, collation included, without start-up. fp32 on the CPU, bf16 with
--device cuda.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from preparation import SHAPES, prepare

OURS, PLAIN, CHAT = "rewardline", "Hugging Face, plain loop", "DeepSpeed-Chat"
TRAINING = {"pairs_per_step": 1, "max_steps": 1}
"""Settings of a training run, which the configuration needs; nothing is trained."""
Pair = tuple[list[int], list[int]]
"""Token ids of a chosen and a rejected sequence."""
Method = Callable[[int], list[tuple[float, float]]]
"""Returns the scores of the chosen and the rejected sequence of all pairs of the first N comparisons."""
WARM_UP = 8
"""Number of comparisons that each method scores before the measurement."""


class Workload:
    """The pairs of a folder of tokens, and the methods to score them, each with its own model loaded from `base`."""

    def __init__(self, tokens: Path, base: Path, pairs: int, device: str, sizes: argparse.Namespace) -> None:
        import torch

        from rewardline.tokens.store import TokenDataset

        self.data = TokenDataset(tokens, "train")
        self.base, self.device, self.sizes = base, torch.device(device), sizes
        self.dtype = torch.bfloat16 if device == "cuda" else torch.float32
        self.pad_id, self.max_length = self.data.manifest.pad_id, self.data.manifest.max_length
        self._pairs: list[list[Pair]] = []
        self.computed = 0
        for index in range(len(self.data)):
            if sum(map(len, self._pairs)) >= pairs:
                break
            row = self.data[index]
            sequences = [[*row.prefix.tolist(), *tail.tolist()] for tail in row.tails]
            self._pairs.append([(sequences[pair.chosen], sequences[pair.rejected]) for pair in row.pairs])
            self.computed += row.tokens

    @property
    def comparisons(self) -> int:
        """Number of comparisons."""
        return len(self._pairs)

    def pairs(self, comparisons: int | None = None) -> list[Pair]:
        """The pairs of the first `comparisons` comparisons; None for all."""
        return [pair for pairs in self._pairs[:comparisons] for pair in pairs]

    @property
    def real(self) -> int:
        """Number of tokens of all chosen and rejected sequences in full."""
        return sum(len(chosen) + len(rejected) for chosen, rejected in self.pairs())

    def tokens(self, name: str) -> int:
        """Number of tokens that a method computes, padding included."""
        if name == CHAT:
            return 2 * len(self.pairs()) * self.max_length
        if name == OURS:
            return self.computed
        size, total = self.sizes.plain_batch, 0
        for side in (0, 1):
            lengths = [len(pair[side]) for pair in self.pairs()]
            batches = [lengths[k : k + size] for k in range(0, len(lengths), size)]
            total += sum(max(batch) * len(batch) for batch in batches)
        return total

    def method(self, name: str) -> Method:
        """A method by its name, with its model loaded."""
        return {OURS: self._ours, PLAIN: self._plain, CHAT: self._chat}[name]()

    def _ours(self) -> Method:
        from rewardline.model.loading import load_reward_model
        from rewardline.model.reward_model import RewardModel
        from rewardline.scoring.batch_scorer import score_comparisons

        model = RewardModel(load_reward_model(self.base, self.dtype), max_length=self.max_length).to(self.device)

        def score(comparisons: int) -> list[tuple[float, float]]:
            rows = (self.data[index] for index in range(comparisons))
            scored = score_comparisons(
                model, rows, device=self.device, pad_id=self.pad_id, batch_tokens=self.sizes.batch_tokens
            )
            return [
                (float(values[pair.chosen]), float(values[pair.rejected]))
                for row, values in scored
                for pair in row.pairs
            ]

        return score

    def _plain(self) -> Method:
        import torch
        from transformers import AutoModelForSequenceClassification

        model = AutoModelForSequenceClassification.from_pretrained(self.base, dtype=self.dtype).to(self.device).eval()
        size = self.sizes.plain_batch

        def one_side(rows: Sequence[list[int]]) -> list[float]:
            scores: list[float] = []
            for begin in range(0, len(rows), size):
                batch = rows[begin : begin + size]
                ids, mask = padded(batch, max(map(len, batch)), self.pad_id)
                with torch.no_grad():
                    logits = model(input_ids=ids.to(self.device), attention_mask=mask.to(self.device)).logits
                scores += logits[:, 0].float().tolist()
            return scores

        def score(comparisons: int) -> list[tuple[float, float]]:
            sides = zip(*self.pairs(comparisons), strict=True)
            return list(zip(*(one_side(rows) for rows in sides), strict=True))

        return score

    def _chat(self) -> Method:
        import torch
        from peers.deepspeed_chat import RewardModel

        model = RewardModel(str(self.base), self.pad_id).to(self.device, self.dtype).eval()
        size = self.sizes.chat_batch

        def score(comparisons: int) -> list[tuple[float, float]]:
            pairs = self.pairs(comparisons)
            scores: list[tuple[float, float]] = []
            for begin in range(0, len(pairs), size):
                chosen, rejected = zip(*pairs[begin : begin + size], strict=True)
                ids, mask = padded([*chosen, *rejected], self.max_length, self.pad_id)
                with torch.no_grad():
                    _, *ends = model(ids.to(self.device), mask.to(self.device))
                scores += list(zip(*(end.float().tolist() for end in ends), strict=True))
            return scores

        return score


def padded(rows: Sequence[list[int]], length: int, pad_id: int) -> tuple[Any, Any]:
    """Token ids and attention mask, int64 [rows, length]."""
    import torch

    ids, mask = torch.full((len(rows), length), pad_id), torch.zeros(len(rows), length, dtype=torch.long)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)
        mask[index, : len(row)] = 1
    return ids, mask


def median_and_range(values: Sequence[float], form: str) -> str:
    """Median and range as text."""
    middle = format(statistics.median(values), form)
    return middle if len(values) == 1 else f"{middle} ({format(min(values), form)}-{format(max(values), form)})"


def compare(workload: Workload, rounds: int, peers: bool) -> str:
    """Score with all methods alternately, `rounds` times; returns the report as Markdown."""
    import torch

    names = [OURS, PLAIN, CHAT] if peers else [OURS]
    methods = {name: workload.method(name) for name in names}
    scores: dict[str, Any] = {}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    cpu_seconds: dict[str, list[float]] = {name: [] for name in names}
    for method in methods.values():
        method(WARM_UP)
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            begin, cpu_begin = time.perf_counter(), time.process_time()
            scores[name] = torch.tensor(methods[name](workload.comparisons))
            seconds[name].append(time.perf_counter() - begin)
            cpu_seconds[name].append(time.process_time() - cpu_begin)
            taken = f"{seconds[name][-1]:.1f} s, {cpu_seconds[name][-1]:.1f} s of CPU time"
            print(f"round {turn + 1}: {name} took {taken}", file=sys.stderr)
    head = ["", "real tokens/s", "speedup", "speedup in CPU time", "computed / real tokens", "largest difference"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name in names:
        speedup, cpu_speedup = (
            [theirs / ours for theirs, ours in zip(times[name], times[OURS], strict=True)]
            for times in (seconds, cpu_seconds)
        )
        difference = float((scores[name] - scores[OURS]).abs().max())
        cells = [
            name,
            median_and_range([workload.real / one for one in seconds[name]], ",.0f"),
            "" if name == OURS else median_and_range(speedup, ".1f"),
            "" if name == OURS else median_and_range(cpu_speedup, ".1f"),
            f"{workload.tokens(name) / workload.real:.2f}",
            "" if name == OURS else f"{difference:.1e}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    facts = (
        f"{len(workload.pairs())} pairs, {workload.real:,} real tokens (chosen and rejected in full); scores from "
        f"{scores[OURS].min():.2f} to {scores[OURS].max():.2f}; {rounds} rounds, {torch.get_num_threads()} threads. "
        "Medians (range over rounds); speedups of rewardline within a round."
    )
    return "\n".join([facts, "", *lines])


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark and print the report."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, help="transcripts (JSON lines, also .gz); default: the demo generator")
    options.add_argument("--model", default="tiny", help=f"a model folder, or one of {', '.join(SHAPES)} (random)")
    options.add_argument("--no-peers", action="store_true", help="measure rewardline only")
    options.add_argument("--pairs", type=int, default=256)
    options.add_argument("--max-length", type=int, default=512)
    options.add_argument(
        "--batch-tokens",
        type=int,
        default=8192,
        help="batch size of rewardline, in tokens; default: that of scripts/evaluate.py",
    )
    options.add_argument(
        "--chat-batch",
        type=int,
        default=16,
        help="batch size of DeepSpeed-Chat, in pairs; default: that of its main.py",
    )
    options.add_argument("--plain-batch", type=int, default=8, help="batch size of the plain loop, in sequences")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    options.add_argument("--work", type=Path, help="working folder; default: a temporary one")
    args = options.parse_args(argv)
    if args.device == "cpu":
        os.environ.update(CUDA_VISIBLE_DEVICES="", DS_ACCELERATOR="cpu")
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.work or Path(temporary)).absolute()
        work = prepare(folder, args.data, args.model, args.pairs, args.max_length, TRAINING)
        workload = Workload(work.tokens, work.base, args.pairs, args.device, args)
        print(compare(workload, args.rounds, not args.no_peers))
    return 0


if __name__ == "__main__":
    sys.exit(main())
