"""Queries: their parameters, their form in an address, and the files that count as pictures."""

from __future__ import annotations

import io
import struct
import zlib
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from es_config.requests import Filters
from search_app.core.parts import decode_vector, encode_vector
from search_app.core.pictures import opened_picture
from search_app.core.query import (
    Query,
    default_candidates,
    load_query,
    query_arguments,
)
from search_app.errors import QueryError


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({}, "The query is empty"),
        ({"text": " \n "}, "The query is empty"),
        ({"image": b""}, "The query is empty"),
        ({"image": b"", "sort": "newest"}, "The query is empty"),
        ({"like": "", "filters": Filters(tag="x")}, "The query is empty"),
        ({"sort": "relevance"}, "choose another sort"),
        ({"text": "a", "sort": "shuffled"}, "choose one of: relevance, newest, oldest, name, added"),
        ({"text": "a", "like": "b"}, "A question of several things has parts"),
        ({"text": "x" * 10_000}, "10000 characters; at most 1000"),
        ({"text": "\ud800"}, "not valid Unicode"),
        ({"text": "a", "k": 0}, "k must be between 1 and 10000, and it is 0."),
        ({"text": "a", "k": 10_001}, "k must be between"),
        ({"text": "a", "num_candidates": 9}, r"between k \(10\) and 10000, and it is 9."),
        ({"text": "a", "num_candidates": 10_001}, "num_candidates must be"),
        ({"text": "a", "page": 0}, "page must be between 1 and 1000"),
        ({"text": "a", "k": 100, "page": 101}, "page must be between 1 and 100, and it is 101"),
        ({"text": "a", "mode": "sound"}, "choose one of: image, caption"),
        ({"vector": (0.0, 0.0)}, "only zeros"),
        ({"vector": (1.0, float("nan"))}, "not finite"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_a_sentence(asked, sentence):
    with pytest.raises(QueryError, match=sentence):
        Query(**asked)


def test_filters_or_a_sort_alone_list_the_newest_first():
    for asked in ({"filters": Filters(tag="x")}, {"sort": "newest"}, {"text": " ", "sort": "newest"}):
        assert (Query(**asked).is_listing, Query(**asked).order) == (True, "newest")
    assert Query(filters=Filters(tag="x"), sort="name").order == "name"
    assert (Query(text="a").is_listing, Query(text="a").order) == (False, "relevance")


def test_a_question_in_another_order_sorts_the_same_hits_on_every_page():
    pages = [Query(text="a", k=24, page=page, num_candidates=30, sort="name").nearest() for page in (1, 3)]
    assert pages == [Query(text="a", k=100, num_candidates=100)] * 2
    assert Query(text="a", k=250, sort="name").nearest().k == 250


def test_a_page_is_the_end_of_a_longer_answer():
    assert Query(text="a", k=24, page=3).depth == 72


@pytest.mark.parametrize(
    ("depth", "candidates"),
    [(1, 100), (10, 100), (50, 100), (51, 200), (100, 200), (101, 400), (3000, 6400), (9000, 10_000)],
)
def test_candidates_are_at_least_twice_the_neighbours_in_coarse_steps(depth, candidates):
    assert default_candidates(depth) == candidates


@given(
    st.fixed_dictionaries(
        {"q": st.text("abc &=?#ñ猫", min_size=1).filter(str.strip)},
        optional={
            "k": st.integers(1, 99),
            "page": st.integers(1, 99),
            "num_candidates": st.integers(99, 10_000),
            "mode": st.sampled_from(["image", "caption"]),
            "sort": st.sampled_from(["newest", "oldest", "name", "added"]),
            "exact": st.booleans(),
            "date_from": st.dates(max_value=date(2000, 1, 1)),
            "date_to": st.dates(min_value=date(2000, 1, 2)),
            "place": st.just("-48.85,2.35,10km"),
            "camera": st.text("xyz ", min_size=1),
            "tag": st.text("xyz ", min_size=1),
            "path": st.text("/*ab", min_size=1),
        },
    )
)
def test_an_address_gives_its_query_again(arguments):
    query = load_query({name: str(value) for name, value in arguments.items()}, k=24)
    assert load_query(query_arguments(query, k=24), k=24) == query


def test_the_parameters_become_the_query():
    query = load_query(
        {
            "q": " a red boat ",
            "k": "5",
            "exact": "true",
            "date_from": "2020-01-31",
            "place": "48.8, 2.3, 10km",
        },
        k=10,
    )
    filters = Filters(date_from=date(2020, 1, 31), place=(48.8, 2.3, "10km"))
    assert query == Query(text="a red boat", k=5, exact=True, filters=filters)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"q": "a", "kk": "1"}, "There is no parameter 'kk'."),
        ({"q": "a", "k": "many"}, "k: Not a valid integer."),
        ({"q": "a", "k": "1e9999"}, "k: Not a valid integer."),
        ({"q": "a", "date_from": "yesterday"}, "date_from: Not a valid date."),
        ({"q": "a", "date_from": "2021-01-02", "date_to": "2021-01-01"}, "date_from is later than date_to"),
        ({"q": "a", "exact": "perhaps"}, "exact: Not a valid boolean."),
        ({"q": "a", "mode": "x"}, "There is no mode 'x'; choose one of: image, caption, words, hybrid."),
        ({"q": "a", "camera": "x" * 201}, "camera has 201 characters; at most 200 are allowed."),
        ({"q": "a", "min_relevance": "good"}, "min_relevance is strong or weak, not 'good'."),
        ({"q": "a", "place": "91,0,1km"}, "place must be a name like Lisbon, or latitude,longitude,distance"),
        ({"q": "a", "place": "1,2,near"}, "place must be a name like Lisbon, or latitude,longitude,distance"),
        ({"vector": "A"}, "base64url"),
        ({"vector": "AAA"}, "only zeros"),
        ({"vector": ["1", 2]}, "array of 1 to 4096 numbers"),
        ({"vector": []}, "array of 1 to 4096 numbers"),
        ({"vector": [True]}, "array of 1 to 4096 numbers"),
        ({"vector": [10**400]}, "too large"),
        ({"vector": {"a": 1}}, "array of 1 to 4096 numbers"),
    ],
)
def test_garbled_parameters_are_named(arguments, sentence):
    with pytest.raises(QueryError, match=sentence):
        load_query(arguments, k=10)


@pytest.mark.parametrize(("dims", "characters"), [(128, 342), (512, 1366)])
def test_a_vector_survives_its_address(dims, characters):
    vector = np.random.default_rng(3).normal(size=dims)
    text = encode_vector(vector / np.linalg.norm(vector))
    assert len(text) == characters
    assert np.dot(decode_vector(text), vector / np.linalg.norm(vector)) > 0.999999


def open_picture(data: bytes) -> Image.Image:
    """Return a picture as a query has it."""
    with opened_picture(data) as image:
        return image


def picture(form: str, size=(40, 20), mode="RGB", colour="red", **options) -> bytes:
    """Return a picture file's content."""
    data = io.BytesIO()
    Image.new(mode, size, colour).save(data, form, **options)
    return data.getvalue()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF"])
def test_every_common_format_is_a_picture(form):
    image = open_picture(picture(form))
    assert (image.mode, image.size) == ("RGB", (40, 20))
    assert image.getpixel((20, 10))[0] > 200


def test_a_picture_stands_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert open_picture(picture("JPEG", exif=exif)).size == (20, 40)


def test_see_through_parts_are_white():
    assert open_picture(picture("PNG", mode="RGBA", colour=(255, 0, 0, 0))).getpixel((0, 0)) == (
        255,
        255,
        255,
    )


def test_sixteen_bits_become_eight():
    assert open_picture(picture("PNG", mode="I;16", colour=257 * 100)).getpixel((0, 0)) == (100, 100, 100)


def test_a_large_photograph_is_reduced_and_keeps_its_shape():
    exif = Image.Exif()
    exif[0x0112] = 6
    image = open_picture(picture("JPEG", size=(4000, 3000), exif=exif))
    assert image.width < image.height
    assert 384 <= image.width < 1000


def png_of(width: int, height: int) -> bytes:
    """Return a tiny PNG file that says it is `width` × `height`."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("side", "limit"),
    [(50_000, "200 million pixels;"), (12_600, "157 million pixels, the most")],
)
def test_a_decompression_bomb_is_refused_by_its_header(side, limit):
    with pytest.raises(QueryError, match=f"more than {limit}"):
        open_picture(png_of(side, side))


@pytest.mark.parametrize(
    "data",
    [
        b"GIF89a",
        b"hello",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        picture("JPEG", size=(300, 300))[:400],
        Path(__file__).read_bytes(),
    ],
)
def test_what_is_no_whole_picture_is_refused(data):
    with pytest.raises(QueryError, match="not a picture|damaged"):
        open_picture(data)
