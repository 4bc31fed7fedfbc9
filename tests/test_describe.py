"""`glimpse describe`: words for any picture, with and without an index."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from gallery import NAMED, jpeg

import glimpse
from demo.world.scene import Group, Scene

UNSEEN = Scene("sea", "sunny", (Group("boat", "red", 2),), None, 99)


@pytest.fixture
def run(node, gallery, tmp_path):
    """Type a command and return its result."""
    environment = {
        "ELASTICSEARCH_URL": node.url,
        "GLIMPSE_INDEX": gallery.alias,
        "GLIMPSE_TEXT_LANE": "local",
        "GLIMPSE_HOME": str(tmp_path),
    }

    def typed(*words, **changed):
        runner = CliRunner(env={**environment, **changed})
        return runner.invoke(glimpse.main, ["describe", *map(str, words)])

    return typed


@pytest.fixture
def photo(tmp_path):
    """A picture file that the index does not hold."""
    path = tmp_path / "photo.jpg"
    path.write_bytes(jpeg(UNSEEN, 256))
    return path


def test_a_picture_gets_a_caption_and_the_captions_nearest_to_it(run, photo):
    result = run(photo, "--k", 2)
    assert result.exit_code == 0, result.output
    caption, first, second = result.stdout.splitlines()
    assert "red boats" in caption
    similarity, said, path = first.split("\t")
    assert (path, said.startswith("a red boat")) == ("named/boat.jpg", True)
    assert 1 >= float(similarity) > float(second.split("\t")[0])


def test_json_holds_the_same(run, photo, gallery):
    described = json.loads(run(photo, "--json").stdout)
    assert list(described) == ["picture", "caption", "nearest"]
    assert described["picture"] == "photo.jpg"
    assert described["nearest"][0]["image_id"] == gallery.ids["boat"]
    assert len(described["nearest"]) == len(NAMED)


@pytest.mark.parametrize(
    "changed", [{"GLIMPSE_INDEX": "test-absent"}, {"ELASTICSEARCH_URL": "http://127.0.0.1:9"}]
)
def test_without_an_index_the_caption_comes_alone_with_a_warning(run, photo, changed):
    result = run(photo, **changed)
    assert result.exit_code == 0
    assert "red boats" in result.stdout
    assert len(result.stdout.splitlines()) == 1
    assert "Warning: no captions to compare with:" in result.stderr


@pytest.mark.parametrize(
    ("content", "sentence"), [(None, "There is no picture file"), (b"hello", "not a picture")]
)
def test_what_is_no_picture_is_a_sentence(run, tmp_path, content, sentence):
    path = tmp_path / "x.jpg"
    if content is not None:
        path.write_bytes(content)
    result = run(path)
    assert (result.exit_code, sentence in result.stderr, result.stdout) == (2, True, "")
