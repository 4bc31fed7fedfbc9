"""Which Elasticsearch is meant, from the environment alone or from the local node."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from es_config.client import EngineSettings, cache_folder, connect, engine_settings, glimpse_home
from es_config.errors import EngineError
from es_config.local_node.install import NodeHome
from es_config.local_node.node import LocalNode


def test_the_address_key_and_ca_come_from_the_environment(tmp_path):
    ca = tmp_path / "ca.pem"
    ca.write_text("certificate")
    environ = {
        "ELASTICSEARCH_URL": "https://search.example:9200/",
        "ELASTICSEARCH_API_KEY": "secret",
        "ELASTICSEARCH_CA_CERTS": str(ca),
    }
    found = engine_settings(environ, tmp_path)
    assert (found.url, found.api_key, found.ca_certs) == ("https://search.example:9200", "secret", ca)
    assert not found.local


def test_the_short_names_work_and_the_long_ones_come_first(tmp_path):
    environ = {"ES_URL": "http://short:9200", "ES_API_KEY": "short"}
    assert engine_settings(environ, tmp_path).url == "http://short:9200"
    both = engine_settings({**environ, "ELASTICSEARCH_URL": "http://long:9200"}, tmp_path)
    assert (both.url, both.api_key) == ("http://long:9200", "short")


def test_several_addresses_are_checked_and_shown_each_without_its_login(tmp_path):
    found = engine_settings({"ELASTICSEARCH_URL": "https://u:p@one:9200/, https://two:9200"}, tmp_path)
    assert found.urls == ["https://u:p@one:9200", "https://two:9200"]
    assert found.shown_url == "https://one:9200,https://two:9200"
    with pytest.raises(EngineError, match="is 'two:9200': write it like https://"):
        engine_settings({"ELASTICSEARCH_URL": "https://one:9200,two:9200"}, tmp_path)


@pytest.mark.parametrize("url", ["localhost:9200", "ftp://x:1", "http://", "http://host:port", "   https//x"])
def test_an_address_that_is_none_is_refused_with_an_example(url, tmp_path):
    with pytest.raises(EngineError, match="write it like https://"):
        engine_settings({"ELASTICSEARCH_URL": url}, tmp_path)


def test_a_ca_file_that_is_missing_is_named(tmp_path):
    environ = {"ELASTICSEARCH_URL": "https://x:1", "ELASTICSEARCH_CA_CERTS": str(tmp_path / "none.pem")}
    with pytest.raises(EngineError, match=r"none\.pem, which is not a file"):
        engine_settings(environ, tmp_path)


def test_without_an_address_the_running_local_node_is_meant(node, node_home):
    found = engine_settings({}, node_home)
    assert found.local
    assert (found.url, found.local_key) == (node.url, node.key)
    assert node.key not in repr(found)


def test_the_local_node_gets_its_key_also_where_the_environment_names_it(node, node_home):
    assert engine_settings({"ELASTICSEARCH_URL": f"{node.url}/"}, node_home).local_key == node.key
    assert engine_settings({"ELASTICSEARCH_URL": "http://127.0.0.1:1"}, node_home).local_key is None


def test_without_an_address_and_a_node_the_way_out_is_said(tmp_path):
    with pytest.raises(EngineError, match="run `glimpse up` or set ELASTICSEARCH_URL"):
        engine_settings({}, tmp_path)


def test_an_empty_variable_counts_as_absent(tmp_path):
    with pytest.raises(EngineError, match="No Elasticsearch"):
        engine_settings({"ELASTICSEARCH_URL": " "}, tmp_path)


def test_the_home_is_where_the_variable_says_or_in_the_users_data_folder(tmp_path):
    assert glimpse_home({"GLIMPSE_HOME": str(tmp_path)}) == tmp_path
    assert glimpse_home({}).name == "glimpse"


def test_the_cache_lies_in_the_home_unless_the_variable_says_another_folder(tmp_path):
    assert cache_folder({"GLIMPSE_HOME": str(tmp_path)}) == tmp_path / "cache"
    own = {"GLIMPSE_HOME": str(tmp_path / "home"), "GLIMPSE_CACHE": str(tmp_path / "shared")}
    assert cache_folder(own) == tmp_path / "shared"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"pid": 1}',
        json.dumps({"pid": 999_999_999, "created": 0, "url": "http://127.0.0.1:1", "state": "ready"}),
        # A living process that has the number by chance, as after a reboot.
        json.dumps({"pid": os.getpid(), "created": 0, "url": "http://127.0.0.1:1", "state": "ready"}),
        # Even one that started at the very same moment, but is another program.
        json.dumps(
            {
                "pid": os.getpid(),
                "created": psutil.Process().create_time(),
                "url": "http://127.0.0.1:1",
                "state": "ready",
            }
        ),
    ],
    ids=["empty", "cut", "a list", "half", "dead", "number used again", "another program"],
)
def test_a_stale_or_damaged_process_file_means_that_nothing_runs(content, tmp_path):
    home = NodeHome(tmp_path)
    home.root.mkdir()
    home.process_file.write_text(content)
    local = LocalNode(tmp_path, environ={})
    assert local.running() is None
    assert local.down() is False
    assert not home.process_file.exists()


def test_the_address_is_read_without_the_code_that_installs_a_node(tmp_path):
    code = (
        "import sys; from pathlib import Path\n"
        "from es_config.home import find_running\n"
        f"find_running(Path({str(tmp_path)!r}))\n"
        "import es_config.client\n"
        "print(*(name for name in sys.modules if name.startswith('es_config.local_node.')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == []


def test_the_homes_folder_is_not_made_by_looking_at_it(tmp_path: Path):
    assert LocalNode(tmp_path / "none", environ={}).running() is None
    assert not (tmp_path / "none").exists()


def test_a_password_in_the_address_is_never_shown():
    settings = EngineSettings("https://elastic:secret@elastic.example:9200/es")
    assert settings.shown_url == "https://elastic.example:9200/es"
    assert EngineSettings("http://127.0.0.1:9200").shown_url == "http://127.0.0.1:9200"
    with pytest.raises(EngineError) as refused:
        connect(EngineSettings("http://elastic:secret@127.0.0.1:1"))
    assert "secret" not in str(refused.value)
