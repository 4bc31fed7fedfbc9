"""Ingest beside the plain loop that anybody would write, and beside rclip, with the same random tower.

rclip is no dependency: install it into an environment of its own and name that Python in
GLIMPSE_BENCH_RCLIP; without it, those figures are left out.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path

from PIL import Image

from benchmarks.backends import INT8, ONNX, photographs, vit_b_32
from benchmarks.engine import fresh_index, node
from benchmarks.report import Figure, Spent, clock, show
from demo.world.draw import write_picture
from demo.world.scene import sample
from es_config.documents import IndexMeta, IndexOptions
from ingest.options import IngestOptions
from ingest.pipeline.run import ingest_paths
from ingest.wiring import Dependencies
from models.encoders import Lazy, load_image_encoder, load_text_encoder
from models.fast.choose import probe, run_in
from storage.store import open_storage

PICTURES = int(os.environ.get("GLIMPSE_BENCH_PICTURES", "512"))
LARGE_PICTURES = max(8, PICTURES // 16)
TWELVE_MEGAPIXELS = (4000, 3000)
ROUNDS = 3
BATCH = 32
TARGETS = {
    ("small", "plain loop"): (2.0, 4.0),
    ("small", "rclip"): (1.0, 2.0),
    ("12 MP", "rclip"): (1.8, 2.5),
}
"""ratios at fp32 and at int8"""
RCLIP_PIXELS = 256
EDGE = (RCLIP_PIXELS - 224) // 2
RCLIP = "GLIMPSE_BENCH_RCLIP"
RCLIP_RUN = """
import json, sys, time
from pathlib import Path
from rclip import db, main, model, model_download
model_download.download_visual_query_model = lambda *a, **k: sys.argv[1]
images = db.DB(Path(sys.argv[3]))
one = main.RClip(model.Model(), images, 8, None)
one._model._session_visual
begun, cpu = time.perf_counter(), time.process_time()
one.ensure_index(sys.argv[2])
spent = [time.perf_counter() - begun, time.process_time() - cpu]
(indexed,) = images._con.execute("select count(*) from images where vector is not null").fetchone()
print(json.dumps([*spent, indexed]))
"""


def main() -> bool:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="glimpse-bench-") as folder, node() as (client, _):
        race = _Race(client, Path(folder))
        figures = race.run("small", _small(Path(folder) / "small"), plain=True)
        figures += race.run("12 MP", _large(Path(folder) / "large"), plain=False)
    return show("peers", figures)


class _Race:
    def __init__(self, client, root: Path) -> None:
        self._client, self._root = client, root
        self._profile = vit_b_32(root)
        exact = load_image_encoder(self._profile)
        self._texts = load_text_encoder(self._profile)
        ways = [ONNX, INT8] if probe().int8 else [ONNX]
        self._encoders = {str(way): run_in(way, exact, cache=root / "cache") for way in ways}
        self._rclip = os.environ.get(RCLIP)
        if self._rclip:
            _export_plainly(exact.tower.model, root / "plain.onnx")

    def run(self, name: str, folder: Path, *, plain: bool) -> list[Figure]:
        """Let everybody have a turn, ROUNDS times, and take the best wall time of each."""
        racers = {way: lambda way=way: self._ours(folder, way) for way in self._encoders}
        if plain:
            racers["plain loop"] = lambda: self._plain(folder)
        if self._rclip:
            racers["rclip"] = lambda: self._run_rclip(folder)
        times = [{racer: go() for racer, go in racers.items()} for _ in range(ROUNDS)]
        best = {racer: min((each[racer] for each in times), key=lambda one: one.wall) for racer in racers}
        return _figures(name, len(list(folder.iterdir())), best)

    def _ours(self, folder: Path, way: str) -> Spent:
        profile, store = self._profile, self._root / f"store-{uuid.uuid4().hex}"
        meta = IndexMeta(profile.name, {}, profile.dims, profile.caption_dims, profile.similarity)
        with fresh_index(self._client) as index:
            index.create(meta, IndexOptions())
            with clock() as spent:
                dependencies = Dependencies(
                    index,
                    Lazy(lambda: self._encoders[way]),
                    Lazy(lambda: self._texts),
                    open_storage(f"file:{store}"),
                    Lazy(lambda: None),
                )
                summary = ingest_paths(
                    [folder], dependencies=dependencies, options=IngestOptions(batch_size=BATCH)
                )
        assert not summary.failed, summary.failures[:3]
        return spent

    def _plain(self, folder: Path) -> Spent:
        from elasticsearch import helpers
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(self._profile.image_model.name)
        paths = sorted(folder.iterdir())
        profile = self._profile
        meta = IndexMeta(profile.name, {}, profile.dims, profile.caption_dims, profile.similarity)
        with fresh_index(self._client) as index:
            index.create(meta, IndexOptions())
            with clock() as spent:
                for start in range(0, len(paths), BATCH):
                    batch = paths[start : start + BATCH]
                    vectors = model.encode([Image.open(path) for path in batch], batch_size=BATCH)
                    helpers.bulk(
                        self._client,
                        [
                            {"_index": index.alias, "image_id": path.name, "image_embedding": vector.tolist()}
                            for path, vector in zip(batch, vectors, strict=True)
                        ],
                    )
        return spent

    def _run_rclip(self, folder: Path) -> Spent:
        with tempfile.TemporaryDirectory(dir=self._root) as scratch:
            files = [self._root / "plain.onnx", folder, Path(scratch) / "rclip.sqlite3"]
            command = [self._rclip, "-c", RCLIP_RUN, *map(str, files)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        wall, cpu, indexed = json.loads(done.stdout.splitlines()[-1])
        assert indexed == len(list(folder.iterdir())), done.stderr[-2000:]
        return Spent(wall, cpu)


def _figures(name: str, count: int, best: dict[str, Spent]) -> list[Figure]:
    figures = []
    for racer, spent in best.items():
        figures.append(Figure(f"{name}, {count} pictures, {racer}", count / spent.wall, "pictures/s"))
        figures.append(Figure("the same, CPU a picture", 1000 * spent.cpu / count, "ms"))
    for (kind, peer), (fp32, int8) in TARGETS.items():
        for way, target in ((str(ONNX), fp32), (str(INT8), int8)):
            if kind == name and peer in best and way in best:
                ratio = best[peer].wall / best[way].wall
                figures.append(Figure(f"{name}: ingest in {way} ÷ {peer}", ratio, "", f"≥ {target}"))
                ratio = best[peer].cpu / best[way].cpu
                figures.append(Figure("the same, by CPU", ratio))
    return figures


def _export_plainly(model, path: Path) -> None:
    """Write the model as it is, with the names and the input that rclip's own file has.

    rclip's pixels are those of its own model, 256 on a side; the middle 224 go into the tower.
    """
    import torch

    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, pixels):
            middle = pixels[:, :, EDGE : EDGE + 224, EDGE : EDGE + 224]
            return self.model(pixel_values=middle).image_embeds

    torch.onnx.export(
        Plain(),
        (torch.zeros(2, 3, RCLIP_PIXELS, RCLIP_PIXELS),),
        str(path),
        input_names=["input"],
        output_names=["output"],
        dynamic_axes={"input": {0: "n"}, "output": {0: "n"}},
        dynamo=False,
    )


def _small(folder: Path) -> Path:
    folder.mkdir()
    for path in photographs(PICTURES):
        shutil.copy(path, folder)
    missing = PICTURES - len(list(folder.iterdir()))
    for number, scene in enumerate(sample("test", missing)):
        write_picture(scene, folder / f"drawn{number:05d}.jpg", 512)
    return folder


def _large(folder: Path) -> Path:
    folder.mkdir()
    originals = photographs(LARGE_PICTURES) or [
        write_picture(scene, folder.parent / f"large{number}.jpg", 512)
        for number, scene in enumerate(sample("test", LARGE_PICTURES))
    ]
    for path in originals:
        with Image.open(path) as picture:
            picture.convert("RGB").resize(TWELVE_MEGAPIXELS, Image.Resampling.BICUBIC).save(
                folder / path.name, quality=90
            )
    return folder
