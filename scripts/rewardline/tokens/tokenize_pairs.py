"""The tokens of a shard of pairs."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np

from rewardline.core.artifacts import MANIFEST, verify_files
from rewardline.core.errors import UserError
from rewardline.core.progress import progress
from rewardline.data.pairs.manifests import ShardManifest
from rewardline.data.pairs.rejects import RejectWriter
from rewardline.data.parquet import read_typed_rows
from rewardline.data.schema import Pair
from rewardline.data.turns import TemplateInputs, unpack
from rewardline.tokens.base_manifest import BaseManifest
from rewardline.tokens.encoder import ConversationEncoder, EncodedAnswers
from rewardline.tokens.settings import TokenizeSettings
from rewardline.tokens.store import (
    SPLITS,
    Comparison,
    ComparisonPair,
    RatedAnswer,
    ShardWriter,
    SplitEntry,
    TokenManifest,
    split_prefix,
)
from rewardline.tokens.templates import Prompt, UnusableError
from rewardline.tokens.tokenizer import load_tokenizer

log = logging.getLogger(__name__)
MAX_PROMPTS, MAX_CHARACTERS = 512, 2 << 20
"""Most prompts, and about the most text, that are encoded together."""


class PairTokenizer:
    """Tokenizes the splits of a shard of pairs, and counts the pairs that are truncated and dropped."""

    def __init__(self, encoder: ConversationEncoder, out: Path) -> None:
        self._encoder = encoder
        self._out = out
        self.rejects = RejectWriter(out)
        self.dropped: Counter[str] = Counter()
        self.changed: Counter[str] = Counter()
        self.truncated_pairs = self.truncated_tokens = 0

    def tokenize_split(self, folder: Path, split: str, pairs: int, *, rated: bool = False) -> SplitEntry:
        """Write the comparisons of a split; returns its entry in the manifest. `rated`: some may be single answers.

        Raises:
            UserError: the split does not have `pairs` pairs.
        """
        writer = ShardWriter(self._out, split, rated=rated)
        read = 0
        with progress(f"tokenize {split}", total=pairs, unit="pair") as bar:
            for chunk in _chunks(folder / split):
                encoded = self._encoder.encode(
                    [group.prompt for group in chunk],
                    [group.answers for group in chunk],
                    [group.inputs for group in chunk],
                )
                for group, result in zip(chunk, encoded, strict=True):
                    if (comparison := self._comparison(group.pairs, group.answers, result)) is not None:
                        writer.add(comparison)
                    read += len(group.pairs)
                    bar.update(len(group.pairs))
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
        numbers = {answer: number for number, answer in enumerate(answers)}
        indices: dict[bytes, int] = {}  # of the distinct sequences, by their tokens
        kept: list[ComparisonPair] = []
        rated: list[RatedAnswer] = []
        for pair in pairs:
            both = [numbers[answer] for answer in pair.answers]
            chosen, rejected = ([encoded.sequences[number].tobytes() for number in both] * 2)[:2]
            if error := next((encoded.too_long[number] for number in both if number in encoded.too_long), None):
                self._drop(pair, error.reason, str(error))
            elif chosen == rejected and pair.ratings is None:
                self._drop(pair, "same_tokens", "chosen and rejected are the same tokens")
            else:
                self.changed["answer"] += not encoded.changed.isdisjoint(both)
                self.changed["prompt"] += encoded.prompt_changed
                better, worse = (indices.setdefault(sequence, len(indices)) for sequence in (chosen, rejected))
                if pair.ratings is not None:
                    source = pair.pair_id, pair.dataset, pair.subset
                    rated.append(RatedAnswer(*source, better, pair.ratings, pair.weight))
                    continue
                kept.append(
                    ComparisonPair(
                        pair.pair_id,
                        pair.dataset,
                        pair.subset,
                        better,
                        worse,
                        pair.margin,
                        pair.confidence,
                        pair.weight,
                    )
                )
        if not kept and not rated:
            return None
        if encoded.truncated_tokens:
            self.truncated_pairs += len(kept) + len(rated)
            self.truncated_tokens += encoded.truncated_tokens
        prefix, distinct_tails = split_prefix([np.frombuffer(sequence, np.int32) for sequence in indices])
        return Comparison(pairs[0].prompt_id, prefix, distinct_tails, kept, encoded.answer_start, rated)

    def _drop(self, pair: Pair, reason: str, detail: str) -> None:
        self.dropped[reason] += 1
        self.rejects.add(pair.dataset, pair.file, pair.row, reason, f"pair {pair.pair_id}: {detail}")


class _PromptPairs(NamedTuple):
    """The pairs of a prompt, and its distinct answers."""

    pairs: list[Pair]
    prompt: Prompt
    answers: list[str]
    inputs: TemplateInputs


def _chunks(folder: Path) -> Iterator[list[_PromptPairs]]:
    """The pairs and distinct answers of each prompt, in chunks of bounded size that are encoded together."""
    chunk: list[_PromptPairs] = []
    characters = 0
    pairs = (
        (pair, unpack(pair.prompt, pair.chosen, pair.rejected, pair.native)) for pair in read_typed_rows(folder, Pair)
    )
    for (_, prompt, inputs), group in groupby(pairs, key=lambda one: (one[0].prompt_id, one[1].prompt, one[1].inputs)):
        members = list(group)
        sides = ((each.chosen, each.rejected)[: len(pair.answers)] for pair, each in members)
        answers = list(dict.fromkeys(answer for both in sides for answer in both))
        chunk.append(_PromptPairs([pair for pair, _ in members], prompt, answers, inputs))
        characters += sum(len(turn["content"]) for turn in prompt) + sum(map(len, answers))
        characters += max(len(pair.native or "") for pair, _ in members)
        if len(chunk) == MAX_PROMPTS or characters >= MAX_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def check_positions(base: Path, max_length: int) -> None:
    """Raise `UserError` if `max_length` is larger than the number of positions of a base model."""
    positions = BaseManifest.read(base / MANIFEST).positions
    if positions is not None and max_length > positions:
        raise UserError(
            f"max_length is {max_length}, but {base} has {positions} usable positions; set max_length to {positions} "
            "or less"
        )


def tokenize(settings: TokenizeSettings, pairs: Path, base: Path, out: Path) -> TokenManifest:
    """Write the tokens of a shard of pairs to `out`; returns their manifest."""
    verify_files(base / MANIFEST, lambda file: ".safetensors" not in file)
    check_positions(base, settings.max_length)
    counts = ShardManifest.read(pairs / MANIFEST)
    sizes = {"train": counts.train, "eval": counts.eval}
    tokenizer = load_tokenizer(base, settings.trust_remote_code)
    encoder = ConversationEncoder(tokenizer, **settings.model_dump(exclude={"trust_remote_code"}))
    log.info(
        "each prompt is encoded %s", "once for its answers" if encoder.encodes_prompts_once else "with each answer"
    )
    started = perf_counter()
    shard = PairTokenizer(encoder, out)
    rated = bool(counts.statistics.answers)
    splits = {split: shard.tokenize_split(pairs, split, sizes[split], rated=rated) for split in SPLITS}
    if (exported := encoder.export_template()) is None:
        log.warning("no chat template gives plain transformers these tokens: score with score.py or serve.py only")
    changed = {part: count for part, count in sorted(shard.changed.items()) if count}
    for part, count in changed.items():
        log.warning(
            "the chat template leaves out or changes text of the %s in %d pairs, such as reasoning; set `template: "
            "plain` or another `chat_template` to keep it", part, count,
        )  # fmt: skip
    manifest = TokenManifest(
        template=encoder.template,
        chat_template=exported,
        max_length=encoder.max_length,
        end_id=encoder.end_id,
        end_token=tokenizer.convert_ids_to_tokens(encoder.end_id),
        pad_id=tokenizer.pad_token_id,
        pad_token=tokenizer.pad_token,
        num_padding_at_beginning=encoder.num_padding_at_beginning,
        vocabulary=len(tokenizer),
        splits=splits,
        truncated_pairs=shard.truncated_pairs,
        truncated_tokens=shard.truncated_tokens,
        changed=changed,
        dropped=dict(sorted(shard.dropped.items())),
        reject_examples=shard.rejects.close(),
        seconds=round(perf_counter() - started, 2),
    )
    log.info("%s", manifest.summary())
    return manifest
