"""Single bytes of a finished project's artifacts changed, and what the stages that read them make of it."""

import random
import re
import shlex
import shutil
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from rewardline.core import artifacts, hashing
from rewardline.core.errors import UserError
from rewardline.tokens.store import SPLITS, TokenDataset
from rewardline.training.processes.launcher import Nodes, Rendezvous
from rewardline.training.reuse import TrainingJob
from rewardline.training.settings import TrainSettings

from support.project import Project

READERS = {
    r"data/[^/]+/manifest\.json": ("convert_rows", "build_pairs"),
    r"data/[^/]+/part-.*": ("convert_rows",),
    r"shards/candidates/.*/manifest\.json": ("group_prompts", "clean_pairs", "build_pairs"),
    r"shards/candidates/.*/(prompts\.npy|signatures\.bin)": ("group_prompts",),
    r"shards/candidates/.*/(rows\.npy|batches\.npy|candidates\.arrow)": ("clean_pairs",),
    r"shards/candidates/.*/rejects\.parquet": ("build_pairs",),
    r"shards/prompts/.*/manifest\.json": ("clean_pairs", "build_pairs"),
    r"shards/prompts/.*\.npz": ("clean_pairs",),
    r"shards/pairs/.*/manifest\.json": ("build_pairs", "tokenize_pairs"),
    r"shards/pairs/.*/(train|eval)/.*": ("build_pairs", "tokenize_pairs"),
    r"shards/pairs/.*/(rows\.npy|rejects\.parquet)": ("build_pairs",),
    r"pairs/[^/]+/stats\.json": ("plot",),
    r"pairs/[^/]+/train/part-.*": ("base_model",),
    r"pairs/[^/]+/eval/part-.*": ("evaluate", "build_probes"),
    r"base/.*/(manifest|config|tokenizer|tokenizer_config)\.json": ("tokenize_pairs", "train"),
    r"base/.*\.safetensors": ("train",),
    r"shards/tokens/.*/(manifest\.json|.*\.arrow|rejects\.parquet)": ("join_tokens",),
    r"tokens/.*/manifest\.json": ("train", "evaluate", "plot"),
    r"tokens/.*/train-.*\.arrow": ("train",),
    r"tokens/.*/eval-.*\.arrow": ("train", "evaluate"),
    r"models/[^/]+/(model\.safetensors|config\.json|tokenizer\.json|tokenizer_config\.json)": ("evaluate",),
    r"models/[^/]+/run\.json": ("evaluate", "plot"),
    r"models/[^/]+/log\.jsonl": ("plot",),
    r"evals/.*/metrics\.json": ("compare", "summarize", "evaluation_card", "plot"),
    r"evals/.*/scores\.parquet": ("compare",),
    r"(comparisons\.json|suspects\.parquet|summary\.tsv)": ("plot",),
}
"""The programs that read an artifact, by a pattern of its path in `results/`."""


class Flip(NamedTuple):
    """A changed byte, and the program that then read it."""

    path: Path
    offset: int
    value: int
    program: str


class Damage:
    """A finished project, damaged byte by byte; the current folder must be that of the project."""

    def __init__(self, project: Project, scratch: Path) -> None:
        self._intact, self._out = scratch / "intact", scratch / "out"
        shutil.copytree("results", self._intact)
        listed = project.run("--cores", "2", "--dry-run", "--forceall", "--printshellcmds").stdout
        listed = re.sub(r"\$\(dirname (.+?)/[^/]+\)", r"\1", re.sub(r" --log \S+", "", listed))
        self._jobs = [(name, shlex.split(text)) for name, text in re.findall(r"python scripts/(\w+)\.py (.*)", listed)]
        self._files = sorted(path for path in Path("results").rglob("*") if path.is_file() and self.readers(path))

    def readers(self, path: Path) -> list[tuple[str, list[str]]]:
        """The jobs, as program and options, that read a file."""
        name = path.relative_to("results").as_posix()
        programs = {one for pattern, found in READERS.items() if re.fullmatch(pattern, name) for one in found}
        return [job for job in self._jobs if job[0] in programs and self._is_named(path, job[1])]

    def _is_named(self, path: Path, options: list[str]) -> bool:
        """Whether a command names the file, its folder, or a manifest that is in its folder or names that."""
        for name, option in pairwise(options):
            one = Path(option)
            if option.startswith("results/") and name not in ("--output", "--shard"):
                if one == path or (one.parent if one.suffix else one) in path.parents[:2]:
                    return True
                if (
                    one.suffix == ".json"
                    and f'"{path.parent}"' in (self._intact / one.relative_to("results")).read_text()
                ):
                    return True
        return False

    def flip(self, chance: random.Random) -> tuple[Flip, str]:
        """Change a byte of intact results, and have one of its readers read it; and what came of it.

        That is the message of the `UserError`, or else `silent`, or the name of another error.
        """
        path = chance.choice(self._files)
        self.restore()
        content = bytearray(path.read_bytes())
        offset, value = chance.randrange(len(content)), chance.randrange(1, 256)
        content[offset] ^= value
        program, options = chance.choice(self.readers(path))
        path.write_bytes(content)
        artifacts._hashes.cache_clear()
        hashing._XXH3.clear()
        shutil.rmtree(self._out, ignore_errors=True)
        try:
            self._run(program, options)
            outcome = "silent"
        except UserError as error:
            outcome = str(error)
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"
        return Flip(path, offset, value, program), outcome

    def _run(self, program: str, options: list[str]) -> None:
        values = dict(pairwise(options))
        for name in ("--output", "--shard", "--checkpoints", *(["--suspects"] if program == "compare" else [])):
            if name in values:
                options = [str(self._out / name) if one == values[name] else one for one in options]
        if program != "train":
            assert import_module(program).main(options) == 0
            return
        settings, checkpoints = TrainSettings.model_validate_json(values["--settings"]), self._out / "checkpoints"
        job = TrainingJob(settings, Path(values["--tokens"]), Path(values["--base"]), checkpoints)

        def read_tokens(_: Rendezvous) -> int:
            return min(len(TokenDataset(job.tokens, split)) for split in SPLITS)

        job.run(read_tokens, Nodes(), self._out / "model")

    def restore(self) -> None:
        """Put back all results."""
        shutil.rmtree("results")
        shutil.copytree(self._intact, "results")
