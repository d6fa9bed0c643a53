"""Pairs with their text in the report: the hardest ones, and labels to check."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rewardline.core.errors import UserError
from rewardline.evaluation.labels.audit_result import AuditResult
from rewardline.evaluation.results import NAN

from support.results_folder import Page, Results


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path)


def margins(results: Results, *runs: str) -> Any:
    tables = [pq.read_table(results.root / f"evals/{run}/eval/scores.parquet") for run in runs]
    return np.mean([t["chosen_score"].to_numpy() - t["rejected_score"].to_numpy() for t in tables], axis=0)


def suspects(results: Results, *rows: dict[str, Any]) -> None:
    common = {
        "benchmark": "eval",
        "mixture": "demo",
        "dataset": "demo",
        "subset": "lists",
        "margin_std": 0.1,
        "probability": 0.9,
    }
    texts = {"prompt": [{"role": "user", "content": "Is it so?"}], "chosen": "No.", "rejected": "Yes."}
    places = [{"pair_id": f"p{k}", "file": "a.jsonl", "row": 1000 + k} for k in range(len(rows))]
    full = [{**common, **texts, **place, **row} for place, row in zip(places, rows, strict=True)]
    pq.write_table(pa.Table.from_pylist(full), results.root / "suspects.parquet")


def test_hardest_pairs_are_those_with_the_largest_wrong_margin_over_all_seeds(results: Results) -> None:
    results.all()
    page = Page(results.page())
    mean = margins(results, "first-seed0", "first-seed1")
    worst = np.argsort(mean)[:10]
    at = [page.text.index(f"Question {k}?") for k in worst]
    assert at == sorted(at)
    assert page.text.count("Rejected ") == 10
    assert f"{mean[worst[0]]:.2f} Question {worst[0]}?" in page.text
    assert f"data/demo.jsonl, row {worst[0]}" in page.text
    opened = page.text[at[0] : at[1]]
    assert re.search(rf"user Hello! assistant Hi\. user Question {worst[0]}\?", opened)
    assert re.search(rf"chosen score -?[\d.]+ Chosen {worst[0]}\.", opened)


def test_a_run_that_is_right_about_everything_has_no_hardest_pairs(results: Results) -> None:
    results.eval("demo", n=50, skill=100)
    results.texts(n=50)
    assert "hardest pairs" not in Page(results.page()).text


def test_texts_stay_text_and_long_ones_are_cut(results: Results) -> None:
    results.eval("demo", skill=0)
    attack = "<script>alert(1)</script></div>{{ 7 * 7 }}\x00\x1b[31m"
    results.texts(chosen=attack, rejected="word " * 1000)
    html = results.page()
    page = Page(html)
    assert html.count("<script") == 1
    assert not set("\x00\x1b") & set(html)
    assert "<script>alert(1)</script></div>{{ 7 * 7 }}" in page.text
    assert "and 2,500 more characters" in page.text
    assert html.count("word ") == 10 * 500


def test_pairs_without_text_are_left_out(results: Results) -> None:
    results.eval("demo")
    results.texts(n=3)
    assert "Chosen 7." not in results.page()


def test_suspects_are_listed_by_probability_with_what_to_expect(results: Results) -> None:
    results.eval("demo")
    judged = [(3, 3, 0.5, -1.0), (3, 3, 0.8, -4.0), (3, 2, 0.3, -9.0)]
    names = "runs", "against", "probability", "margin_mean"
    suspects(results, *(dict(zip(names, one, strict=True)) for one in judged))
    board = {"benchmark": "eval", "mixture": "demo", "differences": [], "wrong_labels": 3.2}
    (results.root / "comparisons.json").write_text(json.dumps({"boards": [board]}))
    text = Page(results.page()).text
    assert text.index("row 1,001") < text.index("row 1,000") < text.index("row 1,002")
    assert "80.0% Is it so?" in text
    assert "preferred by 66.7% of the runs, by 9.00 times their usual margin" in text
    assert "3 listed, of which 2 are expected to be wrong (precision 53.3%); that is 50.0% (recall)" in text
    assert "of about 3 wrong labels" in text


def test_an_audit_says_how_many_labels_are_wrong_and_shows_them(results: Results) -> None:
    results.eval("demo")
    suspects(results, *({"runs": 1, "against": 1, "probability": 0.9, "margin_mean": -k / 10} for k in range(1, 30)))
    folder = results.root / "audits" / "check"
    folder.mkdir(parents=True)
    (results.root / "suspects.parquet").rename(folder / "suspects.parquet")
    audit = AuditResult(
        name="check",
        mixture="demo",
        run="first",
        folds=4,
        n=2000,
        wrong=101.0,
        wrong_low=90.0,
        contradicted=250,
        unscored=3,
    )
    audit.write(folder / "audit.json", ["suspects.parquet"])
    text = Page(results.page()).text
    assert "Audit of labels: check" in text and "Labels to check" not in text
    assert "Each of 2,000 training labels of demo was scored" in text and "on the other 3 of 4 parts" in text
    assert "About 101 labels (5.1%) are estimated to be wrong, at least 90; the models contradict 250." in text
    assert "Caution" not in text
    assert "3 pairs were not judged." in text and "These are the first 20 of 29 in" in text
    assert "90.0% Is it so?" in text
    weak = audit.model_copy(
        update={"wrong": NAN, "wrong_low": NAN, "unjudged": "the models agree with 56.0% of the labels"}
    )
    weak.write(folder / "audit.json", ["suspects.parquet"])
    text = Page(results.page()).text
    assert "The models contradict 250." in text and "estimated to be wrong" not in text
    assert "Caution: no label is judged, and mixtures of this audit keep all: the models agree with 56.0%" in text
    (folder / "suspects.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"suspects\.parquet is damaged"):
        results.page()


def test_many_suspects_are_counted_and_none_leave_no_section(results: Results) -> None:
    results.eval("demo")
    suspects(results, *({"runs": 2, "against": 2, "margin_mean": -k / 10} for k in range(1, 50)))
    assert "These are the first 20 of 49;" in Page(results.page()).text
    empty = pq.read_table(results.root / "suspects.parquet").slice(0, 0)
    pq.write_table(empty, results.root / "suspects.parquet")
    assert "Labels to check" not in Page(results.page()).text


@pytest.mark.parametrize("file", ["suspects.parquet", "pairs/demo/eval/part-00001.parquet"])
def test_damaged_files_are_named(results: Results, file: str) -> None:
    results.eval("demo")
    results.texts()
    suspects(results, {"runs": 2, "against": 2, "margin_mean": -1.0})
    (results.root / file).write_text("PAR1")
    with pytest.raises(UserError, match=re.escape(str((results.root / file).parent))):
        results.page()
