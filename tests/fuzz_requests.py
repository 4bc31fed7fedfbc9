"""Damaged forms, queries and recordings. `python tests/fuzz_requests.py recording 600` looks for ten minutes.

With atheris (`pip install atheris`, on Linux) a search follows the branches that inputs take; without it
inputs are damaged at random.
"""

from __future__ import annotations

import io
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np

SLOWEST_S = 10.0
"""of the processor's time: a busy machine is no slow reader"""
MAX_PICTURE = 10_000
INSTRUMENTED = ("werkzeug", "flask", "marshmallow", "search_app", "models.voice", "es_config.requests")


def form(*parts: tuple[str, bytes], boundary: str = "b", after: bytes = b"\r\n") -> bytes:
    """Return a multipart body. A part is the head after `form-data; `, and a content."""
    made = b"".join(
        b"--%s\r\nContent-Disposition: form-data; %s\r\n\r\n%s\r\n"
        % (boundary.encode(), head.encode(), content)
        for head, content in parts
    )
    return made + f"--{boundary}--".encode() + after


@cache
def seeds(target: str) -> tuple[bytes, ...]:
    """Return inputs of a target that are whole."""
    if target == "form":
        file = 'name="image"; filename="p.jpg"\r\nContent-Type: image/jpeg'
        return (
            form((file, b"\xff\xd8\xff" * 9), ('name="k"', b"5")),
            form(('name="audio"; filename="a.webm"\r\nContent-Type: audio/webm', bytes(99))),
            form(("name=\"image\"; filename*=UTF-8''%e2%82%ac.png", b"--b"), ('name="path"', "é*".encode())),
            form(*[('name="q"', b"a boat")] * 30),
            form((file, b""), (file, b"x" * (MAX_PICTURE + 1))),
            form(
                ('name=image; filename="a\\"b"\r\nContent-Transfer-Encoding: base64', b"QQ=="), after=b"tail"
            ),
        )
    if target == "query":
        return (
            b"q=a+red+boat&k=5&page=2&mode=hybrid&min_relevance=weak",
            b"like=0000&date_from=2020-01-02&date_to=2021-12-31&camera=Canon&tag=sea&exact=true",
            b"q=%C3%A9%2A&path=a%2Fb**%3F*&place=48.85,2.35,10km&num_candidates=100",
            b"vector=ADwAvAA8&k=3",
            b'{"vector": [0.5, -1e-5, 3], "k": 3, "place": "-90,180,1nmi"}',
            b'{"q": "grandmother\'s \\ud83d\\ude00 2 boats", "exact": true, "k": 10000}',
        )
    return tuple(recordings())


def recordings() -> list[bytes]:
    """Return a third of a second of sound in each container."""
    from recordings import CODECS, packed

    sound = np.sin(np.arange(5_000) / 7).astype(np.float32) / 2
    return [packed(sound, container) for container in CODECS]


def check_form(data: bytes) -> None:
    """Read a form as the routes for pictures and for recordings do: files, or a sentence."""
    from werkzeug.exceptions import RequestEntityTooLarge

    from search_app.errors import QueryError
    from search_app.web.http import FORM_ROOM, FormRequest, body_limit, read_upload
    from search_app.web.voice import read_recording

    for is_recording in (False, True):
        asked = FormRequest(
            {
                "REQUEST_METHOD": "POST",
                "wsgi.input": io.BytesIO(data),
                "CONTENT_LENGTH": str(len(data)),
                "CONTENT_TYPE": "multipart/form-data; boundary=b",
            }
        )
        asked.max_content_length = body_limit(MAX_PICTURE)
        asked.max_form_memory_size = FORM_ROOM
        try:
            if is_recording:
                assert isinstance(read_recording(asked), bytes)
                continue
            arguments, sent = dict(asked.form), asked.files.getlist("image")
            assert all(isinstance(each, str) for each in arguments.values())
            for each in sent:
                assert len(read_upload(each, max_upload=MAX_PICTURE)) <= MAX_PICTURE
        except QueryError as error:
            check_sentence(error)
        except RequestEntityTooLarge:  # the route says it in a sentence of its own
            pass
        finally:
            asked.close()


def check_query(data: bytes) -> None:
    """Read an address or a JSON body as the routes do: a query that comes back the same, or a sentence."""
    from werkzeug.wrappers import Request

    from es_config.requests import knn_body, words_body
    from search_app.core.query import load_query, query_arguments
    from search_app.errors import QueryError
    from search_app.web.http import FormRequest, read_json

    try:
        if data.startswith(b"{"):
            environ = {
                "REQUEST_METHOD": "POST",
                "wsgi.input": io.BytesIO(data),
                "CONTENT_LENGTH": str(len(data)),
                "CONTENT_TYPE": "application/json",
            }
            body = read_json(FormRequest(environ))
            arguments: Mapping[str, object] = body if isinstance(body, dict) else {}
        else:
            # The server answers 400 to bytes that are not UTF-8 (they may be written as %85).
            text = data.decode("utf-8", "ignore").encode().decode("latin-1")
            arguments = Request({"QUERY_STRING": text}).args
        query = load_query(arguments)
    except QueryError as error:
        check_sentence(error)
        return
    vector = np.ones(4, np.float32) / 2
    sent = knn_body(
        field="image_embedding",
        query_vector=vector,
        k=query.depth,
        num_candidates=query.num_candidates or 10_000,
        filters=query.filters,
    )
    bodies = [sent, *([words_body(query.text, size=10, filters=query.filters)] if query.text else [])]
    for each in bodies:
        json.dumps(each, allow_nan=False).encode()
    written = query_arguments(query, k=10)
    again = query_arguments(load_query(written, k=10), k=10)
    assert written.keys() == again.keys()
    assert {**written, "vector": ""} == {**again, "vector": ""}


def check_recording(data: bytes) -> None:
    """Decode a recording: samples, or a sentence."""
    from models.voice import LONGEST, RATE, RecordingError, decode_recording

    try:
        samples = decode_recording(data)
    except RecordingError as error:
        check_sentence(error)
        return
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert 0 < len(samples) <= LONGEST * RATE


def check_sentence(error: Exception) -> None:
    """Fail for an error that says nothing, or that cannot be written into JSON and onto a page."""
    assert str(error)
    assert "\n" not in str(error)
    str(error).encode()


CHECKS: Mapping[str, Callable[[bytes], None]] = {
    "form": check_form,
    "query": check_query,
    "recording": check_recording,
}


def check_quickly(target: str, data: bytes) -> None:
    """Check an input, and fail when that takes long."""
    begin = time.process_time()
    CHECKS[target](data)
    assert time.process_time() - begin < SLOWEST_S


def damaged(target: str, chance: random.Random) -> bytes:
    """Return a seed of a target after a few accidents."""
    data = bytearray(chance.choice(seeds(target)))
    for _ in range(chance.randint(1, 6)):
        place = chance.randrange(min(len(data), chance.choice((100, 100_000))) + 1)
        length = chance.randrange(40)
        match chance.randrange(6):
            case 0:
                data[place : place + 1] = bytes([chance.randrange(256)])
            case 1:
                data[place : place + 4] = chance.choice(
                    (b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\0\0\0\1")
                )
            case 2:
                del data[place : place + length]
            case 3:
                data[place:place] = data[place : place + length] * chance.randint(1, 9)
            case 4:
                data[place:place] = chance.randbytes(length)
            case _:
                other = chance.choice(seeds(target))
                start = chance.randrange(len(other))
                data[place:place] = other[start : start + 10 * length]
    return bytes(data)


def main(target: str, seconds: float) -> None:
    """Look for `seconds`. The first input that fails ends the search and is kept as `crash-…`."""
    try:
        atheris = import_module("atheris")  # no dependency: it has wheels for few systems
    except ImportError:
        _look_at_random(target, seconds)
        return
    with atheris.instrument_imports(include=list(INSTRUMENTED)):
        CHECKS[target](seeds(target)[0])
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(seeds(target)):
            (Path(corpus) / str(number)).write_bytes(seed)
        limits = [f"-max_total_time={seconds:.0f}", "-timeout=60", "-rss_limit_mb=4096", "-max_len=40000"]
        atheris.Setup([sys.argv[0], corpus, *limits], lambda data: check_quickly(target, data))
        atheris.Fuzz()


def _look_at_random(target: str, seconds: float) -> None:
    end, seed = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        seed += 1
        data = damaged(target, random.Random(seed))
        try:
            check_quickly(target, data)
        except Exception:
            Path(f"crash-{target}-{seed}").write_bytes(data)
            raise
    print(f"{seed} inputs, none failed")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    main(sys.argv[1], float(sys.argv[2]))
