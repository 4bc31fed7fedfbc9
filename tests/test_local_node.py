"""The local node: a background process that starts once, keeps its data and explains failures."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from elasticsearch import ConnectionError
from http_fronts import kept_port
from waiting import PATIENCE_S, wait_until

from es_config.client import connect, engine_settings
from es_config.errors import EngineError
from es_config.home import PROGRAM, PROGRAMS
from es_config.local_node.install import NodeHome
from es_config.local_node.node import LocalNode, check_port, has_ended, heap_megabytes

HEAP_MB = 512


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> Iterator[LocalNode]:
    """A home of this module's own, whose node the first test that needs it starts."""
    node = LocalNode(tmp_path_factory.mktemp("own"), environ=dict(os.environ))
    yield node
    node.down()


def glimpse(home: Path, *arguments: str) -> subprocess.Popen:
    """Start the installed program."""
    command = [sys.executable, "-m", "glimpse", *arguments]
    environ = {**os.environ, "GLIMPSE_HOME": str(home)}
    return subprocess.Popen(
        command,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def ask(url: str, method: str = "GET", body: dict | None = None) -> dict:
    """Send one request, as any program would."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        url, data=data, method=method, headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
        return json.loads(response.read() or "{}")


def test_two_ups_at_once_start_one_node_that_outlives_them(local):
    both = [
        glimpse(local.glimpse_home, "up", "--json", "--heap", f"{HEAP_MB}m", "--timeout", "300")
        for _ in range(2)
    ]
    answers = [process.communicate(timeout=2 * PATIENCE_S) for process in both]
    assert [process.returncode for process in both] == [0, 0], answers
    first, second = (json.loads(out) for out, _ in answers)
    assert {first["started"], second["started"]} == {True, False}
    assert (first["pid"], first["url"]) == (second["pid"], second["url"])
    assert local.running().pid == first["pid"]
    assert os.getsid(first["pid"]) == first["pid"]


def test_up_when_up_changes_nothing(local):
    before = local.up(timeout_s=300).node
    again = local.up(timeout_s=300)
    assert (again.new, again.node) == (False, before)


@pytest.mark.parametrize("options", [{"heap_mb": 999_000}, {"port": 1}])
def test_up_with_options_says_that_they_change_nothing_when_up(local, options):
    before = local.up(timeout_s=300).node
    said: list[str] = []
    talking = LocalNode(local.glimpse_home, environ=dict(os.environ), say=said.append)
    assert talking.up(**options).node == before
    [sentence] = said
    assert "change nothing: run `glimpse down`, then `glimpse up` with them" in sentence
    assert talking.up(port=int(before.url.rsplit(":", 1)[1])).node == before
    assert said == [sentence]


def test_the_node_listens_on_the_loopback_interface_alone(local):
    node = local.up(timeout_s=300).node
    listening = [
        each for each in psutil.Process(node.pid).net_connections() if each.status == psutil.CONN_LISTEN
    ]
    assert {each.laddr.ip.removeprefix("::ffff:") for each in listening} == {"127.0.0.1"}
    assert int(node.url.rsplit(":", 1)[1]) in {each.laddr.port for each in listening}


def test_everything_in_a_home_is_for_its_owner_alone(local):
    local.glimpse_home.chmod(0o755)
    local.up(timeout_s=300)
    entries = [local.glimpse_home, *local.glimpse_home.rglob("*")]
    assert len(entries) > 50
    others = [entry for entry in entries if entry.lstat().st_mode & 0o077 and not entry.is_symlink()]
    assert others == []


def test_the_root_answers_as_elasticsearch_does(node):
    answer = ask(node.url)
    assert (answer["name"], answer["cluster_name"]) == ("glimpse-local", "glimpse")
    assert answer["tagline"] == "You Know, for Search"
    assert len(answer["cluster_uuid"]) == 22
    assert set(answer["version"]) == {
        "number",
        "build_flavor",
        "build_type",
        "build_hash",
        "build_date",
        "build_snapshot",
        "lucene_version",
        "minimum_wire_compatibility_version",
        "minimum_index_compatibility_version",
    }
    assert answer["version"]["number"] == "9.5.3"
    for method in ("GET", "HEAD"):
        request = urllib.request.Request(node.url, method=method)
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
            assert response.headers["X-Elastic-Product"] == "Elasticsearch"
            assert (len(response.read()) > 0) == (method == "GET")


def test_pictures_survive_a_node_that_is_killed(local):
    node = local.up(timeout_s=300).node
    ask(f"{node.url}/kept/_doc/1", "PUT", {"caption": "a boat"})
    psutil.Process(node.pid).kill()
    wait_until(lambda: local.running() is None)
    started = local.up(heap_mb=HEAP_MB, timeout_s=300)
    assert started.new
    assert ask(f"{started.node.url}/kept/_doc/1")["_source"] == {"caption": "a boat"}
    assert ask(f"{started.node.url}/kept/_search")["hits"]["total"]["value"] == 1


def test_a_node_comes_back_on_its_last_port_or_is_found_on_another(local):
    local.down()
    with kept_port() as port:
        pass
    first = local.up(port=port, heap_mb=HEAP_MB, timeout_s=300).node
    with connect(engine_settings({}, local.glimpse_home)) as client:
        local.down()
        with pytest.raises(ConnectionError):
            client.info()
        assert local.up(heap_mb=HEAP_MB, timeout_s=300).node.url == first.url
        assert client.info()["name"] == "glimpse-local"
        local.down()
        with socket.create_server(("127.0.0.1", port)):
            moved = local.up(heap_mb=HEAP_MB, timeout_s=300).node
            assert moved.url != first.url
            assert client.info()["name"] == "glimpse-local"


def test_down_closes_the_node_and_a_second_down_does_no_harm(local):
    process = psutil.Process(local.up(timeout_s=300).node.pid)
    assert local.down() is True
    assert has_ended(process, timeout_s=0.1)
    assert local.running() is None
    assert local.down() is False
    assert "closed" in local.home.elasticsearch_log.read_text().splitlines()[-1]


def test_a_process_has_ended_though_the_one_that_started_it_does_not_look():
    # The name `child` matters: without it, Popen.__del__ may reap a child that ended early.
    careless = (
        "import subprocess, time; child = subprocess.Popen(['true'])\n"
        "print(child.pid, flush=True); time.sleep(3600)"
    )
    with subprocess.Popen([sys.executable, "-c", careless], stdout=subprocess.PIPE, text=True) as parent:
        child = psutil.Process(int(parent.stdout.readline()))
        assert has_ended(child, timeout_s=PATIENCE_S)
        assert child.status() == psutil.STATUS_ZOMBIE
        assert not has_ended(psutil.Process(parent.pid), timeout_s=0.1)
        parent.kill()


def test_a_node_that_cannot_start_names_the_error_and_the_log(tmp_path):
    damaged = NodeHome(tmp_path).data / "_state"
    damaged.mkdir(parents=True)
    (damaged / "node-1.st").write_text("not a state")
    broken = LocalNode(tmp_path, environ=dict(os.environ))
    with pytest.raises(
        EngineError, match=r"did not start: .*failed to read .*node-1\.st.*node\.log"
    ) as caught:
        broken.up(heap_mb=HEAP_MB, timeout_s=300)
    assert "\n" not in str(caught.value)
    assert broken.running() is None


def test_an_interrupted_up_leaves_no_process_behind(tmp_path):
    process = glimpse(tmp_path, "up", "--heap", f"{HEAP_MB}m")
    local = LocalNode(tmp_path, environ={})
    wait_until(local.running, running=process)
    starting = local.running()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert not psutil.pid_exists(starting.pid)
    assert local.running() is None


def test_a_port_that_is_taken_is_refused_before_anything_starts(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(EngineError, match=f"Port {port} cannot be used .*choose another with --port"):
            LocalNode(tmp_path, environ=dict(os.environ)).up(port=port)
    check_port(port)


def test_a_home_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineError, match="cannot hold the local node .*set GLIMPSE_HOME"):
        LocalNode(tmp_path / "file", environ={}).up()


@contextmanager
def sleeper(home: NodeHome, *arguments: str, **noted: object) -> Iterator[psutil.Process]:
    """Run a process that does nothing, and note it as the node of a home."""
    home.root.mkdir(exist_ok=True)
    command = [sys.executable, "-c", "import time; time.sleep(3600)", *arguments]
    with subprocess.Popen(command) as started:
        process = psutil.Process(started.pid)
        wait_until(lambda: set(arguments) <= set(process.cmdline()))  # empty for a moment after it began
        state = {"pid": process.pid, "url": "", "state": "starting", **noted}
        home.process_file.write_text(json.dumps(state))
        yield process
        started.kill()


@pytest.mark.parametrize("program", sorted(PROGRAMS))
def test_a_starting_node_is_waited_for_but_not_for_ever(tmp_path, program):
    with sleeper(NodeHome(tmp_path), program) as process:
        local = LocalNode(tmp_path, environ={})
        with pytest.raises(EngineError, match="was not ready in time"):
            local.up(timeout_s=0.3)
        assert local.down() is True
        assert not psutil.pid_exists(process.pid)


def test_a_node_is_known_by_its_command_whatever_the_clock_says(tmp_path):
    local = LocalNode(tmp_path, environ={})
    with sleeper(local.home, PROGRAM, created=0) as process:
        assert local.running().pid == process.pid
    with sleeper(local.home, PROGRAM, command=["python", "-m", PROGRAM, "--home", "/another"]):
        assert local.running() is None
        assert local.down() is False


def test_the_heap_is_a_quarter_of_the_memory_within_bounds():
    assert heap_megabytes(None, memory_mb=1024) == 512
    assert heap_megabytes(None, memory_mb=8192) == 2048
    assert heap_megabytes(None, memory_mb=65536) == 4096
    assert heap_megabytes(768, memory_mb=1024) == 768


@pytest.mark.parametrize("asked", [100, 4000])
def test_a_heap_that_is_too_small_or_too_large_is_refused(asked):
    with pytest.raises(EngineError, match="choose from 256 MB to 768 MB"):
        heap_megabytes(asked, memory_mb=1024)
