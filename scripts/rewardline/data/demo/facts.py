"""Demo questions on people and their things: who has what and how much of it, where it is, who does what."""

from random import Random

from rewardline.data.demo.item import Item, article, capital, others, series
from rewardline.data.demo.words import CITIES, COLOURS, HOBBIES, JOBS, NAMES, PETS, PLACES, THINGS

NUMBERS = range(2, 13)
SIZES = (1, 1, 1, 1, 2, 2, 3)
OWNING = (("has", "have"), ("owns", "own"), ("keeps", "keep"), ("needs", "need"), ("sells", "sell"), ("wants", "want"))
ORDINALS = ("first", "second", "third")


def counts(rng: Random) -> Item:
    """How many of a thing someone has."""
    size = rng.choice(SIZES)
    shape = rng.choice(("person", "thing", "both"))
    people = rng.sample(NAMES, size) if shape != "person" else [rng.choice(NAMES)] * size
    things = rng.sample(THINGS, size) if shape != "thing" else [rng.choice(THINGS)] * size
    numbers = rng.sample(NUMBERS, size)
    has, have = rng.choice(OWNING)
    facts = [f"{who} {has} {n} {what[1]}" for who, n, what in zip(people, numbers, things, strict=True)]
    if shape == "person":
        context = f"{people[0]} {has} {series([f'{n} {what[1]}' for n, what in zip(numbers, things, strict=True)])}."
    else:
        context = f"{series(facts)}." if rng.random() < 0.4 else " ".join(f"{fact}." for fact in facts)
    ask = rng.randrange(size)
    who, (_, what) = people[ask], things[ask]
    right = numbers[ask]
    questions = [
        rng.choice((f"How many {thing[1]} does {name} {have}?", f"What number of {thing[1]} does {name} {have}?"))
        for name, thing in zip(people, things, strict=True)
    ]
    rest = [index for index in range(size) if index != ask]
    return Item(
        context=context,
        question=questions[ask],
        answers=(
            f"{who} {has} {{}} {what}.",
            f"{who} {has} {{}} {what}.",
            f"{who} {has} exactly {{}} {what}.",
            f"The number of {what} that {who} {has} is {{}}.",
        ),
        topic=f"the {what}",
        right=str(right),
        near=tuple(str(numbers[index]) for index in rest),
        far=tuple(map(str, others(rng, NUMBERS, numbers))),
        extras=tuple(f"{facts[index]}." for index in rest),
        asides=tuple((questions[index], f"{facts[index]}.") for index in rest),
    )


def owner(rng: Random) -> Item:
    """Who has a thing."""
    size = rng.choice(SIZES)
    people, things = rng.sample(NAMES, size), [thing[0] for thing in rng.sample(THINGS, size)]
    has = rng.choice(("has", "owns", "keeps", "found", "lost", "bought", "painted"))
    colours = rng.sample(COLOURS, size)
    nouns = [f"the {colour} {thing}" for colour, thing in zip(colours, things, strict=True)]
    facts = [f"{who} {has} {noun}" for who, noun in zip(people, nouns, strict=True)]
    ask = rng.randrange(size)
    rest = [index for index in range(size) if index != ask]
    questions = [rng.choice((f"Who {has} {noun}?", f"Who is it that {has} {noun}?")) for noun in nouns]
    return Item(
        context=rng.choice((f"{series(facts)}.", " ".join(f"{fact}." for fact in facts))),
        question=questions[ask],
        answers=(f"{{}} {has} {nouns[ask]}.", f"{{}} {has} {nouns[ask]}.", f"It is {{}} who {has} {nouns[ask]}."),
        topic=nouns[ask],
        right=people[ask],
        near=tuple(people[index] for index in rest),
        far=others(rng, NAMES, people),
        extras=tuple(f"{facts[index]}." for index in rest),
        asides=tuple((questions[index], f"{facts[index]}.") for index in rest),
    )


def location(rng: Random) -> Item:
    """Where a thing is."""
    size = rng.choice(SIZES)
    people, things = rng.sample(NAMES, size), [thing[0] for thing in rng.sample(THINGS, size)]
    places = rng.sample(PLACES, size)
    facts = [f"the {thing} is in the {place}" for thing, place in zip(things, places, strict=True)]
    if rng.random() < 0.5:
        verb = rng.choice(("keeps", "left", "put", "saw", "hid"))
        context = " ".join(
            f"{who} {verb} the {thing} in the {place}."
            for who, thing, place in zip(people, things, places, strict=True)
        )
    else:
        context = f"{capital(series(facts))}."
    ask = rng.randrange(size)
    rest = [index for index in range(size) if index != ask]
    questions = [
        rng.choice((f"Where is the {thing}?", f"In which room is the {thing}?", f"Where can I find the {thing}?"))
        for thing in things
    ]
    return Item(
        context=context,
        question=questions[ask],
        answers=(
            f"The {things[ask]} is in the {{}}.",
            f"The {things[ask]} is in the {{}}.",
            f"You can find the {things[ask]} in the {{}}.",
        ),
        topic=f"the {things[ask]}",
        right=places[ask],
        near=tuple(places[index] for index in rest),
        far=others(rng, PLACES, places),
        extras=tuple(f"{capital(facts[index])}." for index in rest),
        asides=tuple((questions[index], f"{capital(facts[index])}.") for index in rest),
    )


def location_check(rng: Random) -> Item:
    """Whether a thing is where the user believes it is."""
    item = location(rng)
    thing = item.topic
    asked = item.right if rng.random() < 0.5 else item.wrong(rng)
    yes, no = f"Yes, {thing} is in the {asked}.", f"No, {thing} is in the {{}}."
    wrongs = [no.replace("{}", place) for place in (*item.near, *item.far) if place != asked]
    return Item(
        context=item.context,
        question=rng.choice((f"Is {thing} in the {asked}?", f"Is it true that {thing} is in the {asked}?")),
        answers=("{}",),
        topic=thing,
        right=yes if asked == item.right else no.replace("{}", item.right),
        far=tuple(wrongs) if asked == item.right else (yes,),
        extras=item.extras,
        asides=item.asides,
    )


# What is stated of a person, how it is asked for, and the values it can have.
TRAITS = (
    ("works as {}", "What is {}'s job?", "{}'s job", tuple(article(job) for job in JOBS)),
    ("lives in {}", "Where does {} live?", "{}'s home", tuple(CITIES)),
    ("likes {} best", "What is {}'s favourite colour?", "{}'s favourite colour", tuple(COLOURS)),
    ("has a {}", "What kind of pet does {} have?", "{}'s pet", tuple(PETS)),
    ("enjoys {}", "What does {} enjoy?", "{}'s hobby", tuple(HOBBIES)),
)


def profile(rng: Random) -> Item:
    """One trait of one of the people that the prompt describes."""
    people = rng.sample(NAMES, rng.choice((1, 2, 2)))
    traits = rng.sample(TRAITS, 2)
    told = {
        (who, trait[0]): value
        for trait in traits
        for who, value in zip(people, rng.sample(trait[3], len(people)), strict=True)
    }
    facts = {(who, verb): f"{who} {verb.replace('{}', value)}" for (who, verb), value in told.items()}
    context = " ".join(
        f"{facts[who, traits[0][0]]} and {traits[1][0].replace('{}', told[who, traits[1][0]])}." for who in people
    )
    who = rng.choice(people)
    verb, question, topic, values = traits[rng.randrange(2)]
    right = told[who, verb]
    near = tuple(told[name, verb] for name in people if name != who)
    rest = [key for key in facts if key != (who, verb)]
    asked = {trait[0]: trait[1] for trait in traits}
    return Item(
        context=context,
        question=question.replace("{}", who),
        answers=(f"{who} {verb}.", f"{who} {verb}.", f"It is clear that {who} {verb}."),
        topic=topic.replace("{}", who),
        right=right,
        near=near,
        far=others(rng, values, (right, *near)),
        extras=tuple(f"{facts[key]}." for key in rest),
        asides=tuple((asked[key[1]].replace("{}", key[0]), f"{facts[key]}.") for key in rest),
    )


def position(rng: Random) -> Item:
    """Which thing comes at a given place of a list."""
    who, things = rng.choice(NAMES), [thing[0] for thing in rng.sample(THINGS, 3)]
    verb = rng.choice(("packed", "washed", "painted", "sold", "drew"))
    ask = rng.randrange(3)
    order = [f"{who} {verb} the {thing} {place}." for thing, place in zip(things, ORDINALS, strict=True)]
    context = (
        f"{who} first {verb} the {things[0]}, then the {things[1]} and then the {things[2]}."
        if rng.random() < 0.4
        else " ".join(order)
    )
    rest = [index for index in range(3) if index != ask]
    return Item(
        context=context,
        question=f"What was the {ORDINALS[ask]} thing that {who} {verb}?",
        answers=(f"{who} {verb} the {{}} {ORDINALS[ask]}.", f"The {ORDINALS[ask]} thing was the {{}}."),
        topic=f"the things that {who} {verb}",
        right=things[ask],
        near=tuple(things[index] for index in rest),
        far=others(rng, [thing[0] for thing in THINGS], things),
        extras=tuple(order[index] for index in rest),
        asides=tuple((f"What was the {ORDINALS[index]} thing that {who} {verb}?", order[index]) for index in rest),
    )
