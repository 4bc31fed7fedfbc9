"""Spoken queries: the same first hit as the typed ones, and how long it takes from the end of speech."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.engine import fresh_index, node
from benchmarks.report import Figure, percentile, show
from benchmarks.serving import serving
from benchmarks.sound import as_wav
from demo.world.draw import draw
from demo.world.scene import sample, scene
from es_config.documents import ImageDocument, IndexMeta, IndexOptions
from models.encoders import Lazy, load_image_encoder, load_text_encoder
from models.profiles import get_profile
from models.voice import load_transcriber
from search_app.core.query import Query
from search_app.core.searcher import Searcher, SearchService
from search_app.settings import AppSettings
from search_app.web.app import create_app
from storage.keys import thumbnail_key
from storage.store import open_storage
from training.pocket.voice.speech import RATE, Line, Synthesiser, line

if TYPE_CHECKING:
    from flask import Flask
    from playwright.sync_api import Page

    from demo.world.scene import Scene
    from models.voice import Transcriber
    from storage.store import Storage

SENTENCES, OTHERS, SPOKEN = 200, 400, 24
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync --use-fake-device-for-media-stream"
    " --use-fake-ui-for-media-stream"
)
# Listens beside the page to when the sound ends, lets the button go then, and notes when the next page shows
# its first picture.
WATCH = """() => {
  const now = () => performance.timeOrigin + performance.now();
  const note = (name, value) => sessionStorage.setItem(name, String(value));
  const noted = (name) => Number(sessionStorage.getItem(name));
  const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  const hear = (samples, rate) => {
    const last = samples.findLastIndex((sample) => Math.abs(sample) > 0.02);
    if (last >= 0) note("spoke", now() - 1000 * (samples.length - last) / rate);
    else if (noted("hold") && noted("spoke") && now() - noted("spoke") > 200) {
      note("hold", 0);
      note("released", now());
      document.querySelector("button.mic").dispatchEvent(new PointerEvent("pointerup", { bubbles: true }));
    }
  };
  navigator.mediaDevices.getUserMedia = async (wanted) => {
    const stream = await open(wanted);
    const context = new AudioContext();
    const ear = context.createScriptProcessor(1024, 1, 1);
    ear.onaudioprocess = (event) => hear(event.inputBuffer.getChannelData(0), context.sampleRate);
    context.createMediaStreamSource(stream.clone()).connect(ear);
    ear.connect(context.destination);
    window.kept = [context, ear];
    return stream;
  };
  addEventListener("DOMContentLoaded", () => {
    const first = document.querySelector(".results .grid img");
    if (!first) return;
    const shown = () => requestAnimationFrame(() => requestAnimationFrame(() => note("shown", now())));
    if (first.complete) shown();
    else first.addEventListener("load", shown);
  });
}"""
ENDED = "() => sessionStorage.getItem('shown') || document.querySelector('.said')?.dataset.tone"


def main() -> bool:
    """Print all figures and return whether the targets are met."""
    lines = [line("test", number) for number in range(SENTENCES)]
    synthesiser = Synthesiser()
    clips = [one.spoken(synthesiser).samples for one in lines]
    with (
        tempfile.TemporaryDirectory(prefix="glimpse-bench-") as folder,
        node() as (client, _),
        fresh_index(client) as index,
    ):
        storage = open_storage(f"file:{folder}/store")
        searcher = _searcher(index, storage)
        transcriber = load_transcriber(get_profile("pocket").voice_model)
        transcriber.warm()
        met = show(
            f"Spoken queries: {SENTENCES} unseen sentences, new voices, {SENTENCES + OTHERS} pictures",
            _same_hits(searcher, transcriber, lines, clips),
        )
        app = create_app(
            service=SearchService(searcher),
            storage=storage,
            settings=AppSettings(),
            transcriber=Lazy(lambda: transcriber),
        )
        with _page(app, Path(folder) / "clip.wav") as page:
            waits = _waits(page, Path(folder) / "clip.wav", clips[:SPOKEN])
    return (
        show(f"Spoken queries in Chromium, {SPOKEN} sentences: until the first picture is seen", waits)
        and met
    )


def _same_hits(
    searcher: Searcher, transcriber: Transcriber, lines: list[Line], clips: list[np.ndarray]
) -> list[Figure]:
    typed = [_first(searcher, one.text) for one in lines]
    plain = [_first(searcher, one.transcript) for one in lines]
    heard = [transcriber.transcribe(as_wav(clip, RATE)).text for clip in clips]
    found = [_first(searcher, text) if text else None for text in heard]
    words = [text == one.transcript for text, one in zip(heard, lines, strict=True)]
    return [
        Figure("same first hit as the typed sentence", _share(found, typed), "", "≥ 0.95"),
        Figure("same first hit as its words without punctuation", _share(found, plain)),
        Figure("typed with and without punctuation, same first hit", _share(plain, typed)),
        Figure("every word right", float(np.mean(words))),
    ]


def _share(one: list[object], other: list[object]) -> float:
    return float(np.mean([left == right for left, right in zip(one, other, strict=True)]))


def _first(searcher: Searcher, text: str) -> str:
    return searcher.search(Query(text=text, k=1, mode="image")).hits[0].image_id


def described(index: int) -> Scene:
    """Return the scene that `line("test", index)` speaks of: the first draw of the same random numbers."""
    return scene("test", Random(f"speech/test/{index}").randrange(5_000_000))


def _searcher(index: object, storage: Storage) -> Searcher:
    """Fill the index with the pictures that the sentences describe, and with others."""
    profile = get_profile("pocket")
    scenes = [*(described(number) for number in range(SENTENCES)), *sample("demo", OTHERS)]
    images = load_image_encoder(profile)
    meta = IndexMeta(profile.name, {}, profile.dims, profile.caption_dims, profile.similarity)
    index.create(meta, IndexOptions())
    pictures = [draw(one, 256) for one in scenes]
    vectors = np.concatenate(
        [images.embed_images(pictures[at : at + 50]) for at in range(0, len(scenes), 50)]
    )
    documents = [_document(number, vector) for number, vector in enumerate(vectors)]
    index.add(documents)
    index.refresh()
    for document, picture in zip(documents, pictures, strict=True):
        data = io.BytesIO()
        picture.save(data, "WEBP", quality=80)
        storage.put(thumbnail_key(document.image_id), data.getvalue())
    texts = load_text_encoder(profile)
    return Searcher(
        index=index,
        profile=profile,
        text_encoder=Lazy(lambda: texts),
        image_encoder=Lazy(lambda: images),
    )


def _document(number: int, vector: np.ndarray) -> ImageDocument:
    return ImageDocument(
        image_id=hashlib.sha256(str(number).encode()).hexdigest(),
        image_name=f"{number}.jpg",
        relative_path=(f"drawn/{number}.jpg",),
        image_embedding=vector,
        width=128,
        height=128,
        size_bytes=1,
        indexed_at=datetime.now(UTC),
    )


@contextmanager
def _page(app: Flask, clip: Path) -> Iterator[Page]:
    """Serve the page as `glimpse serve` does and open it in a Chromium whose microphone plays `clip`."""
    from playwright.sync_api import sync_playwright

    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    flags = [*FLAGS.split(), f"--use-file-for-fake-audio-capture={clip}%noloop"]
    with serving(app) as port, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        page = browser.new_page(base_url=f"http://127.0.0.1:{port}")
        page.add_init_script(f"({WATCH})()")
        yield page
        browser.close()


def _waits(page: Page, clip: Path, clips: list[np.ndarray]) -> list[Figure]:
    free, held = [], []
    for samples in [clips[0], *clips]:  # a browser's first page takes longer, and is left out
        _put(clip, samples)
        free.append(_wait(page, since="spoke"))
        held.append(_wait(page, since="released"))
    return [
        *_two("from the end of the sound, which the page notices itself", free[1:]),
        *_two("from letting the button go", held[1:]),
    ]


def _put(clip: Path, samples: np.ndarray) -> None:
    """Write the microphone's recording: a moment of silence and the sentence, at its own 48 kHz."""
    begin, times = int(0.4 * RATE), np.arange(0, len(samples), RATE / 48_000)
    sound = np.interp(times, np.arange(len(samples)), samples).astype(np.float32)
    clip.write_bytes(as_wav(np.concatenate([np.zeros(3 * begin, np.float32), sound]), 48_000))


def _two(name: str, waits: list[float | None]) -> list[Figure]:
    heard = [wait for wait in waits if wait is not None]
    return [
        Figure(f"{name}, p50", percentile(heard, 50), "ms", "≤ 1200"),
        Figure(f"{name}, p95", percentile(heard, 95), "ms"),
        Figure(f"{name}, sentences answered", len(heard) / len(waits)),
    ]


def _wait(page: Page, *, since: str) -> float | None:
    """Speak once. Return milliseconds from `since` until a picture was seen, None without an answer."""
    page.goto("/")
    page.evaluate("() => sessionStorage.clear()")
    if since == "released":
        page.evaluate("() => sessionStorage.setItem('hold', 1)")
        page.locator("button.mic").hover()
        page.mouse.down()
    else:
        page.evaluate("() => document.querySelector('button.mic').click()")
    page.wait_for_function(ENDED, polling=50)
    page.mouse.up()
    times = [page.evaluate("name => sessionStorage.getItem(name)", name) for name in ("shown", since)]
    return float(times[0]) - float(times[1]) if all(times) else None
