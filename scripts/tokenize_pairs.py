"""Tokenise a mixture's pairs for a model into Arrow shards; all pairs of a prompt become one comparison.

    python scripts/tokenize_pairs.py --settings @settings.json --pairs results/pairs/main \\
        --base results/base/opt-350m --output results/tokens/main/opt-350m --threads 4
"""

import os
from collections import Counter
from collections.abc import Iterator
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from rewardline.artifacts import publish, read_json, settings_argument, write_json
from rewardline.cli import UserError, log, parser, progress, run, start_logging
from rewardline.pairs import REJECT_SCHEMA, PartWriter, read_pairs
from rewardline.shards import Comparison, ShardWriter
from rewardline.tokenization import (
    ConversationEncoder,
    Encoded,
    UnusableError,
    common_prefix,
    describe,
    load_tokenizer,
)

Json = dict[str, Any]
PROMPTS_AT_ONCE = 512


class Dropped:
    """Pairs that cannot be compared once they are tokens: counted, and kept with their reason."""

    def __init__(self, folder: Path) -> None:
        self._writer = PartWriter(folder / ".dropped", REJECT_SCHEMA, rows_per_part=2**62)
        self._folder = folder
        self.counts: Counter[str] = Counter()

    def add(self, pair: Json, reason: str, detail: str) -> None:
        """Note a pair that goes."""
        self.counts[reason] += 1
        row = {"dataset": pair["dataset"], "file": "pair", "row": None, "reason": reason}
        self._writer.add({**row, "detail": f"pair {pair['pair_id']}: {detail}"})

    def close(self) -> None:
        """Finish `rejects.parquet`."""
        self._writer.close()
        self._writer.parts[0].replace(self._folder / "rejects.parquet")
        (self._folder / ".dropped").rmdir()


def prompts(folder: Path) -> Iterator[tuple[Json, list[Json]]]:
    """Each prompt with its pairs; pairs are clustered by prompt."""
    for _, rows in groupby(read_pairs(folder), key=lambda row: (row["prompt_id"], row["prompt"])):
        group: list[Json] = list(rows)
        yield group[0], group


def compare(
    first: Json,
    pairs: list[Json],
    encoder: ConversationEncoder,
    dropped: Dropped,
    cut: Counter[str],
    encoded: Encoded | UnusableError,
) -> Comparison | None:
    """The comparison of a prompt's pairs, or None when no pair is left."""
    if isinstance(encoded, UnusableError):
        pairs = _without_unusable(first["prompt"], pairs, encoder, dropped)
        if not pairs:
            return None
        again = encoder.encode([first["prompt"]], [answers_of(pairs)])[0]
        if isinstance(again, UnusableError):
            for pair in pairs:
                dropped.add(pair, again.reason, f"{again} beside the other answers of its prompt")
            return None
        encoded = again
    answers = answers_of(pairs)
    prefix = common_prefix(encoded.sequences)
    tails = [sequence[prefix:] for sequence in encoded.sequences]
    places = {answer: index for index, answer in enumerate(answers)}
    rows = []
    for pair in pairs:
        chosen, rejected = places[pair["chosen"]], places[pair["rejected"]]
        if tails[chosen].tolist() == tails[rejected].tolist():
            dropped.add(pair, "same_tokens", "chosen and rejected are the same tokens")
            continue
        keys = ("pair_id", "dataset", "subset", "margin", "weight")
        rows.append({**{key: pair[key] for key in keys}, "chosen": chosen, "rejected": rejected})
    if not rows:
        return None
    if encoded.cut_tokens:
        cut["pairs"] += len(rows)
        cut["tokens"] += encoded.cut_tokens
    return Comparison(first["prompt_id"], encoded.sequences[0][:prefix], tails, rows)


def answers_of(pairs: list[Json]) -> list[str]:
    """The distinct answers of a prompt's pairs, in order of appearance."""
    return list(dict.fromkeys(answer for pair in pairs for answer in (pair["chosen"], pair["rejected"])))


def _without_unusable(prompt: Any, pairs: list[Json], encoder: ConversationEncoder, dropped: Dropped) -> list[Json]:
    kept = []
    for pair in pairs:
        alone = encoder.encode([prompt], [[pair["chosen"], pair["rejected"]]])[0]
        if isinstance(alone, UnusableError):
            dropped.add(pair, alone.reason, f"{alone}; max_length is {encoder.max_length}")
        else:
            kept.append(pair)
    return kept


def tokenize_split(
    folder: Path, split: str, pairs: int, encoder: ConversationEncoder, dropped: Dropped, cut: Counter[str], out: Path
) -> Json:
    """Write the shards of a split and return its entry in the manifest."""
    writer = ShardWriter(out, split)
    before = sum(dropped.counts.values())
    rows = prompts(folder / split)
    with progress(f"tokenize {split}", total=pairs, unit="pair") as bar:
        while chunk := list(islice(rows, PROMPTS_AT_ONCE)):
            encoded = encoder.encode([first["prompt"] for first, _ in chunk], [answers_of(group) for _, group in chunk])
            for (first, group), result in zip(chunk, encoded, strict=True):
                if (comparison := compare(first, group, encoder, dropped, cut, result)) is not None:
                    writer.add(comparison)
                bar.update(len(group))
    entry = writer.close()
    if entry["pairs"] + sum(dropped.counts.values()) - before != pairs:
        raise UserError(
            f"{folder / split} does not hold the {pairs} pairs of stats.json; delete {folder} and run again"
        )
    return entry


def check_positions(base: Path, max_length: int) -> None:
    """A sequence must not be longer than the positions that the model knows."""
    config = read_json(base / "config.json")
    known = config.get("max_position_embeddings") or config.get("n_positions")
    if isinstance(known, int) and max_length > known:
        raise UserError(
            f"max_length is {max_length}, but {base} has {known} positions; set max_length to {known} or less"
        )


def main(argv: list[str] | None = None) -> int:
    """Run the stage."""
    options = parser(__doc__)
    options.add_argument("--settings", required=True, help="settings as JSON, or @FILE")
    options.add_argument("--pairs", required=True, type=Path, help="folder of a mixture's pairs")
    options.add_argument("--base", required=True, type=Path, help="folder of the base model")
    options.add_argument("--output", required=True, type=Path, help="folder to leave the shards in")
    options.add_argument("--threads", type=int, default=1)
    args = options.parse_args(argv)
    start_logging(args.log)
    os.environ.update(RAYON_NUM_THREADS=str(args.threads), TOKENIZERS_PARALLELISM="true")
    settings = settings_argument(args.settings)
    check_positions(args.base, settings["max_length"])
    stats = read_json(args.pairs / "stats.json")
    tokenizer = load_tokenizer(args.base, settings.pop("trust_remote_code", False))
    encoder = ConversationEncoder(tokenizer, **settings)
    cut: Counter[str] = Counter()
    with publish(args.output) as out:
        dropped = Dropped(out)
        splits = {
            split: tokenize_split(args.pairs, split, stats[split], encoder, dropped, cut, out)
            for split in ("train", "eval")
        }
        dropped.close()
        for split, entry in splits.items():
            if stats[split] and not entry["pairs"]:
                reasons = ", ".join(f"{reason} {count}" for reason, count in dropped.counts.most_common())
                raise UserError(
                    f"{args.pairs}/{split}: none of {stats[split]} pairs is left as tokens: {reasons}. For "
                    f"answer_too_long raise max_length (now {encoder.max_length}), else choose another template"
                )
        write_json(
            out / "manifest.json",
            {
                **describe(tokenizer, encoder),
                "splits": splits,
                "truncated_pairs": cut["pairs"],
                "truncated_tokens": cut["tokens"],
                "dropped": dict(sorted(dropped.counts.items())),
            },
        )
    tokens = sum(entry["tokens"] for entry in splits.values())
    log.info("%d tokens; prompts cut for %d pairs; dropped %s", tokens, cut["pairs"], dict(dropped.counts) or "none")
    return 0


if __name__ == "__main__":
    run(main)
