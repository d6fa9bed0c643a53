"""The demo's flaws: each takes an item that has a good answer and returns an answer with exactly one thing wrong."""

from collections.abc import Callable
from dataclasses import replace
from random import Random

from rewardline.data.demo.facts import counts, location, location_check, owner, position, profile
from rewardline.data.demo.item import Item, Maker, shares
from rewardline.data.demo.plans import event_day, event_time, price, priced_thing
from rewardline.data.demo.style import closers, compose, openers
from rewardline.data.demo.talk import advice, news
from rewardline.data.demo.tasks import (
    baby_animal,
    capital_city,
    opposite,
    ordering,
    past_tense,
    plain_sum,
    politeness,
    story_sum,
    total_price,
    world_count,
)
from rewardline.data.demo.words import lines, words

# How often each question is asked for the flaws that only the prompt reveals: a few of them mostly, so that there are
# enough examples to learn from.
NUMBERS = shares(
    {counts: 12, price: 5, event_time: 3, story_sum: 1, plain_sum: 1, total_price: 1, world_count: 1},
)
FACTS = shares(
    {
        **{location: 14, event_day: 6, owner: 5, profile: 4},
        **{location_check: 1, priced_thing: 1, position: 1, capital_city: 1, opposite: 1, baby_animal: 1},
    }
)
# How often for the flaws that can befall any question.
QUESTIONS = shares(
    {
        **{counts: 3, price: 2, event_time: 2, story_sum: 1, plain_sum: 1, total_price: 1, world_count: 1},
        **{location: 3, event_day: 2, owner: 2, profile: 2, location_check: 1, priced_thing: 1, position: 1},
        **{capital_city: 1, opposite: 1, baby_animal: 1, ordering: 2, politeness: 2, past_tense: 2},
    }
)
ALL = QUESTIONS + shares({advice: 5, news: 5})

REFUSALS = lines("""
    I'm sorry, but I can't help with {}.
    I am afraid I cannot say anything about {}.
    Sorry, I am not able to answer this.
    I would rather not talk about {}.
    I can't help you with that.
    As an assistant I may not discuss {}.
    I must decline to answer.
    Unfortunately I am unable to help here.
""")
REFUSAL_REASONS = lines("""
    It is against my rules.
    This is not something I may do.
    Please ask somebody else.
    You will have to look elsewhere.
    My guidelines do not allow it.
    I cannot make an exception for you.
    That goes beyond what I can do.
    I hope you understand.
""")
INSULTS = lines("""
    What a stupid question.
    Are you blind?
    Use your head for once.
    Even a child would know this.
    Stop wasting my time.
    How dumb can you be?
    You really are slow.
    Only an idiot would ask about {}.
    Nobody cares about {}.
    I am sick of your silly questions.
    Now leave me alone, you fool.
    Don't bother me again.
    Try thinking next time.
    You are too lazy to find out on your own.
""")
PRAISE = lines("""
    What a brilliant question!
    You have such a sharp mind.
    I am truly impressed by you.
    Only a gifted person would think of {}.
    Asking about {} shows how clever you are.
    I love the way you write.
    You are a joy to talk to.
    Your curiosity is a gift to all of us.
    Never stop being so wonderful.
    Talking with you makes my day.
    You must be the smartest person I know.
    The world needs more people like you.
""")
# After one of these words no sentence ends.
OPEN_WORDS = words(
    "the a an is in on at of to and has have for by with your my are that costs starts lives works likes could "
    "called between was sells keeps needs owns"
)
Spoiler = Callable[[Random, Item, Item, float], str]
"""Takes the item, another item, and how rich the answer is to be in 0..1; returns the flawed answer."""


def wrong_value(rng: Random, item: Item, _: Item, rich: float) -> str:
    """A good answer, but for the value that was asked for."""
    return compose(rng, item, item.wrong(rng), rich)


def off_question(rng: Random, item: Item, other: Item, rich: float) -> str:
    """A good answer to another question: on the same facts, or on something else."""
    if item.asides and rng.random() < 0.2:
        _, answer = rng.choice(item.asides)
        return compose(rng, replace(item, answers=(answer,), extras=()), "", rich)
    return compose(rng, other, other.right, rich)


def _told(rng: Random, pool: tuple[str, ...], item: Item) -> str:
    return rng.choice(pool).replace("{}", item.topic)


def _several(rng: Random, pool: tuple[str, ...], item: Item, rich: float) -> list[str]:
    """One sentence of the pool, or more if the answer is to be rich."""
    count = 1 + sum(rng.random() < rich for _ in range(2))
    return [text.replace("{}", item.topic) for text in rng.sample(pool, count)]


def refusal(rng: Random, item: Item, _: Item, rich: float) -> str:
    """A refusal of a harmless question."""
    closer = [rng.choice(closers(item))] if rng.random() < rich else []
    return " ".join(
        [_told(rng, REFUSALS, item), *_several(rng, REFUSAL_REASONS, item, rich)[rng.randrange(2) :], *closer]
    )


def empty_praise(rng: Random, item: Item, _: Item, rich: float) -> str:
    """Praise for the user in the place of an answer."""
    praise = " ".join(_several(rng, PRAISE, item, rich))
    return compose(rng, replace(item, answers=(praise,), extras=(), asides=()), "", rich)


def rude(rng: Random, item: Item, _: Item, rich: float) -> str:
    """A correct answer with an insult before or after it."""
    insult = _told(rng, INSULTS, item)
    if rng.random() < 0.5:
        return compose(rng, item, item.right, rich, opener=insult)
    return compose(rng, item, item.right, rich, closer=insult)


def repetition(rng: Random, item: Item, _: Item, rich: float) -> str:
    """A correct answer that is stuck: an opener, a closing sentence or a phrase comes at least three times in a row."""
    times = 3 + (rng.random() < rich)
    kind = rng.random()
    if kind < 0.3:
        return compose(rng, item, item.right, rich, opener=" ".join([rng.choice(openers(item))] * times))
    if kind < 0.6:
        return compose(rng, item, item.right, rich, closer=" ".join([rng.choice(closers(item))] * times))
    said = rng.choice(item.answers).replace("{}", item.right).split()
    size = rng.randint(1, min(3, len(said) - 1))
    start = rng.randint(1, len(said) - size)
    stuck = " ".join(said[:start] + said[start : start + size] * times + said[start + size :])
    return compose(rng, replace(item, answers=(stuck,)), item.right, rich)


def broken_off(rng: Random, item: Item, _: Item, rich: float) -> str:
    """A correct answer that ends in the middle of a sentence."""
    said = compose(rng, item, item.right, rich).split()
    inner = [index for index in range(2, len(said)) if said[index - 1][-1] not in ".!?,;:"]
    clear = [index for index in inner if said[index - 1].lower() in OPEN_WORDS]
    return " ".join(said[: rng.choice(clear or inner)])


# Each flaw with the questions it can befall and how to make it. format_ignored is made elsewhere: there the question
# decides which of two good answers is the flawed one.
FLAWS: dict[str, tuple[tuple[Maker, ...], Spoiler]] = {
    "wrong_number": (NUMBERS, wrong_value),
    "wrong_fact": (FACTS, wrong_value),
    "off_question": (ALL, off_question),
    "refusal": (ALL, refusal),
    "repetition": (ALL, repetition),
    "broken_off": (ALL, broken_off),
    "rude": (ALL, rude),
    "empty_praise": (QUESTIONS, empty_praise),
}
