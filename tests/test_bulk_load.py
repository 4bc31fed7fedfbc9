"""Settings while much is written: rare refresh and late replicas, put back by the last run that leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from es_config import bulk as bulk_load
from es_config.bulk import BulkLoad, bulk_interval, former_interval, is_bulk
from es_config.index import ImageIndex
from es_config.mapping import IndexMeta, IndexOptions

META = IndexMeta("pocket", {}, 16, 16, "cosine")
NO_PROCESS = 2**22
"""beyond the highest number that Linux gives a process; one of a process that has ended may be given again"""
MANY = bulk_load.MANY


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


def aliases(client, alias: str) -> list[str]:
    return [each for found in client.indices.get(index=alias).body.values() for each in found["aliases"]]


def of_another_machine(client, index: ImageIndex, *, seconds_ago: float) -> None:
    """Leave the traces of a killed run on another machine that last wrote so long ago."""
    name = f"{index.name()}-loading-0badcafe-17-{int(time.time() - seconds_ago)}"
    client.indices.put_alias(index=index.name(), name=name)
    client.indices.put_settings(index=index.alias, settings={"refresh_interval": bulk_interval("7s")})


@pytest.mark.parametrize(
    ("former", "bulk", "after"),
    [
        (None, "3600000ms", None),
        ("1s", "3601000ms", "1s"),
        ("250ms", "3600250ms", "250ms"),
        ("5m", "3900000ms", "300s"),
    ],
)
def test_what_was_set_before_stands_in_the_interval_itself(former, bulk, after):
    assert bulk_interval(former) == bulk
    assert is_bulk(bulk)
    assert former_interval(bulk) == after


@pytest.mark.parametrize("kept", ["-1", "2h", "90m", "7d", "3600000ms", "3601000ms", "9micros"])
def test_an_interval_that_is_long_already_is_left_alone(kept):
    assert bulk_interval(kept) is None


def test_a_large_run_changes_the_settings_and_puts_them_back(client, index):
    with index.bulk_load() as load:
        load.wrote(MANY - 1)
        assert settings(client, index.alias) == ("7s", 0)
        load.wrote(1)
        assert settings(client, index.alias) == ("3607000ms", 0)
        assert len(aliases(client, index.alias)) == 2
    assert settings(client, index.alias) == ("7s", 0)
    assert aliases(client, index.alias) == [index.alias]


def test_settings_come_back_after_an_error_and_after_ctrl_c(client, index):
    def fail(error: type[BaseException]) -> None:
        with index.bulk_load() as load:
            load.wrote(MANY)
            raise error

    for error in (KeyboardInterrupt, OSError):
        with pytest.raises(error):
            fail(error)
        assert settings(client, index.alias) == ("7s", 0)
        assert aliases(client, index.alias) == [index.alias]


def test_the_last_of_several_puts_back(client, index):
    with index.bulk_load() as one:
        one.wrote(MANY)
        of_another_machine(client, index, seconds_ago=0)
    assert settings(client, index.alias) == ("3607000ms", 0)
    later = time.time() + bulk_load.STALE_S + 1
    with BulkLoad(client, alias=index.alias, now=lambda: later) as two:
        two.wrote(MANY)
    assert settings(client, index.alias) == ("7s", 0)
    assert aliases(client, index.alias) == [index.alias]


def test_a_run_that_was_put_back_by_another_sets_again_and_renews(client, index):
    clock = [time.time()]
    with BulkLoad(client, alias=index.alias, now=lambda: clock[0]) as load:
        load.wrote(MANY)
        before = set(aliases(client, index.alias))
        client.indices.put_settings(index=index.alias, settings={"refresh_interval": "7s"})
        load.wrote(1)
        assert settings(client, index.alias) == ("7s", 0)
        clock[0] += bulk_load.BEAT_S + 1
        load.wrote(1)
        assert settings(client, index.alias) == ("3607000ms", 0)
        assert len(set(aliases(client, index.alias)) & before) == 1
    assert settings(client, index.alias) == ("7s", 0)


def test_a_run_on_this_machine_that_was_killed_holds_nothing(client, index):
    with index.bulk_load() as load:
        load.wrote(MANY)
        (mine,) = set(aliases(client, index.alias)) - {index.alias}
    killed = mine.replace(f"-{os.getpid()}-", f"-{NO_PROCESS}-")
    client.indices.put_alias(index=index.name(), name=killed)
    client.indices.put_settings(index=index.alias, settings={"refresh_interval": "3607000ms"})
    with index.bulk_load():
        assert settings(client, index.alias) == ("7s", 0)
    assert aliases(client, index.alias) == [index.alias]


def test_doctor_puts_back_what_a_killed_run_left_but_not_what_a_run_holds(client, node, index, tmp_path):
    def look() -> str:
        environ = os.environ | {"ELASTICSEARCH_URL": node.url, "GLIMPSE_HOME": str(tmp_path)}
        command = [sys.executable, "-m", "glimpse", "doctor", "--index", index.alias, "--json"]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        (found,) = (each for each in json.loads(done.stdout)["checks"] if each["name"] == "refresh")
        return found["detail"]

    of_another_machine(client, index, seconds_ago=0)
    assert look().startswith("rare while an ingest writes")
    client.indices.delete_alias(index=index.name(), name=f"{index.name()}-loading-*")
    assert look().startswith("put back")
    assert settings(client, index.alias) == ("7s", 0)


def test_replicas_that_were_put_off_are_made_when_the_first_run_ends(client, index_name):
    index = ImageIndex(client, alias=index_name)
    index.create(META, IndexOptions(replicas=1, replicas_later=True))
    assert settings(client, index_name) == (None, 0)
    of_another_machine(client, index, seconds_ago=0)
    with index.bulk_load():
        pass
    assert settings(client, index_name)[1] == 0
    client.indices.delete_alias(index=index.name(), name=f"{index.name()}-loading-*")
    with index.bulk_load():
        pass
    assert settings(client, index_name)[1] == 1
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
        assert settings(client, index_name) == ("3600000ms", 1)
    assert settings(client, index_name) == (None, 1)
