"""The tokens of a shard of pairs."""

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from rewardline.core.errors import UserError
from rewardline.core.files import read_json
from rewardline.core.progress import progress
from rewardline.data.pairs.external_sort import characters_of
from rewardline.data.pairs.rejects import RejectWriter
from rewardline.data.pairs.store import read_rows
from rewardline.tokens.encoder import ConversationEncoder, Encoded, common_prefix, describe, load_tokenizer
from rewardline.tokens.settings import TokenizeSettings
from rewardline.tokens.store import Comparison, Ids, ShardWriter
from rewardline.tokens.templates import UnusableError

log = logging.getLogger(__name__)
Json = dict[str, Any]
PROMPTS_AT_ONCE, CHARACTERS_AT_ONCE = 512, 2 << 20


class Dropped:
    """Pairs that cannot be compared once they are tokens: counted, and kept with their reason."""

    def __init__(self, folder: Path) -> None:
        self._writer = RejectWriter(folder)
        self.counts: Counter[str] = Counter()

    def add(self, pair: Json, reason: str, detail: str) -> None:
        """Note a pair that goes."""
        self.counts[reason] += 1
        self._writer.add(pair["dataset"], pair["file"], pair["row"], reason, f"pair {pair['pair_id']}: {detail}")

    def close(self) -> list[Json]:
        """Finish `rejects.parquet`; a few examples."""
        return list(map(asdict, self._writer.close()))


def prompts(folder: Path) -> Iterator[tuple[Json, list[Json]]]:
    """Each prompt with its pairs; pairs are clustered by prompt."""
    for _, rows in groupby(read_rows(folder), key=lambda row: (row["prompt_id"], row["prompt"])):
        group: list[Json] = list(rows)
        yield group[0], group


def compare(
    first: Json, pairs: list[Json], dropped: Dropped, cut: Counter[str], encoded: Encoded | UnusableError
) -> Comparison | None:
    """The comparison of a prompt's pairs, or None when no pair is left."""
    if isinstance(encoded, UnusableError):
        for pair in pairs:
            dropped.add(pair, encoded.reason, str(encoded))
        return None
    index = {answer: number for number, answer in enumerate(answers_of(pairs))}
    kept: list[tuple[Json, bytes, bytes]] = []
    sequences: dict[bytes, Ids] = {}
    for pair in pairs:
        numbers = [index[pair[side]] for side in ("chosen", "rejected")]
        error = next((encoded.unfit[number] for number in numbers if number in encoded.unfit), None)
        chosen, rejected = (encoded.sequences[number] for number in numbers)
        if error is not None:
            dropped.add(pair, error.reason, str(error))
        elif np.array_equal(chosen, rejected):
            dropped.add(pair, "same_tokens", "chosen and rejected are the same tokens")
        else:
            kept.append((pair, chosen.tobytes(), rejected.tobytes()))
            for sequence in (chosen, rejected):
                sequences.setdefault(sequence.tobytes(), sequence)
    if not kept:
        return None
    if encoded.cut_tokens:
        cut["pairs"] += len(kept)
        cut["tokens"] += encoded.cut_tokens
    places = {key: number for number, key in enumerate(sequences)}
    used = list(sequences.values())
    prefix = common_prefix(used)
    keys = ("pair_id", "dataset", "subset", "margin", "confidence", "weight")
    rows = [
        {**{key: pair[key] for key in keys}, "chosen": places[chosen], "rejected": places[rejected]}
        for pair, chosen, rejected in kept
    ]
    tails = [sequence[prefix:] for sequence in used]
    return Comparison(first["prompt_id"], used[0][:prefix], tails, rows, encoded.answer_start)


def answers_of(pairs: list[Json]) -> list[str]:
    """The distinct answers of a prompt's pairs, in order of appearance."""
    return list(dict.fromkeys(answer for pair in pairs for answer in (pair["chosen"], pair["rejected"])))


def chunks(rows: Iterator[tuple[Json, list[Json]]]) -> Iterator[list[tuple[Json, list[Json]]]]:
    """Prompts that are encoded together: bounded in number and in text."""
    chunk: list[tuple[Json, list[Json]]] = []
    size = 0
    for first, group in rows:
        chunk.append((first, group))
        size += characters_of(first) + sum(map(len, answers_of(group)))
        if len(chunk) == PROMPTS_AT_ONCE or size >= CHARACTERS_AT_ONCE:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def tokenize_split(
    folder: Path, split: str, pairs: int, encoder: ConversationEncoder, dropped: Dropped, cut: Counter[str], out: Path
) -> Json:
    """Write the shards of a split and return its entry in the manifest."""
    writer = ShardWriter(out, split)
    before = sum(dropped.counts.values())
    rows = prompts(folder / split)
    with progress(f"tokenize {split}", total=pairs, unit="pair") as bar:
        for chunk in chunks(rows):
            encoded = encoder.encode([first["prompt"] for first, _ in chunk], [answers_of(group) for _, group in chunk])
            for (first, group), result in zip(chunk, encoded, strict=True):
                if (comparison := compare(first, group, dropped, cut, result)) is not None:
                    writer.add(comparison)
                bar.update(len(group))
    entry = writer.close()
    if entry["pairs"] + sum(dropped.counts.values()) - before != pairs:
        raise UserError(
            f"{folder / split} does not hold the {pairs} pairs of its manifest; delete {folder} and run again"
        )
    return {**entry, "pairs_in": pairs}


def check_positions(base: Path, max_length: int) -> None:
    """A sequence must not be longer than the positions that the model knows."""
    config = read_json(base / "config.json")
    known = config.get("max_position_embeddings") or config.get("n_positions")
    if isinstance(known, int) and max_length > known:
        raise UserError(
            f"max_length is {max_length}, but {base} has {known} positions; set max_length to {known} or less"
        )


def tokenize(settings: TokenizeSettings, pairs: Path, base: Path, out: Path) -> Json:
    """Write the tokens of a shard to `out`; what the manifest says of them."""
    check_positions(base, settings.max_length)
    counts = read_json(pairs / "manifest.json")
    tokenizer = load_tokenizer(base, settings.trust_remote_code)
    encoder = ConversationEncoder(tokenizer, **settings.model_dump(exclude={"trust_remote_code"}))
    log.info(
        "each prompt is encoded %s", "once for its answers" if encoder.encodes_prompts_once else "with each answer"
    )
    started = perf_counter()
    cut: Counter[str] = Counter()
    dropped = Dropped(out)
    splits = {
        split: tokenize_split(pairs, split, counts[split], encoder, dropped, cut, out) for split in ("train", "eval")
    }
    return {
        **describe(tokenizer, encoder),
        "splits": splits,
        "truncated_pairs": cut["pairs"],
        "truncated_tokens": cut["tokens"],
        "dropped": dict(sorted(dropped.counts.items())),
        "reject_examples": dropped.close(),
        "seconds": round(perf_counter() - started, 2),
    }
