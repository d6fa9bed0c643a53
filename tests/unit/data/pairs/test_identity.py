import re
import unicodedata

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from rewardline.data.pairs.identity import (
    hash_words_of_many,
    ngram_hashes,
    normalize,
    prompt_identity,
    unit_interval_hash,
    unit_interval_hashes,
    word_hashes,
    words_in,
)
from rewardline.data.pairs.manifests import count_words
from rewardline.data.schema import Message


def identity(text: str) -> int:
    return prompt_identity([{"role": "user", "content": text}])


def test_prompts_that_differ_in_case_and_punctuation_are_the_same() -> None:
    variants = ["What is TEA?", "what is tea", "What  is tea!!", "\uff57hat is tea"]
    assert len({identity(text) for text in variants}) == 1
    assert identity("What is coffee?") != identity("What is tea?")


PLAIN = "Where does Peter keep 123 copies of his book?"


@pytest.mark.parametrize(
    "variant",
    [
        "\u200b".join(PLAIN),
        PLAIN.replace("copies", "co\u00adpies").replace("book", "bo\u2060ok\ufe0f"),
        f"\ufeff{PLAIN}\u202c\U000e0041",
        PLAIN.replace("P", "\u0420").replace("e", "\u0435").replace("o", "\u043e"),  # Cyrillic
        PLAIN.replace("o", "\u03bf").replace("i", "\u0131"),  # Greek; dotless i
        PLAIN.replace("123", "\u0661\u0662\u0663"),
        PLAIN.replace("123", "\u0967\u0968\u0969"),
        "".join(chr(ord(letter) + 0xFEE0) if "!" <= letter <= "~" else letter for letter in PLAIN),
        PLAIN.replace("book", "\U0001d41b\U0001d428\U0001d428\U0001d424"),  # mathematical bold
    ],
    ids=["zero width", "soft hyphen", "marks", "Cyrillic", "Greek", "Arabic digits", "Hindi digits", "wide", "bold"],
)
def test_prompts_that_look_the_same_are_the_same(variant: str) -> None:
    assert variant != PLAIN
    assert identity(variant) == identity(PLAIN)


def test_what_looks_different_in_other_scripts_stays_apart_and_case_does_not_count() -> None:
    apart = ["вода", "дом", "том", "γράμμα", "γράφω", "résumé", "resume", "مرحبا", "नमस्ते", "१२", "१३"]
    assert len({identity(text) for text in apart}) == len(apart)
    for text in ("Где живёт Пётр, в Риме?", "Πού μένει ο Πέτρος; ΝΗΣΟΣ"):  # noqa: RUF001
        assert identity(text.upper()) == identity(text.lower()) == identity(text)


def test_prompts_of_punctuation_alone_stay_apart() -> None:
    assert normalize("???") != normalize("!!!")


def test_roles_belong_to_the_prompt() -> None:
    one: list[Message] = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    two: list[Message] = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    assert prompt_identity(one) != prompt_identity(two)


def test_hashes_are_uniform_and_independent_of_each_other() -> None:
    ids = np.array([identity(str(k)) for k in range(4000)], dtype=np.uint64)
    one, two = unit_interval_hashes("one", ids), unit_interval_hashes("two", ids)
    assert abs(one.mean() - 0.5) < 0.02
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.05
    assert unit_interval_hash("one", int(ids[7])) == one[7]
    assert one.min() >= 0
    assert one.max() < 1


def test_hashes_are_the_same_in_every_version() -> None:
    """A split that moved would leak evaluation prompts into the training of models that exist."""
    hashes = [unit_interval_hash("split 1234", number) for number in (0, 1, 2**63)]
    assert [round(number, 6) for number in hashes] == [0.409285, 0.141216, 0.835086]


def test_words_of_scripts_without_spaces_are_characters() -> None:
    assert len(word_hashes("\u4eca\u65e5\u306f good day")) == 5
    assert word_hashes("A b.", "C").tolist() == word_hashes("a B c").tolist()


def test_ngrams_tell_runs_of_words_apart() -> None:
    words = word_hashes("a b c a b c b")
    three = ngram_hashes(words, 3)
    assert len(three) == 5
    assert three[0] == three[3]
    assert len(set(three.tolist())) == 4
    assert len(ngram_hashes(words[:2], 3)) == 0


def test_symbols_and_vowel_marks_make_another_prompt() -> None:
    apart = ["7 + 3", "7 - 3", "7 * 3", "C", "C++", "C#", "\u0915\u093e\u0932", "\u0915\u094b\u0932"]
    assert len({identity(text) for text in apart}) == len(apart)
    assert identity("A well-known e-mail") == identity("a well known e mail")


MARKS = "".join(chr(code) for code in range(0x1FFFF) if unicodedata.category(chr(code)) in ("Mn", "Mc"))
PARTS = re.compile(rf"[\w{re.escape(MARKS)}]+|[-+*/<>=^~|%&@#$\u20a0-\u20cf\u2190-\u22ff]")
HYPHEN = re.compile(r"(?<![\s\d])-|-(?![\s\d])")
SCRIPTS = st.text(
    st.sampled_from("aB1 _-+$.,'\t\x1c\u2019\u2014\u2026\xe9\u0301\u20ac\u2260\u3042\u8a9e\u3002\u0915\u093e\xa0")
)


@given(st.text(st.characters(max_codepoint=127)) | SCRIPTS)
def test_words_and_symbols_are_those_of_the_pattern(text: str) -> None:
    folded = unicodedata.normalize("NFKC", text).casefold()
    expected = " ".join(PARTS.findall(HYPHEN.sub(" ", folded)))
    assert normalize(text) == (expected or folded.strip())


@settings(deadline=None)
@given(st.lists(st.text() | SCRIPTS, max_size=5))
def test_words_of_many_texts_are_those_of_each(texts: list[str]) -> None:
    words = list(map(words_in, texts))
    each = [[xxhash.xxh3_64_intdigest(word.encode()) for word in one.split(" ") if word] for one in words]
    assert [one.tolist() for one in hash_words_of_many(pa.array(words, pa.string()))] == each
    assert [word_hashes(text).tolist() for text in texts] == each


@given(st.lists(st.text(st.characters(max_codepoint=127)) | st.text(), max_size=5))
def test_words_between_white_space_are_counted_as_by_split(texts: list[str]) -> None:
    assert count_words(texts).tolist() == [len(text.split()) for text in texts]
