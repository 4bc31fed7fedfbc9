"""The shapes that the OpenAPI document shows for answers; the answers themselves come from dataclasses."""

from __future__ import annotations

from marshmallow import Schema, fields

from search_app.arguments import SearchArguments


class HitSchema(Schema):
    """One picture that was found."""

    image_id = fields.String(required=True, metadata={"description": "SHA-256 of the file's content"})
    score = fields.Float(
        required=True, metadata={"description": "Elasticsearch's _score; in mode hybrid the fusion's"}
    )
    similarity = fields.Float(
        required=True,
        allow_none=True,
        metadata={"description": "the cosine; null in mode hybrid for a picture found by its caption alone"},
    )
    path = fields.String(required=True)
    caption = fields.String(required=True, allow_none=True)
    thumbnail_url = fields.String(required=True)
    why = fields.String(
        required=True,
        allow_none=True,
        metadata={
            "description": "in mode hybrid, what brought it here: ranks and words",
            "example": "visual 2nd; caption meaning 1st; caption words: boat, red",
        },
    )
    relevance = fields.String(
        required=True,
        allow_none=True,
        metadata={
            "description": "how good a hit of a query in words is; null where the index is not calibrated",
            "enum": ["strong", "weak", "none", None],
        },
    )


class SearchResponseSchema(Schema):
    """The answer to a search."""

    query = fields.String(required=True)
    mode = fields.String(required=True)
    lane = fields.String(required=True, allow_none=True)
    k = fields.Integer(required=True)
    num_candidates = fields.Integer(required=True, allow_none=True)
    took_ms = fields.Float(required=True)
    total = fields.Integer(required=True)
    hits = fields.List(fields.Nested(HitSchema), required=True)


class SearchBody(SearchArguments):
    """A search as a JSON body; the vector is an array."""

    vector = fields.Raw(metadata={"type": "array", "items": {"type": "number"}})


class ProblemSchema(Schema):
    """What went wrong (RFC 9457)."""

    type = fields.String(required=True)
    title = fields.String(required=True)
    status = fields.Integer(required=True)
    detail = fields.String(required=True, metadata={"description": "one sentence"})


class ExifSchema(Schema):
    """What the camera wrote into the file."""

    date = fields.String()
    location = fields.Raw(metadata={"description": "geo_point"})
    camera = fields.String()


class PictureSchema(Schema):
    """A picture's metadata, as the index keeps it."""

    image_id = fields.String(required=True)
    image_name = fields.String()
    relative_path = fields.List(fields.String())
    caption = fields.String()
    caption_source = fields.String(
        metadata={
            "description": "who wrote the caption: a model, the file's own description, or a person",
            "enum": ["model", "description", "human"],
        }
    )
    width = fields.Integer()
    height = fields.Integer()
    size_bytes = fields.Integer()
    exif = fields.Nested(ExifSchema)
    phash = fields.String()
    tags = fields.List(fields.String())
    indexed_at = fields.String()
    thumbnail_url = fields.String(required=True)
