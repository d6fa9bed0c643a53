"""The training loop: steps, evaluations, checkpoints, progress and log, resumed from the newest checkpoint."""

import logging
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from deepspeed import DeepSpeedEngine
from pydantic import BaseModel, Field

from rewardline.core import runtime
from rewardline.core.errors import UserError
from rewardline.core.progress import progress
from rewardline.model.normalization import moments
from rewardline.model.reward_model import RewardModel
from rewardline.training import checkpoints, early_stopping, engine, health
from rewardline.training.batching import Piece, cut
from rewardline.training.early_stopping import Selection
from rewardline.training.held_out import HeldOutSplit
from rewardline.training.processes import signals
from rewardline.training.processes.collectives import all_agree, on_any, run_on_all
from rewardline.training.records import loggers
from rewardline.training.records.log_file import EvalLine, LogFile, LogLine, StepLine
from rewardline.training.records.run_facts import Resumption
from rewardline.training.schedule import warmup_steps
from rewardline.training.settings import TrainSettings
from rewardline.training.step import DivergedError, OptimizerStep, StepResult
from rewardline.training.throughput import Counts, Work

log = logging.getLogger(__name__)

UNSAVED_SECONDS = 60.0
"""How much of a training run may be lost by a kill between its last step and its export."""


@dataclass
class Totals:
    """What a training run has done so far."""

    step: int = 0
    pairs: int = 0
    tokens: int = 0
    computed_tokens: int = 0
    seconds: float = 0.0


class LoopState(BaseModel):
    """What a checkpoint has beside the engine's state."""

    totals: Totals = Field(default_factory=Totals)
    selection: Selection = Field(default_factory=Selection)
    chance: health.Chance = Field(default_factory=health.Chance)
    drift: health.Drift = Field(default_factory=health.Drift)
    work: Counts = Counts()
    continued: list[Resumption] = []


class TrainingLoop:
    """One process's part of a training run; `folder` is for its log and checkpoints."""

    def __init__(
        self,
        model: RewardModel,
        running: DeepSpeedEngine,
        settings: TrainSettings,
        step: OptimizerStep,
        held_out: HeldOutSplit,
        folder: Path,
    ) -> None:
        self._settings, self._training, self.folder = settings, settings.training, folder
        self._model, self._engine, self._step, self._held_out = model, running, step, held_out
        self.total_steps = step.sampler.total_steps
        self.state = LoopState()
        self._work = Work()
        self._loggers: list[LogFile | loggers.Curves] = []
        self._stopped_by: int | None = None
        self._saved_at = 0.0

    def work(self) -> Counts:
        """What has been computed so far; every process must call it."""
        return self._work.total(self._engine.device)

    def run(self) -> None:
        """Train from the newest checkpoint, or from the start, to the end."""
        signals.on_stop(self._on_stop)
        self._restore()
        if runtime.rank() == 0:
            self._loggers = loggers.start(self._training.loggers, self._settings, self.folder, self.state.totals.step)
        self._saved_at = time.monotonic()
        self._engine.train()
        with progress(self._settings.run, self.total_steps, "step", self.state.totals.step, runtime.rank() > 0) as bar:
            for epoch, pieces in self._step.sampler.steps(self.state.totals.step):
                if self.state.selection.ends(self._training):
                    log.info(
                        "stopped early after step %d: %d evaluations in a row without a lower eval loss",
                        self.state.totals.step, self.state.selection.stale,
                    )  # fmt: skip
                    break
                line = self._take_step(epoch, pieces)
                self._write(line)
                self._check_health(line)
                bar.set_postfix_str(f"loss {line.loss:.3f}, {line.tokens_per_second:,.0f} tokens/s", refresh=False)
                bar.update(1)
                self._evaluate(epoch)
                self._save_or_stop()
        self._save_the_end()
        for logger in self._loggers:
            logger.close()
        signals.leave_on_terminate()

    def _take_step(self, epoch: float, pieces: list[Piece]) -> StepLine:
        begin, done = time.perf_counter(), self.state.totals
        try:
            result = self._step.take(done.step, pieces, lambda batch: self._work.add(batch, self._model.reads_some))
        except DivergedError as error:
            data = self._step.sampler.data
            ids = [pair.pair_id for piece in pieces for pair in cut(data[piece.index], piece).pairs]
            raise UserError(
                health.divergence_message(str(error), done.step + 1, ids, self._training.precision)
            ) from error
        seconds = time.perf_counter() - begin
        sums = result.sums
        done.step, done.pairs = done.step + 1, done.pairs + int(sums.pairs)
        done.tokens, done.computed_tokens = done.tokens + int(sums.full_tokens), done.computed_tokens + int(sums.tokens)
        done.seconds += seconds
        return _step_line(done.step, epoch, result, seconds)

    def _check_health(self, line: StepLine) -> None:
        warm = warmup_steps(self._training, self.total_steps)
        warnings = [self.state.drift.check(line)]
        if line.step > warm:
            warnings.append(self.state.chance.check(line, min(health.CHANCE_STEPS, self.total_steps - warm)))
        for warning in filter(None, warnings):
            log.warning("%s", warning)

    def _evaluate(self, epoch: float) -> None:
        """Score the eval split where that is due, and keep the weights if they are the best so far and needed."""
        step, selection = self.state.totals.step, self.state.selection
        if not self._held_out.pairs or not early_stopping.evaluation_is_due(self._training, step, self.total_steps):
            return
        sums = self._held_out.evaluate()
        self._write(
            EvalLine(
                step, epoch, sums.loss, sums.correct / sums.pairs, sums.chosen / sums.pairs, sums.rejected / sums.pairs,
                int(sums.pairs),
            )
        )  # fmt: skip
        selection.count(sums.loss, self._training)
        if self._training.keep_best and selection.is_better(sums.loss):
            weights = engine.full_state(
                self._model.model, self._training.zero_stage, runtime.rank() == 0, only_trained=True
            )

            def keep() -> str | None:
                if runtime.rank():
                    return None
                saved = map(LoopState.model_validate, checkpoints.states(self.folder))
                needed = {state.selection.best_step for state in saved}
                return early_stopping.keep_weights(self.folder, step, weights, needed)

            kept = run_on_all(keep)[0]
            if kept is not None:
                selection.best_loss, selection.best_step, selection.best_sha256 = sums.loss, step, kept

    def _save_or_stop(self) -> None:
        step, last = self.state.totals.step, self.state.totals.step == self.total_steps
        minutes, every = self._training.checkpoint_minutes, self._training.checkpoint_every
        late = minutes > 0 and time.monotonic() - self._saved_at >= 60 * minutes
        stopped, late = on_any(self._stopped_by is not None, late, device=self._engine.device)
        if stopped or (not last and (late or (every and step % every == 0))):
            saved = self._save()
            self._saved_at = time.monotonic()
            if stopped:
                log.warning("stopped on request after step %d%s", step, "; a checkpoint is saved" if saved else "")
                alone = self._stopped_by == signal.SIGINT and not runtime.is_worker()
                raise SystemExit(signals.INTERRUPTED if alone else signals.PREEMPTED)

    def _save_the_end(self) -> None:
        """Save what the last checkpoint lacks, so that a kill during the export does not lose it."""
        enabled = bool(self._training.checkpoint_every or self._training.checkpoint_minutes)
        (late,) = on_any(time.monotonic() - self._saved_at >= UNSAVED_SECONDS, device=self._engine.device)
        if enabled and late:
            self._save()

    def _save(self) -> bool:
        self.state.work = self.work()
        return checkpoints.save(self._engine, self.folder, self.state.totals.step, self.state.model_dump(mode="json"))

    def _restore(self) -> None:
        """Take the state of the newest checkpoint, if there is one."""
        saved = checkpoints.restore(self._engine, self.folder)
        if saved is None:
            return
        self.state = LoopState.model_validate(saved)
        self._work = Work(self.state.work)
        here = Resumption(
            step=self.state.totals.step, world_size=runtime.world_size(), zero_stage=self._training.zero_stage
        )
        self.state.continued = [*self.state.continued, here]
        selection = self.state.selection
        if selection.best_sha256 is not None and not all_agree(lambda: early_stopping.is_kept(self.folder, selection)):
            log.warning("the weights of step %d, the best, are missing or damaged", selection.best_step)
            selection.forget_best()

    def _on_stop(self, number: int, _: object) -> None:
        self._stopped_by = number
        signals.interrupt_at_once()  # a second Ctrl-C does not wait for the step

    def _write(self, line: LogLine) -> None:
        for logger in self._loggers:
            logger.write(line)


def _step_line(step: int, epoch: float, result: StepResult, seconds: float) -> StepLine:
    sums = result.sums
    return StepLine(
        step=step,
        epoch=epoch,
        loss=sums.loss,
        accuracy=sums.correct / sums.pairs,
        chosen_mean=sums.chosen / sums.pairs,
        rejected_mean=sums.rejected / sums.pairs,
        score_std=moments(2 * sums.pairs, sums.chosen + sums.rejected, sums.squares).std,
        learning_rate=result.learning_rate,
        grad_norm=result.gradient_norm,
        pairs=int(sums.pairs),
        tokens=int(sums.full_tokens),
        computed_tokens=int(sums.tokens),
        tokens_per_second=round(sums.full_tokens / seconds, 1),
    )
