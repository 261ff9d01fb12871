"""The pretraining corpus: an endless, seeded stream of short documents about the pocket world.

`document(seed, index)` is a pure function, so any part of the corpus can be made anywhere, and training, replay and
held-out text are kept apart by their seeds. Documents are running text: nobody follows an instruction in them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

from tunesmith.base.random import python_stream
from tunesmith.pocket import lessons
from tunesmith.pocket.number_scenes import Collection, Prices, Purchase, Weather
from tunesmith.pocket.questions import Question, about_scene, facts_of, say_fact
from tunesmith.pocket.scenes import EVENT_PLACES, SCENES, Handover, Notice, Review, Scene, Search, Trip
from tunesmith.pocket.world import (
    ANIMALS,
    COLOURS,
    GOODS,
    NUMBER_WORDS,
    OPPOSITES,
    PLACES,
    PORTABLE,
    RESIDENT_NAMES,
    THINGS,
    TOWNS,
    VISITOR_NAMES,
    WEEKDAYS,
    a,
    capital,
    coins,
    count_of,
    listing,
    people,
    plural,
)


def document(seed: int, index: int) -> str:
    """One document of the corpus; the same text for the same (seed, index) on every machine."""
    rng = python_stream(seed, "corpus", index)
    return rng.choices(_KINDS, _WEIGHTS)[0](rng)


def documents(seed: int, count: int, start: int = 0) -> Iterator[str]:
    return (document(seed, index) for index in range(start, start + count))


# Facts


def _page(rng: Random) -> str:
    """An article about one resident, town, animal or thing: its facts in any order and wording."""
    name = rng.choice(rng.choices([RESIDENT_NAMES, TOWNS, list(ANIMALS), list(THINGS)], [6, 3, 2, 2])[0])
    facts = facts_of(name)
    rng.shuffle(facts)
    sentences = [say_fact(rng, words, forms) for _, _, words, forms in facts[: rng.randint(3, len(facts))]]
    title = rng.choice(["", "", f"{capital(name)}\n", f"About {name if name[0].isupper() else plural(name)}\n"])
    return title + " ".join(sentences)


def _gazette(rng: Random) -> str:
    """News and gossip: facts about several residents or towns, some of them in quoted talk."""
    table = rng.choices([RESIDENT_NAMES, TOWNS, list(ANIMALS), list(THINGS)], [6, 3, 2, 2])[0]
    out = []
    for name in rng.sample(table, rng.randint(3, 5)):
        _, answer, words, forms = rng.choice(facts_of(name))
        said = say_fact(rng, words, forms)
        if rng.random() < 0.5:
            out.append(said)
        else:
            out.append(_overheard(rng, forms[0][rng.randrange(3)].format(**words), answer, said))
    return "\n".join(out) if rng.random() < 0.3 else " ".join(out)


def _overheard(rng: Random, question: str, answer: str, sentence: str) -> str:
    asker, other = people(rng, 2)
    short = capital(answer)
    reply = rng.choice([sentence, sentence, short + "."])
    return rng.choice([
        f'"{question}" asked {asker}. "{reply[:-1]}," said {other}.',
        f'{asker} asked: "{question}" {other} answered: "{reply}"',
        f'"{question}" {asker} wanted to know. "{reply}"',
        f'{asker} turned to {other}. "{question}" "{reply[:-1]}," was the reply.',
    ])  # fmt: skip


# Scenes


def _story(rng: Random) -> str:
    """A scene, often with talk about it and a closing summary."""
    scene = rng.choice((Notice, Handover, Search, Trip, Search, Handover, Prices, Weather, Review)).draw(rng)
    parts = [scene.tell(rng)]
    if rng.random() < 0.85:
        questions = about_scene(scene)
        for q in rng.sample(questions, min(len(questions), rng.randint(2, 5))):
            parts.append(_overheard(rng, rng.choice(q.wordings), q.answer, q.sentence))
    if rng.random() < 0.5:
        parts.append(_closing(rng, scene))
    return rng.choice([" ", "\n", "\n"]).join(p for p in parts if p)


def _retold(rng: Random) -> str:
    """A scene told two or three times, in other words each time: what was said once can be said again."""
    scene = rng.choice(SCENES).draw(rng)
    first, *others = people(rng, rng.randint(2, 3))
    parts = [rng.choice([scene.tell(rng), f'{first} said: "{scene.tell(rng)}"'])]
    for other in others:
        cue = rng.choice(["told it again", "said it in other words", "wrote it down", "remembered it like this"])
        parts.append(f"{other} {cue}: {scene.tell(rng)}")
    if rng.random() < 0.5:
        parts.append(_closing(rng, scene))
    return rng.choice(["\n", "\n", " ", "\n\n"]).join(p for p in parts if p)


def _closing(rng: Random, scene: Scene) -> str:
    if isinstance(scene, Search | Trip):
        return f"{rng.choice(['In short,', 'To sum up,', 'In a word:', 'So'])} {scene.summary}"
    if isinstance(scene, Review):
        return f"This is a {scene.sentiment} review." if rng.random() < 0.6 else (
            "The guest was happy." if scene.good else "The guest was unhappy.")  # fmt: skip
    if isinstance(scene, Handover):
        return f"In other words, {scene.receiver} got {a(scene.item)} from {scene.giver}."
    if isinstance(scene, Prices):
        return f"From cheapest to dearest: {', '.join(scene.by_price)}."
    if isinstance(scene, Weather):
        return f"So {scene.warmest} was the warmest and {scene.coldest} the coldest day."
    return ""


def _script(rng: Random) -> str:
    """A play-like conversation in which one speaker knows of a scene and the other asks."""
    scene = rng.choice((Notice, Search, Trip, Handover, Prices, Weather)).draw(rng)
    one, two = people(rng, 2)
    lines = [f"{one}: {scene.tell(rng)}"]
    questions = about_scene(scene)
    for q in rng.sample(questions, min(len(questions), rng.randint(3, 6))):
        reply = rng.choice([q.sentence, capital(q.answer) + "."])
        lines += [f"{two}: {rng.choice(q.wordings)}", f"{one}: {reply}"]
    lines.append(f"{two}: {rng.choice(['Thank you!', 'I see.', 'Good to know.', 'Thanks, ' + one + '.'])}")
    return "\n".join(lines)


def _record(rng: Random) -> str:
    """A record and the same in prose, in either order."""
    notice = Notice.draw(rng)
    rows = list(notice.record.items())
    if rng.random() < 0.3:
        rows = rng.sample(rows, rng.randint(3, len(rows)))
    record = "\n".join(f"{k}: {v}" for k, v in rows)
    both = [record, notice.tell(rng)]
    if rng.random() < 0.5:
        both.reverse()
    return "\n\n".join(both)


def _sums(rng: Random) -> str:
    """Purchases and collections with their worked sums."""
    out = []
    for _ in range(rng.randint(1, 3)):
        scene = rng.choice((Purchase, Collection)).draw(rng)
        total = next(q for q in about_scene(scene) if q.kind == "total")
        out.append(scene.tell(rng) + " " + rng.choice([
            capital(total.sentence), _overheard(rng, rng.choice(total.wordings), total.answer, total.sentence),
            f"That makes {scene.working}.", f"{scene.working}. So the answer was {scene.total}.",
        ]))  # fmt: skip
    return rng.choice(["\n", "\n\n"]).join(out)


def _arithmetic(rng: Random) -> str:
    """A page from a sum book."""
    lines = []
    for _ in range(rng.randint(4, 9)):
        x, y = rng.randint(1, 60), rng.randint(1, 39)
        kind = rng.randrange(3)
        if kind == 0:
            lines.append(f"{x} + {y} = {x + y}")
        elif kind == 1:
            lines.append(f"{max(x, y)} - {min(x, y)} = {max(x, y) - min(x, y)}")
        else:
            x, y = rng.randint(2, 9), rng.randint(2, 9)
            lines.append(f"{x} * {y} = {x * y}")
    head = rng.choice(["", f"{people(rng, 1)[0]} wrote sums in a book.\n", "Sums of the day\n"])
    return head + rng.choice(["\n", "\n", ". "]).join(lines)


def _claims(rng: Random) -> str:
    """A scene and what people say of it, true or false."""
    scene = rng.choice(SCENES).draw(rng)
    parts = [scene.tell(rng)]
    for q in rng.sample(about_scene(scene), rng.randint(2, 3)):
        claim, true = claim_about(rng, q)
        who = people(rng, 1)[0]
        parts.append(rng.choice([
            f"{who} said: \"{claim}\" {'That was true.' if true else 'That was false. ' + q.sentence}",
            f"\"{claim[:-1]},\" said {who}. {'Yes, that is right.' if true else 'No, that is wrong. ' + q.sentence}",
        ]))  # fmt: skip
    return "\n".join(parts) if rng.random() < 0.5 else " ".join(parts)


def claim_about(rng: Random, q: Question) -> tuple[str, bool]:
    """A sentence that answers the question rightly or, half the time, wrongly; and which it is."""
    other = _another(rng, q.answer)
    if other is None or q.answer not in q.sentence or rng.random() < 0.5:
        return q.sentence, True
    return capital(q.sentence.replace(q.answer, other)), False


def _another(rng: Random, answer: str) -> str | None:
    """A different answer of the same sort, or None where none is known."""
    bare = answer.removeprefix("the ")
    for table in (VISITOR_NAMES, TOWNS, PLACES, EVENT_PLACES, WEEKDAYS, COLOURS, GOODS, PORTABLE):
        if bare in table:
            return answer.replace(bare, rng.choice([x for x in table if x != bare]))
    number, _, unit = answer.partition(" ")
    if number.isdigit():
        return str(max(2, int(number) + rng.choice([-2, 2, 1, 3]))) + (f" {unit}" if unit else "")
    return None


# Lessons


def _order(rng: Random) -> str:
    parts = []
    for _ in range(rng.randint(1, 3)):
        n = lessons.Numbers.draw(rng)
        parts.append(rng.choice([
            f"{people(rng, 1)[0]} wrote down {n.text}. From smallest to largest: {n.ascending}.",
            f"The numbers were {n.text}. In order: {n.ascending}. The largest was {max(n.values)} and the smallest {min(n.values)}.",
            f"The marks were {n.text}. The best was {max(n.values)}. The worst was {min(n.values)}. From largest to smallest: {n.descending}.",
            f"Of {n.text} the largest is {max(n.values)}, and the smallest is {min(n.values)}.",
            f"Numbers: {n.text}. From largest to smallest: {n.descending}.",
        ]))  # fmt: skip
    return rng.choice([" ", "\n"]).join(parts)


def _counting(rng: Random) -> str:
    parts = []
    for _ in range(rng.randint(1, 3)):
        words = rng.sample(PORTABLE, rng.randint(2, 7))
        n = NUMBER_WORDS[len(words)]
        place = rng.choice(PLACES)
        parts.append(rng.choice([
            f"In the {place} lay {listing([a(w) for w in words])}. These were {n} things.",
            f"{people(rng, 1)[0]} had a list: {', '.join(words)}. There were {n} words on it.",
            f"{capital(listing([a(w) for w in words]))}: {n} things in all.",
        ]))  # fmt: skip
    return " ".join(parts)


def _grammar(rng: Random) -> str:
    parts = []
    for _ in range(rng.randint(2, 4)):
        deed = lessons.Deed.draw(rng)
        parts.append(rng.choice([
            f"Today {deed.present} Yesterday {deed.past}",
            f"{deed.present} Yesterday {deed.past} Tomorrow {deed.future}",
            f"It is not true that {deed.past} No, {deed.negated}",
            f'"{deed.order}" is rude. "{deed.polite}" is kind.',
            f"{deed.past} Now {deed.ongoing}",
            f"Once: {deed.past} Now: {deed.present} Soon: {deed.future}",
            f'"{deed.past}" "No, {deed.negated}"',
        ]))  # fmt: skip
    return rng.choice([" ", "\n"]).join(parts)


def _words(rng: Random) -> str:
    parts = []
    for _ in range(rng.randint(4, 7)):
        x, y = rng.choice(OPPOSITES)
        if rng.random() < 0.5:
            x, y = y, x
        noun = rng.choice(PORTABLE)
        parts.append(rng.choice([
            f"The opposite of {x} is {y}.", f"If something is not {x}, it may be {y}.",
            f"{people(rng, 1)[0]} wanted the {x} {noun}, not the {y} one.", f"{capital(x)} and {y} are opposites.",
            f"One {noun}, two {plural(noun)}.", f"The plural of {noun} is {plural(noun)}.",
        ]))  # fmt: skip
    return " ".join(parts)


def _groups(rng: Random) -> str:
    parts = []
    for _ in range(rng.randint(3, 5)):
        odd, logic = lessons.OddOneOut.draw(rng), lessons.Syllogism.draw(rng)
        three = [w for w in odd.words if w != odd.odd]
        many = lessons.GROUP_PLURALS[odd.group]
        parts.append(rng.choice([
            f"{capital(listing([a(w) for w in three]))} are {many}.",
            f"On the list stood {', '.join(odd.words)}. The {odd.odd} does not belong, because it is {a(odd.odd_group)} "
            f"and the others are {many}.",
            f"Some {many}: {', '.join(rng.sample(lessons.GROUPS[odd.group], 3))}.",
            f"{logic.name} saw {a(logic.member)}. {capital(a(logic.member))} is {a(logic.group)}, so {logic.name} saw {a(logic.group)}.",
            f"{capital(a(logic.member))} is {'' if logic.holds else 'not '}{a(logic.claimed)}."
            + ("" if logic.holds else f" It is {a(logic.group)}."),
        ]))  # fmt: skip
    return rng.choice([" ", "\n"]).join(parts)


def _calendar(rng: Random) -> str:
    parts = []
    for _ in range(rng.randint(4, 7)):
        c = lessons.Calendar.draw(rng)
        parts.append(rng.choice([
            f"{capital(c.phrase)} is {c.answer}.", f"{c.answer} is {c.phrase}.",
            f"{people(rng, 1)[0]} came {c.distance if c.steps > 1 else 'one ' + c.unit} "
            f"{'after' if c.forward else 'before'} {c.start}, in other words {'on' if c.unit == 'day' else 'in'} {c.answer}.",
        ]))  # fmt: skip
    return " ".join(parts)


def _code(rng: Random) -> str:
    parts = []
    for _ in range(rng.randint(2, 4)):
        f, s = lessons.Function.draw(rng), lessons.Snippet.draw(rng)
        parts.append(rng.choice([
            f"# {f.name} returns {f.purpose}\n{f.code}",
            f"The function {f.signature} returns {f.purpose}:\n{f.code}",
            f"{f.code}\n# it returns {f.purpose}",
            f"{s.code}\n# prints:\n{s.output}",
            f"The program\n{s.code}\nprints\n{s.output}",
        ]))  # fmt: skip
    return "\n\n".join(parts)


def _echo(rng: Random) -> str:
    """A memory game: one says a row of words, the others say it again."""
    words = [rng.choice(_SAYABLE) for _ in range(rng.randint(3, 10))]
    if rng.random() < 0.15:
        words = [str(rng.randint(1, 99)) for _ in words]
    row = rng.choice([" ", " ", " ", ", ", " and "]).join(words)
    one, two, three = people(rng, 3)
    return rng.choice([
        f" {row}\n {row}",
        f" {row}\n {row}\n {row}",
        f"{one}: {row}\n{two}: {row}",
        f"{one}: {row}\n{two}: {row}\n{three}: {row}",
        f"{one} said: {row}. {two} said: {row}.",
    ])  # fmt: skip


def _medley(rng: Random) -> str:
    """Several scenes of one day, as in a diary or a local paper."""
    town, day = rng.choice(TOWNS), rng.choice(WEEKDAYS)
    head = rng.choice([f"News from {town}\n", f"{day} in {town}\n", f"Dear diary, this was my {day}.\n", ""])
    scenes = [rng.choice(SCENES).draw(rng).tell(rng) for _ in range(rng.randint(2, 3))]
    if rng.random() < 0.4:
        who, thing = people(rng, 1)[0], rng.choice(PORTABLE)
        scenes.append(f"For sale: {a(thing)}, {rng.choice(COLOURS)}, {coins(rng.randint(2, 30))}. Ask {who}.")
    if rng.random() < 0.3:
        scenes.append(f"{people(rng, 1)[0]} counted {count_of(rng.randint(2, 40), rng.choice(GOODS))}.")
    return head + "\n".join(scenes)


_SAYABLE = (*PORTABLE, *VISITOR_NAMES, *TOWNS, *COLOURS, *GOODS, *PLACES)
_DOCUMENTS: dict[Callable[[Random], str], float] = {
    _page: 12, _gazette: 12, _story: 18, _script: 14, _record: 8, _sums: 9, _arithmetic: 3, _claims: 8, _order: 5,
    _counting: 3, _grammar: 5, _words: 3, _groups: 5, _calendar: 3, _code: 4, _echo: 4, _retold: 22, _medley: 3,
}  # fmt: skip
_KINDS, _WEIGHTS = list(_DOCUMENTS), list(_DOCUMENTS.values())
