"""Review duplicates, by page and by REST: groups side by side, and which picture of each would be kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from flask import Blueprint as PageBlueprint
from flask import Response, jsonify, render_template, request
from flask_smorest import Blueprint
from marshmallow import Schema, fields

from es_config.documents import one_line
from es_config.index import ImageIndex
from search_app.core.duplicates import Duplicates, NearDuplicate, NearDuplicates, PictureFiles
from search_app.core.query import API_PREFIX, thumbnail_url
from search_app.core.searcher import SearchService
from search_app.core.users import Role
from search_app.errors import QueryError
from search_app.web.http import JSON, ForbiddenError, RequestQueue, may_fail, requires_role
from search_app.web.originals import shows_paths

FindDuplicates = Callable[[ImageIndex, int], Duplicates]
"""groups the pictures of an index, given the bits in which hashes may differ"""
FARTHEST, USUAL = 3, 2
"""bits"""
GROUPS = 20
"""on a page"""
BELIEVED_S = 60.0
"""for how long groups are believed: a large index takes seconds, and the page is turned and shown again"""
DISTANCE = {
    "in": "query",
    "name": "distance",
    "schema": {"type": "integer", "minimum": 0, "maximum": FARTHEST, "default": USUAL},
    "description": "bits of 64 in which the hashes of near-duplicates may differ",
}


class CopySchema(Schema):
    """One picture of a group."""

    image_id = fields.String(required=True)
    path = fields.String(required=True, metadata={"description": "relative"})
    files = fields.List(
        fields.String(), metadata={"description": "absolute paths, for those who may see them"}
    )
    distance = fields.Integer(required=True, metadata={"description": "bits from the first of the group"})
    width = fields.Integer(required=True)
    height = fields.Integer(required=True)
    size_bytes = fields.Integer(required=True)
    taken = fields.String()
    caption = fields.String()
    keywords = fields.Integer(required=True, metadata={"description": "how many it has"})
    favourite = fields.Boolean(required=True)
    thumbnail_url = fields.String(required=True)


class GroupSchema(Schema):
    """Pictures that look the same."""

    keep = fields.String(required=True, metadata={"description": "id of the picture that would be kept"})
    why = fields.String(required=True)
    pictures = fields.List(fields.Nested(CopySchema), required=True)


class GroupsSchema(Schema):
    """Groups of near-duplicates."""

    pictures = fields.Integer(required=True, metadata={"description": "pictures that were compared"})
    distance = fields.Integer(required=True)
    groups = fields.List(fields.Nested(GroupSchema), required=True)


class DuplicateFinder:
    """Groups the pictures of the index that answers now, one request at a time, and remembers the groups."""

    def __init__(self, service: SearchService, find: FindDuplicates | None) -> None:
        self._service, self._find = service, find
        self._found: dict[tuple[str, int], tuple[float, Duplicates]] = {}
        self._queue = RequestQueue(
            busy="Others look for duplicates at the moment; try again in a few seconds.",
            retry_after_s=5,
            at_once=1,
            waiting=3,
        )

    def groups(self, distance: int) -> tuple[int, list[NearDuplicates]]:
        """Return how many pictures were compared, and the groups without pictures that have left since.

        Raises `ForbiddenError` where nobody can look, `BusyError` and `EngineError`.
        """
        if self._find is None:
            raise ForbiddenError("Duplicates cannot be looked for on this server.")
        index = self._service.searcher.index
        key = (index.name(), distance)
        with self._queue.turn():
            at, found = self._found.get(key, (0.0, None))
            if found is None or time.monotonic() - at > BELIEVED_S:
                found = self._find(index, distance)
                self._found = {key: (time.monotonic(), found)}
        ids = [each.image_id for group in found.near for each in group.pictures]
        there = index.known(ids)
        left = [_without(group, there) for group in found.near]
        return found.pictures, [group for group in left if group is not None]


def _without(group: NearDuplicates, there: Mapping[str, object]) -> NearDuplicates | None:
    """Return a group without pictures that have left the index, or None if fewer than two are there.

    Where the one to keep has left, the next best is not known before the next look.
    """
    pictures = tuple(each for each in group.pictures if each.image_id in there)
    if len(pictures) < 2 or group.keep_id not in there:
        return None
    return replace(group, pictures=pictures)


def duplicates_blueprint(*, finder: DuplicateFinder) -> Blueprint:
    """Return the API's route."""
    api = Blueprint("duplicates", __name__, url_prefix=API_PREFIX, description="Duplicates")

    @api.get("/duplicates")
    @api.doc(parameters=[DISTANCE])
    @api.response(200, GroupsSchema, content_type=JSON)
    @may_fail(api, 403)
    @requires_role(Role.OWNER)
    def duplicates() -> Response:
        """List groups of pictures that look the same, and which of each would be kept."""
        distance = _distance()
        compared, groups = finder.groups(distance)
        shown = [_group(each) for each in groups]
        return jsonify({"pictures": compared, "distance": distance, "groups": shown})

    return api


def duplicates_page_blueprint(*, finder: DuplicateFinder) -> PageBlueprint:
    """Return the page's route."""
    page = PageBlueprint("duplicates_page", __name__)

    @page.get("/duplicates")
    @requires_role(Role.OWNER)
    def duplicates() -> str:
        """Show groups side by side."""
        distance, number = _distance(), _number("page", 1, most=10_000)
        compared, groups = finder.groups(distance)
        first = (number - 1) * GROUPS
        return render_template(
            "duplicates.html",
            compared=compared,
            total=len(groups),
            groups=[_group(each) for each in groups[first : first + GROUPS]],
            distance=distance,
            number=number,
            following=number + 1 if first + GROUPS < len(groups) else None,
        )

    return page


def _group(group: NearDuplicates) -> dict[str, Any]:
    best = next(each for each in group.pictures if each.image_id == group.keep_id)
    others = [each for each in group.pictures if each is not best]
    return {
        "keep": group.keep_id,
        "why": group.why,
        "pictures": [_copy(each) for each in (best, *others)],
    }


def _copy(picture: NearDuplicate) -> dict[str, Any]:
    known = {
        "image_id": picture.image_id,
        "path": picture.relative_path,
        "files": list(_files(picture.files)) if shows_paths() else None,
        "distance": picture.distance,
        "width": picture.width,
        "height": picture.height,
        "size_bytes": picture.size_bytes,
        "taken": picture.taken,
        "caption": picture.caption,
        "keywords": picture.keywords,
        "favourite": picture.favourite,
        "thumbnail_url": request.script_root + thumbnail_url(picture.image_id),
    }
    return {name: value for name, value in known.items() if value is not None}


def _files(files: PictureFiles) -> Sequence[str]:
    return [one_line(path) for path in files.paths]


def _distance() -> int:
    return _number("distance", USUAL, most=FARTHEST, least=0)


def _number(name: str, plain: int, *, most: int, least: int = 1) -> int:
    """Return a whole number of the address. Raises `QueryError`."""
    text = request.args.get(name, str(plain))
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and least <= int(text) <= most):
        raise QueryError(
            f"{name} must be a whole number from {least} to {most}, not '{one_line(text[:20])}'."
        )
    return int(text)
