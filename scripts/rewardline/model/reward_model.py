"""The reward model: a transformer with a score head, and the only code that reads its scores."""

import logging
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from transformers import PreTrainedModel

from rewardline.core.errors import UserError
from rewardline.model import neighbors, routers
from rewardline.model.batch import Batch, Batching
from rewardline.model.folder import usable_positions
from rewardline.model.normalization import AttributeEntry, Normalization, score_config
from rewardline.model.packing import attention, kernels
from rewardline.model.packing.layout import Kernel, Layout
from rewardline.model.score_positions import Score, ScorePositions, segment_means

log = logging.getLogger(__name__)


class RewardModel(nn.Module):
    """Scores every sequence of a batch.

    Decoders with a linear `score` head are read at `score_positions`, which follow from lengths. Other models
    (encoders) return their logits themselves. The score of a model with several outputs is their weighted sum.

    Attributes:
        attributes: what the outputs of a model with several are, else empty; see `set_weights`.
        batching: the batches that it takes; padded where shared prefixes are not exact for the model.
        alone_above: rows of more tokens are computed alone, since their scores would depend on the rows beside them;
            None if no row's would. Packed batches must not have two such rows, or one and others.
        kernels: those that may compute the attention of packed rows, of which it uses the first at first.
        reads_some: whether the last layer is computed only at the tokens that are read.
        router_coefficient: that of the routers' load-balancing loss, 0 for none.
        router_loss: that loss of the last batch, where the coefficient is not 0 and the model is in training mode.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        batching: Batching = "shared_prefix",
        kernel: kernels.Choice = "sdpa",
        *,
        score: Score | None = None,
        raw: bool = False,
        max_length: int | None = None,
        dtype: torch.dtype | None = None,
        compares: bool = False,
        router_coefficient: float | None = 0.0,
        attributes: Sequence[AttributeEntry] | None = None,
    ) -> None:
        """Prepare `model`.

        `score`: None takes that of its configuration; `raw` omits its normalization. `max_length`: tokens of the
        longest sequence, None if that is not known; `dtype`: that of the computation, None for the model's. `kernel`:
        for the attention of packed rows, see `kernels.candidates`. `compares`: a batch must have all answers of a
        comparison, as losses need them, also where their rows are computed alone. `router_coefficient`: None for that
        of a configuration that asks for the loss. `attributes`: None for those of its configuration.

        Raises:
            UserError: the model does not support `score`, has fewer positions than `max_length`, or its scores depend
                on more than their row.
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
        self.attributes = list(config.get("attributes", [])) if attributes is None else list(attributes)
        self.set_weights([attribute["weight"] for attribute in self.attributes])
        self.batching: Batching = batching
        self.reads_some = False
        self.kernels: tuple[Kernel, ...] = ("sdpa",)
        self.router_coefficient = routers.coefficient(model, router_coefficient)
        self.router_loss: Tensor | None = None
        self.alone_above = neighbors.switch_length(model.config)
        if self.alone_above is not None and max_length is not None:
            longest = max_length + (score == "first_padding")
            self.alone_above = None if longest <= self.alone_above else self.alone_above
        is_known = type(model).__module__.startswith("transformers.") and model.config.model_type in attention.VERIFIED
        together = max_length if self.alone_above is None else self.alone_above
        self._probe = neighbors.Probe(model, self.score_positions, together, is_known=is_known, trains=compares)
        is_partitioned = any(hasattr(parameter, "ds_id") for parameter in model.parameters())  # by ZeRO-3
        if is_partitioned and self.alone_above is not None:
            raise UserError(
                f"ZeRO-3 cannot compute rows alone, which this model needs for more than {self.alone_above} tokens, as "
                "its rope scaling depends on the batch; use training.zero_stage 2, score with one process, or set the "
                f"model's max_length (now {max_length}) to {self.alone_above} or less"
            )
        if self.attention in attention.NAMES.values():  # from another reward model
            model.set_attn_implementation(attention.plain_implementation(model))
        alone = None if is_partitioned else self._probe.alone(self, "padded")
        if batching == "shared_prefix":
            reason = attention.unsupported_reason(model) if self.is_decoder else "it is not a decoder"
            if reason is None and compares and self.alone_above is not None:
                reason = f"rows of more than {self.alone_above} tokens are computed alone"
            if reason is None:
                plain = self.attention
                self.kernels = kernels.candidates(kernel, dtype or model.dtype, kernels.heads_of(model, max_length))
                self.reads_some = attention.use_shared_prefix(model, self.kernels[0], self.router_coefficient > 0)
                if alone is not None and (reason := self._probe.dependence(self, "shared_prefix", alone)):
                    reason = f"a score would depend on {reason}"
                    model.set_attn_implementation(plain)
                    self.reads_some = False
            if reason is not None:
                log.info("padded batches, since shared prefixes are not exact for this model: %s", reason)
                self.batching = "padded"
        if alone is not None:
            self._compute_alone_if_needed(alone)
        if self.alone_above is not None and self.router_coefficient:
            raise UserError(
                f"training.router_aux_loss_coef: rows of more than {self.alone_above} tokens are computed alone, so"
                " that the loss of a batch is not known; set it to 0"
            )
        if self.alone_above is not None:
            log.info("rows of more than %d tokens are computed alone: the model looks at the batch", self.alone_above)

    def _compute_alone_if_needed(self, alone: list[float]) -> None:
        if self.batching == "padded" and self._probe.dependence(self, "padded", alone):
            self.alone_above = 0
            self.check_scores(self, alone)

    def check_scores(self, compute: Callable[[Batch], Tensor], alone: list[float] | None = None) -> None:
        """Check that scores depend on nothing but their row, and are those `alone`; `compute` calls this model.

        Raises:
            UserError: they do.
        """
        alone = self._probe.alone(compute, self.batching) if alone is None else alone
        if reason := self._probe.dependence(compute, self.batching, alone):
            raise UserError(
                f"{self.model.config.model_type}: this model's score of an answer depends on {reason}, so that it "
                "cannot be repeated; use another model"
            )

    @property
    def attention(self) -> str:
        """The name of the attention implementation."""
        return str(self.model.config._attn_implementation)

    @property
    def kernel(self) -> Kernel:
        """The kernel that computes the attention of packed rows; batches must be made for it."""
        return next((kernel for kernel, name in attention.NAMES.items() if name == self.attention), "sdpa")

    def use_kernel(self, kernel: Kernel) -> None:
        """Compute the attention of packed rows with `kernel` from now on."""
        self.model.set_attn_implementation(attention.NAMES[kernel])

    def set_weights(self, weights: Sequence[float]) -> None:
        """Take other weights of the attributes in the score."""
        self.attributes = [
            {**attribute, "weight": weight} for attribute, weight in zip(self.attributes, weights, strict=True)
        ]
        self._weights = torch.tensor(weights, dtype=torch.float32)  # no buffer, which would get the model's precision

    @property
    def max_tokens(self) -> int | None:
        """The most tokens of a sequence where a score needs a position after it; None for no such limit."""
        positions = usable_positions(self.model)
        is_after = self.score_positions.score == "first_padding" and self.score_positions.pad_position is None
        return positions - 1 if is_after and positions is not None else None

    def forward(self, batch: Batch, with_attributes: bool = False) -> Tensor:
        """Scores of the batch's sequences: float32 [S].

        `with_attributes`: of a model with A attributes, float32 [S, 1 + A]: the score, and then these. Where the batch
        compares tokens, the head's values at all tokens instead: float32 [rows * T]; see `scores_of`.
        """
        if self.alone_above is None or batch.layout is not None:
            states = self._batch_states(batch)
        else:
            states = self._states_by_row(batch, self.alone_above)
        if not self.is_decoder:
            return self._scores(self._outputs(states), with_attributes)
        hidden = states.flatten(0, 1)
        if batch.compared is None and batch.values_per_score is None:
            return self._scores(self._outputs(self.model.score(hidden[batch.score_indices])), with_attributes)
        values = self._outputs(self.model.score(hidden))
        return values if batch.compared is not None else self._scores(_read(values, batch), with_attributes)

    def _outputs(self, values: Tensor) -> Tensor:
        """The outputs [N, A] of the head in float32; [N] where the score is the only one."""
        return values.float() if self.attributes else values[:, 0].float()

    def _scores(self, outputs: Tensor, with_attributes: bool) -> Tensor:
        if not self.attributes:
            return self._normalized(outputs)
        if self._weights.device != outputs.device:
            self._weights = self._weights.to(outputs.device)
        scores = self._normalized((outputs * self._weights).sum(1))
        return torch.cat([scores[:, None], outputs], 1) if with_attributes else scores

    def _batch_states(self, batch: Batch) -> Tensor:
        """The states of a batch whose rows are computed together, and in training its router loss."""
        if not (self.router_coefficient and self.training):
            return self._states(batch.input_ids, batch.attention_mask, batch.position_ids, batch.layout)
        logits: list[Tensor] = []
        states = self._states(batch.input_ids, batch.attention_mask, batch.position_ids, batch.layout, logits)
        self.router_loss = routers.balance_loss(logits, self.model.config, batch)
        return states

    def _states(
        self,
        ids: Tensor,
        mask: Tensor | None,
        position_ids: Tensor,
        layout: Layout | None = None,
        router_logits: list[Tensor] | None = None,
    ) -> Tensor:
        """The last hidden states of some rows, [rows, T, hidden size]; the logits of an encoder, [rows, outputs].

        `router_logits`: a list for those of each layer.
        """
        if self.alone_above is not None:
            neighbors.forget_lengths(self.model)
        if not self.is_decoder:
            logits: Tensor = self.model(input_ids=ids, attention_mask=mask).logits
            return logits
        options: dict[str, object] = {} if layout is None else {"layout": layout}
        if router_logits is not None:
            options["output_router_logits"] = True
        outputs = self.model.base_model(
            input_ids=ids, attention_mask=mask, position_ids=position_ids, use_cache=False, **options
        )
        if router_logits is not None:
            router_logits += outputs.router_logits
        states: Tensor = outputs.last_hidden_state
        return states

    def _states_by_row(self, batch: Batch, alone_above: int) -> Tensor:
        """The same for a padded batch, with long rows computed alone; zeros at padding that is not read."""
        groups = neighbors.row_groups(batch, alone_above)
        ids, mask, position_ids = batch.input_ids, batch.attention_mask, batch.position_ids
        parts = []
        for indices, width in groups:
            part_mask = None if mask is None else mask[indices, :width]
            states = self._states(ids[indices, :width], part_mask, position_ids[indices, :width])
            missing = batch.input_ids.shape[1] - width
            parts.append(F.pad(states, (0, 0, 0, missing)) if self.is_decoder else states)
        return torch.cat(parts).index_select(0, torch.cat([indices for indices, _ in groups]).argsort())

    def _normalized(self, scores: Tensor) -> Tensor:
        return scores if self.normalization is None else self.normalization.apply(scores)


def scores_of(output: Tensor, batch: Batch) -> Tensor:
    """The scores, float32 [S], from the output of a `RewardModel` for a batch."""
    return output if batch.compared is None else _read(output, batch)


def _read(values: Tensor, batch: Batch) -> Tensor:
    # Not values[...]: its backward pass adds up in no fixed order where an index occurs twice.
    read = values.index_select(0, batch.score_indices)
    return read if batch.values_per_score is None else segment_means(read, batch.values_per_score)
