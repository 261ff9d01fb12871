"""Scenes: small made-up situations with exact facts, and several ways to tell each in prose.

A scene is drawn at random, so what it says must be read from the text. The corpus tells scenes; the tasks ask about them.
`tell(rng)` gives a fresh wording of the same facts; the facts are the fields.
The scenes to reckon with are in `number_scenes`.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from tunesmith.pocket.number_scenes import Collection, Prices, Purchase, Weather
from tunesmith.pocket.world import COLOURS, MONTHS, PLACES, PORTABLE, TOWNS, WEEKDAYS, a, capital, coins, people

EVENTS = (
    "spring fair,chess match,book sale,harvest feast,boat race,dog show,summer dance,cooking class,flower market,puppet play,"
    "concert,lantern walk,quiz night,sewing lesson,kite day,winter market"
).split(",")
EVENT_PLACES = "town hall,school,park,harbour,library,church,inn,market,theatre,museum".split(",")
VEHICLES = "train,bus,boat,cart,bicycle,horse,wagon,ferry".split(",")
PURPOSES = (
    "visit an aunt,buy a coat,see a doctor,sell apples,meet a friend,hear a concert,collect a parcel,look for work,"
    "repair a clock,watch a race"
).split(",")
INNS = "Blue Kettle,Old Oak,Golden Goose,Red Lantern,White Horse,Silver Spoon,Green Gate,Black Swan,Lucky Fox,Quiet Mill".split(
    ","
)


@dataclass(frozen=True, slots=True)
class Notice:
    """A public event: what, when, where, at what price and by whom."""

    event: str
    weekday: str
    day: int
    month: str
    place: str
    town: str
    hour: int
    price: int
    host: str

    @classmethod
    def draw(cls, rng: Random) -> Notice:
        return cls(
            rng.choice(EVENTS), rng.choice(WEEKDAYS), rng.randint(1, 28), rng.choice(MONTHS), rng.choice(EVENT_PLACES),
            rng.choice(TOWNS), rng.randint(1, 11), rng.randint(2, 20), people(rng, 1)[0],
        )  # fmt: skip

    @property
    def date(self) -> str:
        return f"{self.weekday} {self.day} {self.month}"

    @property
    def record(self) -> dict[str, str]:
        return {
            "Event": self.event, "Date": self.date, "Time": f"{self.hour} o'clock", "Place": self.place, "Town": self.town,
            "Price": coins(self.price), "Host": self.host,
        }  # fmt: skip

    def tell(self, rng: Random) -> str:
        opening = rng.choice([
            f"The {self.event} will take place on {self.date} at the {self.place} in {self.town}.",
            f"On {self.date} the {self.event} will be held at the {self.place} in {self.town}.",
            f"{self.town} invites everyone to the {self.event}. It will be held on {self.date} at the {self.place}.",
            f"Come to the {self.event} at the {self.place} in {self.town} on {self.date}!",
            f"This year the {self.event} is on {self.date}. The place is the {self.place} in {self.town}.",
        ])  # fmt: skip
        more = [
            rng.choice([f"It begins at {self.hour} o'clock.", f"The doors open at {self.hour} o'clock.",
                        f"It starts at {self.hour} o'clock sharp.", f"Please be there at {self.hour} o'clock."]),
            rng.choice([f"A ticket costs {coins(self.price)}.", f"Tickets are {coins(self.price)} each.",
                        f"The price is {coins(self.price)}.", f"Entry costs {coins(self.price)}."]),
            rng.choice([f"{self.host} is the host.", f"The host is {self.host}.", f"{self.host} leads the evening.",
                        f"It is organised by {self.host}."]).replace("leads the evening", "is in charge"),
        ]  # fmt: skip
        rng.shuffle(more)
        return " ".join([opening, *more])


@dataclass(frozen=True, slots=True)
class Handover:
    """Someone gives something to somebody else somewhere."""

    giver: str
    receiver: str
    thing: str
    colour: str
    place: str
    weekday: str
    verb: str

    VERBS = (("gave", "give"), ("lent", "lend"), ("sold", "sell"), ("handed", "hand"), ("sent", "send"))

    @classmethod
    def draw(cls, rng: Random) -> Handover:
        giver, receiver = people(rng, 2)
        return cls(giver, receiver, rng.choice(PORTABLE), rng.choice(COLOURS), rng.choice(PLACES), rng.choice(WEEKDAYS),
                   rng.choice(cls.VERBS)[0])  # fmt: skip

    @property
    def item(self) -> str:
        return f"{self.colour} {self.thing}"

    def tell(self, rng: Random) -> str:
        meet = rng.choice([
            f"On {self.weekday} {self.giver} met {self.receiver} in the {self.place}.",
            f"{self.giver} and {self.receiver} met in the {self.place} on {self.weekday}.",
            f"It was {self.weekday}. {self.giver} was waiting for {self.receiver} in the {self.place}.",
            f"{self.receiver} came to the {self.place} on {self.weekday}, and {self.giver} was already there.",
        ])  # fmt: skip
        act = rng.choice([
            f"{self.giver} {self.verb} {self.receiver} {a(self.item)}.",
            f"There {self.giver} {self.verb} {a(self.item)} to {self.receiver}.",
            f"{self.giver} {self.verb} {a(self.item)} to {self.receiver}.",
        ])  # fmt: skip
        end = rng.choice([
            f"{self.receiver} was glad and went home.", f"Then {self.receiver} went home with the {self.thing}.",
            "They talked for a while and then went home.", f"{self.receiver} thanked {self.giver}.",
            f"After that {self.giver} left the {self.place}.", "It was a quiet day.",
        ])  # fmt: skip
        return f"{meet} {act} {end}"


@dataclass(frozen=True, slots=True)
class Search:
    """Something is lost, looked for in one place and found in another by a helper."""

    owner: str
    finder: str
    thing: str
    colour: str
    wrong: str
    place: str
    weekday: str

    @classmethod
    def draw(cls, rng: Random) -> Search:
        owner, finder = people(rng, 2)
        wrong, place = rng.sample(PLACES, 2)
        return cls(owner, finder, rng.choice(PORTABLE), rng.choice(COLOURS), wrong, place, rng.choice(WEEKDAYS))

    @property
    def summary(self) -> str:
        return f"{self.finder} found {self.owner}'s {self.thing} in the {self.place}."

    def tell(self, rng: Random) -> str:
        lost = rng.choice([
            f"On {self.weekday} {self.owner} lost {a(self.colour)} {self.thing}.",
            f"{self.owner} could not find the {self.colour} {self.thing} on {self.weekday}.",
            f"On {self.weekday} morning {self.owner}'s {self.colour} {self.thing} was gone.",
            f"One {self.weekday} {self.owner} missed {a(self.colour)} {self.thing}.",
        ])  # fmt: skip
        looked = rng.choice([
            f"{self.owner} looked in the {self.wrong}, but it was not there.",
            f"First {self.owner} searched the {self.wrong} and found nothing.",
            f"It was not in the {self.wrong}.",
            f"{self.owner} asked everyone and searched the {self.wrong} in vain.",
        ])  # fmt: skip
        found = rng.choice([
            f"Then {self.finder} found it in the {self.place}.",
            f"At last {self.finder} saw it in the {self.place}.",
            f"In the end {self.finder} discovered the {self.thing} in the {self.place}.",
            f"Later {self.finder} went to the {self.place}, and there it lay.",
        ])  # fmt: skip
        end = rng.choice([
            f"{self.owner} was very happy.", f"{self.owner} thanked {self.finder}.", "Everybody laughed.", "All was well again.",
            f"{self.finder} was proud.", f"{self.owner} baked a cake for {self.finder}.",
        ])  # fmt: skip
        return f"{lost} {looked} {found} {end}"


# aspect: (good, bad)
ASPECTS = {
    "soup": (("hot and tasty", "delicious", "the best in town"), ("cold", "too salty", "thin and grey")),
    "room": (("clean and bright", "quiet", "warm and cosy"), ("dirty", "dark and damp", "far too small")),
    "staff": (("friendly", "kind and quick", "very helpful"), ("rude", "slow and lazy", "unfriendly")),
    "bed": (("soft", "wide and comfortable", "perfect"), ("hard", "broken", "full of crumbs")),
    "bread": (("fresh", "crisp and warm", "wonderful"), ("stale", "burnt", "hard as stone")),
    "price": (("fair", "low", "a bargain"), ("too high", "a joke", "shocking")),
    "music": (("lovely", "cheerful", "well played"), ("awful", "far too loud", "dull")),
    "view": (("beautiful", "splendid", "charming"), ("ugly", "only a wall", "sad")),
}
GOOD_ENDS = ("We will come back soon.", "I enjoyed every minute.", "I can recommend it.", "It was a lovely evening.",
             "Everyone was delighted.", "I left with a smile.")  # fmt: skip
BAD_ENDS = ("We will never come back.", "I regret every coin.", "I can not recommend it.", "It was a terrible evening.",
            "Everyone was disappointed.", "I left in anger.")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Review:
    """What a guest thought of an inn."""

    guest: str
    inn: str
    town: str
    good: bool
    aspects: tuple[tuple[str, str], ...]

    @classmethod
    def draw(cls, rng: Random) -> Review:
        good = rng.random() < 0.5
        chosen = rng.sample(sorted(ASPECTS), rng.randint(2, 3))
        return cls(people(rng, 1)[0], rng.choice(INNS), rng.choice(TOWNS), good,
                   tuple((x, rng.choice(ASPECTS[x][0 if good else 1])) for x in chosen))  # fmt: skip

    @property
    def sentiment(self) -> str:
        return "positive" if self.good else "negative"

    def tell(self, rng: Random) -> str:
        opening = rng.choice([
            f"I stayed at the {self.inn} in {self.town}.", f"Last week we visited the {self.inn} in {self.town}.",
            f"This is about the {self.inn} in {self.town}.", f"My evening at the {self.inn} in {self.town}:",
        ])  # fmt: skip
        points = [f"{capital('the ' + x)} {'were' if x == 'staff' else 'was'} {how}." for x, how in self.aspects]
        return " ".join([opening, *points, rng.choice(GOOD_ENDS if self.good else BAD_ENDS)])


@dataclass(frozen=True, slots=True)
class Trip:
    """A journey between two towns."""

    traveller: str
    companion: str
    start: str
    goal: str
    vehicle: str
    weekday: str
    purpose: str

    @classmethod
    def draw(cls, rng: Random) -> Trip:
        traveller, companion = people(rng, 2)
        start, goal = rng.sample(TOWNS, 2)
        return cls(traveller, companion, start, goal, rng.choice(VEHICLES), rng.choice(WEEKDAYS), rng.choice(PURPOSES))

    @property
    def summary(self) -> str:
        return f"{self.traveller} went from {self.start} to {self.goal} to {self.purpose}."

    def tell(self, rng: Random) -> str:
        by = f"by {self.vehicle}"
        opening = rng.choice([
            f"On {self.weekday} {self.traveller} travelled from {self.start} to {self.goal} {by}.",
            f"{self.traveller} left {self.start} on {self.weekday} and went to {self.goal} {by}.",
            f"It was {self.weekday} when {self.traveller} set out from {self.start}. The journey to {self.goal} went {by}.",
        ])  # fmt: skip
        more = [
            rng.choice([f"{self.companion} came along.", f"{self.companion} was a good companion.",
                        f"{self.companion} went too."]),
            rng.choice([f"{self.traveller} wanted to {self.purpose}.", f"The plan was to {self.purpose}.",
                        f"The reason was to {self.purpose}."]),
        ]  # fmt: skip
        rng.shuffle(more)
        end = rng.choice(["They came back late.", "The road was long.", "It rained all the way.", "The sun was shining.",
                          "They slept at an inn.", "They sang on the way."])  # fmt: skip
        return " ".join([opening, *more, end])


Scene = Notice | Handover | Search | Purchase | Collection | Review | Weather | Prices | Trip
SCENES: tuple[type[Scene], ...] = (Notice, Handover, Search, Purchase, Collection, Review, Weather, Prices, Trip)
