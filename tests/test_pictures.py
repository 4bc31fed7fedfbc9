"""A picture of any kind is read upright, in RGB, with its EXIF data. A bad one is refused in words."""

from __future__ import annotations

import hashlib
import io
import os
import socket
import struct
import subprocess
import sys
import zlib
from datetime import UTC, datetime, timedelta, timezone

import imagehash
import numpy as np
import pytest
from cost import processor_s
from hypothesis import given, settings
from hypothesis import strategies as st
from picture_files import (
    WIDE_COLOURS,
    draw_picture,
    ink_profile,
    png_header,
    png_rgb16,
    rgb_profile,
    save_picture,
    tiff_of_planes,
    truncate,
    unprivileged,
)
from PIL import Image, ImageCms
from PIL.TiffImagePlugin import IFDRational

from ingest.errors import UnreadableImageError
from ingest.files.metadata import camera_data
from ingest.files.picture import FileContent, decode, pixel_limit, read_image, thumbnail
from models import pixels
from models.pixels import LARGEST_TEXT, LARGEST_TEXTS, open_image, register_formats

FORMATS = ["jpg", "png", "webp", "gif", "bmp", "tif", "heic", "avif", "jxl"]
OPTIONS = {
    "jpg": {"quality": 95},
    "webp": {"lossless": True},
    "heic": {"quality": 95},
    "avif": {"quality": 95},
    "jxl": {"lossless": True},
}


def read(path):
    return read_image(path)


def exif(tags: dict, *, camera: dict | None = None, gps: dict | None = None) -> Image.Exif:
    """Return EXIF as a reader finds it: written to bytes and read back."""
    made = Image.Exif()
    made.update(tags)
    made.get_ifd(0x8769).update(camera or {})
    made.get_ifd(0x8825).update(gps or {})
    found = Image.Exif()
    found.load(made.tobytes())
    return found


def difference(one: Image.Image, other: Image.Image) -> float:
    """Return the mean absolute difference of two pictures' values, 0 to 255."""
    return float(np.abs(np.asarray(one, np.int16) - np.asarray(other, np.int16)).mean())


@pytest.mark.parametrize("extension", FORMATS)
def test_every_format_gives_the_pixels_that_were_drawn(tmp_path, extension):
    register_formats()
    path = save_picture(tmp_path / f"x.{extension}", 3, **OPTIONS.get(extension, {}))
    picture = read(path)
    assert picture.image.mode == "RGB"
    assert (picture.width, picture.height) == picture.image.size == (160, 120)
    assert picture.size_bytes == path.stat().st_size
    assert picture.image_id == hashlib.sha256(path.read_bytes()).hexdigest()
    assert difference(picture.image, draw_picture(3)) < 4


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "tif"])
def test_pictures_are_turned_upright(tmp_path, extension, orientation):
    upright = draw_picture(5)
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the Pillow transposition that each orientation mends
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    tags = Image.Exif()
    tags[274] = orientation
    stored.save(tmp_path / f"x.{extension}", exif=tags, **OPTIONS.get(extension, {}))
    picture = read(tmp_path / f"x.{extension}")
    assert (picture.width, picture.height) == (160, 120)
    assert difference(picture.image, upright) < 4


def test_transparent_pixels_are_white(tmp_path):
    image = Image.new("RGBA", (20, 20), (255, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, 10, 20))
    image.save(tmp_path / "alpha.png")
    image.quantize(8).save(tmp_path / "palette.png")
    image.save(tmp_path / "first.gif")
    image.convert("LA").save(tmp_path / "grey.png")
    for name in ("alpha.png", "palette.png", "first.gif", "grey.png"):
        assert read(tmp_path / name).image.getpixel((2, 2)) == (255, 255, 255), name
    assert read(tmp_path / "palette.png").image.getpixel((15, 2)) == (255, 0, 0)


@pytest.mark.parametrize("name", ["grey.png", "grey.tif"])
def test_sixteen_bits_become_eight(tmp_path, name):
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16)
    Image.fromarray(np.tile(ramp, (4, 1))).save(tmp_path / name)
    assert np.abs(np.asarray(read(tmp_path / name).image)[0, :, 0] - np.arange(256.0)).max() <= 1


def test_floats_and_wide_integers_become_eight_bits(tmp_path):
    Image.fromarray(np.tile(np.linspace(0, 1, 256, dtype=np.float32), (4, 1))).save(tmp_path / "unit.tif")
    Image.fromarray(np.tile(np.linspace(-9, 7, 256, dtype=np.float32), (4, 1))).save(tmp_path / "any.tif")
    Image.fromarray(np.tile(np.arange(256, dtype=np.int32), (4, 1))).save(tmp_path / "int.tif")
    Image.fromarray(np.full((4, 4), np.nan, np.float32)).save(tmp_path / "nan.tif")
    for name in ("unit.tif", "any.tif", "int.tif"):
        assert np.abs(np.asarray(read(tmp_path / name).image)[0, :, 0] - np.arange(256.0)).max() <= 1, name
    assert read(tmp_path / "nan.tif").image.size == (4, 4)


@pytest.mark.parametrize("mode", ["CMYK", "L", "1", "P", "YCbCr"])
def test_other_colour_models_become_rgb(tmp_path, mode):
    Image.new("RGB", (32, 32), (255, 0, 0)).convert(mode).save(tmp_path / "x.tif")
    pixel = read(tmp_path / "x.tif").image.getpixel((5, 5))
    assert pixel[0] > 250 if mode in ("CMYK", "P", "YCbCr") else len(set(pixel)) == 1


@pytest.mark.parametrize("name", ["x.jpg", "x.tif"])
def test_inks_are_seen_as_their_colour_profile_prints_them(tmp_path, name):
    image = Image.new("CMYK", (64, 64), (0, 255, 255, 0))
    image.paste((0, 0, 0, 0), (0, 0, 32, 64))
    image.save(tmp_path / name, icc_profile=ink_profile())
    paper, ink = (read(tmp_path / name).image.getpixel((x, 5)) for x in (5, 60))
    assert min(paper) > 240
    assert ink[1] > ink[0] + 20
    assert ink[1] > ink[2] + 20
    assert "icc_profile" not in read(tmp_path / name).image.info


def test_a_colour_profile_that_does_not_fit_is_left_aside(tmp_path):
    rgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for name, profile in (("a.jpg", rgb), ("b.jpg", b"no profile")):
        Image.new("CMYK", (32, 32), (0, 255, 255, 0)).save(tmp_path / name, icc_profile=profile)
        assert read(tmp_path / name).image.getpixel((5, 5))[0] > 200


@pytest.mark.parametrize("form", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("name", WIDE_COLOURS)
def test_wide_colours_are_seen_and_kept_as_srgb(tmp_path, name, form):
    srgb, wide = ImageCms.createProfile("sRGB"), rgb_profile(name)
    image = draw_picture(3, size=(640, 480))
    converted = ImageCms.profileToProfile(
        image, srgb, ImageCms.ImageCmsProfile(io.BytesIO(wide)), outputMode="RGB"
    )
    exact = (
        {"lossless": True} if form == "webp" else {"quality": 98, "subsampling": 0} if form == "jpg" else {}
    )
    converted.save(tmp_path / f"x.{form}", icc_profile=wide, **exact)
    image.save(tmp_path / f"y.{form}", icc_profile=ImageCms.ImageCmsProfile(srgb).tobytes(), **exact)
    seen, twin = read(tmp_path / f"x.{form}"), read(tmp_path / f"y.{form}")
    assert difference(converted, image) > 4
    assert difference(seen.image, image) < 2
    assert (int(seen.phash, 16) ^ int(twin.phash, 16)).bit_count() <= 2
    assert (
        difference(Image.open(io.BytesIO(thumbnail(seen.image))).convert("RGB"), image.resize((512, 384))) < 9
    )


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_a_profile_that_exchanges_colours_is_followed_in_every_mode(tmp_path, mode):
    Image.new("RGB", (64, 64), (200, 10, 10)).convert(mode).save(
        tmp_path / "x.png", icc_profile=rgb_profile("Display P3", swapped=True)
    )
    red, green, blue = read(tmp_path / "x.png").image.getpixel((5, 5))
    assert green > 150
    assert max(red, blue) < 100


def test_a_profile_of_srgb_changes_no_pixel(tmp_path):
    image = draw_picture(5)
    image.save(
        tmp_path / "x.png", icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    )
    image.save(tmp_path / "y.png", icc_profile=b"no profile at all")
    for name in ("x.png", "y.png"):
        assert difference(read(tmp_path / name).image, image) == 0


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("form", ["png", "tif"])
def test_fewer_bits_within_sixteen_are_no_night(tmp_path, bits, form):
    values = np.tile(np.linspace(0, 2**bits - 1, 256).round().astype(np.uint16), (4, 1))
    Image.fromarray(values).save(tmp_path / f"x.{form}")
    assert np.abs(np.asarray(read(tmp_path / f"x.{form}").image)[0, :, 0] - np.arange(256.0)).max() <= 1


@pytest.mark.parametrize("kind", ["zTXt", "iTXt", "iCCP", "tEXt"])
def test_a_large_text_in_a_png_costs_itself_and_not_the_picture(tmp_path, kind):
    text = b"{" + b"a workflow " * 300_000
    body = {
        "zTXt": b"workflow\0\0" + zlib.compress(text),
        "iTXt": b"workflow\0\1\0\0\0" + zlib.compress(text),
        "iCCP": b"profile\0\0" + zlib.compress(text),
        "tEXt": b"workflow\0" + text,
    }[kind]
    save_picture(tmp_path / "x.png", 2)
    data = (tmp_path / "x.png").read_bytes()
    chunk = struct.pack(">I", len(body)) + kind.encode() + body
    chunk += struct.pack(">I", zlib.crc32(chunk[4:]))
    for place in (33, len(data) - 12):  # behind the header, and before the end
        (tmp_path / "y.png").write_bytes(data[:place] + chunk + data[place:])
        assert difference(read(tmp_path / "y.png").image, draw_picture(2)) == 0


def test_of_thousands_of_packed_texts_no_more_is_unpacked_than_there_is_room_for(tmp_path, monkeypatch):
    """Unpacked whole, these four megabytes would be four gigabytes."""
    body = b"x\0\0" + zlib.compress(bytes(LARGEST_TEXT), 9)
    chunk = struct.pack(">I", len(body)) + b"zTXt" + body
    chunk += struct.pack(">I", zlib.crc32(chunk[4:]))
    save_picture(tmp_path / "x.png", 2)
    data = (tmp_path / "x.png").read_bytes()
    unpacked, unpack = [], pixels._text_size

    def counted(*chunk: bytes) -> int:
        unpacked.append(chunk)
        return unpack(*chunk)

    monkeypatch.setattr(pixels, "_text_size", counted)
    opened = open_image(data[:33] + 4000 * chunk + data[33:])
    assert opened.size == draw_picture(2).size
    assert len(unpacked) <= LARGEST_TEXTS // LARGEST_TEXT + 1


def test_a_jpeg_that_is_nearly_whole_is_kept_and_a_shorter_one_refused(tmp_path):
    save_picture(tmp_path / "whole.jpg", 9, quality=90)
    data = (tmp_path / "whole.jpg").read_bytes()
    assert data.endswith(b"\xff\xd9")
    for cut in (data[:-2], data[: int(len(data) * 0.97)]):
        (tmp_path / "x.jpg").write_bytes(cut)
        seen = np.asarray(read(tmp_path / "x.jpg").image, int)[:100]
        assert np.abs(seen - np.asarray(read(tmp_path / "whole.jpg").image)[:100]).mean() < 1
    (tmp_path / "x.jpg").write_bytes(data[: int(len(data) * 0.6)])
    with pytest.raises(UnreadableImageError, match="cut short"):
        read(tmp_path / "x.jpg")


def test_kinds_of_tiff_that_are_not_read_are_not_called_damaged(tmp_path):
    planes = np.moveaxis(np.asarray(draw_picture(1)), -1, 0).astype(np.uint16) * 257
    for name, bits, form, data in (
        ("planes.tif", 16, 1, planes.tobytes()),
        ("floats.tif", 32, 3, (planes / 65535).astype(np.float32).tobytes()),
    ):
        (tmp_path / name).write_bytes(tiff_of_planes(160, 120, data, bits=bits, sample_format=form))
        with pytest.raises(UnreadableImageError, match="a kind of TIFF that is not read"):
            read(tmp_path / name)


def test_jpeg_xl_is_read_and_named_where_its_decoder_is_missing(tmp_path):
    register_formats()
    draw_picture(4).save(tmp_path / "x.jxl", lossless=True)
    assert difference(read(tmp_path / "x.jxl").image, draw_picture(4)) == 0
    program = (
        "import sys; sys.modules['pillow_jxl'] = None; from pathlib import Path;"
        " from ingest.files.picture import read_image; read_image(Path(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "x.jxl")], capture_output=True, text=True, check=False
    )
    assert "a JPEG XL file: `pip install pillow-jxl-plugin` to read it" in done.stderr
    (tmp_path / "x.jxl").write_bytes(b"\xff\x0a" + bytes(range(256)))
    with pytest.raises(UnreadableImageError, match=r"^damaged or cut short$"):
        read(tmp_path / "x.jxl")


def test_lab_pictures_become_rgb(tmp_path):
    to_lab = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
    )
    ImageCms.applyTransform(draw_picture(4), to_lab).save(tmp_path / "x.tif")
    assert difference(read(tmp_path / "x.tif").image, draw_picture(4)) < 4


def test_sixteen_bits_of_each_colour_become_eight(tmp_path):
    values = np.asarray(draw_picture(6)).astype(">u2") * 257
    (tmp_path / "x.png").write_bytes(png_rgb16(values))
    assert difference(read(tmp_path / "x.png").image, draw_picture(6)) <= 1


def test_the_first_frame_of_an_animation_counts(tmp_path):
    frames = [draw_picture(seed) for seed in (1, 2, 3)]
    frames[0].save(tmp_path / "x.webp", save_all=True, append_images=frames[1:], lossless=True)
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    assert difference(read(tmp_path / "x.webp").image, frames[0]) < 4
    assert difference(read(tmp_path / "x.gif").image, frames[0]) < 12


def test_a_picture_with_the_wrong_extension_is_read_by_its_content(tmp_path):
    save_picture(tmp_path / "x.png", 1).rename(tmp_path / "x.jpg")
    assert read(tmp_path / "x.jpg").image.size == (160, 120)


@pytest.mark.parametrize("extension", ["jpg", "png"])
def test_large_pictures_keep_their_size_on_record_and_lose_only_pixels_nobody_sees(tmp_path, extension):
    large = draw_picture(8).resize((3200, 2400))
    large.save(tmp_path / f"x.{extension}")
    picture = read(tmp_path / f"x.{extension}")
    assert (picture.width, picture.height) == (3200, 2400)
    assert 384 <= min(picture.image.size) < 1000
    assert difference(picture.image.resize((160, 120)), draw_picture(8)) < 4


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (3, 5), (5000, 2)])
def test_tiny_and_thin_pictures_are_pictures(tmp_path, size):
    Image.new("RGB", size, "red").save(tmp_path / "x.png")
    picture = read(tmp_path / "x.png")
    assert (picture.width, picture.height) == size
    data = thumbnail(picture.image)
    small = Image.open(io.BytesIO(data))
    assert max(small.size) <= 2048
    assert small.width * small.height <= 512 * 512


def test_the_thumbnail_of_a_panorama_has_something_to_see():
    for size, seen in (((4000, 500), (1024, 128)), ((300, 6000), (102, 2048)), ((1024, 256), (512, 128))):
        assert Image.open(io.BytesIO(thumbnail(Image.new("RGB", size)))).size == seen


def test_a_thumbnail_is_a_small_webp_without_the_metadata_of_the_original(tmp_path):
    tags = Image.Exif()
    tags[270] = "my home address"
    draw_picture(2).resize((1600, 1200)).save(tmp_path / "x.jpg", exif=tags)
    data = thumbnail(read(tmp_path / "x.jpg").image)
    made = Image.open(io.BytesIO(data))
    assert (made.format, made.size) == ("WEBP", (512, 384))
    assert b"my home address" not in data
    assert difference(made.convert("RGB").resize((160, 120)), draw_picture(2)) < 5


def test_a_small_picture_is_not_blown_up():
    assert Image.open(io.BytesIO(thumbnail(draw_picture(2)))).size == (160, 120)


def test_alike_pictures_have_alike_perceptual_hashes(tmp_path):
    hashes = []
    for name, seed, options in (("a.png", 1, {}), ("b.jpg", 1, {"quality": 40}), ("c.png", 2, {})):
        hashes.append(imagehash.hex_to_hash(read(save_picture(tmp_path / name, seed, **options)).phash))
    assert hashes[0] - hashes[1] <= 4
    assert hashes[0] - hashes[2] >= 12


SHARES = [0.1, 0.25, 0.5, 0.75, 0.95]


@pytest.mark.parametrize(
    ("extension", "share"),
    [(name, share) for name in FORMATS for share in SHARES if (name, share) != ("jpg", 0.95)],
)
def test_a_truncated_file_is_refused_not_half_loaded(tmp_path, extension, share):
    register_formats()
    path = truncate(save_picture(tmp_path / f"x.{extension}", 3), share)
    with pytest.raises(UnreadableImageError, match="damaged or cut short"):
        read(path)


def test_an_empty_file_and_one_that_is_no_picture_are_refused(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("hello")
    with pytest.raises(UnreadableImageError, match="the file is empty"):
        read(tmp_path / "empty.jpg")
    with pytest.raises(UnreadableImageError, match="not a picture in a known format"):
        read(tmp_path / "text.jpg")


def test_formats_that_run_programs_are_not_opened(tmp_path):
    (tmp_path / "x.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")
    with pytest.raises(UnreadableImageError, match="not a picture in a known format"):
        read(tmp_path / "x.png")


def test_a_decompression_bomb_is_refused_by_its_header_at_once(tmp_path):
    register_formats()
    (tmp_path / "bomb.png").write_bytes(png_header(50_000, 50_000))

    def refuse() -> None:
        with pytest.raises(UnreadableImageError, match="2500 megapixels are over the limit of 200"):
            read(tmp_path / "bomb.png")

    assert processor_s(refuse) < 0.5


def test_the_limit_of_pixels_can_be_moved_both_ways(tmp_path):
    save_picture(tmp_path / "small.png", 1)
    (tmp_path / "large.png").write_bytes(png_header(15_000, 20_000))
    with (
        pixel_limit(10_000),
        pytest.raises(UnreadableImageError, match="0.0192 megapixels are over .* 0.01 "),
    ):
        read_image(tmp_path / "small.png", max_pixels=10_000)
    with pixel_limit(400_000_000), pytest.raises(UnreadableImageError, match="damaged or cut short"):
        read_image(tmp_path / "large.png", max_pixels=400_000_000)


def test_pipes_sockets_and_devices_are_refused_without_waiting(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(tmp_path)  # the whole path may be longer than the 107 bytes of an address
        listener.bind("s.png")
        (tmp_path / "device.png").symlink_to("/dev/zero")
        for name in ("pipe.png", "s.png", "device.png"):
            with pytest.raises(UnreadableImageError, match="not a regular file"):
                read(tmp_path / name)


def test_files_that_are_gone_closed_or_linked_in_a_circle_are_refused_in_words(tmp_path):
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    with pytest.raises(UnreadableImageError, match="leads back to itself"):
        read(tmp_path / "loop.png")
    with pytest.raises(UnreadableImageError, match="the file vanished before it was read"):
        read(tmp_path / "gone.png")
    with unprivileged() as folder:
        save_picture(folder / "x.png", 1).chmod(0)
        with pytest.raises(UnreadableImageError, match="permission denied"):
            read(folder / "x.png")


def test_a_file_over_the_limit_of_bytes_is_refused_unread(tmp_path):
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(3 << 30)  # sparse
    with pytest.raises(UnreadableImageError, match="larger than 1024 MiB"):
        read(tmp_path / "huge.png")


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_bytes_are_a_picture_or_a_reason_and_nothing_else(data):
    register_formats()
    extension = data.draw(st.sampled_from(FORMATS))
    memory = io.BytesIO()
    kind = {"jpg": "JPEG", "tif": "TIFF", "heic": "HEIF"}.get(extension, extension.upper())
    draw_picture(1, size=(40, 30)).save(memory, kind)
    damaged = bytearray(memory.getvalue())
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    content = FileContent(bytes(damaged), "0" * 64)
    try:
        with pixel_limit(10_000_000):
            picture = decode(content, path=None, max_pixels=10_000_000)
    except UnreadableImageError as error:
        picture = None
        reason = str(error)
    if picture is None:
        assert reason
    else:
        assert picture.image.mode == "RGB"


def test_the_date_is_the_one_of_the_taking_with_its_offset():
    facts = camera_data(
        exif({306: "2022:01:01 00:00:00"}, camera={36867: "2021:06:30 23:15:08", 36881: "+02:00"})
    )
    assert facts.date == datetime(2021, 6, 30, 23, 15, 8, tzinfo=timezone(timedelta(hours=2)))


def test_a_date_without_an_offset_is_utc_and_a_senseless_one_gives_way_to_the_next():
    assert camera_data(exif({306: "2021:06:30 23:15:08"})).date == datetime(
        2021, 6, 30, 23, 15, 8, tzinfo=UTC
    )
    damaged = exif({306: "2021:06:30 23:15:08"}, camera={36867: "0000:00:00 00:00:00", 36868: "soon"})
    assert camera_data(damaged).date == datetime(2021, 6, 30, 23, 15, 8, tzinfo=UTC)
    assert camera_data(exif({306: "    :  :     :  :  "})).date is None


@pytest.mark.parametrize("offset", ["+99:99", "-24:00", "02:00", "?"])
def test_a_damaged_offset_costs_the_offset_and_not_the_date(offset):
    facts = camera_data(exif({}, camera={36867: "2021:06:30 23:15:08", 36881: offset}))
    assert facts.date == datetime(2021, 6, 30, 23, 15, 8, tzinfo=UTC)


def test_the_place_is_signed_decimal_degrees():
    gps = {1: "S", 2: (33.0, 51.0, 30.0), 3: "W", 4: (151.0, 12.0, 36.0)}
    assert camera_data(exif({}, gps=gps)).location == (-33.8583333, -151.21)


@pytest.mark.parametrize(
    "gps",
    [
        {1: "N", 2: (0.0, 0.0, 0.0), 3: "E", 4: (0.0, 0.0, 0.0)},
        {1: "N", 2: (91.0, 0.0, 0.0), 3: "E", 4: (0.0, 0.0, 0.0)},
        {1: "N", 2: (10.0, 0.0, 0.0)},
        {1: "N", 2: (IFDRational(1, 0), 0.0, 0.0), 3: "E", 4: (1.0, 0.0, 0.0)},
    ],
)
def test_a_place_that_makes_no_sense_is_none(gps):
    assert camera_data(exif({}, gps=gps)).location is None


@pytest.mark.parametrize(
    ("make", "model", "camera"),
    [
        ("Canon", "Canon EOS 5D", "Canon EOS 5D"),
        ("NIKON CORPORATION", "NIKON D90", "NIKON D90"),
        ("Apple", "iPhone 12 ", "Apple iPhone 12"),
        ("", "X100", "X100"),
        ("SONY\0\0", "", "SONY"),
        ("", "", None),
    ],
)
def test_the_camera_is_named_once(make, model, camera):
    assert camera_data(exif({271: make, 272: model})).camera == camera


@pytest.mark.parametrize(
    "boilerplate",
    [
        "",
        "   ",
        "OLYMPUS DIGITAL CAMERA         ",
        "SONY DSC",
        "KONICA MINOLTA DIGITAL CAMERA",
        "cof_vivid",
        "DSC_0042",
        "SAMSUNG CAMERA PICTURES",
        "Exif_JPEG_PICTURE",
        "KODAK Digital Still Camera",
        "MINOLTA DIGITAL CAMERA",
        "BENQ DIGITAL CAMERA",
        "Digital Camera",
        "DCIM",
        "DCIM\\100MEDIA\\DJI_0042.JPG",
        "<KENOX S760  / Samsung S760>",
        "20190102_101010",
        "WP_20140101_001",
        "IMG_1234.JPG",
        "Photo",
        "default",
    ],
)
def test_what_a_camera_writes_into_every_picture_is_no_caption(boilerplate):
    assert camera_data(exif({270: boilerplate})).description is None


@pytest.mark.parametrize(
    "caption",
    [
        "north pole",
        "A boy with a digital camera",
        "Sanyo, my dog",
        "Photo of 2 cats",
        "Image 3: sea",
        "Grüße aus Köln",
        "два кота",
        "P. 12 boats",
    ],
)
def test_what_a_person_wrote_is_the_caption(caption):
    assert camera_data(exif({270: caption.encode()})).description == caption


def test_damaged_exif_does_not_cost_the_picture(tmp_path):
    draw_picture(1).save(tmp_path / "x.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xfe" * 300)
    with pixel_limit(1_000_000):  # which keeps Pillow's warning to itself
        assert read(tmp_path / "x.jpg").image.size == (160, 120)
