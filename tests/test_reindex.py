"""Reindexing: another index is filled beside the one that answers, and takes its place with nothing lost."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from elasticsearch import Elasticsearch
from film_files import save_film
from http_fronts import proxy, serving
from model_folders import save_clip
from picture_files import save_picture
from waiting import PATIENCE_S, wait_until

from demo.world.draw import draw
from demo.world.scene import sample
from es_config.aliases import Alias
from es_config.documents import ImageDocument, IndexMeta, IndexOptions
from es_config.errors import EngineError
from es_config.index import CaptionUpdate, ImageIndex
from glimpse import main
from ingest.errors import UnreadableImageError
from ingest.history.ingested_files import nowhere
from ingest.reindex import OriginalReader, open_reindexer
from ingest.report import Progress
from ingest.wiring import IngestSettings
from models.encoders import TextEncoder, load_text_encoder
from models.profiles import get_profile
from search_app.core.searcher import SearchService
from search_app.settings import AppSettings, SearchSettings
from search_app.web.app import create_app
from search_app.wiring import AliasFollower, build_searcher, renewed
from storage.keys import original_key, thumbnail_key
from storage.store import open_storage

ROOT = Path(__file__).parent.parent
PICTURES = 12
CUT = """
import os, signal, sys
from es_config.aliases import ReindexWriter
from ingest.options import IngestOptions
write, batches = ReindexWriter.write, []

def cut(self, copies):
    if len(batches) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    batches.append(copies)
    return write(self, copies)

ReindexWriter.write = cut
options = IngestOptions.__init__
options.__defaults__ = (4, *options.__defaults__[1:])
from glimpse import main
main(sys.argv[1:])
"""
"""the command, which a kill -9 ends before its third batch of four is written"""


@dataclass(frozen=True)
class Place:
    """An index of pictures with 16 dims, their files, and the models of another index with 24."""

    alias: str
    files: Path
    models: dict[str, Path]
    environ: dict[str, str]
    client: Elasticsearch

    @property
    def index(self) -> ImageIndex:
        """The index behind the alias, freshly looked up."""
        return ImageIndex(self.client, alias=self.alias)

    def run(self, *arguments: object) -> dict:
        """Run a command and return its JSON, with the exit code and stderr."""
        done = CliRunner().invoke(main, [*map(str, arguments), "--json"], env=self.environ)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        answer = json.loads(done.stdout) if done.stdout.strip().startswith("{") else {}
        return answer | {"exit_code": done.exit_code, "said": done.stderr}

    def reindex(self, *more: object) -> dict:
        """Reindex for the other models."""
        return self.run("reindex", "--profile", "pocket", "--model-dir", self.models["new"], *more)

    @contextmanager
    def opened(self):
        """The reindexer of that command."""
        settings = IngestSettings("pocket", self.models["new"], self.alias)
        with open_reindexer(settings, self.environ, folders=[], progress=Progress()) as reindexer:
            yield reindexer

    def documents(self) -> dict[str, dict]:
        """Return every document without its vectors, by image id."""
        self.index.refresh()
        hits = self.index.search({"query": {"match_all": {}}, "size": 100}).hits
        return {hit.image_id: hit.source for hit in hits}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two pairs of towers of different width, and one with the first one's text tower alone."""
    folder = tmp_path_factory.mktemp("models")
    old = save_clip(folder / "old", dims=16)
    new = save_clip(folder / "new", dims=24, seed=8)
    shutil.copytree(old, folder / "eyes" / "text")
    save_clip(folder / "eyes" / "image", dims=16, seed=9)
    return {"old": old, "new": new, "eyes": folder / "eyes"}


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else writes here, so no switch needs to settle."""
    monkeypatch.setattr("es_config.aliases.SETTLE_S", 0.0)


@pytest.fixture
def place(node, client, models, index_name: str, tmp_path: Path) -> Place:
    """Twelve ingested pictures. Two have captions, one by a model and one by a person."""
    files = tmp_path / "pictures"
    for number in range(PICTURES):
        save_picture(files / f"{number:02}.png", number, size=(60, 40))
    environ = {
        "ELASTICSEARCH_URL": node.url,
        "GLIMPSE_HOME": str(tmp_path / "home"),
        "GLIMPSE_MODEL_DIR": str(models["old"]),
        "GLIMPSE_INDEX": index_name,
        "GLIMPSE_INGEST_CAPTIONS": "off",
        "GLIMPSE_PRECISION": "fp32",
    }
    place = Place(index_name, files, models, environ, client)
    assert place.run("ingest", files)["indexed"] == PICTURES
    first, second = sorted(place.documents())[:2]
    write_caption(place, first, "a red boat", "model")
    write_caption(place, second, "grandmother on the pier", "human")
    place.index.refresh()
    return place


@cache
def texts_of(folder: Path) -> TextEncoder:
    return load_text_encoder(get_profile("pocket", model_dir=folder))


def write_caption(place: Place, image_id: str, text: str, source: str) -> None:
    (vector,) = texts_of(place.models["old"]).embed_texts([text])
    update = CaptionUpdate(image_id, text, vector, source=source)
    assert not place.index.captions().write([update]).failed


def test_the_new_index_keeps_everything_but_the_vectors_and_ingest_finds_nothing_to_do(place):
    before, former = place.documents(), place.index.name()
    done = place.reindex()
    assert (done["exit_code"], done["embedded"], done["missing"]) == (0, PICTURES, []), done
    assert done["switched"] == {"now": place.index.name(), "former": former, "left": None}
    assert place.documents() == before
    meta, image_id = place.index.meta(), sorted(before)[1]
    assert (meta.dims, meta.operating_points) == (24, {})
    assert place.index.vector(image_id).shape == (24,)
    (wanted,) = texts_of(place.models["new"]).embed_texts([before[image_id]["caption"]])
    assert np.allclose(place.index.vector(image_id, "caption_embedding"), wanted, atol=1e-5)
    place.environ["GLIMPSE_MODEL_DIR"] = str(place.models["new"])
    again = place.run("ingest", place.files)
    assert (again["embedded"], again["skipped"]) == (0, PICTURES)
    (place.files / "03.png").unlink()
    assert place.run("ingest", place.files, "--prune")["pruned"]["documents"] == 1
    assert len(place.documents()) == PICTURES - 1


@pytest.mark.parametrize("kind", ["folder", "archive"])
def test_films_and_their_moments_get_vectors_of_the_new_model_from_their_films(kind, place, tmp_path):
    scenes = [draw(scene, 64) for scene in sample("demo", 3)]
    film = save_film(tmp_path / "films/lake.mp4", [(scene, 3) for scene in scenes])
    films = film.parent
    if kind == "archive":
        with tarfile.open(tmp_path / "films.tar", "w") as tar:
            tar.add(film, "lake.mp4")
        films = tmp_path / "films.tar"
    assert place.run("ingest", films, "--films", "moments")["moments"] == 2
    before = place.documents()
    of_film = {image_id for image_id, each in before.items() if "film" in each}
    assert len(of_film) == 3
    done = place.reindex()
    assert (done["exit_code"], done["embedded"], done["missing"]) == (0, PICTURES + 3, []), done
    assert place.documents() == before
    reindexed = {image_id: place.index.vector(image_id) for image_id in of_film}

    place.environ.update(GLIMPSE_MODEL_DIR=str(place.models["new"]), GLIMPSE_INDEX=f"{place.alias}-anew")
    assert place.run("ingest", films, "--films", "moments")["moments"] == 2
    anew = ImageIndex(place.client, alias=f"{place.alias}-anew")
    for image_id, vector in reindexed.items():
        assert float(vector @ anew.vector(image_id)) > 0.99


@pytest.mark.parametrize("more", [("--no-switch",), ()], ids=["built", "switched"])
def test_the_command_that_compares_the_models_is_printed_and_works(place, more):
    command = ["reindex", "--profile", "pocket", "--model-dir", str(place.models["new"]), *more]
    done = CliRunner().invoke(main, command, env=place.environ)
    assert done.exit_code == 0, done.output
    (printed,) = (line.strip() for line in done.stdout.splitlines() if "glimpse evaluate" in line)
    glimpse, *compare = shlex.split(printed)
    assert glimpse == "glimpse"
    compared = place.run(*compare)
    assert compared["exit_code"] == 0, compared["said"]
    assert {row["name"]: row["dims"] for row in compared["profiles"]} == {"pocket": 16, "new": 24}


def test_a_killed_run_goes_on_and_embeds_nothing_twice(place):
    command = ["reindex", "--profile", "pocket", "--model-dir", str(place.models["new"])]
    environ = os.environ | place.environ
    run = [sys.executable, "-c", CUT, *command]
    killed = subprocess.run(run, check=False, cwd=ROOT, env=environ, capture_output=True, timeout=PATIENCE_S)
    assert killed.returncode == -9, killed.stderr
    before, former = place.documents(), place.index.name()
    assert before
    done = place.reindex()
    assert (done["exit_code"], done["embedded"]) == (0, PICTURES - 8)
    assert done["switched"]["former"] == former
    assert place.documents() == before


def test_what_changes_meanwhile_is_not_lost_and_nothing_is_written_for_the_former_model(place):
    held = place.index.pinned()
    with place.opened() as reindexer:
        assert reindexer.fill().embedded == PICTURES
        added = save_picture(place.files / "new.png", 99, size=(60, 40))
        (place.files / "00.png").unlink()
        assert place.run("ingest", place.files, "--prune")["pruned"]["documents"] == 1
        kept = next(each for each, source in place.documents().items() if source["image_name"] == "05.png")
        write_caption(place, kept, "what a person sees", "human")
        before = place.documents()
        done = reindexer.switch(allow_missing=False)
    assert (done.images, done.embedded, done.updated, done.deleted) == (12, 13, 1, 1)
    assert place.index.name() == done.switched.now
    assert place.documents() == before
    assert before[kept]["caption_source"] == "human"
    assert {"new.png", "05.png"} <= {each["image_name"] for each in before.values()}
    assert added.exists()
    with pytest.raises(EngineError, match=f"switched from {held.name()} to {done.switched.now}"):
        held.add_paths({kept: ["elsewhere.png"]})
    assert held.count() == PICTURES
    place.index.add_paths({kept: ["elsewhere.png"]})
    assert "elsewhere.png" in place.documents()[kept]["relative_path"]


def test_the_former_index_comes_back_and_goes_again(place):
    former = place.index.name()
    now = place.reindex("--no-switch")
    assert (now["switched"], place.index.name()) == (None, former)
    assert place.reindex()["embedded"] == 0
    for name in (former, now["index"]):
        assert place.run("reindex", "--back")["switched"]["now"] == name == place.index.name()
        place.index.add_paths({sorted(place.documents())[0]: [f"written into {name}"]})


def takes_writes(client: Elasticsearch, name: str) -> bool:
    settings = client.indices.get_settings(index=name, flat_settings=True)[name]["settings"]
    return "index.blocks.write" not in settings


@pytest.fixture
def two(client, index_name: str) -> tuple[str, str]:
    """The index behind an alias, and the next one."""
    meta = IndexMeta("pocket", {}, 4, 4, "cosine")
    now = ImageIndex(client, alias=index_name).create(meta, IndexOptions())
    return now, Alias(client, alias=index_name).begin(meta, IndexOptions()).name()


Refused = list[tuple[str, str]]
ALIASES, SETTINGS = ("POST", "_aliases"), ("PUT", "_settings")


@pytest.fixture
def partly(node) -> Iterator[tuple[Elasticsearch, Refused]]:
    """A client, and a list of methods with parts of paths: requests that match it are refused."""
    refused: Refused = []

    def decide(method: str, path: str) -> tuple[int, bytes] | None:
        error = {"type": "process_cluster_event_timeout_exception", "reason": "no time"}
        is_refused = any(method == verb and part in path for verb, part in refused)
        return (500, json.dumps({"error": error, "status": 500}).encode()) if is_refused else None

    with proxy(node.url, decide) as url, Elasticsearch(url) as client:
        yield client, refused


def test_a_switch_that_fails_leaves_no_index_closed(partly, client, two, index_name):
    broken, refused = partly
    refused.append(ALIASES)
    alias = Alias(broken, alias=index_name)
    with pytest.raises(EngineError, match="no time"):
        alias.switch()
    assert [takes_writes(client, name) for name in two] == [True, True]
    with pytest.raises(EngineError, match="no time"), alias.closed():
        alias.switch()
    assert [takes_writes(client, name) for name in two] == [True, True]


@pytest.mark.parametrize("only_new", [True, False])
def test_a_write_that_was_on_its_way_while_the_alias_was_switched_is_taken_back(
    node, client, two, index_name, only_new
):
    """Pictures of the former model, checked and sent, then held up until another index is there."""

    def held_up(_method: str, path: str) -> None:
        if "_bulk" in path and alias.behind(alias.former) is None:
            alias.switch()

    alias = Alias(client, alias=index_name)
    vector = np.ones(4, np.float32) / 2
    document = ImageDocument("a", "a", ("a",), vector, 1, 1, 1, datetime.now(UTC))
    with proxy(node.url, held_up) as url, Elasticsearch(url) as slow:
        writer = ImageIndex(slow, alias=index_name).pinned()
        with pytest.raises(EngineError, match=f"switched from {two[0]} to {two[1]}, and nothing was written"):
            writer.add([document], only_new=only_new)
    for name in two:
        client.indices.refresh(index=name)
        assert client.count(index=name)["count"] == 0


def test_of_two_who_begin_the_next_index_at_once_one_succeeds(client, index_name):
    def begin(profile: str) -> str:
        meta = IndexMeta(profile, {}, 4, 4, "cosine")
        return Alias(client, alias=index_name).begin(meta, IndexOptions()).name()

    barrier = threading.Barrier(2)

    def told(profile: str) -> str:
        barrier.wait()
        try:
            return begin(profile)
        except EngineError as error:
            return str(error)

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(told, ("pocket", "clip"))
    begun = Alias(client, alias=index_name).behind(f"{index_name}-next")
    said = f"{begun} is the next index already: run the same command again, which goes on with it."
    assert {one, other} == {begun, said}


def test_an_index_is_closed_until_no_switch_came(client, two, index_name):
    with Alias(client, alias=index_name).closed():
        assert [takes_writes(client, name) for name in two] == [False, True]
    assert [takes_writes(client, name) for name in two] == [True, True]


def test_going_back_that_fails_leaves_the_index_that_answers_open(partly, client, two, index_name):
    broken, refused = partly
    Alias(client, alias=index_name).switch()
    assert [takes_writes(client, name) for name in two] == [False, True]
    refused.append(ALIASES)
    with pytest.raises(EngineError, match="no time"):
        Alias(broken, alias=index_name).back()
    assert takes_writes(client, two[1])
    assert ImageIndex(client, alias=index_name).name() == two[1]


def test_a_second_index_that_cannot_be_closed_leaves_the_first_open(partly, client, two, index_name):
    broken, refused = partly
    refused.append(("PUT", f"{two[1]}/_block"))
    with pytest.raises(EngineError, match="no time"):
        Alias(broken, alias=index_name).switch()
    assert [takes_writes(client, name) for name in two] == [True, True]


def test_after_a_switch_that_is_interrupted_the_former_index_stays_closed(
    client, two, index_name, monkeypatch
):
    def interrupted(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("es_config.aliases.time.sleep", interrupted)
    alias = Alias(client, alias=index_name)
    with pytest.raises(KeyboardInterrupt), alias.closed():
        alias.switch()
    assert alias.behind(index_name) == two[1]
    assert [takes_writes(client, name) for name in two] == [False, True]


def test_a_clean_up_that_fails_does_not_hide_the_first_error_and_says_what_is_left(partly, two, index_name):
    broken, refused = partly

    def fail() -> None:
        refused.extend([SETTINGS, ("GET", "_alias")])
        raise ValueError("the first")

    with pytest.raises(ValueError, match="the first") as caught, Alias(broken, alias=index_name).closed():
        fail()
    (note,) = caught.value.__notes__
    assert note.startswith(f"{two[0]} still refuses writes: once Elasticsearch answers, lift the block")
    refused[:] = [SETTINGS]
    with (
        pytest.raises(EngineError, match=rf"no time.* {two[0]} still refuses writes"),
        Alias(broken, alias=index_name).closed(),
    ):
        pass


def test_a_command_that_fails_says_what_is_left_to_do(partly, client, two, index_name, tmp_path):
    broken, refused = partly
    Alias(client, alias=index_name).switch()
    refused.extend([ALIASES, SETTINGS])
    (server,) = broken.transport.node_pool.all()
    environ = {"ELASTICSEARCH_URL": server.base_url, "GLIMPSE_HOME": str(tmp_path)}
    done = CliRunner().invoke(main, ["reindex", "--back", "--index", index_name], env=environ)
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    assert all(each in line for each in ("no time", f"{two[0]} still refuses", f"{two[1]} still refuses"))


@contextmanager
def served(place: Place, folder: Path) -> Iterator[str]:
    """The address of the page, served as by `glimpse serve`, but looking at the alias often."""
    told: list[
        str
    ] = []  # not printed: a command that runs meanwhile in this process would print it as its own
    settings = SearchSettings("pocket", place.models["new"], place.alias, "local")
    service = SearchService(build_searcher(settings, place.environ, warn=told.append, warm=True))
    follower = AliasFollower(
        service,
        renew=lambda former: renewed(
            former, settings, place.client, warn=told.append, cache=folder / "cache"
        ),
        open_indexer=None,
        warn=told.append,
        every_s=0.2,
    )
    app = create_app(service=service, storage=open_storage(str(folder)), settings=AppSettings())
    with serving(app) as url, follower:
        yield url


def get(url: str) -> tuple[int, dict]:
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def wait_for(url: str, index: str) -> None:
    """Wait until the page is searched in an index."""
    wait_until(lambda: get(f"{url}/readyz")[1].get("index") == index)


def test_the_page_answers_every_search_while_the_index_is_switched_to_and_fro(place, tmp_path):
    place.index.delete()
    del place.environ["GLIMPSE_MODEL_DIR"]  # models of the table, which a server finds by itself
    assert place.run("ingest", place.files)["indexed"] == PICTURES
    former, answers, over = place.index.name(), [], threading.Event()

    def ask(url: str) -> None:
        while not over.is_set():
            answers.append(get(f"{url}/api/v1/search?q=a+red+boat+{len(answers)}"))

    def searched_on(url: str, index: str) -> None:
        wait_for(url, index)
        before = len(answers)
        wait_until(lambda: len(answers) >= before + 5)

    with served(place, tmp_path) as url:
        wait_for(url, former)
        asking = threading.Thread(target=ask, args=(url,))
        asking.start()
        try:
            searched_on(url, former)
            now = place.reindex()["switched"]["now"]
            searched_on(url, now)
            assert place.run("reindex", "--back")["switched"]["now"] == former
            searched_on(url, former)
        finally:
            over.set()
            asking.join(PATIENCE_S)
    assert {status for status, _ in answers} == {200}
    assert {len(answer["hits"]) for _, answer in answers} == {10}


def test_a_server_that_has_not_the_new_models_says_so_and_keeps_to_the_former_index(place, tmp_path):
    settings = SearchSettings("pocket", place.models["old"], place.alias, "local")
    first = build_searcher(settings, place.environ, warn=print)
    held = renewed(first, settings, place.client, warn=print, cache=tmp_path)
    assert renewed(held, settings, place.client, warn=print, cache=tmp_path) is None
    former = place.index.name()
    assert place.reindex()["exit_code"] == 0
    with pytest.raises(EngineError, match=r"restart `glimpse serve` with their --model-dir"):
        renewed(held, settings, place.client, warn=print, cache=tmp_path)
    assert held.index.name() == former
    assert len(held.sample(5)) == 5


def test_captions_keep_their_vectors_where_the_text_model_stays(place):
    first = sorted(place.documents())[0]
    own = np.eye(16, dtype=np.float32)[3]  # what no model would make of these words
    place.index.captions().write([CaptionUpdate(first, "a red boat", own, source="model")])
    place.index.refresh()
    place.index.note("revisions", {"caption_text": texts_of(place.models["old"]).revision})
    before = place.index.vector(first)
    done = place.run("reindex", "--profile", "pocket", "--model-dir", place.models["eyes"])
    assert (done["exit_code"], done["embedded"]) == (0, PICTURES)
    assert np.array_equal(place.index.vector(first, "caption_embedding"), own)
    assert not np.allclose(place.index.vector(first), before, atol=1e-3)


def test_pictures_that_are_nowhere_are_listed_and_keep_the_former_index(place, tmp_path):
    elsewhere, former, before = tmp_path / "elsewhere", place.index.name(), place.documents()
    place.files.rename(elsewhere)
    storage = open_storage(str(Path(place.environ["GLIMPSE_HOME"]) / "store"))
    kept = next(each for each, source in before.items() if source["image_name"] == "04.png")
    storage.put(original_key(kept, "png"), (elsewhere / "04.png").read_bytes())
    done = place.reindex()
    assert (done["exit_code"], done["embedded"], done["switched"]) == (1, 1, None)
    assert {each["path"] for each in done["missing"]} == {f"{n:02}.png" for n in range(PICTURES)} - {"04.png"}
    assert "--originals-from" in done["said"]
    assert place.index.name() == former
    place.index.add_paths({kept: ["still open for writing.png"]})
    shutil.copy(elsewhere / "01.png", elsewhere / "02.png")  # another content under the name of one
    done = place.reindex("--originals-from", elsewhere, "--allow-missing")
    assert (done["exit_code"], done["embedded"], done["updated"]) == (0, PICTURES - 2, 1)
    assert [each["path"] for each in done["missing"]] == ["02.png"]
    assert len(place.documents()) == PICTURES - 1


def test_a_webp_copy_of_the_store_counts_as_the_picture_and_its_thumbnail_never_does(tmp_path):
    storage, image_id = open_storage(str(tmp_path / "store")), "ab" * 32
    storage.put(thumbnail_key(image_id), save_picture(tmp_path / "small.webp", 3).read_bytes())
    pictures = OriginalReader(places=nowhere, folders=[], storage=storage)
    with pytest.raises(UnreadableImageError, match="the store keeps no original"):
        pictures.read(image_id, {"relative_path": ["x.png"]})
    copy = save_picture(tmp_path / "copy.webp", 3, size=(60, 40))
    storage.put(original_key(image_id, "webp"), copy.read_bytes())
    image, is_copy = pictures.read(image_id, {"relative_path": ["x.png"]})
    assert (image.size, is_copy) == ((60, 40), True)
    storage.put(original_key(image_id, "png"), save_picture(tmp_path / "other.png", 4).read_bytes())
    with pytest.raises(UnreadableImageError, match="the store's original is damaged"):
        pictures.read(image_id, {"relative_path": ["x.png"]})


def test_ctrl_c_says_how_to_go_on(place, monkeypatch):
    class Impatient(Progress):
        def advance(self) -> None:
            raise KeyboardInterrupt

        def __enter__(self) -> Impatient:
            return self

        def __exit__(self, *_: object) -> None:
            """Nothing to end."""

    monkeypatch.setattr("ingest.report.open_progress", lambda **_: Impatient())
    done = place.reindex()
    assert done["exit_code"] == 130
    assert "the same command goes on from there" in done["said"]
    assert place.index.meta().dims == 16


def test_what_cannot_be_done_is_said_in_one_sentence(place):
    def says(*arguments: object) -> tuple[int, str]:
        done = place.run("reindex", *arguments)
        return done["exit_code"], done["said"].strip().rpartition("Error: ")[2]

    same = ("--profile", "pocket", "--model-dir", place.models["old"])
    code, said = says(*same)
    assert code == 2
    assert "holds the vectors of profile 'pocket' with these weights already" in said
    assert says()[0] == says("--back", "--profile", "pocket")[0] == 2
    code, said = says("--back")
    assert (code, said.partition(":")[0]) == (1, "There is no former index to go back to")
    code, said = says(*same, "--index", place.index.name())
    assert (code, said.partition(",")[0]) == (1, f"'{place.index.name()}' is an index")
    assert says("--profile", "nothing")[0] == says("--profile", "pocket", "--index", "nothing")[0] == 1
    place.reindex("--no-switch")
    code, said = says("--profile", "pocket", "--model-dir", place.models["eyes"])
    assert code == 1
    assert f"glimpse index delete --index {place.alias}-next" in said
    place.reindex()
    place.run("index", "delete", "--yes", "--index", Alias(place.client, alias=place.alias).former)
    assert says("--back")[0] == 1
