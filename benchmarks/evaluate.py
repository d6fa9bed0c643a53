"""Score the same pairs with the same model in this project's way and in those of its peers, in turns, and compare.

    python benchmarks/evaluate.py --data hh-rlhf/harmless-base/test.jsonl.gz --model tiny

--data is a file of transcripts as in Anthropic/hh-rlhf; without it the demo generator's pairs are used. Peers are the
evaluation of DeepSpeed-Chat's second step (all sequences padded to the full length, chosen and rejected ones the two
halves of a batch) and a plain loop over batches of a Hugging Face model (padded to the longest of the batch, in the
order of the data, chosen and rejected apart). All run in one process, with the same weights and threads; what is timed
is from token ids to scores, batches made included, and start-up left out. fp32 on the CPU, bf16 with --device cuda.
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
"""Nothing is trained; the pipeline makes the tokens for a training."""
Pair = tuple[list[int], list[int]]
"""Token ids of a chosen and a rejected sequence."""
Way = Callable[[int], list[tuple[float, float]]]
"""Scores the chosen and rejected sequence of each pair of so many comparisons, from the first on."""
WARM = 8
"""Comparisons that each way scores before it is timed."""


class Contest:
    """The pairs of a folder of tokens, and the ways to score them; each has a model of its own, loaded from `base`."""

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
            whole = [[*row.prefix.tolist(), *tail.tolist()] for tail in row.tails]
            self._pairs.append([(whole[pair.chosen], whole[pair.rejected]) for pair in row.pairs])
            self.computed += row.tokens

    @property
    def comparisons(self) -> int:
        """How many there are."""
        return len(self._pairs)

    def pairs(self, comparisons: int | None = None) -> list[Pair]:
        """The pairs of so many comparisons, None for all."""
        return [pair for pairs in self._pairs[:comparisons] for pair in pairs]

    @property
    def real(self) -> int:
        """Tokens of all chosen and rejected sequences in full."""
        return sum(len(chosen) + len(rejected) for chosen, rejected in self.pairs())

    def tokens(self, name: str) -> int:
        """Tokens that a way computes, padding included."""
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

    def way(self, name: str) -> Way:
        """A way by its name, with its model loaded."""
        return {OURS: self._ours, PLAIN: self._plain, CHAT: self._chat}[name]()

    def _ours(self) -> Way:
        from rewardline.model.loading import load_reward_model
        from rewardline.model.reward_model import RewardModel
        from rewardline.scoring.batched import score_comparisons

        model = RewardModel(load_reward_model(self.base, self.dtype), max_length=self.max_length).to(self.device)

        def score(comparisons: int) -> list[tuple[float, float]]:
            rows = (self.data[index] for index in range(comparisons))
            scored = score_comparisons(
                model, rows, device=self.device, pad_id=self.pad_id, batch_tokens=self.sizes.batch_tokens
            )
            return [
                (float(found[pair.chosen]), float(found[pair.rejected])) for row, found in scored for pair in row.pairs
            ]

        return score

    def _plain(self) -> Way:
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

    def _chat(self) -> Way:
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
    """Ids and mask, int64 [rows, length]."""
    import torch

    ids, mask = torch.full((len(rows), length), pad_id), torch.zeros(len(rows), length, dtype=torch.long)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)
        mask[index, : len(row)] = 1
    return ids, mask


def spread(values: Sequence[float], form: str) -> str:
    """Median and range."""
    middle = format(statistics.median(values), form)
    return middle if len(values) == 1 else f"{middle} ({format(min(values), form)}-{format(max(values), form)})"


def compare(contest: Contest, rounds: int, peers: bool) -> str:
    """Score with all ways `rounds` times in turns; the report as Markdown."""
    import torch

    names = [OURS, PLAIN, CHAT] if peers else [OURS]
    ways = {name: contest.way(name) for name in names}
    scores: dict[str, Any] = {}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    work: dict[str, list[float]] = {name: [] for name in names}
    for way in ways.values():
        way(WARM)
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            begin, spent = time.perf_counter(), time.process_time()
            scores[name] = torch.tensor(ways[name](contest.comparisons))
            seconds[name].append(time.perf_counter() - begin)
            work[name].append(time.process_time() - spent)
            taken = f"{seconds[name][-1]:.1f} s, {work[name][-1]:.1f} of the processor"
            print(f"round {turn + 1}: {name} took {taken}", file=sys.stderr)
    head = ["", "real tokens/s", "ours is", "by processor time", "computed / real tokens", "largest difference"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name in names:
        faster, lighter = (
            [theirs / ours for theirs, ours in zip(found[name], found[OURS], strict=True)] for found in (seconds, work)
        )
        off = float((scores[name] - scores[OURS]).abs().max())
        cells = [
            name,
            spread([contest.real / found for found in seconds[name]], ",.0f"),
            "" if name == OURS else spread(faster, ".1f"),
            "" if name == OURS else spread(lighter, ".1f"),
            f"{contest.tokens(name) / contest.real:.2f}",
            "" if name == OURS else f"{off:.1e}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    facts = (
        f"{len(contest.pairs())} pairs, {contest.real:,} real tokens (chosen and rejected in full); scores from "
        f"{scores[OURS].min():.2f} to {scores[OURS].max():.2f}; {rounds} rounds in turns, {torch.get_num_threads()} "
        "threads. Medians (range over rounds); ratios within a round."
    )
    return "\n".join([facts, "", *lines])


def main(argv: list[str] | None = None) -> int:
    """Prepare, run, print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, help="transcripts (JSON lines, also .gz); default: the demo generator")
    options.add_argument("--model", default="tiny", help=f"a model folder, or one of {', '.join(SHAPES)} (random)")
    options.add_argument("--no-peers", action="store_true", help="this project alone")
    options.add_argument("--pairs", type=int, default=256)
    options.add_argument("--max-length", type=int, default=512)
    options.add_argument("--batch-tokens", type=int, default=8192, help="of this project; evaluate.py's default")
    options.add_argument("--chat-batch", type=int, default=16, help="pairs; the default of DeepSpeed-Chat's main.py")
    options.add_argument("--plain-batch", type=int, default=8, help="sequences")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    options.add_argument("--work", type=Path, help="folder to work in; default: a temporary one")
    args = options.parse_args(argv)
    if args.device == "cpu":
        os.environ.update(CUDA_VISIBLE_DEVICES="", DS_ACCELERATOR="cpu")
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.work or Path(temporary)).absolute()
        work = prepare(folder, args.data, args.model, args.pairs, args.max_length, TRAINING)
        contest = Contest(work.tokens, work.base, args.pairs, args.device, args)
        print(compare(contest, args.rounds, not args.no_peers))
    return 0


if __name__ == "__main__":
    sys.exit(main())
