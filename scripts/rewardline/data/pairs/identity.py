"""Identity of texts: normalization, and hashes of prompts, words and n-grams that are the same on every machine."""

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import xxhash

from rewardline.core.hashing import canonical

if TYPE_CHECKING:  # probes, and with them the report, need no Arrow
    import pyarrow as pa

    from rewardline.data.schema import Message, Rating

Hashes = npt.NDArray[np.uint64]
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_SYMBOLS = b"-+*/<>=^~|%&@#$"
"""Symbols that tell apart C++ and C#, or 7 + 3 and 7 - 3: each is a word of its own."""
_ASCII_PARTS = "_" + _SYMBOLS.decode()
_SPACED = bytes(
    ord(" ") if code < 128 and not (chr(code).isalnum() or code in b"_" + _SYMBOLS) else code for code in range(256)
)
"""For each byte of a text in UTF-8: a space where it separates words."""
_HYPHEN = re.compile(r"(?<![\s\d])-|-(?![\s\d])")
_UNSPACED = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
UNITS = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")
"""Words; in scripts that are written without spaces, each character is one."""
_SPLITMIX = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_UINT64_MAX = 2**64 - 1
_REMEMBERED_WORDS, _LONGEST_REMEMBERED = 1 << 16, 32  # words, and characters of one
_NGRAM_BASE = np.uint64(0x9E3779B97F4A7C15)


def stable_hash(*parts: str) -> str:
    """The first 16 hex digits of the SHA-256 of the parts."""
    return _sha256(parts)[:8].hex()


def hash_id(*parts: str) -> int:
    """`stable_hash` as a number below 2^64."""
    return int.from_bytes(_sha256(parts)[:8])


def _sha256(parts: Sequence[str]) -> bytes:
    return hashlib.sha256("\0".join(parts).encode("utf-8")).digest()


def content_id(
    prompt: str, chosen: str, rejected: str, native: str | None, ratings: list["Rating"] | None = None
) -> str:
    """The id of a pair with this content, a stable hash; `prompt` in canonical JSON."""
    others = (*(() if native is None else (native,)), *(() if ratings is None else (canonical(ratings),)))
    return stable_hash(prompt, chosen, rejected, *others)


def id_range(ids: Hashes, low: int, high: int) -> tuple[int, int]:
    """First and last index (exclusive) of the ids in [low, high), of sorted ones; `high` may be 2^64."""
    start = int(np.searchsorted(ids, np.uint64(low)))
    return start, len(ids) if high > _UINT64_MAX else int(np.searchsorted(ids, np.uint64(high)))


@cache
def _seed(key: str) -> int:
    return hash_id(key)


def unit_interval_hashes(key: str, ids: Hashes) -> npt.NDArray[np.float64]:
    """A stable pseudo-random number in [0, 1) for each id, float64 [N]; different keys give independent numbers.

    The finalizer of SplitMix64 (Steele et al., 2014), whose output bits all depend on all input bits.
    """
    mixed = ids ^ np.uint64(_seed(key))
    with np.errstate(over="ignore"):
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(_SPLITMIX[0])
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(_SPLITMIX[1])
    mixed ^= mixed >> np.uint64(31)
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def unit_interval_hash(key: str, number: int) -> float:
    """`unit_interval_hashes` of one id."""
    mixed = number ^ _seed(key)
    mixed = (mixed ^ mixed >> 30) * _SPLITMIX[0] & _UINT64_MAX
    mixed = (mixed ^ mixed >> 27) * _SPLITMIX[1] & _UINT64_MAX
    return ((mixed ^ mixed >> 31) >> 11) * 2.0**-53


def chooses(prompts: Hashes, share: float) -> npt.NDArray[np.bool_]:
    """Whether held-out prompts, by `schema.hash_texts` of their ids, are of the `share` that chooses runs: bool [N]."""
    return unit_interval_hashes("choose", prompts) < share


# Letters of other scripts that look like a Latin one in lower or else in upper case, as of Unicode's confusables.txt
# (UTS 39). One each, since Вода and вода are one word; what is folded is compared, never shown.
_LOOK_ALIKES = (
    ("авгеікмнопрстухѕјһԁԛԝѵӏ", "abreikmhonpctyxsjhdqwvl"),
    ("αβγεζηικμνορτυχω", "abyeznikmvoptuxw"),
    ("օոսհցզ", "onuhgq"),  # noqa: RUF001
    ("ıȷɑɡɩℓᴀʙᴄᴅᴇɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢ", "ijagilabcdeghijklmnoprstuvwyz"),
)
_FILLERS = "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0"
_LATIN = {one: latin for others, latins in _LOOK_ALIKES for one, latin in zip(others, latins, strict=True)}


@cache
def _folded_char(char: str) -> str:
    """A look-alike as its Latin letter, a digit in ASCII, and nothing for what shows nothing."""
    code, category = ord(char), unicodedata.category(char)
    if category == "Cf" or char in _FILLERS or 0xFE00 <= code < 0xFE10 or 0xE0000 <= code < 0xE1000:
        return ""
    return str(unicodedata.decimal(char)) if category == "Nd" else _LATIN.get(char, char)


@cache
def _spaced_char(char: str) -> str:
    """A part of a word, as vowel signs are, itself; a symbol with spaces around it, and a space for all else."""
    if char.isalnum() or unicodedata.category(char) in ("Mn", "Mc"):
        return char
    return f" {char} " if "\u20a0" <= char <= "\u20cf" or "\u2190" <= char <= "\u22ff" else " "


def _replaced(text: str, replacement: Callable[[str], str]) -> str:
    """`text` with a replacement for each character outside ASCII: few different ones are in most texts."""
    for char in set(_NOT_ASCII.findall(text)):
        if (other := replacement(char)) != char:
            text = text.replace(char, other)
    return text


def _folded(text: str) -> str:
    if text.isascii():
        return text.casefold()
    return _replaced(unicodedata.normalize("NFKC", text).casefold(), _folded_char)


def _spaced(folded: str) -> str:
    """The words and symbols of a folded text, with single spaces between them."""
    folded = _HYPHEN.sub(" ", folded) if "-" in folded else folded
    if not folded.isascii():
        folded = _replaced(folded, _spaced_char)
    text = folded.encode("utf-8", "surrogatepass").translate(_SPACED)
    if len(text) != len(text.translate(None, _SYMBOLS)):
        for symbol in (_SYMBOLS[n : n + 1] for n in range(len(_SYMBOLS))):
            if symbol in text:
                text = text.replace(symbol, b" " + symbol + b" ")
    while len(single := text.replace(b"  ", b" ")) < len(text):
        text = single
    return text.strip(b" ").decode("utf-8", "surrogatepass")


def normalize(text: str) -> str:
    """`text` without differences in case, punctuation, whitespace, compatibility forms and what looks the same.

    Characters that show nothing are left out, digits of all scripts are equal, and so are letters that look alike.
    """
    folded = _folded(text)
    return _spaced(folded) or folded.strip()


def prompt_identity(prompt: Iterable["Message"]) -> int:
    """The id of a prompt: equal for prompts with the same roles and normalized texts."""
    return hash_id(*(part for turn in prompt for part in (turn["role"], normalize(turn["content"]))))


def words_of(normal: str) -> str:
    """The words of a normalized text, with single spaces between them; see `UNITS` for what a word is."""
    if normal.isascii():
        return normal if any(map(str.isalnum, normal)) else ""
    is_spoken = any(char in _ASCII_PARTS or _spaced_char(char) != " " for char in normal)
    return " ".join(UNITS.findall(normal)) if is_spoken else ""


def words_in(*texts: str) -> str:
    """The words of all texts, as of `words_of`."""
    return words_of_all(map(normalize, texts))


def words_of_all(normal: Iterable[str]) -> str:
    """The words of all normalized texts, as of `words_of`."""
    return " ".join(filter(None, map(words_of, normal)))


class _WordHashes(dict[str, int]):
    """The hashes of words that came lately: most words of a text are frequent ones."""

    def __missing__(self, word: str) -> int:
        value: int = xxhash.xxh3_64_intdigest(word.encode())
        if len(self) == _REMEMBERED_WORDS:
            self.clear()
        if len(word) <= _LONGEST_REMEMBERED:
            self[word] = value
        return value


_word_hash = _WordHashes().__getitem__


def hash_words(words: str) -> Hashes:
    """The hash of each word of a result of `words_of`, uint64 [N]."""
    each = words.split()
    return np.fromiter(map(_word_hash, each), np.uint64, len(each))


def hash_words_of_many(texts: "pa.StringArray") -> list[Hashes]:
    """`hash_words` of each text, where there are many: each different word is hashed once."""
    import pyarrow.compute as pc  # here, since probes and the report need none

    is_empty = pc.equal(pc.binary_length(texts), 0)
    each = pc.split_pattern(pc.if_else(is_empty, None, texts) if is_empty.true_count else texts, " ")
    words = pc.list_flatten(each).dictionary_encode()
    distinct = list(map(_word_hash, words.dictionary.to_pylist()))
    hashes = np.array(distinct, dtype=np.uint64)[words.indices.to_numpy()]
    ends = np.cumsum(pc.fill_null(pc.list_value_length(each), 0).to_numpy()).tolist()
    return [hashes[low:high] for low, high in pairwise([0, *ends])]


def word_hashes(*texts: str) -> Hashes:
    """The hash of each word of the normalized texts, in order, uint64 [N]."""
    return hash_words(words_in(*texts))


def ngram_hashes(words: Hashes, n: int) -> Hashes:
    """The hash of each run of `n` words, uint64 [max(0, N - n + 1)]."""
    count = len(words) - n + 1
    if count < 1:
        return np.zeros(0, dtype=np.uint64)
    result = words[:count].copy()
    for offset in range(1, n):
        result *= _NGRAM_BASE
        result += words[offset : offset + count]
    return result ^ (result >> np.uint64(29))
