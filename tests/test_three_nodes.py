"""Three nodes and one replica: one is killed while pictures come in, another while they are searched."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

from crashes import start_ingest, thumbnails
from picture_files import save_picture
from three_nodes import ThreeNodes, three_nodes
from waiting import PATIENCE_S, wait_until

from es_config.client import EngineSettings, connect
from es_config.documents import IndexMeta, IndexOptions
from es_config.index import ImageIndex
from es_config.meta import change_meta

PICTURES, AT = 240, 80


class Searching(threading.Thread):
    """Searches without a pause, by kNN through the product's own client, until it is ended."""

    def __init__(self, cluster: ThreeNodes, alias: str) -> None:
        super().__init__(daemon=True)
        self._client = connect(EngineSettings(",".join(cluster.urls)))
        self._index = ImageIndex(self._client, alias=alias)
        self._ended = threading.Event()
        self.answers = 0
        self.errors: list[str] = []
        self.start()

    def run(self) -> None:
        clause = {"field": "image_embedding", "query_vector": [1.0] * 16, "k": 5, "num_candidates": 50}
        while not self._ended.wait(0.01):
            try:
                answer = self._client.search(
                    index=self._index.alias, knn=clause, allow_partial_search_results=False
                )
                assert not answer["_shards"]["failed"]
                self.answers += 1
            except Exception as error:  # whatever it is, a person would have seen it
                self.errors.append(repr(error))

    def end(self) -> None:
        self._ended.set()
        self.join()
        self._client.close()


def test_with_one_replica_no_node_that_is_killed_takes_a_picture_or_a_search_with_it(tmp_path, tiny_pair):
    folder = tmp_path / "pictures"
    for number in range(PICTURES):
        save_picture(folder / f"{number:03}.png", number, size=(60, 40))
    with three_nodes(tmp_path) as (cluster, client):
        index = ImageIndex(client, alias="images")
        index.create(IndexMeta("pocket", {}, 16, 16, "cosine"), IndexOptions(shards=3, replicas=1))
        cluster.wait(client, nodes=3)
        _check_that_notes_through_every_node_are_kept(cluster)
        searching = Searching(cluster, "images")
        run = start_ingest(
            folder, url=",".join(cluster.urls), home=tmp_path, models=tiny_pair, alias="images"
        )
        wait_until(lambda: thumbnails(tmp_path) >= AT, running=run)
        assert run.poll() is None
        cluster.kill(0)
        cluster.start(0)
        summary = json.loads(run.communicate(timeout=PATIENCE_S)[0])
        assert (run.returncode, summary["failed"]) == (0, 0)
        assert _names(index) == {path.name for path in folder.iterdir()}

        cluster.wait(client, nodes=3)
        before = searching.answers
        cluster.kill(1)
        wait_until(lambda: searching.answers > before + 100 or len(searching.errors) > 0)
        searching.end()
        assert searching.errors == []
        assert _names(index) == {path.name for path in folder.iterdir()}


def _check_that_notes_through_every_node_are_kept(cluster: ThreeNodes) -> None:
    """Each writer talks to a node of its own, which hears of the others' writes from the master alone."""
    sections = ("operating_points", "relevance", "bulk_load")
    rounds, barrier = [str(number) for number in range(15)], threading.Barrier(3)

    def write(number: int) -> list[str]:
        with connect(EngineSettings(cluster.urls[number])) as client:
            index = ImageIndex(client, alias="images")
            barrier.wait()
            for each in rounds:
                index.note(sections[number], {each: number})
            return [index.claim_revision(f"tower {each}", f"weights of {number}") for each in range(5)]

    with ThreadPoolExecutor(3) as pool:
        first, *others = pool.map(write, range(3))
    assert others == [first, first]
    for url in cluster.urls:
        with connect(EngineSettings(url)) as client:
            index = ImageIndex(client, alias="images")
            assert [sorted(getattr(index.meta(), each)) for each in sections] == [sorted(rounds)] * 3
    with connect(EngineSettings(cluster.urls[0])) as client:
        index = ImageIndex(client, alias="images")
        change_meta(client, index.name(), lambda meta: meta | {"revisions": {}, "bulk_load": {}})


def _names(index: ImageIndex) -> set[str]:
    index.refresh()
    hits = index.search({"query": {"match_all": {}}, "size": PICTURES * 2}).hits
    assert len(hits) == PICTURES
    return {hit.source["image_name"] for hit in hits}
