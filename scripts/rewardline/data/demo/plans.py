"""Demo questions on calendars and price lists: when and where an event is, and what a thing costs."""

from random import Random

from rewardline.data.demo.item import Item, article, capital, others, series
from rewardline.data.demo.words import DAYS, EVENTS, THINGS, VENUES

PRICES = range(2, 13)
HOURS = range(2, 13)


def _plan(rng: Random) -> tuple[list[tuple[str, str, int, str]], str]:
    """One or two events, each with day, hour and place; and the sentences that state them."""
    size = rng.choice((1, 1, 2))
    rows = list(
        zip(
            rng.sample(EVENTS, size),
            rng.sample(DAYS, size),
            rng.sample(HOURS, size),
            rng.sample(VENUES, size),
            strict=True,
        )
    )
    pattern = rng.choice(
        (
            "The {0} is on {1} at {2} in the {3}.",
            "The {0} starts at {2} on {1} in the {3}.",
            "On {1} at {2} there is the {0} in the {3}.",
            "{0}: {1}, {2} o'clock, {3}.",
        )
    )
    return rows, " ".join(capital(pattern.format(*row)) for row in rows)


def event_day(rng: Random) -> Item:
    """On which day an event is."""
    rows, context = _plan(rng)
    event, day, hour, place = rng.choice(rows)
    rest = [row for row in rows if row[0] != event]
    return Item(
        context=context,
        question=rng.choice((f"On which day is the {event}?", f"What day is the {event}?")),
        answers=(f"The {event} is on {{}}.", f"The {event} is on {{}}.", "It is on {}.", f"The {event} falls on {{}}."),
        topic=f"the {event}",
        right=day,
        near=tuple(row[1] for row in rest),
        far=others(rng, DAYS, [row[1] for row in rows]),
        extras=(
            f"The {event} starts at {hour}.",
            f"The {event} is in the {place}.",
            *(f"The {row[0]} is on {row[1]}." for row in rest),
        ),
        asides=(
            (f"Where is the {event}?", f"The {event} is in the {place}."),
            (f"When does the {event} start?", f"The {event} starts at {hour}."),
        ),
    )


def event_time(rng: Random) -> Item:
    """At what hour an event starts."""
    rows, context = _plan(rng)
    event, day, hour, place = rng.choice(rows)
    rest = [row for row in rows if row[0] != event]
    return Item(
        context=context,
        question=rng.choice((f"When does the {event} start?", f"At what time does the {event} start?")),
        answers=(f"The {event} starts at {{}}.", f"The {event} starts at {{}}.", "It starts at {} o'clock."),
        topic=f"the {event}",
        right=str(hour),
        near=tuple(str(row[2]) for row in rest),
        far=tuple(map(str, others(rng, HOURS, [row[2] for row in rows]))),
        extras=(
            f"The {event} is on {day}.",
            f"The {event} is in the {place}.",
            *(f"The {row[0]} starts at {row[2]}." for row in rest),
        ),
        asides=(
            (f"Where is the {event}?", f"The {event} is in the {place}."),
            (f"On which day is the {event}?", f"The {event} is on {day}."),
        ),
    )


def _prices(rng: Random) -> tuple[list[str], list[int], str]:
    """Things, their prices in euros, and a price list as prose, list or table."""
    size = rng.choice((1, 1, 2, 2, 3))
    things = [thing[0] for thing in rng.sample(THINGS, size)]
    prices = rng.sample(PRICES, size)
    rows = list(zip(things, prices, strict=True))
    form = rng.random()
    if form < 0.4:
        return things, prices, f"{capital(series([f'{article(what)} costs {n} euros' for what, n in rows]))}."
    if form < 0.7:
        return things, prices, "Price list: " + ", ".join(f"{what} {n} euros" for what, n in rows) + "."
    if form < 0.85:
        return things, prices, "Prices in euros:\n" + "\n".join(f"- {what}: {n}" for what, n in rows) + "\n"
    return things, prices, "| thing | euros |\n" + "\n".join(f"| {what} | {n} |" for what, n in rows) + "\n"


def price(rng: Random) -> Item:
    """What a thing costs."""
    things, prices, context = _prices(rng)
    ask = rng.randrange(len(things))
    facts = [f"{capital(article(what))} costs {n} euros." for what, n in zip(things, prices, strict=True)]
    questions = [
        rng.choice(
            (
                f"How much is {article(what)}?",
                f"What does {article(what)} cost?",
                f"What is the price of {article(what)}?",
            )
        )
        for what in things
    ]
    rest = [index for index in range(len(things)) if index != ask]
    what = article(things[ask])
    return Item(
        context=context,
        question=questions[ask],
        answers=(
            f"{capital(what)} costs {{}} euros.",
            f"{capital(what)} costs {{}} euros.",
            f"The price of {what} is {{}} euros.",
        ),
        topic=f"the {things[ask]}",
        right=str(prices[ask]),
        near=tuple(str(prices[index]) for index in rest),
        far=tuple(map(str, others(rng, PRICES, prices))),
        extras=tuple(facts[index] for index in rest),
        asides=tuple((questions[index], facts[index]) for index in rest),
    )


def priced_thing(rng: Random) -> Item:
    """Which thing has a given price."""
    things, prices, context = _prices(rng)
    ask = rng.randrange(len(things))
    rest = [index for index in range(len(things)) if index != ask]
    return Item(
        context=context,
        question=rng.choice((f"Which thing costs {prices[ask]} euros?", f"What can I buy for {prices[ask]} euros?")),
        answers=(f"The {{}} costs {prices[ask]} euros.", f"For {prices[ask]} euros you get the {{}}."),
        topic="the prices",
        right=things[ask],
        near=tuple(things[index] for index in rest),
        far=others(rng, [thing[0] for thing in THINGS], things),
        extras=tuple(f"The {things[index]} costs {prices[index]} euros." for index in rest),
        asides=tuple(
            (f"How much is the {things[index]}?", f"The {things[index]} costs {prices[index]} euros.") for index in rest
        ),
    )
