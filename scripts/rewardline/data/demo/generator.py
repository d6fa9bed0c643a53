"""Demo preference data, made on the fly: pairs whose rejected answer has exactly one labelled flaw.

The default configuration trains on it, so that the whole pipeline runs in minutes and without a download, and so that
there is data on which a person can see whether a reward model learns what it should: each pair's `subset` says what is
wrong with its rejected answer.

| flaw | the rejected answer |
|---|---|
| wrong_number | has another number than the prompt (or a small sum, or the world) gives |
| wrong_fact | has another name, place, day, colour, ... than the prompt, or the world, gives |
| off_question | answers another question, on the same facts or on something else |
| format_ignored | has the right content in a form other than the one that is asked for |
| refusal | refuses a harmless question |
| repetition | is correct, but stuck: it says a part of itself at least three times in a row |
| broken_off | ends in the middle of a sentence |
| rude | is correct, and insults the user |
| empty_praise | flatters the user and answers nothing |

How it is built. A maker (demo_facts, demo_plans, demo_tasks, demo_talk) draws an `Item` (demo_item): a question, the
facts it rests on, phrasings of its answer with a slot for the value that is asked for, wrong values, and further true
sentences. `dialogue` (demo_style) turns it into messages of one or several turns. `compose` (demo_style) makes answers
of it, and a flaw (demo_flaws, demo_format) makes the rejected one. The words are few and common (demo_words).

What keeps it honest. Chosen and rejected answers are composed by the same function from the same optional parts, so
openers, closing sentences and phrasings tell nothing. For every flaw the chosen answer is the longer one, in words, in
half of the pairs (ties count as half): flaws and lengths are dealt from one shuffled deck, and the answers are drawn
again until the one that should be longer is. Most answers with a wrong value are twins of the right ones but for that
value. Values are drawn from the same ranges whether right or wrong, some of the wrong ones stand in the prompt as well,
and either of two forms is asked for equally often, so wrong_number, wrong_fact, off_question and format_ignored cannot
be told without reading the prompt. Names, things, numbers and turns combine so freely that few prompts come twice.

Only `random.Random(seed)` is used, so a seed gives the same rows on every machine, and more rows begin with the same.
"""

from collections.abc import Iterator
from random import Random
from typing import Any

from rewardline.data.demo.flaws import ALL, FLAWS, off_question, wrong_value
from rewardline.data.demo.form import format_pair
from rewardline.data.demo.item import Item, Maker
from rewardline.data.demo.style import Message, compose, dialogue

# How often each flaw stands in the deck that they are dealt from: those that need the prompt come more often, since
# they take more examples to learn.
SHARES = {
    "wrong_number": 8,
    "wrong_fact": 10,
    "off_question": 9,
    "format_ignored": 9,
    "refusal": 5,
    "repetition": 5,
    "broken_off": 5,
    "rude": 5,
    "empty_praise": 5,
}
# How likely each optional part of an answer is at first; more or less so if the lengths do not come out right.
RICH = 0.2
# How often a wrong value is all that differs between the two answers.
TWINS = 0.8
# How often answers are drawn to get the lengths right; nearly always two or three draws do.
TRIES = 12


def generate(pairs: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield `pairs` rows with the keys `prompt`, `chosen`, `rejected` and `subset`; the same ones for the same seed.

    `prompt` is a list of {"role": "system" | "user" | "assistant", "content": str} that ends with the user's turn;
    `chosen` and `rejected` are strings; `subset` is the flaw's name, one of `SHARES`.
    """
    rng = Random(seed)
    deck: list[tuple[str, bool]] = []
    for _ in range(pairs):
        if not deck:
            deck = [(flaw, longer) for flaw, share in SHARES.items() for longer in (True, False) for _ in range(share)]
            rng.shuffle(deck)
        flaw, chosen_longer = deck.pop()
        prompt, chosen, rejected = _pair(rng, flaw, chosen_longer)
        yield {"prompt": prompt, "chosen": chosen, "rejected": rejected, "subset": flaw}


def _pair(rng: Random, flaw: str, chosen_longer: bool) -> tuple[list[Message], str, str]:
    """A prompt and its two answers; the chosen one has more words than the rejected one if `chosen_longer`."""
    earlier = rng.choice(ALL)
    if flaw == "format_ignored":
        return format_pair(rng, earlier, chosen_longer)
    makers, spoil = FLAWS[flaw]
    maker = rng.choice(makers)
    item = maker(rng)
    other = _other(rng, maker, item) if spoil is off_question else item
    prompt = dialogue(rng, item, earlier)
    if spoil is wrong_value and rng.random() < TWINS:
        frame = compose(rng, item, "{}", RICH)
        return prompt, frame.replace("{}", item.right), frame.replace("{}", item.wrong(rng))
    for attempt in range(TRIES):
        more, less = RICH + 0.06 * attempt, RICH - 0.03 * attempt
        chosen = compose(rng, item, item.right, more if chosen_longer else less)
        rejected = spoil(rng, item, other, less if chosen_longer else more)
        excess = len(chosen.split()) - len(rejected.split())
        if excess and (excess > 0) == chosen_longer:
            break
    return prompt, chosen, rejected


def _other(rng: Random, maker: Maker, item: Item) -> Item:
    """A question of another kind than `maker`'s, and on another topic than `item`'s."""
    while True:
        other = rng.choice(ALL)
        if other is not maker and (drawn := other(rng)).topic != item.topic:
            return drawn
