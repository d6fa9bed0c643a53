"""The published benchmarks by name. A new one takes a file with its class, a fixture of its figures, a line here."""

from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import AfterValidator, WithJsonSchema

from rewardline.core.errors import nearest
from rewardline.core.settings import JsonObject, Text
from rewardline.evaluation.published.base import Benchmark
from rewardline.evaluation.published.helpsteer import HelpSteer
from rewardline.evaluation.published.if_rewardbench import IFRewardBench
from rewardline.evaluation.published.judgebench import JudgeBench
from rewardline.evaluation.published.llmbar import LLMBar
from rewardline.evaluation.published.m_rewardbench import MRewardBench
from rewardline.evaluation.published.ppe_correctness import PPECorrectness
from rewardline.evaluation.published.ppe_human import PPEHuman
from rewardline.evaluation.published.rewardbench import RewardBench
from rewardline.evaluation.published.rewardbench2 import RewardBench2
from rewardline.evaluation.published.rewardmath import RewardMATH
from rewardline.evaluation.published.rm_bench import RMBench
from rewardline.evaluation.published.rmb import RMB
from rewardline.evaluation.published.ultrafeedback import UltraFeedback

_ALL: Final[tuple[Benchmark, ...]] = (
    RewardBench(),
    RewardBench2(),
    RMBench(),
    JudgeBench(),
    RMB(),
    RewardMATH(),
    PPEHuman(),
    PPECorrectness(),
    MRewardBench(),
    IFRewardBench(),
    LLMBar(),
    HelpSteer(),
    UltraFeedback(),
)
BENCHMARKS: Final[Mapping[str, Benchmark]] = {benchmark.name: benchmark for benchmark in _ALL}


def reading(scoring: object) -> JsonObject:
    """The keys that read the rows of a published benchmark, with its name; none for another name."""
    benchmark = BENCHMARKS.get(scoring) if isinstance(scoring, str) else None
    return {**benchmark.reading, "scoring": benchmark.name} if benchmark else {}


def _known(name: str) -> str:
    if name not in BENCHMARKS:
        raise ValueError(f"one of {', '.join(BENCHMARKS)}{nearest(name, BENCHMARKS)}")
    return name


BenchmarkScoring = Annotated[Text, AfterValidator(_known), WithJsonSchema({"enum": list(BENCHMARKS)})]
"""The name of a published benchmark."""
