"""Break the parts of a served index in turn under load, and ask every route all that its document allows."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from benchmarks.report import Figure
from demo.gallery import draw_gallery
from es_config.client import connect, engine_settings
from es_config.local_node.node import LocalNode

FIRST_PICTURES = 40
FAULTS = 20
LONGEST_S = 60.0
HEAP_MB = 512
BETWEEN = 3
"""uploads that have to be acknowledged between two faults"""
RUNS_S = 3.0
"""for which a fault lasts under load"""
CASES = 2000
LONGEST_RUN_S = 600
EXAMPLES = 320
"""cases of each operation: some are refused by the limits of what one person may ask, and do not count"""
ROLES = ("viewer", "contributor", "owner")
SPECIAL = "clock step, full and read-only store (they need root on Linux, and a C compiler)"
TINY_STORE = "16m"
Json = dict[str, Any]


@dataclass
class Place:
    """A node, a server and a store, each of which can be broken and mended."""

    home: Path
    environ: dict[str, str]
    port: int
    local: LocalNode
    can_mount: bool
    can_step: bool = False
    server: subprocess.Popen[bytes] | None = None

    @property
    def store(self) -> Path:
        """The folder of thumbnails and uploads."""
        return self.home.parent / "store"

    @property
    def clock(self) -> Path:
        """The file with the seconds by which the clock of the processes differs from the real one."""
        return self.home.parent / "clock"

    def set_clock(self, step_s: int) -> None:
        with self.clock.open("r+b") as file:  # in its place: the processes have mapped it
            file.write(struct.pack("l", step_s))

    def node_up(self) -> None:
        self.local.up(heap_mb=HEAP_MB, timeout_s=300)

    def node_pid(self) -> int:
        node = self.local.running()
        assert node is not None
        return node.pid

    def kill_node(self) -> None:
        pid = self.node_pid()
        os.kill(pid, signal.SIGKILL)
        while self.local.running() is not None:
            time.sleep(0.05)

    def server_up(self) -> None:
        command = [sys.executable, "-m", "glimpse", "serve", "--port", str(self.port), "--voice-model", "off"]
        command += ["--store", str(self.store), "--text-lane", "local"]
        self.server = subprocess.Popen(command, env=self.environ, stderr=subprocess.DEVNULL)
        self.wait()

    def kill_server(self) -> None:
        assert self.server is not None
        self.server.kill()
        self.server.wait()

    def wait(self) -> None:
        """Wait until a search works."""
        deadline = time.monotonic() + 5 * LONGEST_S
        while self.ask("GET", "/readyz")[0] != 200:
            if time.monotonic() > deadline:
                raise RuntimeError("the server does not become ready")
            time.sleep(0.2)

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Json]:
        """Return the status and the JSON of an answer, status 0 without one."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=LONGEST_S)
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            content = answer.read()
            is_json = "json" in answer.headers.get("Content-Type", "")
            return answer.status, json.loads(content) if is_json else {}
        except (OSError, HTTPException, ValueError):
            return 0, {}
        finally:
            connection.close()

    @contextmanager
    def client(self) -> Iterator[Any]:
        with connect(engine_settings({}, self.home)) as client:
            yield client


class Load:
    """One person who adds pictures and two who search, from threads, until the end of the context.

    A search is wrong if it says that it is whole and lacks a picture whose upload was answered before.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._ended = threading.Event()
        self.acknowledged: list[str] = []
        self.statuses: Counter[int] = Counter()
        self.answered = 0
        self.wrong: list[str] = []

    def __enter__(self) -> Load:
        self._threads = [threading.Thread(target=each) for each in (self._add, self._search, self._search)]
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for each in self._threads:
            each.join()

    def wait(self) -> None:
        """Wait until uploads are acknowledged, so that the next fault meets some that are under way."""
        enough, deadline = len(self.acknowledged) + BETWEEN, time.monotonic() + 5 * LONGEST_S
        while len(self.acknowledged) < enough:
            if time.monotonic() > deadline:
                raise RuntimeError("no picture can be added any more")
            time.sleep(0.05)

    def _add(self) -> None:
        seed = 0
        while not self._ended.wait(0.1):
            seed += 1
            status, said = self._place.ask("POST", "/api/v1/images", _form(_picture(seed)), FORM)
            self.statuses[status] += 1
            if status in (200, 201):
                self.acknowledged.append(said["images"][0]["image_id"])

    def _search(self) -> None:
        chance = random.Random(1)
        while not self._ended.wait(0.05):
            if not (known := list(self.acknowledged)):
                continue
            wanted = chance.choice(known)
            status, said = self._place.ask("GET", f"/api/v1/search?like={wanted}&k=1&exact=true")
            found = [hit["image_id"] for hit in said.get("hits", ())]
            self._judge(f"like ({status})", status, said, status == 404 or found != [wanted])
            status, said = self._place.ask("GET", "/api/v1/search?q=a+boat&k=10000&exact=true")
            lacks = set(known) - {hit["image_id"] for hit in said.get("hits", ())}
            self._judge("all", status, said, bool(lacks))

    def _judge(self, name: str, status: int, said: Json, is_wrong: bool) -> None:
        if status == 200 and not said["partial"]:
            self.answered += 1
        if is_wrong and (status == 404 or (status == 200 and not said["partial"])):
            self.wrong.append(name)

    def lost(self) -> int:
        """Return how many acknowledged pictures have no document or no thumbnail."""
        paths = [f"/api/v1/images/{each}{end}" for each in self.acknowledged for end in ("", "/thumbnail")]
        return sum(self._place.ask("GET", path)[0] != 200 for path in paths)


FORM = {"Content-Type": "multipart/form-data; boundary=b"}


def _form(data: bytes) -> bytes:
    head = b'--b\r\nContent-Disposition: form-data; name="image"; filename="added.png"\r\n\r\n'
    return head + data + b"\r\n--b--\r\n"


def _picture(seed: int) -> bytes:
    import io

    import numpy as np
    from PIL import Image

    data = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (48, 48, 3), np.uint8)
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


def dead_node(place: Place) -> None:
    """Kill the node as a crash does, and start it again."""
    place.kill_node()
    time.sleep(RUNS_S)
    place.node_up()


def dead_server(place: Place) -> None:
    """Kill the server as a crash does, and start it again."""
    place.kill_server()
    time.sleep(0.5)
    place.server_up()


def dead_both(place: Place) -> None:
    """Kill both, as when the power fails."""
    place.kill_server()
    place.kill_node()
    place.node_up()
    place.server_up()


def hung_node(place: Place) -> None:
    """Stop the node, so that it takes connections and answers none."""
    pid = place.node_pid()
    os.kill(pid, signal.SIGSTOP)
    time.sleep(3 * RUNS_S)
    os.kill(pid, signal.SIGCONT)


def full_store(place: Place) -> None:
    """Fill the disk of the store."""
    filler = place.store / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(1 << 16)):
            pass
    time.sleep(RUNS_S)
    filler.unlink()


def read_only_store(place: Place) -> None:
    """Make the disk of the store read-only."""
    subprocess.run(["mount", "-o", "remount,ro", str(place.store)], check=True)
    time.sleep(RUNS_S)
    subprocess.run(["mount", "-o", "remount,rw", str(place.store)], check=True)


def blocked_index(place: Place, *, block: str = "blocks.write") -> None:
    """Let the index take no writes."""
    with place.client() as client:
        client.indices.put_settings(index="images", settings={"index": {block: True}})
        time.sleep(RUNS_S)
        client.indices.put_settings(index="images", settings={"index": {block: None}})


def full_disk_of_the_node(place: Place) -> None:
    """Set the block that Elasticsearch sets at the flood stage of its disk."""
    blocked_index(place, block="blocks.read_only_allow_delete")


def lost_shard(place: Place) -> None:
    """Take the last commit of one of the shards away while the node is down, and give it back."""
    with place.client() as client:
        client.indices.flush(index="images")
        (settings,) = client.indices.get_settings(index="images").body.values()
    pattern = f"indices/{settings['settings']['index']['uuid']}/0/index/segments_*"
    place.local.down()
    (commit,) = (place.home / "node").rglob(pattern)
    hidden = commit.with_name("hidden")
    commit.rename(hidden)
    place.node_up()
    time.sleep(2 * RUNS_S)
    place.local.down()
    for each in commit.parent.glob("corrupted_*"):
        each.unlink()
    hidden.rename(commit)
    place.node_up()
    with place.client() as client:
        client.cluster.reroute(retry_failed=True)


def clock_step(place: Place) -> None:
    """Set the clock of the node and the server an hour forward, then half an hour back, and ask each time."""
    lines = Path("/proc/stat").read_text().splitlines(keepends=True)
    stat = place.home.parent / "stat"
    for step_s in (3600, -1800):
        place.set_clock(step_s)
        stat.write_text(
            "".join(
                f"btime {int(each.split()[1]) + step_s}\n" if each.startswith("btime") else each
                for each in lines
            )
        )
        # The kernel tells the time of the boot by the stepped clock, too.
        ask = f"mount --bind {stat} /proc/stat && exec {sys.executable} -m glimpse status"
        command = ["unshare", "-m", "sh", "-c", ask]
        done = subprocess.run(command, env=place.environ, capture_output=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"a clock step of {step_s} s lost the node: {done.stderr.decode()}")
        time.sleep(RUNS_S)
    place.set_clock(0)


TURN: tuple[Callable[[Place], None], ...] = (
    dead_node,
    dead_server,
    hung_node,
    full_store,
    read_only_store,
    blocked_index,
    full_disk_of_the_node,
    clock_step,
    lost_shard,
    dead_both,
)
NEED_MOUNT = (full_store, read_only_store, clock_step)
CLOCK = Path(__file__).parent / "clock.c"
"""the clock of the node and the server: a step of the machine's own would hit everything that runs on it"""


@contextmanager
def broken_place() -> Iterator[Place]:
    """Yield a node with an index of two shards, a server and a store of its own, ended with the context."""
    with tempfile.TemporaryDirectory(prefix="glimpse-bench-") as folder, ExitStack() as ending:
        home = Path(folder) / "home"
        environ = {**os.environ, "GLIMPSE_HOME": str(home), "GLIMPSE_PROFILE": "pocket"}
        with socket.create_server(("127.0.0.1", 0)) as found:
            port = found.getsockname()[1]
        place = Place(home, environ, port, LocalNode(home, environ=environ), can_mount=False)
        place.store.mkdir()
        place.clock.write_bytes(struct.pack("l", 0))
        library = Path(folder) / "clock.so"
        with suppress(OSError):
            place.can_step = sys.platform == "linux" and _works(
                ["cc", "-shared", "-fPIC", "-O2", "-o", str(library), str(CLOCK), "-ldl"]
            )
        if place.can_step:
            environ |= {"LD_PRELOAD": str(library), "CLOCK_STEP": str(place.clock)}
        mount = ["mount", "-t", "tmpfs", "-o", f"size={TINY_STORE}", "tmpfs", str(place.store)]
        with suppress(OSError):
            place.can_mount = sys.platform == "linux" and os.geteuid() == 0 and _works(mount)
        if place.can_mount:
            ending.callback(subprocess.run, ["umount", "-l", str(place.store)], check=False)
        ending.callback(place.local.down)
        place.node_up()
        draw_gallery(Path(folder) / "pictures", FIRST_PICTURES)
        glimpse = [sys.executable, "-m", "glimpse"]
        for words in (
            ["index", "create", "--shards", "2"],
            ["ingest", f"{folder}/pictures", "--captions", "off", "--store", str(place.store)],
        ):
            subprocess.run([*glimpse, *words], env=environ, check=True, capture_output=True)
        place.server_up()
        ending.callback(place.kill_server)
        yield place


def _works(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def faults(place: Place) -> list[Figure]:
    """Break one part after the other under load, and count lost writes and wrong answers."""
    tried = [each for each in TURN if place.can_mount or each not in NEED_MOUNT]
    tried = [each for each in tried if place.can_step or each is not clock_step]
    if not (place.can_mount and place.can_step):
        print(f"not tried here: {SPECIAL}")
    with Load(place) as load:
        load.wait()
        for number in range(FAULTS):
            broken = tried[number % len(tried)]
            broken(place)
            load.wait()
            print(f"  {number + 1:2} {broken.__name__:<24} acknowledged {len(load.acknowledged)}", flush=True)
    name = f"{FAULTS} faults under load ({len(load.acknowledged)} pictures acknowledged"
    name += f", {load.answered} whole answers): "
    print(f"  answers to uploads: {dict(load.statuses)}; wrong: {dict(Counter(load.wrong))}")
    return [
        Figure(f"{name}acknowledged writes lost", load.lost(), "", "≤ 0"),
        Figure(f"{name}wrong answers told as whole", len(load.wrong), "", "≤ 0"),
        Figure(f"{name}answers of status 500", load.statuses[500], "", "≤ 0"),
    ]


def every_route(place: Place) -> list[Figure]:
    """Send requests that the OpenAPI document allows and forbids, as each role, and count server errors."""
    place.kill_server()
    glimpse = [sys.executable, "-m", "glimpse"]
    figures = []
    for role in ROLES:
        words = ["user", "add", role, "--role", role, "--password-stdin"]
        subprocess.run(
            [*glimpse, *words], env=place.environ, input=uuid.uuid4().bytes.hex().encode(), check=True
        )
        added = subprocess.run(
            [*glimpse, "token", "add", role], env=place.environ, capture_output=True, check=True, text=True
        )
        token = added.stdout.split()[-1]
        statuses = _asked_as(place, token)
        cases = sum(number for status, number in statuses.items() if status != 429)
        print(f"  {role}: {dict(sorted(statuses.items()))}", flush=True)
        errors = sum(number for status, number in statuses.items() if status >= 500)
        figures += [
            Figure(f"schemathesis as {role}: cases beside those over a limit", cases, "", f"≥ {CASES}"),
            Figure(f"schemathesis as {role}: server errors", errors, "", "≤ 0"),
        ]
    return figures


def _asked_as(place: Place, token: str) -> Counter[int]:
    """Return how often each status was answered, as the access log tells."""
    command = [sys.executable, "-m", "glimpse", "serve", "--port", str(place.port)]
    command += ["--store", str(place.store), "--text-lane", "local", "--login", "--access-log"]
    log = place.home.parent / "access"
    url = f"http://127.0.0.1:{place.port}/openapi.json"
    ask = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()", "run", url]
    ask += ["-H", f"Authorization: Bearer {token}", "--phases", "coverage,fuzzing", "-n", str(EXAMPLES)]
    ask += ["--checks", "not_a_server_error", "--workers", "2", "--continue-on-failure", "--no-shrink"]
    ask += ["--seed", "1", "--suppress-health-check", "all", "--no-color"]
    with log.open("wb") as written:
        server = subprocess.Popen(command, env=place.environ, stdout=written, stderr=subprocess.DEVNULL)
        try:
            while place.ask("GET", "/healthz")[0] != 200:
                time.sleep(0.2)
            # Most operations are asked in turn: one that is cut off has asked each of them by then.
            with tempfile.TemporaryDirectory() as folder, suppress(subprocess.TimeoutExpired):
                subprocess.run(ask, cwd=folder, stdout=subprocess.DEVNULL, check=False, timeout=LONGEST_RUN_S)
        finally:
            server.kill()
            server.wait()
    lines = [json.loads(each) for each in log.read_text().splitlines() if each.endswith("}")]
    asked = [each for each in lines if each["path"] != "/healthz"]
    for failed in (each for each in asked if each["status"] >= 500):
        print(f"  {failed['status']} {failed['method']} {failed['path'][:100]}", flush=True)
    return Counter(each["status"] for each in asked)
