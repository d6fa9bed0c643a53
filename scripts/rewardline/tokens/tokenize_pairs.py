"""The tokens of a shard of pairs."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from time import perf_counter

import numpy as np

from rewardline.core.errors import UserError
from rewardline.core.files import read_json
from rewardline.core.progress import progress
from rewardline.data.pairs.rejects import RejectWriter
from rewardline.data.pairs.store import read_pairs
from rewardline.data.schema import Pair
from rewardline.tokens.encoder import ConversationEncoder, EncodedAnswers, common_prefix
from rewardline.tokens.settings import TokenizeSettings
from rewardline.tokens.store import (
    SPLITS,
    Comparison,
    ComparisonPair,
    Ids,
    ShardWriter,
    SplitEntry,
    TokenManifest,
)
from rewardline.tokens.templates import UnusableError
from rewardline.tokens.tokenizer import load_tokenizer

log = logging.getLogger(__name__)
MAX_PROMPTS, MAX_CHARACTERS = 512, 2 << 20
"""Most prompts, and about the most text, that are encoded together."""


class PairTokenizer:
    """Tokenises the splits of a shard of pairs, and counts the pairs that are truncated and dropped."""

    def __init__(self, encoder: ConversationEncoder, out: Path) -> None:
        self._encoder = encoder
        self._out = out
        self.rejects = RejectWriter(out)
        self.dropped: Counter[str] = Counter()
        self.truncated_pairs = self.truncated_tokens = 0

    def tokenize_split(self, folder: Path, split: str, pairs: int) -> SplitEntry:
        """Write the comparisons of a split, which has `pairs` pairs; its entry in the manifest.

        Raises:
            UserError: it has another number of pairs.
        """
        writer = ShardWriter(self._out, split)
        read = 0
        with progress(f"tokenize {split}", total=pairs, unit="pair") as bar:
            for chunk in _chunks(folder / split):
                answers = [_answers(group) for group in chunk]
                encoded = self._encoder.encode([group[0].prompt for group in chunk], answers)
                for group, texts, result in zip(chunk, answers, encoded, strict=True):
                    if (comparison := self._comparison(group, texts, result)) is not None:
                        writer.add(comparison)
                    read += len(group)
                    bar.update(len(group))
        if read != pairs:
            raise UserError(
                f"{folder / split} does not hold the {pairs} pairs of its manifest; delete {folder} and run again"
            )
        return writer.close(pairs_in=pairs)

    def _comparison(
        self, pairs: Sequence[Pair], answers: Sequence[str], encoded: EncodedAnswers | UnusableError
    ) -> Comparison | None:
        """The comparison of a prompt's pairs, or None when no pair is left."""
        if isinstance(encoded, UnusableError):
            for pair in pairs:
                self._drop(pair, encoded.reason, str(encoded))
            return None
        index = {answer: number for number, answer in enumerate(answers)}
        tails: dict[bytes, int] = {}
        sequences: list[Ids] = []
        kept: list[ComparisonPair] = []
        for pair in pairs:
            numbers = index[pair.chosen], index[pair.rejected]
            error = next((encoded.too_long[number] for number in numbers if number in encoded.too_long), None)
            chosen, rejected = (encoded.sequences[number] for number in numbers)
            if error is not None:
                self._drop(pair, error.reason, str(error))
                continue
            if np.array_equal(chosen, rejected):
                self._drop(pair, "same_tokens", "chosen and rejected are the same tokens")
                continue
            for sequence in (chosen, rejected):
                if sequence.tobytes() not in tails:
                    tails[sequence.tobytes()] = len(sequences)
                    sequences.append(sequence)
            kept.append(
                ComparisonPair(
                    pair.pair_id, pair.dataset, pair.subset, tails[chosen.tobytes()], tails[rejected.tobytes()],
                    pair.margin, pair.confidence, pair.weight,
                )
            )  # fmt: skip
        if not kept:
            return None
        if encoded.truncated_tokens:
            self.truncated_pairs += len(kept)
            self.truncated_tokens += encoded.truncated_tokens
        prefix = common_prefix(sequences)
        own = [sequence[prefix:] for sequence in sequences]
        return Comparison(pairs[0].prompt_id, sequences[0][:prefix], own, kept, encoded.answer_start)

    def _drop(self, pair: Pair, reason: str, detail: str) -> None:
        self.dropped[reason] += 1
        self.rejects.add(pair.dataset, pair.file, pair.row, reason, f"pair {pair.pair_id}: {detail}")


def _answers(pairs: Sequence[Pair]) -> list[str]:
    """The distinct answers of a prompt's pairs, in order of appearance."""
    return list(dict.fromkeys(answer for pair in pairs for answer in (pair.chosen, pair.rejected)))


def _chunks(folder: Path) -> Iterator[list[list[Pair]]]:
    """The pairs of each prompt, as many prompts as are encoded together: bounded in number and in text."""
    chunk: list[list[Pair]] = []
    characters = 0
    for _, pairs in groupby(read_pairs(folder), key=lambda pair: (pair.prompt_id, pair.prompt)):
        group = list(pairs)
        chunk.append(group)
        characters += sum(len(turn["content"]) for turn in group[0].prompt) + sum(map(len, _answers(group)))
        if len(chunk) == MAX_PROMPTS or characters >= MAX_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def check_positions(base: Path, max_length: int) -> None:
    """Refuse sequences longer than the positions that the model has.

    Raises:
        UserError: `max_length` is larger.
    """
    config = read_json(base / "config.json")
    positions = config.get("max_position_embeddings") or config.get("n_positions")
    if isinstance(positions, int) and max_length > positions:
        raise UserError(
            f"max_length is {max_length}, but {base} has {positions} positions; set max_length to {positions} or less"
        )


def tokenize(settings: TokenizeSettings, pairs: Path, base: Path, out: Path) -> TokenManifest:
    """Write the tokens of a shard of pairs to `out`; their manifest."""
    check_positions(base, settings.max_length)
    counts = read_json(pairs / "manifest.json")
    encoder = ConversationEncoder(
        load_tokenizer(base, settings.trust_remote_code),
        max_length=settings.max_length,
        template=settings.template,
        chat_template=settings.chat_template,
        end_token=settings.end_token,
        num_padding_at_beginning=settings.num_padding_at_beginning,
    )
    log.info(
        "each prompt is encoded %s", "once for its answers" if encoder.encodes_prompts_once else "with each answer"
    )
    started = perf_counter()
    shard = PairTokenizer(encoder, out)
    splits = {split: shard.tokenize_split(pairs, split, counts[split]) for split in SPLITS}
    manifest = TokenManifest(
        **dict(encoder.describe()),
        splits=splits,
        truncated_pairs=shard.truncated_pairs,
        truncated_tokens=shard.truncated_tokens,
        dropped=dict(sorted(shard.dropped.items())),
        reject_examples=shard.rejects.close(),
        seconds=round(perf_counter() - started, 2),
    )
    log.info("%s", manifest.summary())
    return manifest.model_copy(update={"sha256": manifest.shard_hashes()})
