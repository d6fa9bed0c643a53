"""The demo data's unit: a question with all that is needed to answer it well, or with one flaw."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

T = TypeVar("T")

# How often a wrong value is one that the prompt mentions, where there is one: these take far more examples to learn.
NEAR = 0.2


@dataclass(frozen=True, slots=True)
class Item:
    """A question and its answers. In `answers` and `extras`, `{}` stands for the value that is asked for."""

    question: str
    answers: tuple[str, ...]
    """Phrasings of the answer; the first repeats the words of the prompt most closely."""
    topic: str
    """What the question is about, as a noun: "the pens"."""
    right: str = ""
    near: tuple[str, ...] = ()
    """Wrong values that the prompt mentions."""
    far: tuple[str, ...] = ()
    """Wrong values that the prompt does not mention."""
    context: str = ""
    """Sentences in which the user states the facts; empty if the question stands alone."""
    extras: tuple[str, ...] = ()
    """Further true sentences on the topic."""
    asides: tuple[tuple[str, str], ...] = ()
    """Other questions on the same context, with their answers."""
    chat: bool = False
    """Whether the user talks instead of asking, so that "Here is the answer." would be out of place."""

    def wrong(self, rng: Random) -> str:
        """A wrong value; in some cases one that the prompt mentions."""
        near = bool(self.near) and (not self.far or rng.random() < NEAR)
        return rng.choice(self.near if near else self.far)


Maker = Callable[[Random], Item]


def shares(makers: dict[Maker, int]) -> tuple[Maker, ...]:
    """Each maker as often as its number says, to choose from."""
    return tuple(maker for maker, share in makers.items() for _ in range(share))


def others(rng: Random, pool: Sequence[T], known: Sequence[T], count: int = 3) -> tuple[T, ...]:
    """`count` elements of `pool` that are not in `known`."""
    return tuple(rng.sample([word for word in pool if word not in known], count))


def series(words: Sequence[str], last: str = "and") -> str:
    """`a`, `a and b`, or `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"


def article(noun: str) -> str:
    """`noun` with the right one of a and an."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def capital(text: str) -> str:
    """`text` with a capital first letter."""
    return text[0].upper() + text[1:]
