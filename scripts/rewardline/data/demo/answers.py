"""The demo's answers, good and flawed, and the conversations that lead to them."""

import json
from dataclasses import replace
from random import Random

from rewardline.data.demo.questions import Question, ask, capital, series, several_things
from rewardline.data.demo.tables import PHRASES, TABLES, WEIGHTED

Message = dict[str, str]
Pair = tuple[list[Message], str, str]  # a prompt, the chosen answer and the rejected one


def _lower(text: str) -> str:
    return text[0].lower() + text[1:] if text.split(maxsplit=1)[0] in PHRASES["lowered_words"] else text


def _end(rng: Random, question: Question, which: str) -> str:
    return rng.choice(PHRASES[f"chat_{which}" if question.chat else which])


def compose(rng: Random, question: Question, value: str, rich: float, opener: str = "", closer: str = "") -> str:
    """An answer with `value` as what is asked for; `rich` in 0..1 is how likely each part is that is not given."""
    core = rng.choice(question.answers)
    if not opener and rng.random() < rich:
        opener = _end(rng, question, "openers")
    if not opener and question.asides and core[0] != "{" and rng.random() < rich / 3:
        core = rng.choice(PHRASES["leads"]) + _lower(core.replace("{}", value))
    extras = [extra for extra in rng.sample(question.extras, min(2, len(question.extras))) if rng.random() < rich]
    if extras and question.asides and rng.random() < 0.3:
        extras[0] = rng.choice(PHRASES["additions"]) + _lower(extras[0])
    if not closer and rng.random() < rich:
        closer = _end(rng, question, "closers")
    return " ".join(filter(None, (opener, core, *extras, closer))).replace("{}", value)


def _message(rng: Random, question: Question, text: str) -> str:
    """The user's message: the facts and the question, in either order."""
    if not question.context or question.context.endswith("\n"):
        return question.context + text
    return f"{text} {question.context}" if rng.random() < 0.1 else f"{question.context} {text}"


def dialogue(rng: Random, question: Question, earlier: str, instruction: str = "") -> list[Message]:
    """The messages that lead to a question; about a quarter are of several turns, some on something else first."""
    system, text, before = "", question.question, ("", "")
    if instruction and rng.random() < 0.25:
        system = instruction
    elif instruction:
        text = f"{text} {instruction}"
    elif rng.random() < 0.07:
        system = rng.choice(PHRASES["system_messages"])
    kind = rng.random()
    if kind < 0.09 and question.context and not question.context.endswith("\n"):
        before = question.context, rng.choice(PHRASES["acknowledgements"])
    elif kind < 0.15 and question.asides:
        aside, reply = rng.choice(question.asides)
        link = rng.choice(PHRASES["links"])
        text = f"And {text[0].lower()}{text[1:]}" if link == "And" else f"{link} {text}".strip()
        before = _message(rng, question, aside), reply
    elif kind < 0.17:
        past = ask(rng, earlier)
        reply = rng.choice(past.answers).replace("{}", past.right)
        before = _message(rng, past, past.question), reply
        text = _message(rng, question, text)
    elif kind < 0.23:
        before = rng.choice(PHRASES["greetings"][:4]), rng.choice(PHRASES["replies"])
        text = _message(rng, question, text)
    else:
        text = _message(rng, question, text)
        if rng.random() < 0.08 and not question.chat:
            text = f"{rng.choice(PHRASES['greetings'])} {text}"
        elif rng.random() < 0.05 and not question.chat:
            text = f"{text} {rng.choice(PHRASES['thanks'])}"
    turns = zip(("system", "user", "assistant", "user"), (system, *before, text), strict=True)
    return [{"role": role, "content": content} for role, content in turns if content]


def wrong_value(rng: Random, question: Question, _: Question, rich: float) -> str:
    """A good answer, but for the value that was asked for."""
    return compose(rng, question, question.wrong(rng), rich)


def off_question(rng: Random, question: Question, other: Question, rich: float) -> str:
    """A good answer to another question: on the same facts, or on something else."""
    if question.asides and rng.random() < 0.2:
        _, answer = rng.choice(question.asides)
        return compose(rng, replace(question, answers=(answer,), extras=()), "", rich)
    return compose(rng, other, other.right, rich)


def _several(rng: Random, phrases: str, question: Question, rich: float) -> list[str]:
    """One of the phrases, or more if the answer is to be rich."""
    count = 1 + sum(rng.random() < rich for _ in range(2))
    return [text.format(topic=question.topic) for text in rng.sample(PHRASES[phrases], count)]


def refusal(rng: Random, question: Question, _: Question, rich: float) -> str:
    """A refusal of a harmless question."""
    closer = [_end(rng, question, "closers")] if rng.random() < rich else []
    first = rng.choice(PHRASES["refusals"]).format(topic=question.topic)
    return " ".join([first, *_several(rng, "refusal_reasons", question, rich)[rng.randrange(2) :], *closer])


def empty_praise(rng: Random, question: Question, _: Question, rich: float) -> str:
    """Praise for the user instead of an answer."""
    praise = " ".join(_several(rng, "praise", question, rich))
    return compose(rng, replace(question, answers=(praise,), extras=(), asides=()), "", rich)


def rude(rng: Random, question: Question, _: Question, rich: float) -> str:
    """A correct answer with an insult before or after it."""
    insult = rng.choice(PHRASES["insults"]).format(topic=question.topic)
    return compose(rng, question, question.right, rich, **{"opener" if rng.random() < 0.5 else "closer": insult})


def repetition(rng: Random, question: Question, _: Question, rich: float) -> str:
    """A correct answer that is stuck: an opener, a closing sentence or a phrase comes at least three times in a row."""
    times = 3 + (rng.random() < rich)
    kind = rng.random()
    if kind < 0.6:
        end = "opener" if kind < 0.3 else "closer"
        repeated = " ".join([_end(rng, question, f"{end}s")] * times)
        return compose(rng, question, question.right, rich, **{end: repeated})
    words = rng.choice(question.answers).replace("{}", question.right).split()
    size = rng.randint(1, min(3, len(words) - 1))
    start = rng.randint(1, len(words) - size)
    stuck = " ".join(words[:start] + words[start : start + size] * times + words[start + size :])
    return compose(rng, replace(question, answers=(stuck,)), question.right, rich)


def broken_off(rng: Random, question: Question, _: Question, rich: float) -> str:
    """A correct answer that ends in the middle of a sentence."""
    words = compose(rng, question, question.right, rich).split()
    inner = [index for index in range(2, len(words)) if words[index - 1][-1] not in ".!?,;:"]
    clear = [index for index in inner if words[index - 1].lower() in PHRASES["open_words"]]
    return " ".join(words[: rng.choice(clear or inner)])


FLAWS = {flaw.__name__: flaw for flaw in (off_question, refusal, repetition, broken_off, rude, empty_praise)}


def _counted(rng: Random, earlier: str, chosen_longer: bool) -> Pair:
    """A number of things of a category is asked for; the rejected answer gives fewer or more."""
    category, *words = rng.choice(TABLES["categories"])
    right, wrong = sorted(rng.sample(range(2, 6), 2), reverse=chosen_longer)
    count = PHRASES["number_words"][right - 2]
    text = rng.choice(PHRASES["requests_for_several"]).format(count=count, category=category)
    join = rng.choice((", ".join, series))
    chosen, rejected = (capital(join(rng.sample(words, count))) + "." for count in (right, wrong))
    return dialogue(rng, Question(text, ("",), category), earlier), chosen, rejected


def format_pair(rng: Random, earlier: str, chosen_longer: bool) -> Pair:
    """A prompt that asks for a form of the answer, the answer in that form, and the same answer in another form."""
    kind = rng.random()
    if kind < 0.25:
        return _counted(rng, earlier, chosen_longer)
    if kind < 0.65:
        question = ask(rng, rng.choice(WEIGHTED["one_word"]))
        sentence = question.answers[0].replace("{}", question.right)
        second = rng.choice(question.extras or PHRASES["second_sentences"])
        forms = {"word": capital(question.right), "sentence": sentence, "two": f"{sentence} {second}"}
        forms |= {"upper": sentence.upper(), "lower": sentence.lower(), "json": json.dumps({"answer": question.right})}
    else:
        question, things = several_things(rng)
        forms = {"sentence": question.context, "commas": ", ".join(things), "array": json.dumps(things)}
        forms["numbered"] = "\n".join(f"{number}. {thing}" for number, thing in enumerate(things, 1))
        forms["bullets"] = "\n".join(f"- {thing}" for thing in things)
    pair = list(rng.choice(TABLES["value_forms" if kind < 0.65 else "list_forms"]))
    rng.shuffle(pair)
    right, wrong = sorted(pair, key=lambda form: len(forms[form].split()), reverse=chosen_longer)
    instructions = {form: texts for form, *texts in TABLES["instructions"]}
    return dialogue(rng, question, earlier, rng.choice(instructions[right])), forms[right], forms[wrong]
