"""The report's part about sweeps: the accuracy by each swept setting, and learning curves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from rewardline.evaluation.comparisons import LearningCurve
from rewardline.evaluation.leaderboards import Entry, Leaderboard
from rewardline.report import figures
from rewardline.report.provenance import varied_settings
from rewardline.training.records.run_facts import RunFacts

PARALLEL = 3
"""Fewest keys for which parallel coordinates are drawn."""


@dataclass(frozen=True)
class SweepSection:
    """A sweep on a benchmark: a figure for each key, and one of all keys if they are many."""

    title: str
    by_key: dict[str, Markup]
    parallel: Markup | None
    eliminated: int
    """How many cells were eliminated by successive halving, and are left out."""


@dataclass(frozen=True)
class CurveSection:
    """A learning curve: its figure, and what it says in words."""

    svg: Markup
    sentence: str
    law: str


def sweep_sections(boards: Sequence[Leaderboard], facts: Mapping[str, RunFacts]) -> list[SweepSection]:
    """The sections of all sweeps, by the benchmarks that they are judged on."""
    sections: list[SweepSection] = []
    for number, board in enumerate(boards):
        sweeps: dict[str, list[Entry]] = {}
        for entry in board.entries:
            known = facts.get(entry.runs[0])
            if known and known.sweep:
                sweeps.setdefault(known.sweep, []).append(entry)
        for name, entries in sweeps.items():
            eliminated = sum(facts[entry.runs[0]].eliminated_at is not None for entry in entries)
            entries = [e for e in entries if facts[e.runs[0]].eliminated_at is None and not e.mark]
            runs = [facts[entry.runs[0]] for entry in entries]
            varied = _with_names(varied_settings(runs), runs)
            anchor = f"sweep-{number}-{len(sections)}"
            by_key = {
                key: _by_key(f"{anchor}-{k}", key, values, entries) for k, (key, values) in enumerate(varied.items())
            }
            parallel = _parallel(anchor, varied, entries) if len(varied) >= PARALLEL else None
            if by_key:
                sections.append(SweepSection(f"{name}, {board.title}", by_key, parallel, eliminated))
    return sections


def _with_names(varied: dict[str, dict[str, str]], runs: Sequence[RunFacts]) -> dict[str, dict[str, str]]:
    names = {"mixture": {run.run: run.mixture for run in runs}, "model": {run.run: run.model for run in runs}}
    return {**{key: by_run for key, by_run in names.items() if len(set(by_run.values())) > 1}, **varied}


def _ordered(values: Mapping[str, str]) -> list[str]:
    """The distinct values, numbers by size."""

    def key(text: str) -> tuple[float, str]:
        try:
            return float(text), text
        except ValueError:
            return float("inf"), text

    return sorted(set(values.values()), key=key)


def _by_key(name: str, key: str, values: Mapping[str, str], entries: Sequence[Entry]) -> Markup:
    ordered = _ordered(values)
    rates = [[entry.total for entry in entries if values[entry.runs[0]] == value] for value in ordered]
    return figures.by_setting(name, key, ordered, rates)


def _parallel(name: str, varied: Mapping[str, Mapping[str, str]], entries: Sequence[Entry]) -> Markup:
    orders = {key: _ordered(values) for key, values in varied.items()}
    places = {key: {value: k / (len(order) - 1) for k, value in enumerate(order)} for key, order in orders.items()}
    rows = [
        ([places[key][values[entry.runs[0]]] for key, values in varied.items()], entry.total.accuracy)
        for entry in entries
    ]
    return figures.parallel_coordinates(name, [key.rpartition(".")[2] for key in varied], rows)


def curve_sections(curves: Sequence[LearningCurve]) -> list[CurveSection]:
    """The sections of all learning curves."""
    return [
        CurveSection(
            figures.learning_curve(f"learning-curve-{number}", curve),
            curve.sentence(),
            f"{'Error' if curve.metric == 'error' else 'Loss'}"
            + (" falls as pairs^\N{MINUS SIGN}" if curve.exponent >= 0 else " rises as pairs^")
            + f"{abs(curve.exponent):.2f}"
            f" (95% interval of the exponent {curve.exponent_low:.2f} to {curve.exponent_high:.2f})"
            + (f", down to {curve.floor:.3f}" if curve.floor else ""),
        )
        for number, curve in enumerate(curves)
    ]
