"""The report for people: one HTML page that needs no network and no other file, the same bytes each time.

Its only script sorts tables, and is the only one that a browser runs: the page names its hash.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import matplotlib.style
from markupsafe import Markup, escape

from rewardline.core.files import atomic_file
from rewardline.data.pairs.left_out import TokensAccount
from rewardline.data.pairs.manifests import added
from rewardline.evaluation.leaderboards import entries, leaderboards
from rewardline.evaluation.results import EvaluationResult
from rewardline.report.benchmarks import BenchmarkSection, benchmark_section
from rewardline.report.examples import expected, mislabeled
from rewardline.report.figures import CHOSEN, REJECTED, RUN_COLORS, STYLE, shade
from rewardline.report.findings import run_descriptions
from rewardline.report.formatting import percent, rating_table, ratio
from rewardline.report.inputs import ReportData
from rewardline.report.provenance import provenance, varied_settings
from rewardline.report.rendering import template
from rewardline.report.sweeps import curve_sections, sweep_sections
from rewardline.report.training import training_findings, training_section

MANY_REJECTED, MANY_TRUNCATED = 0.1, 0.05
"""Shares above which rejected rows and truncated pairs are a finding."""


def write_report(data: ReportData, output: Path) -> None:
    """Draw the figures and write the page; a `UserError` names a file of scores or pairs that is missing or damaged."""
    families, marks = _families(data.results)
    names = {name: [one.run for one in members] for name, members in families.items()}
    colors = {
        run: shade(RUN_COLORS[k % len(RUN_COLORS)], seed)
        for k, runs in enumerate(names.values())
        for seed, run in enumerate(runs)
    }
    boards = leaderboards(data.results, data.comparisons)
    facts = [run.facts for run in data.runs]
    with matplotlib.style.context([STYLE], after_reset=True):
        benchmarks = [benchmark_section(board, data, colors, f"benchmark{k}") for k, board in enumerate(boards, 1)]
        sweeps = sweep_sections(boards, {run.run: run for run in facts})
        curves = curve_sections(data.curves)
        training = training_section(data.runs, colors, names)
    script = Path(__file__).with_name("templates").joinpath("sort.js").read_text(encoding="utf-8")
    html = template("report.html.jinja").render(
        descriptions=run_descriptions(families, {run.run: run for run in facts}),
        findings=_findings(data, benchmarks),
        ratings=rating_table(data.results),
        benchmarks=benchmarks,
        totals=[{entry.name: entry.total for entry in board.entries} for board in boards],
        families=names,
        marks=marks,
        colors=colors,
        answers=[(CHOSEN, "chosen"), (REJECTED, "rejected")],
        audits=[(audit, mislabeled(suspects), len(suspects)) for audit, suspects in data.audits],
        suspects=mislabeled(data.suspects),
        suspect_count=len(data.suspects),
        expected=expected(data.suspects, data.comparisons),
        training=training,
        account=_account(data),
        mixtures=data.mixtures,
        added=added,
        tokens=data.tokens,
        runs=facts,
        choices=data.choices,
        sweeps=sweeps,
        curves=curves,
        provenance=provenance(facts),
        varied=varied_settings(facts),
        script=Markup(script),
        script_hash=b64encode(sha256(script.encode()).digest()).decode(),
    )
    with atomic_file(output) as partial:
        partial.write_text(html, encoding="utf-8")


def _families(results: Sequence[EvaluationResult]) -> tuple[dict[str, list[EvaluationResult]], dict[str, str]]:
    """A result of each run, seeds of one run together under their common name, in the order of the results; marks."""
    first: dict[str, EvaluationResult] = {}
    for one in results:
        first.setdefault(one.run, one.model_copy(update={"benchmark": ""}))
    found = entries(first.values())
    return {entry.name: list(entry.members) for entry in found}, {entry.name: entry.mark for entry in found}


def _account(data: ReportData) -> list[str]:
    """What became of all rows and pairs, as in the final summary."""
    lines = [line for one in data.mixtures.values() for line in one.lines()]
    for name, tokens in data.tokens.items():
        lines += TokensAccount.model_validate(tokens.as_json()).lines(*name.split(", "))
    return lines + [line for one in data.scored for line in one.lines()]


def _findings(data: ReportData, benchmarks: Sequence[BenchmarkSection]) -> list[Markup]:
    """What deserves attention in training, on the benchmarks and in the data."""
    findings = [escape(line) for line in data.left_out]
    findings += [finding for run in data.runs for finding in training_findings(run)]
    findings += [finding for one in benchmarks for finding in one.findings]
    rejected = {name: ratio(sum(one.rejects.values()), one.rows_in) for name, one in data.mixtures.items()}
    findings += _exceeding(rejected, MANY_REJECTED, "{} of the rows read were rejected; see Data for why.")
    truncated = {
        name: ratio(one.truncated_pairs, sum(split.pairs + split.answers for split in one.splits.values()))
        for name, one in data.tokens.items()
    }
    return findings + _exceeding(truncated, MANY_TRUNCATED, "{} of the pairs lost tokens to the length limit.")


def _exceeding(shares: Mapping[str, float], limit: float, text: str) -> list[Markup]:
    return [
        Markup("<b>{}</b>: {}").format(name, text.format(percent(share)))
        for name, share in shares.items()
        if share > limit
    ]
