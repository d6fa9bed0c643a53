"""Prompts of which no new training pair may be made: those of benchmarks, and those that a mixture holds out.

Also which prompts are nearly the same.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np

from rewardline.core.artifacts import write_manifest
from rewardline.core.hashing import canonical
from rewardline.data.pairs.candidates import CandidateWriter, prompt_words
from rewardline.data.pairs.decontamination import BenchmarkPrompts
from rewardline.data.pairs.grouping import benchmark_prompts, near_benchmarks, similar_prompts
from rewardline.data.pairs.identity import prompt_identity
from rewardline.data.pairs.manifests import CandidatesManifest
from rewardline.data.pairs.settings import Decontamination
from rewardline.data.parquet import read_array, read_rows
from rewardline.data.schema import Candidate, Message

HELD_OUT_PROMPTS = "the held-out prompts"


class PromptFolder:
    """Writes prompts as candidates without answers, so that they are compared as those of pairs are."""

    def __init__(self, folder: Path, name: str, rows: int) -> None:
        """`rows` is an estimate of their number."""
        folder.mkdir(parents=True)
        self.path, self.name = folder, name
        self._writer = CandidateWriter(folder, rows, 500 * rows)
        self._last = ""

    def add(self, prompt_id: int, prompt: str) -> None:
        """Add a prompt, in canonical JSON; nothing for the one that was added last."""
        if prompt != self._last:
            self._writer.add(Candidate(prompt_id, prompt, "", "", None, 1.0, 1.0, "", self.name, "", 0))
            self._last = prompt

    def close(self) -> None:
        """Sort and write."""
        self._writer.close()
        manifest = CandidatesManifest(
            dataset=self.name,
            format="",
            rows_in=self._writer.rows,
            candidates=self._writer.rows,
            characters=self._writer.characters,
            rejects={},
            pair_rejects={},
            changed={},
            remarks=[],
            reject_examples=[],
        )
        write_manifest(self.path, manifest)


class ReservedPrompts:
    """Finds prompts that are in a benchmark or held out: equal, nearly the same, or with more around them."""

    def __init__(
        self,
        prompts: PromptFolder,
        benchmarks: Sequence[Path],
        held_out: Sequence[Path],
        near_duplicates: float | None,
        rule: Decontamination | None,
    ) -> None:
        """Compare prompts, which are closed here, with those of benchmarks and of held-out pairs.

        `benchmarks`: manifests of their candidates; `held_out`: folders of pairs. The rest is as in a mixture, which
        compares its prompts with benchmarks by n-grams too.
        """
        prompts.close()
        folders = [(CandidatesManifest.read(path).dataset, path.parent) for path in benchmarks]
        own: list[tuple[str, Path]] = []
        if held_out:
            folder = PromptFolder(prompts.path / "held-out", HELD_OUT_PROMPTS, 10_000)
            for path in held_out:
                for prompt in read_rows(path, ["prompt"]):
                    turns = cast("list[Message]", prompt["prompt"])
                    folder.add(prompt_identity(turns), canonical(turns))
            folder.close()
            own = [(HELD_OUT_PROMPTS, folder.path)]
        ids = read_array(prompts.path / "prompts.npy", np.uint64)
        close: list[tuple[int, str]] = []
        if near_duplicates is not None and len(ids):
            close = near_benchmarks(ids, [prompts.path], [*folders, *own], near_duplicates)
        ngram, overlap = (rule.ngram, rule.overlap) if rule else (None, 1.0)
        self._found = {
            reason: BenchmarkPrompts.build(
                benchmark_prompts(places), [one for one in close if one[1] in dict(places)], words, overlap
            )
            for reason, places, words in (("in_benchmark", folders, ngram), ("held_out", own, None))
        }
        self._ids, self._prompts, self._near_duplicates = ids, prompts, near_duplicates

    def similar(self) -> dict[int, int]:
        """The group of each prompt that is nearly the same as another one."""
        table, _ = similar_prompts(self._prompts.name, self._ids, [self._prompts.path], self._near_duplicates)
        return dict(table.tolist())

    def close(self) -> None:
        """Delete the folder of the prompts."""
        shutil.rmtree(self._prompts.path)

    def find(self, prompt_id: int, prompt: str) -> tuple[str, str] | None:
        """The reason, as a code and as a sentence, why no pair may have a prompt, in canonical JSON; or None."""
        for reason, index in self._found.items():
            if detail := index.find(prompt_id, lambda: prompt_words(prompt, system=True)):
                return reason, detail
        return None
