"""Do something to one or several pictures: keywords, captions, favourites, and downloads of them together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from flask import Blueprint as PageBlueprint
from flask import Response, g, jsonify, redirect, request
from flask_smorest import Blueprint
from marshmallow import Schema, ValidationError, fields, validate

from es_config.bulk import Meanwhile
from es_config.documents import one_line, paths_of, shown_path, without_controls
from es_config.edits import PictureEdit, edit_pictures
from es_config.errors import EngineError
from es_config.index import CONFLICT_RETRIES, CaptionUpdate
from search_app.core.parts import has_lone_surrogate
from search_app.core.pictures import Originals
from search_app.core.query import API_PREFIX, thumbnail_url
from search_app.core.searcher import MAX_ID, Searcher, SearchService
from search_app.core.selection import MOST, Archive, as_csv, read_chosen
from search_app.errors import NotFoundError, QueryError
from search_app.web.captions import checked_caption
from search_app.web.http import (
    BINARY,
    JSON,
    PictureSchema,
    may_fail,
    picture_document,
    read_json,
    requires_write_access,
)
from search_app.web.originals import shows_paths
from storage.errors import StorageError
from storage.store import Storage

MAX_KEYWORDS, MAX_KEYWORD = 100, 100
FORMATS = ("zip", "json", "csv", "paths")
FILE_NAMES = {"zip": "pictures.zip", "json": "pictures.json", "csv": "pictures.csv", "paths": "paths.txt"}
MEDIA_TYPES = {"json": JSON, "csv": "text/csv; charset=utf-8", "paths": "text/plain; charset=utf-8"}
IDS = {"description": f"ids of pictures, at most {MOST}", "minItems": 1, "maxItems": MOST}
WORDS = {"maxItems": MAX_KEYWORDS}


class ChosenSchema(Schema):
    """Chosen pictures."""

    ids = fields.List(fields.String(), required=True, metadata=IDS)


class KeywordsSchema(Schema):
    """The keywords of a picture."""

    keywords = fields.List(fields.String(), required=True, metadata=WORDS)


class EditSchema(ChosenSchema):
    """Changes of chosen pictures."""

    add_keywords = fields.List(fields.String(), metadata=WORDS)
    remove_keywords = fields.List(fields.String(), metadata=WORDS)
    favourite = fields.Boolean(truthy={True}, falsy={False})
    caption = fields.String(metadata={"description": "a person's caption, the same for all of them"})


class ExportSchema(ChosenSchema):
    """Chosen pictures, and the form to send them in."""

    format = fields.String(required=True, validate=validate.OneOf(FORMATS), metadata={"enum": list(FORMATS)})


class ChangedSchema(Schema):
    """The outcome of a change of chosen pictures."""

    done = fields.List(fields.String(), required=True, metadata={"description": "ids"})
    absent = fields.List(fields.String(), required=True, metadata={"description": "ids without a picture"})
    failed = fields.Dict(
        keys=fields.String(),
        values=fields.String(),
        required=True,
        metadata={"description": "id of a picture that was not changed -> the reason"},
    )


def body_of(schema: type[Schema]) -> dict[str, Any]:
    """Return the part of the OpenAPI document for a JSON body."""
    return {"required": True, "content": {JSON: {"schema": schema}}}


def read_body(schema: type[Schema]) -> dict[str, Any]:
    """Return the JSON body of this request, as its schema says. Raises `QueryError`."""
    body = read_json(request)
    if not isinstance(body, dict):
        raise QueryError("The JSON body must be an object.")
    try:
        values: dict[str, Any] = schema().load(body)
    except ValidationError as error:
        name, reasons = min(error.normalized_messages().items())
        reason = reasons[0] if isinstance(reasons, list) else "it holds something else than texts."
        raise QueryError(f"{one_line(str(name)[:60])}: {reason}") from error
    if "ids" in values:
        check_ids(values["ids"])
    return values


def check_ids(ids: Sequence[str]) -> None:
    """Raise `QueryError` unless these are 1 to 1 000 ids that the index can be asked for."""
    if not ids:
        raise QueryError("No picture is chosen.")
    if len(ids) > MOST:
        raise QueryError(f"{len(ids)} pictures are chosen; at most {MOST} are allowed at once.")
    if any(not each or has_lone_surrogate(each) or len(each.encode()) > MAX_ID for each in ids):
        raise QueryError("ids holds a text that is no id of a picture.")


def changed_document(done: Sequence[str], absent: Sequence[str], failed: Mapping[str, str]) -> Response:
    """Return the outcome of a change as JSON."""
    return jsonify({"done": list(done), "absent": sorted(absent), "failed": dict(failed)})


def read_keywords(given: Sequence[str]) -> tuple[str, ...]:
    """Return keywords on one line each, without empty ones. Raises `QueryError`."""
    if any(has_lone_surrogate(each) for each in given):
        raise QueryError("A keyword is not valid Unicode text.")
    words = tuple(word for each in given if (word := without_controls(each)))
    if len(words) > MAX_KEYWORDS:
        raise QueryError(f"There are {len(words)} keywords; a picture has at most {MAX_KEYWORDS}.")
    if too_long := next((word for word in words if len(word) > MAX_KEYWORD), None):
        raise QueryError(
            f"The keyword '{too_long[:20]}…' has {len(too_long)} characters; at most {MAX_KEYWORD} are"
            " allowed."
        )
    return words


def edit(
    searcher: Searcher, ids: Sequence[str], changes: PictureEdit, *, caption: str | None = None
) -> Response:
    """Change pictures, and answer with the outcome of each. Searches find the changes at once."""
    index = searcher.index
    index.complete_mapping()  # an index of an earlier version has no field for favourites
    edited = edit_pictures(index, ids, changes)
    failed = dict(edited.failed)
    if caption is not None and edited.done:
        failed |= _write_captions(searcher, edited.done, caption)
    index.refresh()
    done = [each for each in edited.done if each not in failed]
    return changed_document(done, sorted(edited.absent), failed)


def _write_captions(searcher: Searcher, ids: Sequence[str], caption: str) -> dict[str, str]:
    text = checked_caption(caption)
    searcher.check_profile()
    vector, _ = searcher.caption_texts.embed(text)
    waiting, failed = list(ids), dict[str, str]()
    for _ in range(CONFLICT_RETRIES):
        updates = [CaptionUpdate(each, text, vector, source="human") for each in waiting]
        refused = searcher.index.captions().write(updates).failed
        waiting = [each for each, reason in refused.items() if reason is Meanwhile.CHANGED]
        failed |= {each: reason for each, reason in refused.items() if reason is not Meanwhile.CHANGED}
        if not waiting:
            break
    return failed | dict.fromkeys(waiting, str(Meanwhile.CHANGED))


def edit_one(searcher: Searcher, image_id: str, changes: PictureEdit) -> Response:
    """Change one picture and answer with it. Raises `NotFoundError`, and `EngineError` for a refusal."""
    searcher.picture(image_id)
    searcher.index.complete_mapping()
    edited = edit_pictures(searcher.index, [image_id], changes)
    if reason := edited.failed.get(image_id):
        raise EngineError(f"The picture {image_id} was not changed: {reason}; try again.")
    searcher.index.refresh()
    return picture_document(image_id, searcher.picture(image_id))


def note_pictures(ids: Sequence[str]) -> None:
    """Let the audit log name the pictures that a request is about, which its path does not."""
    g.pictures = list(ids)


def selection_blueprint(*, service: SearchService, storage: Storage, originals: Originals) -> Blueprint:
    """Return the API's routes for one or several pictures."""
    api = Blueprint("selection", __name__, url_prefix=API_PREFIX, description="Chosen pictures")

    @api.put("/images/<image_id>/keywords")
    @api.doc(requestBody=body_of(KeywordsSchema))
    @api.response(200, PictureSchema, content_type=JSON)
    @may_fail(api, 404, 408, 413, 415)
    @requires_write_access
    def write_keywords(image_id: str) -> Response:
        """Write a person's keywords of a picture in the place of all. No later ingest changes them."""
        words = read_keywords(read_body(KeywordsSchema)["keywords"])
        return edit_one(service.searcher, image_id, PictureEdit(keywords=words))

    @api.put("/images/<image_id>/favourite")
    @api.response(200, PictureSchema, content_type=JSON)
    @may_fail(api, 404, 408, 413)
    @requires_write_access
    def mark_favourite(image_id: str) -> Response:
        """Mark a picture as a favourite."""
        return edit_one(service.searcher, image_id, PictureEdit(favourite=True))

    @api.delete("/images/<image_id>/favourite")
    @api.response(200, PictureSchema, content_type=JSON)
    @may_fail(api, 404)
    @requires_write_access
    def unmark_favourite(image_id: str) -> Response:
        """Take the mark of a favourite from a picture."""
        return edit_one(service.searcher, image_id, PictureEdit(favourite=False))

    @api.post("/images/edit")
    @api.doc(requestBody=body_of(EditSchema))
    @api.response(200, ChangedSchema, content_type=JSON)
    @may_fail(api, 408, 413, 415)
    @requires_write_access
    def edit_chosen() -> Response:
        """Add and take keywords, mark favourites, or write one caption, for up to 1 000 pictures."""
        body = read_body(EditSchema)
        ids, caption = body.pop("ids"), body.pop("caption", None)
        if not body and caption is None:
            raise QueryError(
                "Nothing is to be changed: give add_keywords, remove_keywords, favourite or caption."
            )
        note_pictures(ids)
        changes = PictureEdit(
            add_keywords=read_keywords(body.get("add_keywords", ())),
            remove_keywords=read_keywords(body.get("remove_keywords", ())),
            favourite=body.get("favourite"),
        )
        return edit(
            service.searcher, ids, changes, caption=None if caption is None else checked_caption(caption)
        )

    @api.post("/images/export")
    @api.doc(requestBody=body_of(ExportSchema))
    @api.response(200, BINARY, content_type="application/octet-stream")
    @may_fail(api, 404, 408, 413, 415)
    def export() -> Response:
        """Send up to 1 000 pictures as a ZIP of their files, as JSON, as CSV, or their paths as lines.

        The ZIP holds originals where this machine has them, else thumbnails. Paths are absolute for those who
        may see them.
        """
        body = read_body(ExportSchema)
        return exported(service, body["ids"], body["format"], originals=originals, storage=storage)

    return api


def exported(
    service: SearchService, ids: Sequence[str], form: str, *, originals: Originals, storage: Storage
) -> Response:
    """Return chosen pictures as a file. Raises `NotFoundError` when none of them exists."""
    sources = read_chosen(service.searcher.index, ids)
    if not sources:
        raise NotFoundError("The index holds none of these pictures.")

    def files_of(image_id: str, source: Mapping[str, Any]) -> Sequence[str]:
        try:
            return originals.paths(image_id, source) if shows_paths() else []
        except (EngineError, StorageError):
            return []

    if form == "zip":
        archive = Archive(sources, originals=originals, storage=storage)
        response = Response(archive, mimetype="application/zip", direct_passthrough=True)
    elif form == "csv":
        response = Response(as_csv(sources, files_of=files_of), content_type=MEDIA_TYPES[form])
    elif form == "paths":
        lines = [files_of(each, source) or paths_of(source) for each, source in sources.items()]
        named = [path for paths in lines for path in paths[:1]]
        response = Response("".join(f"{path}\n" for path in named), content_type=MEDIA_TYPES[form])
    else:
        response = jsonify(
            [
                {
                    "image_id": each,
                    "path": shown_path(source, each),
                    **source,
                    "files": list(files_of(each, source)),
                    "thumbnail_url": request.script_root + thumbnail_url(each),
                }
                for each, source in sources.items()
            ]
        )
    response.headers.set("Content-Disposition", "attachment", filename=FILE_NAMES[form])
    response.headers["Cache-Control"] = "private, no-store"
    return response


def selection_page_blueprint(
    *, service: SearchService, storage: Storage, originals: Originals
) -> PageBlueprint:
    """Return the routes of the bar for chosen pictures, which works without JavaScript."""
    page = PageBlueprint("selection_page", __name__)

    @page.post("/selection/export")
    def export_chosen() -> Response:
        """Send the chosen pictures as a file."""
        form = request.form.get("format", "")
        if form not in FORMATS:
            raise QueryError("Choose how to download the pictures.")
        return exported(service, chosen_ids(), form, originals=originals, storage=storage)

    @page.post("/selection/edit")
    @requires_write_access
    def edit_form() -> Any:
        """Add a keyword to the chosen pictures, or mark them, and show the page again."""
        ids = chosen_ids()
        note_pictures(ids)
        act, words = request.form.get("act"), read_keywords([request.form.get("keyword", "")])
        favourite = {"favourite": True, "unfavourite": False}.get(act or "")
        if favourite is None and not words:
            raise QueryError("The keyword is empty: write a word.")
        edit(
            service.searcher,
            ids,
            PictureEdit(add_keywords=words if favourite is None else (), favourite=favourite),
        )
        return back_to_page()

    @page.post("/images/<image_id>/favourite")
    @requires_write_access
    def favourite_form(image_id: str) -> Any:
        """Mark one picture, or take its mark, and show the page again."""
        is_wanted = request.form.get("act") == "favourite"
        edit_one(service.searcher, image_id, PictureEdit(favourite=is_wanted))
        return back_to_page()

    @page.post("/images/<image_id>/keywords")
    @requires_write_access
    def keywords_form(image_id: str) -> Any:
        """Write the form's keywords, between commas, in the place of all, and show the page again."""
        words = read_keywords(request.form.get("keywords", "").split(","))
        edit_one(service.searcher, image_id, PictureEdit(keywords=words))
        return back_to_page()

    @page.app_context_processor
    def selecting() -> dict[str, Any]:
        return {"most_selected": MOST}

    return page


def chosen_ids() -> list[str]:
    """Return the ids of the form of this request. Raises `QueryError`."""
    ids = request.form.getlist("id")
    check_ids(ids)
    return ids


def back_to_page() -> Any:
    """Return to the page that a form was on, named by its field `page`, else to the start page."""
    path = request.form.get("page", "")
    parts = urlsplit(path)
    is_local = path.startswith("/") and not path.startswith("//") and not parts.netloc and "\\" not in path
    where = path if is_local and path.isprintable() else "/"
    return redirect(request.script_root + where, code=HTTPStatus.SEE_OTHER)
