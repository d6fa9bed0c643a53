import json
import math
import re
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

import matplotlib
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rewardline.core.errors import UserError

from support.results_folder import Page, Results, eval_line, step_line


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path)


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, str]:
    made = Results(tmp_path_factory.mktemp("results")).all()
    return made, made.page()


def percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def test_page_is_self_contained(complete: tuple[Results, str]) -> None:
    html = complete[1]
    page = Page(html)
    assert not re.findall(r"https?:|//[a-z]", html)
    assert {tag for tag, _ in page.seen} & {
        "link",
        "img",
        "iframe",
        "object",
        "image",
        "foreignobject",
    } == set()
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert f"script-src 'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" in html
    for name in ("href", "src", "xlink:href"):
        assert all(value.startswith("#") for value in page.attributes(name))
    assert "url(" not in re.sub(r"url\(#\w+\)", "", html)


def test_references_inside_the_page_lead_somewhere_and_ids_are_unique(complete: tuple[Results, str]) -> None:
    page = Page(complete[1])
    ids = list(page.attributes("id"))
    targets = {value[1:] for value in page.attributes("href")} | set(re.findall(r"url\(#(\w+)\)", complete[1]))
    assert len(ids) == len(set(ids))
    assert targets <= set(ids)


def test_page_is_the_same_bytes_each_time(complete: tuple[Results, str], monkeypatch: pytest.MonkeyPatch) -> None:
    results, html = complete
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setitem(matplotlib.rcParams, "lines.linewidth", 9)
    assert results.page() == html
    assert len(html) < 200_000


def test_leaderboard_shows_the_numbers_of_the_metrics(complete: tuple[Results, str]) -> None:
    results, html = complete
    page = Page(html)
    for run in ("first-seed0", "first-seed1", "second"):
        value = results.metrics[run, "eval"]
        low, high = 100 * value["accuracy_low"], 100 * value["accuracy_high"]
        row = page.row(run, f"{percent(value['accuracy'])} {low:.1f}\N{EN DASH}{high:.1f}%")
        assert row[3:8] == [
            percent(value["length_accuracy"]),
            "400",
            f"{value['loss']:.3f}",
            f"{value['chosen_mean']:.2f}",
            f"{value['rejected_mean']:.2f}",
        ]


def test_seeds_are_averaged_and_their_range_is_shown(complete: tuple[Results, str]) -> None:
    results, html = complete
    found = [results.metrics[f"first-seed{seed}", "eval"]["accuracy"] for seed in (0, 1)]
    page = Page(html)
    assert page.row("first, mean of 2 seeds")[1].startswith(percent(sum(found) / 2))
    assert (
        f"for other prompts and seeds; mean of 2 seeds, from {percent(min(found))} to {percent(max(found))}"
        in page.text
    )


def test_subset_table_shows_the_numbers_of_the_metrics(complete: tuple[Results, str]) -> None:
    results, html = complete
    page = Page(html)
    assert page.row("subset") == ["subset", "pairs", "first", "second", "length only"]
    for name, rates in results.metrics["second", "eval"]["by_subset"].items():
        row = page.row(name, "80")
        assert row[3] == percent(rates["accuracy"])
        assert name in html


def test_data_tokens_and_provenance_show_the_numbers_of_their_files(complete: tuple[Results, str]) -> None:
    page = Page(complete[1])
    assert page.row("rows read")[1] == "5,230"
    assert page.row("held-out pairs (eval)")[1] == "400"
    assert page.row("identical answers")[1:4] == ["310", "5.9%", "0"]
    assert page.row("identical answers")[4] == "data/demo.jsonl, row 17 chosen and rejected are both 'Thank you.'"
    assert page.row("near duplicate")[1:4] == ["0", "0.0%", "17"]
    assert "The longer answer is the chosen one in 55.1% of the pairs." in page.text
    tokens = ["demo, tiny", "4,925", "4,250", "1.30M", "2.06M", "36.9%", "58.5%", "25 (0.5%)", "3,100", "3"]
    assert page.row("demo, tiny") == tokens
    steps = ["second", "demo", "tiny", "0", "331M", "300", "9,600", "2.70M", "12 min 34 s", "3,579"]
    assert page.row(*steps)[10:] == ["1 \N{MULTIPLICATION SIGN} cpu", "0123456789ab"]
    assert page.row("tokenization.seed", "0", "1", "0")
    assert page.row("learning_rate") == ["learning_rate", "0.0001"]
    assert page.row("torch") == ["torch", "2.13.0"]


def test_what_pairs_look_like_is_said_where_it_is_known(results: Results) -> None:
    results.eval("demo")
    similar = {"prompts": 190, "groups": 89, "largest": 4}
    results.pairs(similar_prompts=similar, soft_labels=1234, answer_words={"8": 300, "16": 100})
    page = Page(results.page("pairs"))
    assert "190 prompts are nearly the same as others, in 89 groups of up to 4; all prompts of a group" in page.text
    assert "1,234 pairs have a soft label." in page.text
    assert page.row("below 8") == ["below 8", "300", "75.0%"]


def test_figures_say_what_they_show(complete: tuple[Results, str]) -> None:
    page = Page(complete[1])
    figures = [attributes for tag, attributes in page.seen if tag == "svg"]
    assert len(figures) == sum(tag == "figcaption" for tag, _ in page.seen) >= 10
    assert all(figure["role"] == "img" and len(figure["aria-label"] or "") > 20 for figure in figures)
    for words in ("mean confidence of the pairs", "chosen answer longer by (tokens)", "optimizer step", "mean score"):
        assert words in page.text


def test_a_published_benchmark_is_beside_its_baselines_and_its_best_of_n_curve(complete: tuple[Results, str]) -> None:
    page = Page(complete[1])
    assert page.row("section of rewardbench")[1:] == ["pairs or lists", "first", "second", "longest", "shortest"]
    assert page.row("Chat")[2:] == ["90.0%", "90.0%", "40.0%", "40.0%"]
    assert page.row("Safety")[2:] == ["70.0%", "70.0%", "-", "-"]
    assert page.row("overall")[2:] == ["80.0%", "80.0%", "50.0%", "50.0%"]
    assert "gold score" in page.text
    assert "is over-optimized by best-of-n: the gold score falls from 0.7 at n = 2 to 0.55 at n = 4." in page.text


@pytest.mark.parametrize(
    ("accuracy", "low", "high", "length", "expected"),
    [
        (
            0.72,
            0.68,
            0.76,
            0.55,
            "better than length alone explains: always picking the longer answer is right in 55.0%",
        ),
        (0.72, 0.68, 0.76, 0.30, "always picking the shorter answer is right in 70.0%, inside the interval"),
        (0.60, 0.55, 0.65, 0.70, "worse than a rule that sees only length"),
        (0.51, 0.47, 0.55, 0.60, "The interval includes 50%, so this could be random guessing."),
        (0.40, 0.36, 0.44, 0.50, "worse than random guessing"),
        (None, None, None, None, "no pair was scored"),
    ],
)
def test_headline_says_what_the_accuracy_is_worth(
    results: Results, accuracy: float, low: float, high: float, length: float, expected: str
) -> None:
    value = results.eval("demo", subsets=())
    value |= {"accuracy": accuracy, "accuracy_low": low, "accuracy_high": high, "length_accuracy": length}
    (results.root / "evals/demo/eval/metrics.json").write_text(json.dumps(value))
    assert expected in Page(results.page("scores")).text


def test_runs_that_the_benchmark_cannot_tell_apart_are_named(results: Results) -> None:
    for run, accuracy in (("a", 0.70), ("b", 0.69), ("c", 0.55)):
        value = results.eval(run) | {
            "accuracy": accuracy,
            "accuracy_low": accuracy - 0.04,
            "accuracy_high": accuracy + 0.04,
        }
        (results.root / f"evals/{run}/eval/metrics.json").write_text(json.dumps(value))
    page = Page(results.page("scores"))
    assert "The interval of b overlaps with it, so this benchmark alone does not tell them apart." in page.text
    assert page.row("a", "70.0% 66.0\N{EN DASH}74.0%")[-1] == "best"
    assert page.row("b")[-1] == "1.0 lower, within noise"
    assert page.row("c")[-1] == "15.0 lower, intervals apart"


def test_text_from_the_data_stays_text(results: Results) -> None:
    attack = "<script>alert(1)</script>"
    names = [attack, "--><b>", '" onload="x', "$\\frac{1}{2}$", "\x1b[31m\x00", "{{ 7 * 7 }}", "\u6f22\u5b57 & <i>"]
    results.eval("demo", subsets=names)
    results.model(
        "demo", git={"commit": attack, "dirty": False}, versions={attack: attack}, device=attack, peak_source=attack
    )
    example = {"dataset": attack, "file": attack, "row": 17, "reason": attack, "detail": attack}
    results.pairs(rejects={attack: 3}, by_subset={attack: 1}, by_dataset={attack: {}}, reject_examples=[example])
    results.tokens(model="tiny")
    html = results.page()
    page = Page(html)
    assert html.count("<script") == 1
    assert "onload" not in {name for _, attributes in page.seen for name in attributes}
    assert not set("\x00\x1b") & set(html)
    figure = html[html.index("<svg") : html.rindex("</svg>")]
    for name in (attack, "$\\frac{1}{2}$", "{{ 7 * 7 }}", "\u6f22\u5b57 & <i>"):
        assert name in page.text
        assert name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") in figure


def test_one_pair_and_no_subsets(results: Results) -> None:
    results.eval("demo", n=1, subsets=())
    page = Page(results.page())
    assert "too few pairs to judge" in page.text
    assert "Accuracy by subset" not in page.text


def test_inputs_other_than_metrics_may_be_left_out(results: Results) -> None:
    results.eval("demo")
    page = Page(results.page())
    assert {"Training", "Data", "Provenance"} & set(page.words) == set()
    assert "Accuracy by subset." in Page(results.page("scores")).words


def test_files_may_lack_what_is_not_essential(results: Results) -> None:
    value = results.eval("demo")
    for key in ("accuracy_low", "accuracy_high", "length_accuracy", "loss", "chosen_mean", "by_subset"):
        del value[key]
    (results.root / "evals/demo/eval/metrics.json").write_text(json.dumps(value | {"rejected_mean": math.nan}))
    results.model("demo")
    results.pairs()
    results.tokens()
    page = Page(results.page())
    assert page.row("demo", f"{percent(value['accuracy'])} -")[2:] == ["", "-", "400", "-", "-", "-"]
    (results.root / "models/demo/log.jsonl").write_text("")
    assert "optimizer step" not in Page(results.page()).text


def test_many_subsets_show_the_weakest_and_the_strongest(results: Results) -> None:
    names = [f"subset {k:04d}" for k in range(2000)]
    value = results.eval("demo", n=4000, subsets=names)
    for k, name in enumerate(names):
        value["by_subset"][name] |= {"accuracy": k / 2000, "n": 5 if k < 100 else 20}
    (results.root / "evals/demo/eval/metrics.json").write_text(json.dumps(value))
    html = results.page()
    figure = html[html.index("24 subsets") : html.index("</svg>", html.index("24 subsets"))]
    drawn = re.findall(r"subset \d{4}", figure)
    assert sorted(drawn) == [*names[100:112], *names[-12:]]
    assert "Of 2,000 subsets the 12 weakest and the 12 strongest with 10 pairs or more" in html
    assert "... and 1,700 stronger subsets" in html
    assert len(html) < 250_000


def test_runs_may_know_different_subsets_or_none(results: Results) -> None:
    values = [results.eval(run, n=40, subsets=subsets) for run, subsets in (("a", "xy"), ("b", "x"), ("c", ""))]
    values[0]["by_subset"]["y"] |= {"accuracy": None, "accuracy_low": math.nan, "length_accuracy": None}
    values[2]["by_subset"] = {}
    for value in values:
        (results.root / f"evals/{value['run']}/eval/metrics.json").write_text(json.dumps(value))
    page = Page(results.page())
    assert page.row("y", "20").count("-") == 4


def test_eight_runs_have_colours_of_their_own_and_seeds_share_one(results: Results) -> None:
    for run in "abcdefg":
        results.eval(run, n=60, skill=ord(run) - ord("a"))
    for seed in (0, 1):
        results.eval(f"h-seed{seed}", n=60, seed=seed)
    html = results.page()
    found = re.findall(r'background:(#\w{6})"></i>([a-g]|h-seed\d)<', html)
    colours = {name: {colour for colour, other in found if other == name} for _, name in found}
    assert all(len(one) == 1 for one in colours.values())
    assert len({colour for colour, _ in found}) == 9
    assert "The figures show the best 4 of 8 runs." in html


@pytest.mark.parametrize(("offset", "word"), [(-5.0, "negative"), (5.0, "positive"), (0.0, "")])
def test_drifting_scores_are_a_finding(results: Results, offset: float, word: str) -> None:
    results.eval("demo", subsets=())
    results.model("demo", offset=offset)
    text = Page(results.page("scores")).text
    assert (f"demo : scores drift {word}; see centering" in text) == bool(word)


def test_other_evaluation_sets_have_curves_of_their_own(results: Results) -> None:
    for run in ("demo", "other"):
        results.eval(run)
        results.model(run)
    sets = {"rb2": {"loss": 0.6, "accuracy": 0.7, "chosen_mean": 0.1, "rejected_mean": -0.1, "pairs": 256}}
    lines = [step_line(step) for step in range(1, 11)]
    results.log("demo", [*lines, *({**eval_line(step), "eval_sets": sets} for step in (5, 10))])
    none = dict.fromkeys(("eval_loss", "eval_accuracy", "eval_chosen_mean", "eval_rejected_mean"))
    results.log("other", [*lines, {**eval_line(10), **none, "eval_pairs": 0, "eval_sets": {"own": sets["rb2"]}}])
    text = Page(results.page()).text
    for name in ("rb2", "own"):
        assert f"Loss of {name}." in text and f"Accuracy of {name}." in text


def test_findings_are_listed(results: Results) -> None:
    results.eval("demo")
    results.model("demo", git={"commit": "f" * 40, "dirty": True})
    lines = [step_line(k, loss=0.7 if k > 1 else math.nan) for k in range(1, 11)]
    results.log("demo", [*lines, *(eval_line(k, eval_loss=0.5 + k / 100) for k in (2, 4, 6))])
    results.pairs(rejects={"empty answer": 2000})
    results.tokens(truncated_pairs=2000)
    path = results.root / "evals/demo/eval/scores.parquet"
    table = pq.read_table(path)
    scores = table["chosen_score"].to_numpy().copy()
    scores[:3] = math.nan
    pq.write_table(table.set_column(table.column_names.index("chosen_score"), "chosen_score", pa.array(scores)), path)
    text = Page(results.page()).text
    for expected in (
        "changes that were not committed",
        "not a finite number at 1 of 10 steps",
        "training loss ends at 0.700",
        "held-out loss was lowest at step 2 (0.520) and ends at 0.560",
        "38.2% of the rows read were rejected",
        "40.6% of the pairs lost tokens to the length limit",
        "3 of 400 pairs have a score that is not a finite number",
    ):
        assert expected in text


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("models/demo/log.jsonl", f'{json.dumps(step_line(1))}\n{{"step": 2, "lo', "line 2 is damaged"),
        ("models/demo/log.jsonl", '{"step": 1, "loss": 0.7}', "line 1 is damaged"),
        ("models/demo/log.jsonl", None, "does not exist"),
        ("models/demo/run.json", "", "is damaged"),
        ("models/demo/run.json", '{"run": "demo"}', "is damaged (mixture: Field required; model: "),
        ("evals/demo/eval/scores.parquet", "PAR1", "is damaged"),
        ("pairs/demo/stats.json", "[]", "is damaged"),
        ("pairs/demo/stats.json", "{}", "is damaged (name: Field required; "),
        ("tokens/demo/tiny/manifest.json", "[]", "is damaged"),
        ("tokens/demo/tiny/manifest.json", "{", "is damaged"),
    ],
)
def test_damaged_files_are_named_and_an_old_report_stays(
    results: Results, file: str, content: str | None, expected: str
) -> None:
    results.eval("demo")
    results.model("demo", steps=5)
    results.pairs()
    results.tokens()
    old = results.root / "report.html"
    old.write_text("old")
    path = results.root / file
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(UserError, match=re.escape(str(path))) as error:
        results.page()
    assert expected in str(error.value)
    assert old.read_text() == "old"
    assert not list(results.root.glob(".report*"))


def test_scores_without_a_column_are_named(results: Results) -> None:
    results.eval("demo")
    path = results.root / "evals/demo/eval/scores.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["chosen_score"]), path)
    with pytest.raises(UserError, match=re.escape(str(path))):
        results.page()


def test_page_says_what_was_trained_on_what(complete: tuple[Results, str]) -> None:
    text = Page(complete[1]).text
    assert "first is model tiny trained on 4,525 pairs of demo with 2 seeds; second is model tiny" in text


def test_an_ensemble_is_shown_as_a_run(results: Results) -> None:
    for run in ("a", "b"):
        results.eval(run)
        results.model(run)
    value = results.eval("committee") | {"ensemble": ["a", "b"], "combine": "mean_minus_variance"}
    (results.root / "evals/committee/eval/metrics.json").write_text(json.dumps(value))
    page = Page(results.page())
    assert "committee is an ensemble of a and b, combined by mean minus variance" in page.text
    assert page.row("committee")[1].startswith(percent(value["accuracy"]))


def test_weak_subsets_are_findings(results: Results) -> None:
    value = results.eval("demo", skill=3)
    value["by_subset"]["lists"] |= {"accuracy": 0.55, "accuracy_low": 0.45, "accuracy_high": 0.65}
    value["by_subset"]["code"] |= {"accuracy": 0.5, "accuracy_low": 0.2, "accuracy_high": 0.8, "n": 8}
    (results.root / "evals/demo/eval/metrics.json").write_text(json.dumps(value))
    text = Page(results.page()).text
    assert "demo : not shown to beat random guessing, on the held-out split of demo, at lists (55.0%)." in text


def test_probes_name_the_hacks_that_win(results: Results) -> None:
    for run, padded in (("good", 0.95), ("weak", 0.6)):
        value = results.eval(run, "hacks", n=300, subsets=("empty", "padded", "thanks"), skill=4)
        value["accuracy"] = padded
        for name, accuracy in (("empty", 0.97), ("padded", padded), ("thanks", 0.93)):
            value["by_subset"][name] |= {"accuracy": accuracy}
        (results.root / f"evals/{run}/hacks/metrics.json").write_text(json.dumps(value))
    results.pairs("hacks", by_dataset={"hacks": {"format": "probes", "rows_in": 300}})
    text = Page(results.page()).text
    assert "Against hacks of answers (hacks, 300 pairs), good prefers the real answer in 95.0%" in text
    assert "It falls for none of them often." in text
    assert "weak : prefers the hack to the real answer: padded (40.0%)." in text
    assert "Accuracy by hack." in text
    assert "What these numbers mean" not in text
