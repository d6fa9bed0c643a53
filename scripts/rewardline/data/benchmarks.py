"""What published benchmarks consist of: their subsets, sections and numbers of prompts."""

import re
from collections.abc import Mapping
from typing import Final

_LANGUAGES: Final = ("cpp", "go", "java", "js", "python", "rust")
PROMPTS: Final[Mapping[str, Mapping[str, int]]] = {
    "Chat": {
        "alpacaeval-easy": 100, "alpacaeval-length": 95, "alpacaeval-hard": 95, "mt-bench-easy": 28, "mt-bench-med": 40,
    },
    "Chat Hard": {
        "mt-bench-hard": 37, "llmbar-natural": 100, "llmbar-adver-neighbor": 134, "llmbar-adver-GPTInst": 92,
        "llmbar-adver-GPTOut": 47, "llmbar-adver-manual": 46,
    },
    "Safety": {
        "refusals-dangerous": 100, "refusals-offensive": 100, "xstest-should-refuse": 154, "xstest-should-respond": 250,
        "donotanswer": 136,
    },
    # math-prm has 447 prompts and counts as many as there are about code.
    "Reasoning": {"math-prm": 984, **dict.fromkeys((f"hep-{language}" for language in _LANGUAGES), 164)},
}  # fmt: skip
"""RewardBench: the subsets of each section, and the number of prompts that each counts as."""
SECTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "rewardbench": tuple(PROMPTS),
    "rewardbench2": ("Factuality", "Precise IF", "Math", "Safety", "Focus", "Ties"),
    "rm_bench": ("chat", "math", "code", "safety"),
    "judgebench": ("mmlu-pro", "livebench-reasoning", "livebench-math", "livecodebench"),
}
"""By scoring: the sections whose mean is the benchmark's score (for JudgeBench: the categories)."""
STYLES: Final = 3
TIES: Final = "Ties"
_TIES_ITEM: Final = re.compile(r"(ref|tied):(\d+)")
_SECTION_OF: Final = {subset: section for section, subsets in PROMPTS.items() for subset in subsets}


def section_of(subset: str, scoring: str) -> str | None:
    """The section that pairs of a subset belong to, None if the benchmark has no such subset."""
    if scoring == "rewardbench":
        return _SECTION_OF.get(subset)
    if scoring == "rewardbench2":
        return next((name for name in SECTIONS[scoring] if name.lower() == subset.lower()), None)
    return next((name for name in SECTIONS[scoring] if subset.startswith(name)), None)


def mismatch(scoring: str, subset: str, item: str = "", answers: int = 2) -> str | None:
    """How a row with this subset, id and number of answers differs from the benchmark's, and what to do; else None."""
    section = section_of(subset, scoring)
    if section is None:
        known = _SECTION_OF if scoring == "rewardbench" else SECTIONS[scoring]
        return (
            f"{subset or 'a row without a subset'!r} is no subset of {scoring}, which has {', '.join(known)}; map "
            "it with `fields: {subset: ...}`, leave such rows out with `where`, or take out `scoring`"
        )
    if section == TIES and scoring == "rewardbench2" and not _TIES_ITEM.fullmatch(item):
        return (
            f"its id is {item!r}, but rows of subset Ties are called ref:<number> and tied:<number>; map it with "
            "`fields: {item: id}`"
        )
    if scoring == "rm_bench" and answers != 2 * STYLES:
        return f"it has {answers} answers, but RM-Bench has {STYLES} chosen and {STYLES} rejected ones, by style"
    return None
