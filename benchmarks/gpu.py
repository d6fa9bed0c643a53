"""Check training on a GPU, then measure it: at most eight minutes, the parts that matter most first.

    python benchmarks/gpu.py --output gpu
    python benchmarks/gpu.py --output dry --dry-run    # tiny shapes on the CPU, to test this program

Writes gpu.json and gpu.md to --output after each part, so that a run that is stopped leaves what it has. Parts that do
not fit --seconds are left out, and so named. Models are random, comparisons have two answers and lengths like those of
Anthropic/hh-rlhf.
"""

import argparse
import gc
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from preparation import SHAPES

from rewardline.core import runtime
from rewardline.core.files import write_json

Json = dict[str, Any]
Table = list[Json]
LLAMA_8B = {
    **SHAPES["llama-1b"],
    **{"hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32},
}
SMALL = {
    **SHAPES["tiny"],
    **{"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4},
    **{"num_key_value_heads": 2, "vocab_size": 512},
}
TRAINING_RUNS: dict[str, tuple[Json, Json]] = {
    "SmolLM2-135M": (SHAPES["smollm2-135m"], {"pairs_per_step": 64, "tokens_per_micro_batch": 16_384}),
    "Llama 1B": (SHAPES["llama-1b"], {"pairs_per_step": 64, "tokens_per_micro_batch": 8192}),
    "Llama 8B, LoRA": (LLAMA_8B, {"pairs_per_step": 32, "tokens_per_micro_batch": 4096, "lora": {"rank": 16}}),
}
"""Shapes, and the settings of their training runs."""
STEPS, WARM = 8, 3
"""Steps of a training, and how many of them are not timed."""


class Benchmark:
    """The measurements, each a table; `dry`: tiny shapes on the CPU."""

    def __init__(self, folder: Path, seconds: float, *, dry: bool) -> None:
        import torch

        self.dry, self.folder = dry, folder
        self.device = torch.device("cpu" if dry else "cuda:0")
        self._end = time.monotonic() + seconds
        name = "CPU, dry run" if dry else torch.cuda.get_device_name(self.device)
        self.results: Json = {"device": name, "torch": torch.__version__, "parts": {}, "left_out": {}}

    def part(self, name: str, measure: Callable[[], Iterator[Json]], needed: float) -> None:
        """Measure a part if the `needed` seconds are left; an error is a result, not an end."""
        import torch

        rows: Table = []
        begin, left = time.monotonic(), self._end - time.monotonic()
        if left < needed:
            self.results["left_out"][name] = f"{left:.0f} s were left, and {needed:.0f} s are needed"
        else:
            try:
                for row in measure():
                    rows.append(row)
                    if time.monotonic() > self._end:
                        break
            except Exception as error:  # such as too little memory
                if self.dry:
                    raise
                self.results["left_out"][name] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            self.results["parts"][name] = rows
        gc.collect()
        torch.cuda.empty_cache()
        self.results.setdefault("seconds", {})[name] = round(time.monotonic() - begin, 1)
        write_json(self.folder / "gpu.json", self.results)
        (self.folder / "gpu.md").write_text(markdown(self.results), encoding="utf-8")
        print(f"{name}: {len(rows)} rows, {time.monotonic() - begin:.1f} s", flush=True)

    def model(self, shape: Json, dtype: Any) -> Any:
        """A random model on the device."""
        import torch
        from transformers import AutoConfig, AutoModelForSequenceClassification

        torch.manual_seed(0)
        config = AutoConfig.for_model(**({**shape, **SMALL} if self.dry else shape), num_labels=1, pad_token_id=0)
        with self.device:
            return AutoModelForSequenceClassification.from_config(config, dtype=dtype)

    def comparisons(self, count: int) -> list[Any]:
        """Random comparisons of two answers."""
        import numpy as np

        from rewardline.tokens.store import Comparison, ComparisonPair

        rng = np.random.default_rng(0)
        scale, limit = (0.1, 100) if self.dry else (1, 800)
        result = []
        for number in range(count):
            lengths = np.clip(rng.lognormal(np.log([150, 60, 60]), 0.7) * scale, 1, limit).astype(int)
            prefix, *tails = (rng.integers(5, 500, int(length), dtype=np.int32) for length in lengths)
            result.append(
                Comparison(f"{number:016x}", prefix, tails, [ComparisonPair(f"{number:016x}", "d", "s", 0, 1)])
            )
        return result

    def kernels_equal_padded_rows(self) -> Iterator[Json]:
        """Losses and gradients of packed rows against those of padded ones in fp32."""
        import torch

        from rewardline.model.batch import collate
        from rewardline.model.packing import flex
        from rewardline.model.reward_model import RewardModel
        from rewardline.training.loss import pair_losses

        rows = self.comparisons(24)
        reference: list[Any] = []
        for dtype in (torch.float32, torch.bfloat16):
            for batching in ("padded", "shared_prefix"):
                model = RewardModel(self.model(SHAPES["tiny"], torch.float32).to(dtype), batching, "auto")
                for kernel in model.kernels if batching == "shared_prefix" else ("padded",):
                    if kernel != "padded":
                        model.use_kernel(kernel)
                    model.zero_grad()
                    batch = collate(rows, model.batching, 0, kernel=model.kernel).to(self.device)
                    losses = pair_losses(model(batch), batch)
                    torch.autograd.backward(losses.mean())
                    gradient = torch.cat([p.grad.flatten().float() for p in model.parameters() if p.grad is not None])
                    reference = reference or [losses.detach(), gradient]
                    yield {
                        "attention": kernel,
                        "precision": str(dtype).removeprefix("torch."),
                        "largest difference of a loss": (losses - reference[0]).abs().max().item(),
                        "relative difference of the gradient": (
                            (gradient - reference[1]).norm() / reference[1].norm()
                        ).item(),
                        "compilations": flex.compilations(),
                    }

    @contextmanager
    def training(self, shape: Json, options: Json, steps: int) -> Iterator[tuple[Any, Any, Any]]:
        """A training run of random comparisons: its engine, its `OptimizerStep` and its `RewardModel`."""
        import torch

        from rewardline.core.artifacts import write_manifest
        from rewardline.model import lora
        from rewardline.model.reward_model import RewardModel
        from rewardline.tokens.store import ShardWriter, TokenDataset, TokenManifest
        from rewardline.training import engine
        from rewardline.training.batching import MicroBatchLoader
        from rewardline.training.settings import TrainingSettings, TrainStageSettings
        from rewardline.training.step import OptimizerStep

        precision = {"precision": "fp32"} if self.dry else {"precision": "bf16", "zero_stage": 1}
        small = {"pairs_per_step": 4, "tokens_per_micro_batch": 128} if self.dry else {}
        training = TrainingSettings.model_validate({**precision, **options, **small, "max_steps": steps})
        settings = TrainStageSettings(run="r", mixture="m", model="x", seed=0, training=training)
        model = self.model(shape, torch.float32 if training.lora is None else torch.bfloat16)
        if training.lora:
            lora.add_adapters(model, training.lora, 0)
        reward_model = RewardModel(
            model, kernel=training.attention, dtype=torch.float32 if self.dry else torch.bfloat16
        )
        with tempfile.TemporaryDirectory() as folder:
            writer = ShardWriter(Path(folder), "train")
            for row in self.comparisons(training.pairs_per_step * steps):
                writer.add(row)
            manifest = TokenManifest(
                template="plain", chat_template=None, max_length=1600, end_id=2, end_token="e", pad_id=0, pad_token="p",
                num_padding_at_beginning=0, vocabulary=512, splits={"train": writer.close()}, truncated_pairs=0,
                truncated_tokens=0, dropped={}, reject_examples=[],
            )  # fmt: skip
            write_manifest(Path(folder), manifest)
            running = engine.create(reward_model, training, engine.deepspeed_config(training))
            data = TokenDataset(Path(folder), "train")
            loader = MicroBatchLoader(reward_model, training, data, 0, self.device, objective=True)
            yield running, OptimizerStep(running, settings, loader), reward_model

    def resume(self) -> Iterator[Json]:
        """Weights after a checkpoint and a resume against those of a run without."""
        from rewardline.model import determinism

        for deterministic in (False, True):
            determinism.start(deterministic, self.device)
            for kernel in ("sdpa",) if self.dry else ("sdpa", "flex", "varlen"):
                row: Json = {"deterministic": deterministic, "attention": kernel}
                try:
                    difference = self.resumed(kernel)
                except RuntimeError as error:  # such as an operator without a deterministic kernel
                    yield {**row, "error": str(error).splitlines()[0]}
                else:
                    yield {**row, "bit-equal": difference == 0, "largest difference of a weight": difference}
        determinism.start(False, self.device)

    def resumed(self, kernel: str) -> float:
        """The largest difference of a weight between a resumed training run and one that was not interrupted."""
        import torch

        from rewardline.training import checkpoints, engine

        found = []
        with tempfile.TemporaryDirectory() as folder:
            for resumes in (False, True):
                options = {"pairs_per_step": 16, "attention": kernel}
                with self.training(SHAPES["tiny"], options, 4) as (running, step, _):
                    done = 2 if resumes else 0
                    if resumes:
                        checkpoints.restore(running, Path(folder))
                    for number, planned in enumerate(step.steps(done), start=done):
                        step.take(number, planned, lambda _: None)
                        if number == 1 and not resumes:
                            checkpoints.save(running, Path(folder), 2, {})
                    found.append(torch.cat([w.flatten().float() for w in engine.full_state(running.module).values()]))
        return float((found[0] - found[1]).abs().max())

    def compiled_layers(self) -> Iterator[Json]:
        """Compiled layers against plain ones: whether they are equal, seconds to compile them, and how many graphs."""
        from rewardline.model.layers import compilation
        from rewardline.model.packing import flex

        for name in ("SmolLM2-135M", "Llama 1B"):
            shape, options = TRAINING_RUNS[name]
            with self.training(shape, {**options, "attention": "sdpa"}, 1) as (_, step, model):
                begin, before = time.monotonic(), flex.compilations()
                compilation.compile_layers(model.model.train(), "eager" if self.dry else "inductor")
                batch, _ = next(step.loader.load(next(step.sampler.steps(0))[1]))
                yield {
                    "model": name,
                    "problem": compilation.problem(model, batch) or "none",
                    "seconds": round(time.monotonic() - begin, 1),
                    "graphs": flex.compilations() - before,
                }

    def training_runs(self) -> Iterator[Json]:
        """Tokens per second and utilization of each shape, plain and compiled, with each attention kernel's time."""
        import torch

        from rewardline.model.layers import compilation
        from rewardline.training.records.throughput import Counts, Work, peak_flops, utilization

        variants = (False,) if self.dry else (False, True)
        for name, compiles in [(name, compiles) for compiles in variants for name in TRAINING_RUNS]:
            shape, options = TRAINING_RUNS[name]
            with self.training(shape, options, STEPS) as (_, step, model):
                if compiles:
                    compilation.compile_layers(model.model)
                times = step.loader.kernel_times(next(step.sampler.steps(0))[1])
                model.use_kernel(min(times, key=times.__getitem__))
                if not self.dry:
                    torch.cuda.reset_peak_memory_stats()
                work, tokens, begin = Work(Counts(), self.device), 0.0, 0.0
                for number, planned in enumerate(step.steps(0)):
                    if number == WARM:
                        work, tokens, begin = Work(Counts(), self.device), 0.0, time.perf_counter()
                    result = step.take(number, planned, partial(work.add, reads_some=model.reads_some))
                    tokens += result.sums.full_tokens
                seconds = time.perf_counter() - begin
                precision = "fp32" if self.dry else "bf16"
                facts = utilization(model, work.total(), int(tokens), seconds, peak_flops(self.device, precision))
                yield {
                    "model": name,
                    "layers": "compiled" if compiles else "plain",
                    "attention": model.kernel,
                    **{f"{kernel} in a layer, ms": round(1e3 * value, 2) for kernel, value in times.items()},
                    "real tokens/s": round(tokens / seconds),
                    "utilization": facts["utilisation"],
                    "peak GB": 0.0 if self.dry else round(torch.cuda.max_memory_allocated() / 1e9, 1),
                }

    def scoring(self) -> Iterator[Json]:
        """Real tokens per second that are scored."""
        import torch

        from rewardline.model.reward_model import RewardModel
        from rewardline.scoring.batch_scorer import score_comparisons

        rows = self.comparisons(16 if self.dry else 1024)
        for name in ("SmolLM2-135M", "Llama 1B"):
            dtype = torch.float32 if self.dry else torch.bfloat16
            model = RewardModel(self.model(TRAINING_RUNS[name][0], dtype))
            for _ in range(2):  # the first one warms up
                begin = time.perf_counter()
                list(score_comparisons(model, rows, device=self.device, pad_id=0, batch_tokens=16_384))
                seconds = time.perf_counter() - begin
            yield {"model": name, "real tokens/s": round(sum(row.full_tokens for row in rows) / seconds)}

    def time_shares(self) -> Iterator[Json]:
        """Shares of the device's time by kind of operation, in two steps of SmolLM2-135M."""
        from torch.profiler import ProfilerActivity, profile

        activity = ProfilerActivity.CPU if self.dry else ProfilerActivity.CUDA
        with self.training(*TRAINING_RUNS["SmolLM2-135M"], 4) as (_, step, _model):
            steps = enumerate(step.steps(0))
            for _ in range(2):
                number, planned = next(steps)
                step.take(number, planned, lambda _: None)
            begin = time.perf_counter()
            with profile(activities=[activity]) as profiled:
                for number, planned in steps:
                    step.take(number, planned, lambda _: None)
                wall = 1e6 * (time.perf_counter() - begin)
        shares: dict[str, float] = {}
        for event in profiled.key_averages():
            used = event.self_cpu_time_total if self.dry else event.self_device_time_total
            kind = next((kind for kind, parts in KINDS.items() if any(p in event.key.lower() for p in parts)), "other")
            shares[kind] = shares.get(kind, 0.0) + used / wall
        shares["nothing"] = max(0.0, 1 - sum(shares.values()))
        for kind, share in sorted(shares.items(), key=lambda item: -item[1]):
            yield {"operations": kind, "share of the time": round(share, 3)}


KINDS = {
    "attention": ("flex", "flash", "fmha", "attention", "_sdp"),
    "matrix products": ("gemm", "mm", "cutlass", "xmma", "nvjet", "cublas"),
    "optimizer": ("adam", "multi_tensor", "foreach", "norm_"),
    "copies": ("memcpy", "memset", "copy"),
    "rows": ("index", "scatter", "gather", "embedding"),
}
"""Kinds of operations, and parts of the names of their kernels; the first that fits."""


def markdown(results: Json) -> str:
    """The tables of the results."""
    lines = [f"# {results['device']}, torch {results['torch']}", ""]
    for name, rows in results["parts"].items():
        columns = list(dict.fromkeys(key for row in rows for key in row))
        lines += [f"## {name}", "", f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"] if rows else []
        lines += [f"| {' | '.join(_cell(row.get(key, '')) for key in columns)} |" for row in rows] + [""]
    lines += [f"- {name}: left out, {reason}" for name, reason in results["left_out"].items()]
    return "\n".join(lines).rstrip() + "\n"


def _cell(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else f"{value:,}" if type(value) is int else str(value)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for gpu.json and gpu.md")
    parser.add_argument("--seconds", type=float, default=460, help="time for all parts")
    parser.add_argument("--dry-run", action="store_true", help="tiny shapes on the CPU")
    args = parser.parse_args()
    runtime.prepare(0 if args.dry_run else 1, 1, deterministic=True)  # which alone slows nothing down
    from rewardline.model.processes import local_device, start_processes

    start_processes()
    local_device()
    args.output.mkdir(parents=True, exist_ok=True)
    benchmark = Benchmark(args.output, args.seconds, dry=args.dry_run)
    benchmark.part("Packed rows against padded ones", benchmark.kernels_equal_padded_rows, 30)
    benchmark.part("Resume", benchmark.resume, 30)
    benchmark.part("Training", benchmark.training_runs, 60)
    benchmark.part("Compiled layers", benchmark.compiled_layers, 60)
    benchmark.part("Scoring", benchmark.scoring, 30)
    benchmark.part("Time shares", benchmark.time_shares, 30)


if __name__ == "__main__":
    main()
