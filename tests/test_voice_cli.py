"""`glimpse search --voice`: words from a recording."""

from __future__ import annotations

import json

import numpy as np
import pytest
import recordings
from click.testing import CliRunner

import glimpse
from models.profiles import get_profile
from search_app.core.voice import MAX_RECORDING

SENTENCE = "a red boat on the sea"


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A file in which the sentence is said."""
    path = tmp_path_factory.mktemp("clips") / "clip.wav"
    path.write_bytes(recordings.packed(recordings.spoken(SENTENCE)))
    return path


@pytest.fixture(scope="module")
def environment(node, gallery, tmp_path_factory):
    """The environment variables by which the commands find the gallery."""
    return {
        "ELASTICSEARCH_URL": node.url,
        "GLIMPSE_INDEX": gallery.alias,
        "GLIMPSE_TEXT_LANE": "local",
        "GLIMPSE_HOME": str(tmp_path_factory.mktemp("home")),
    }


@pytest.fixture
def run(environment):
    """Type a command and return its result."""

    def typed(*words):
        return CliRunner(env=environment).invoke(glimpse.main, [str(word) for word in words])

    return typed


def test_a_spoken_query_finds_what_the_typed_one_finds(run, clip):
    spoken, typed = run("search", "--voice", clip, "--k", 5), run("search", SENTENCE, "--k", 5)
    assert spoken.exit_code == 0, spoken.output
    heard, read = ([line.split("\t") for line in each.stdout.splitlines()] for each in (spoken, typed))
    # The words are embedded twice: the last digit of a similarity may be rounded the other way.
    assert [float(row.pop(1)) for row in heard] == pytest.approx(
        [float(row.pop(1)) for row in read], abs=1e-3
    )
    assert heard == read
    assert heard[0][1] == "named/boat.jpg"
    assert spoken.stderr == f"Heard (English): {SENTENCE}\n"
    answer = json.loads(run("search", "--voice", clip, "--json").stdout)
    assert answer["query"] == SENTENCE


def test_a_recording_without_a_voice_is_a_sentence_and_exit_code_2(run, tmp_path):
    path = tmp_path / "quiet.wav"
    path.write_bytes(recordings.packed(recordings.silence(2)))
    result = run("search", "--voice", path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Nothing was heard" in result.stderr


def test_a_voice_that_is_not_understood_is_asked_to_say_it_again(run, tmp_path):
    path, babble = tmp_path / "babble.wav", [recordings.spoken("two cats")] * 7
    path.write_bytes(recordings.packed(np.concatenate(babble)))
    result = run("search", "--voice", path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "A voice was heard but not understood; say it again" in result.stderr


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"hello", "not a recording that can be read"),
        (b"", "empty"),
        (bytes(MAX_RECORDING + 1), "over the limit of 10 MB"),
        (None, "There is no recording"),
    ],
    ids=["text", "empty", "large", "absent"],
)
def test_a_file_that_is_no_recording_is_a_sentence_and_exit_code_2(run, tmp_path, data, sentence):
    path = tmp_path / "clip.wav"
    if data is not None:
        path.write_bytes(data)
    result = run("search", "--voice", path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert sentence in result.stderr


def test_a_voice_beside_words_or_a_picture_is_a_part_of_one_question(run, clip, gallery, tmp_path):
    cats = tmp_path / "cats.png"
    cats.write_bytes(gallery.files["cats"])
    alone = similarities(run("search", "--voice", clip, "--json", "-k", 2))
    for other in (["two black cats"], ["--image", cats], ["--minus", "two black cats"]):
        spoken = run("search", "--voice", clip, *other, "--json", "-k", 2)
        typed = run("search", "--text", SENTENCE, *other, "--json", "-k", 2)
        assert similarities(spoken) == pytest.approx(similarities(typed), abs=1e-3)
        assert similarities(spoken) != pytest.approx(alone, abs=1e-3)
        assert spoken.stderr == f"Heard (English): {SENTENCE}\n"


def similarities(result):
    """Return the similarity of each hit."""
    assert result.exit_code == 0, result.output
    return {hit["image_id"]: hit["similarity"] for hit in json.loads(result.stdout)["hits"]}


def test_the_voice_model_can_be_chosen_and_switched_off(run, clip, tmp_path):
    own = get_profile("pocket").voice_model
    assert SENTENCE in run("search", "--voice", clip, "--voice-model", own).stderr
    off = run("search", "--voice", clip, "--voice-model", "off")
    assert (off.exit_code, "needs a voice model" in off.stderr) == (2, True)
    unknown = run("search", "--voice", clip, "--voice-model", "huge")
    assert unknown.exit_code == 1
    assert "choose one of: tiny, base, small" in unknown.stderr
    assert run("serve", "--voice-model", "huge").exit_code == 1
    assert "not a voice model" in run("search", "--voice", clip, "--voice-model", tmp_path).stderr
