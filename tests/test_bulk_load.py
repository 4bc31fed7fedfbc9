"""Settings while much is written: rare refresh and late replicas, restored by the last run that ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

import psutil
import pytest

from es_config.bulk import BULK_REFRESH, LONGEST_S, MANY, BulkLoad, LoadingRun
from es_config.documents import IndexMeta, IndexOptions
from es_config.index import ImageIndex
from es_config.meta import change_meta

META = IndexMeta("pocket", {}, 16, 16, "cosine")
NO_PROCESS = 2**22
"""beyond the highest number that Linux gives a process; one of a process that has ended may be given again"""
KILLED = """
import os, signal, sys
from es_config.client import EngineSettings, connect
from es_config.index import ImageIndex
with ImageIndex(connect(EngineSettings(sys.argv[1])), alias=sys.argv[2]).bulk_load() as load:
    load.wrote(1000)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def index(client, index_name) -> ImageIndex:
    """An empty index whose refresh interval somebody has chosen."""
    made = ImageIndex(client, alias=index_name)
    made.create(META, IndexOptions())
    client.indices.put_settings(index=index_name, settings={"refresh_interval": "7s"})
    return made


def settings(client, alias: str) -> tuple[str | None, int]:
    """Return the refresh interval and the number of replicas."""
    ((_, found),) = client.indices.get_settings(index=alias, flat_settings=True).body.items()
    values = found["settings"]
    return values.get("index.refresh_interval"), int(values["index.number_of_replicas"])


def note(client, alias: str) -> dict:
    ((_, found),) = client.indices.get_mapping(index=alias).body.items()
    return found["mappings"]["_meta"]["bulk_load"]


def a_run(*, machine: str = "elsewhere", process: int = 17, seconds_ago: float = 0) -> LoadingRun:
    since = datetime.now(UTC) - timedelta(seconds=seconds_ago)
    return LoadingRun(machine, process, since.isoformat())


def begun(client, index: ImageIndex, *runs: LoadingRun) -> None:
    """Leave the note and the setting of runs that have begun, in place of the present ones."""
    noted = {"refresh_interval": "7s", "runs": [asdict(run) for run in runs]}
    change_meta(client, index.name(), lambda meta: {**meta, "bulk_load": noted})
    client.indices.put_settings(index=index.alias, settings={"refresh_interval": BULK_REFRESH})


def kill_a_run(node, index: ImageIndex) -> None:
    """Let a process begin to write much, and kill it."""
    done = subprocess.run([sys.executable, "-c", KILLED, node.url, index.alias], check=False)
    assert done.returncode == -signal.SIGKILL


def seen_by_doctor(node, index: ImageIndex, home) -> str:
    environ = os.environ | {"ELASTICSEARCH_URL": node.url, "GLIMPSE_HOME": str(home)}
    command = [sys.executable, "-m", "glimpse", "doctor", "--index", index.alias, "--json"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    (found,) = (each for each in json.loads(done.stdout)["checks"] if each["name"] == "refresh")
    return found["detail"]


@pytest.mark.parametrize("former", [None, "1s", "250ms", "5m"])
def test_the_note_holds_the_interval_of_before(client, index, former):
    client.indices.put_settings(index=index.alias, settings={"refresh_interval": former})
    with index.bulk_load() as load:
        load.wrote(MANY)
        assert note(client, index.alias)["refresh_interval"] == former
        assert settings(client, index.alias) == (BULK_REFRESH, 0)
    assert settings(client, index.alias) == (former, 0)
    assert note(client, index.alias) == {}


@pytest.mark.parametrize("kept", ["-1", "1h", "2h", "90m", "7d", "9micros"])
def test_an_interval_that_is_long_or_odd_is_left_alone(client, index, kept):
    client.indices.put_settings(index=index.alias, settings={"refresh_interval": kept})
    with index.bulk_load() as load:
        load.wrote(MANY)
        assert settings(client, index.alias) == (kept, 0)
    assert settings(client, index.alias) == (kept, 0)


def test_a_large_run_changes_the_settings_and_restores_them(client, index):
    with index.bulk_load() as load:
        load.wrote(MANY - 1)
        assert (settings(client, index.alias), note(client, index.alias)) == (("7s", 0), {})
        load.wrote(1)
        assert settings(client, index.alias) == (BULK_REFRESH, 0)
        load.wrote(MANY)
        (run,) = note(client, index.alias)["runs"]
        assert (run["machine"], run["process"]) == (socket.gethostname(), os.getpid())
    assert (settings(client, index.alias), note(client, index.alias)) == (("7s", 0), {})


def test_settings_come_back_after_an_error_and_after_ctrl_c(client, index):
    def fail(error: type[BaseException]) -> None:
        with index.bulk_load() as load:
            load.wrote(MANY)
            raise error

    for error in (KeyboardInterrupt, OSError):
        with pytest.raises(error):
            fail(error)
        assert (settings(client, index.alias), note(client, index.alias)) == (("7s", 0), {})


def test_an_interval_that_somebody_chooses_meanwhile_stays(client, index):
    with index.bulk_load() as load:
        load.wrote(MANY)
        client.indices.put_settings(index=index.alias, settings={"refresh_interval": "3s"})
    assert (settings(client, index.alias), note(client, index.alias)) == (("3s", 0), {})


def test_the_last_of_two_runs_restores(client, index):
    with index.bulk_load() as first:
        first.wrote(MANY)
        with index.bulk_load() as second:
            second.wrote(MANY)
            assert len(note(client, index.alias)["runs"]) == 2
        assert settings(client, index.alias) == (BULK_REFRESH, 0)
        assert len(note(client, index.alias)["runs"]) == 1
        with index.bulk_load() as small:
            small.wrote(1)
        assert settings(client, index.alias) == (BULK_REFRESH, 0)
    assert (settings(client, index.alias), note(client, index.alias)) == (("7s", 0), {})


def test_runs_that_begin_and_end_at_any_moment_leave_the_settings_of_before(client, index):
    together = threading.Barrier(3)
    failed = []

    def work() -> None:
        try:
            for _ in range(4):
                together.wait(timeout=60)
                with BulkLoad(client, alias=index.alias) as load:
                    load.wrote(MANY)
        except threading.BrokenBarrierError as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert (settings(client, index.alias), note(client, index.alias)) == (("7s", 0), {})


def test_the_next_run_restores_after_a_kill(client, node, index):
    kill_a_run(node, index)
    assert settings(client, index.alias) == (BULK_REFRESH, 0)
    with index.bulk_load():
        assert (settings(client, index.alias), note(client, index.alias)) == (("7s", 0), {})


def test_a_killed_run_does_not_keep_the_last_one_from_restoring(client, node, index):
    with index.bulk_load() as load:
        load.wrote(MANY)
        kill_a_run(node, index)
        assert len(note(client, index.alias)["runs"]) == 2
    assert (settings(client, index.alias), note(client, index.alias)) == (("7s", 0), {})


def test_the_doctor_names_a_killed_run_and_restores(client, node, index, tmp_path):
    kill_a_run(node, index)
    said = seen_by_doctor(node, index, tmp_path)
    assert said.startswith("restored: an ingest that was killed (process ")
    assert f" on {socket.gethostname()}, since {datetime.now(UTC).year}-" in said
    assert (settings(client, index.alias), note(client, index.alias)) == (("7s", 0), {})
    assert seen_by_doctor(node, index, tmp_path) == "as usual"


def test_the_doctor_names_a_run_of_another_machine_and_lets_it_be(client, node, index, tmp_path):
    begun(client, index, a_run())
    said = seen_by_doctor(node, index, tmp_path)
    assert said.startswith("rare while an ingest writes (process 17 on elsewhere, since ")
    assert settings(client, index.alias) == (BULK_REFRESH, 0)


@pytest.mark.parametrize("dead", ["of another machine", "of a process that is gone", "of a reused number"])
def test_a_run_is_dead_after_a_day_or_with_its_process(client, index, dead):
    here = socket.gethostname()
    runs = {
        "of another machine": a_run(seconds_ago=LONGEST_S + 1),
        "of a process that is gone": a_run(machine=here, process=NO_PROCESS),
        "of a reused number": a_run(machine=here, process=os.getpid(), seconds_ago=psutil.boot_time() / 2),
    }
    begun(client, index, runs[dead])
    with index.bulk_load():
        assert (settings(client, index.alias), note(client, index.alias)) == (("7s", 0), {})


def test_replicas_that_were_put_off_are_made_when_the_first_ingest_ends(client, index_name):
    index = ImageIndex(client, alias=index_name)
    index.create(META, IndexOptions(replicas=1, replicas_later=True))
    with index.bulk_load() as small:
        small.wrote(1)
        assert settings(client, index_name) == (None, 0)
        with index.bulk_load() as large:
            large.wrote(MANY)
            with index.bulk_load():
                pass
            assert settings(client, index_name) == (BULK_REFRESH, 0)
        assert settings(client, index_name) == (None, 1)
    # Only once: what a person sets afterwards stays.
    client.indices.put_settings(index=index_name, settings={"number_of_replicas": 0})
    with index.bulk_load():
        pass
    assert settings(client, index_name)[1] == 0
    assert ImageIndex(client, alias=index_name).meta().bulk_load == {}


def test_replicas_of_an_index_that_has_them_are_never_lowered(client, index_name):
    index = ImageIndex(client, alias=index_name)
    index.create(META, IndexOptions(replicas=1))
    with index.bulk_load() as load:
        load.wrote(MANY)
        assert settings(client, index_name) == (BULK_REFRESH, 1)
    assert settings(client, index_name) == (None, 1)
