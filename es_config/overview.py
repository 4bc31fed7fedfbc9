"""Tell in plain words how an index is: its pictures, its runs and their failures, and whether all is well."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from es_config.doctor import NOTES, look_only
from es_config.documents import one_line
from es_config.errors import EngineError, NotAllowedError
from es_config.index import ImageIndex
from es_config.runs import RunOutcome, RunState, read_outcomes, read_runs

MOST_REASONS = 10
HOLDS = {"captions": "caption", "texts": "words_by", "films": "film.id", "places": "exif.places_by"}
"""what is counted -> the field that a picture has then"""


@dataclass(frozen=True)
class Work:
    """A run that goes on now."""

    doing: Annotated[str, "such as Ingesting"]
    done: int
    total: Annotated[int | None, "null while it is not known"]
    noun: Annotated[str, "what is counted, such as files"]


@dataclass(frozen=True)
class EndedWork:
    """The last run of its kind on this machine."""

    doing: str
    done: int
    total: int | None
    noun: str
    failed: Annotated[int, "files or pictures that failed in it"]
    ended_at: Annotated[str, "ISO 8601"]
    whole: Annotated[bool, "whether it came to its end"]
    fault: Annotated[str | None, "why it stopped; for owners"] = None


@dataclass(frozen=True)
class FailedGroup:
    """Files that failed for one reason."""

    reason: str
    count: int
    example: Annotated[str | None, "the path of one of them; for owners"] = None


@dataclass(frozen=True)
class CheckResult:
    """One thing that was looked at."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True)
class Overview:
    """The state of an index at one moment."""

    well: Annotated[bool, "whether searches answer and nothing needs attention"]
    answers: Annotated[bool, "whether Elasticsearch answers and has the index"]
    profile: Annotated[str | None, "the models that the index was made with"]
    images: int
    captions: Annotated[int, "pictures with a caption"]
    texts: Annotated[int, "pictures whose text was read"]
    films: Annotated[int, "pictures of films"]
    places: Annotated[int, "pictures whose place has been looked up"]
    unreadable_texts: Annotated[int, "pictures whose text cannot be read"]
    running: tuple[Work, ...]
    ended: tuple[EndedWork, ...]
    failed: tuple[FailedGroup, ...]
    checks: Annotated[tuple[CheckResult, ...], "for owners"]
    trouble: Annotated[str | None, "why no search can be answered"] = None

    def to_json(self) -> dict[str, Any]:
        """Return the object as the REST API and the command send it."""
        groups = {"running", "ended", "failed", "checks"}
        return {
            name: [vars(each) for each in value] if name in groups else value
            for name, value in vars(self).items()
        }

    def for_visitors(self) -> Overview:
        """Return the same without paths, addresses and the words of errors."""
        return replace(
            self,
            ended=tuple(replace(each, fault=None) for each in self.ended),
            failed=tuple(
                replace(each, example=None, reason=_without_paths(each.reason)) for each in self.failed
            ),
            checks=(),
        )


def read_overview(
    index: ImageIndex,
    *,
    home: Path,
    url: str,
    store: str,
    profile_dims: Mapping[str, int],
) -> Overview:
    """Look at everything that a person wants to know. A part that cannot be asked is told as such."""
    runs = tuple(map(_work, read_runs(home, index.alias)))
    ended = tuple(map(_ended, read_outcomes(home, index.alias)))
    checks = look_only(index, home=home, url=url, store=store, profile_dims=profile_dims)
    shown = tuple(CheckResult(each.name, each.ok, each.detail) for each in checks)
    counts: dict[str, int] = {}
    profile, trouble = None, None
    try:
        if index.exists():
            profile = index.meta().profile
            counts = _counts(index)
    except NotAllowedError as error:
        trouble = str(error)
    except EngineError as error:
        trouble = error.for_visitors
    failed = read_failed(home / NOTES)
    stopped = any(not each.whole for each in ended) and not runs
    return Overview(
        well=trouble is None and all(each.ok for each in checks) and not stopped,
        answers=trouble is None and profile is not None,
        profile=profile,
        images=counts.get("images", 0),
        captions=counts.get("captions", 0),
        texts=counts.get("texts", 0),
        films=counts.get("films", 0),
        places=counts.get("places", 0),
        unreadable_texts=counts.get("unreadable_texts", 0),
        running=runs,
        ended=ended,
        failed=failed,
        checks=shown,
        trouble=trouble,
    )


def in_lines(now: Overview) -> dict[str, str]:
    """Return the lines that a terminal shows beside the address and the number of pictures."""
    lines: dict[str, str] = {}
    if now.answers:
        lines["captions"] = f"{now.captions} of {now.images}"
        lines["text read"] = f"{now.texts} of {now.images}"
    lines |= {"films": str(now.films)} if now.films else {}
    if now.failed:
        total = sum(each.count for each in now.failed)
        lines["failed files"] = f"{total}: " + "; ".join(f"{each.count} {each.reason}" for each in now.failed)
    for run in now.ended:
        whole = "" if run.whole else f" of {run.total}, then it stopped"
        failed = f", {run.failed} failed" if run.failed else ""
        lines[run.doing.lower()] = one_line(f"{run.done}{whole}{failed}, ended {run.ended_at}")
    wrong = [f"{each.name}: {each.detail}" for each in now.checks if not each.ok]
    lines["all is well"] = "yes" if now.well else one_line("no: " + "; ".join(wrong or ["see above"]))
    return lines


def _counts(index: ImageIndex) -> dict[str, int]:
    fields = {**HOLDS, "unreadable_texts": "words_fault"}
    aggs = {name: {"filter": {"exists": {"field": field}}} for name, field in fields.items()}
    body = {"size": 0, "track_total_hits": True, "query": {"match_all": {}}, "aggs": aggs}
    answer = index.aggregate(body)
    counts = {name: int(answer["aggregations"][name]["doc_count"]) for name in fields}
    return counts | {"images": int(answer["hits"]["total"]["value"])}


def read_failed(path: Path) -> tuple[FailedGroup, ...]:
    """Return why files could not be used, the most frequent reasons first, from the notes of ingest."""
    if not path.exists():
        return ()
    sql = (
        "SELECT reason, count(*), CAST(min(path) AS TEXT) FROM failed GROUP BY reason"
        f" ORDER BY 2 DESC LIMIT {MOST_REASONS}"
    )
    with (
        suppress(sqlite3.Error),
        closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as base,
    ):
        base.text_factory = lambda data: data.decode("utf-8", "replace")
        return tuple(FailedGroup(*row) for row in base.execute(sql))
    return ()


def _without_paths(reason: str) -> str:
    """Return a reason as far as it names no file of the server."""
    return "it cannot be read here" if "/" in reason or "\\" in reason else reason


def _work(run: RunState) -> Work:
    return Work(run.doing, run.done, run.total, run.noun)


def _ended(outcome: RunOutcome) -> EndedWork:
    return EndedWork(
        outcome.doing,
        outcome.done,
        outcome.total,
        outcome.noun,
        outcome.failed,
        outcome.ended_at,
        outcome.whole,
        outcome.fault,
    )
