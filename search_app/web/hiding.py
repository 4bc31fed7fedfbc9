"""Put pictures away and take them back, by page and by REST."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Blueprint as PageBlueprint
from flask import Response, current_app, g, jsonify, render_template, request
from flask_smorest import Blueprint
from marshmallow import Schema, fields

from es_config.documents import one_line, shown_path
from es_config.errors import EngineError
from es_config.hidden import HiddenPicture
from search_app.core.hiding import PictureRemover, PutAway
from search_app.core.query import API_PREFIX, thumbnail_url
from search_app.core.searcher import SearchService
from search_app.core.users import Role
from search_app.errors import NotFoundError, QueryError
from search_app.web.http import (
    JSON,
    ForbiddenError,
    PictureSchema,
    may,
    may_fail,
    picture_document,
    requires_role,
    requires_write_access,
)
from search_app.web.selection import (
    ChangedSchema,
    ChosenSchema,
    back_to_page,
    body_of,
    changed_document,
    check_ids,
    chosen_ids,
    note_pictures,
    read_body,
)

PAGE_SIZE, LARGEST_PAGE, LAST_PLACE = 48, 1000, 10_000
NOW = {
    "in": "query",
    "name": "now",
    "schema": {"type": "boolean"},
    "description": "delete an upload for good at once, also one that was removed before",
}
PLACES = [
    {"in": "query", "name": "k", "schema": {"type": "integer", "minimum": 1, "maximum": LARGEST_PAGE}},
    {"in": "query", "name": "page", "schema": {"type": "integer", "minimum": 1}},
]
STATES = ("hidden", "removed", "deleted")


class PutAwaySchema(Schema):
    """A picture that was put away."""

    image_id = fields.String(required=True)
    state = fields.String(
        required=True,
        metadata={
            "description": "hidden until it is restored, removed until a time, or deleted for good",
            "enum": list(STATES),
        },
    )
    until = fields.String(metadata={"description": "when it is deleted for good, ISO 8601, UTC"})


class HidingSchema(ChangedSchema):
    """The outcome of putting chosen pictures away."""

    hidden = fields.List(fields.String(), required=True, metadata={"description": "ids of ingested pictures"})
    removed = fields.List(fields.String(), required=True, metadata={"description": "ids of uploads"})
    until = fields.String(metadata={"description": "when uploads are deleted for good, ISO 8601, UTC"})


class AwaySchema(Schema):
    """One picture of the list of those that were put away."""

    image_id = fields.String(required=True)
    state = fields.String(required=True, metadata={"enum": ["hidden", "removed", "returning"]})
    at = fields.String(required=True, metadata={"description": "when it was put away, ISO 8601, UTC"})
    by = fields.String(metadata={"description": "who did it, where people sign in"})
    until = fields.String(metadata={"description": "when it is deleted for good, ISO 8601, UTC"})
    path = fields.String(required=True)
    caption = fields.String()
    thumbnail_url = fields.String(required=True)


class HiddenListSchema(Schema):
    """Pictures that were put away."""

    total = fields.Integer(required=True)
    pictures = fields.List(fields.Nested(AwaySchema), required=True)


OpenRemover = Callable[[], PictureRemover | None]
"""returns the remover of the index that answers now, or None where nothing can be put away"""


def hiding_blueprint(*, service: SearchService, remover: OpenRemover) -> Blueprint:
    """Return the API's routes that put pictures away and take them back."""
    api = Blueprint("hiding", __name__, url_prefix=API_PREFIX, description="Pictures that are put away")

    @api.delete("/images/<image_id>")
    @api.doc(parameters=[NOW])
    @api.response(200, PutAwaySchema, content_type=JSON)
    @may_fail(api, 404)
    @requires_role(Role.OWNER)
    @requires_write_access
    def put_away(image_id: str) -> Response:
        """Put a picture away: hide it if a folder has it, remove it if it was added here.

        A removed one can be restored for ten minutes, then it is deleted for good.
        """
        check_ids([image_id])
        used = opened(remover)
        found = used.put_away([image_id], by=_person())
        _refuse(found.failed)
        if _is_now() and used.delete([image_id]).done:
            return jsonify({"image_id": image_id, "state": "deleted"})
        if image_id in found.absent:
            raise _unknown(image_id)
        if image_id in found.removed:
            return jsonify({"image_id": image_id, "state": "removed", "until": found.until})
        return jsonify({"image_id": image_id, "state": "hidden"})

    @api.post("/images/<image_id>/restore")
    @api.response(200, PictureSchema, content_type=JSON)
    @may_fail(api, 404, 408, 413)
    @requires_role(Role.OWNER)
    @requires_write_access
    def restore(image_id: str) -> Response:
        """Let searches find a picture again that was put away."""
        check_ids([image_id])
        moves = opened(remover).restore([image_id])
        _refuse(moves.failed)
        if moves.absent:
            raise NotFoundError(f"No picture '{one_line(image_id[:70])}' was put away, or it is deleted.")
        return picture_document(image_id, service.searcher.picture(image_id))

    @api.post("/images/hide")
    @api.doc(requestBody=body_of(ChosenSchema))
    @api.response(200, HidingSchema, content_type=JSON)
    @may_fail(api, 408, 413, 415)
    @requires_role(Role.OWNER)
    @requires_write_access
    def put_chosen_away() -> Response:
        """Put up to 1 000 pictures away."""
        ids = read_body(ChosenSchema)["ids"]
        note_pictures(ids)
        return _outcome(opened(remover).put_away(ids, by=_person()))

    @api.post("/images/restore")
    @api.doc(requestBody=body_of(ChosenSchema))
    @api.response(200, ChangedSchema, content_type=JSON)
    @may_fail(api, 408, 413, 415)
    @requires_role(Role.OWNER)
    @requires_write_access
    def restore_chosen() -> Response:
        """Let searches find up to 1 000 pictures again that were put away."""
        ids = read_body(ChosenSchema)["ids"]
        note_pictures(ids)
        moves = opened(remover).restore(ids)
        return changed_document(moves.done, sorted(moves.absent), moves.failed)

    @api.get("/hidden")
    @api.doc(parameters=PLACES)
    @api.response(200, HiddenListSchema, content_type=JSON)
    @may_fail(api)
    @requires_role(Role.OWNER)
    def hidden() -> Response:
        """List the pictures that were put away, the last one first."""
        size, from_ = _place(PAGE_SIZE)
        pictures, total = opened(remover).page(size=size, from_=from_)
        return jsonify({"total": total, "pictures": [_listed(each) for each in pictures]})

    return api


def hiding_page_blueprint(*, remover: OpenRemover) -> PageBlueprint:
    """Return the page of hidden pictures, and the forms for browsers without JavaScript."""
    page = PageBlueprint("hiding_page", __name__)

    @page.get("/hidden")
    @requires_role(Role.OWNER)
    def hidden() -> str:
        """Show the pictures that were put away, the last one first."""
        size, from_ = _place(PAGE_SIZE)
        pictures, total = opened(remover).page(size=size, from_=from_)
        number = from_ // size + 1
        has_more = from_ + size < min(total, LAST_PLACE - size)
        return render_template(
            "hidden.html",
            away=[_listed(each) for each in pictures],
            total=total,
            number=number,
            following=number + 1 if has_more else None,
        )

    @page.post("/selection/hide")
    @requires_role(Role.OWNER)
    @requires_write_access
    def put_chosen_away() -> Any:
        """Put the pictures of a form away and show its page again."""
        ids = chosen_ids()
        note_pictures(ids)
        _refuse(opened(remover).put_away(ids, by=_person()).failed)
        return back_to_page()

    @page.post("/selection/restore")
    @requires_role(Role.OWNER)
    @requires_write_access
    def restore_chosen() -> Any:
        """Take the pictures of a form back and show its page again."""
        ids = chosen_ids()
        note_pictures(ids)
        _refuse(opened(remover).restore(ids).failed)
        return back_to_page()

    @page.post("/selection/delete")
    @requires_role(Role.OWNER)
    @requires_write_access
    def delete_chosen() -> Any:
        """Delete the removed pictures of a form for good and show its page again."""
        ids = chosen_ids()
        note_pictures(ids)
        _refuse(opened(remover).delete(ids).failed)
        return back_to_page()

    @page.app_context_processor
    def hiding() -> dict[str, Any]:
        return {"can_remove": can_put_away(remover)}

    return page


def can_put_away(remover: OpenRemover) -> bool:
    """Say whether who asks may put pictures away on this server, and take them back."""
    return remover() is not None and not current_app.config["READ_ONLY"] and may(Role.OWNER)


def opened(remover: OpenRemover) -> PictureRemover:
    """Return the remover. Raises `ForbiddenError` on a server that puts nothing away."""
    found = remover()
    if found is None:
        raise ForbiddenError("Pictures cannot be put away on this server.")
    return found


def _is_now() -> bool:
    """Return whether this request asks to delete at once. Raises `QueryError`."""
    text = request.args.get("now", "false").lower()
    if text not in ("true", "false"):
        raise QueryError(f"now must be true or false, not '{one_line(text[:20])}'.")
    return text == "true"


def _person() -> str | None:
    user = g.get("user")
    return user.name if user else None


def _refuse(failed: dict[str, str]) -> None:
    """Raise `EngineError` for the first picture that was refused."""
    for image_id, reason in failed.items():
        raise EngineError(f"The picture {image_id} stays as it is: {reason}.")


def _unknown(image_id: str) -> NotFoundError:
    return NotFoundError(f"The index holds no picture with the id '{one_line(image_id[:70])}'.")


def _outcome(found: PutAway) -> Response:
    return jsonify(
        {
            "done": [*found.hidden, *found.removed],
            "hidden": list(found.hidden),
            "removed": list(found.removed),
            **({"until": found.until} if found.until else {}),
            "absent": sorted(found.absent),
            "failed": found.failed,
        }
    )


def _listed(picture: HiddenPicture) -> dict[str, Any]:
    known = {
        "image_id": picture.image_id,
        "state": str(picture.state),
        "at": picture.at,
        "by": picture.by,
        "until": picture.until,
        "path": shown_path(picture.source, picture.image_id),
        "caption": picture.source.get("caption"),
        "thumbnail_url": request.script_root + thumbnail_url(picture.image_id),
    }
    return {name: value for name, value in known.items() if value is not None}


def _place(default: int) -> tuple[int, int]:
    """Return the size of a page and the place of its first picture. Raises `QueryError`."""
    size, number = (_number(name, plain) for name, plain in (("k", default), ("page", 1)))
    if not 1 <= size <= LARGEST_PAGE:
        raise QueryError(f"k must be between 1 and {LARGEST_PAGE}, and it is {size}.")
    if number < 1 or size * number > LAST_PLACE:
        raise QueryError(f"With k = {size}, page must be between 1 and {LAST_PLACE // size}.")
    return size, size * (number - 1)


def _number(name: str, plain: int) -> int:
    text = request.args.get(name, str(plain))
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise QueryError(f"{name} must be a whole number, not '{one_line(text[:20])}'.")
    return int(text)
