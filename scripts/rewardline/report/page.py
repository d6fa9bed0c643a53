"""The report for people: one HTML page that needs no network, no script and no other file, the same bytes each time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from rewardline.core.files import atomic_file
from rewardline.evaluation.leaderboards import Leaderboard, entries, leaderboards
from rewardline.evaluation.results import EvaluationResult, Rates
from rewardline.report.benchmarks import BenchmarkSection, benchmark_section
from rewardline.report.examples import Example, mislabelled
from rewardline.report.figures import CHOSEN, REJECTED, RUN_COLOURS, shade
from rewardline.report.findings import run_descriptions
from rewardline.report.formatting import Table, percent
from rewardline.report.inputs import ReportData, ReportInputs, ratio, read_inputs
from rewardline.report.rendering import template
from rewardline.report.tables import Mixture, Provenance, mixture, provenance, token_table, training_table
from rewardline.report.training import TrainingSection, training_findings, training_section

MANY_REJECTED, MANY_TRUNCATED = 0.1, 0.05
"""Shares above which rejected rows and truncated pairs are a finding."""


@dataclass(frozen=True)
class OverviewRow:
    """A run and its rates on each benchmark, None where it was not evaluated."""

    colour: str
    name: str
    rates: list[Rates | None]


@dataclass(frozen=True)
class Page:
    """What the template shows. `suspects` are the first of `suspect_count`."""

    descriptions: list[Markup]
    findings: list[Markup]
    benchmarks: list[BenchmarkSection]
    overview: list[OverviewRow]
    suspects: list[Example]
    suspect_count: int
    training: TrainingSection
    mixtures: list[Mixture]
    tokens: Table | None
    training_runs: Table | None
    provenance: list[Provenance]
    chosen: str = CHOSEN
    rejected: str = REJECTED


def write_report(inputs: ReportInputs, output: Path) -> None:
    """Write the page; a `UserError` names an input that is missing or damaged."""
    html = template("report.html.jinja").render(page=page(read_inputs(inputs)))
    with atomic_file(output) as partial:
        partial.write_text(html, encoding="utf-8")


def page(data: ReportData) -> Page:
    """Draw the figures and fill the tables."""
    families = _families(data.results)
    names = {name: [one.run for one in members] for name, members in families.items()}
    colours = {
        run: shade(RUN_COLOURS[k % len(RUN_COLOURS)], seed)
        for k, runs in enumerate(names.values())
        for seed, run in enumerate(runs)
    }
    boards = leaderboards(data.results)
    benchmarks = [benchmark_section(board, data, colours, f"benchmark{k}") for k, board in enumerate(boards, 1)]
    return Page(
        descriptions=run_descriptions(families, {one.run: one.record for one in data.runs}),
        findings=_findings(data, benchmarks),
        benchmarks=benchmarks,
        overview=[
            OverviewRow(colours[runs[0]], name, [_rates(board, name) for board in boards])
            for name, runs in names.items()
        ],
        suspects=mislabelled(data.suspects),
        suspect_count=len(data.suspects),
        training=training_section(data.runs, colours, names),
        mixtures=[mixture(name, stats) for name, stats in data.mixtures.items()],
        tokens=token_table(data.tokens),
        training_runs=training_table(data.runs),
        provenance=provenance(data.runs),
    )


def _families(results: Sequence[EvaluationResult]) -> dict[str, list[EvaluationResult]]:
    """A result of each run, seeds of one run together under their common name; in the order of the results."""
    first: dict[str, EvaluationResult] = {}
    for one in results:
        first.setdefault(one.run, one.model_copy(update={"benchmark": ""}))
    return {entry.name: list(entry.members) for entry in entries(first.values())}


def _rates(board: Leaderboard, name: str) -> Rates | None:
    return next((entry.total for entry in board.entries if entry.name == name), None)


def _findings(data: ReportData, benchmarks: Sequence[BenchmarkSection]) -> list[Markup]:
    """What deserves attention in training, on the benchmarks and in the data."""
    findings = [finding for run in data.runs for finding in training_findings(run)]
    findings += [finding for one in benchmarks for finding in one.findings]
    rejected = {name: ratio(sum(one.rejects.values()), one.rows_in) for name, one in data.mixtures.items()}
    findings += _exceeding(rejected, MANY_REJECTED, "{} of the rows read were rejected; see Data for why.")
    truncated = {name: manifest.truncated_share for name, manifest in data.tokens.items()}
    return findings + _exceeding(truncated, MANY_TRUNCATED, "{} of the pairs lost tokens to the length limit.")


def _exceeding(shares: Mapping[str, float], limit: float, text: str) -> list[Markup]:
    return [
        Markup("<b>{}</b>: {}").format(name, text.format(percent(share)))
        for name, share in shares.items()
        if share > limit
    ]
