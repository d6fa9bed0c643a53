"""Demo questions that need more than a look at the prompt: small sums, facts of the world, ordering, rewriting."""

from random import Random

from rewardline.data.demo.item import Item, capital, others, series
from rewardline.data.demo.words import (
    BABIES,
    CAPITALS,
    CATEGORIES,
    DAYS,
    NAMES,
    OPPOSITES,
    PLACES,
    THINGS,
    VERBS,
    WORLD_COUNTS,
)

REQUESTS = ("give me", "bring me", "lend me", "show me", "pass me", "send me", "find me", "sell me")


def _sum(rng: Random, pool: range) -> tuple[int, str, int, int]:
    """A first number, plus or minus, a second number and the result, which differs from both."""
    while True:
        a, b = rng.choice(pool), rng.choice(pool)
        if rng.random() < 0.5:
            return a, "plus", b, a + b
        if a > b and a - b != b:
            return a, "minus", b, a - b


def _slips(rng: Random, right: int, known: tuple[int, ...]) -> tuple[str, ...]:
    """Results that are a little off."""
    near = [right + step for step in (-3, -2, -1, 1, 2, 3, 4) if right + step > 0 and right + step not in known]
    return tuple(map(str, rng.sample(near, 2)))


def story_sum(rng: Random) -> Item:
    """A small sum, told as a story."""
    who, other = rng.sample(NAMES, 2)
    _, what = rng.choice(THINGS)
    a, sign, b, right = _sum(rng, range(2, 11))
    more = ("buys {} more", "finds {} more", f"gets {{}} more from {other}")
    less = ("sells {}", "loses {}", f"gives {{}} to {other}")
    change = rng.choice(more if sign == "plus" else less).replace("{}", str(b))
    return Item(
        context=f"{who} has {a} {what}. Then {who} {change}.",
        question=rng.choice((f"How many {what} does {who} have now?", f"How many {what} are there in the end?")),
        answers=(
            f"{who} has {{}} {what} now.",
            f"{capital(str(a))} {sign} {b} is {{}}.",
            f"{a} {sign} {b} is {{}}, so {who} has {{}} {what} now.",
        ),
        topic=f"the {what}",
        right=str(right),
        near=(str(a), str(b)),
        far=_slips(rng, right, (a, b)),
        extras=(f"You find that by working out {a} {sign} {b}.",),
        asides=((f"How many {what} did {who} have at first?", f"{who} had {a} {what} at first."),),
    )


def plain_sum(rng: Random) -> Item:
    """A small sum, asked directly."""
    a, sign, b, right = _sum(rng, range(2, 21))
    return Item(
        question=rng.choice(
            (f"What is {a} {sign} {b}?", f"How much is {a} {sign} {b}?", f"Can you work out {a} {sign} {b}?")
        ),
        answers=(f"{a} {sign} {b} is {{}}.", f"{a} {sign} {b} is {{}}.", "The result is {}."),
        topic=f"{a} {sign} {b}",
        right=str(right),
        near=(str(a), str(b)),
        far=_slips(rng, right, (a, b)),
        extras=("It is a short sum.", "You can check it on paper."),
    )


def total_price(rng: Random) -> Item:
    """What several things of one price cost."""
    thing, things = rng.choice(THINGS)
    who = rng.choice(NAMES)
    cost, count = rng.sample(range(2, 9), 2)
    right = cost * count
    return Item(
        context=f"One {thing} costs {cost} euros. {who} buys {count} {things}.",
        question=rng.choice((f"How much does {who} pay?", f"What do the {things} cost in total?")),
        answers=(f"{who} pays {{}} euros.", f"{count} times {cost} is {{}}, so {who} pays {{}} euros."),
        topic=f"the price of the {things}",
        right=str(right),
        near=(str(cost), str(count)),
        far=_slips(rng, right, (cost, count)),
        extras=(f"You find that by working out {count} times {cost}.",),
    )


def world_count(rng: Random) -> Item:
    """How many of something there are, as everybody knows."""
    what, where, right = rng.choice(WORLD_COUNTS)
    values = sorted({number for _, _, number in WORLD_COUNTS}, key=int)
    return Item(
        question=rng.choice(
            (
                f"How many {what} are there {where}?",
                f"What is the number of {what} {where}?",
                f"Tell me how many {what} there are {where}.",
            )
        ),
        answers=(f"There are {{}} {what} {where}.", f"The number of {what} {where} is {{}}."),
        topic=f"the {what} {where}",
        right=right,
        far=others(rng, values, (right,)),
        extras=("Most people learn this at school.", "That number never changes."),
    )


def capital_city(rng: Random) -> Item:
    """The capital of a country."""
    country, right = rng.choice(CAPITALS)
    return Item(
        question=rng.choice(
            (
                f"What is the capital of {country}?",
                f"Which city is the capital of {country}?",
                f"Can you name the capital of {country}?",
                f"Tell me the capital of {country}.",
            )
        ),
        answers=(
            f"The capital of {country} is {{}}.",
            f"The capital of {country} is {{}}.",
            f"{{}} is the capital of {country}.",
        ),
        topic=f"the capital of {country}",
        right=right,
        far=others(rng, [city for _, city in CAPITALS], (right,)),
        extras=("You can find it on any map.", "Many people visit it every year."),
    )


def opposite(rng: Random) -> Item:
    """The opposite of a word."""
    word, right = rng.choice(OPPOSITES)[:: rng.choice((1, -1))]
    words = [each for pair in OPPOSITES for each in pair]
    return Item(
        question=rng.choice(
            (
                f"What is the opposite of {word}?",
                f"Which word is the opposite of {word}?",
                f"Give me the opposite of {word}.",
            )
        ),
        answers=(f"The opposite of {word} is {{}}.", f"The opposite of {word} is {{}}.", "The word you need is {}."),
        topic=f"the opposite of {word}",
        right=right,
        far=others(rng, words, (word, right)),
        extras=("Both are common words.", "You will find it in any dictionary."),
    )


def baby_animal(rng: Random) -> Item:
    """What a young animal is called."""
    animal, right = rng.choice(BABIES)
    return Item(
        question=rng.choice(
            (
                f"What do you call a baby {animal}?",
                f"What is a young {animal} called?",
                f"Tell me the word for a young {animal}.",
            )
        ),
        answers=(
            f"A young {animal} is called a {{}}.",
            f"A baby {animal} is called a {{}}.",
            f"The word for a young {animal} is {{}}.",
        ),
        topic=f"the word for a young {animal}",
        right=right,
        far=others(rng, [young for _, young in BABIES], (right,)),
        extras=("Children often learn this word early.", "You may hear it on a farm or in a zoo."),
    )


def ordering(rng: Random) -> Item:
    """A short list, to be put in another order."""
    category, known = rng.choice(list(CATEGORIES.items()))
    words = rng.sample(known, rng.choice((3, 4)))
    if rng.random() < 0.5:
        right, order = series(sorted(words)), "alphabetical order"
    else:
        right, order = series(words[::-1]), "reverse order"
    return Item(
        context=rng.choice(
            (f"Here are some {category}: {', '.join(words)}.", f"My list of {category}: {', '.join(words)}.")
        ),
        question=rng.choice((f"Please put them in {order}.", f"Can you write the list in {order}?")),
        answers=(f"In {order} they are {right}.", f"The list in {order} is {right}."),
        topic=f"the list of {category}",
        extras=(f"There are {len(words)} {category} in the list.",),
    )


def politeness(rng: Random) -> Item:
    """A rough order, to be made polite."""
    ask = rng.choice(REQUESTS)
    what = f"{rng.choice(('the', 'your'))} {rng.choice(THINGS)[rng.randrange(2)]}"
    when = rng.choice(("now", "today", "tonight", *(f"before {day}" for day in DAYS)))
    return Item(
        context=f"{capital(ask)} {what} {when}.",
        question=rng.choice(
            (
                "Can you make this more polite?",
                "Please rewrite this as a polite request.",
                "How would I say this kindly?",
            )
        ),
        answers=(f"Could you please {ask} {what} {when}?", f"You could say: Would you kindly {ask} {what} {when}?"),
        topic="the polite request",
        extras=("A friendly smile helps as well.", "Add a thank you at the end."),
    )


def past_tense(rng: Random) -> Item:
    """A sentence, to be put into the past."""
    who, place, (now, then) = rng.choice(NAMES), rng.choice(PLACES), rng.choice(VERBS)
    when = rng.choice(
        ("in the morning", "in the evening", "after lunch", "before dinner", "at noon", *(f"on {day}" for day in DAYS))
    )
    return Item(
        context=f"{who} {now} to the {place} {when}.",
        question=rng.choice(
            (
                "Please put this sentence into the past.",
                "How does this sentence read in the past tense?",
                "Can you write this in the past tense?",
            )
        ),
        answers=(
            f"{who} {then} to the {place} {when}.",
            f"In the past tense it reads: {who} {then} to the {place} {when}.",
        ),
        topic="the past tense",
        extras=("Only the verb has to change.", "All other words stay the same."),
    )
