"""How long snakemake and each stage take to start, and until the first step of training.

    python benchmarks/planning/startup.py [--project FOLDER] [--rounds 5]

Makes the default run with little data in FOLDER, unless it is there. Then it measures `snakemake` with nothing to do,
and the command of each stage, whose result is there, so that a stage with a key computes nothing. Prints tables in
Markdown, with medians of ms of CPU time, which other work on the machine hardly changes: `libraries` is the import of
others' modules, `own` all else up to the parsed options; `after` is what follows, in which files are hashed. Modules
are compiled before.
"""

import argparse
import json
import os
import re
import resource
import runpy
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TypedDict

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
TIMES = "STARTUP_TIMES"
"""Variable with the file that a probed program leaves its `Times` in."""
COMPUTING = ("plot", "compare", "summarize", "evaluation_card", "track", "gate")
"""Stages without a key, which do all their work again."""
HEAVY = ("torch", "transformers", "deepspeed", "tokenizers", "pandas", "pyarrow", "scipy", "matplotlib", "jinja2")
SMALL = {"datasets": {"demo": {"demo": {"pairs": 400}}}, "runs": {"demo": {"seeds": [0], "training": {"max_steps": 4}}}}
"""Changes to the default configuration."""
STEP = re.compile(r'"step": ?1\b')


class Times(TypedDict):
    """CPU seconds since the program began: until its options were parsed, and until its end; and parts of them."""

    options: float
    end: float
    libraries: float
    late_libraries: float
    hashing: float
    hashed: int
    modules: list[str]


def probe(program: str, arguments: Sequence[str]) -> None:
    """Run a program in this process, and leave its times in the file that the environment names."""
    import builtins

    begin = time.process_time()
    times = Times(options=0, end=0, libraries=0, late_libraries=0, hashing=0, hashed=0, modules=[])
    original, depth = builtins.__import__, 0

    def timed_import(name: str, *rest: object, **named: object) -> ModuleType:
        nonlocal depth
        if depth or name in sys.modules or name.startswith("rewardline"):
            return original(name, *rest, **named)  # type: ignore[arg-type]
        depth, start = 1, time.process_time()
        try:
            return original(name, *rest, **named)  # type: ignore[arg-type]
        finally:
            depth = 0
            times["late_libraries" if times["options"] else "libraries"] += time.process_time() - start

    builtins.__import__ = timed_import
    sys.path.insert(0, str(Path(program).parent))
    from rewardline.core import cli, hashing

    def hashed(kind: str) -> None:
        function = getattr(hashing, kind)

        def counted(path: Path) -> str:
            start = time.process_time()
            text: str = function(path)
            times["hashing"] += time.process_time() - start
            times["hashed"] += path.stat().st_size
            return text

        setattr(hashing, kind, counted)

    hashed("file_xxh3")
    hashed("file_sha256")
    start_logging = cli.start_logging

    def started(*given: object, **named: object) -> None:
        times["options"] = times["options"] or time.process_time() - begin
        start_logging(*given, **named)  # type: ignore[arg-type]

    cli.start_logging = started  # type: ignore[assignment]
    sys.argv = [program, *arguments]
    try:
        runpy.run_path(program, run_name="__main__")
    finally:
        times["end"] = time.process_time() - begin
        times["modules"] = [name for name in HEAVY if name in sys.modules]
        Path(os.environ[TIMES]).write_text(json.dumps(times))


def spent() -> float:
    """CPU seconds of the processes that this one has started and that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def run(command: str, folder: Path, **variables: str) -> float:
    """Run a command; its CPU seconds."""
    begin = spent()
    done = subprocess.run(
        command, shell=True, cwd=folder, env={**ENVIRONMENT, **variables}, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return spent() - begin


def snakemake(options: str) -> str:
    """A command of snakemake."""
    command = f"{sys.executable} -m snakemake --snakefile {shlex.quote(str(ROOT / 'Snakefile'))}"
    return f"{command} {options} --cores all --configfile small.yaml"


def commands(folder: Path) -> dict[str, str]:
    """The command of the first job of each program, by the program's name."""
    command = snakemake("--forceall --dry-run --printshellcmds")
    listing = subprocess.run(command, shell=True, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    found: dict[str, str] = {}
    for line in re.findall(r"python \S*scripts/\w+\.py .*", listing.stdout + listing.stderr):
        found.setdefault(Path(line.split()[1]).stem, line)
    return found


def first_step(command: str, folder: Path) -> float:
    """CPU seconds from the start of a training run, of which nothing is there, to the end of its first step."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        for option, value in (("--output", "model/m"), ("--checkpoints", "checkpoints/m"), ("--log", "log")):
            command = re.sub(rf"{option} (\$\([^)]*\)|\S+)", f"{option} {place}/{value}", command)
        begin = spent()
        process = subprocess.Popen(f"exec {command}", shell=True, cwd=folder, env=ENVIRONMENT)
        try:
            while process.poll() is None:
                if any(STEP.search(path.read_text()) for path in Path(place).glob("checkpoints/m/*/log.jsonl")):
                    break
                time.sleep(0.005)
            else:
                raise SystemExit(f"training ended with code {process.returncode}")
        finally:
            process.kill()
            process.wait()
        return spent() - begin


def milliseconds(values: Sequence[float]) -> str:
    """The median of seconds, in ms."""
    return f"{1000 * statistics.median(values):,.0f}"


def main() -> int:
    """Run the benchmark."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--project", type=Path)
    options.add_argument("--rounds", type=int, default=5)
    args = options.parse_args()
    folder = args.project or Path(tempfile.mkdtemp(prefix="startup-"))
    folder.mkdir(exist_ok=True, parents=True)
    if not (folder / "config").exists():
        (folder / "config").symlink_to(ROOT / "config")
    (folder / "small.yaml").write_text(json.dumps(SMALL))
    run(snakemake(""), folder)
    whole = {
        "import of snakemake alone": f"{sys.executable} -c 'import snakemake.cli'",
        "`snakemake`, nothing to do": snakemake(""),
        "`snakemake show`": snakemake("show"),
        "`snakemake --forceall --dry-run`": snakemake("--forceall --dry-run"),
    }
    print("| command | ms of CPU time |\n|---|---|")
    for name, command in whole.items():
        print(f"| {name} | {milliseconds([run(command, folder) for _ in range(args.rounds)])} |", flush=True)
    stages, rounds = commands(folder), range(min(args.rounds, 3))
    sys.path.insert(0, str(ROOT / "scripts"))
    from rewardline.core.cli import COLLECT_AFTER  # not in a probed program, whose imports are measured

    libraries = (
        f"import gc; gc.set_threshold({COLLECT_AFTER}); import torch, deepspeed, transformers.integrations, "
        "transformers.models.llama.modeling_llama; gc.freeze()"
    )
    steps = [first_step(stages["train"], folder) for _ in rounds]
    print(f"| first step of training | {milliseconds(steps)} |", flush=True)
    imports = [run(f"{sys.executable} -c '{libraries}'", folder, DS_ACCELERATOR="cpu") for _ in rounds]
    print(f"| of these: import of torch, deepspeed and transformers | {milliseconds(imports)} |")
    columns = ("stage", "libraries", "own", "after", "hashing", "MB hashed", "late libraries", "what is imported")
    print(f"\n| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    report = folder / ".times.json"
    for name, command in sorted(stages.items()):
        probed = command.replace(
            "python ", f"{sys.executable} {shlex.quote(str(Path(__file__).resolve()))} --probe ", 1
        )
        measured: list[Times] = []
        for _ in range(args.rounds):
            run(probed, folder, **{TIMES: str(report)})
            measured.append(json.loads(report.read_text()))
        last = measured[-1]
        cells = [
            milliseconds([one["libraries"] for one in measured]),
            milliseconds([one["options"] - one["libraries"] for one in measured]),
            milliseconds([one["end"] - one["options"] - one["late_libraries"] for one in measured]),
            milliseconds([one["hashing"] for one in measured]),
            f"{last['hashed'] / 1e6:.1f}",
            milliseconds([one["late_libraries"] for one in measured]),
            " ".join(last["modules"]),
        ]
        print(f"| {name}{' (works)' if name in COMPUTING else ''} | {' | '.join(cells)} |", flush=True)
    if args.project is None:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--probe"]:
        probe(sys.argv[2], sys.argv[3:])
    else:
        sys.exit(main())
