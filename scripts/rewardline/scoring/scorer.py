"""A reward model with its tokenizer: texts in, scores out, the same as the pipeline's own evaluation gives."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from rewardline.core.errors import UserError
from rewardline.core.files import read_json
from rewardline.core.runtime import hold_threads
from rewardline.model.deepspeed_chat import DeepSpeedChatEncoder
from rewardline.model.external import Dtype, load_any, model_folder
from rewardline.model.normalization import KEY
from rewardline.model.reward_model import RewardModel
from rewardline.scoring.batched import score_comparisons
from rewardline.scoring.rows import UnscorableError
from rewardline.tokens.encoder import ConversationEncoder, EncodedAnswers, common_prefix
from rewardline.tokens.published_text import PublishedEncoder, TextEncoder
from rewardline.tokens.store import Comparison
from rewardline.tokens.templates import Prompt
from rewardline.tokens.tokenizer import load_tokenizer

log = logging.getLogger(__name__)

MOST = 1 << 30  # a tokenizer that names more tokens knows no limit
DEFAULT_LENGTH = 2048
OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert")  # whose first positions are for padding


class Scorer:
    """Scores of answers to prompts, and of whole texts. Not for several threads at once."""

    def __init__(
        self,
        model: str,
        *,
        batch_tokens: int = 8192,
        max_length: int | None = None,
        template: str | None = None,
        trust: bool = False,
        raw: bool = False,
        convert_bin: bool = False,
        dtype: Dtype = "auto",
        tokenizer: str | None = None,
        num_padding_at_beginning: int | None = None,
        revision: str = "main",
    ) -> None:
        """Load a model from a folder, or `revision` of one from the hub.

        `batch_tokens`: most tokens computed at once. `max_length`: most tokens of a prompt with an answer; None takes
        what the model was trained with or has positions for. `template`: chat or plain; None takes what it was trained
        with. `raw` leaves out a normalisation that is stored with the model. `tokenizer`: another folder or name for
        the tokenizer. For the rest see `load_any` and `rewardline.deepspeed_chat`.

        Raises:
            UserError: the model or its tokenizer cannot be used.
        """
        folder = model_folder(model, revision=revision, code=trust, bins=convert_bin)
        loaded, chat = load_any(folder, dtype=dtype, trust_remote_code=trust, convert_bin=convert_bin)
        words = load_tokenizer(tokenizer or _home_of_tokenizer(folder, chat), trust)
        made = folder / "run.json"
        run = read_json(made) if made.is_file() else {}
        known = run.get("tokenization", {}) if isinstance(run, dict) else {}
        length = _length(loaded, words, max_length, known.get("max_length"))
        encoder = _encoder(words, known, template, length, num_padding_at_beginning, chat)
        if not known and not chat and template is None and encoder.template == "plain":
            log.info("%s has no chat template: it reads `Human: ...`, `Assistant: ...`, trained so or not", model)
        if isinstance(encoder, DeepSpeedChatEncoder):
            setattr(loaded.config, KEY, {"score": encoder.score})
        self._pad_id = _padding(loaded, words, chat)
        hold_threads()
        self._model = RewardModel(loaded, raw=raw, max_length=length)
        if self._model.max_tokens is not None:
            encoder.max_length = min(encoder.max_length, self._model.max_tokens)
        self._encoder = encoder
        self._cut = 0
        self._texts = TextEncoder(words, encoder.end_id, encoder.max_length)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model.to(self._device)
        self._batch_tokens = batch_tokens
        self.name = model

    @property
    def max_length(self) -> int:
        """The most tokens of a prompt with an answer."""
        return self._encoder.max_length

    @property
    def cut(self) -> int:
        """How many prompts and whole texts have lost their beginning so far, to fit into `max_length`."""
        return self._cut + self._texts.cut

    def score(self, prompts: Sequence[Prompt], answers: Sequence[Sequence[str]]) -> list[list[float] | UnscorableError]:
        """The scores of each prompt's answers; an `UnscorableError` where an answer does not fit into the model."""
        return self.score_encoded(self.encode(prompts, answers))

    def encode(self, prompts: Sequence[Prompt], answers: Sequence[Sequence[str]]) -> list[Comparison | UnscorableError]:
        """The tokens of each prompt with its answers."""
        results: list[Comparison | UnscorableError] = []
        for item in self._encoder.encode(prompts, answers):
            unfit = next(iter(item.too_long.values()), None) if isinstance(item, EncodedAnswers) else item
            if unfit is not None:
                where = f"; the model takes {self.max_length} with its prompt" if hasattr(unfit, "length") else ""
                results.append(UnscorableError(f"{unfit}{where}"))
            elif isinstance(item, EncodedAnswers):
                self._cut += item.truncated_tokens > 0
                results.append(_comparison(item))
        return results

    def encode_texts(self, texts: Sequence[str], ended: bool) -> list[Comparison | UnscorableError]:
        """The tokens of whole texts, which hold prompt and answer with all headings; see `TextEncoder`."""
        if self._model.score_positions.score == "mean":
            reason = "the model's score is a mean over the answer, and a whole text does not say where that begins"
            return [UnscorableError(f"{reason}; give prompt and answer") for _ in texts]
        return [_comparison(EncodedAnswers([ids], 0)) for ids in self._texts.encode(texts, ended)]

    def score_encoded(self, items: Sequence[Comparison | UnscorableError]) -> list[list[float] | UnscorableError]:
        """The scores of what was encoded, in the same order; an error stays, or says that a score is not finite."""
        scores = self._finite([item for item in items if isinstance(item, Comparison)])
        return [item if isinstance(item, UnscorableError) else next(scores) for item in items]

    def _finite(self, comparisons: Sequence[Comparison]) -> Iterator[list[float] | UnscorableError]:
        try:
            found: list[list[float] | UnscorableError] = [*self._scores(comparisons)]
        except UserError:
            found = [self._alone(comparison) for comparison in comparisons]
        return iter(found)

    def _alone(self, comparison: Comparison) -> list[float] | UnscorableError:
        try:
            return next(self._scores([comparison]))
        except UserError:
            return UnscorableError("the model gives it a score that is not a finite number")

    def _scores(self, comparisons: Sequence[Comparison]) -> Iterator[list[float]]:
        scored = score_comparisons(
            self._model, iter(comparisons), device=self._device, pad_id=self._pad_id, batch_tokens=self._batch_tokens
        )
        return (values.tolist() for _, values in scored)


def _comparison(item: EncodedAnswers) -> Comparison:
    prefix = common_prefix(item.sequences)
    tails = [sequence[prefix:] for sequence in item.sequences]
    return Comparison("", item.sequences[0][:prefix], tails, [], item.answer_start)


def _encoder(
    words: PreTrainedTokenizerFast,
    known: dict[str, Any],
    template: str | None,
    length: int,
    padding: int | None,
    chat: bool,
) -> ConversationEncoder:
    if chat and template is None:
        return DeepSpeedChatEncoder(words, max_length=length, num_padding_at_beginning=padding)
    make = ConversationEncoder if known else PublishedEncoder
    return make(
        words,
        max_length=length,
        template=template or known.get("template", "auto"),
        end_token=known.get("end_token"),
        num_padding_at_beginning=padding,
    )


def _home_of_tokenizer(model: Path, chat: bool) -> Path | str:
    """Where the tokenizer is: with the model, but for DeepSpeed-Chat, which keeps no more than a vocabulary."""
    names = ["tokenizer.json", "tokenizer_config.json", *([] if chat else ["vocab.*", "*.model"])]
    if any(any(model.glob(name)) for name in names):
        return model
    if not chat:
        raise UserError(f"{model}: holds no tokenizer; give --tokenizer with the folder or the name of its base model")
    origin = str(read_json(model / "config.json").get("_name_or_path") or "")
    if origin in ("", str(model)):
        raise UserError(
            f"{model}: holds no whole tokenizer, as DeepSpeed-Chat saves a vocabulary alone; give --tokenizer with the "
            "folder or the name of the base model"
        )
    log.info("%s holds no whole tokenizer: taking that of %s, which it was trained from", model, origin)
    return origin


def _length(model: PreTrainedModel, words: PreTrainedTokenizerFast, given: int | None, trained: int | None) -> int:
    """The most tokens: as asked for, as trained, else as many as model and tokenizer know of."""
    positions = getattr(model.config, "max_position_embeddings", None)
    if isinstance(positions, int) and model.config.model_type in OFFSET_POSITIONS:
        positions -= (model.config.pad_token_id or 0) + 1
    if given is not None:
        if isinstance(positions, int) and given > positions:
            raise UserError(f"--max-length {given}: the model has {positions} positions; give at most that")
        return given
    if trained is not None:
        return trained
    limits = [value for value in (positions, words.model_max_length) if isinstance(value, int) and 0 < value < MOST]
    return min(limits, default=DEFAULT_LENGTH)


def _padding(model: PreTrainedModel, words: PreTrainedTokenizerFast, chat: bool) -> int:
    """A token for padding that the model has; checks that it has those of the tokenizer."""
    size = model.get_input_embeddings().num_embeddings
    highest = max(index for word, index in words.get_vocab().items() if word != words.pad_token)
    if highest >= size:
        raise UserError(
            f"the tokenizer has tokens up to {highest}, the model embeddings for {size}: they do not belong together; "
            "name the right one with --tokenizer"
        )
    ends = chat and model.config.model_type != "llama"  # DeepSpeed-Chat pads with the end token
    pad: int = words.eos_token_id if ends else words.pad_token_id
    return pad if pad < size else words.eos_token_id
