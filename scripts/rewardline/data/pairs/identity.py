"""Identity of texts: normalization, and hashes of prompts, words and n-grams that are the same on every machine."""

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import xxhash

if TYPE_CHECKING:  # probes, and with them the report, need no Arrow
    from rewardline.data.schema import Message

Hashes = npt.NDArray[np.uint64]
_MARKS = "".join(chr(code) for code in range(0x1FFFF) if unicodedata.category(chr(code)) in ("Mn", "Mc"))
# Words with their vowel signs, and the symbols that tell apart C++ and C#, or 7 + 3 and 7 - 3.
_WORDS = re.compile(rf"[\w{re.escape(_MARKS)}]+|[-+*/<>=^~|%&@#$\u20a0-\u20cf\u2190-\u22ff]")
_ASCII_WORDS = re.compile(r"\w+|[-+*/<>=^~|%&@#$]", re.ASCII)
_HYPHEN = re.compile(r"(?<![\s\d])-|-(?![\s\d])")
_UNSPACED = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
UNITS = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")
"""Words; in scripts that are written without spaces, each character is one."""
_SPLITMIX = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_UINT64_MAX = 2**64 - 1
_NGRAM_BASE = np.uint64(0x9E3779B97F4A7C15)


def stable_hash(*parts: str) -> str:
    """The first 16 hex digits of the SHA-256 of the parts."""
    return hashlib.sha256("\0".join(parts).encode("utf-8")).hexdigest()[:16]


def hash_id(*parts: str) -> int:
    """`stable_hash` as a number below 2^64."""
    return int(stable_hash(*parts), 16)


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


@cache
def _folding() -> dict[int, str]:
    """What `str.translate` folds: default-ignorable characters to nothing, digits to ASCII, look-alikes to Latin."""
    categories = {code: unicodedata.category(chr(code)) for code in range(0x80, 0x20000)}
    ignorable = [code for code, category in categories.items() if category == "Cf"]
    ignorable += [*map(ord, _FILLERS), *range(0xFE00, 0xFE10), *range(0xE0000, 0xE1000)]
    digits = {code: str(unicodedata.decimal(chr(code))) for code, category in categories.items() if category == "Nd"}
    letters = {ord(one): latin for others, latins in _LOOK_ALIKES for one, latin in zip(others, latins, strict=True)}
    return {**dict.fromkeys(ignorable, ""), **digits, **letters}


def normalize(text: str) -> str:
    """`text` without differences in case, punctuation, whitespace, compatibility forms and what looks the same.

    Characters that show nothing are left out, digits of all scripts are equal, and so are letters that look alike.
    """
    folded = text.casefold() if text.isascii() else unicodedata.normalize("NFKC", text).casefold().translate(_folding())
    pattern = _ASCII_WORDS if folded.isascii() else _WORDS  # equal, and much faster
    return " ".join(pattern.findall(_HYPHEN.sub(" ", folded) if "-" in folded else folded)) or folded.strip()


def prompt_identity(prompt: Iterable["Message"]) -> int:
    """The id of a prompt: equal for prompts with the same roles and normalized texts."""
    return hash_id(*(part for turn in prompt for part in (turn["role"], normalize(turn["content"]))))


def _words(text: str) -> list[str]:
    normal = normalize(text)
    if normal.isascii():
        return normal.split() if any(map(str.isalnum, normal)) else []
    return UNITS.findall(normal) if _WORDS.search(normal) else []


def word_hashes(*texts: str) -> Hashes:
    """The hash of each word of the normalized texts, in order, uint64 [N]; see `UNITS` for what a word is."""
    words = [xxhash.xxh3_64_intdigest(word.encode()) for text in texts for word in _words(text)]
    return np.array(words, dtype=np.uint64)


def ngram_hashes(words: Hashes, n: int) -> Hashes:
    """The hash of each run of `n` words, uint64 [max(0, N - n + 1)]."""
    count = len(words) - n + 1
    if count < 1:
        return np.zeros(0, dtype=np.uint64)
    result = np.zeros(count, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for offset in range(n):
            result = result * _NGRAM_BASE + words[offset : offset + count]
        return result ^ (result >> np.uint64(29))
