"""Two lanes, one result: which lane answers, when it changes, and that nobody could tell from the vectors."""

import threading
from dataclasses import replace

import numpy as np
import pytest
from hard_texts import hard_texts
from model_folders import save_clip
from tiny_torchscript import fresh_model

from es_config.errors import EngineError
from es_config.text_model import InferTextEncoder, TrainedModel
from models.encoders import load_text_encoder
from models.profiles import get_profile
from search_app.core.text_lanes import RETRY_AFTER_S, RETRY_SOON_S, TextLanes, text_lanes
from search_app.errors import QueryError


class Clock:
    """A clock that the test moves."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def profile(tiny_pair):
    return get_profile("pocket", model_dir=tiny_pair)


@pytest.fixture(scope="module")
def local(profile):
    return load_text_encoder(profile)


@pytest.fixture
def lanes(client, deployed, profile, local):
    """Build text lanes over the deployed model, and return them with their warnings and clock."""

    def build(choice: str = "auto", *, model_id: str = deployed, dims: int = profile.dims):
        warnings, clock = [], Clock()
        infer = InferTextEncoder(client, model_id=model_id, dims=dims, revision=profile.text_revision())
        made = TextLanes(
            choice=choice,
            infer=infer,
            load_local=lambda: local,
            dims=profile.dims,
            revision=profile.text_revision(),
            warn=warnings.append,
            clock=clock,
        )
        return made, warnings, clock

    return build


def test_the_lanes_give_the_same_vectors(lanes):
    texts = hard_texts(250)
    by_infer, lane = lanes("infer")[0].embed(texts)
    by_local, other = lanes("local")[0].embed(texts)
    assert (lane, other) == ("infer", "local")
    assert np.sum(by_infer * by_local, axis=1).min() >= 0.9999


def test_auto_prefers_elasticsearch(lanes):
    auto, warnings, _ = lanes()
    assert auto.embed(["a boat"])[1] == auto.lane == "infer"
    assert warnings == []


def test_auto_falls_back_with_one_warning_and_comes_back(client, deployed, lanes):
    auto, warnings, clock = lanes()
    model = TrainedModel(client, model_id=deployed)
    expected = auto.embed_texts(["a boat"])
    model.stop()
    try:
        for _ in range(3):
            assert auto.embed_texts(["a boat"]) == pytest.approx(expected, abs=1e-5)
            assert (auto.lane, auto.cause) == ("local", "not started")
            clock.now += RETRY_AFTER_S + 1
        assert len(warnings) == 1
        assert "run `glimpse model start`" in warnings[0]
    finally:
        model.start()
    auto.embed_texts(["a boat"])
    assert (auto.lane, auto.cause) == ("infer", None)


def test_auto_does_not_ask_again_before_its_time(client, deployed, lanes):
    auto, _, clock = lanes()
    model = TrainedModel(client, model_id=deployed)
    model.stop()
    try:
        assert auto.embed(["a boat"])[1] == "local"
    finally:
        model.start()
    clock.now += RETRY_AFTER_S - 1
    assert auto.embed(["a boat"])[1] == "local"
    clock.now += 2
    assert auto.embed(["a boat"])[1] == "infer"


def test_each_cause_is_told_once(lanes):
    auto, warnings, clock = lanes(dims=512)
    auto.embed_texts(["a boat"])
    clock.now += RETRY_AFTER_S + 1
    auto.embed_texts(["a boat"])
    assert len(warnings) == 1
    assert "run `glimpse model upload --clear-previous --start`" in warnings[0]


def test_a_model_that_nobody_uploaded_is_the_normal_case_and_no_warning(client, lanes):
    with fresh_model(client) as model_id:
        auto, warnings, _ = lanes(model_id=model_id)
        assert auto.embed(["a boat"])[1] == "local"
        assert (auto.cause, warnings) == ("not uploaded", [])


def test_other_dims_are_never_mixed_in(lanes):
    auto, warnings, _ = lanes(dims=512)
    vectors, lane = auto.embed(["a boat"])
    assert (vectors.shape, lane) == ((1, 16), "local")
    assert "gives 16 dims and the profile needs 512" in warnings[0]


def test_infer_alone_fails_with_the_way_out(client, lanes):
    with fresh_model(client) as model_id, pytest.raises(EngineError, match="--text-lane local"):
        lanes("infer", model_id=model_id)[0].embed_texts(["a boat"])


def test_local_alone_never_asks_elasticsearch(client, lanes):
    with fresh_model(client) as model_id:
        only_local, warnings, _ = lanes("local", model_id=model_id)
        assert only_local.lane == "local"
        assert only_local.embed(["a boat"])[1] == "local"
        assert warnings == []


def test_one_of_many_threads_asks_again(lanes):
    auto, warnings, clock = lanes(dims=512)
    auto.embed_texts(["a boat"])
    clock.now += RETRY_AFTER_S + 1
    threads = [threading.Thread(target=auto.embed_texts, args=(["a boat"],)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(warnings) == 1
    assert RETRY_SOON_S < RETRY_AFTER_S


def test_lanes_are_built_from_a_profile(client, profile):
    assert text_lanes(profile, client, choice="local").embed(["a boat"])[1] == "local"
    assert text_lanes(profile, None, choice="auto").lane == "local"
    with pytest.raises(QueryError, match="choose one of: auto, infer, local"):
        text_lanes(profile, client, choice="remote")
    with pytest.raises(QueryError, match="runs in this process only"):
        text_lanes(replace(profile, text_lanes=("local",)), client, choice="infer")


@pytest.mark.parametrize("choice", ["infer", "local"])
def test_a_query_whose_end_is_not_read_is_told_once(lanes, choice):
    encoder, warnings, _ = lanes(choice)
    encoder.embed(["a red boat"])
    assert warnings == []
    encoder.embed(["a red boat " * 40])
    encoder.embed(["a blue house " * 40])
    assert warnings == ["the query is longer than the text model reads: the end of it was left out."]


def test_a_pair_of_towers_tells_of_a_query_that_is_too_long(tmp_path):
    folder = save_clip(tmp_path)
    encoder = load_text_encoder(get_profile("clip-b32", model_dir=folder))
    assert encoder.reads_whole("a red boat")
    assert not encoder.reads_whole("a red boat " * 40)
