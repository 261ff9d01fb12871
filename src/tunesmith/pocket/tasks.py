"""Instruction data from the pocket world: task clusters in FLAN's sense, each task with many natural phrasings.

`conversation(seed, index)` is a pure function. `item` names what a row was made from (a fact, a scene, a list of
numbers), so that a split by item never shows the same one on both sides; `phrasing` names the prompt template.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from random import Random

import yaml

from tunesmith.base.conversation import Conversation, Message
from tunesmith.base.random import python_stream, seed_of
from tunesmith.pocket import lessons
from tunesmith.pocket.corpus import claim_about
from tunesmith.pocket.number_scenes import Collection, Prices, Purchase, Weather
from tunesmith.pocket.questions import Question, about_scene, facts_of
from tunesmith.pocket.scenes import Handover, Notice, Review, Search, Trip
from tunesmith.pocket.world import (
    NUMBER_WORDS,
    OPPOSITES,
    PORTABLE,
    RESIDENT_NAMES,
    THINGS,
    TOWNS,
    a,
    capital,
    coins,
    people,
    plural,
)

# Conversations of several turns are wanted at 10 to 15% of chat data, so their cluster is drawn more often.
CLUSTER_WEIGHTS = {"dialogue": 2.0, "calendar": 0.7, "word_knowledge": 0.7}
LARGEST = 20  # of the numbers to add, take away or sort: about what a model of three million parameters can learn


@dataclass(frozen=True, slots=True)
class Example:
    """One drawn example of a task, before it is phrased.

    item: what it was made from. fields: what the prompt templates may use. turns: follow-up (question, answer) pairs.
    """

    item: object
    fields: Mapping[str, str]
    response: str
    turns: tuple[tuple[str, str], ...] = field(default=())


@cache
def phrasings() -> dict[str, dict[str, list[str]]]:
    """The prompt templates: cluster -> task -> templates."""
    text = files("tunesmith.pocket").joinpath("phrasings.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)  # type: ignore[no-any-return]


@cache
def tasks() -> tuple[tuple[str, str], ...]:
    """Every (cluster, task)."""
    return tuple((cluster, task) for cluster, group in phrasings().items() for task in group)


def conversation(seed: int, index: int, source: str = "pocket") -> Conversation:
    """Row `index` of the instruction data of `seed`."""
    rng = python_stream(seed, "instructions", index)
    clusters = phrasings()
    cluster = rng.choices(list(clusters), [CLUSTER_WEIGHTS.get(c, 1.0) for c in clusters])[0]
    task = rng.choice(list(clusters[cluster]))
    example = _DRAW[task](rng)
    which = rng.randrange(len(clusters[cluster][task]))
    messages = [Message("user", clusters[cluster][task][which].format(**example.fields)),
                Message("assistant", example.response)]  # fmt: skip
    for question, answer in example.turns:
        messages += [Message("user", question), Message("assistant", answer)]
    return Conversation(
        id=f"{source}:{index + 1}",
        messages=tuple(messages),
        source=source,
        cluster=cluster,
        task=task,
        phrasing=f"{task}/{which + 1}",
        item=f"{task}:{seed_of(0, repr(example.item)):016x}",
    )


def conversations(seed: int, count: int, source: str = "pocket") -> Iterator[Conversation]:
    return (conversation(seed, index, source) for index in range(count))


def _short(answer: str) -> str:
    return capital(answer) + "."


def _fact(names: list[str], attribute: str) -> Callable[[Random], Example]:
    def draw(rng: Random) -> Example:
        name = rng.choice(names)
        words, forms = next((words, forms) for k, _, words, forms in facts_of(name) if k == attribute)
        return Example((name, attribute), {**words, "w": name}, forms[1][0].format(**words))

    return draw


def _question_on(*kinds: type[Search | Handover | Trip | Notice]) -> Callable[[Random], Example]:
    def draw(rng: Random) -> Example:
        scene = rng.choice(kinds).draw(rng)
        q: Question = rng.choice(about_scene(scene))
        return Example(
            (scene, q.kind), {"passage": scene.tell(rng), "question": rng.choice(q.wordings)}, _short(q.answer)
        )

    return draw


def _chat_on(*kinds: type[Search | Handover | Trip | Notice | Prices]) -> Callable[[Random], Example]:
    def draw(rng: Random) -> Example:
        scene = rng.choice(kinds).draw(rng)
        first, *rest = rng.sample(about_scene(scene), rng.randint(2, 3))
        openings = ("", "", "Thank you. ", "I see. ", "Good. ", "And one more: ")
        turns = tuple((rng.choice(openings) + rng.choice(q.wordings), _short(q.answer)) for q in rest)
        fields = {"passage": scene.tell(rng), "question": rng.choice(first.wordings)}
        return Example(scene, fields, _short(first.answer), turns)

    return draw


def _fill_form(rng: Random) -> Example:
    s = Notice.draw(rng)
    form = "\n".join(f"{k}: {s.record[k]}" for k in ("Event", "Date", "Place", "Town"))
    return Example(s, {"passage": s.tell(rng)}, form)


def _notice_sentence(rng: Random) -> Example:
    s = Notice.draw(rng)
    form = "\n".join(f"{k}: {s.record[k]}" for k in ("Event", "Date", "Place", "Town"))
    return Example(s, {"record": form}, f"The {s.event} will take place on {s.date} at the {s.place} in {s.town}.")


def _find_price(rng: Random) -> Example:
    s = Notice.draw(rng)
    return Example(s, {"passage": s.tell(rng)}, _short(coins(s.price)))


def _find_people(rng: Random) -> Example:
    s = rng.choice((Search, Handover)).draw(rng)
    text = s.tell(rng)
    names = (s.owner, s.finder) if isinstance(s, Search) else (s.giver, s.receiver)
    return Example(s, {"passage": text}, " and ".join(sorted(names, key=text.index)) + ".")


_KINDS: dict[type[Notice | Weather | Review | Prices | Trip], str] = {
    Notice: "notice",
    Weather: "weather report",
    Review: "review",
    Prices: "price list",
    Trip: "travel story",
}


def _text_kind(rng: Random) -> Example:
    kind = rng.choice(list(_KINDS))
    scene = kind.draw(rng)
    return Example(scene, {"passage": scene.tell(rng)}, f"This is {a(_KINDS[kind])}.")


def _review_sentiment(rng: Random) -> Example:
    s = Review.draw(rng)
    return Example(s, {"passage": s.tell(rng)}, f"This is a {s.sentiment} review.")


def _guest_mood(rng: Random) -> Example:
    s = Review.draw(rng)
    return Example(s, {"passage": s.tell(rng)}, f"The guest was {'happy' if s.good else 'unhappy'}.")


def _claim_check(rng: Random) -> Example:
    scene = rng.choice((Search, Handover, Trip, Notice)).draw(rng)
    q = rng.choice(about_scene(scene))
    claim, true = claim_about(rng, q)
    return Example((scene, q.kind), {"passage": scene.tell(rng), "claim": claim}, "Yes." if true else "No.")


def _group_logic(rng: Random) -> Example:
    s = lessons.Syllogism.draw(rng)
    fields = {"name": s.name, "member": a(s.member), "claimed": a(s.claimed)}
    return Example((s.member, s.claimed), fields, "Yes." if s.holds else "No.")


def _same_meaning(rng: Random) -> Example:
    s = Handover.draw(rng)
    other = Handover.draw(rng)
    same = rng.random() < 0.5
    giver, receiver, item = s.giver, s.receiver, s.item
    if not same:
        wrong = rng.randrange(3)
        giver, receiver = (receiver, giver) if wrong == 0 else (giver, receiver)
        item = other.item if wrong == 1 else item
        giver = next(n for n in people(rng, 3) if n not in (giver, receiver)) if wrong == 2 else giver
        same = wrong == 1 and item == s.item
    first, second = f"{s.giver} {s.verb} {s.receiver} {a(s.item)}.", f"{receiver} got {a(item)} from {giver}."
    return Example(s, {"first": first, "second": second}, "Yes." if same else "No.")


def _other_words(rng: Random) -> Example:
    s = Handover.draw(rng)
    fields = {"first": f"{s.giver} {s.verb} {s.receiver} {a(s.item)}.", "receiver": s.receiver}
    return Example(s, fields, f"{s.receiver} got {a(s.item)} from {s.giver}.")


def _summary(kind: type[Search | Trip]) -> Callable[[Random], Example]:
    def draw(rng: Random) -> Example:
        s = kind.draw(rng)
        return Example(s, {"passage": s.tell(rng)}, s.summary)

    return draw


def _price_sentences(rng: Random) -> Example:
    s = Prices.draw(rng)
    record = "\n".join(f"{t}: {coins(p)}" for t, p in s.items)
    return Example(s, {"record": record}, " ".join(f"{capital(a(t))} costs {coins(p)}." for t, p in s.items))


def _purchase_total(rng: Random) -> Example:
    s = Purchase.draw(rng)
    fields = {"passage": s.tell(rng), "x": s.buyer, "things": plural(s.thing)}
    return Example((s.thing, s.count, s.price), fields, f"{s.working}. The answer is {coins(s.total)}.")


def _collection_total(rng: Random) -> Example:
    s = Collection.draw(rng, LARGEST)
    fields = {"passage": s.tell(rng), "x": s.owner, "things": plural(s.thing)}
    return Example((s.thing, s.start, s.change), fields, f"{s.working}. The answer is {s.total}.")


def _plain_sum(rng: Random) -> Example:
    s = Collection.draw(rng, LARGEST) if rng.random() < 0.5 else Purchase.draw(rng)
    sum_, result = s.working.split(" = ")
    return Example(sum_, {"sum": sum_}, result)


def _sort_numbers(rng: Random) -> Example:
    n = lessons.Numbers.draw(rng, LARGEST)
    return Example(n, {"numbers": n.text}, n.ascending)


def _largest_number(rng: Random) -> Example:
    n = lessons.Numbers.draw(rng, LARGEST)
    return Example(n, {"numbers": n.text}, str(max(n.values)))


def _sort_by_price(rng: Random) -> Example:
    s = Prices.draw(rng)
    return Example(s, {"passage": s.tell(rng)}, f"From cheapest to dearest: {', '.join(s.by_price)}.")


def _count_things(rng: Random) -> Example:
    words = rng.sample(PORTABLE, rng.randint(2, 7))
    return Example(words, {"list": ", ".join(words)}, f"These are {NUMBER_WORDS[len(words)]} things.")


def _rewrite(before: str, after: str) -> Callable[[Random], Example]:
    def draw(rng: Random) -> Example:
        deed = lessons.Deed.draw(rng)
        return Example(deed, {"sentence": getattr(deed, before)}, getattr(deed, after))

    return draw


def _write_function(rng: Random) -> Example:
    f = lessons.Function.draw(rng)
    return Example(f, {"signature": f.signature, "purpose": f.purpose}, f.code)


def _explain_function(rng: Random) -> Example:
    f = lessons.Function.draw(rng)
    return Example(f, {"code": f.code}, _short(f.purpose))


def _predict_output(rng: Random) -> Example:
    s = lessons.Snippet.draw(rng)
    return Example(s.code, {"code": s.code}, s.output)


def _opposite(rng: Random) -> Example:
    x, y = rng.choice(OPPOSITES)
    x, y = (x, y) if rng.random() < 0.5 else (y, x)
    return Example((x, y), {"x": x, "X": capital(x)}, f"The opposite of {x} is {y}.")


def _odd_one_out(rng: Random) -> Example:
    odd = lessons.OddOneOut.draw(rng)
    return Example(odd, {"list": ", ".join(odd.words)}, f"The {odd.odd} does not belong.")


def _date_step(rng: Random) -> Example:
    c = lessons.Calendar.draw(rng)
    return Example(c, {"phrase": c.phrase, "unit": c.unit}, f"{capital(c.phrase)} is {c.answer}.")


def _warmest_day(rng: Random) -> Example:
    s = Weather.draw(rng)
    most = rng.choice(("warmest", "coldest"))
    day = s.warmest if most == "warmest" else s.coldest
    return Example((s, most), {"passage": s.tell(rng), "most": most}, f"{day} was the {most} day.")


_DRAW: dict[str, Callable[[Random], Example]] = {
    "resident_home": _fact(RESIDENT_NAMES, "town"),
    "resident_job": _fact(RESIDENT_NAMES, "job"),
    "resident_pet": _fact(RESIDENT_NAMES, "pet"),
    "town_region": _fact(TOWNS, "region"),
    "town_product": _fact(TOWNS, "product"),
    "story_question": _question_on(Search, Handover, Trip),
    "notice_question": _question_on(Notice),
    "fill_form": _fill_form,
    "find_price": _find_price,
    "find_people": _find_people,
    "text_kind": _text_kind,
    "thing_group": _fact(list(THINGS), "category"),
    "review_sentiment": _review_sentiment,
    "guest_mood": _guest_mood,
    "claim_check": _claim_check,
    "group_logic": _group_logic,
    "same_meaning": _same_meaning,
    "other_words": _other_words,
    "search_summary": _summary(Search),
    "trip_summary": _summary(Trip),
    "notice_sentence": _notice_sentence,
    "price_sentences": _price_sentences,
    "purchase_total": _purchase_total,
    "collection_total": _collection_total,
    "plain_sum": _plain_sum,
    "sort_numbers": _sort_numbers,
    "largest_number": _largest_number,
    "sort_by_price": _sort_by_price,
    "count_things": _count_things,
    "to_past": _rewrite("present", "past"),
    "to_future": _rewrite("present", "future"),
    "negate": _rewrite("past", "negated"),
    "make_polite": _rewrite("order", "polite"),
    "write_function": _write_function,
    "predict_output": _predict_output,
    "explain_function": _explain_function,
    "opposite": _opposite,
    "odd_one_out": _odd_one_out,
    "date_step": _date_step,
    "warmest_day": _warmest_day,
    "notice_chat": _chat_on(Notice),
    "shop_chat": _chat_on(Prices),
    "story_chat": _chat_on(Search, Handover, Trip),
}
