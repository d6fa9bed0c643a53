"""Compare the speed of training with rewardline, TRL and DeepSpeed-Chat.

    python benchmarks/train.py --data hh-rlhf/harmless-base/test.jsonl.gz --peer-python .venv-peers/bin/python

--data is a file of transcripts as in Anthropic/hh-rlhf; without it, the pairs of the demo generator are used. TRL's
RewardTrainer runs if --peer-python names a Python with the packages of envs/requirements-benchmarks.txt; the procedure
of DeepSpeed-Chat is in benchmarks/peers/deepspeed_chat.py. All train the same model and score head on the same pairs in
the same order, alternately, with AdamW, a linear schedule and fp32. With --busy, other processes take cores meanwhile.
With --device cuda, rewardline runs alone, in bf16. With --processes, it runs alone with each of these numbers of
processes, which share out the pairs of a step and the threads.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from preparation import SHAPES, Work, prepare

Json = dict[str, Any]
OURS, TRL, CHAT = "rewardline", "TRL RewardTrainer", "DeepSpeed-Chat"
PUBLISHED = "per_token_published"


@dataclass(frozen=True)
class Result:
    """Measurements of a training run.

    Attributes:
        steps: seconds from the start to the end of each step.
        seconds: seconds from the start to the end of the process.
        losses: training loss of each step.
        end_losses: pairwise loss of each step at the end tokens.
        rss: peak resident memory in GB.
        gpu: peak GPU memory in GB.
        flops: floating-point operations of the model in the complete run, if run.json has them.
    """

    steps: list[float]
    seconds: float
    losses: list[float]
    end_losses: list[float]
    rss: float
    gpu: float
    flops: float | None = None

    def rate(self, tokens: Sequence[int], warm: int) -> float:
        """Real tokens per second after the first `warm` steps; `tokens` has the number of each step."""
        return sum(tokens[warm:]) / (self.steps[-1] - self.steps[warm - 1])


def run(command: list[str], log: Callable[[], Path | None], output: Path, gpu: bool) -> Result:
    """Run a training command and record when each line of its log appears.

    `log` returns the path of the log once it exists. Output of the command is written to `output/printed`.
    """
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    # No requests to the Hub, no telemetry.
    quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": str(ROOT / "scripts")}
    local = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29571"}
    cpu = {} if gpu else {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    begin, times, memory, polled = time.perf_counter(), [], 0.0, 0.0
    with (output / "printed").open("wb") as printed:
        child = subprocess.Popen(
            command, env={**os.environ, **quiet, **local, **cpu}, stdout=printed, stderr=subprocess.STDOUT
        )
        found: Path | None = None
        while True:
            pid, status, usage = os.wait4(child.pid, os.WNOHANG)
            now = time.perf_counter() - begin
            found = found or log()
            lines = found.read_bytes().count(b"\n") if found is not None and found.exists() else 0
            times += [now] * (lines - len(times))
            if pid:
                break
            if gpu and now - polled > 1:
                memory, polled = max(memory, _gpu_memory()), now
            time.sleep(0.01)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode or found is None:
        raise SystemExit(f"{' '.join(command)}\nfailed:\n{(output / 'printed').read_text()[-4000:]}")
    final = found if found.exists() else output / "model" / "log.jsonl"
    rows = [json.loads(line) for line in final.read_text(encoding="utf-8").splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    ends = [row.get("end_loss", row["loss"]) for row in rows if "loss" in row]
    facts = output / "model" / "run.json"
    flops = json.loads(facts.read_text(encoding="utf-8"))["model_flops"] if facts.exists() else None
    return Result(times, now, losses, ends, usage.ru_maxrss * 1024 / 1e9, memory, flops)


def _gpu_memory() -> float:
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    return float(subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0]) * 2**20 / 1e9


def ours(work: Work, threads: int, gpu: bool = False, processes: int = 1, **changes: Any) -> Result:
    """Train with rewardline; `threads`: of each process."""
    out = work.folder / "ours"
    settings = {**work.settings, "training": {**work.settings["training"], "threads": threads, **changes}}
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), "--settings", json.dumps(settings)]
    folders = {"--tokens": work.tokens, "--base": work.base, "--output": out / "model", "--checkpoints": out / "c"}
    counts = {"--gpus": int(gpu), "--processes": processes}
    options = [str(part) for option in {**folders, **counts}.items() for part in option]
    return run([*command, *options], lambda: next(out.glob("c/*/log.jsonl"), None), out, gpu)


def peer(work: Work, threads: int, python: str, program: str) -> Result:
    """Train with a peer."""
    out = work.folder / program.removesuffix(".py")
    training = work.settings["training"]
    job = {
        **{key: training[key] for key in ("pairs_per_step", "learning_rate")},
        "steps": training["max_steps"],
        "max_length": work.max_length,
        "threads": threads,
        "base": str(work.base),
        "pairs": str(work.pairs),
        "output": str(out),
        "pad_id": work.pad_id,
    }
    path = work.folder / f"{program}.json"
    path.write_text(json.dumps(job), encoding="utf-8")
    return run([python, str(ROOT / "benchmarks/peers" / program), str(path)], lambda: out / "log.jsonl", out, False)


@contextmanager
def busy_cores(count: int) -> Iterator[None]:
    """Other work meanwhile: processes that each take a core's time."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def gemm_rate(threads: int, seconds: float = 1.0) -> float:
    """Floating-point operations per second of a large fp32 matrix product on this machine at present."""
    import torch

    torch.set_num_threads(threads)
    a, b = torch.randn(1024, 1024), torch.randn(1024, 4096)
    best, begin = float("inf"), time.perf_counter()
    while time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - start)
    return 2 * 1024 * 1024 * 4096 / best


def computed(work: Work, name: str) -> list[int]:
    """Number of tokens that each step computes, padding included."""
    size, result = work.settings["training"]["pairs_per_step"], []
    for begin in range(0, len(work.lengths), size):
        rows = work.lengths[begin : begin + size]
        if name == CHAT:
            result.append(2 * len(rows) * work.max_length)
        elif name == TRL:
            result.append(2 * len(rows) * max(max(row) for row in rows))
        else:
            result.append(sum(map(sum, rows)) - sum(work.shared[begin : begin + size]))
    return result


def real_tokens(work: Work) -> list[int]:
    """Number of tokens of the chosen and rejected sequences of each step, in full."""
    size = work.settings["training"]["pairs_per_step"]
    return [sum(map(sum, work.lengths[k : k + size])) for k in range(0, len(work.lengths), size)]


def median_and_range(values: Sequence[float], form: str) -> str:
    """Median and range as text."""
    middle = format(statistics.median(values), form)
    return middle if len(values) == 1 else f"{middle} ({format(min(values), form)}-{format(max(values), form)})"


def table(work: Work, results: dict[str, list[Result]], peak: Sequence[float], warm: int) -> str:
    """The comparison as a Markdown table; `peak` is the reference rate of each round in FLOP/s."""
    real = real_tokens(work)
    head = [
        "", "complete job, real tokens/s", "speedup", "steps after warm-up, real tokens/s", "speedup",
        "time to first step, s", "peak RSS, GB", "padding", "computed / real tokens", "utilization",
    ]  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, runs in results.items():
        tokens = computed(work, name)
        padding = 1 - sum(real) / sum(tokens) if name != OURS else 0.0
        jobs, steps = [sum(real) / r.seconds for r in runs], [r.rate(real, warm) for r in runs]
        needed = [6 * work.parameters * sum(tokens) if r.flops is None else r.flops for r in runs]
        flops = [need * rate / sum(real) / top for need, rate, top in zip(needed, steps, peak, strict=True)]
        job_speedup = [r.seconds / o.seconds for r, o in zip(runs, results[OURS], strict=True)]
        step_speedup = [o.rate(real, warm) / r.rate(real, warm) for r, o in zip(runs, results[OURS], strict=True)]
        cells = [
            name, median_and_range(jobs, ",.0f"), median_and_range(job_speedup, ".2f"), median_and_range(steps, ",.0f"),
            median_and_range(step_speedup, ".2f"), median_and_range([r.steps[0] for r in runs], ".1f"),
            median_and_range([r.rss for r in runs], ".2f"), f"{padding:.0%}", f"{sum(tokens) / sum(real):.2f}",
            median_and_range(flops, ".0%"),
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def difference(first: Sequence[float], second: Sequence[float]) -> str:
    """The largest difference of two loss curves."""
    return f"{max(abs(a - b) for a, b in zip(first, second, strict=True)):.1e}"


def curves(work: Work, results: dict[str, list[Result]], threads: int) -> list[str]:
    """Differences between the losses of the peers and of rewardline, as a Markdown list."""
    lines = []
    mine = results[OURS][0].losses
    if TRL in results:
        lines.append(f"- Loss of each step, {TRL}: differs by at most {difference(mine, results[TRL][0].losses)}.")
    if CHAT in results:
        chat = results[CHAT][0]
        lines.append(
            f"- Loss at the end tokens in the first step, {CHAT}: differs by {abs(mine[0] - chat.end_losses[0]):.1e}."
        )
        losses = ours(work, threads, loss=PUBLISHED).losses
        lines.append(
            f"- Loss of each step with {CHAT}'s objective: differs by at most {difference(losses, chat.losses)}."
        )
    return lines


def compare(work: Work, rounds: int, threads: int, warm: int, peers: dict[str, tuple[str, str]], busy: int) -> str:
    """Train with all tools alternately, `rounds` times, on the CPU; returns the report as Markdown."""
    results: dict[str, list[Result]] = {name: [] for name in (OURS, *peers)}
    peak = []
    for turn in range(rounds):
        peak.append(gemm_rate(threads))
        for name, runs in results.items():
            with busy_cores(busy):
                result = ours(work, threads) if name == OURS else peer(work, threads, *peers[name])
            runs.append(result)
            print(f"round {turn + 1}: {name} took {result.seconds:.1f} s", file=sys.stderr)
    tokens = sum(map(sum, work.lengths))
    facts = [
        f"{len(work.lengths)} pairs in {work.settings['training']['max_steps']} steps, {tokens:,} real tokens (chosen "
        f"and rejected in full), {sum(work.shared) / tokens:.0%} of them a shared prefix that is computed once; "
        f"{work.parameters / 1e6:.1f}M parameters without embeddings; {rounds} rounds, {threads} threads; "
        f"{busy} other busy processes; "
        f"matrix products at {median_and_range([rate / 1e9 for rate in peak], '.0f')} GFLOP/s.",
        "",
        table(work, results, peak, warm),
        "",
        "Medians (range over rounds). Speedups are of rewardline over the peer in the same round. Utilization: FLOP/s "
        "of the model divided by the rate of matrix products. The FLOPs of rewardline are `model_flops` of run.json, "
        "without what the last layer does not compute; those of the others are 6 x parameters x computed tokens.",
        *curves(work, results, threads),
    ]
    return "\n".join(facts)


def scaling(work: Work, rounds: int, threads: int, warm: int, processes: Sequence[int]) -> str:
    """Train with each number of processes alternately, `rounds` times; returns the report as Markdown."""
    size, real = work.settings["training"]["pairs_per_step"], real_tokens(work)
    results: dict[int, list[Result]] = {count: [] for count in processes}
    for _ in range(rounds):
        for count, runs in results.items():
            runs.append(ours(work, max(1, threads // count), processes=count))
    first = results[processes[0]]
    lines = [
        f"{size} pairs per step, {work.parameters / 1e6:.1f}M parameters without embeddings; {rounds} rounds, "
        f"{threads} threads in all, at least one for each process.",
        "",
        "| processes | steps after warm-up, real tokens/s | efficiency | largest difference of a loss |",
        "|---|---|---|---|",
    ]
    for count, runs in results.items():
        rates = [run.rate(real, warm) for run in runs]
        ratios = [rate / other.rate(real, warm) for rate, other in zip(rates, first, strict=True)]
        cells = [str(count), median_and_range(rates, ",.0f"), median_and_range(ratios, ".2f")]
        lines.append("| " + " | ".join([*cells, difference(first[0].losses, runs[0].losses)]) + " |")
    return "\n".join(lines)


def on_gpu(work: Work, warm: int, peak: float) -> str:
    """Train with rewardline on a GPU; returns the report as a Markdown table."""
    result = ours(work, os.cpu_count() or 1, gpu=True)
    real = real_tokens(work)
    rate, share = result.rate(real, warm), sum(computed(work, OURS)) / sum(real)
    assert result.flops is not None
    # As if every token of every sequence were computed, as without shared prefixes.
    naive = 6 * work.parameters * rate
    cells = [
        f"{work.parameters / 1e6:.0f}M", f"{rate:,.0f}", f"{rate * share:,.0f}",
        f"{result.flops / sum(real) * rate / peak:.1%}", f"{naive / peak:.1%}", f"{result.steps[0]:.1f}",
        f"{result.gpu:.1f}",
    ]  # fmt: skip
    head = (
        "parameters | real tokens/s | computed tokens/s | utilization | utilization by real tokens |"
        " time to first step, s | GPU memory, GB"
    )
    return f"| {head} |\n{'|---' * len(cells)}|\n| {' | '.join(cells)} |"


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark and print the report."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, help="transcripts (JSON lines, also .gz); default: the demo generator")
    options.add_argument("--model", default="tiny", help=f"a model folder, or one of {', '.join(SHAPES)} (random)")
    options.add_argument("--peer-python", help="Python with TRL; default: without TRL")
    options.add_argument("--no-peers", action="store_true", help="measure rewardline only")
    options.add_argument("--no-deepspeed-chat", action="store_true", help="measure without DeepSpeed-Chat's procedure")
    options.add_argument("--pairs", type=int, help="default: 160; on a GPU 2048")
    options.add_argument("--pairs-per-step", type=int, help="default: 4; on a GPU 64")
    options.add_argument("--micro-batch-tokens", type=int, help="default: 2048; on a GPU 16384")
    options.add_argument("--max-length", type=int, default=512)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--processes", type=int, nargs="+", help="measure rewardline with these numbers of processes")
    options.add_argument("--busy", type=int, default=0, help="number of other processes that take a core each")
    options.add_argument("--warm", type=int, default=4, help="number of warm-up steps")
    options.add_argument("--work", type=Path, help="working folder; default: a temporary one")
    options.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    options.add_argument("--peak", type=float, default=989e12, help="bf16 FLOP/s of the GPU; default: an H100's")
    args = options.parse_args(argv)
    gpu = args.device == "cuda"
    args.pairs = args.pairs or (2048 if gpu else 160)
    args.pairs_per_step = args.pairs_per_step or (64 if gpu else 4)
    args.micro_batch_tokens = args.micro_batch_tokens or (16384 if gpu else 2048)
    training = {
        "pairs_per_step": args.pairs_per_step,
        "max_steps": args.pairs // args.pairs_per_step,
        "tokens_per_micro_batch": args.micro_batch_tokens,
        "precision": "bf16" if gpu else "fp32",
        "zero_stage": int(gpu),  # bf16 needs one
        "learning_rate": 5e-5,
        "schedule": "linear",
        "warmup": 0,
        "weight_decay": 0.0,
        "eval_every": 0,
        "checkpoint_every": 0,
    }
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.work or Path(temporary)).absolute()
        work = prepare(folder, args.data, args.model, args.pairs, args.max_length, training)
        if gpu:
            print(on_gpu(work, args.warm, args.peak))
            return 0
        if args.processes:
            print(scaling(work, args.rounds, args.threads, args.warm, args.processes))
            return 0
        peers = {}
        if args.peer_python and not args.no_peers:
            peers[TRL] = (args.peer_python, "trl_reward.py")
        if not args.no_deepspeed_chat and not args.no_peers:
            peers[CHAT] = (sys.executable, "deepspeed_chat.py")
        print(compare(work, args.rounds, args.threads, args.warm, peers, args.busy))
    return 0


if __name__ == "__main__":
    sys.exit(main())
