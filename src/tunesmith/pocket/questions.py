"""Questions about scenes and about the world's fixed facts, each with its short answer and a full-sentence answer."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from tunesmith.pocket.number_scenes import Collection, Prices, Purchase, Weather
from tunesmith.pocket.scenes import Handover, Notice, Review, Scene, Search, Trip
from tunesmith.pocket.world import (
    ANIMALS,
    RESIDENTS,
    THINGS,
    TOWN_FACTS,
    Resident,
    Town,
    a,
    capital,
    coins,
    count_of,
    plural,
)


@dataclass(frozen=True, slots=True)
class Question:
    """kind: what is asked for, the same over scenes of one type. wordings: the ways to ask. answer: in a word or two."""

    kind: str
    wordings: tuple[str, ...]
    answer: str
    sentence: str


def about_scene(scene: Scene) -> list[Question]:
    """Every question the scene can answer."""
    return _ABOUT[type(scene)](scene)  # type: ignore[no-any-return, operator]


def _notice(s: Notice) -> list[Question]:
    e = s.event
    return [
        Question("place", (f"Where is the {e}?", f"Where will the {e} be held?", f"At which place is the {e}?"),
                 f"the {s.place}", f"The {e} is at the {s.place}."),
        Question("date", (f"When is the {e}?", f"On what date is the {e}?", f"What day is the {e}?"),
                 s.date, f"The {e} is on {s.date}."),
        Question("town", (f"In which town is the {e}?", f"Which town holds the {e}?", f"What town is the {e} in?"),
                 s.town, f"The {e} is in {s.town}."),
        Question("time", (f"At what time does the {e} begin?", f"What time is the {e}?", f"At what hour does the {e} start?"),
                 f"{s.hour} o'clock", f"It begins at {s.hour} o'clock."),
        Question("price", (f"How much is the {e}?", f"What does a ticket for the {e} cost?", f"What is the price of the {e}?"),
                 coins(s.price), f"A ticket costs {coins(s.price)}."),
        Question("host", (f"Who is the host of the {e}?", f"Who organises the {e}?", f"Who is in charge of the {e}?"),
                 s.host, f"{s.host} is the host."),
    ]  # fmt: skip


def _handover(s: Handover) -> list[Question]:
    base = dict(s.VERBS)[s.verb]
    return [
        Question("giver", (f"Who {s.verb} {s.receiver} the {s.thing}?", f"From whom did {s.receiver} get the {s.thing}?",
                           f"Who {s.verb} the {s.thing} to {s.receiver}?"),
                 s.giver, f"{s.giver} {s.verb} {s.receiver} the {s.thing}."),
        Question("receiver", (f"Who got the {s.thing}?", f"To whom did {s.giver} {base} the {s.thing}?",
                              f"Who got the {s.thing} from {s.giver}?"),
                 s.receiver, f"{s.receiver} got the {s.thing} from {s.giver}."),
        Question("thing", (f"What did {s.receiver} get?", f"What did {s.giver} {base} {s.receiver}?",
                           f"What did {s.receiver} get from {s.giver}?"),
                 a(s.item), f"{s.receiver} got {a(s.item)}."),
        Question("place", (f"Where did {s.giver} meet {s.receiver}?", f"Where did {s.receiver} get the {s.thing}?",
                           "Where did they meet?"),
                 f"the {s.place}", f"They met in the {s.place}."),
        Question("day", ("On which day did they meet?", f"When did {s.giver} meet {s.receiver}?",
                         f"What day did {s.receiver} get the {s.thing}?"),
                 s.weekday, f"They met on {s.weekday}."),
    ]  # fmt: skip


def _search(s: Search) -> list[Question]:
    return [
        Question("owner", (f"Who lost the {s.thing}?", f"Whose {s.thing} was lost?", f"To whom did the {s.thing} belong?"),
                 s.owner, f"{s.owner} lost the {s.thing}."),
        Question("finder", (f"Who found the {s.thing}?", f"Who found {s.owner}'s {s.thing}?", f"Who discovered the {s.thing}?"),
                 s.finder, f"{s.finder} found the {s.thing}."),
        Question("found", (f"Where was the {s.thing} found?", f"Where did {s.finder} find the {s.thing}?",
                           f"Where was {s.owner}'s {s.thing}?"),
                 f"the {s.place}", f"The {s.thing} was in the {s.place}."),
        Question("thing", (f"What did {s.owner} lose?", f"What did {s.finder} find?", "What was lost?"),
                 f"a {s.colour} {s.thing}" if s.colour != "orange" else f"an orange {s.thing}",
                 f"{s.owner} lost {a(s.colour)} {s.thing}."),
        Question("colour", (f"What colour was the {s.thing}?", f"What was the colour of {s.owner}'s {s.thing}?",
                            f"Which colour did the {s.thing} have?"),
                 s.colour, f"The {s.thing} was {s.colour}."),
    ]  # fmt: skip


def _purchase(s: Purchase) -> list[Question]:
    things = plural(s.thing)
    return [
        Question("count", (f"How many {things} did {s.buyer} buy?", f"How many {things} were bought?",
                           f"How many {things} did {s.buyer} take?"),
                 str(s.count), f"{s.buyer} bought {count_of(s.count, s.thing)}."),
        Question("price", (f"What did one {s.thing} cost?", f"How much was each {s.thing}?", f"What was the price of {a(s.thing)}?"),
                 coins(s.price), f"Each {s.thing} cost {coins(s.price)}."),
        Question("total", ("How much was that in all?", f"What did {s.buyer} pay?", f"What did the {things} cost together?"),
                 coins(s.total), f"{s.working}, so {s.buyer} paid {coins(s.total)}."),
    ]  # fmt: skip


def _collection(s: Collection) -> list[Question]:
    things = plural(s.thing)
    return [
        Question("total", (f"How many {things} are there now?", f"How many {things} does {s.owner} have now?",
                           f"How many {things} is that now?"),
                 str(s.total), f"{s.working}, so now there are {s.total} {things}."),
        Question("start", (f"How many {things} were there at first?", f"How many {things} did {s.owner} have at first?",
                           f"How many {things} were there in the beginning?"),
                 str(s.start), f"At first there were {s.start} {things}."),
        Question("place", (f"Where were the {things}?", f"Where did {s.owner} keep the {things}?", f"In which place were the {things}?"),
                 f"the {s.place}", f"The {things} were in the {s.place}."),
    ]  # fmt: skip


def _review(s: Review) -> list[Question]:
    return [
        Question("inn", ("Which inn is this about?", "What is the name of the inn?", "Where did the guest stay?"),
                 f"the {s.inn}", f"It is about the {s.inn}."),
        Question("town", ("In which town is the inn?", f"Where is the {s.inn}?", "What town is the inn in?"),
                 s.town, f"The {s.inn} is in {s.town}."),
        *(Question("aspect", (f"How {'were' if x == 'staff' else 'was'} the {x}?", f"What did the guest think of the {x}?",
                              f"What {'were' if x == 'staff' else 'was'} the {x} like?"),
                   how, f"The {x} {'were' if x == 'staff' else 'was'} {how}.") for x, how in s.aspects),
    ]  # fmt: skip


def _weather(s: Weather) -> list[Question]:
    out = [
        Question("warmest", ("Which day was the warmest?", "What was the warmest day?", "On which day was it warmest?"),
                 s.warmest, f"{s.warmest} was the warmest day."),
        Question("coldest", ("Which day was the coldest?", "What was the coldest day?", "On which day was it coldest?"),
                 s.coldest, f"{s.coldest} was the coldest day."),
    ]  # fmt: skip
    for day, sky, degrees in s.days:
        out.append(Question("sky", (f"What was the weather on {day}?", f"What came on {day}?", f"What did {day} bring?"),
                            sky, f"On {day} there {'were' if sky in ('clouds', 'storms') else 'was'} {sky}."))  # fmt: skip
        out.append(Question("degrees", (f"How warm was it on {day}?", f"What was the temperature on {day}?",
                                        f"How many degrees were there on {day}?"),
                            f"{degrees} degrees", f"It was {degrees} degrees on {day}."))  # fmt: skip
    return out


def _prices(s: Prices) -> list[Question]:
    cheap, dear = s.by_price[0], s.by_price[-1]
    out = [
        Question("cheapest", ("What is the cheapest thing?", f"What is cheapest at {s.seller}'s stall?", "Which thing costs least?"),
                 f"the {cheap}", f"The {cheap} is the cheapest."),
        Question("dearest", ("What is the dearest thing?", f"What is dearest at {s.seller}'s stall?", "Which thing costs most?"),
                 f"the {dear}", f"The {dear} is the dearest."),
    ]  # fmt: skip
    for thing, price in s.items:
        out.append(Question("price", (f"How much is the {thing}?", f"What does the {thing} cost?", f"What is the price of the {thing}?"),
                            coins(price), f"The {thing} costs {coins(price)}."))  # fmt: skip
    return out


def _trip(s: Trip) -> list[Question]:
    t = s.traveller
    return [
        Question("goal", (f"Where did {t} go?", f"Which town did {t} travel to?", f"To which town did {t} go?"),
                 s.goal, f"{t} went to {s.goal}."),
        Question("start", (f"From where did {t} start?", f"Which town did {t} leave?", f"From which town did {t} come?"),
                 s.start, f"{t} came from {s.start}."),
        Question("vehicle", (f"How did {t} travel?", f"How did {t} get to {s.goal}?", f"By what did {t} travel?"),
                 f"by {s.vehicle}", f"{t} travelled by {s.vehicle}."),
        Question("companion", (f"Who went with {t}?", f"Who was with {t}?", f"Who came along with {t}?"),
                 s.companion, f"{s.companion} went with {t}."),
        Question("purpose", (f"Why did {t} travel to {s.goal}?", f"Why did {t} go there?", f"What did {t} want to do?"),
                 f"to {s.purpose}", f"{t} wanted to {s.purpose}."),
        Question("day", (f"On which day did {t} travel?", f"When did {t} leave?", f"What day did {t} set out?"),
                 s.weekday, f"It was on {s.weekday}."),
    ]  # fmt: skip


_ABOUT = {
    Notice: _notice, Handover: _handover, Search: _search, Purchase: _purchase, Collection: _collection,
    Review: _review, Weather: _weather, Prices: _prices, Trip: _trip,
}  # fmt: skip


# Fixed facts: attribute -> (ways to ask, ways to say). `{x}` is whom or what it is about, `{v}` the value.
RESIDENT_ATTRIBUTES = {
    "town": (("Where does {x} live?", "In which town does {x} live?", "What is the home town of {x}?"),
             ("{x} lives in {v}.", "The home of {x} is in {v}.", "{x}'s home town is {v}.", "{x} comes from {v}.",
              "In {v} lives {x}.")),
    "job": (("What is the job of {x}?", "What does {x} do for a living?", "What work does {x} do?"),
            ("{x} works as a {v}.", "{x} is a {v}.", "The job of {x} is that of a {v}.", "{x} is a {v} by trade.",
             "By day {x} works as a {v}.")),
    "food": (("What is the favourite food of {x}?", "What does {x} like to eat?", "What food does {x} like best?"),
             ("{x} likes to eat {v}.", "The favourite food of {x} is {v}.", "{x}'s favourite food is {v}.",
              "{x} likes {v} best of all food.", "For dinner {x} wants {v}.")),
    "hobby": (("What is the hobby of {x}?", "What does {x} do for fun?", "What is {x}'s hobby?"),
              ("{x}'s hobby is {v}.", "The hobby of {x} is {v}.", "For fun {x} goes in for {v}.", "{x} loves {v}.",
               "In the evening {x} enjoys {v}.")),
    "pet": (("What pet does {x} have?", "Which animal lives with {x}?", "What kind of pet has {x}?"),
            ("{x} has a pet {v}.", "{x}'s pet is a {v}.", "A {v} lives with {x}.", "{x} keeps a {v}.",
             "The pet of {x} is a {v}.")),
    "colour": (("What is the favourite colour of {x}?", "Which colour does {x} like best?", "What colour does {x} love?"),
               ("{x}'s favourite colour is {v}.", "{x} likes the colour {v}.", "The favourite colour of {x} is {v}.",
                "Of all colours {x} likes {v} best.", "{x} paints everything {v}.")),
}  # fmt: skip
TOWN_ATTRIBUTES = {
    "region": (("In which region is {x}?", "Which region does {x} belong to?", "What region is {x} in?"),
               ("{x} is in {v}.", "{x} is a town in {v}.", "{x} belongs to {v}.", "The town of {x} lies in the region of {v}.")),
    "river": (("Which river runs through {x}?", "On which river is {x}?", "What river flows through {x}?"),
              ("The river {v} runs through {x}.", "{x} lies on the river {v}.", "Through {x} flows the {v}.",
               "In {x} people fish in the river {v}.")),
    "product": (("What is {x} known for?", "What is made in {x}?", "What product does {x} sell?"),
                ("{x} is known for {v}.", "The people of {x} make {v}.", "{x} sells {v} to other towns.",
                 "The best {v} comes from {x}." )),
    "landmark": (("What is the landmark of {x}?", "What can visitors see in {x}?", "Which sight is {x} proud of?"),
                 ("The landmark of {x} is the {v}.", "Visitors of {x} go to see the {v}.", "{x} is proud of its {v}.",
                  "In the middle of {x} stands the {v}.")),
}  # fmt: skip
ANIMAL_ATTRIBUTES = {
    "class": (("What kind of animal is {x}?", "To which class of animals does {x} belong?", "What sort of animal is {x}?"),
              ("{X} is {v}.", "{X} belongs to the {w}.", "Among the {w} is {x}.")),
    "food": (("What does {x} eat?", "What is the food of {x}?", "What does {x} feed on?"),
             ("{X} eats {v}.", "{X} feeds on {v}.", "The food of {x} is {v}.", "{X} likes to eat {v}.")),
    "habitat": (("Where does {x} live?", "What is the home of {x}?", "Where can you find {x}?"),
                ("{X} lives in {v}.", "The home of {x} is {v}.", "You can find {x} in {v}.", "In {v} you may meet {x}.")),
    "legs": (("How many legs does {x} have?", "How many legs has {x}?", "What number of legs does {x} have?"),
             ("{X} has {v} legs.", "{X} is an animal with {v} legs.", "Count the legs of {x}: it has {v}.")),
    "sound": (("What sound does {x} make?", "How does {x} sound?", "What does {x} do to be heard?"),
              ("{X} {v}.", "Listen: {x} {v}.", "At night {x} {v}.", "When it is afraid, {x} {v}.")),
}  # fmt: skip
THING_ATTRIBUTES = {
    "category": (("What kind of thing is {x}?", "What is {x}?", "To which group of things does {x} belong?"),
                 ("{X} is {v}.", "{X} is one kind of {w}.", "{X} counts as {v}.")),
    "material": (("What is {x} made of?", "What is the material of {x}?", "Of what is {x} made?"),
                 ("{X} is made of {v}.", "{X} is usually of {v}.", "People make {x} of {v}.", "The material of {x} is {v}.")),
    "use": (("What is {x} used for?", "What do people do with {x}?", "Why do people need {x}?"),
            ("{X} is used to {v}.", "People use {x} to {v}.", "With {x} you can {v}.", "{X} helps people to {v}.")),
}  # fmt: skip


def _resident_value(r: Resident, attribute: str) -> str:
    return str(getattr(r, attribute))


def facts_of(name: str) -> list[tuple[str, str, dict[str, str], tuple[tuple[str, ...], tuple[str, ...]]]]:
    """Every fixed fact about a resident, town, animal or thing: (attribute, short answer, words for the forms, forms)."""
    if name in RESIDENTS:
        return [(k, _resident_value(RESIDENTS[name], k), {"x": name, "v": _resident_value(RESIDENTS[name], k)}, forms)
                for k, forms in RESIDENT_ATTRIBUTES.items()]  # fmt: skip
    if name in TOWN_FACTS:
        town: Town = TOWN_FACTS[name]
        return [(k, ("the " if k == "landmark" else "") + getattr(town, k), {"x": name, "v": getattr(town, k)}, forms)
                for k, forms in TOWN_ATTRIBUTES.items()]  # fmt: skip
    words = {"x": a(name), "X": capital(a(name))}
    if name in ANIMALS:
        kind, legs, food, habitat, sound = ANIMALS[name]
        values = {"class": a(kind), "food": food, "habitat": habitat, "legs": legs, "sound": sound}
        group = {"fish": "fish", "bird": "birds", "mammal": "mammals", "insect": "insects", "reptile": "reptiles"}[kind]
        return [(k, v, {**words, "v": v, "w": group}, ANIMAL_ATTRIBUTES[k]) for k, v in values.items()]
    category, material, use = THINGS[name]
    values = {"category": a(category), "material": material, "use": use}
    if category in ("fruit", "vegetable"):
        where = {"a tree": "on a tree", "a vine": "on a vine", "the ground": "in the ground"}[material]
        grows = (("Where does {x} grow?", "In what place does {x} grow?", "Where do you pick {x}?"),
                 ("{X} grows {v}.", "You can find {x} {v}.", "Look {v} to pick {x}."))  # fmt: skip
        return [(k, where if k == "material" else v, {**words, "v": where if k == "material" else v, "w": category},
                 grows if k == "material" else THING_ATTRIBUTES[k]) for k, v in values.items()]  # fmt: skip
    return [(k, v, {**words, "v": v, "w": category}, THING_ATTRIBUTES[k]) for k, v in values.items()]


def say_fact(rng: Random, words: dict[str, str], forms: tuple[tuple[str, ...], tuple[str, ...]]) -> str:
    return capital(rng.choice(forms[1]).format(**words))
