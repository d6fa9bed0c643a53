"""The training loop: the same steps for any number of processes, resumable at any checkpoint."""

import logging
import math
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
import torch.distributed as dist

from rewardline.core import runtime
from rewardline.core.errors import UserError
from rewardline.core.progress import progress
from rewardline.model import batch as batches
from rewardline.model.batch import Batch
from rewardline.model.normalization import Normalization, moments
from rewardline.model.packing import attention
from rewardline.model.reward_model import RewardModel, scores_of
from rewardline.model.score_positions import ScorePositions
from rewardline.tokens.store import TokenDataset
from rewardline.training import batching, checkpoints, early_stopping, engine, loggers, signals
from rewardline.training.batching import Piece, Plan
from rewardline.training.early_stopping import Chance, Selection
from rewardline.training.health import DriftWatch
from rewardline.training.loss import pair_losses, pair_sums
from rewardline.training.schedule import learning_rate, warmup_steps
from rewardline.training.settings import TrainSettings
from rewardline.training.signals import INTERRUPTED, PREEMPTED
from rewardline.training.throughput import Counts, Work

log = logging.getLogger(__name__)

Json = dict[str, Any]
UNSAVED_SECONDS = 60.0
"""How much of a training may be lost by a kill between its last step and its export."""
EVAL_PAIRS = 512
"""Pairs of the eval split that are scored during training; the first, which are ordered by a hash of their prompt."""


@dataclass
class Totals:
    """What a training has done so far; saved with each checkpoint."""

    step: int = 0
    pairs: int = 0
    tokens: int = 0
    computed_tokens: int = 0
    seconds: float = 0.0


@dataclass
class Trainer:
    """One process's part of a training.

    `folder` holds log and checkpoints; `rank` and `world` are this process's number and their count.
    """

    wrapped: RewardModel
    engine: Any
    settings: TrainSettings
    data: TokenDataset
    held_out: TokenDataset
    folder: Path
    pad_id: int
    rank: int
    world: int
    device: torch.device
    totals: Totals = field(default_factory=Totals)
    selection: Selection = field(default_factory=Selection)
    chance: Chance = field(default_factory=Chance)
    drift: DriftWatch = field(default_factory=DriftWatch)
    work: Work = field(default_factory=Work)
    continued: list[Json] = field(default_factory=list)
    _loggers: list[loggers.Logger] = field(default_factory=list)
    _stopped_by: int | None = None
    _saved_at: float = 0.0

    def __post_init__(self) -> None:
        self.training = self.settings.training
        loss = self.training.loss
        self._reading = replace(
            self.wrapped.score_positions, span=loss if loss in ("per_token", "per_token_published") else None
        )
        self._sizes = batches.sizes_for(self.data, self.wrapped.batching, self._reading)
        # flex_attention needs none, but knows no dropout.
        self._masks = self.wrapped.attention != attention.FLEX or self.training.dropout != 0
        self._by_prompt = loss == "kwise"
        self._mean_weight = self.data.mean_weight(self._by_prompt)
        self._plan = Plan(self.data, self.training, self.settings.seed)
        self.total_steps = self._plan.total_steps()

    def run(self) -> None:
        """Train from the newest checkpoint, or from the start, to the end."""
        signals.on_stop(self._on_stop)
        self._restore()
        if self.rank == 0:
            self._loggers = loggers.start(self.training.loggers, self.settings, self.folder, self.totals.step)
        self._saved_at = time.monotonic()
        self.engine.train()
        with progress(self.settings.run, self.total_steps, "step", self.totals.step, self.rank > 0) as bar:
            for epoch, pieces in self._plan.steps(self.totals.step, self.total_steps):
                if self._is_stopped_early():
                    break
                line = self._step(epoch, pieces)
                self._write(line)
                self._compare_with_chance(line)
                if self.rank == 0:
                    self.drift.see(line)
                bar.set_postfix_str(
                    f"loss {line['loss']:.3f}, {line['tokens_per_second']:,.0f} tokens/s", refresh=False
                )
                bar.update(1)
                self._after_step(epoch)
        self._save_the_end()
        for logger in self._loggers:
            logger.close()
        signals.leave_on_terminate()

    def _save_the_end(self) -> None:
        """Save what the last checkpoint lacks, so that a kill during the export does not cost it."""
        wanted = bool(self.training.checkpoint_every or self.training.checkpoint_minutes)
        (late,) = self._on_any(time.monotonic() - self._saved_at >= UNSAVED_SECONDS)
        if wanted and late:
            checkpoints.save(self.engine, self.folder, self.totals.step, self._state())

    def _restore(self) -> None:
        """Take up the state of the newest checkpoint, if there is one."""
        state = checkpoints.restore(self.engine, self.folder)
        if state is None:
            return
        self.totals = Totals(**state["totals"])
        self.selection = Selection(**state["selection"])
        self.chance = Chance(**state["chance"])
        self.drift = DriftWatch(**state["drift"])
        self.work = Work(Counts(*state["work"]))
        here = {"step": self.totals.step, "world_size": self.world, "zero_stage": self.training.zero_stage}
        self.continued = [*state["continued"], here]
        if self.selection.best_sha256 is not None and not checkpoints.agreed(
            lambda: early_stopping.is_kept(self.folder, self.selection)
        ):
            log.warning("the weights of step %d, the best, are missing or damaged", self.selection.best_step)
            self.selection.best_sha256 = self.selection.best_loss = None

    def _state(self) -> Json:
        """What `_restore` takes up."""
        parts = {"totals": self.totals, "selection": self.selection, "chance": self.chance, "drift": self.drift}
        state: Json = {name: dict(vars(part)) for name, part in parts.items()}
        return {**state, "work": self.work.total(self.device), "continued": self.continued}

    def _is_stopped_early(self) -> bool:
        stopping = self.training.early_stopping
        if stopping is None or self.selection.stale < stopping.patience:
            return False
        log.info(
            "stopped early after step %d: %d evaluations in a row without a lower eval loss",
            self.totals.step, self.selection.stale,
        )  # fmt: skip
        return True

    def _compare_with_chance(self, line: Json) -> None:
        warm = warmup_steps(self.training, self.total_steps)
        if line["step"] > warm:
            message = self.chance.add(line, min(early_stopping.CHANCE_STEPS, self.total_steps - warm))
            if message and self.rank == 0:
                log.warning("%s", message)

    def _step(self, epoch: float, pieces: list[Piece]) -> Json:
        begin = time.perf_counter()
        # Dropout draws from (seed, step, process) alone, so that a step is the same after a resume.
        torch.manual_seed(
            int(np.random.SeedSequence([self.settings.seed, self.totals.step, self.rank]).generate_state(1)[0])
        )
        rate = learning_rate(self.training, self.totals.step, self.total_steps)
        engine.set_learning_rate(self.engine, rate)
        count = sum(piece.pairs / self._pairs_as_one(piece) for piece in pieces)
        sums = torch.zeros(9, dtype=torch.float64, device=self.device)
        for batch, is_real in self._micro_batches(self.data, pieces, self._sizes, self._reading):
            output = self.engine(batch)
            scores = scores_of(output, batch)
            losses = pair_losses(scores, batch, values=output, **self._loss_options())
            # The engine averages over processes. The mean is over the step's pairs, or prompts, whatever their
            # packing; weights are relative to the mean weight of all pairs, or prompts.
            loss = (losses * batch.weight).sum() * (self.world * is_real / (count * self._mean_weight))
            self.engine.backward(loss)
            if is_real:
                self.work.add(batch, self.wrapped.reads_some)
                sums[:7] += pair_sums(scores, losses, batch)
                sums[7:] += torch.tensor([batch.full_tokens, batch.tokens], dtype=torch.float64, device=self.device)
        norm = engine.clip_gradients(self.engine, self.training.clip, self.world)
        self._take_step(pieces)
        if self.world > 1:
            dist.all_reduce(sums)
        weight, loss_sum, correct, chosen, rejected, pairs, squares, full_tokens, tokens = sums.tolist()
        norm = engine.gradient_norm(self.engine) if norm is None else norm
        if not math.isfinite(loss_sum):
            self._stop(pieces, "the loss is not finite")
        # A gradient that overflows in fp16 is no news: the loss scaler leaves that step out.
        if norm is not None and not math.isfinite(norm) and self.training.precision != "fp16":
            self._stop(pieces, "the gradient is not finite")
        seconds = time.perf_counter() - begin
        done = self.totals
        done.step, done.pairs, done.tokens = done.step + 1, done.pairs + int(pairs), done.tokens + int(full_tokens)
        done.computed_tokens += int(tokens)
        done.seconds += seconds
        return {
            "step": done.step,
            "epoch": epoch,
            "loss": loss_sum / weight,
            "accuracy": correct / pairs,
            "chosen_mean": chosen / pairs,
            "rejected_mean": rejected / pairs,
            "score_std": moments(2 * pairs, chosen + rejected, squares).std,
            "learning_rate": rate,
            "grad_norm": norm,
            "pairs": int(pairs),
            "tokens": int(full_tokens),
            "computed_tokens": int(tokens),
            "tokens_per_second": round(full_tokens / seconds, 1),
        }

    def _loss_options(self) -> Json:
        chosen = self.training
        options = {"label_smoothing": chosen.label_smoothing, "margin": chosen.margin, "centering": chosen.centering}
        return {**options, "soft_labels": True}

    def _pairs_as_one(self, piece: Piece) -> int:
        """How many pairs together weigh as much as one unit of the mean: those of a prompt with kwise, else one."""
        return int(self.data.pair_counts[piece.index]) if self._by_prompt else 1

    def _micro_batches(
        self, data: TokenDataset, pieces: list[Piece], sizes: Any, reading: ScorePositions
    ) -> Iterator[tuple[Batch, bool]]:
        """This process's micro batches. All processes get the same number: some of them stand in, and do not count."""
        rows = data.tail_counts if self.wrapped.batching == "padded" else None
        groups = batching.micro_batches(sizes, pieces, self.training.tokens_per_micro_batch, rows)
        for begin in range(0, len(groups), self.world):
            turn = groups[begin : begin + self.world]
            is_real = self.rank < len(turn)
            group = turn[self.rank] if is_real else turn[-1][-1:]
            comparisons = [batching.cut(data[piece.index], piece) for piece in group]
            batch = batches.collate(comparisons, self.wrapped.batching, self.pad_id, reading, self._masks)
            if data is self.data and self._by_prompt:
                batch.weight /= torch.tensor([self._pairs_as_one(piece) for piece in group for _ in range(piece.pairs)])
            yield batch.to(self.device), is_real

    def _take_step(self, pieces: list[Piece]) -> None:
        try:
            self.engine.step()
        except Exception as error:
            if "loss scale" not in str(error):
                raise
            self._stop(pieces, "gradients overflow in fp16 even at the lowest loss scale")

    def _stop(self, pieces: list[Piece], what: str) -> NoReturn:
        ids = [pair.pair_id for piece in pieces for pair in batching.cut(self.data[piece.index], piece).pairs]
        advice = "Try a lower learning_rate, a longer warmup, clip 1.0, or bf16 for fp16"
        if not self.totals.step and self.training.precision != "fp16":
            advice = "No weight has been changed yet: look for such values in those of the base model"
        raise UserError(
            f"{what} at step {self.totals.step + 1}. Its pairs: {', '.join(ids[:16])}"
            f"{' ...' if len(ids) > 16 else ''}. {advice}"
        )

    def _after_step(self, epoch: float) -> None:
        step, last = self.totals.step, self.totals.step == self.total_steps
        every = self.training.eval_every
        if self.held_out.pairs and every and (last or step % every == 0):
            found = self.evaluate()
            self._write({"step": step, "epoch": epoch, **found})
            self._select(step, found["eval_loss"])
        minutes, every = self.training.checkpoint_minutes, self.training.checkpoint_every
        late = minutes > 0 and time.monotonic() - self._saved_at >= 60 * minutes
        stopped, late = self._on_any(self._stopped_by is not None, late)
        if stopped or (not last and (late or (every and step % every == 0))):
            saved = checkpoints.save(self.engine, self.folder, step, self._state())
            self._saved_at = time.monotonic()
            if stopped:
                log.warning("stopped on request after step %d%s", step, "; a checkpoint is saved" if saved else "")
                alone = self._stopped_by == signal.SIGINT and not runtime.is_worker()
                raise SystemExit(INTERRUPTED if alone else PREEMPTED)

    def _select(self, step: int, loss: float) -> None:
        """Take note of an evaluation, and keep the weights if they are the best so far and wanted."""
        chosen, stopping = self.selection, self.training.early_stopping
        chosen.count(loss, stopping.min_delta if stopping else 0.0)
        if self.training.keep_best and chosen.is_better(loss):
            trained = engine.full_state(self.wrapped.model, self.training.zero_stage, self.rank == 0, only_trained=True)

            def keep() -> str | None:
                if self.rank:
                    return None
                needed = {state["selection"]["best_step"] for state in checkpoints.states(self.folder)}
                return early_stopping.keep_weights(self.folder, step, trained, needed)

            kept = checkpoints.together(keep)[0]
            if kept is not None:
                chosen.best_loss, chosen.best_step, chosen.best_sha256 = loss, step, kept

    def evaluate(self) -> Json:
        """Loss and accuracy on the first pairs of the eval split, by all processes together."""
        counts = self.held_out.pair_counts
        enough = int((counts.cumsum() < EVAL_PAIRS).sum()) + 1
        pieces = [Piece(index, 0, count) for index, count in enumerate(counts[:enough].tolist())]
        sums = torch.zeros(7, dtype=torch.float64, device=self.device)
        for scores, batch in self._held_out_scores(pieces):
            sums += pair_sums(scores, pair_losses(scores, batch), batch)
        if self.world > 1:
            dist.all_reduce(sums)
        weight, loss_sum, correct, chosen, rejected, pairs, _ = sums.tolist()
        return {
            "eval_loss": loss_sum / weight,
            "eval_accuracy": correct / pairs,
            "eval_chosen_mean": chosen / pairs,
            "eval_rejected_mean": rejected / pairs,
            "eval_pairs": int(pairs),
        }

    def score_moments(self) -> Normalization:
        """Mean and standard deviation of the scores of all answers of the eval split, by all processes together."""
        pieces = [Piece(index, 0, count) for index, count in enumerate(self.held_out.pair_counts.tolist())]
        sums = torch.zeros(3, dtype=torch.float64, device=self.device)
        for scores, _ in self._held_out_scores(pieces):
            wide = scores.double()
            sums += torch.stack([torch.ones_like(wide).sum(), wide.sum(), wide.square().sum()])
        if self.world > 1:
            dist.all_reduce(sums)
        return moments(*sums.tolist())

    def _held_out_scores(self, pieces: list[Piece]) -> Iterator[tuple[torch.Tensor, Batch]]:
        """The scores of this process's part of some pieces of the eval split, without gradients."""
        sizes = batches.sizes_for(self.held_out, self.wrapped.batching, self.wrapped.score_positions)
        self.engine.eval()
        with torch.no_grad():
            for batch, is_real in self._micro_batches(self.held_out, pieces, sizes, self.wrapped.score_positions):
                scores = self.engine(batch)
                if is_real:
                    yield scores, batch
        self.engine.train()

    def _on_stop(self, number: int, _: object) -> None:
        self._stopped_by = number
        signals.interrupt_at_once()  # a second Ctrl-C does not wait for the step

    def _on_any(self, *here: bool) -> list[bool]:
        """Which of these hold on some process."""
        if self.world == 1:
            return list(here)
        flags = torch.tensor([float(value) for value in here], device=self.device)
        dist.all_reduce(flags)
        return [value > 0 for value in flags.tolist()]

    def _write(self, line: Json) -> None:
        for logger in self._loggers:
            logger.write(line)
