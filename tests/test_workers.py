"""`--on`: the same documents from many processes, also when some of them are killed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import zipfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from click.testing import CliRunner, Result
from elasticsearch import Elasticsearch
from elasticsearch.helpers import scan
from http_fronts import proxy
from model_folders import save_clip
from picture_files import save_picture
from test_sidecars import xmp
from waiting import PATIENCE_S, Hold, wait_until

from glimpse import main
from ingest.errors import IngestError
from ingest.files.walk import Candidate, Shard
from ingest.options import CaptionOptions, IngestOptions, WordsOptions
from ingest.pipeline.captions import CaptionPass
from ingest.pipeline.run import failed_file
from ingest.pipeline.words import WordsPass
from ingest.reindex import open_reindexer
from ingest.report import Progress, RunCounts
from ingest.wiring import IngestSettings, open_dependencies
from ingest.workers.driver import ENDS_WORKERS, Answered, CrewEvent, Joined, Lost, SharedWork, WorkerOrder
from ingest.workers.lease import Lease, LeaseAnswer, NotedFile, Parcels
from ingest.workers.worker import IngestTask, LeaseWorker, installed_version
from storage.errors import StorageError
from storage.keys import thumbnail_key

ROOT = Path(__file__).parent.parent
PICTURES = 48
FEW = 12
HELD = 3
"""bulk requests that are held at once: one worker has two leases, so that both are at work"""


BATCHES_OF_FOUR = (
    "from ingest.options import IngestOptions; init = IngestOptions.__init__;"
    " init.__defaults__ = (4, *init.__defaults__[1:])"
)
"""lets a command embed four pictures together"""


@pytest.fixture
def environ(node, tmp_path: Path, index_name: str) -> dict[str, str]:
    """The settings of a command, as environment variables."""
    return {
        "ELASTICSEARCH_URL": node.url,
        "GLIMPSE_HOME": str(tmp_path / "home"),
        "GLIMPSE_INDEX": index_name,
        "GLIMPSE_INGEST_CAPTIONS": "off",
        "GLIMPSE_INGEST_BATCH_SIZE": "4",
    }


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for number in range(PICTURES):
        save_picture(tmp_path / "pictures" / f"{number:02}.png", number)
    return tmp_path / "pictures"


def glimpse(environ: dict[str, str], *arguments: object) -> Result:
    return CliRunner().invoke(main, ["ingest", *map(str, arguments)], env=environ)


def start(
    environ: dict[str, str], *arguments: object, command: str = "ingest", code: str = "pass"
) -> subprocess.Popen[str]:
    begin = f"{code}; from glimpse import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", begin, command, *map(str, arguments)],
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def documents(client: Elasticsearch, index: str) -> dict[str, dict[str, Any]]:
    """Return the documents by id, without the time of writing."""
    client.indices.refresh(index=index)
    query = {"query": {"match_all": {}}, "_source": {"exclude_vectors": False, "excludes": ["indexed_at"]}}
    return {each["_id"]: each["_source"] for each in scan(client, index=index, query=query)}


VARYING = {"image_embedding", "image_name", "names"}
"""the last bits of vectors, and what follows from which of several paths came first"""


def facts(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return documents as they are whoever made them."""
    return {
        image_id: {key: value for key, value in source.items() if key not in VARYING}
        | {"relative_path": sorted(source["relative_path"])}
        for image_id, source in found.items()
    }


class BothAtWork(Hold):
    """Holds bulk requests, and is reached when more are held than one worker sends."""

    def __init__(self) -> None:
        self.held: list[str] = []
        super().__init__(self._wanted_bulk)

    def _wanted_bulk(self, _method: str, path: str) -> bool:
        if "_bulk" in path:
            self.held.append(path)
            return True
        return False

    @property
    def is_reached(self) -> bool:
        return len(self.held) >= HELD


@pytest.fixture
def held(node) -> Iterator[tuple[str, BothAtWork]]:
    """The address of the node behind a proxy that holds bulk requests."""
    hold = BothAtWork()
    with proxy(node.url, hold) as url:
        yield url, hold
        hold.release()


def test_workers_make_the_documents_that_one_process_makes(environ, client, index_name, tmp_path):
    folder = tmp_path / "pictures"
    for number in range(12):
        save_picture(folder / f"{number:02}.png", number)
    (folder / "bad.png").write_text("no picture")
    os.utime(folder / "bad.png", (1_600_000_000, 1_600_000_000))  # the latest are read again
    # Copies of one picture, far apart in the listing, of which each has words of its own.
    for name, word in (("00-copy", "alpha"), ("30-copy", "beta"), ("60-copy", "gamma")):
        save_picture(folder / f"{name}.png", 77)
        (folder / f"{name}.png.xmp").write_bytes(xmp(word))
    save_picture(folder / "plain" / "copy.png", 77)
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        for number in range(20, 26):
            archive.write(save_picture(tmp_path / f"{number}.png", number), f"{number}.png")
        archive.writestr("20.png.xmp", xmp("delta"))
    environ["GLIMPSE_INGEST_BATCH_SIZE"] = "1"
    alone = environ | {"GLIMPSE_INDEX": f"{index_name}-alone", "GLIMPSE_HOME": str(tmp_path / "alone")}
    expected = glimpse(alone, folder, tmp_path / "more.zip", "--json")
    done = glimpse(environ, folder, tmp_path / "more.zip", "--json", "--on", "local[2]")
    assert (expected.exit_code, done.exit_code) == (1, 1), done.output
    answer = json.loads(done.stdout)
    assert (answer["files"], answer["indexed"], answer["failed"]) == (23, 19, 1)
    assert answer["failures"] == [{"path": f"{folder}/bad.png", "reason": "not a picture in a known format"}]
    found = documents(client, index_name)
    assert facts(found) == facts(documents(client, f"{index_name}-alone"))
    (copies,) = (each for each in found.values() if len(each["relative_path"]) == 4)
    assert sorted(copies["tags"]) == ["alpha", "beta", "gamma"]
    assert [each["image_name"] for each in found.values() if each.get("tags") == ["delta"]] == ["20.png"]
    # The history knows all of it, whoever did the work.
    again = json.loads(glimpse(environ, folder, tmp_path / "more.zip", "--json").stdout)
    assert (again["indexed"], again["skipped"], again["failed_before"]) == (0, 22, 1)
    assert again["embedded"] == 0


def local_workers(driver: subprocess.Popen[str]) -> list[psutil.Process]:
    return [
        each
        for each in psutil.Process(driver.pid).children()
        if "ingest.workers.local" in str(each.cmdline())
    ]


def test_a_worker_that_is_killed_loses_nothing_and_the_exit_code_is_that_of_the_run(
    environ, client, held, pictures
):
    url, hold = held
    driver = start(environ | {"ELASTICSEARCH_URL": url}, pictures, "--json", "--on", "local[2]")
    wait_until(lambda: hold.is_reached, running=driver)
    worker, *_ = local_workers(driver)
    worker.kill()
    hold.release()
    out, err = driver.communicate(timeout=PATIENCE_S)
    assert driver.returncode == 0, err
    assert f"Worker {worker.pid} died; others go on with its " in err
    answer = json.loads(out)
    # What the dead worker had written is known to the one that went on.
    assert (answer["files"], answer["failed"]) == (PICTURES, 0)
    assert answer["indexed"] + answer["skipped"] == PICTURES
    found = documents(client, environ["GLIMPSE_INDEX"])
    assert sorted(path for each in found.values() for path in each["relative_path"]) == sorted(
        path.name for path in pictures.iterdir()
    )
    again = json.loads(glimpse(environ, pictures, "--json").stdout)
    assert (again["skipped"], again["embedded"]) == (PICTURES, 0)


def test_after_ctrl_c_no_worker_is_left_and_the_next_run_goes_on(environ, client, held, pictures):
    url, hold = held
    driver = start(environ | {"ELASTICSEARCH_URL": url}, pictures, "--json", "--on", "local[2]")
    wait_until(lambda: hold.is_reached, running=driver)
    workers = psutil.Process(driver.pid).children()
    driver.send_signal(signal.SIGINT)
    wait_until(lambda: not any(each.is_running() and each.status() != "zombie" for each in workers))
    hold.release()
    out, _ = driver.communicate(timeout=PATIENCE_S)
    assert driver.returncode == 130
    assert json.loads(out)["interrupted"]
    assert glimpse(environ, pictures).exit_code == 0
    assert len(documents(client, environ["GLIMPSE_INDEX"])) == PICTURES


def test_workers_end_with_a_driver_that_is_killed(environ, held, pictures):
    url, hold = held
    driver = start(environ | {"ELASTICSEARCH_URL": url}, pictures, "--on", "local[2]")
    wait_until(lambda: hold.is_reached, running=driver)
    workers = psutil.Process(driver.pid).children()
    driver.kill()
    driver.communicate()
    wait_until(lambda: not any(each.is_running() and each.status() != "zombie" for each in workers))
    hold.drop()


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("local[0]", "local[0] has no worker: write local[4] for four processes of this machine."),
        ("spark://x", "'spark://x' names no workers: write local[4] for four processes of this machine, or"),
        ("ray://", "'ray://' names no head node: write ray://HOST:10001."),
        ("ray://h:x", "'ray://h:x' names no head node: write ray://HOST:10001."),
        (
            "ray://127.0.0.1:9",
            "No head node of Ray answers at ray://127.0.0.1:9 (Connection refused): start it there with `ray"
            " start --head`, or correct the address.",
        ),
    ],
)
def test_workers_that_cannot_be_had_are_one_sentence(environ, pictures, place, sentence):
    driver = start(environ, pictures, "--on", place)
    _, err = driver.communicate(timeout=PATIENCE_S)
    assert driver.returncode == 1
    assert err.startswith(f"Error: {sentence}")
    assert len(err.splitlines()) == 1


def test_without_ray_the_way_to_install_it_is_named(environ, pictures, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    done = glimpse(environ, pictures, "--on", "ray://127.0.0.1:10001")
    assert done.exit_code == 1
    assert done.stderr == ("Error: --on ray://127.0.0.1:10001 needs Ray: pip install 'glimpse-search[ray]'\n")


@pytest.mark.parametrize("other", ["--watch", "--dry-run"])
def test_what_one_process_does_does_not_go_with_workers(environ, pictures, other):
    done = glimpse(environ, pictures, "--on", "local[2]", other)
    assert done.exit_code == 2
    assert f"--on does not go with {other}" in done.stderr


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"version": "0.0.1"}, "install the same version on all machines"),
        ({"paths": (Path("/absent/photos"),)}, "does not see /absent/photos: mount it there under the same"),
        ({"mark": thumbnail_key("0" * 64)}, "name one that all machines share, as in --store s3://bucket/"),
    ],
)
def test_a_worker_that_sees_other_things_than_its_driver_says_so(
    *, wrong, said, environ, pictures, monkeypatch
):
    assert glimpse(environ, pictures, "--limit", 1).exit_code == 0
    for name, value in {**environ, "OMP_WAIT_POLICY": "PASSIVE"}.items():
        monkeypatch.setenv(name, value)
    settings = IngestSettings(alias=environ["GLIMPSE_INDEX"])
    right = WorkerOrder(settings, IngestTask(IngestOptions()), environ, version=installed_version())
    with pytest.raises(IngestError, match=re.escape(said)):
        LeaseWorker(replace(right, **wrong))


class FailingCrew:
    """Workers that note every file, and die of those that `deadly` names."""

    size, threads = 2, None

    def __init__(self, deadly: Callable[[Candidate], bool]) -> None:
        self._deadly, self._parcels = deadly, Parcels()
        self._events: deque[CrewEvent] = deque()
        self._made = 0
        self.held: dict[str, dict[int, bytes]] = {}

    def start(self, _order: WorkerOrder) -> None:
        for _ in range(self.size):
            self._join()

    def submit(self, worker: str, number: int, lease: bytes) -> None:
        self.held[worker][number] = lease

    def wait(self, _seconds: float) -> list[CrewEvent]:
        if self._events:
            return [self._events.popleft()]
        worker, leases = next((name, each) for name, each in self.held.items() if each)
        if any(self._deadly(file) for each in leases.values() for file in self._parcels.unpack(each).items):
            del self.held[worker]
            self._join()
            return [Lost(worker)]
        return [Answered(worker, number, self._answer(leases.pop(number))) for number in list(leases)]

    def close(self) -> None:
        self.held.clear()

    def _join(self) -> None:
        self._made += 1
        self.held[str(self._made)] = {}
        self._events.append(Joined(str(self._made)))

    def _answer(self, packed: bytes) -> bytes:
        lease: Lease = self._parcels.unpack(packed)
        noted = tuple(NotedFile(each, "0" * 64, new_path=False) for each in lease.items)
        return self._parcels.pack(LeaseAnswer(RunCounts(Progress()).part(), noted, (), (), 0))


def shared(deadly: Callable[[Candidate], bool]) -> SharedWork:
    order = WorkerOrder(IngestSettings(), IngestTask(IngestOptions(batch_size=2)), {})
    return SharedWork(FailingCrew(deadly), order, say=lambda _: None)


def chunks(number: int) -> list[list[Candidate]]:
    files = [Candidate(Path(f"/x/{each}.png"), f"{each}.png") for each in range(number)]
    return [files[start : start + 10] for start in range(0, number, 10)]


def test_a_file_that_ends_every_worker_is_a_failure_of_its_own_and_costs_no_other():
    answers = list(
        shared(lambda file: file.relative_path == "17.png").answers(chunks(40), failed=failed_file)
    )
    noted = [each.candidate.relative_path for answer in answers for each in answer.noted]
    assert sorted(noted) == sorted(f"{number}.png" for number in range(40) if number != 17)
    ((candidate, fault),) = [each for answer in answers for each in answer.failed]
    assert (candidate.relative_path, fault) == ("17.png", ENDS_WORKERS)


def test_workers_that_all_die_end_the_run_with_a_sentence():
    with pytest.raises(IngestError, match="20 workers died one after the other and none finished its files"):
        list(shared(lambda _: True).answers([chunks(9)[0] * 1000], failed=failed_file))


# -- passes over the pictures of an index


@pytest.fixture
def few(environ, tmp_path: Path) -> Path:
    """A folder of few pictures, which the index holds."""
    for number in range(FEW):
        save_picture(tmp_path / "few" / f"{number:02}.png", number)
    assert glimpse(environ, tmp_path / "few").exit_code == 0
    return tmp_path / "few"


def versions(client: Elasticsearch, index: str) -> list[int]:
    """Return how often each document was written."""
    client.indices.refresh(index=index)
    hits = client.search(index=index, size=FEW, version=True, source=False)["hits"]["hits"]
    return [hit["_version"] for hit in hits]


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(("command", "field"), [("caption", "caption_source"), ("words", "words_by")])
def test_a_pass_whose_worker_is_killed_writes_each_picture_once(command, field, environ, client, held):
    url, hold = held
    driver = start(environ | {"ELASTICSEARCH_URL": url}, "--json", "--on", "local[2]", command=command)
    wait_until(lambda: hold.is_reached, running=driver)
    worker, *_ = local_workers(driver)
    worker.kill()
    hold.release()
    out, err = driver.communicate(timeout=PATIENCE_S)
    assert driver.returncode == 0, err
    assert f"Worker {worker.pid} died; others go on with its " in err
    answer = json.loads(out)
    # A request that was on its way when its worker died may arrive later than the one that took its place.
    assert (answer["written"] + answer["changed"], answer["failed"]) == (FEW, 0)
    assert all(each[field] for each in documents(client, environ["GLIMPSE_INDEX"]).values())
    assert versions(client, environ["GLIMPSE_INDEX"]) == [2] * FEW
    again = CliRunner().invoke(main, [command, "--on", "local[2]"], env=environ)
    assert (again.exit_code, again.stderr) == (0, "")  # nothing waits, so nobody starts


@pytest.mark.parametrize("command", ["caption", "words"])
def test_what_a_dead_worker_wrote_counts_as_written(command, environ, client, few):
    dependencies = open_dependencies(IngestSettings(alias=environ["GLIMPSE_INDEX"]), environ, create=False)
    run = (
        CaptionPass(dependencies, CaptionOptions(), Progress())
        if command == "caption"
        else WordsPass(dependencies, WordsOptions(), Progress())
    )
    waiting = tuple(chain.from_iterable(run.waiting()))
    places = {each.image_id: (os.fsencode(few / each.relative_path),) for each in waiting}
    first = run.lease(Lease(1, waiting[:4], places))
    assert first.counts == {"written": 4}
    taken_over = run.lease(Lease(2, waiting[:6], places, deaths=1))
    assert (taken_over.counts, taken_over.failures) == ({"written": 6}, ())
    assert sorted(versions(client, environ["GLIMPSE_INDEX"])) == [1] * (FEW - 6) + [2] * 6


@pytest.mark.usefixtures("few")
def test_a_store_that_is_away_ends_a_pass_of_many_small_leases(environ):
    dependencies = open_dependencies(IngestSettings(alias=environ["GLIMPSE_INDEX"]), environ, create=False)
    store = Path(environ["GLIMPSE_HOME"]) / "store"
    shutil.rmtree(store)
    store.symlink_to(store)  # no file below it can be opened
    run = CaptionPass(dependencies, CaptionOptions(threads=1), Progress())
    waiting = tuple(chain.from_iterable(run.waiting()))
    assert len(run.lease(Lease(1, waiting, {})).failures) == FEW
    with pytest.raises(StorageError):
        run.lease(Lease(2, waiting, {}))


@pytest.mark.usefixtures("few")
def test_a_reindex_whose_worker_is_killed_loses_nothing(environ, client, held, tmp_path):
    url, hold = held
    models = save_clip(tmp_path / "models", dims=24)
    before = documents(client, environ["GLIMPSE_INDEX"])
    command = ["--profile", "pocket", "--model-dir", models, "--json", "--on", "local[2]"]
    driver = start(environ | {"ELASTICSEARCH_URL": url}, *command, command="reindex", code=BATCHES_OF_FOUR)
    wait_until(lambda: hold.is_reached, running=driver)
    worker, *_ = local_workers(driver)
    worker.kill()
    hold.release()
    out, err = driver.communicate(timeout=PATIENCE_S)
    assert driver.returncode == 0, err
    assert f"Worker {worker.pid} died; others go on with its " in err
    answer = json.loads(out)
    assert (answer["images"], answer["embedded"], answer["missing"]) == (FEW, FEW, [])
    assert answer["switched"]["now"] == answer["index"]
    after = documents(client, environ["GLIMPSE_INDEX"])
    assert {len(each["image_embedding"]) for each in after.values()} == {24}
    assert facts(after) == facts(before)


def test_what_a_dead_worker_put_into_the_next_index_counts_as_embedded(environ, client, few, tmp_path):
    settings = IngestSettings("pocket", save_clip(tmp_path / "models", dims=24), environ["GLIMPSE_INDEX"])
    with open_reindexer(settings, environ, folders=[few], progress=Progress()) as reindexer:
        tasks = tuple(reindexer._tasks())
        first = reindexer.lease(Lease(1, tasks[:4], {}))
        taken_over = reindexer.lease(Lease(2, tasks[:6], {}, deaths=1))
        assert [(each.embedded, len(each.written), each.missing) for each in (first, taken_over)] == [
            (4, 4, {}),
            (6, 6, {}),
        ]
        assert sorted(versions(client, reindexer.new.name())) == [1] * 6


def blocks(kind: str) -> list[str]:
    """Return the blocks of a kind in docs/scale.md."""
    return re.findall(
        rf"```{kind}\n(.*?)```", (ROOT / "docs" / "scale.md").read_text(encoding="utf-8"), re.DOTALL
    )


def recorded(script: str, tmp_path: Path, **environ: str) -> list[list[str]]:
    """Run a script of the docs with a `glimpse` that writes down how it is called. Return the calls."""
    tools, calls = tmp_path / "bin", tmp_path / "calls"
    tools.mkdir(exist_ok=True)
    for name, body in {
        "glimpse": f'printf "%s\\0" "$@" >> {calls}; printf "\\n" >> {calls}',
        # As GNU parallel itself: a command for each line, in which {} stands for it.
        "parallel": 'while [ "$1" != glimpse ]; do shift; done; while read -r n; do "${@//\\{\\}/$n}"; done',
    }.items():
        (tools / name).write_text(f"#!/bin/bash\n{body}\n")
        (tools / name).chmod(0o755)
    calls.unlink(missing_ok=True)
    path = {"PATH": f"{tools}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    subprocess.run(["bash", "-c", script], env=path | environ, check=True)
    return [line.rstrip("\0").split("\0") for line in calls.read_text().splitlines()]


def calls_of_kubernetes(tmp_path: Path) -> list[list[str]]:
    (job,) = map(yaml.safe_load, blocks("yaml"))
    spec = job["spec"]
    assert (job["kind"], spec["completionMode"]) == ("Job", "Indexed")
    (container,) = spec["template"]["spec"]["containers"]
    assert container["command"] == ["sh", "-c"]
    (script,) = container["args"]
    return [
        call
        for index in range(spec["completions"])
        for call in recorded(script, tmp_path, JOB_COMPLETION_INDEX=str(index))
    ]


def calls_of_slurm(tmp_path: Path) -> list[list[str]]:
    (script,) = [each for each in blocks("bash") if "#SBATCH" in each]
    first, last = re.search(r"#SBATCH --array=(\d+)-(\d+)", script).groups()
    return [
        call
        for task in range(int(first), int(last) + 1)
        for call in recorded(script, tmp_path, SLURM_ARRAY_TASK_ID=str(task))
    ]


def calls_of_parallel(tmp_path: Path) -> list[list[str]]:
    (script,) = [each for each in blocks("bash") if "| parallel" in each]
    return recorded(script, tmp_path)


@pytest.mark.parametrize("calls_of", [calls_of_kubernetes, calls_of_slurm, calls_of_parallel])
def test_examples_for_schedulers_take_each_part_once(calls_of, environ, tmp_path):
    calls = calls_of(tmp_path)
    parts = [call[call.index("--part") + 1] for call in calls]
    assert sorted(parts) == sorted(f"{number}/16" for number in range(1, 17))
    for number in range(4):
        save_picture(tmp_path / "photos" / f"{number}.png", number)
    # The command is one: with folders of this machine, its options index their part.
    options = calls[4][2:]
    options[options.index("--store") + 1] = str(tmp_path / "store")
    options[options.index("--profile") + 1] = "pocket"
    done = json.loads(glimpse(environ, tmp_path / "photos", *options, "--json").stdout)
    held = [each for each in range(4) if Shard(5, 16).holds(f"{each}.png")]
    assert (calls[4][0], done["files"], done["failed"]) == ("ingest", len(held), 0)


# -- Ray: a head node and a second one, as they run on two machines


def ray_command(*arguments: str) -> list[str]:
    # Not all versions of grpc can fork where Ray does.
    return [sys.executable, "-m", "ray.scripts.scripts", "start", "--num-cpus=1", *arguments, "--block"]


RAY_ENVIRON = {"GRPC_ENABLE_FORK_SUPPORT": "0", "RAY_USAGE_STATS_ENABLED": "0"}


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def end_tree(process: subprocess.Popen[Any]) -> None:
    """Kill a node with all of its processes, as a machine that loses its power."""
    for each in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
        try:
            each.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait()


class RayNodes:
    """Nodes of a cluster on this machine."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._port, self._client_port = free_ports(2)
        self.address = f"ray://127.0.0.1:{self._client_port}"
        self.nodes: list[subprocess.Popen[Any]] = []
        self._start(
            "--head",
            f"--port={self._port}",
            f"--ray-client-server-port={self._client_port}",
            "--include-dashboard=false",
            f"--temp-dir={folder}",
        )
        wait_until(self._answers, running=self.nodes[0])

    def add(self) -> subprocess.Popen[Any]:
        """Start another node."""
        self._start(f"--address=127.0.0.1:{self._port}")
        return self.nodes[-1]

    def end(self) -> None:
        """Kill all nodes."""
        for each in reversed(self.nodes):
            if each.poll() is None:
                end_tree(each)

    def _start(self, *arguments: str) -> None:
        with (Path(self._folder) / f"node{len(self.nodes)}.log").open("wb") as log:
            self.nodes.append(
                subprocess.Popen(
                    ray_command("--object-store-memory=80000000", *arguments),
                    env={**os.environ, **RAY_ENVIRON},
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._client_port)) == 0


@pytest.fixture(scope="module")
def ray_nodes() -> Iterator[RayNodes]:
    """A cluster of one node. Its folder has a short name, for the names of sockets have a limit."""
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        nodes = RayNodes(folder)
        try:
            yield nodes
        finally:
            nodes.end()


def workers_of(node: subprocess.Popen[Any]) -> Sequence[psutil.Process]:
    return [
        each
        for each in psutil.Process(node.pid).children(recursive=True)
        if any("RayWorker" in word for word in each.cmdline())
    ]


def test_a_node_of_ray_that_is_killed_loses_nothing(environ, client, held, pictures, ray_nodes):
    second = ray_nodes.add()
    url, hold = held
    settings = environ | {"ELASTICSEARCH_URL": url}
    driver = start(settings, pictures, "--json", "--on", ray_nodes.address)
    wait_until(lambda: hold.is_reached, running=driver)
    assert len(workers_of(second)) == 1
    end_tree(second)
    hold.release()
    out, err = driver.communicate(timeout=PATIENCE_S)
    assert driver.returncode == 0, err
    assert "died; others go on with its " in err
    answer = json.loads(out)
    assert (answer["files"], answer["failed"]) == (PICTURES, 0)
    assert answer["indexed"] + answer["skipped"] == PICTURES
    found = documents(client, environ["GLIMPSE_INDEX"])
    assert sorted(path for each in found.values() for path in each["relative_path"]) == sorted(
        path.name for path in pictures.iterdir()
    )
    again = json.loads(glimpse(environ, pictures, "--json").stdout)
    assert (again["skipped"], again["embedded"]) == (PICTURES, 0)


def test_a_cluster_of_another_ray_is_one_sentence(environ, pictures, ray_nodes):
    driver = start(environ, pictures, "--on", ray_nodes.address, code="import ray; ray.__version__ = '2.1.0'")
    _, err = driver.communicate(timeout=PATIENCE_S)
    assert driver.returncode == 1
    assert err.startswith(f"Error: The Ray cluster at {ray_nodes.address} does not fit (")
    assert "run the same Ray and the same Python as there; here they are Ray 2.1.0 and Python " in err
    assert len(err.splitlines()) == 1
