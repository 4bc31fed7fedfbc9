"""Transcribe spoken queries by HTTP. No recording is kept."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import asdict

from flask import Request, Response, abort, jsonify, request
from flask_smorest import Blueprint
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.formparser import FormDataParser

from models.encoders import Lazy
from models.voice import LONGEST, RecordingError, Transcriber, Transcript
from search_app.core.query import API_PREFIX
from search_app.core.voice import MAX_RECORDING, NOTHING, UNCLEAR
from search_app.errors import QueryError, TooLargeError
from search_app.web.http import BINARY, FORM_ROOM, JSON, RequestQueue, form_too_large, may_fail, schema_of

MAX_BODY = MAX_RECORDING + FORM_ROOM
RAW_TYPES = ("audio/", "video/", "application/ogg", "application/octet-stream")
POST_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {"type": "object", "required": ["audio"], "properties": {"audio": BINARY}}
        },
        "audio/*": {"schema": BINARY},
    },
}


def voice_blueprint(
    *, transcriber: Callable[[], Lazy[Transcriber] | None], queue: RequestQueue | None = None
) -> Blueprint:
    """Return the route that transcribes. When `transcriber` returns none, it says that voice is off."""
    api = Blueprint("voice", __name__, url_prefix=API_PREFIX, description="Spoken queries")
    queue = queue or voice_queue()

    @api.post("/transcribe")
    @api.doc(requestBody=POST_BODY)
    @api.response(200, schema_of(Transcript), content_type=JSON)
    @may_fail(api, 408, 413, 429)
    def transcribe() -> Response:
        """Transcribe a recording of at most 30 seconds. Nothing is kept."""
        current = _current(transcriber)
        return jsonify(asdict(_transcript(current, read_recording(request), queue)))

    @api.app_context_processor
    def microphone() -> dict[str, object]:
        """Tell the page whether to offer its microphone, and for how long it may listen."""
        return {"voice": transcriber() is not None, "voice_seconds": int(LONGEST)}

    return api


def voice_queue() -> RequestQueue:
    """Return a queue for all requests that have recordings."""
    return RequestQueue(
        busy="Too many recordings are waiting to be heard; try again in a moment.", retry_after_s=1
    )


def words_of(
    recording: bytes, *, transcriber: Callable[[], Lazy[Transcriber] | None], queue: RequestQueue
) -> str:
    """Return the words of a recording. Raises `QueryError` where none are understood."""
    transcript = _transcript(_current(transcriber), recording, queue)
    if not transcript.text:
        raise QueryError(UNCLEAR if transcript.voice_found else NOTHING)
    return transcript.text


def _current(transcriber: Callable[[], Lazy[Transcriber] | None]) -> Lazy[Transcriber]:
    return transcriber() or abort(503, "Voice is off on this server; see `glimpse serve --voice-model`.")


def _transcript(current: Lazy[Transcriber], recording: bytes, queue: RequestQueue) -> Transcript:
    try:
        with queue.turn():
            return current.get().transcribe(recording)
    except RecordingError as error:  # the caller's mistake, whereas other model errors are the server's
        raise QueryError(str(error)) from error


def read_sound(upload: FileStorage) -> bytes:
    """Return the recording in a form's file. Raises `TooLargeError`, and `QueryError` when it is empty."""
    data = upload.stream.read(MAX_RECORDING + 1)
    if len(data) > MAX_RECORDING:
        raise _too_large()
    if not data:
        raise QueryError("No recording arrived: choose a file that is not empty.")
    return data


def read_recording(asked: Request) -> bytes:
    """Return the recording of a multipart field `audio` or of the body itself, kept in memory.

    Raises `TooLargeError` over `MAX_RECORDING` bytes, `QueryError` when there is none.
    """
    asked.max_content_length = MAX_BODY  # not the limit of pictures
    try:
        if asked.mimetype == "multipart/form-data":
            data = _form_file(asked)
        elif asked.mimetype.startswith(RAW_TYPES):
            data = asked.stream.read()
        else:
            raise QueryError(
                "No recording arrived: send it as the multipart field `audio`, or as the body with its"
                " audio/… content type."
            )
    except RequestEntityTooLarge as error:
        if (asked.content_length or 0) <= MAX_BODY:
            raise form_too_large(asked) from error
        raise _too_large() from error
    if len(data) > MAX_RECORDING:
        raise _too_large()
    return data


def _form_file(asked: Request) -> bytes:
    # Not `asked.files`: it would write large files to the disk.
    parser = FormDataParser(
        stream_factory=lambda *_, **__: io.BytesIO(),
        max_form_memory_size=FORM_ROOM,
        max_form_parts=20,
        silent=False,
    )
    try:
        _, _, files = parser.parse(asked.stream, asked.mimetype, asked.content_length, asked.mimetype_params)
    except ValueError as error:
        raise QueryError("The form is damaged; send the recording again.") from error
    if "audio" not in files:
        raise QueryError("No recording arrived: the form has no file called `audio`.")
    return files["audio"].stream.read()


def _too_large() -> TooLargeError:
    return TooLargeError(
        f"The recording is over the limit of {MAX_RECORDING / 1_000_000:g} MB; speak for at most"
        f" {LONGEST:.0f} seconds."
    )
