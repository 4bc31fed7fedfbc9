"""Bounds on time and memory: small files that cost much, and many pictures at once."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from picture_files import draw_picture, png_header, save_picture
from PIL import Image
from waiting import PATIENCE_S

from ingest.errors import UnreadableImageError
from ingest.files.picture import FileContent, decode, decode_upload, pixel_limit
from models import child_process
from models.child_process import Facts, run_apart
from models.pixels import (
    FILES,
    MAX_SCANS,
    REQUESTS,
    Budget,
    NoRoomError,
    PictureError,
    TooSlowError,
    count_scans,
    give_memory_back,
    has_one_scan,
    is_dear,
    memory_of,
    open_image,
)
from search_app.core.pictures import opened_picture
from search_app.errors import BusyError, QueryError


def content(data: bytes) -> FileContent:
    """Return a file's content with any id."""
    return FileContent(data, "0" * 64)


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    """Return a picture file's content."""
    data = io.BytesIO()
    image.save(data, form, **options)
    return data.getvalue()


def jpeg_of_scans(side: int, scans: int) -> bytes:
    """Return a gray progressive JPEG of some dozen bytes a scan: empty ones, which cost all pixels each."""

    def segment(marker: int, body: bytes) -> bytes:
        return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body

    table = bytes([1] + [0] * 15)
    head = segment(0xDB, bytes([0] + [1] * 64)) + segment(
        0xC2, struct.pack(">BHHB", 8, side, side, 1) + b"\1\x11\0"
    )
    codes = segment(0xC4, b"\0" + table + b"\0") + segment(0xC4, b"\x10" + table + b"\xe0")
    first = segment(0xDA, bytes([1, 1, 0, 0, 0, 0]))
    return (
        b"\xff\xd8"
        + head
        + codes
        + first
        + segment(0xDA, bytes([1, 1, 0, 1, 63, 0])) * (scans - 1)
        + b"\xff\xd9"
    )


def test_a_jpeg_of_many_scans_is_refused_unread():
    data = jpeg_of_scans(9_000, 2_000)
    assert len(data) < 25_000
    for read in (decode_upload, lambda each: decode(each, path=None)):
        with pytest.raises(UnreadableImageError, match="a JPEG of more than 100 scans") as refused:
            read(content(data))
        assert refused.value.fault.lasting
    with pytest.raises(QueryError, match="a JPEG of more than 100 scans"), opened_picture(data):
        pass


def test_as_many_scans_as_may_be_are_decoded():
    picture = decode(content(jpeg_of_scans(64, MAX_SCANS)), path=None)
    assert picture.image.size == (64, 64)


def test_scans_are_counted_by_segments():
    plain, progressive = (
        saved(draw_picture(1), "JPEG", progressive=each, comment=b"\xff\xda" * 300) for each in (False, True)
    )
    assert (count_scans(plain), count_scans(progressive)) == (1, 10)
    assert [has_one_scan(each) for each in (plain, progressive, b"", b"\xff\xd8")] == [
        True,
        False,
        False,
        False,
    ]
    with open_image(progressive) as image:
        FILES.check(image, progressive)  # what stands in a comment is no scan
    assert count_scans(jpeg_of_scans(8, 5) + plain) == 5
    assert count_scans(b"\xff\xd8" + b"\xff\xda\0\2" * 10_000) == MAX_SCANS + 1
    assert count_scans(b"") == count_scans(b"\xff\xd8\xff") == 0


@pytest.mark.parametrize(("width", "height"), [(30_001, 8), (8, 30_001)])
def test_a_side_over_the_limit_is_refused(width, height):
    data = png_header(width, height)
    with pytest.raises(UnreadableImageError, match="a side of 30001 pixels is over the limit of 30000"):
        decode_upload(content(data))
    with pytest.raises(QueryError, match="a side of 30001 pixels"), opened_picture(data):
        pass


def test_a_panorama_in_a_folder_may_be_wider():
    picture = decode(content(saved(Image.new("L", (40_000, 8), 90), "PNG")), path=None)
    assert (picture.width, picture.height) == (40_000, 8)


@pytest.mark.parametrize(("form", "mode"), [("WEBP", "RGB"), ("PNG", "RGBA"), ("GIF", "P")])
def test_a_format_that_takes_much_memory_may_have_fewer_pixels(form, mode):
    data = saved(Image.new(mode, (10_000, 6_200)), form)
    with pytest.raises(UnreadableImageError, match=r"62 megapixels are over the limit of .* for its format"):
        decode_upload(content(data))
    with open_image(data) as image:
        FILES.check(image, data)
        replace(REQUESTS, within_budget=False).check(image, data)


@pytest.mark.parametrize(("form", "size"), [("JPEG", (14_000, 14_000)), ("PNG", (12_500, 8_000))])
def test_photographs_of_any_camera_are_let_in(form, size):
    with open_image(saved(Image.new("RGB", size, "red"), form)) as image:
        REQUESTS.check(image, b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_the_pixels_of_a_jpeg_are_counted_before_it_is_reduced():
    data = jpeg_of_scans(14_200, 1)
    with pytest.raises(QueryError, match="more than 200 million pixels"), opened_picture(data):
        pass


@pytest.mark.parametrize(
    ("options", "dear"),
    [
        ({"form": "JPEG"}, False),
        ({"form": "JPEG", "progressive": True}, False),
        ({"form": "PNG"}, False),
        ({"form": "TIFF", "compression": "tiff_lzw"}, False),
        ({"form": "TIFF", "compression": "jpeg"}, True),
        ({"form": "AVIF"}, True),
        ({"form": "HEIF"}, True),
    ],
)
def test_what_looks_dear_is_decoded_apart(options, dear):
    data = saved(draw_picture(1), **options)
    with open_image(data) as image:
        assert is_dear(image, data) is FILES.is_apart(image, data) is dear
        assert REQUESTS.is_apart(image, data)


def test_many_pixels_and_many_scans_look_dear():
    with pixel_limit(1 << 30):
        for data in (png_header(4_100, 4_100), jpeg_of_scans(4_000, 50)):
            with open_image(data) as image:
                assert is_dear(image, data)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF", "AVIF"])
def test_a_child_reads_a_picture_as_this_process_does(form, monkeypatch):
    exif = Image.Exif()
    exif[0x0112], exif[270], exif[271] = 6, "A boat at sea", "Glimpse"
    exif.get_ifd(0x8769)[36867] = "2020:02:03 04:05:06"
    profile = {"icc_profile": b"a profile" * 9} if form in ("JPEG", "PNG") else {}
    data = content(saved(draw_picture(3, size=(900, 700)), form, exif=exif, **profile))
    apart = decode_upload(data)
    monkeypatch.setattr("models.pixels.is_dear", lambda *_: False)
    here = decode(data, path=None)
    assert apart.image.tobytes() == here.image.tobytes()
    assert apart.image.info.get("icc_profile") == here.image.info.get("icc_profile")
    assert replace(apart, image=here.image) == here
    assert here.exif.description == "A boat at sea"


def sleep(data: bytes) -> tuple[Facts, bytes]:
    """Take longer than anybody waits."""
    time.sleep(PATIENCE_S)
    return {}, data


def swallow(data: bytes, *, size: int) -> tuple[Facts, bytes]:
    """Take memory."""
    return {"length": len(bytes(size))}, data


def crash(data: bytes) -> tuple[Facts, bytes]:
    """End as a decoder with a bug does."""
    del data
    os.abort()


def echo(data: bytes) -> tuple[Facts, bytes]:
    """Return the arguments, and the process that this runs in."""
    print("what a library prints", flush=True)
    return {"pid": os.getpid(), "variables": sorted(os.environ)}, data


def call(decoder, data: bytes = b"x", *, seconds: float = PATIENCE_S, **parameters) -> tuple[Facts, bytes]:
    """Run a decoder apart."""
    return run_apart(decoder, data, seconds=seconds, memory=1 << 20, **parameters)


def test_a_child_that_takes_too_long_is_ended_and_the_next_file_is_read():
    before, body = call(echo, b"\0\xff" * 500_000)
    assert body == b"\0\xff" * 500_000
    with pytest.raises(TooSlowError, match=r"longer than 0.2 seconds"):
        call(sleep, seconds=0.2)
    assert call(echo)[0]["pid"] != before["pid"]
    assert not psutil.pid_exists(before["pid"])


def test_a_child_serves_one_file_after_the_other_and_knows_no_password(monkeypatch):
    child_process.end_children()
    monkeypatch.setenv("ELASTICSEARCH_API_KEY", "secret")
    (first, _), (second, _) = call(echo), call(echo)
    assert first["pid"] == second["pid"] != os.getpid()
    assert "ELASTICSEARCH_API_KEY" not in first["variables"]


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux bounds a process's memory")
def test_a_child_gets_the_memory_that_the_picture_needs_and_no_more():
    assert call(swallow, size=100 << 20)[0] == {"length": 100 << 20}
    with pytest.raises(PictureError, match="memory"):
        call(swallow, size=1 << 30)
    assert call(echo)[1] == b"x"


def test_a_crash_of_a_decoder_is_a_sentence():
    with pytest.raises(PictureError, match="crashed"):
        call(crash)
    assert call(echo)[1] == b"x"


def test_children_end_with_the_process_that_started_them():
    code = (
        "from test_budgets import call, echo; import os; print(call(echo)[0]['pid'], flush=True); os._exit(0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
    )
    deadline = time.monotonic() + PATIENCE_S
    while psutil.pid_exists(int(done.stdout)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_pictures_wait_for_room_in_their_order():
    budget, order, holding = Budget(10), [], threading.Event()

    def take(name: str, weight: int) -> None:
        with budget.room(weight):
            order.append(name)

    threads = [threading.Thread(target=take, args=each) for each in (("large", 10), ("small", 1))]
    with budget.room(5):
        for number, thread in enumerate(threads, 1):
            thread.start()
            while len(budget._line) < number:
                holding.wait(0.001)
        assert order == []
    for thread in threads:
        thread.join(PATIENCE_S)
    assert order == ["large", "small"]


def test_more_waiting_than_may_and_too_long_waiting_are_refused():
    budget = Budget(10, least=6, waiting=0, seconds=0.01)
    with budget.room(1):
        with pytest.raises(NoRoomError), budget.room(1):  # it counts 6
            pass
        patient = Budget(10, waiting=1, seconds=0.01)
        with patient.room(99), pytest.raises(NoRoomError), patient.room(1):  # 99 is all there is
            pass
        with patient.room(10):
            pass
    with budget.room(1):
        pass


def test_a_search_without_room_is_asked_to_come_again():
    busy = replace(REQUESTS, budget=Budget(REQUESTS.budget.size, waiting=0))
    data = saved(draw_picture(1), "JPEG")
    with (
        busy.budget.room(busy.budget.size),
        pytest.raises(BusyError) as refused,
        opened_picture(data, limits=busy),
    ):
        pass
    assert refused.value.retry_after_s > 0
    with opened_picture(data, limits=busy) as image:
        assert image.size == (160, 120)


def test_the_largest_picture_of_a_request_fits_in_the_budget():
    for form, mode in (("WEBP", "RGBA"), ("PNG", "RGBA")):
        data = saved(Image.new(mode, (10, 10)), form)
        with open_image(data) as image:
            each = memory_of(image, data) // 100
        side = int((REQUESTS.budget.size // each) ** 0.5)
        with open_image(saved(Image.new(mode, (side, side)), form)) as image:
            REQUESTS.check(image, data)
            assert memory_of(image, data) <= 900 << 20


def test_a_dear_bad_file_stops_no_run_and_shifts_no_vector(tmp_path):
    good = [decode(content(save_picture(tmp_path / f"{n}.png", n).read_bytes()), path=None) for n in range(2)]
    cut = saved(draw_picture(5), "AVIF")
    with pytest.raises(UnreadableImageError, match="damaged"):
        decode(content(cut[: len(cut) // 2]), path=None)
    again = decode(content((tmp_path / "0.png").read_bytes()), path=None)
    assert again.phash == good[0].phash != good[1].phash


def test_the_allocator_is_told_wherever_this_runs():
    give_memory_back()
