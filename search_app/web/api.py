"""The REST API under /api/v1."""

from __future__ import annotations

from flask import Response, jsonify, request
from flask_smorest import Blueprint

from es_config.documents import one_line
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
    unchanging,
)
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


def rest_blueprint(*, service: SearchService, storage: Storage, settings: AppSettings) -> Blueprint:
    """Return the API's routes around a search service and a store."""
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
        return answer(load_query(request.args))

    @api.post("/search")
    @api.doc(requestBody=POST_BODY)
    @api.response(200, answer_schema, content_type=JSON)
    @may_fail(api, 404, 408, 413)
    def search_by_body() -> Response:
        """Search by a picture (multipart `image`), or by the same parameters as a JSON object."""
        if request.is_json:
            body = read_json(request)
            if not isinstance(body, dict):
                raise QueryError("The JSON body must be an object with q, like, vector or filters.")
            return answer(load_query({**request.args, **body}))
        image = None
        if "image" in request.files:
            image = read_upload(request.files["image"], max_upload=settings.max_upload)
        return answer(load_query({**request.args, **request.form}, image=image))

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
        try:
            data = thumbnails.get(image_id, edge)
        except NoSuchKeyError as error:
            raise NotFoundError(f"There is no thumbnail for '{one_line(image_id[:70])}'.") from error
        return unchanging(data, mimetype="image/webp", etag=f"{image_id}-{edge}" if edge else image_id)

    return api
