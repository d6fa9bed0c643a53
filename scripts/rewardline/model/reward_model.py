"""The reward model: a transformer with a score head, loaded strictly, read in one way everywhere, saved for anyone."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from rewardline.core.errors import UserError
from rewardline.model.batch import Batch, Batching
from rewardline.model.normalization import KEY, applied, stored
from rewardline.model.packing import attention
from rewardline.model.score_positions import Reading, Score, segment_means

log = logging.getLogger(__name__)

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
LM_HEADS = ("lm_head.", "embed_out.", "cls.", "vocab_", "lm_predictions.", "mask_predictions.")
"""Heads of a base model that a reward model does not have, by the beginning of their names."""


HEADS = (".score.", ".classifier.", ".pre_classifier.", ".pooler.")
"""Parts of a reward model that a base model may lack."""


class RewardModel(nn.Module):
    """Scores every sequence of a batch; the one place where a score is read.

    Decoders with a linear `score` head are read where `reading` says, at places that follow from lengths. Other models
    (encoders) give their own single logit.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        batching: Batching = "shared_prefix",
        kernel: attention.Kernel = "sdpa",
        *,
        score: Score | None = None,
        raw: bool = False,
        max_length: int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Prepare `model`.

        `score`: None takes what its configuration says; `raw` leaves out its normalisation. `max_length`: tokens of the
        longest sequence that will come, None if that is not known; `dtype`: that of the computation, None for the
        model's own. `kernel`: what computes the attention of packed rows, as `attention.choose` has it.

        Raises:
            UserError: `score` is not one that the model can give.
        """
        super().__init__()
        self.model = model
        self.is_decoder = isinstance(getattr(model, "score", None), nn.Module)
        score = stored(model, "score") or "end" if score is None else score
        if score != "end" and not self.is_decoder:
            raise UserError(
                f"training.score: {score} needs a decoder; {model.config.model_type} is an encoder, whose head has a "
                "place of its own. Use end"
            )
        # As transformers do for OPT, whose positions follow from the mask; elsewhere they count on.
        self.reading = Reading(score, pad_position=-1 if model.config.model_type == "opt" else None)
        self.normalization = None if raw else applied(stored(model, "normalization"))
        self.batching: Batching = batching
        self.reads_some = False
        if batching == "shared_prefix":
            reason = attention.supports_shared_prefix(model, max_length) if self.is_decoder else "it is not a decoder"
            if reason is None:
                self.reads_some = attention.use_shared_prefix(model, kernel, dtype)
            else:
                log.info("padded batches, since shared prefixes are not exact for this model: %s", reason)
                self.batching = "padded"

    @property
    def attention(self) -> str:
        """What computes the attention."""
        return str(self.model.config._attn_implementation)

    @property
    def max_tokens(self) -> int | None:
        """The most tokens of a sequence, where a score needs a position behind it; None: as many as without."""
        config = self.model.config
        positions = getattr(config, "max_position_embeddings", None)
        behind = self.reading.score == "first_padding" and self.reading.pad_position is None
        return positions - 1 if behind and isinstance(positions, int) else None

    def forward(self, batch: Batch) -> Tensor:
        """Scores of the batch's sequences: float32 [S].

        Where the batch compares tokens, the head's values at all tokens: float32 [rows * T]. `scores_of` then takes the
        scores from them.
        """
        if not self.is_decoder:
            logits: Tensor = self.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
            return self._normalized(logits[:, 0].float())
        with attention.using(batch.layout):
            states = self.model.base_model(
                input_ids=batch.input_ids,
                attention_mask=batch.attention_mask,
                position_ids=batch.position_ids,
                use_cache=False,
            ).last_hidden_state
        hidden = states.flatten(0, 1)
        if batch.compared is None and batch.reads is None:
            return self._normalized(self.model.score(hidden[batch.places])[:, 0].float())
        values: Tensor = self.model.score(hidden)[:, 0].float()
        return values if batch.compared is not None else self._normalized(_read(values, batch))

    def _normalized(self, scores: Tensor) -> Tensor:
        return scores if self.normalization is None else self.normalization.apply(scores)


def scores_of(output: Tensor, batch: Batch) -> Tensor:
    """The scores, float32 [S], from what a `RewardModel` gives for a batch."""
    return output if batch.compared is None else _read(output, batch)


def _read(values: Tensor, batch: Batch) -> Tensor:
    # Not values[...]: what its backward pass adds up at a place that is read twice has no fixed order.
    read = values.index_select(0, batch.places)
    return read if batch.reads is None else segment_means(read, batch.reads)


def load_base(
    folder: Path,
    tokenizer: PreTrainedTokenizerFast,
    *,
    seed: int,
    dtype: torch.dtype = torch.float32,
    dropout: float | None = None,
    trust_remote_code: bool = False,
    gathered: Callable[[list[nn.Parameter]], AbstractContextManager[Any]] = lambda _: nullcontext(),
) -> PreTrainedModel:
    """A base model with a score head: its own if it has one, else drawn from N(0, 1 / (hidden size + 1)) by `seed`.

    The head is the one weight that may be new (initialisation as in Stiennon et al. 2020, arXiv 2009.01325).
    `gathered` is the block in which parameters are whole and may be written, for ZeRO-3.

    Raises:
        UserError: the folder cannot be loaded, or weights are missing or left over.
    """
    options: dict[str, Any] = {}
    if dropout is not None:
        options = _dropout_options(folder, dropout, trust_remote_code)
    torch.manual_seed(seed)  # for an encoder's pooler, which its base model may lack as well
    model, info = _load(folder, dtype, trust_remote_code, num_labels=1, **options)
    new = {key for key in info["missing_keys"] if any(head in f".{key}" for head in HEADS)}
    missing = [key for key in info["missing_keys"] if key not in new]
    if not new:
        log.info("%s has a score head already; training goes on from it", folder)
    unexpected = [key for key in info["unexpected_keys"] if not key.startswith(LM_HEADS)]
    _refuse(folder, missing, unexpected, info["mismatched_keys"])
    _fit_vocabulary(model, len(tokenizer), gathered)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        if name in new and name.startswith(("score.", "classifier.")):
            with gathered([parameter]), torch.no_grad():
                if parameter.ndim == 2:
                    scale = (parameter.shape[1] + 1) ** -0.5
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
                elif parameter.numel():
                    parameter.zero_()
    model.config.pad_token_id = tokenizer.pad_token_id
    model.config.use_cache = False
    return model


def _fit_vocabulary(model: PreTrainedModel, size: int, gathered: Callable[..., AbstractContextManager[Any]]) -> None:
    """Give tokens that were added to the tokenizer, for padding, an embedding of zeros."""
    old = model.get_input_embeddings().num_embeddings
    if size > old:
        model.resize_token_embeddings(size, mean_resizing=False)
        weight = model.get_input_embeddings().weight
        with gathered([weight]), torch.no_grad():
            weight[old:] = 0


def load_reward_model(
    folder: Path | str, dtype: torch.dtype | str = torch.float32, trust_remote_code: bool = False
) -> PreTrainedModel:
    """A trained reward model: every weight must be there, and no other.

    Raises:
        UserError: the folder cannot be loaded, has no score head or one of several labels.
    """
    model, info = _load(folder, dtype, trust_remote_code)
    check_reward_model(folder, model, info)
    return model


def check_reward_model(folder: Path | str, model: PreTrainedModel, info: Any) -> None:
    """Raise `UserError` unless `model` has one label, and every weight was there, and no other.

    `info`: what transformers say of its loading.
    """
    heads = sorted(key for key in info["missing_keys"] if key.startswith(("score.", "classifier.")))
    if heads:
        raise UserError(
            f"{folder}: is no reward model: its score head ({heads[0]}) is missing. Name a trained reward model; a "
            "base model becomes one by training"
        )
    labels = model.config.num_labels
    if labels != 1:
        raise UserError(f"{folder}: is a classifier with {labels} labels; a reward model has one. Name another model")
    _refuse(folder, info["missing_keys"], info["unexpected_keys"], info["mismatched_keys"])


def _load(folder: Path | str, dtype: torch.dtype | str, trust: bool, **options: Any) -> tuple[PreTrainedModel, Any]:
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        model, info = AutoModelForSequenceClassification.from_pretrained(
            str(folder),
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=trust,
            output_loading_info=True,
            **options,
        )
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{folder}: cannot be loaded as a reward model: {reason}") from error
    finally:
        transformers_logging.set_verbosity(verbosity)
    return model, info


def _refuse(folder: Path | str, missing: Any, unexpected: Any, mismatched: Any) -> None:
    for kind, keys in (("are missing", missing), ("are left over", unexpected), ("have another shape", mismatched)):
        names = sorted(str(key) for key in keys)
        if names:
            raise UserError(
                f"{folder}: {len(names)} weights {kind} ({', '.join(names[:3])}...); its files and config.json "
                "do not belong together"
            )


def _dropout_options(folder: Path, dropout: float, trust: bool) -> dict[str, Any]:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(str(folder), trust_remote_code=trust)
    names = [name for name in config.to_dict() if name.endswith(("dropout", "_pdrop", "dropout_prob"))]
    return {name: dropout for name in names if isinstance(getattr(config, name), float | int)}


def save_reward_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    state: dict[str, Tensor] | None = None,
    *,
    score: Score = "end",
    normalization: dict[str, Any] | None = None,
) -> None:
    """Save a folder that plain transformers load: one safetensors file, one label, a padding token.

    They score alike where `score` is `end` and no normalisation is left to apply; what config.json says of both is for
    `RewardModel`.
    """
    setattr(model.config, KEY, {"score": score, "normalization": normalization})
    model.config.num_labels = 1
    model.config.problem_type = "regression"
    model.config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder, state_dict=state, max_shard_size="1TB")
    tokenizer.save_pretrained(folder)
