"""The collected cases of shared/cases: rows, settings in overlay.yaml, and the right outcome in its comments."""

import pytest
import yaml

from rewardline.data.formats.detect import choose
from rewardline.data.formats.plausibility import read_first, remarks
from rewardline.data.formats.settings import FormatSettings
from rewardline.data.sources.readers import reader

from support.paths import SHARED_CASES

ASKS = {
    "chosen-rejected-are-ids": "its answers look like ids or names (ans_0a, ans_0b",
    "context-beside-prompt": 'fields: {prompt: "={context}\\n{prompt}"}',
    "hint-for-pairs-says-transcript": "pairs (set format: pairs); transcript (set format: transcript)",
    "labels-in-words-are-not-listed": "for what preferred holds (ours, reference)",
    "lists-of-steps-are-taken-for-lists-of-answers": "if they are the steps of one answer each",
    "lists-of-steps-with-fields": "original_process and modified_process are lists",
    "name-and-name-for-systems": "fields: {answers: [...], scores: [...]}, a list of columns for each",
    "question-under-an-unusual-name-is-dropped": 'fields: {prompt: "={context}\\n{question_text}"}',
    "response-with-a-space": "set values: {first: ..., second: ..., tie: ...}, for what label holds (0, 1)",
    "row-number-offered-as-score": "no format fits by its names alone",
    "strength-of-1-and-2-read-as-first-and-second": "for what preference_strength holds (1, 2)",
    "text-labels-not-listed": "values: {good: ..., bad: ...}, for what final_label holds (1_full, 2_refusal)",
    "two-turn-conversations": "where: {turn: 1}",
    "winner-loser-are-model-names": "fields: {answer_a: alpha_answer, answer_b: beta_answer",
}
"""Where the user is asked, and what for."""
PAIRS = {
    "blank-labels-need-where": (3, "`where: {winner: [answer_1]}`"),
    "columns-in-an-object": (3, ""),
    "one-prompt-for-all-rows": (6, ""),
    "one-translation-in-two-languages": (3, "`fields: {group: lang}`"),
    "rows-in-an-object": (3, ""),
    "several-raters-of-one-answer": (2, ""),
    "sharegpt-tool-roles": (5, ""),
    "system-column-is-the-model-id": (3, "system holds names (online-A, online-B)"),
    "templated-text-chatml": (5, ""),
    "tool-calls-are-dropped": (5, ""),
    "tools-and-images-beside-the-prompt": (5, "images are not read"),
    "unnamed-index-column-makes-all-ties": (5, ""),
    "unnamed-index-column-read-as-scores": (5, ""),
    "votes-read-as-single-rows": (2, ""),
    "weighted-sum-ties-become-pairs": (1, ""),
}
"""The number of pairs, and what is said of the rows."""
FIRST = {
    "several-raters-of-one-answer": ("Name a colour.", "Red is a colour.", "Table is one.", 7 / 3),
    "system-column-is-the-model-id": ("Name a colour.", "Red is a colour.", "Table is one.", 2),
    "templated-text-chatml": ("Be brief.|Name a colour.", "Red is a colour.", "Table is one.", None),
    "unnamed-index-column-read-as-scores": ("Name a colour.", "Red is a colour.", "Table is one.", None),
    "votes-read-as-single-rows": ("Name a colour.", "Red is a colour.", "Table is one.", 1 / 3),
    "weighted-sum-ties-become-pairs": ("Name a river.", "The Nile is a river.", "Ask later.", 0.4),
}
"""The turns of the first pair's prompt, its answers and its margin."""


@pytest.mark.skipif(not SHARED_CASES.is_dir(), reason="needs the collected cases")
def test_every_collected_case_has_its_right_outcome() -> None:
    folders = {path.parent.name: path.parent for path in SHARED_CASES.glob("*/overlay.yaml")}
    assert folders.keys() == ASKS.keys() | PAIRS.keys()
    for name, folder in sorted(folders.items()):
        (path,) = folder.glob("rows.*")
        records = [row.value for row in reader(path, path.name)(path, path.name) if row.value is not None]
        (settings,) = yaml.safe_load((folder / "overlay.yaml").read_text())["datasets"].values()
        options = {key: value for key, value in settings.items() if key != "files"}
        chosen, explanation = choose(records, FormatSettings(**options))
        if name in ASKS:
            assert chosen is None and ASKS[name] in explanation, (name, explanation)
            continue
        assert chosen is not None, (name, explanation)
        (pairs, rejects), (count, said) = read_first(records, chosen), PAIRS[name]
        assert len(pairs) == count and said in "\n".join(remarks(records, chosen)), (name, rejects)
        if name in FIRST:
            prompt, *answers, margin = FIRST[name]
            assert "|".join(turn["content"] for turn in pairs[0].prompt) == prompt, name
            assert [pairs[0].chosen, pairs[0].rejected] == answers, name
            assert pairs[0].margin == (None if margin is None else pytest.approx(margin)), name
