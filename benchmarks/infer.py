"""The text model's two lanes: the cost of `_infer`, its behaviour under load, and their agreement."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from benchmarks.engine import node
from benchmarks.report import Figure, percentile, show

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

PAIRED_RUNS = 300
CLIENTS, REQUESTS = 32, 2000
LANE_TEXTS = 1000
PICTURES, QUERIES = 600, 500
LANGUAGES = ("en", "fr", "de", "es")
DEFINITION_BYTES = 100_000_000


def main() -> bool:
    """Measure and print. GLIMPSE_MODEL_DIR chooses other towers than the profile's own."""
    from models.profiles import get_profile

    folder = os.environ.get("GLIMPSE_MODEL_DIR")
    profile = get_profile("pocket", model_dir=Path(folder) if folder else None)
    with node() as (client, _), tempfile.TemporaryDirectory() as scratch:
        figures = _memory(client, Path(scratch))
    with node() as (client, url), tempfile.TemporaryDirectory() as scratch:
        definition = _deploy(client, profile, Path(scratch))
        figures += _cost(client, profile, definition)
        figures += _load(url, profile)
        figures += _agreement(client, profile, definition)
    return show("infer", figures)


def _deploy(client: Any, profile: Any, scratch: Path) -> Path:
    """Upload and start the profile's text model, and return the file of its TorchScript."""
    from es_config.text_model import TextModelSource, TrainedModel, export, upload

    source = TextModelSource(
        Path(profile.text_model.name), name="pocket", revision=profile.text_revision(), dims=profile.dims
    )
    model = TrainedModel(client, model_id=profile.es_model_id)
    upload(model, source, clear_previous=True)
    model.start()
    return Path(export(source, scratch, version="9.5.3")[0])


def _captions(count: int) -> list[str]:
    """Return queries about drawn scenes, in four languages."""
    from demo.world.scene import sample
    from training.pocket.sentences.grammar import caption

    scenes = sample("test", -(-count // len(LANGUAGES)))
    return [caption(scene, language, Random(7)) for scene in scenes for language in LANGUAGES][:count]


def _bare(profile: Any, definition: Path) -> Any:
    """Return a function that runs the TorchScript on a text's tokens, in this process."""
    import torch
    from transformers import AutoTokenizer

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(profile.text_model.name)
    model = torch.jit.load(str(definition), map_location="cpu").eval()

    def run(text: str) -> np.ndarray:
        ids = tokenizer(text, return_tensors="pt", truncation=True)["input_ids"]
        rest = (torch.ones_like(ids), torch.zeros_like(ids), torch.arange(ids.shape[1])[None])
        with torch.inference_mode():
            return model(ids, *rest)[0].numpy()

    return run


def _cost(client: Any, profile: Any, definition: Path) -> list[Figure]:
    """Time `_infer` and the bare model in turn, so that both see the same machine."""
    bare, texts = _bare(profile, definition), _captions(PAIRED_RUNS)
    alone, served = [], []
    for text in texts[:20]:
        bare(text)
        client.ml.infer_trained_model(model_id=profile.es_model_id, docs=[{"text_field": text}])
    for text in texts:
        alone.append(_milliseconds(bare, text))
        docs = [{"text_field": text}]
        served.append(_milliseconds(client.ml.infer_trained_model, model_id=profile.es_model_id, docs=docs))
    model, infer = percentile(alone, 50), percentile(served, 50)
    return [
        Figure("bare model, p50", model, "ms"),
        Figure("_infer, p50", infer, "ms"),
        Figure("_infer, p95", percentile(served, 95), "ms"),
        Figure("_infer adds to the bare model, p50", infer - model, "ms", "≤ 6"),
    ]


def _milliseconds(function: Any, *arguments: Any, **keywords: Any) -> float:
    begin = time.perf_counter()
    function(*arguments, **keywords)
    return (time.perf_counter() - begin) * 1000


def _load(url: str, profile: Any) -> list[Figure]:
    """Ask from many clients at once, and compare every answer with the one that a single client got."""
    from elasticsearch import Elasticsearch

    texts = _captions(40)
    client = Elasticsearch(url, connections_per_node=CLIENTS, request_timeout=60, max_retries=0)
    expected = {text: _ask(client, profile, text) for text in texts}
    failures, wrong = [], []

    def work(number: int) -> None:
        text = texts[number % len(texts)]
        try:
            if _ask(client, profile, text) != expected[text]:
                wrong.append(text)
        except Exception as error:
            failures.append(error)

    begin = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(work, range(REQUESTS)))
    seconds = time.perf_counter() - begin
    client.close()
    return [
        Figure(f"{CLIENTS} clients, {REQUESTS} requests: errors", len(failures), "", "≤ 0"),
        Figure(f"{CLIENTS} clients, {REQUESTS} requests: wrong answers", len(wrong), "", "≤ 0"),
        Figure(f"{CLIENTS} clients: requests", REQUESTS / seconds, "1/s"),
    ]


def _ask(client: Any, profile: Any, text: str) -> list[float]:
    answer = client.ml.infer_trained_model(
        model_id=profile.es_model_id, docs=[{"text_field": text}], timeout="60s"
    )
    return answer["inference_results"][0]["predicted_value"]


def _agreement(client: Any, profile: Any, definition: Path) -> list[Figure]:
    """Compare the lanes with each other, and eland's export with the encoder."""
    from hard_texts import hard_texts
    from sentence_transformers import SentenceTransformer

    from models.encoders import load_image_encoder, plain_text
    from search_app.core.text_lanes import text_lanes

    infer, local = (text_lanes(profile, client, choice=choice) for choice in ("infer", "local"))
    texts = hard_texts(LANE_TEXTS)
    cosines = np.sum(infer.embed_texts(texts) * local.embed_texts(texts), axis=1)
    pictures = load_image_encoder(profile).embed_images(_pictures(PICTURES))
    queries = _captions(QUERIES)
    tops = [
        np.argsort(-lane.embed_texts(queries) @ pictures.T, axis=1, kind="stable")[:, :10]
        for lane in (infer, local)
    ]
    same = np.mean(np.all(tops[0] == tops[1], axis=1))
    bare, original = _bare(profile, definition), SentenceTransformer(profile.text_model.name, device="cpu")
    plain = [plain_text(text) for text in texts]
    difference = max(np.abs(bare(text) - original.encode(text)).max() for text in plain)
    return [
        Figure(f"lanes, smallest cosine over {len(texts)} hard texts", cosines.min(), "", "≥ 0.9999"),
        Figure(f"lanes, same top 10 of {PICTURES} for {len(queries)} queries", same, "", "≥ 0.99"),
        Figure("eland's export and the encoder, largest difference", difference, "", "≤ 1e-4"),
    ]


def _pictures(count: int) -> list[Any]:
    from demo.world.draw import draw
    from demo.world.scene import sample

    return [draw(scene, size=128) for scene in sample("test", count, seed=1)]


def _memory(client: Any, scratch: Path) -> list[Figure]:
    """Upload a definition of 100 MB in parts, as eland does, and watch the node's memory."""
    import psutil
    from tiny_torchscript import VOCABULARY, config

    model_id, definition = "bench-large", _large_definition(scratch / "large.pt")
    process = psutil.Process(_node_pid(client))
    before, most, done = process.memory_info().rss, [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            most[0] = max(most[0], process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    begin = time.perf_counter()
    client.ml.put_trained_model(model_id=model_id, **config())
    _upload(client, model_id, definition)
    client.ml.put_trained_model_vocabulary(model_id=model_id, vocabulary=VOCABULARY)
    seconds = time.perf_counter() - begin
    done.set()
    watcher.join()
    size = definition.stat().st_size
    client.ml.start_trained_model_deployment(model_id=model_id, timeout="60s")
    client.ml.delete_trained_model(model_id=model_id, force=True)
    return [
        Figure("upload of a large definition", size / 1e6, "MB", "≥ 100"),
        Figure("upload of a large definition", seconds, "s"),
        Figure("the node's memory grows by, in model sizes", (most[0] - before) / size, "", "≤ 2"),
    ]


def _upload(client: Any, model_id: str, definition: Path) -> None:
    from eland.ml.pytorch import PyTorchModel

    PyTorchModel(client, model_id).put_model(str(definition))


def _large_definition(path: Path) -> Path:
    import torch

    class Large(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = torch.nn.Embedding(DEFINITION_BYTES // 4 // 4 + 1, 4)

        def forward(self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor, places: torch.Tensor):
            return self.embedding(ids).mean(dim=1) + 0 * (mask + types + places).sum()

    torch.jit.save(torch.jit.script(Large().eval()), str(path))
    return path


def _node_pid(client: Any) -> int:
    [stats] = client.nodes.info(metric="process")["nodes"].values()
    return stats["process"]["id"]
