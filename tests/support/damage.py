"""Damage to the artifacts of a finished project, and what the stages that read them make of it."""

import random
import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple
from unittest import mock

from rewardline.core import artifacts, hashing
from rewardline.core.errors import UserError
from rewardline.report import summary
from rewardline.tokens.store import SPLITS, TokenDataset
from rewardline.training.processes.launcher import Nodes, Rendezvous
from rewardline.training.reuse import TrainingJob
from rewardline.training.settings import TrainStageSettings

from support.project import Project

DERIVING = ("split_fold", "relabel_pairs", "augment_pairs")
"""Programs that make mixtures of others."""
READERS = {
    r"remote/[^/]+/[^/]+/[^.].*": ("download_file",),
    r"shards/data/.*/[^.][^/]*": ("download",),
    r"data/[^/]+/manifest\.json": ("convert_rows", "build_pairs", "score_rows", "collect_scores", "choose_pairs"),
    r"data/[^/]+/part-.*": ("convert_rows", "score_rows", "collect_scores", "choose_pairs"),
    r"shards/candidates/.*/manifest\.json": ("group_prompts", "clean_pairs", "build_pairs"),
    r"shards/candidates/.*/(prompts\.npy|signatures\.bin|words\.bin|word_counts\.npy)": ("group_prompts",),
    r"shards/candidates/.*/(rows\.npy|batches\.npy|candidates\.arrow)": ("clean_pairs",),
    r"shards/candidates/.*/rejects\.parquet": ("build_pairs",),
    r"shards/prompts/.*/manifest\.json": ("clean_pairs", "build_pairs"),
    r"shards/prompts/.*\.npz": ("clean_pairs",),
    r"shards/pairs/.*/manifest\.json": ("build_pairs", "tokenize_pairs"),
    r"shards/pairs/.*/(train|eval)/.*\.parquet": ("build_pairs", "tokenize_pairs"),
    r"shards/pairs/.*/(rows\.npy|rejects\.parquet)": ("build_pairs",),
    r"pairs/[^/]+/stats\.json": (
        "join_tokens",
        "compare",
        "plot",
        "show",
        "split_fold",
        "relabel_pairs",
        "augment_pairs",
    ),
    r"pairs/[^/]+/train/part-.*": ("base_model", "audit_labels", "choose_pairs", *DERIVING),
    r"pairs/[^/]+/eval/part-.*": (
        "evaluate",
        "build_probes",
        "plot",
        "compare",
        "collect_scores",
        "choose_pairs",
        "relabel_pairs",
        "augment_pairs",
    ),
    r"base/.*/manifest\.json": ("tokenize_pairs", "train", "show"),
    r"base/.*/[^/.]+\.(json|jinja)": ("tokenize_pairs", "train"),
    r"base/.*\.safetensors": ("train",),
    r"shards/tokens/.*/(manifest\.json|.*\.arrow|rejects\.parquet)": ("join_tokens",),
    r"tokens/.*/manifest\.json": ("train", "evaluate", "plot", "show"),
    r"tokens/.*/train-.*\.arrow": ("train",),
    r"tokens/.*/eval-.*\.arrow": ("train", "evaluate", "score_benchmark"),
    r"models/[^/]+/run\.json": ("evaluate", "track", "plot", "score", "score_benchmark", "score_rows", "choose_pairs"),
    r"models/[^/]+/[^/.]+\.(json|jinja|safetensors)": ("evaluate", "score", "score_benchmark", "score_rows"),
    r"models/[^/]+/log\.jsonl": ("track", "plot"),
    r"evals/.*/metrics\.json": ("compare", "summarize", "evaluation_card", "track", "plot", "show"),
    r"evals/.*/scores\.parquet": ("compare", "plot", "audit_labels"),
    r"shards/scores/.*\.(json|scores)": ("evaluate",),
    r"shards/scored/([^/]+/){1,2}[0-9]+/[^.].*": ("collect_scores", "choose_pairs"),
    r"(scores|to_label)/[^/]+/manifest\.json": ("plot", "show"),
    r"audits/[^/]+/audit\.json": ("relabel_pairs", "plot"),
    r"audits/[^/]+/labels\.parquet": ("relabel_pairs",),
    r"audits/[^/]+/suspects\.parquet": ("plot",),
    r"comparisons\.json": ("plot", "show"),
    r"(suspects\.parquet|summary\.tsv)": ("plot",),
}
"""The programs that read an artifact, by a pattern of its path in `results/`; `show` is the final summary."""
OUTPUTS = ("--output", "--shard", "--shards", "--parts", "--checkpoints", "--trackers", "--suspects")
MANIFESTS = (artifacts.MANIFEST, "stats.json", "run.json", "metrics.json")

Kind = Literal["byte", "cut", "lost", "swapped"]
Job = tuple[str, list[str]]


class Change(NamedTuple):
    """A damaged file, how it was damaged, and the program that then read it or, `again`, had once written it."""

    path: Path
    kind: Kind
    program: str
    again: bool = False


class RepeatedError(Exception):
    """A program does its work again, since what it wrote is damaged."""


class Damage:
    """A finished project that is damaged and put back; the current folder must be that of the project."""

    def __init__(self, project: Project, scratch: Path, *arguments: str) -> None:
        """`arguments`: those with which `snakemake` has made the results, such as a configuration."""
        self._intact, self._out = scratch / "intact", scratch / "out"
        shutil.copytree("results", self._intact)
        listed = project.run("--cores", "2", "--dry-run", "--forceall", "--printshellcmds", *arguments).stdout
        listed = re.sub(r"\$\(dirname (.+?)/[^/]+\)", r"\1", re.sub(r" --log \S+", "", listed))
        self._jobs = [(name, shlex.split(text)) for name, text in re.findall(r"python scripts/(\w+)\.py (.*)", listed)]
        questions = ["--prompt", "p", "--answer", "a"]
        self._jobs += [("score", ["--model", str(path), *questions]) for path in Path("results/models").glob("[!.]*")]
        self._jobs.append(("show", []))
        files = sorted(path for path in Path("results").rglob("*") if path.is_file() and path.stat().st_size)
        self._read = [path for path in files if self.readers(path)]
        self._written = [path for path in files if self.writers(path)]

    def readers(self, path: Path) -> list[Job]:
        """The jobs that read a file."""
        name = path.relative_to("results").as_posix()
        programs = {one for pattern, found in READERS.items() if re.fullmatch(pattern, name) for one in found}
        return [job for job in self._jobs if job[0] in programs and self._is_named(path, job)]

    def writers(self, path: Path) -> list[Job]:
        """The jobs that keep a file in a folder of theirs, to do their work once only."""
        if path.suffix == ".lock" or path.name.startswith(".snakemake"):
            return []
        return [
            job
            for job in self._jobs
            for name, option in pairwise(job[1])
            if name in OUTPUTS and (self._intact / Path(option).relative_to("results")).is_dir()
            if Path(option) in path.parents
        ]

    def _is_named(self, path: Path, job: Job) -> bool:
        """Whether a command names the file, its folder, or a manifest that is in its folder or names that."""
        if job[0] == "show":
            return True
        for name, value in pairwise(job[1]):
            option = value.partition("=")[2] if value.startswith("--") else value
            one = Path(option)
            if option.startswith("results/") and name not in ("--output", "--shard", "--parts"):
                if one == path or (one.parent if one.suffix else one) in path.parents[:2]:
                    return True
                if (
                    one.suffix == ".json"
                    and f'"{path.parent}"' in (self._intact / one.relative_to("results")).read_text()
                ):
                    return True
        return False

    def change(self, chance: random.Random, kind: Kind = "byte", again: bool = False) -> tuple[Change, str]:
        """Damage a file of intact results, and have a program read it; and what came of it.

        `again`: the program is started again where it has been before, as by Snakemake after an edit.

        That is the message of the `UserError`, or `repeated`, `equal` or `silent` for results that are made again,
        equal or not known to be so, `unread` for a program that writes what it writes without the damage, or else the
        name of another error.
        """
        path = chance.choice(self._written if again else self._read)
        self.restore()
        jobs = self.writers(path) if again else self.readers(path)
        if (path.name, kind) == ("run.json", "lost"):  # for score.py, the model is then one of another tool
            jobs = [job for job in jobs if job[0] != "score"]
        program, options = chance.choice(jobs)
        self._damage(path, kind, chance)
        self._forget()
        try:
            if again:
                outcome = self._run_again(program, options, path)
            else:
                outcome = self._read_by(program, self._elsewhere(program, options))
        except RepeatedError:
            outcome = "repeated"
        except UserError as error:
            outcome = str(error)
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"
        return Change(path, kind, program, again), outcome

    def _read_by(self, program: str, options: list[str]) -> str:
        """Have a program read damaged results, and if it says nothing, intact ones; whether it made a difference."""
        self._run(program, options)
        written = self._written_elsewhere()
        self.restore()
        self._forget()
        self._run(program, options)
        return "unread" if written and written == self._written_elsewhere() else "silent"

    def _written_elsewhere(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in self._out.rglob("*") if path.is_file()}

    def _forget(self) -> None:
        """Have files hashed again, and remove what was written elsewhere."""
        artifacts._hashes.cache_clear()
        hashing._XXH3.clear()
        shutil.rmtree(self._out, ignore_errors=True)

    def _damage(self, path: Path, kind: Kind, chance: random.Random) -> None:
        content = bytearray(path.read_bytes())
        if kind == "lost":
            path.unlink()
            return
        if kind == "cut":
            del content[chance.randrange(len(content)) :]
        elif kind == "byte":
            content[chance.randrange(len(content))] ^= chance.randrange(1, 256)
        else:
            others = [other for other in self._intact.rglob(f"*{path.suffix}") if other.is_file()]
            others = [other for other in others if other.name == path.name] or others
            others = [other for other in others if other.read_bytes() != content]
            content = bytearray(chance.choice(others).read_bytes()) if others else content[::-1]
        path.write_bytes(content)

    def _elsewhere(self, program: str, options: list[str]) -> list[str]:
        """The options with other folders to write to."""
        values = dict(pairwise(options))
        names = [name for name in OUTPUTS if name in values and name != "--shards"]
        computes = program == "evaluate" and values.get("--shares", "--").startswith("--")
        names += ["--shards"] * (computes or program == "score_benchmark")
        names = [name for name in names if name != "--suspects" or program == "compare"]
        moved = {values[name]: str(self._out / name) for name in names}
        return [moved.get(option, option) for option in options]

    def _run(self, program: str, options: list[str]) -> None:
        values = dict(pairwise(options))
        if program == "show":
            manifests = ("pairs/*/stats.json", "tokens/*/*/manifest.json", "base/*/manifest.json")
            others = ("evals/*/*/metrics.json", "scores/*/manifest.json")
            intact = [sorted(self._intact.glob(one)) for one in (*manifests, *others)]
            found = [["results" / path.relative_to(self._intact) for path in paths] for paths in intact]
            summary.account(found[0], found[1], found[2])
            summary.scored(found[4])
            summary.final_summary(found[3], comparisons=Path("results/comparisons.json"))
            return
        if program != "train":
            assert import_module(program).main(options) == 0
            return
        settings = TrainStageSettings.model_validate_json(values["--settings"])
        checkpoints = Path(values["--checkpoints"])
        job = TrainingJob(settings, Path(values["--tokens"]), Path(values["--base"]), checkpoints, checkpoints)

        def read_tokens(_: Rendezvous) -> int:
            for split in SPLITS:
                TokenDataset(job.tokens, split)
            raise RepeatedError

        job.run(read_tokens, Nodes(), Path(values["--output"]))

    def _run_again(self, program: str, options: list[str], path: Path) -> str:
        """Start a job whose declared outputs Snakemake has deleted; `equal` if they are then as before."""
        outputs = [Path(option) for name, option in pairwise(options) if name == "--output"]
        declared = [folder / name for folder in outputs if folder.is_dir() for name in MANIFESTS]
        for file in [*declared, *(output for output in outputs if output.is_file())]:
            if file != path:
                file.unlink(missing_ok=True)
        with _no_work():
            self._run(program, options)
        written = [file for output in outputs for file in (output, *output.rglob("[!.]*"))]
        for file in (file for file in written if file.is_file()):
            if file.read_bytes() != (self._intact / file.relative_to("results")).read_bytes():
                return "silent"
        return "equal"

    def restore(self) -> None:
        """Put back all results."""
        intact = {path.relative_to(self._intact): path for path in self._intact.rglob("*")}
        for path in sorted(Path("results").rglob("*"), reverse=True):
            if path.relative_to("results") not in intact:
                path.rmdir() if path.is_dir() else path.unlink()
        for name, path in intact.items():
            target = Path("results") / name
            if path.is_dir():
                target.mkdir(parents=True, exist_ok=True)
            elif not target.exists() or hashing.file_state(target)[2:] != hashing.file_state(path)[2:]:
                target.unlink(missing_ok=True)
                shutil.copy2(path, target)


@contextmanager
def _no_work() -> Iterator[None]:
    """In it, a stage that does its work again raises `RepeatedError`."""
    with (
        mock.patch.object(artifacts, "atomic_folder", side_effect=RepeatedError),
        mock.patch("rewardline.scoring.batch_scorer.window_scorer", side_effect=RepeatedError),
    ):
        yield


def is_noticed(change: Change, outcome: str) -> bool:
    """Whether damage is named together with a remedy, has no effect, or what was damaged is made again."""
    if outcome in ("equal", "repeated") if change.again else outcome == "unread":
        return True
    # Where a file has the content of another, its folder is what does not fit together.
    named = str(change.path.parent if change.kind == "swapped" else change.path)
    return named in outcome and bool(re.search("is damaged|is missing|does not exist", outcome))
