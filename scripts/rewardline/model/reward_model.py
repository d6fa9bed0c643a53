"""The reward model: a transformer with a score head, and the only code that reads its scores."""

import logging

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rewardline.core.errors import UserError
from rewardline.model.batch import Batch, Batching
from rewardline.model.folder import usable_positions
from rewardline.model.normalization import Normalization, score_config
from rewardline.model.packing import attention
from rewardline.model.score_positions import Score, ScorePositions, segment_means

log = logging.getLogger(__name__)


class RewardModel(nn.Module):
    """Scores every sequence of a batch.

    Decoders with a linear `score` head are read at `score_positions`, which follow from lengths. Other models
    (encoders) return a single logit themselves.

    Attributes:
        batching: the batches that it takes; padded where shared prefixes are not exact for the model.
        reads_some: whether the last layer is computed only at the tokens that are read.
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

        `score`: None takes that of its configuration; `raw` omits its normalization. `max_length`: tokens of the
        longest sequence, None if that is not known; `dtype`: that of the computation, None for the model's. `kernel`:
        for the attention of packed rows, see `attention.choose`.

        Raises:
            UserError: the model does not support `score`, or has fewer positions than `max_length`.
        """
        super().__init__()
        positions = usable_positions(model)
        if max_length is not None and positions is not None and max_length > positions:
            raise UserError(
                f"max_length is {max_length}, but {model.name_or_path or 'the model'} has {positions} usable "
                f"positions; set max_length to {positions} or less"
            )
        self.model = model
        self.is_decoder = isinstance(getattr(model, "score", None), nn.Module)
        config = score_config(model)
        score = config.get("score", "end") if score is None else score
        if score != "end" and not self.is_decoder:
            raise UserError(
                f"training.score: {score} needs a decoder; {model.config.model_type} is an encoder, whose head reads a "
                "fixed position. Use end"
            )
        # As transformers do for OPT, whose position ids follow from the mask; elsewhere they continue.
        self.score_positions = ScorePositions(score, pad_position=-1 if model.config.model_type == "opt" else None)
        entry = None if raw else config.get("normalization")
        self.normalization = Normalization(entry["mean"], entry["std"]) if entry and not entry["folded"] else None
        self.batching: Batching = batching
        self.reads_some = False
        if batching == "shared_prefix":
            reason = attention.unsupported_reason(model, max_length) if self.is_decoder else "it is not a decoder"
            if reason is None:
                self.reads_some = attention.use_shared_prefix(model, kernel, dtype)
            else:
                log.info("padded batches, since shared prefixes are not exact for this model: %s", reason)
                self.batching = "padded"

    @property
    def attention(self) -> str:
        """The name of the attention implementation."""
        return str(self.model.config._attn_implementation)

    @property
    def max_tokens(self) -> int | None:
        """The most tokens of a sequence where a score needs a position after it; None for no such limit."""
        positions = usable_positions(self.model)
        is_after = self.score_positions.score == "first_padding" and self.score_positions.pad_position is None
        return positions - 1 if is_after and positions is not None else None

    def forward(self, batch: Batch) -> Tensor:
        """Scores of the batch's sequences: float32 [S].

        Where the batch compares tokens, the head's values at all tokens instead: float32 [rows * T]; see `scores_of`.
        """
        inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        if not self.is_decoder:
            logits: Tensor = self.model(**inputs).logits
            return self._normalized(logits[:, 0].float())
        layout = {} if batch.layout is None else {"layout": batch.layout}
        states = self.model.base_model(
            **inputs, position_ids=batch.position_ids, use_cache=False, **layout
        ).last_hidden_state
        hidden = states.flatten(0, 1)
        if batch.compared is None and batch.values_per_score is None:
            return self._normalized(self.model.score(hidden[batch.score_indices])[:, 0].float())
        values: Tensor = self.model.score(hidden)[:, 0].float()
        return values if batch.compared is not None else self._normalized(_read(values, batch))

    def _normalized(self, scores: Tensor) -> Tensor:
        return scores if self.normalization is None else self.normalization.apply(scores)


def scores_of(output: Tensor, batch: Batch) -> Tensor:
    """The scores, float32 [S], from the output of a `RewardModel` for a batch."""
    return output if batch.compared is None else _read(output, batch)


def _read(values: Tensor, batch: Batch) -> Tensor:
    # Not values[...]: its backward pass adds up in no fixed order where an index occurs twice.
    read = values.index_select(0, batch.score_indices)
    return read if batch.values_per_score is None else segment_means(read, batch.values_per_score)
