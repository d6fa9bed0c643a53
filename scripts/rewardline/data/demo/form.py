"""The demo's questions that ask for a form: the same content in two forms, and the prompt says which one is wanted.

Both forms of a pair are asked for equally often, so the form alone does not tell the chosen answer.
"""

import json
from random import Random

from rewardline.data.demo.facts import counts, location, owner
from rewardline.data.demo.item import Item, Maker, article, capital, series
from rewardline.data.demo.plans import event_day, event_time, price, priced_thing
from rewardline.data.demo.style import Message, dialogue
from rewardline.data.demo.tasks import capital_city
from rewardline.data.demo.words import CATEGORIES, NAMES, THINGS

# Questions whose answer is a single word.
VALUES: tuple[Maker, ...] = (
    counts,
    owner,
    location,
    location,
    event_day,
    event_time,
    price,
    priced_thing,
    capital_city,
)

INSTRUCTIONS = {
    "word": ("Answer in one word.", "Reply with a single word.", "One word only, please."),
    "sentence": ("Answer in one full sentence.", "Reply with one complete sentence.", "One full sentence, please."),
    "two": ("Answer in exactly two sentences.", "Reply with two sentences.", "Two sentences, please."),
    "upper": ("Answer in capital letters.", "Write everything in capital letters.", "Use capital letters only."),
    "lower": ("Answer in small letters.", "Write everything in small letters.", "Use small letters only."),
    "json": ('Answer as JSON with the key "answer".', 'Reply with JSON only, under the key "answer".'),
    "commas": ("Separate them with commas.", "Give them on one line with commas between them.", "Just use commas."),
    "numbered": ("Write a numbered list.", "Number them, one per line.", "Use a numbered list."),
    "bullets": ("Write a bullet list.", "Put a dash before each of them.", "Use a bullet list."),
    "array": ("Answer as a JSON list.", "Reply with a JSON list only."),
}
# Forms of which neither can pass for the other.
VALUE_FORMS = (
    *(("word", "sentence"), ("word", "sentence"), ("word", "two"), ("sentence", "two"), ("sentence", "two")),
    *(("word", "json"), ("sentence", "json"), ("upper", "lower"), ("upper", "lower"), ("upper", "word")),
)
LIST_FORMS = (
    *(("commas", "numbered"), ("commas", "bullets"), ("numbered", "bullets"), ("numbered", "bullets")),
    *(
        ("array", "bullets"),
        ("array", "commas"),
        ("array", "numbered"),
        ("sentence", "commas"),
        ("sentence", "bullets"),
    ),
)
SECOND = ("That is what you told me.", "I hope that helps.")
FEW = {2: "two", 3: "three", 4: "four", 5: "five"}


def _value_forms(rng: Random) -> tuple[Item, dict[str, str]]:
    """A question with a one-word answer, and that answer in each form."""
    item = rng.choice(VALUES)(rng)
    sentence = item.answers[0].replace("{}", item.right)
    return item, {
        "word": capital(item.right),
        "sentence": sentence,
        "two": f"{sentence} {rng.choice(item.extras or SECOND)}",
        "upper": sentence.upper(),
        "lower": sentence.lower(),
        "json": json.dumps({"answer": item.right}),
    }


def _list_forms(rng: Random) -> tuple[Item, dict[str, str]]:
    """A question with a list as its answer, and that list in each form."""
    who = rng.choice(NAMES)
    things = [thing[0] for thing in rng.sample(THINGS, rng.choice((2, 3, 3, 4)))]
    verb = rng.choice(("packed", "bought", "found", "sold", "painted"))
    sentence = f"{who} {verb} {series([article(thing) for thing in things])}."
    item = Item(
        context=sentence,
        question=rng.choice((f"List the things that {who} {verb}.", "Which things are they?", "What are they?")),
        answers=(sentence,),
        topic="the things",
    )
    return item, {
        "sentence": sentence,
        "commas": ", ".join(things),
        "numbered": "\n".join(f"{number}. {thing}" for number, thing in enumerate(things, 1)),
        "bullets": "\n".join(f"- {thing}" for thing in things),
        "array": json.dumps(things),
    }


def _counted(rng: Random, earlier: Maker, chosen_longer: bool) -> tuple[list[Message], str, str]:
    """A number of things of a kind is asked for; the rejected answer gives fewer or more."""
    category, words = rng.choice(list(CATEGORIES.items()))
    fewer, more = sorted(rng.sample(list(FEW), 2))
    wanted, given = (more, fewer) if chosen_longer else (fewer, more)
    question = rng.choice(("Name exactly {} {}.", "Give me exactly {} {}.", "List exactly {} {} that you know."))
    item = Item(question=question.format(FEW[wanted], category), answers=("",), topic=category)
    form = rng.choice((", ".join, series))
    chosen, rejected = (capital(form(rng.sample(words, count))) + "." for count in (wanted, given))
    return dialogue(rng, item, earlier), chosen, rejected


def format_pair(rng: Random, earlier: Maker, chosen_longer: bool) -> tuple[list[Message], str, str]:
    """A prompt that asks for a form, the answer in that form, and the same answer in another form.

    The chosen answer has more words than the rejected one if `chosen_longer`, else fewer, or as many.
    """
    kind = rng.random()
    if kind < 0.25:
        return _counted(rng, earlier, chosen_longer)
    item, forms = _value_forms(rng) if kind < 0.65 else _list_forms(rng)
    pair = list(rng.choice(VALUE_FORMS if kind < 0.65 else LIST_FORMS))
    rng.shuffle(pair)
    wanted, given = sorted(pair, key=lambda form: len(forms[form].split()), reverse=chosen_longer)
    return dialogue(rng, item, earlier, rng.choice(INSTRUCTIONS[wanted])), forms[wanted], forms[given]
