"""The shapes that the OpenAPI document shows for answers; the answers themselves come from dataclasses."""

from __future__ import annotations

from marshmallow import Schema, fields

from search_app.arguments import SearchArguments, said

BINARY = {"type": "string", "format": "binary"}


class HitSchema(Schema):
    """One picture that was found."""

    image_id = fields.String(required=True, metadata=said("SHA-256 of the file's content"))
    score = fields.Float(required=True, metadata=said("Elasticsearch's _score; in mode hybrid the fusion's"))
    similarity = fields.Float(
        required=True,
        allow_none=True,
        metadata=said("the cosine; null in mode hybrid for a picture found by its caption alone"),
    )
    path = fields.String(required=True)
    caption = fields.String(required=True, allow_none=True)
    thumbnail_url = fields.String(required=True)
    why = fields.String(
        required=True,
        allow_none=True,
        metadata=said(
            "in mode hybrid, what brought it here: ranks and words",
            example="visual 2nd; caption meaning 1st; caption words: boat, red",
        ),
    )
    relevance = fields.String(
        required=True,
        allow_none=True,
        metadata=said(
            "how good a hit of a query in words is; null where the index is not calibrated",
            enum=["strong", "weak", "none", None],
        ),
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
    detail = fields.String(required=True, metadata=said("one sentence"))


class ExifSchema(Schema):
    """What the camera wrote into the file."""

    date = fields.String()
    location = fields.Raw(metadata=said("geo_point"))
    camera = fields.String()


class PictureSchema(Schema):
    """A picture's metadata, as the index keeps it."""

    image_id = fields.String(required=True)
    image_name = fields.String()
    relative_path = fields.List(fields.String())
    caption = fields.String()
    caption_source = fields.String(
        metadata=said(
            "who wrote the caption: a model, the file's own description, or a person",
            enum=["model", "description", "human"],
        )
    )
    width = fields.Integer()
    height = fields.Integer()
    size_bytes = fields.Integer()
    exif = fields.Nested(ExifSchema)
    phash = fields.String()
    tags = fields.List(fields.String())
    indexed_at = fields.String()
    thumbnail_url = fields.String(required=True)


class AddedFileSchema(Schema):
    """What became of one file."""

    name = fields.String(required=True)
    status = fields.Integer(
        required=True, metadata=said("201 added, 200 known before, else refused: see `detail`")
    )
    detail = fields.String(metadata=said("one sentence, for a refused file"))
    image_id = fields.String(metadata=said("SHA-256 of the file's content"))
    path = fields.String()
    caption = fields.String(allow_none=True)
    caption_source = fields.String(metadata=said("`model`, `description` or `human`"))
    caption_error = fields.String(metadata=said("why it has no caption yet"))
    thumbnail_url = fields.String()


class AddedSchema(Schema):
    """One entry for each file, in their order."""

    images = fields.List(fields.Nested(AddedFileSchema), required=True)


class TranscriptSchema(Schema):
    """What was heard."""

    text = fields.String(required=True, metadata=said("empty where nobody spoke"))
    language = fields.String(required=True, allow_none=True, metadata=said("ISO 639-1, such as `fr`"))
    language_probability = fields.Float(required=True, metadata=said("0 to 1"))
    no_speech_probability = fields.Float(
        required=True, metadata=said("0 to 1; 1 where no voice was found at all")
    )
    seconds = fields.Float(required=True, metadata=said("length of the recording"))
    took_ms = fields.Integer(required=True)
