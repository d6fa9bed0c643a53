"""M-RewardBench (Gureja et al. 2024, arXiv 2410.15522)."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

from rewardline.core.settings import JsonObject
from rewardline.data.formats.settings import BenchmarkRows
from rewardline.evaluation.published.base import Benchmark, Measured, ScoredRow, mean
from rewardline.evaluation.published.rewardbench import PROMPTS, SECTION_OF, weighted_accuracy
from rewardline.evaluation.results import Section

TRANSLATION: Final = "translation"


class MRewardBench(Benchmark):
    """RewardBench in 23 languages, and pairs of translations; the subset of a row is `<language>/<subset>`."""

    name = "m_rewardbench"
    title = "M-RewardBench"
    measures = "chat, adversarial chat, safety and reasoning in 23 languages, and translation"
    figures = (
        "Each language is the mean of its RewardBench sections, `overall` the mean of the languages. `Chat`, `Chat"
        " Hard`, `Safety` and `Reasoning` are means over languages; `translation` is the accuracy of translation pairs,"
        " which `overall` leaves out. A tie counts as wrong."
    )
    size = "about 2,870 pairs for each of 23 languages, and pairs of translations"
    license = "ODC-BY"
    source = "[CohereLabsCommunity/multilingual-reward-bench]\
(https://huggingface.co/datasets/CohereLabsCommunity/multilingual-reward-bench), arXiv 2410.15522"
    reading: ClassVar[JsonObject] = {"format": "pairs", "fields": {"subset": "={language}/{source}"}}
    shape = BenchmarkRows(
        name=name,
        subsets=list(SECTION_OF),
        pattern=rf"[^/]+/({'|'.join(SECTION_OF)})|(.*/)?{TRANSLATION}.*",
    )

    def measure(self, rows: Sequence[ScoredRow]) -> Measured:
        """Languages, their sections, translation."""
        groups: dict[str, dict[str, list[ScoredRow]]] = {}
        translations = []
        for row in rows:
            language, _, subset = row.subset.rpartition("/")
            if (section := SECTION_OF.get(subset)) is None:
                translations.append(row)
            else:
                groups.setdefault(language, {}).setdefault(section, []).append(row)
        return _figures(groups, translations)


def _figures(groups: Mapping[str, Mapping[str, list[ScoredRow]]], translations: Sequence[ScoredRow]) -> Measured:
    found: dict[str, Section] = {}
    by_section: dict[str, list[Section]] = {}
    for language, parts in sorted(groups.items()):
        scores = {name: weighted_accuracy(rows, PROMPTS[name]) for name, rows in parts.items()}
        for name, value in scores.items():
            by_section.setdefault(name, []).append(Section(score=value, n=len(parts[name])))
        found[language] = Section(score=mean(list(scores.values())), n=sum(map(len, parts.values())))
    overall = mean([section.score for section in found.values()])
    for name in (name for name in PROMPTS if name in by_section):
        parts_of = by_section[name]
        found[name] = Section(score=mean([part.score for part in parts_of]), n=sum(part.n for part in parts_of))
    if translations:
        found[TRANSLATION] = Section(score=mean([row.won for row in translations]), n=len(translations))
    return Measured(overall, found)
