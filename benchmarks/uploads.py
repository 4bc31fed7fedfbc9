"""Uploads: from the last byte of a picture to a typed search that finds it."""

from __future__ import annotations

import io
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from urllib.parse import urlencode

from benchmarks.engine import fresh_index, node
from benchmarks.report import Figure, percentile, show
from benchmarks.serving import serving
from demo.world.draw import draw
from demo.world.scene import sample
from ingest.uploads import UploadIndexer
from models.captioning import load_captioner
from models.encoders import Lazy, load_caption_text_encoder, load_image_encoder, load_text_encoder
from models.profiles import get_profile
from search_app.core.searcher import Searcher, SearchService
from search_app.settings import AppSettings
from search_app.web.app import create_app
from storage.store import open_storage

WARM_UP, PICTURES, SIZE = 5, 40, 512
HEAD = b'--b\r\nContent-Disposition: form-data; name="image"; filename="p.jpg"\r\n\r\n'
FORM = {"Content-Type": "multipart/form-data; boundary=b"}


def main() -> bool:
    """Print the figures and return whether the target is met."""
    with node() as (client, _), fresh_index(client) as index, _serving(index) as port:
        samples = [_add_and_find(port, picture) for picture in _pictures(WARM_UP + PICTURES)][WARM_UP:]
    answered, found = zip(*samples, strict=True)
    return show(
        f"Uploads: {PICTURES} drawn pictures of {SIZE} px, one after the other, pocket",
        [
            Figure("answered, p50", percentile(list(answered), 50), "ms"),
            Figure("found by a typed search, p50", percentile(list(found), 50), "ms", "≤ 2000"),
            Figure("found by a typed search, p95", percentile(list(found), 95), "ms"),
        ],
    )


@contextmanager
def _serving(index: object) -> Iterator[int]:
    profile = get_profile("pocket")
    images = load_image_encoder(profile)
    texts = load_text_encoder(profile)
    searcher = Searcher(
        index=index,
        profile=profile,
        text_encoder=Lazy(lambda: texts),
        image_encoder=Lazy(lambda: images),
    )
    with tempfile.TemporaryDirectory(prefix="glimpse-bench-") as folder:
        indexer = UploadIndexer(
            index=index,
            profile=profile,
            image_encoder=searcher.image_encoder,
            caption_encoder=Lazy(lambda: load_caption_text_encoder(profile)),
            captioner=Lazy(lambda: load_captioner(profile.caption_model)),
            storage=open_storage(folder),
        )
        storage = open_storage(folder)
        app = create_app(
            service=SearchService(searcher), storage=storage, settings=AppSettings(), indexer=lambda: indexer
        )
        with serving(app) as port:
            yield port


def _pictures(number: int) -> Iterator[bytes]:
    for scene in sample("test", number):
        data = io.BytesIO()
        draw(scene, SIZE).save(data, "JPEG", quality=90)
        yield data.getvalue()


def _add_and_find(port: int, picture: bytes) -> tuple[float, float]:
    """Return milliseconds from the last byte sent to the answer, and to a search that finds the picture."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request("POST", "/api/v1/images", HEAD + picture + b"\r\n--b--\r\n", FORM)
        sent = time.perf_counter()
        (added,) = json.load(connection.getresponse())["images"]
        answered = time.perf_counter()
        words = urlencode({"q": added["caption"], "k": WARM_UP + PICTURES})
        connection.request("GET", f"/api/v1/search?{words}")
        hits = json.load(connection.getresponse())["hits"]
        found = time.perf_counter()
    assert added["image_id"] in {hit["image_id"] for hit in hits}
    return 1000 * (answered - sent), 1000 * (found - sent)
