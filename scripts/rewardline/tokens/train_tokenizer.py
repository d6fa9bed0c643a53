"""A tokenizer of one's own, trained on the text of a mixture."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from rewardline.data.pairs.store import read_pairs

MAX_PAIRS = 200_000
"""Pairs read for the vocabulary; more would not change a vocabulary of this size."""


def train_tokenizer(folder: Path, wanted: dict[str, Any]) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on the prompts and answers in `folder`; deterministic.

    `wanted` holds `vocab_size`, `bos_token` (None, or put before every text), `eos_token` and `pad_token`.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    names = ("bos_token", "eos_token", "pad_token")
    special = list(dict.fromkeys(wanted[name] for name in names if wanted[name]))
    trainer = trainers.BpeTrainer(
        vocab_size=wanted["vocab_size"],
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(folder), trainer)
    if wanted["bos_token"]:
        bos = wanted["bos_token"]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **{name: wanted[name] for name in names if wanted[name]})


def _texts(folder: Path) -> Iterator[str]:
    for row in islice(read_pairs(folder, ["prompt", "chosen", "rejected"]), MAX_PAIRS):
        prompt: Any = row["prompt"]
        yield from (f"Human: {turn['content']}\n\n" for turn in prompt)
        yield f"Assistant: {row['chosen']}"
        yield f"Assistant: {row['rejected']}"
