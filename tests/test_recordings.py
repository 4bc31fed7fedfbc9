"""Decoding the bytes that a recorder sends."""

import io
import os
import wave
from pathlib import Path

import numpy as np
import pytest
import recordings
from cost import processor_s

from models.voice import RATE, RecordingError, decode_recording


@pytest.fixture(scope="module")
def sentence():
    return recordings.spoken("two black cats in the desert at night")


def loudness(samples, parts=20):
    """Return the power of equal parts: a rough shape of the sound that no codec changes much."""
    return np.array([float((part**2).mean()) for part in np.array_split(samples, parts)])


@pytest.mark.parametrize("container", sorted(recordings.CODECS))
def test_every_container_gives_the_sound_that_was_recorded(sentence, container):
    heard = decode_recording(recordings.packed(sentence, container))
    assert heard.dtype == np.float32
    assert len(heard) / RATE == pytest.approx(len(sentence) / RATE, abs=0.1)
    assert np.corrcoef(loudness(heard), loudness(sentence))[0, 1] > 0.95


@pytest.mark.parametrize(("rate", "layout"), [(8_000, "mono"), (44_100, "stereo"), (48_000, "stereo")])
def test_telephone_and_stereo_sound_become_one_channel_of_16_khz(sentence, rate, layout):
    heard = decode_recording(recordings.packed(sentence, rate=rate, layout=layout))
    assert len(heard) / RATE == pytest.approx(len(sentence) / RATE, abs=0.05)
    assert np.corrcoef(loudness(heard), loudness(sentence))[0, 1] > 0.95


def test_the_sound_of_a_film_is_taken(sentence):
    heard = decode_recording(recordings.packed(sentence, "mp4", video=True))
    assert len(heard) / RATE == pytest.approx(len(sentence) / RATE, abs=0.1)


def test_a_wav_file_that_was_written_while_recording_has_no_length_and_is_read(sentence):
    data = bytearray(recordings.packed(sentence))
    at = data.index(b"data") + 4
    data[4:8] = data[at : at + 4] = b"\xff" * 4
    assert len(decode_recording(bytes(data))) == len(sentence)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"\0", "not a recording"),
        (b"hello " * 1000, "not a recording"),
        (b"\x89PNG\r\n\x1a\n" + bytes(2000), "not a recording"),
        (b"RIFF\0\0\0\0WAVE", "not a recording"),
        (b"#EXTM3U\n#EXTINF:10,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n", "not a recording"),
        (b"ffconcat version 1.0\nfile /etc/hostname\n", "not a recording"),
    ],
    ids=["empty", "one byte", "text", "picture", "header only", "playlist", "list of files"],
)
def test_what_is_no_recording_is_refused_in_one_sentence(data, reason):
    with pytest.raises(RecordingError, match=reason) as refused:
        decode_recording(data)
    assert "\n" not in str(refused.value)
    assert str(refused.value).endswith(".")


def test_a_film_without_sound_is_refused():
    with pytest.raises(RecordingError, match="no sound track"):
        decode_recording(recordings.silent_film())


@pytest.mark.parametrize("container", ["wav", "flac", "webm", "mp4"])
def test_a_recording_that_breaks_off_is_refused(container):
    data = recordings.packed(
        recordings.spoken("three red boats on the sea in the rain", speed=130), container
    )
    with pytest.raises(RecordingError, match="Only .* send it again|not a recording"):
        decode_recording(data[: len(data) // 3])


@pytest.mark.parametrize("container", ["wav", "mp3", "ogg", "webm"])
def test_more_than_thirty_seconds_are_refused(container):
    with pytest.raises(RecordingError, match="more than 30 seconds; speak for at most 30 seconds"):
        decode_recording(recordings.packed(recordings.silence(31), container))


def test_thirty_seconds_are_accepted():
    assert len(decode_recording(recordings.packed(recordings.silence(29.9)))) == int(29.9 * RATE)


def test_three_hours_are_refused_from_the_header():
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, 8_000, 0, "NONE", ""))
        file.writeframes(bytes(3 * 3600 * 8_000 * 2))

    def refuse() -> None:
        with pytest.raises(RecordingError, match="lasts 180 minutes"):
            decode_recording(buffer.getvalue())

    assert processor_s(refuse) < 1


def test_three_hours_without_a_length_in_the_header_are_not_decoded_to_the_end():
    minute = recordings.packed(recordings.silence(60), "mp3", rate=16_000)

    def refuse() -> None:
        with pytest.raises(RecordingError, match="speak for at most 30 seconds"):
            decode_recording(minute[len(minute) // 60 :] * 180)

    assert processor_s(refuse) < 3


def test_a_damaged_packet_is_left_out_and_the_rest_is_heard(sentence):
    data = bytearray(recordings.packed(sentence, "mp3"))
    middle = len(data) // 2
    data[middle : middle + 40] = bytes(40)
    assert len(decode_recording(bytes(data))) / RATE > 0.6 * len(sentence) / RATE


if "GLIMPSE_SHARED" in os.environ:
    SPEECH = Path(os.environ["GLIMPSE_SHARED"]) / "data" / "speech"

    @pytest.mark.parametrize("name", ["001.wav", "005.wav", "jfk.flac", "stereo_diarization.wav"])
    def test_recordings_of_people_are_read(name):
        assert 0.5 < len(decode_recording((SPEECH / name).read_bytes())) / RATE <= 30
