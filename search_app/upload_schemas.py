"""The shapes that the OpenAPI document shows for added pictures."""

from __future__ import annotations

from marshmallow import Schema, fields


class AddedFileSchema(Schema):
    """What became of one file."""

    name = fields.String(required=True)
    status = fields.Integer(
        required=True, metadata={"description": "201 added, 200 known before, else refused: see `detail`"}
    )
    detail = fields.String(metadata={"description": "one sentence, for a refused file"})
    image_id = fields.String(metadata={"description": "SHA-256 of the file's content"})
    path = fields.String()
    caption = fields.String(allow_none=True)
    caption_source = fields.String(metadata={"description": "`model`, `description` or `human`"})
    caption_error = fields.String(metadata={"description": "why it has no caption yet"})
    thumbnail_url = fields.String()


class AddedSchema(Schema):
    """One entry for each file, in their order."""

    images = fields.List(fields.Nested(AddedFileSchema), required=True)
