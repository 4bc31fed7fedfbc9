"""Show a film once among hits, at its best moment, with the other moments beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from es_config.documents import moment_id
from es_config.index import ImageIndex
from search_app.core.query import SearchHit


def clock(time_ms: int) -> str:
    """Return a time of a film as people write it: `0:07`, `1:02:03`."""
    minutes, seconds = divmod(max(0, time_ms) // 1000, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def one_hit_each(hits: Sequence[SearchHit]) -> tuple[SearchHit, ...]:
    """Return the hits in their order, each film once, with its further hits in `film["moments"]`."""
    kept: dict[str, SearchHit] = {}
    for hit in hits:
        film = hit.film
        if film is None:
            kept[hit.image_id] = hit
        elif (first := kept.get(film["id"])) is None or first.film is None:
            kept[film["id"]] = hit
        else:
            also = {"image_id": hit.image_id, "time_ms": film["time_ms"], "similarity": hit.similarity}
            moments = [*first.film["moments"], also]
            kept[film["id"]] = replace(first, film={**first.film, "moments": moments})
    return tuple(kept.values())


@dataclass(frozen=True)
class FilmMoments:
    """The pictures of one film, for the page of any of them."""

    film_id: str
    time: str
    duration: str
    moments: tuple[tuple[str, str], ...]
    """(time, image id) of all of them, in the film's order"""


def film_moments(index: ImageIndex, source: Mapping[str, Any]) -> FilmMoments | None:
    """Return the pictures of the film that a document belongs to. Raises `EngineError`."""
    film = source.get("film")
    if not film:
        return None
    whole = (index.get(film["id"]) or {}).get("film") or {} if film.get("is_moment") else film
    times = {time_ms: moment_id(film["id"], time_ms) for time_ms in whole.get("moments") or ()}
    if "time_ms" in whole:
        times[whole["time_ms"]] = film["id"]
    return FilmMoments(
        film["id"],
        clock(film["time_ms"]),
        clock(film["duration_ms"]),
        tuple((clock(time_ms), times[time_ms]) for time_ms in sorted(times)),
    )
