"""Scenes whose facts are numbers to add, multiply or compare: purchases, collections, weather, prices; see `scenes`."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from tunesmith.pocket.world import GOODS, PLACES, TOWNS, WEEKDAYS, a, capital, coins, count_of, listing, people, plural

SKIES = "rain sun snow fog wind clouds storms hail".split()


@dataclass(frozen=True, slots=True)
class Purchase:
    """Several of one thing at a price each."""

    buyer: str
    thing: str
    count: int
    price: int
    town: str

    @classmethod
    def draw(cls, rng: Random) -> Purchase:
        return cls(people(rng, 1)[0], rng.choice(GOODS), rng.randint(2, 9), rng.randint(2, 9), rng.choice(TOWNS))

    @property
    def total(self) -> int:
        return self.count * self.price

    @property
    def working(self) -> str:
        """Worked reasoning, ending in the total."""
        return f"{self.count} * {self.price} = {self.total}"

    def tell(self, rng: Random) -> str:
        things = count_of(self.count, self.thing)
        return rng.choice([
            f"{self.buyer} bought {things} in {self.town}. Each {self.thing} cost {coins(self.price)}.",
            f"At the market in {self.town} {a(self.thing)} costs {coins(self.price)}. {self.buyer} bought {things}.",
            f"{self.buyer} needed {things}. In {self.town} one {self.thing} cost {coins(self.price)}.",
            f"In {self.town} {self.buyer} paid {coins(self.price)} for each {self.thing} and took {things}.",
        ])  # fmt: skip


@dataclass(frozen=True, slots=True)
class Collection:
    """A number of things that grows or shrinks."""

    owner: str
    thing: str
    start: int
    change: int
    place: str

    @classmethod
    def draw(cls, rng: Random, largest: int = 60) -> Collection:
        start = rng.randint(5, largest)
        change = rng.randint(2, largest * 2 // 3 - 1) if rng.random() < 0.5 else -rng.randint(1, start - 2)
        return cls(people(rng, 1)[0], rng.choice(GOODS), start, change, rng.choice(PLACES))

    @property
    def total(self) -> int:
        return self.start + self.change

    @property
    def working(self) -> str:
        return f"{self.start} {'+' if self.change > 0 else '-'} {abs(self.change)} = {self.total}"

    def tell(self, rng: Random) -> str:
        things, n = plural(self.thing), abs(self.change)
        had = rng.choice([
            f"{self.owner} had {self.start} {things} in the {self.place}.",
            f"There were {self.start} {things} in the {self.place} of {self.owner}.",
            f"{self.owner} kept {self.start} {things} in the {self.place}.",
            f"In the {self.place} {self.owner} counted {self.start} {things}.",
        ])  # fmt: skip
        gained = [f"Then {n} more arrived.", f"A friend brought {n} more.", f"{self.owner} bought {n} more.",
                  f"{self.owner} found {n} more."]  # fmt: skip
        lost = [f"Then {n} were sold.", f"{self.owner} gave {n} away.", f"A friend took {n} of them.",
                f"{self.owner} lost {n} of them."]  # fmt: skip
        return f"{had} {rng.choice(gained if self.change > 0 else lost)}"


@dataclass(frozen=True, slots=True)
class Weather:
    """A few days of weather in one town: (day, sky, degrees), all degrees different."""

    town: str
    days: tuple[tuple[str, str, int], ...]

    @classmethod
    def draw(cls, rng: Random) -> Weather:
        start, n = rng.randrange(7), rng.randint(3, 4)
        degrees = rng.sample(range(1, 35), n)
        return cls(rng.choice(TOWNS),
                   tuple((WEEKDAYS[(start + k) % 7], rng.choice(SKIES), degrees[k]) for k in range(n)))  # fmt: skip

    @property
    def warmest(self) -> str:
        return max(self.days, key=lambda d: d[2])[0]

    @property
    def coldest(self) -> str:
        return min(self.days, key=lambda d: d[2])[0]

    def tell(self, rng: Random) -> str:
        opening = rng.choice([f"The weather in {self.town}:", f"Here is the weather for {self.town}.",
                              f"Weather report for {self.town}.", f"In {self.town} the week went like this."])  # fmt: skip
        style = rng.randrange(3)
        forms = (
            lambda d, s, t: f"{d} brought {s} and {t} degrees.",
            lambda d, s, t: f"{d}: {s}, {t} degrees.",
            lambda d, s, t: f"On {d} there was {s} at {t} degrees.",
        )
        return " ".join([opening, *(forms[style](*day).replace("was clouds", "were clouds").replace("was storms", "were storms")
                                    for day in self.days)])  # fmt: skip


@dataclass(frozen=True, slots=True)
class Prices:
    """A stall's price list, all prices different."""

    seller: str
    town: str
    items: tuple[tuple[str, int], ...]

    @classmethod
    def draw(cls, rng: Random) -> Prices:
        n = rng.randint(3, 4)
        return cls(people(rng, 1)[0], rng.choice(TOWNS),
                   tuple(zip(rng.sample(GOODS, n), rng.sample(range(2, 40), n), strict=True)))  # fmt: skip

    @property
    def by_price(self) -> list[str]:
        return [thing for thing, _ in sorted(self.items, key=lambda x: x[1])]

    def tell(self, rng: Random) -> str:
        opening = rng.choice([f"{self.seller} has a stall in {self.town}.", f"{self.seller} sells goods in {self.town}.",
                              f"At {self.seller}'s shop in {self.town} these are the prices.",
                              f"{self.seller} opened a little shop in {self.town}."])  # fmt: skip
        style = rng.randrange(3)
        if style == 0:
            return opening + " " + " ".join(f"{capital(a(t))} costs {coins(p)}." for t, p in self.items)
        if style == 1:
            return opening + " " + capital(listing([f"{a(t)} is {coins(p)}" for t, p in self.items])) + "."
        return opening + "\n" + "\n".join(f"{t}: {coins(p)}" for t, p in self.items)
