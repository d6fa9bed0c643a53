"""An optimizer step, and the model that training starts from.

The key of a training run covers the code of this module, of `held_out`, of `export` and of what they import (see
`reuse`). What decides how weights change belongs there; `train` and `loop`, which the key does not cover, only call it.
"""

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from deepspeed import DeepSpeedEngine
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from rewardline.core.errors import UserError
from rewardline.core.runtime import rank, world_size
from rewardline.model import lora
from rewardline.model.batch import Batch
from rewardline.model.layers import checkpointing, compilation
from rewardline.model.loading import DTYPES, load_base
from rewardline.model.normalization import AttributeEntry
from rewardline.model.reward_model import RewardModel, scores_of
from rewardline.tokens.tokenizer import load_tokenizer
from rewardline.training import engine
from rewardline.training.batching import LoadedBatch, MicroBatchLoader, Piece, StepSampler
from rewardline.training.length_control import LengthControl, slope_penalty, step_sums
from rewardline.training.loss import Sums, Targets, batch_loss, batch_sums, pair_losses
from rewardline.training.processes.collectives import sum_over_processes
from rewardline.training.schedule import learning_rate
from rewardline.training.settings import ObjectiveSettings, TrainingSettings, TrainStageSettings

log = logging.getLogger(__name__)


def build_model(
    settings: TrainStageSettings, base: Path, max_length: int, targets: Targets | None = None
) -> tuple[RewardModel, PreTrainedTokenizerFast]:
    """The base model with a score head, and adapters where the settings ask for them; and its tokenizer.

    `max_length`: tokens of the longest sequence; `targets`: those of the objective, if it has any.
    """
    attributes = attribute_entries(settings.training.objective, targets)
    tokenizer = load_tokenizer(base, settings.trust_remote_code)
    training = settings.training
    model = load_base(
        base,
        tokenizer,
        seed=settings.seed,
        # ZeRO-3 partitions what is loaded, in the precision of the computation; else the engine converts it.
        dtype=DTYPES[training.precision] if training.zero_stage == 3 else torch.float32,
        dropout=training.dropout,
        trust_remote_code=settings.trust_remote_code,
        gathered=partial(engine.gathered, write=True),
        outputs=len(attributes) or 1,
    )
    if training.lora:
        lora.add_adapters(model, training.lora, settings.seed)
    reward_model = RewardModel(
        model, training.batching, "sdpa" if training.dropout != 0 else training.attention,  # others have no dropout
        score=training.score, raw=True, max_length=max_length,
        dtype=DTYPES[training.precision], compares=True, router_coefficient=training.router_aux_loss_coef,
        attributes=attributes,
    )  # fmt: skip
    if training.gradient_checkpointing:
        checkpointing.enable(model, training.gradient_checkpointing)
    if compiles(training, model):
        compilation.compile_layers(model)
    return reward_model, tokenizer


def compiles(training: TrainingSettings, model: PreTrainedModel) -> bool:
    """Whether the layers of a model are compiled.

    Raises:
        UserError: they are to be, and cannot.
    """
    if not training.compile or (training.compile == "auto" and not torch.cuda.is_available()):
        return False
    reason = training.plain_layers or compilation.unsupported_reason(model)
    if reason is not None and training.compile == "auto":
        log.info("layers are not compiled: %s", reason)
    elif reason is not None:
        raise UserError(f"training.compile: {reason}; set it to auto or false")
    return reason is None


def attribute_entries(objective: ObjectiveSettings | None, targets: Targets | None) -> list[AttributeEntry]:
    """The outputs of a model that learns attributes; empty for others."""
    if objective is None or targets is None or targets.type != "regression":
        return []
    entries = zip(targets.names, targets.mean, targets.std, objective.given_weights, strict=True)
    return [AttributeEntry(name=name, mean=mean, std=std, weight=weight) for name, mean, std, weight in entries]


class DivergedError(Exception):
    """The loss or the gradient of a step is not finite."""


@dataclass(frozen=True)
class StepResult:
    """Sums over the pairs of all processes, the learning rate, and the gradient's norm before clipping if known."""

    sums: Sums
    learning_rate: float
    gradient_norm: float | None


class PlannedStep(NamedTuple):
    """The epoch that a step ends at, its pieces, and this process's micro batches, which can be taken once."""

    epoch: float
    pieces: list[Piece]
    batches: Iterator[LoadedBatch]


class OptimizerStep:
    """Takes the steps of a training run: the same for any number of processes and micro batches, up to rounding."""

    def __init__(self, running: DeepSpeedEngine, settings: TrainStageSettings, loader: MicroBatchLoader) -> None:
        self._engine, self._settings, self.loader = running, settings, loader
        self._mean_weight = loader.data.mean_weight(loader.by_prompt)
        self.length_control: LengthControl | None = None
        if settings.training.length_control and loader.data.pairs:
            self.length_control = LengthControl.start(loader.data, self._mean_weight)
        self.sampler = StepSampler(loader.data, settings.training, settings.seed)

    def steps(self, done: int) -> Iterator[PlannedStep]:
        """The steps after the first `done`."""
        batches = self.loader.load_steps(pieces for _, pieces in self.sampler.steps(done))
        for (epoch, pieces), loaded in zip(self.sampler.steps(done), batches, strict=False):
            yield PlannedStep(epoch, pieces, loaded)

    def take(self, step: int, planned: PlannedStep, observe: Callable[[Batch], None]) -> StepResult:
        """Take step `step` (0-based); `observe` gets each real micro batch of this process.

        The values of its result are the only ones that are read from the device, after the weights have changed.

        Raises:
            DivergedError: the loss or the gradient is not finite.
        """
        training, control = self._settings.training, self.length_control
        # Dropout draws from (seed, step, process) alone, so that a step is the same after a resume.
        torch.manual_seed(int(np.random.SeedSequence([self._settings.seed, step, rank()]).generate_state(1)[0]))
        rate = learning_rate(training, step, self.sampler.total_steps)
        for group in self._engine.optimizer.param_groups:
            group["lr"] = rate
        # The engine averages over processes. The mean is over the step's pairs, or prompts, whatever their packing;
        # weights are relative to the mean weight of all pairs, or prompts.
        units = self.loader.units(planned.pieces) * self._mean_weight
        local_sums = torch.zeros(len(Sums._fields), dtype=torch.float64, device=self.loader.device)
        length_sums = local_sums.new_zeros(4 if control else 0)
        coefficient = (
            torch.tensor(control.coefficient, requires_grad=True, device=self.loader.device) if control else None
        )
        for batch, is_real in planned.batches:
            output = self._engine(batch) if self.loader.targets is None else self._engine(batch, True)
            scores = output[:, 0] if output.ndim > 1 else scores_of(output, batch)
            losses = pair_losses(
                scores, batch, values=output, soft_labels=True, label_smoothing=training.label_smoothing,
                margin=training.margin, centering=training.centering, length_coefficient=coefficient,
            )  # fmt: skip
            both = batch_loss(losses, output, batch, self.loader.targets)
            loss, router_loss = both.total(batch), self._engine.module.router_loss
            if router_loss is not None:
                weight = batch.weight.sum() + batch.rated_weight.sum()
                loss = loss + self._engine.module.router_coefficient * router_loss * weight
            if control is not None and coefficient is not None:
                if is_real:
                    length_sums += step_sums(scores, losses, coefficient, batch, training.margin)
                loss = loss + both.pair_weight * slope_penalty(scores, batch, control.slope, training.margin)
            self._engine.backward(loss * (world_size() * is_real / units))
            if is_real:
                observe(batch)
                local_sums += batch_sums(scores, both, batch, router_loss)
        try:
            norm = engine.update(self._engine, training.clip)
        except Exception as error:
            if "loss scale" not in str(error):
                raise
            raise DivergedError("gradients overflow in fp16 even at the lowest loss scale") from error
        totals = sum_over_processes(torch.cat([local_sums, length_sums])).tolist()
        sums = Sums(*totals[: len(Sums._fields)])
        if not math.isfinite(sums.weighted_loss):
            raise DivergedError("the loss is not finite")
        norm = None if norm is None else float(norm)
        # A gradient that overflows in fp16 is expected: the loss scaler leaves that step out.
        if norm is not None and not math.isfinite(norm) and training.precision != "fp16":
            raise DivergedError("the gradient is not finite")
        if control is not None:
            control.update(*totals[len(Sums._fields) :])
        return StepResult(sums, rate, norm)
