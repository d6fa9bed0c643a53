"""The demo data: varied, balanced, reproducible, and each rejected answer has the flaw that its label names."""

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

import pytest

from rewardline.data.demo.generator import SHARES, generate

from support.paths import SCRIPTS

Row = dict[str, Any]
FLAWS = (
    *("wrong_number", "wrong_fact", "off_question", "format_ignored", "refusal"),
    *("repetition", "broken_off", "rude", "empty_praise"),
)
# Numbers and facts that no prompt states.
WORLD_NUMBERS = {7, 12, 24, 60, 26, 11, 5, 3, 2, 8, 6, 4, 100, 10}
CAPITALS = {"France": "Paris", "Japan": "Tokyo", "Peru": "Lima", "Norway": "Oslo", "Egypt": "Cairo", "Canada": "Ottawa"}


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return list(generate(6000, 0))


def said(row: Row) -> str:
    return "\n".join(message["content"] for message in row["prompt"])


def having(rows: list[Row], flaw: str) -> Iterator[Row]:
    found = [row for row in rows if row["subset"] == flaw]
    assert len(found) > 100
    yield from found


def numbers(text: str) -> set[int]:
    return set(map(int, re.findall(r"\d+", text)))


def vocabulary(text: str) -> set[str]:
    return set(re.findall(r"[a-z']+", text.lower()))


def test_rows_have_the_promised_form(rows: list[Row]) -> None:
    assert len(rows) == 6000
    for row in rows:
        assert list(row) == ["prompt", "chosen", "rejected", "subset"]
        assert json.loads(json.dumps(row)) == row
        roles = [message["role"] for message in row["prompt"]]
        turns = roles[1:] if roles[0] == "system" else roles
        assert turns == ["user", "assistant"] * (len(turns) // 2) + ["user"]
        assert row["chosen"] != row["rejected"]


def test_texts_are_clean(rows: list[Row]) -> None:
    for row in rows:
        for text in (*(message["content"] for message in row["prompt"]), row["chosen"], row["rejected"]):
            assert text and text == text.strip(), text
            assert "  " not in text and "\n\n" not in text and " \n" not in text and "\n " not in text, text
            assert "None" not in text and "{}" not in text, text
            assert "{" not in text or isinstance(json.loads(text)["answer"], str), text
            slips = r"\b[Aa] [aeiou]|\b[Aa]n [^aeiouh\W]| [.,!?]|[.,!?]{2}|[a-z]\. [a-z]"
            assert row["subset"] == "repetition" or not re.search(slips, text), text


def test_a_seed_gives_the_same_rows_and_more_rows_begin_with_the_same() -> None:
    rows = list(generate(300, 7))
    assert list(generate(300, 7)) == rows
    assert list(generate(120, 7)) == rows[:120]
    assert list(generate(300, 8)) != rows
    assert list(generate(0, 7)) == []


def test_rows_do_not_depend_on_the_process() -> None:
    statement = "from rewardline.data.demo.generator import generate"
    program = f"import json; {statement}; print(json.dumps(list(generate(300, 7))))"
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONPATH": str(SCRIPTS), "PYTHONHASHSEED": hash_seed}
        result = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True)
        assert json.loads(result.stdout) == list(generate(300, 7))


def test_prompts_are_varied_and_short(rows: list[Row]) -> None:
    assert len({json.dumps(row["prompt"]) for row in rows}) >= 5000
    assert sum(len(row["prompt"]) >= 3 for row in rows) >= 0.2 * len(rows)
    assert sum(row["prompt"][0]["role"] == "system" for row in rows) >= 0.05 * len(rows)
    prompts = sorted(len(said(row).split()) for row in rows)
    answers = sorted(len(row[side].split()) for row in rows for side in ("chosen", "rejected"))
    assert 10 <= prompts[len(prompts) // 2] <= 45
    assert prompts[len(prompts) * 99 // 100] <= 60
    assert answers[len(answers) * 99 // 100] <= 35


def test_flaws_are_about_equally_frequent(rows: list[Row]) -> None:
    counts = Counter(row["subset"] for row in rows)
    assert set(counts) == set(FLAWS) == set(SHARES)
    assert max(counts.values()) <= 2.1 * min(counts.values())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_length_does_not_tell_the_chosen_answer(seed: int) -> None:
    rows = list(generate(3000, seed))

    def longer(row: Row) -> float:
        excess = len(row["chosen"].split()) - len(row["rejected"].split())
        return 0.5 if excess == 0 else float(excess > 0)

    assert 0.47 <= sum(map(longer, rows)) / len(rows) <= 0.53
    for flaw in FLAWS:
        shares = [longer(row) for row in rows if row["subset"] == flaw]
        assert 0.4 <= sum(shares) / len(shares) <= 0.6, flaw


def test_openers_and_closing_sentences_stand_on_both_sides(rows: list[Row]) -> None:
    for sentence in ("Good question.", "Sure.", "I hope that helps.", "Have a nice day!", "Sorry for the wait."):
        sides = [sum(sentence in row[side] for row in rows) for side in ("chosen", "rejected")]
        assert min(sides) > 0.5 * max(sides) > 20, (sentence, sides)


def test_wrong_number(rows: list[Row]) -> None:
    stated = 0
    for row in having(rows, "wrong_number"):
        given, right, wrong = numbers(said(row)), numbers(row["chosen"]), numbers(row["rejected"])
        derived = {value for a, b in combinations(given, 2) for value in (a + b, abs(a - b), a * b)}
        assert right <= given | derived | {2 * value for value in given} | WORLD_NUMBERS, row
        assert right - wrong, row
        assert wrong, row
        stated += bool(right & given)
    assert stated > 300


def test_wrong_fact(rows: list[Row]) -> None:
    places = capitals = 0
    for row in having(rows, "wrong_fact"):
        question = row["prompt"][-1]["content"]
        if asked := re.search(r"(?:Where|In which room) (?:is|can I find) the (\w+)\?", question):
            told = dict(re.findall(r"[Tt]he (\w+) (?:is )?in the (\w+)", said(row)))
            right, wrong = (
                dict(re.findall(r"[Tt]he (\w+) (?:is )?in the (\w+)", row[s])) for s in ("chosen", "rejected")
            )
            assert right[asked[1]] == told[asked[1]] != wrong[asked[1]], row
            places += 1
        if asked := re.search(r"capital of (\w+)", question):
            city = CAPITALS.get(asked[1])
            assert city is None or (city in row["chosen"] and city not in row["rejected"]), row
            capitals += city is not None
        assert vocabulary(row["chosen"]) != vocabulary(row["rejected"]), row
    assert places > 100
    assert capitals > 0


def test_values_are_not_right_or_wrong_by_themselves(rows: list[Row]) -> None:
    """Each common value is as often in the chosen as in the rejected answers, so the prompt has to be read."""
    for word in ("kitchen", "attic", "garden", "3", "7", "11"):
        sides = [
            sum(word in re.findall(r"\w+", row[side]) for row in rows if row["subset"].startswith("wrong"))
            for side in ("chosen", "rejected")
        ]
        assert min(sides) > 0.6 * max(sides), (word, sides)


def test_off_question(rows: list[Row]) -> None:
    """The chosen answer shares more words with the prompt than the rejected one does, nearly always."""
    better = [
        len(vocabulary(row["chosen"]) & vocabulary(said(row))) / len(vocabulary(row["chosen"]))
        > len(vocabulary(row["rejected"]) & vocabulary(said(row))) / len(vocabulary(row["rejected"]))
        for row in having(rows, "off_question")
    ]
    assert sum(better) > 0.75 * len(better)


def lists(count: int) -> Callable[[str], bool]:
    return lambda text: len(re.findall(r"\w+", text.replace(" and ", ", "))) == count


FORMS: dict[str, Callable[[str], bool]] = {
    r"\b(one|single) word": lambda text: len(text.split()) == 1,
    r"one full sentence|one complete sentence": lambda text: bool(re.fullmatch(r"[A-Z][^.\n]{8,}\.", text)),
    r"two sentences": lambda text: len(re.findall(r"[.!?](?: |$)", text)) == 2,
    r"capital letters": str.isupper,
    r"small letters": str.islower,
    r'JSON.*key "answer"': lambda text: text.startswith("{") and list(json.loads(text)) == ["answer"],
    r"commas": lambda text: bool(re.fullmatch(r"\w+(, \w+)+", text)),
    r"numbered|Number them": lambda text: all(re.fullmatch(r"\d\. \w+", line) for line in text.split("\n")),
    r"bullet|dash": lambda text: all(re.fullmatch(r"- \w+", line) for line in text.split("\n")),
    r"JSON list": lambda text: text.startswith("[") and len(json.loads(text)) >= 2,
    **{rf"exactly {word}": lists(count) for word, count in {"two": 2, "three": 3, "four": 4, "five": 5}.items()},
}


def test_format_ignored(rows: list[Row]) -> None:
    seen: Counter[str] = Counter()
    for row in having(rows, "format_ignored"):
        last = "\n".join(message["content"] for message in row["prompt"] if message["role"] != "assistant")
        asked = [form for form in FORMS if re.search(form, last, re.IGNORECASE)]
        if "two sentences" in asked:
            asked = ["two sentences"]
        assert len(asked) == 1, (asked, row)
        assert FORMS[asked[0]](row["chosen"]), row
        assert not FORMS[asked[0]](row["rejected"]), row
        seen.update(asked)
    assert set(seen) == set(FORMS)


def stuck(text: str) -> bool:
    """Whether a run of one or more words comes three times in a row."""
    words = re.findall(r"[\w']+", text.lower())
    return any(
        words[start : start + size]
        == words[start + size : start + 2 * size]
        == words[start + 2 * size : start + 3 * size]
        for size in range(1, len(words) // 3 + 1)
        for start in range(len(words) - 3 * size + 1)
    )


def test_repetition(rows: list[Row]) -> None:
    for row in rows:
        assert not stuck(row["chosen"]), row
        assert stuck(row["rejected"]) == (row["subset"] == "repetition"), row


def test_broken_off(rows: list[Row]) -> None:
    for row in having(rows, "broken_off"):
        assert row["chosen"][-1] in ".!?", row
        assert row["rejected"][-1].isalnum(), row
        assert len(row["rejected"].split()) >= 2


def test_refusal_rude_and_empty_praise_are_never_chosen(rows: list[Row]) -> None:
    signs = {
        "refusal": r"can't help|cannot say|not able|unable|rather not|may not|decline",
        "rude": r"stupid|blind|your head|child would|wasting|dumb|are slow|idiot|Nobody cares|sick of|fool|bother"
        r"|Try thinking|lazy",
        "empty_praise": r"brilliant|sharp mind|impressed|gifted|clever|love the way|a joy|curiosity|so wonderful"
        r"|my day|smartest|people like you",
    }
    for flaw, sign in signs.items():
        assert not any(re.search(sign, row["chosen"]) for row in rows)
        for row in having(rows, flaw):
            assert re.search(sign, row["rejected"]), row


def test_generation_is_fast() -> None:
    start = time.process_time()
    assert sum(1 for _ in generate(4000, 3)) == 4000
    assert time.process_time() - start < 2.0
