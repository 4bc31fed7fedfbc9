"""`POST /api/v1/transcribe`: texts and refusals, and no recording kept."""

from __future__ import annotations

import io
import json
import re
import socket
import tempfile
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
import recordings
from cost import processor_s
from flask import Flask
from http_fronts import serving
from waiting import PATIENCE_S

from models.encoders import Lazy
from models.profiles import get_profile
from models.voice import load_transcriber
from search_app.core.searcher import SearchService
from search_app.core.voice import MAX_RECORDING
from search_app.settings import AppSettings
from search_app.web.app import ProblemApi, answer_expected, create_app
from search_app.web.http import AT_ONCE, MACHINE_PATHS, RequestQueue
from search_app.web.languages import add_languages
from search_app.web.voice import voice_blueprint

ADDRESS = "/api/v1/transcribe"
SENTENCE = "two black cats in the desert at night"


@pytest.fixture(scope="module")
def transcriber():
    loaded = load_transcriber(get_profile("pocket").voice_model)
    loaded.warm()
    return loaded


@pytest.fixture(scope="module")
def app(gallery, transcriber):
    """An application whose pictures may be 100 kB only: recordings have a limit of their own."""
    return create_app(
        service=SearchService(gallery.searcher),
        storage=gallery.storage,
        settings=AppSettings(max_upload=100_000),
        transcriber=lambda: Lazy(lambda: transcriber),
    )


@pytest.fixture
def web(app):
    return app.test_client()


@pytest.fixture(scope="module")
def address(app):
    """The application under the production server."""
    with serving(app) as url:
        yield url


@pytest.fixture(scope="module")
def sentence():
    return recordings.spoken(SENTENCE)


@pytest.fixture
def no_disk(monkeypatch, tmp_path):
    """Whatever wants to write a temporary file fails."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))


def send(web, data: bytes, *, field: str = "audio", name: str = "clip"):
    """Send a recording as a form does."""
    return web.post(ADDRESS, data={field: (io.BytesIO(data), name)})


def problem(response, status: int) -> str:
    """Return the sentence of a problem document that has this status."""
    assert response.status_code == status, response.text
    assert response.content_type == "application/problem+json"
    assert response.json["status"] == status
    assert response.json["detail"].endswith(".")
    return response.json["detail"]


@pytest.mark.parametrize("container", sorted(recordings.CODECS))
def test_a_recording_in_every_container_becomes_its_words(web, sentence, container):
    response = send(web, recordings.packed(sentence, container))
    assert response.status_code == 200, response.text
    assert list(response.json) == [
        "text", "voice_found", "language", "language_probability", "no_speech_probability",
        "seconds", "took_ms",
    ]  # fmt: skip
    assert response.json["text"] == SENTENCE
    assert response.json["language"] == "en"


@pytest.mark.parametrize("kind", ["audio/wav", "audio/webm; codecs=opus", "application/octet-stream"])
def test_the_body_itself_may_be_the_recording(web, sentence, kind):
    response = web.post(ADDRESS, data=recordings.packed(sentence, "webm"), content_type=kind)
    assert response.json["text"] == SENTENCE


def test_stereo_and_the_sound_of_a_film_are_heard(web, sentence):
    assert send(web, recordings.packed(sentence, rate=44_100, layout="stereo")).json["text"] == SENTENCE
    assert send(web, recordings.packed(sentence, "mp4", video=True)).json["text"] == SENTENCE


def test_a_telephone_is_answered(web, sentence):
    heard = send(web, recordings.packed(sentence, rate=8_000))
    assert heard.status_code == 200
    assert "black cats" in heard.json["text"]


@pytest.mark.parametrize("sound", ["silence", "hum", "noise"])
def test_where_nobody_speaks_the_answer_is_no_text(web, sound):
    rng = np.random.default_rng(4)
    samples = {
        "silence": recordings.silence(3),
        "hum": 0.2 * np.sin(np.arange(48_000) * 2 * np.pi * 50 / 16_000).astype(np.float32),
        "noise": 0.05 * rng.standard_normal(48_000).astype(np.float32),
    }[sound]
    response = send(web, recordings.packed(samples))
    assert response.status_code == 200
    assert (response.json["text"], response.json["language"]) == ("", None)
    assert (response.json["language_probability"], response.json["voice_found"]) == (0, False)
    assert response.json["seconds"] == 3


def long_flac(*, seconds: int, rate: int) -> bytes:
    """Return a small file that plays for long: silence packs well."""
    data, size = io.BytesIO(), 60 * 8_000
    with recordings.av.open(data, "w", format="flac") as file:
        stream = file.add_stream("flac", rate=rate, layout="mono")
        for begin in range(0, seconds * rate, size):
            silence = np.zeros((1, min(size, seconds * rate - begin)), np.int16)
            frame = recordings.av.AudioFrame.from_ndarray(silence, format="s16", layout="mono")
            frame.sample_rate, frame.pts = rate, begin
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return data.getvalue()


def without_length(flac: bytes) -> bytes:
    """Return a FLAC file whose header does not say how long it is."""
    data = bytearray(flac)
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    return bytes(data)


def test_three_hours_are_refused_at_once_with_and_without_a_length_in_the_header(web):
    long = long_flac(seconds=3 * 3600, rate=8_000)
    assert len(long) < MAX_RECORDING

    def refuse() -> None:
        assert "lasts 180 minutes; speak for at most 30 seconds" in problem(send(web, long), 400)
        assert "more than 30 seconds" in problem(send(web, without_length(long)), 400)

    assert processor_s(refuse) < 2


def test_a_sample_a_second_is_not_blown_up_to_sixteen_thousand(web):
    slow = without_length(long_flac(seconds=20_000, rate=1))
    assert "speak for at most 30 seconds" in problem(send(web, slow), 400)


WAV = recordings.packed(recordings.silence(4))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"hello " * 1000, "not a recording"),
        (b"\x89PNG\r\n\x1a\n" + bytes(2000), "not a recording"),
        (WAV[: len(WAV) // 3], "Only .* bytes have come"),
        (recordings.packed(recordings.silence(4), "mp4")[:1500], "not a recording"),
        (recordings.silent_film(), "no sound track"),
        (recordings.packed(recordings.silence(31), "ogg"), "at most 30 seconds"),
        (recordings.packed(recordings.silence(0.05)), "no sound that can be decoded"),
    ],
    ids=["0 bytes", "text", "picture", "broken WAV", "broken MP4", "silent film", "too long", "too short"],
)
@pytest.mark.usefixtures("no_disk")
def test_what_cannot_be_heard_is_a_problem_in_one_sentence(web, data, reason):
    for name in ("clip.wav", "clip.webm"):
        assert re.search(reason, problem(send(web, data, name=name), 400))


def test_a_form_without_its_recording_says_which_field_is_missing(web, sentence):
    wav = recordings.packed(sentence)
    assert "no file called `audio`" in problem(send(web, wav, field="sound"), 400)
    assert "multipart field `audio`" in problem(web.post(ADDRESS), 400)
    assert "multipart field `audio`" in problem(web.post(ADDRESS, json={"audio": "words"}), 400)
    garbled = web.post(ADDRESS, data=b"nothing of a form", content_type="multipart/form-data; boundary=x")
    assert problem(garbled, 400)
    assert problem(web.post(ADDRESS, data=wav, content_type="multipart/form-data"), 400)
    assert web.get(ADDRESS).status_code == 405


@pytest.mark.parametrize("kind", ["form", "body"])
def test_a_recording_has_a_limit_of_its_own(web, kind):
    for size in (MAX_RECORDING + 1, MAX_RECORDING + 1_000_000):
        data = bytes(size)
        response = (
            send(web, data) if kind == "form" else web.post(ADDRESS, data=data, content_type="audio/wav")
        )
        assert "over the limit of 10 MB" in problem(response, 413)


def test_pictures_keep_their_limit(web):
    response = web.post("/api/v1/search", data={"image": (io.BytesIO(bytes(1_000_000)), "x.jpg")})
    assert "limit of 0.1 MB" in problem(response, 413)


def test_other_sites_pages_are_not_heard_and_a_read_only_server_listens(gallery, transcriber, sentence):
    settings = AppSettings(read_only=True)
    app = create_app(
        service=SearchService(gallery.searcher),
        storage=gallery.storage,
        settings=settings,
        transcriber=lambda: Lazy(lambda: transcriber),
    )
    web, wav = app.test_client(), recordings.packed(sentence)
    assert send(web, wav).json["text"] == SENTENCE
    foreign = web.post(
        ADDRESS, data=wav, content_type="audio/wav", headers={"Origin": "https://elsewhere.example"}
    )
    assert "do it on the page of Glimpse itself" in foreign.json["detail"]
    assert foreign.status_code == 403


def test_without_a_voice_model_the_route_says_so_and_the_page_has_no_microphone(gallery, web):
    silent = create_app(
        service=SearchService(gallery.searcher), storage=gallery.storage, settings=AppSettings()
    )
    assert "Voice is off" in problem(send(silent.test_client(), WAV), 503)
    assert 'class="mic"' not in silent.test_client().get("/").text
    page = web.get("/")
    assert 'class="mic"' in page.text
    assert "microphone=(self)" in page.headers["Permissions-Policy"]


def test_a_voice_model_that_cannot_be_loaded_is_a_503_problem(gallery, tmp_path, caplog):
    broken = Lazy(lambda: load_transcriber(str(tmp_path)))
    app = create_app(
        service=SearchService(gallery.searcher),
        storage=gallery.storage,
        settings=AppSettings(),
        transcriber=lambda: broken,
    )
    assert problem(send(app.test_client(), WAV), 503) == (
        "A model cannot be used at the moment: the log of the server says why."
    )
    assert "not a voice model" in caplog.text
    assert app.test_client().get("/?q=a+cat").status_code == 200


def test_when_the_line_is_full_the_next_is_told_when_to_come_again(transcriber, sentence):
    app = Flask(__name__)
    app.config.update(API_TITLE="x", API_VERSION="1", OPENAPI_VERSION="3.0.3")
    queue = RequestQueue(busy="Come again.", retry_after_s=1, at_once=1, waiting=0)
    ProblemApi(app).register_blueprint(
        voice_blueprint(transcriber=lambda: Lazy(lambda: transcriber), queue=queue)
    )
    answer_expected(app)
    add_languages(app, machine_paths=MACHINE_PATHS)
    with queue.turn():
        refused = send(app.test_client(), WAV)
    assert problem(refused, 503) == "Come again."
    assert refused.headers["Retry-After"] == "1"
    assert send(app.test_client(), recordings.packed(sentence)).json["text"] == SENTENCE


def test_the_openapi_document_knows_both_ways_to_send(web):
    operation = web.get("/openapi.json").json["paths"][ADDRESS]["post"]
    assert operation["requestBody"]["content"].keys() == {"multipart/form-data", "audio/*"}
    assert {"200", "400", "413", "503"} <= operation["responses"].keys()


def post(address: str, data: bytes) -> dict:
    """Send a recording over a real connection and return the answer."""
    request = urllib.request.Request(address + ADDRESS, data=data, headers={"Content-Type": "audio/wav"})
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
        return json.load(response)


def get(address: str, path: str) -> None:
    """Read a page."""
    with urllib.request.urlopen(address + path, timeout=PATIENCE_S) as response:
        assert response.status == 200
        response.read()


def form(data: bytes) -> tuple[bytes, dict[str, str]]:
    """Return a multipart body and its header."""
    head = b'--edge\r\nContent-Disposition: form-data; name="audio"; filename="clip"\r\n\r\n'
    return head + data + b"\r\n--edge--\r\n", {"Content-Type": "multipart/form-data; boundary=edge"}


@pytest.mark.usefixtures("no_disk")
def test_even_a_large_recording_is_never_written_to_the_disk(address, sentence):
    quiet = recordings.silence(26)
    large = recordings.packed(np.concatenate([quiet, sentence]), rate=48_000, layout="stereo")
    assert len(large) > 5_000_000
    body, headers = form(large)
    request = urllib.request.Request(address + ADDRESS, data=body, headers=headers)
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
        assert json.load(response)["text"] == SENTENCE


@contextmanager
def begun(address: str, length: int, data: bytes):
    """Promise a recording of `length` bytes, send some of it, and then nothing more."""
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as connection:
        head = f"POST {ADDRESS} HTTP/1.1\r\nHost: {host}\r\nContent-Type: audio/wav\r\n"
        connection.sendall(f"{head}Content-Length: {length}\r\n\r\n".encode() + data)
        yield connection


def test_a_body_of_hundreds_of_megabytes_is_refused_by_its_header(address):
    with begun(address, 300_000_000, b"RIFF") as connection:
        answer = whole_answer(connection)
    assert b" 413 " in answer.splitlines()[0]
    assert b"application/problem+json" in answer


def test_ten_recordings_at_once_are_all_heard_and_the_page_answers_meanwhile(
    address, sentence, transcriber, monkeypatch
):
    clip = recordings.packed(np.concatenate([sentence, recordings.silence(3)]))
    transcribe, under_way, asked = transcriber.transcribe, threading.Semaphore(0), threading.Event()

    def held(recording):
        under_way.release()
        assert asked.wait(PATIENCE_S)
        return transcribe(recording)

    monkeypatch.setattr(transcriber, "transcribe", held)
    with ThreadPoolExecutor(10) as pool:
        heard = [pool.submit(post, address, clip) for _ in range(10)]
        try:
            assert all(under_way.acquire(timeout=PATIENCE_S) for _ in range(AT_ONCE))
            for path in ("/healthz", "/?q=a+red+boat", "/healthz"):
                get(address, path)
            assert not any(one.done() for one in heard)
        finally:
            asked.set()
        assert [one.result()["text"] for one in heard] == [SENTENCE] * 10


def whole_answer(connection: socket.socket) -> bytes:
    """Return an answer of JSON in full. Its head and its body may come apart."""
    answer = b""
    while not answer.rstrip().endswith(b"}") and (part := connection.recv(10_000)):
        answer += part
    return answer


@pytest.mark.usefixtures("no_disk")
def test_uploads_that_stop_midway_hold_nobody_up(address, sentence):
    clip = recordings.packed(sentence)
    half = clip[: len(clip) // 2]
    for _ in range(6):  # more than the server has threads for the page
        with begun(address, len(clip), half):
            pass
    with begun(address, len(clip), half) as first, begun(address, len(clip), half) as second:
        get(address, "/healthz")
        get(address, "/?q=a+red+boat")
        assert post(address, clip)["text"] == SENTENCE
        first.shutdown(socket.SHUT_WR)
        second.sendall(clip[len(clip) // 2 :])
        assert SENTENCE.encode() in whole_answer(second)


def test_a_recording_is_a_part_of_a_question_like_its_words(web, sentence, gallery, monkeypatch):
    monkeypatch.setattr(tempfile, "SpooledTemporaryFile", None)  # nothing of it may come near a disk
    sound = recordings.packed(sentence, "webm")

    def form(**more):
        return web.post("/api/v1/search", data={"audio": (io.BytesIO(sound), "x.webm"), "k": "5", **more})

    said = form().json
    assert said["query"] == SENTENCE
    assert said["hits"] == web.get("/api/v1/search", query_string={"q": SENTENCE, "k": 5}).json["hits"]
    cats = gallery.ids["cats"]
    weighed = form(like=cats, audio_weight="0.5").json
    typed = web.get("/api/v1/search", query_string={"q": f"{SENTENCE}^0.5", "like": cats, "k": 5}).json
    assert weighed["hits"] == typed["hits"]
    unwanted = {"q": "cats", "minus_audio": (io.BytesIO(sound), "x.webm"), "audio": (io.BytesIO(), "")}
    assert web.post("/api/v1/search", data=unwanted).json["detail"].startswith("No recording arrived")
    del unwanted["audio"]
    unwanted["minus_audio"] = (io.BytesIO(sound), "x.webm")
    assert web.post("/api/v1/search", data=unwanted).json["query"] == f"cats − {SENTENCE}"
    silent = {"audio": (io.BytesIO(recordings.packed(recordings.silence(2))), "x.wav")}
    assert "Nothing was heard" in problem(web.post("/api/v1/search", data=silent), 400)
