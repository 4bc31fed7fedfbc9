"""The REST API under /api/v1."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator

from flask import Response, jsonify, request
from flask_smorest import Blueprint

from es_config.documents import one_line
from search_app.core.parts import Part
from search_app.core.query import API_PREFIX, Query, SearchArguments, SearchResponse, load_query
from search_app.core.searcher import SearchService
from search_app.core.thumbnails import EDGES, Thumbnails
from search_app.errors import NotFoundError, QueryError
from search_app.settings import AppSettings
from search_app.web.http import (
    BINARY,
    JSON,
    PictureSchema,
    SearchBody,
    SearchForm,
    may_fail,
    picture_document,
    read_json,
    read_upload,
    schema_of,
    search_arguments,
    unchanging,
)
from search_app.web.voice import read_sound
from storage.errors import NoSuchKeyError
from storage.store import Storage

EDGE = {
    "in": "query",
    "name": "edge",
    "schema": {"type": "integer", "enum": [*EDGES]},
    "description": "pixels of the longer edge; without it, the stored thumbnail of at most 512",
}
POST_BODY = {
    "content": {
        JSON: {"schema": SearchBody},
        "multipart/form-data": {"schema": SearchForm},
    }
}
FILES = {"image": True, "minus_image": False, "audio": True, "minus_audio": False}
"""field of a form with files, and whether they are wanted; `<field>_weight` has their weights"""
Hear = Callable[[bytes], str]
"""returns the words of a recording"""


def _shown(name: str, *, max_upload: int, hear: Hear) -> Iterator[Part]:
    """Yield the parts that the files in one field of a form are, with their weights in the same order."""
    files = request.files.getlist(name)
    given = request.form.getlist(f"{name}_weight")
    if len(given) > len(files):
        raise QueryError(f"There are {len(given)} times {name}_weight and {len(files)} times {name}.")
    for place, file in enumerate(files):
        try:
            weight = float(given[place]) if place < len(given) else 1.0
        except ValueError as error:
            raise QueryError(f"{name}_weight: Not a valid number.") from error
        if "audio" in name:
            yield Part(text=hear(read_sound(file)), weight=weight, wanted=FILES[name])
        else:
            yield Part(image=read_upload(file, max_upload=max_upload), weight=weight, wanted=FILES[name])


def rest_blueprint(
    *,
    service: SearchService,
    storage: Storage,
    settings: AppSettings,
    hear: Hear,
    hidden_ids: Container[str] = frozenset(),
    may_restore: Callable[[], bool] = lambda: False,
) -> Blueprint:
    """Return the API's routes around a search service and a store, with a function that hears.

    Thumbnails of `hidden_ids` are sent to those alone who may restore these pictures.
    """
    api = Blueprint("api", __name__, url_prefix=API_PREFIX, description="Search and pictures")
    answer_schema = schema_of(SearchResponse)
    thumbnails = Thumbnails(storage)

    def answer(query: Query) -> Response:
        found = service.search(query).to_json()
        if root := request.script_root:  # below a path, addresses begin with it
            found["hits"] = [{**hit, "thumbnail_url": root + hit["thumbnail_url"]} for hit in found["hits"]]
        return jsonify(found)

    @api.get("/search")
    @api.doc(parameters=[{"in": "query", "schema": SearchArguments}])
    @api.response(200, answer_schema, content_type=JSON)
    @may_fail(api, 404)
    def search() -> Response:
        """Search by words, by a picture of the index or by a vector, or list pictures by filters."""
        return answer(load_query(search_arguments(request.args)))

    @api.post("/search")
    @api.doc(requestBody=POST_BODY)
    @api.response(200, answer_schema, content_type=JSON)
    @may_fail(api, 404, 408, 413)
    def search_by_body() -> Response:
        """Search by pictures and recordings, in a form, or by the same parameters as a JSON object."""
        if request.is_json:
            body = read_json(request)
            if not isinstance(body, dict):
                raise QueryError("The JSON body must be an object with q, like, vector or filters.")
            return answer(load_query({**search_arguments(request.args), **body}))
        asked = {**search_arguments(request.args), **search_arguments(request.form)}
        most = settings.max_upload
        for name in FILES:
            asked.pop(f"{name}_weight", None)
        shown = [part for name in FILES for part in _shown(name, max_upload=most, hear=hear)]
        return answer(load_query(asked, more=shown))

    @api.get("/images/<image_id>")
    @api.response(200, PictureSchema, content_type=JSON)
    @may_fail(api, 404)
    def picture(image_id: str) -> Response:
        """Show the metadata of one picture."""
        return picture_document(image_id, service.searcher.picture(image_id))

    @api.get("/images/<image_id>/thumbnail")
    @api.doc(parameters=[EDGE])
    @api.response(200, BINARY, content_type="image/webp")
    @may_fail(api, 404)
    def thumbnail(image_id: str) -> Response:
        """Send the WebP thumbnail, which never changes, since the id is the hash of the content."""
        edge = {str(each): each for each in EDGES}.get(request.args.get("edge", ""))
        is_hidden = image_id in hidden_ids
        try:
            if is_hidden and not may_restore():
                raise NoSuchKeyError(f"{image_id} was put away.")
            data = thumbnails.get(image_id, edge)
        except NoSuchKeyError as error:
            raise NotFoundError(f"There is no thumbnail for '{one_line(image_id[:70])}'.") from error
        response = unchanging(data, mimetype="image/webp", etag=f"{image_id}-{edge}" if edge else image_id)
        if is_hidden:
            response.headers["Cache-Control"] = "private, no-store"
        return response

    return api
