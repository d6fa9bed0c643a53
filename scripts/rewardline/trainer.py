"""The training loop: the same steps for any number of processes, resumable at any checkpoint."""

import json
import math
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from rewardline import batches, checkpoints, engine
from rewardline.batches import Batch, Piece
from rewardline.cli import UserError, log, progress
from rewardline.drift import DriftWatch
from rewardline.normalization import Normalization, moments
from rewardline.objective import pair_losses, pair_sums
from rewardline.reading import Reading
from rewardline.reward_model import RewardModel, scores_of
from rewardline.schedule import learning_rate
from rewardline.shards import TokenDataset

Json = dict[str, Any]
EVAL_PAIRS = 512
"""Pairs of the eval split that are scored during training; the first, which are ordered by a hash of their prompt."""
PREEMPTED = 75
"""Exit code after a SIGTERM: a checkpoint was saved, and the same command goes on from it."""


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
    settings: Json
    data: TokenDataset
    held_out: TokenDataset
    folder: Path
    pad_id: int
    rank: int
    world: int
    device: torch.device
    totals: Totals = field(default_factory=Totals)
    _terminated: bool = False

    def __post_init__(self) -> None:
        self.training: Json = self.settings["training"]
        loss = self.training["loss"]
        self._reading = replace(self.wrapped.reading, span=loss if loss.startswith("per_token") else None)
        self._sizes = batches.sizes_for(self.data, self.wrapped.batching, self._reading)
        self._by_prompt = loss == "kwise"
        self._mean_weight = self.data.mean_weight(self._by_prompt)
        self._drift = DriftWatch()
        self._per_epoch = self._epoch_steps(0)
        whole = math.ceil(self.training["epochs"] * len(self._per_epoch))
        self.total_steps = min(whole, self.training["max_steps"] or whole)

    def run(self) -> None:
        """Train from the newest checkpoint, or from the start, to the end."""
        state = checkpoints.restore(self.engine, self.folder, self.world)
        if state is not None:
            self.totals = Totals(**state)
        self._truncate_log()
        signal.signal(signal.SIGTERM, self._on_terminate)
        self.engine.train()
        with progress(self.settings["run"], self.total_steps, "step", self.totals.step, self.rank > 0) as bar:
            for epoch, pieces in self._plan():
                line = self._step(epoch, pieces)
                self._write(line)
                if self.rank == 0:
                    self._drift.see(line)
                bar.set_postfix_str(
                    f"loss {line['loss']:.3f}, {line['tokens_per_second']:,.0f} tokens/s", refresh=False
                )
                bar.update(1)
                self._after_step(epoch)

    def _plan(self) -> Iterator[tuple[float, list[Piece]]]:
        """The steps that are still to do, each with the epoch that it ends at."""
        epoch, plan, first = 0, self._per_epoch, 0
        for step in range(self.total_steps):
            if step - first == len(plan):
                epoch, first = epoch + 1, step
                plan = self._epoch_steps(epoch)
            if step >= self.totals.step:
                yield round(epoch + (step - first + 1) / len(plan), 4), plan[step - first]

    def _epoch_steps(self, epoch: int) -> list[list[Piece]]:
        visit = batches.order(self.data, self.settings["seed"], epoch)
        return batches.steps(self.data.pair_counts, visit, self.training["pairs_per_step"])

    def _step(self, epoch: float, pieces: list[Piece]) -> Json:
        begin = time.perf_counter()
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
                sums[:7] += pair_sums(scores, losses, batch)
                sums[7:] += torch.tensor([batch.full_tokens, batch.tokens], dtype=torch.float64, device=self.device)
        alone = engine.clips_itself(self.training)
        norm = engine.clip_gradients(self.wrapped, self.training["clip"]) if alone else None
        self.engine.step()
        if self.world > 1:
            dist.all_reduce(sums)
        weight, loss_sum, correct, chosen, rejected, pairs, squares, full_tokens, tokens = sums.tolist()
        if not math.isfinite(loss_sum):
            self._stop_at_nan(pieces)
        seconds = time.perf_counter() - begin
        done = self.totals
        done.step, done.pairs, done.tokens = done.step + 1, done.pairs + int(pairs), done.tokens + int(full_tokens)
        done.computed_tokens += int(tokens)
        done.seconds += seconds
        if norm is None:
            norm = engine.gradient_norm(self.engine)
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
        options = {key: self.training[key] for key in ("label_smoothing", "margin", "centering")}
        return {**options, "soft_labels": True}

    def _pairs_as_one(self, piece: Piece) -> int:
        """How many pairs together weigh as much as one unit of the mean: those of a prompt with kwise, else one."""
        return int(self.data.pair_counts[piece.index]) if self._by_prompt else 1

    def _micro_batches(
        self, data: TokenDataset, pieces: list[Piece], sizes: Any, reading: Reading
    ) -> Iterator[tuple[Batch, bool]]:
        """This process's micro batches. All processes get the same number: some of them stand in, and do not count."""
        groups = batches.micro_batches(sizes, pieces, self.training["tokens_per_micro_batch"])
        for begin in range(0, len(groups), self.world):
            turn = groups[begin : begin + self.world]
            is_real = self.rank < len(turn)
            group = turn[self.rank] if is_real else turn[-1][-1:]
            comparisons = [batches.cut(data[piece.index], piece) for piece in group]
            batch = batches.collate(comparisons, self.wrapped.batching, self.pad_id, reading)
            if data is self.data and self._by_prompt:
                batch.weight /= torch.tensor([self._pairs_as_one(piece) for piece in group for _ in range(piece.pairs)])
            yield batch.to(self.device), is_real

    def _stop_at_nan(self, pieces: list[Piece]) -> None:
        ids = [pair["pair_id"] for piece in pieces for pair in batches.cut(self.data[piece.index], piece).pairs]
        raise UserError(
            f"the loss is not finite at step {self.totals.step + 1}. Its pairs: {', '.join(ids[:16])}"
            f"{' ...' if len(ids) > 16 else ''}. Try a lower learning_rate, a longer warmup, clip 1.0, or bf16 for fp16"
        )

    def _after_step(self, epoch: float) -> None:
        step, last = self.totals.step, self.totals.step == self.total_steps
        every = self.training["eval_every"]
        if self.held_out.pairs and every and (last or step % every == 0):
            self._write({"step": step, "epoch": epoch, **self.evaluate()})
        terminated = self._any_terminated()
        every = self.training["checkpoint_every"]
        if terminated or (every and step % every == 0 and not last):
            barrier = dist.barrier if self.world > 1 else lambda: None
            checkpoints.save(self.engine, self.folder, step, vars(self.totals), self.rank == 0, self.world, barrier)
        if terminated:
            log.warning("stopped by SIGTERM after step %d; a checkpoint is saved", step)
            raise SystemExit(PREEMPTED)

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
        sizes = batches.sizes_for(self.held_out, self.wrapped.batching, self.wrapped.reading)
        self.engine.eval()
        with torch.no_grad():
            for batch, is_real in self._micro_batches(self.held_out, pieces, sizes, self.wrapped.reading):
                scores = self.engine(batch)
                if is_real:
                    yield scores, batch
        self.engine.train()

    def _on_terminate(self, *_: object) -> None:
        self._terminated = True

    def _any_terminated(self) -> bool:
        if self.world == 1:
            return self._terminated
        flag = torch.tensor(float(self._terminated), device=self.device)
        dist.all_reduce(flag)
        return bool(flag.item())

    def _write(self, line: Json) -> None:
        if self.rank == 0:
            with (self.folder / "log.jsonl").open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line) + "\n")

    def _truncate_log(self) -> None:
        """Drop the lines of steps after the checkpoint, which are done again."""
        path = self.folder / "log.jsonl"
        if self.rank == 0 and path.exists():
            kept = []
            for text in path.read_text(encoding="utf-8").splitlines():
                try:
                    if json.loads(text)["step"] <= self.totals.step:
                        kept.append(text + "\n")
                except json.JSONDecodeError:
                    break  # the line that was being written when the process was killed
            path.write_text("".join(kept), encoding="utf-8")
