"""A reward model with its tokenizer: texts in, scores out, equal to those of the pipeline's evaluation."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from pydantic import BaseModel
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from rewardline.core.artifacts import read_manifest, verify_model
from rewardline.core.errors import UserError
from rewardline.core.files import read_json
from rewardline.data.turns import TemplateInputs
from rewardline.model.deepspeed_chat import DeepSpeedChatEncoder
from rewardline.model.external import Dtype, load_any, model_folder
from rewardline.model.folder import check_vocabulary, usable_positions
from rewardline.model.normalization import KEY, score_config
from rewardline.model.reward_model import RewardModel
from rewardline.model.threads import start_threads
from rewardline.scoring import partitioned
from rewardline.scoring.batch_scorer import Scores, score_comparisons
from rewardline.scoring.partitioned import Compute
from rewardline.scoring.rows import AnswerScores, UnscorableError, read_full_text
from rewardline.tokens.encoder import ConversationEncoder, EncodedAnswers
from rewardline.tokens.published_text import PublishedEncoder, TextEncoder
from rewardline.tokens.store import Comparison, split_prefix
from rewardline.tokens.templates import Prompt, is_export
from rewardline.tokens.tokenizer import MAX_KNOWN_LENGTH, load_tokenizer

log = logging.getLogger(__name__)

DEFAULT_LENGTH = 2048
_MEAN = (
    "the model's score is a mean over the answer, and a complete text does not say where that begins; give prompt and "
    "answer"
)


class RunTokenization(BaseModel):
    """How the text of a trained model became tokens: the part of any version's `run.json` that scoring needs."""

    template: str = "auto"
    max_length: int | None = None
    end_token: str | None = None
    reads_names: bool = False


class Scorer:
    """Scores of answers to prompts, and of complete texts. Not for several threads at once.

    Attributes:
        beside: names of what is known of a score beside it, see `AnswerScores`.
        reads_names: whether names of systems are system prompts, as in training.
        reading: what decides which tokens are read and where, by its name in messages.
        moments: mean and standard deviation of the scores on held-out pairs; None if they are not normalized.
    """

    beside: tuple[str, ...] = ()

    def __init__(
        self,
        model: str,
        *,
        batch_tokens: int = 8192,
        max_length: int | None = None,
        template: str | None = None,
        trust_remote_code: bool = False,
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
        with. `raw` leaves out a normalization that is stored with the model. `tokenizer`: another folder or name for
        the tokenizer. For the rest see `model.external.load_any` and `model.deepspeed_chat`.

        Raises:
            UserError: the model or its tokenizer cannot be used.
        """
        start_threads()
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        folder = model_folder(model, revision=revision, code=trust_remote_code, bins=convert_bin)
        verify_model(folder, repair=False)
        trained = _tokenization(folder)
        loaded, is_chat = load_any(folder, dtype=dtype, trust_remote_code=trust_remote_code, convert_bin=convert_bin)
        text_tokenizer = load_tokenizer(tokenizer or _tokenizer_source(folder, is_chat), trust_remote_code)
        if trained is None and is_export(text_tokenizer.chat_template):
            log.warning("%s has no run.json: its files cannot be checked, and max_length is the tokenizer's", model)
            trained = RunTokenization()
        length = _length(loaded, text_tokenizer, max_length, trained.max_length if trained else None)
        encoder: ConversationEncoder
        if is_chat and template is None:
            encoder = DeepSpeedChatEncoder(
                text_tokenizer, max_length=length, num_padding_at_beginning=num_padding_at_beginning
            )
            setattr(loaded.config, KEY, {"score": encoder.score})
        else:
            encoder = (ConversationEncoder if trained else PublishedEncoder)(
                text_tokenizer,
                max_length=length,
                template=template or (trained.template if trained else "auto"),
                end_token=trained.end_token if trained else None,
                num_padding_at_beginning=num_padding_at_beginning,
            )
            if not trained and not is_chat and template is None and encoder.template == "plain":
                log.info("%s has no chat template: it reads `Human: ...`, `Assistant: ...`, trained so or not", model)
        self._pad_id = _pad_id(loaded, text_tokenizer, is_chat)
        self._model = RewardModel(loaded.to(self._device), raw=raw, max_length=length)
        if self._model.max_tokens is not None:
            encoder.max_length = min(encoder.max_length, self._model.max_tokens)
        self._encoder = encoder
        self._cut = 0
        self._reads_conversations = trained is not None
        as_trained = (encoder.first_ids(), encoder.ending) if trained else ()
        self._texts = TextEncoder(text_tokenizer, encoder.end_id, encoder.max_length, *as_trained)
        self._batch_tokens = batch_tokens
        self._compute: Compute | None = None
        self.name = model
        self.beside = tuple(attribute["name"] for attribute in self._model.attributes)
        self.reads_names = trained is not None and trained.reads_names
        self.reading: dict[str, object] = {
            "tokenizers": text_tokenizer.backend_tokenizer.to_str(),
            "templates": (type(encoder), encoder.template, text_tokenizer.chat_template, encoder.end_id),
            "lengths (max_length)": encoder.max_length,
            "readings of `system` (fields)": self.reads_names,
            "heads (score)": (self._model.score_positions.score, self.beside),
        }
        entry = None if raw else score_config(loaded).get("normalization")
        self.moments = None if entry is None else (entry["mean_left"] if entry["folded"] else 0.0, 1.0)

    @property
    def max_length(self) -> int:
        """The most tokens of a prompt with an answer."""
        return self._encoder.max_length

    @property
    def cut(self) -> int:
        """How many prompts and complete texts have lost their beginning so far, to fit into `max_length`."""
        return self._cut + self._texts.cut

    def score(
        self,
        prompts: Sequence[Prompt],
        answers: Sequence[Sequence[str]],
        inputs: Sequence[TemplateInputs] | None = None,
    ) -> list[list[float] | UnscorableError]:
        """The scores of each prompt's answers; an `UnscorableError` where an answer does not fit into the model.

        `inputs`: what the chat template gets besides each prompt, such as tools; None for nothing.
        """
        return self.score_encoded(self.encode(prompts, answers, inputs))

    def encode(
        self,
        prompts: Sequence[Prompt],
        answers: Sequence[Sequence[str]],
        inputs: Sequence[TemplateInputs] | None = None,
    ) -> list[Comparison | UnscorableError]:
        """The tokens of each prompt with its answers."""
        results: list[Comparison | UnscorableError] = []
        for item in self._encoder.encode(prompts, answers, inputs):
            error = next(iter(item.too_long.values()), None) if isinstance(item, EncodedAnswers) else item
            if error is not None:
                limit = f"; the model takes {self.max_length} with its prompt" if hasattr(error, "length") else ""
                results.append(UnscorableError(f"{error}{limit}", error.reason))
            elif isinstance(item, EncodedAnswers):
                self._cut += item.truncated_tokens > 0
                results.append(_comparison(item))
        return results

    def encode_texts(self, texts: Sequence[str], ended: bool) -> list[Comparison | UnscorableError]:
        """The tokens of complete texts, with prompt, answer and all headings; see `TextEncoder`.

        For a model that the pipeline trained, a transcript is a conversation, and every text ends as in training.
        """
        if self._reads_conversations:
            complete = [self._texts.complete(text) for text in texts]
            found = [read_full_text(text.removesuffix(self._encoder.ending)) for text in complete]
            read = [item for item in found if item is not None]
            conversations = iter(self.encode([item.prompt for item in read], [item.answers for item in read]))
            rest = [text for text, item in zip(complete, found, strict=True) if item is None]
            others = iter(self._encoded(rest, ended=False))
            return [next(others if item is None else conversations) for item in found]
        return self._encoded(texts, ended)

    def encode_ids(self, sequences: Sequence[Sequence[int]]) -> list[Comparison | UnscorableError]:
        """The tokens of complete texts of which the tokens, of this model's tokenizer, are given."""
        if self._model.score_positions.score == "mean":
            return [UnscorableError(_MEAN) for _ in sequences]
        size = self._model.model.get_input_embeddings().num_embeddings
        results: list[Comparison | UnscorableError] = []
        for ids in sequences:
            if ids and 0 <= min(ids) <= max(ids) < size:
                results.append(_comparison(EncodedAnswers([self._texts.end(ids)], 0)))
            else:
                results.append(UnscorableError(f"token ids must be from 0 to {size - 1}, and at least one"))
        return results

    def _encoded(self, texts: Sequence[str], ended: bool) -> list[Comparison | UnscorableError]:
        if self._model.score_positions.score == "mean":
            return [UnscorableError(_MEAN) for _ in texts]
        return [_comparison(EncodedAnswers([ids], 0)) for ids in self._texts.encode(texts, ended)]

    def score_encoded(self, items: Sequence[Comparison | UnscorableError]) -> list[list[float] | UnscorableError]:
        """The scores of encoded items, in the same order; errors stay, and one says that a score is not finite."""
        scores = iter(self._finite([item for item in items if isinstance(item, Comparison)]))
        return [item if isinstance(item, UnscorableError) else next(scores) for item in items]

    def _finite(self, comparisons: Sequence[Comparison]) -> list[list[float] | UnscorableError]:
        """The scores of comparisons, computed together; each alone where a score is not finite."""
        scored = score_comparisons(
            self._model,
            comparisons,
            device=self._device,
            pad_id=self._pad_id,
            batch_tokens=self._batch_tokens,
            compute=self._compute,
        )
        try:
            return [self._named(outputs) for _, outputs in scored]
        except UserError:
            if len(comparisons) == 1:
                return [UnscorableError("the model gives it a score that is not a finite number", "not_finite")]
            return [self._finite([comparison])[0] for comparison in comparisons]

    def _named(self, outputs: Scores) -> list[float]:
        """The scores; of a model with attributes an `AnswerScores`."""
        scores: list[float] = outputs.tolist() if outputs.ndim == 1 else outputs[:, 0].tolist()
        if not self.beside:
            return scores
        others = outputs[:, 1:].T.tolist()
        return AnswerScores(scores, dict(zip(self.beside, others, strict=True)))


def open_scorer(folder: Path, load: Callable[[], Scorer], dtype: Dtype = "auto", processes: int = 0) -> Scorer:
    """The scorer that `load`, which must be picklable, makes of the model in a folder, held by several processes.

    By how many: see `partitioned.processes_for`.

    Raises:
        UserError: the model or its tokenizer cannot be used, or not in so many processes.
    """
    scorer, compute = partitioned.load(folder, load, _model_of, dtype, processes)
    scorer._compute = compute
    return scorer


def _model_of(scorer: Scorer) -> RewardModel:
    return scorer._model


def _comparison(item: EncodedAnswers) -> Comparison:
    return Comparison("", *split_prefix(item.sequences), [], item.answer_start)


def _tokenization(folder: Path) -> RunTokenization | None:
    """How the text of a model that rewardline trained became tokens; None for other models.

    Raises:
        UserError: its training has diverged.
    """
    path = folder / "run.json"
    run = read_manifest(path, repair=False) if path.is_file() else None
    if isinstance(run, dict) and run.get("diverged"):
        raise UserError(f"{folder} has no weights: its training has diverged ({run['diverged']}); name another model")
    tokenization = run.get("tokenization") if isinstance(run, dict) else None
    return RunTokenization.model_validate(tokenization) if tokenization else None


def _tokenizer_source(model: Path, is_chat: bool) -> Path | str:
    """Where the tokenizer is: with the model, or with the base model where DeepSpeed-Chat saved a vocabulary only."""
    names = ["tokenizer.json", "tokenizer_config.json", *([] if is_chat else ["vocab.*", "*.model"])]
    if any(any(model.glob(name)) for name in names):
        return model
    if not is_chat:
        raise UserError(f"{model} holds no tokenizer; give --tokenizer with the folder or the name of its base model")
    origin = str(read_json(model / "config.json").get("_name_or_path") or "")
    if origin in ("", str(model)):
        raise UserError(
            f"{model} holds no complete tokenizer, as DeepSpeed-Chat saves a vocabulary only; give --tokenizer with "
            "the folder or the name of the base model"
        )
    log.info("%s holds no complete tokenizer: taking that of %s, which it was trained from", model, origin)
    return origin


def _length(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, requested: int | None, trained: int | None
) -> int:
    """The most tokens: as requested, as trained, else the least that model and tokenizer name."""
    positions = usable_positions(model)
    if requested is not None:
        if positions is not None and requested > positions:
            raise UserError(f"--max-length {requested}: the model has {positions} positions; give at most that")
        return requested
    if trained is not None:
        return trained
    limits = (positions, tokenizer.model_max_length)
    return min((n for n in limits if isinstance(n, int) and 0 < n < MAX_KNOWN_LENGTH), default=DEFAULT_LENGTH)


def _pad_id(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, is_chat: bool) -> int:
    """A token for padding that the model has; checks that it has those of the tokenizer."""
    size = model.get_input_embeddings().num_embeddings
    check_vocabulary(size, tokenizer, grows=False)
    ends = is_chat and model.config.model_type != "llama"  # DeepSpeed-Chat pads with the end token
    pad: int = tokenizer.eos_token_id if ends else tokenizer.pad_token_id
    return pad if pad < size else tokenizer.eos_token_id
