"""The demo's questions: facts are drawn, stated and asked for as templates/questions.yaml says."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random

from rewardline.data.demo.tables import KINDS, PHRASES, TABLES, Kind, Statement

NEAR = 0.2  # how often a wrong value is one that the prompt mentions: these take far more examples to learn


@dataclass(frozen=True, slots=True)
class Question:
    """A question and the parts of its answers. In `answers`, `{}` stands for the value that is asked for."""

    question: str
    answers: tuple[str, ...]
    topic: str
    right: str = ""
    near: tuple[str, ...] = ()  # wrong values that the prompt mentions
    far: tuple[str, ...] = ()  # wrong values that it does not mention
    context: str = ""  # sentences in which the user states the facts
    extras: tuple[str, ...] = ()  # further true sentences
    asides: tuple[tuple[str, str], ...] = ()  # other questions on the same facts, with their answers
    chat: bool = False  # the user talks instead of asking, so that "Here is my answer." would be out of place

    def wrong(self, rng: Random) -> str:
        """A wrong value; in some cases one that the prompt mentions."""
        near = bool(self.near) and (not self.far or rng.random() < NEAR)
        return rng.choice(self.near if near else self.far)


def series(words: Sequence[str]) -> str:
    """`a`, `a and b`, or `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def capital(text: str) -> str:
    """`text` with a capital first letter."""
    return text[:1].upper() + text[1:]


def ask(rng: Random, name: str) -> Question:
    """A question of a kind."""
    return MAKERS[name](rng) if name in MAKERS else _ask(rng, name)


def _ask(rng: Random, name: str, **slots: str) -> Question:
    """A question of a kind as the table describes it, with some slots filled already."""
    kind = KINDS[name]
    size = kind.size if isinstance(kind.size, int) else rng.choice(kind.size)
    variant = KINDS[rng.choice(kind.variants)] if kind.variants else kind
    facts = [{"ordinal": ordinal, **slots} for ordinal in PHRASES["ordinals"][:size]]
    _draw(rng, kind.draw, variant.same, facts)
    context = "" if kind.context_last else _state(rng, variant.context, facts)
    return _about(rng, kind, facts, rng.randrange(size) if kind.size != 1 else 0, context)


def _draw(rng: Random, steps: list[list[str]], same: Sequence[str], facts: list[dict[str, str]]) -> None:
    """Fill slots of all facts from rows of a table: from a row for each fact, or one row where slots are the same."""
    for *slots, name in steps:
        table = TABLES[name.format_map(facts[0])]
        single = len(facts) == 1 or slots[0] in same
        rows = [rng.choice(table)] * len(facts) if single else rng.sample(table, len(facts))
        for fact, row in zip(facts, rows, strict=True):
            fact.update({slot: text.format_map(fact) for slot, text in zip(slots, row, strict=False)})


def _state(rng: Random, statements: list[Statement], facts: list[dict[str, str]]) -> str:
    """The facts as one of the statements has them."""
    if not statements:
        return ""
    if statements[-1].upto:
        (one,) = rng.choices(statements, cum_weights=[each.upto for each in statements])
    else:
        one = rng.choice(statements) if len(statements) > 1 else statements[0]
    _draw(rng, one.draw, [slots[0] for slots in one.draw], facts)
    *texts, last = [one.each.format_map(fact) for fact in facts]
    if one.between == " ":
        *texts, last = map(capital, (*texts, last))
    joined = (one.last or one.between).join([one.between.join(texts), last] if texts else [last])
    return capital(one.start.format_map(facts[0]) + joined + one.end)


def _about(
    rng: Random, kind: Kind, facts: list[dict[str, str]], index: int, context: str, near: tuple[str, ...] | None = None
) -> Question:
    """A question on `facts[index]`; its value is `answer`, and wrong ones come from the other facts and from a pool."""
    fact = facts[index]
    rest = [each for each in facts if each is not fact]
    questions = []
    for each in [fact] if kind.asides else facts:
        texts = kind.question if each is fact else kind.aside or kind.question
        questions.append((texts if isinstance(texts, str) else rng.choice(texts)).format_map(each))
    question = questions.pop(0 if kind.asides else index)
    context = _state(rng, kind.context, facts) if kind.context_last else context
    sentences = [capital(kind.fact.format_map(each)) for each in rest]
    near = tuple(each["answer"] for each in rest) if near is None else near
    known = {*fact.values(), *near}
    pool = [row[key] for row in TABLES.get(kind.pool, ()) for key in kind.columns if row[key] not in known]
    slots = {**fact, "answer": "{}"}
    own = [(text.format_map(fact), answer.format_map(fact)) for text, answer in kind.asides]
    return Question(
        question=question,
        answers=tuple(capital(text.format_map(slots)) for text in kind.answers),
        topic=kind.topic.format_map(fact),
        right=fact.get("answer", ""),
        near=near,
        far=tuple(rng.sample(pool, 3)) if pool else (),
        context=context,
        extras=(*(text.format_map(fact) for text in kind.extras), *sentences),
        asides=tuple(own or zip(questions, sentences, strict=True)),
    )


def location_check(rng: Random) -> Question:
    """Whether a thing is where the user believes it is."""
    base = ask(rng, "location")
    guess = base.right if rng.random() < 0.5 else base.wrong(rng)
    check = _ask(rng, "location_check", topic=base.topic, guess=guess)
    yes = f"Yes, {base.topic} is in the {guess}."
    no, *wrong = [f"No, {base.topic} is in the {place}." for place in (base.right, *base.near, *base.far)]
    right, far = (yes, tuple(wrong)) if guess == base.right else (no, (yes,))
    return replace(base, question=check.question, answers=check.answers, right=right, near=(), far=far)


def profile(rng: Random) -> Question:
    """One trait of one of the people that the prompt describes."""
    people = rng.sample(PHRASES["names"], rng.choice((1, 2, 2)))
    traits = rng.sample(TABLES["traits"], 2)
    facts = []
    for verb, asking, about, values in traits:
        for who, value in zip(people, rng.sample(PHRASES[values], len(people)), strict=True):
            slots = {"who": who, "verb": verb, "answer": value, "stated": verb.replace("{}", value)}
            facts.append({**slots, "asking": asking.format(who=who), "about": about.format(who=who)})
    halves = facts[: len(people)], facts[len(people) :]
    context = " ".join(f"{one['who']} {one['stated']} and {two['stated']}." for one, two in zip(*halves, strict=True))
    person, trait = people.index(rng.choice(people)), rng.randrange(2)
    near = tuple(fact["answer"] for index, fact in enumerate(halves[trait]) if index != person)
    kind = KINDS["profile"].model_copy(update={"pool": traits[trait][3]})
    return _about(rng, kind, facts, trait * len(people) + person, context, near)


def _calculation(rng: Random, name: str, numbers: range, sign: str = "", **slots: str) -> Question:
    """A question whose answer is worked out of two numbers; wrong values are these, and results a little off."""
    a, b = rng.sample(numbers, 2) if sign else (0, 0)
    while not sign or (sign == "minus" and (a <= b or a == 2 * b)):  # the result is neither of the numbers
        a, b = rng.choice(numbers), rng.choice(numbers)
        sign = "plus" if rng.random() < 0.5 else "minus"
    right = {"plus": a + b, "minus": a - b, "times": a * b}[sign]
    question = _ask(rng, name, a=str(a), sign=sign, b=str(b), answer=str(right), **slots)
    off = [right + step for step in (-3, -2, -1, 1, 2, 3, 4) if right + step > 0 and right + step not in (a, b)]
    return replace(question, near=(str(a), str(b)), far=tuple(map(str, rng.sample(off, 2))))


def plain_sum(rng: Random) -> Question:
    """A small sum, asked directly."""
    return _calculation(rng, "plain_sum", range(2, 21))


def story_sum(rng: Random) -> Question:
    """A small sum in a story."""
    (who, other), (_, things, _) = rng.sample(PHRASES["names"], 2), rng.choice(TABLES["things"])
    return _calculation(rng, "story_sum", range(2, 11), who=who, other=other, things=things)


def total_price(rng: Random) -> Question:
    """What several things of one price cost."""
    (thing, things, _), who = rng.choice(TABLES["things"]), rng.choice(PHRASES["names"])
    return _calculation(rng, "total_price", range(2, 9), "times", who=who, thing=thing, things=things)


def ordering(rng: Random) -> Question:
    """A short list, to be put in another order."""
    category, *known = rng.choice(TABLES["categories"])
    words = rng.sample(known, rng.choice((3, 4)))
    order, ordered = ("alphabetical", sorted(words)) if rng.random() < 0.5 else ("reverse", words[::-1])
    slots = {"words": ", ".join(words), "count": str(len(words)), "ordered": series(ordered)}
    return _ask(rng, "ordering", category=category, order=order, **slots)


def several_things(rng: Random) -> tuple[Question, list[str]]:
    """A question whose answer is a list of things, and these things."""
    who, rows = rng.choice(PHRASES["names"]), rng.sample(TABLES["things"], rng.choice((2, 3, 3, 4)))
    verb, things = rng.choice(PHRASES["list_verbs"]), series([row[2] for row in rows])
    return _ask(rng, "several_things", who=who, verb=verb, things=things), [row[0] for row in rows]


def advice(rng: Random) -> Question:
    """How the user, or somebody they know, can reach a goal."""
    goal, doing, *tips = rng.choice(TABLES["advice"])
    slots = dict(zip(("first", "second", "third", "fourth"), rng.sample(tips, 4), strict=True))
    slots |= {"goal": goal, "doing": doing, "when": rng.choice(PHRASES["goal_times"])}
    relation = rng.choice(PHRASES["relations"]) if rng.random() < 0.6 else ""
    slots["asker"], wish = f"my {relation}" if relation else "I", ""
    if rng.random() < 0.5:
        wish = rng.choice(PHRASES["wishes"][: 3 if relation else 2])
        slots["wants"] = rng.choice(PHRASES["wishes_of_others" if relation else "own_wishes"])
    asking = rng.choice(PHRASES["wish_questions" if wish else "advice_questions"])
    you = f"your {relation}" if relation and "{asker}" in wish + asking else "you"
    return _ask(rng, "advice", wish=wish.format_map(slots), asking=asking.format_map(slots), you=you, **slots)


def news(rng: Random) -> Question:
    """The user tells what happened; the answer is kind and fits."""
    base = ask(rng, "good_news" if rng.random() < 0.5 else "bad_news")
    return replace(base, question=base.context, context="", extras=tuple(rng.sample(base.extras, 3)), chat=True)


_OWN = (location_check, profile, story_sum, plain_sum, total_price, ordering, advice, news)
MAKERS: dict[str, Callable[[Random], Question]] = {maker.__name__: maker for maker in _OWN}
"""Kinds whose facts are more than rows of tables."""
