"""The training loop: steps, evaluations, checkpoints, progress and log, resumed from the newest checkpoint."""

import logging
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deepspeed import DeepSpeedEngine
from pydantic import BaseModel, Field

from rewardline.core import runtime
from rewardline.core.errors import UserError
from rewardline.core.progress import progress
from rewardline.model import determinism
from rewardline.model.layers import compilation
from rewardline.model.normalization import moments
from rewardline.model.packing.layout import Kernel
from rewardline.model.reward_model import RewardModel
from rewardline.training import checkpoints, early_stopping, engine, health, held_out
from rewardline.training.batching import MicroBatchLoader, cut
from rewardline.training.early_stopping import Selection
from rewardline.training.length_control import LengthControl
from rewardline.training.processes import signals
from rewardline.training.processes.collectives import all_agree, on_any, run_on_first
from rewardline.training.records import loggers
from rewardline.training.records.log_file import EvalLine, LogFile, LogLine, SetFigures, StepLine
from rewardline.training.records.run_facts import Resumption
from rewardline.training.records.throughput import Counts, Work
from rewardline.training.schedule import warmup_steps
from rewardline.training.settings import EVAL, TrainStageSettings
from rewardline.training.step import DivergedError, OptimizerStep, PlannedStep

log = logging.getLogger(__name__)


class TrainingDivergedError(UserError):
    """The loss or the gradient of a step is not finite; `reason`: which, and at which step."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


UNSAVED_SECONDS = 60.0
"""How much of a training run may be lost by a kill between its last step and its export."""
RELEASE_SECONDS = 30.0
"""How often freed memory is given back: seldom, as the next step has to get it again, page by page."""


class LoopState(BaseModel):
    """The part of a checkpoint beside the engine's state.

    `step`: steps so far; `pairs`, `tokens` (of chosen and rejected in full), `seconds`: their sums over these.
    `kernel`: what computes the attention of packed rows, so that a resumed run continues with the same.
    `length_control`: that of the optimizer step, which changes it.
    """

    step: int = 0
    pairs: int = 0
    tokens: int = 0
    seconds: float = 0.0
    selection: Selection = Field(default_factory=Selection)
    chance: health.Chance = Field(default_factory=health.Chance)
    drift: health.Drift = Field(default_factory=health.Drift)
    work: Counts = Counts()
    continued: list[Resumption] = []
    kernel: Kernel | None = None
    length_control: LengthControl | None = None


@dataclass
class TrainingLoop:
    """One process's part of a training run; `folder`: for its log and checkpoints; `tracked`: what loggers record.

    `eval_loaders`: by evaluation set; those without pairs are left out.

    `until`: the step that it is to stop after, with a checkpoint, if that comes before its end.
    """

    settings: TrainStageSettings
    model: RewardModel
    engine: DeepSpeedEngine
    optimizer_step: OptimizerStep
    eval_loaders: Mapping[str, MicroBatchLoader]
    folder: Path
    tracked: loggers.TrackedRun
    until: int | None = None

    def __post_init__(self) -> None:
        self.total_steps = self.optimizer_step.sampler.total_steps
        self.last_step = min(self.total_steps, self.until or self.total_steps)
        self.state = LoopState(length_control=self.optimizer_step.length_control)
        self.work = Work(self.state.work, self.engine.device)
        sizes, shares = self.settings.training.evaluated_pairs, self.settings.choosing
        self._samples = {
            name: held_out.sample(loader.data, sizes[name], shares.get(name, 1.0))
            for name, loader in self.eval_loaders.items()
        }
        self._loggers: list[LogFile | loggers.Curves] = []
        self._stopped_by: int | None = None
        self._saved_at = 0.0

    def run(self) -> None:
        """Train from the newest checkpoint, or from the start, to the end or `until`.

        Raises:
            TrainingDivergedError: in every process.
        """
        training = self.settings.training
        signals.on_stop(self._on_stop)
        self._restore()
        done, is_first = self.state.step, runtime.rank() == 0
        if is_first:
            self._loggers = loggers.start(training.loggers, self.tracked, done)
        self._choose_kernel()
        self.engine.train()
        self._check_compiled_layers()
        self._saved_at = released = time.monotonic()
        with progress(self.settings.run, self.last_step, "step", done, hidden=not is_first) as bar:
            for planned in self.optimizer_step.steps(done):
                if self.state.step >= self.last_step:
                    break
                if self.state.selection.ends(training):
                    log.info(
                        "stopped early after step %d: %d evaluations in a row without a lower loss of %s",
                        self.state.step, self.state.selection.stale,
                        training.early_stopping.eval_set if training.early_stopping else "",
                    )  # fmt: skip
                    break
                line = self._take_step(planned)
                self._write(line)
                self._check_health(line)
                bar.set_postfix_str(f"loss {line.loss:.3f}, {line.tokens_per_second:,.0f} tokens/s", refresh=False)
                bar.update(1)
                if early_stopping.evaluation_is_due(training, line.step, self.total_steps):
                    self._evaluate(planned.epoch)
                self._save_or_stop()
                if time.monotonic() - released >= RELEASE_SECONDS:
                    runtime.release_memory()
                    released = time.monotonic()
        # Save what the last checkpoint lacks, so that a kill during the export does not lose it.
        (late,) = on_any(time.monotonic() - self._saved_at >= UNSAVED_SECONDS, device=self.engine.device)
        stays = self.until is not None and self.state.step > done
        if stays or (late and (training.checkpoint_every or training.checkpoint_minutes)):
            self._save()
        self.close()

    def close(self) -> None:
        """Close the logs."""
        for logger in self._loggers:
            logger.close()
        signals.on_stop(signals.leave)

    def _choose_kernel(self) -> None:
        """Use the kernel of the checkpoint if it may still be used, else the fastest on the first batches."""
        model, state = self.model, self.state
        kernel = model.kernels[0]
        if state.kernel in model.kernels:
            kernel = state.kernel
        elif len(model.kernels) > 1 and not self.settings.training.deterministic:
            kernel = run_on_first(self._fastest_kernel)
        state.kernel = kernel
        if model.batching == "shared_prefix":
            model.use_kernel(kernel)

    def _fastest_kernel(self) -> Kernel:
        pieces = next(self.optimizer_step.sampler.steps(0))[1]
        times = self.optimizer_step.loader.kernel_times(pieces)
        fastest = min(times, key=lambda kernel: times[kernel])
        log.info(
            "attention in a layer, over the first step: %s; %s is used",
            ", ".join(f"{kernel} {1e3 * seconds:.1f} ms" for kernel, seconds in times.items()), fastest,
        )  # fmt: skip
        return fastest

    def _check_compiled_layers(self) -> None:
        """Compute compiled layers as plain ones from now on, where they fail or give something else."""
        if not compilation.is_compiled(self.model.model):
            return
        begin, step, is_auto = time.monotonic(), self.optimizer_step, self.settings.training.compile == "auto"
        batches = [batch for batch, _ in step.loader.load(next(step.sampler.steps(0))[1])]
        tokens = sum(batch.tokens for batch in batches) * runtime.world_size() * self.total_steps
        work = 6 * tokens * sum(map(engine.elements, self.model.parameters()))
        (is_short,) = on_any(is_auto and work < compilation.WORTHWHILE, device=self.engine.device)
        if is_short:
            log.info("layers are not compiled, as the training run is short; training.compile: true does it")
            compilation.undo(self.model.model)
            return
        problem = compilation.problem(self.model, batches[0])
        (differs,) = on_any(problem is not None, device=self.engine.device)
        if not differs:
            log.info("layers are compiled, in %.0f s", time.monotonic() - begin)
            return
        reason = problem or "they fail in another process"
        if not is_auto:
            raise UserError(f"training.compile: layers cannot be compiled here: {reason}; set it to auto or false")
        log.warning("layers are not compiled: %s", reason)
        compilation.undo(self.model.model)

    def _take_step(self, planned: PlannedStep) -> StepLine:
        begin, state = time.perf_counter(), self.state
        try:
            with determinism.explained():
                result = self.optimizer_step.take(
                    state.step, planned, lambda batch: self.work.add(batch, self.model.reads_some)
                )
        except DivergedError as error:
            data = self.optimizer_step.sampler.data
            parts = [cut(data[piece.index], piece) for piece in planned.pieces]
            ids = [pair.pair_id for part in parts for pair in part.pairs]
            ids += [answer.answer_id for part in parts for answer in part.answers]
            precision = self.settings.training.precision
            message = health.divergence_message(str(error), state.step + 1, ids, precision)
            raise TrainingDivergedError(message, f"{error} at step {state.step + 1:,}") from error
        seconds, sums, control = time.perf_counter() - begin, result.sums, state.length_control
        state.step += 1
        state.pairs += int(sums.pairs)
        state.tokens += int(sums.full_tokens)
        state.seconds += seconds
        return StepLine(
            step=state.step,
            epoch=planned.epoch,
            loss=sums.loss,
            accuracy=sums.of_pairs(sums.correct),
            chosen_mean=sums.of_pairs(sums.chosen),
            rejected_mean=sums.of_pairs(sums.rejected),
            score_std=moments(2 * sums.pairs, sums.chosen + sums.rejected, sums.squares).std if sums.pairs else None,
            learning_rate=result.learning_rate,
            grad_norm=result.gradient_norm,
            pairs=int(sums.pairs),
            tokens=int(sums.full_tokens),
            computed_tokens=int(sums.tokens),
            tokens_per_second=round(sums.full_tokens / seconds, 1),
            router_loss=sums.router_loss / sums.weight if self.model.router_coefficient else None,
            answers=int(sums.answers) or None,
            answer_loss=sums.answer_loss / sums.answer_weight if sums.answer_weight else None,
            length_slope=control.slope if control else None,
            length_coefficient=control.coefficient if control else None,
        )

    def _check_health(self, line: StepLine) -> None:
        if self.settings.training.objective is not None:
            return  # guessing has another loss, and single answers hold the mean score
        warm = warmup_steps(self.settings.training, self.total_steps)
        warnings = [self.state.drift.check(line)]
        if line.step > warm:
            warnings.append(self.state.chance.check(line, min(health.CHANCE_STEPS, self.total_steps - warm)))
        for warning in filter(None, warnings):
            log.warning("%s", warning)

    def _evaluate(self, epoch: float) -> None:
        """Score the evaluation sets, and keep the weights if they are the best so far and needed."""
        training, step, selection = self.settings.training, self.state.step, self.state.selection
        figures = {name: self._score(loader, self._samples[name]) for name, loader in self.eval_loaders.items()}
        if not figures:
            return
        own, others = figures.get(EVAL), {name: one for name, one in figures.items() if name != EVAL}
        if own is None:
            self._write(EvalLine(step, epoch, None, None, None, None, 0, others))
        else:
            means = (own.loss, own.accuracy, own.chosen_mean, own.rejected_mean)
            self._write(EvalLine(step, epoch, *means, own.pairs, others))
        if training.early_stopping and training.early_stopping.eval_set in figures:
            selection.count(figures[training.early_stopping.eval_set].loss, training)
        best = figures.get(training.best_by or "")
        if best is not None and selection.is_better(best.loss):
            weights = engine.full_state(self.model.model, only_trained=True)

            def keep() -> str | None:
                saved = map(LoopState.model_validate, checkpoints.states(self.folder))
                needed = {state.selection.best_step for state in saved}
                return early_stopping.keep_weights(self.folder, step, weights, needed)

            sha256 = run_on_first(keep)
            if sha256 is not None:
                selection.best_loss, selection.best_step, selection.best_sha256 = best.loss, step, sha256

    def _score(self, loader: MicroBatchLoader, comparisons: Sequence[int]) -> SetFigures:
        sums = held_out.evaluate(self.engine, loader, comparisons)
        accuracy, chosen, rejected = map(sums.of_pairs, (sums.correct, sums.chosen, sums.rejected))
        return SetFigures(sums.loss, accuracy, chosen, rejected, int(sums.pairs))

    def _save_or_stop(self) -> None:
        training, step = self.settings.training, self.state.step
        minutes, every = training.checkpoint_minutes, training.checkpoint_every
        late = minutes > 0 and time.monotonic() - self._saved_at >= 60 * minutes
        stopped, late = on_any(self._stopped_by is not None, late, device=self.engine.device)
        if stopped or (step < self.last_step and (late or (every and step % every == 0))):
            saved = self._save()
            self._saved_at = time.monotonic()
            if stopped:
                checkpoint = "checkpoint saved" if saved else "no checkpoint could be saved"
                log.warning("stopped on request at step %d of %d, %s", step, self.last_step, checkpoint)
                interrupted = self._stopped_by == signal.SIGINT and not runtime.is_worker()
                raise SystemExit(signals.INTERRUPTED if interrupted else signals.PREEMPTED)

    def _save(self) -> bool:
        self.state.work = self.work.total()
        return checkpoints.save(self.engine, self.folder, self.state.step, self.state.model_dump(mode="json"))

    def _restore(self) -> None:
        """Restore the state of the newest checkpoint, if there is one."""
        saved = checkpoints.restore(self.engine, self.folder, self.until)
        if saved is None:
            return
        self.state = LoopState.model_validate(saved)
        self.optimizer_step.length_control = self.state.length_control
        self.work = Work(self.state.work, self.engine.device)
        world_size, zero_stage = runtime.world_size(), self.settings.training.zero_stage
        self.state.continued.append(Resumption(step=self.state.step, world_size=world_size, zero_stage=zero_stage))
        selection = self.state.selection
        if selection.best_sha256 is not None and not all_agree(lambda: selection.is_kept(self.folder)):
            log.warning("the weights of step %d, the best, are missing or damaged", selection.best_step)
            selection.best_sha256 = selection.best_loss = None

    def _on_stop(self, number: int, frame: object) -> None:
        if number == signal.SIGINT and self._stopped_by is not None:
            signals.leave(number, frame)  # a second Ctrl-C does not wait for the step
        self._stopped_by = number

    def _write(self, line: LogLine) -> None:
        for logger in self._loggers:
            logger.write(line)
