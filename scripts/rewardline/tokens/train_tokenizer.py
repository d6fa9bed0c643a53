"""Training of a new tokenizer on the text of a mixture."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from rewardline.data.parquet import read_typed_rows
from rewardline.data.schema import Pair
from rewardline.tokens.settings import NewTokenizerSettings

MAX_PAIRS = 200_000
"""Pairs read for the vocabulary; more would hardly change it."""


def train_tokenizer(folder: Path, settings: NewTokenizerSettings) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on the prompts and answers in `folder`; deterministic."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = settings.model_dump(include={"bos_token", "eos_token", "pad_token"}, exclude_none=True)
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocab_size,
        special_tokens=list(dict.fromkeys(special.values())),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(folder), trainer)
    if bos := settings.bos_token:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def _texts(folder: Path) -> Iterator[str]:
    for pair in islice(read_typed_rows(folder, Pair), MAX_PAIRS):
        yield from (f"Human: {turn['content']}\n\n" for turn in pair.prompt)
        yield from (f"Assistant: {answer}" for answer in pair.answers)
