"""The same question in four languages finds the same pictures, whichever lane embeds it."""

from random import Random

import numpy as np
import pytest
from tiny_torchscript import fresh_model

from demo.world.draw import draw
from demo.world.scene import sample
from es_config.text_model import InferTextEncoder, TextModelSource, TrainedModel, upload
from models.encoders import load_image_encoder, load_text_encoder
from models.profiles import get_profile
from search_app.core.text_lanes import TextLanes
from training.pocket.sentences.grammar import caption

SCENES = 80
LANGUAGES = ("en", "fr", "de", "es")


@pytest.fixture(scope="module")
def profile():
    return get_profile("pocket")


@pytest.fixture(scope="module")
def scenes():
    return sample("test", SCENES, seed=5)


@pytest.fixture(scope="module")
def pictures(profile, scenes):
    return load_image_encoder(profile).embed_images([draw(scene, size=128) for scene in scenes])


@pytest.fixture(scope="module")
def infer(client, profile):
    """The profile's text model in the node."""
    from pathlib import Path

    revision, folder = profile.text_revision(), Path(profile.text_model.name)
    with fresh_model(client) as model_id:
        model = TrainedModel(client, model_id=model_id)
        upload(model, TextModelSource(folder, name="pocket", revision=revision, dims=profile.dims))
        model.start()
        yield InferTextEncoder(client, model_id=model_id, dims=profile.dims, revision=revision)


@pytest.mark.parametrize("choice", ["infer", "local"])
def test_the_same_query_finds_the_same_pictures_in_every_language(profile, scenes, pictures, infer, choice):
    lanes = TextLanes(
        choice=choice,
        infer=infer,
        load_local=lambda: load_text_encoder(profile),
        dims=profile.dims,
        revision=infer.revision,
    )
    found = {}
    for language in LANGUAGES:
        vectors, lane = lanes.embed([caption(scene, language, Random(3)) for scene in scenes])
        assert lane == choice
        found[language] = np.argsort(-vectors @ pictures.T, axis=1)[:, :10]
    for language in LANGUAGES[1:]:
        pairs = list(zip(found["en"], found[language], strict=True))
        assert np.mean([one[0] == other[0] for one, other in pairs]) >= 0.95
        assert np.mean([len(set(one) & set(other)) / 10 for one, other in pairs]) >= 0.75
