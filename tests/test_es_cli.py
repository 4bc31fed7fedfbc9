"""The engine's commands, as a person types them."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from glimpse import main


@pytest.fixture
def glimpse(node, node_home, tmp_path, monkeypatch):
    """Run the program in this process against the shared node. A command may raise nothing but an exit."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, stdin: str = "", home: Path = node_home, **environ: str) -> Result:
        environ = {"GLIMPSE_HOME": str(home), **environ}
        done = CliRunner().invoke(main, arguments, input=stdin, env=environ)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done

    assert node.ready
    return run


def test_up_says_that_the_node_is_up_already(glimpse, node):
    done = glimpse("up")
    assert (done.exit_code, done.stdout) == (0, f"Elasticsearch was up already: {node.url}\n")


def test_up_warns_when_another_elasticsearch_is_set(glimpse):
    done = glimpse("up", "--json", ELASTICSEARCH_URL="http://elsewhere:9200")
    assert json.loads(done.stdout)["started"] is False
    assert "the other commands go there, not to the local node" in done.stderr


@pytest.mark.parametrize("heap", ["2q", "-1", "g"])
def test_a_heap_that_is_no_size_is_a_mistake_of_usage(glimpse, heap):
    done = glimpse("up", f"--heap={heap}")
    assert done.exit_code == 2
    assert "is not a size: write 512m, 2g" in done.stderr


def test_the_life_of_an_index(glimpse, node, index_name):
    named = ("--index", index_name)
    name = f"{index_name}-pocket-1"
    empty = json.loads(glimpse("status", "--json", *named).stdout)
    overview = empty.pop("overview")
    assert (overview["answers"], overview["images"], overview["trouble"]) == (False, 0, None)
    assert empty == {
        "url": node.url,
        "kind": "local",
        "version": "9.5.3",
        "index": None,
        "profile": None,
        "images": 0,
        "hidden": None,
        "running": None,
    }
    options = (
        "--index-type",
        "int4_hnsw",
        "--m",
        "24",
        "--ef-construction",
        "200",
        "--similarity",
        "dot_product",
    )
    assert (
        glimpse("index", "create", *options, *named).stdout == f"Created {name}; search it as {index_name}.\n"
    )
    shown = json.loads(glimpse("index", "status", "--json", *named).stdout)
    assert shown["index_options"] == {"type": "int4_hnsw", "m": 24, "ef_construction": 200}
    assert (shown["similarity"], shown["profile"], shown["images"]) == ("dot_product", "pocket", 0)
    again = glimpse("index", "create", *named)
    assert (again.exit_code, again.stdout) == (1, "")
    assert again.stderr == (
        f"Error: The index '{index_name}' exists already: use it, or run"
        f" `glimpse index delete --index {index_name}` first.\n"
    )
    status = glimpse("status", *named).stdout.splitlines()
    shown = ["url", "kind", "version", "index", "profile", "images", "hidden", "running"]
    shown += ["captions", "text", "all"]
    assert [line.split()[0] for line in status] == shown
    assert status[-1].split() == ["all", "is", "well", "yes"]
    assert status[3].split()[1] == name
    kept = glimpse("index", "delete", *named, stdin="n\n")
    assert kept.exit_code == 1
    assert f"Delete {name} with 0 pictures?" in kept.stderr
    assert json.loads(glimpse("index", "delete", "--yes", "--json", *named).stdout) == {"deleted": name}
    gone = glimpse("index", "delete", "--yes", *named)
    assert (gone.exit_code, gone.stdout) == (1, "")
    assert f"run `glimpse index create --index {index_name}`" in gone.stderr


def test_the_options_are_environment_variables_too(glimpse, index_name):
    environ = {"GLIMPSE_INDEX": index_name, "GLIMPSE_INDEX_CREATE_INDEX_TYPE": "hnsw"}
    environ["GLIMPSE_INDEX_CREATE_SIMILARITY"] = "l2_norm"
    assert glimpse("index", "create", **environ).exit_code == 0
    shown = json.loads(glimpse("index", "status", "--json", **environ).stdout)
    assert (shown["index_options"]["type"], shown["similarity"]) == ("hnsw", "l2_norm")


def test_the_doctor_finds_nothing_wrong_with_a_healthy_index(glimpse, index_name):
    glimpse("index", "create", "--index", index_name)
    done = glimpse("doctor", "--json", "--index", index_name)
    report = json.loads(done.stdout)
    assert (done.exit_code, report["ok"]) == (0, True)
    details = {check["name"]: check["detail"] for check in report["checks"]}
    assert list(details) == [
        "home",
        "notes",
        "store",
        "java",
        "elasticsearch",
        "licence",
        "disk",
        "shards",
        "mapping",
        "profile",
        "writable",
        "refresh",
        "images",
        "hidden",
    ]
    assert details["licence"] == "basic features, no licence service"
    assert details["mapping"] == f"{index_name} is {index_name}-pocket-1, int8_hnsw, cosine"
    assert details["profile"].startswith("pocket, ")
    assert details["images"] == "0"


def test_the_doctor_says_what_is_wrong_and_the_way_out(glimpse, client, index_name):
    glimpse("index", "create", "--index", index_name)
    client.indices.put_mapping(index=index_name, properties={"extra": {"type": "keyword"}})
    block = {"index.blocks.read_only_allow_delete": "true"}
    held = False
    while not held:  # each half minute, Elasticsearch lifts the block where the disk has room
        client.indices.put_settings(index=index_name, settings=block)
        done = glimpse("doctor", "--index", index_name)
        settings = client.indices.get_settings(index=index_name, flat_settings=True)
        held = block.items() <= next(iter(settings.values()))["settings"].items()
    assert done.exit_code == 1
    wrong = [line for line in done.stdout.splitlines() if line.startswith("WRONG")]
    assert len(wrong) == 2
    assert "extra is not part of the contract): run `glimpse index delete`" in wrong[0]
    assert "its disk was full: free space" in wrong[1]


def test_the_doctor_finds_an_index_that_lost_its_alias_and_gives_the_way_back(glimpse, client, index_name):
    glimpse("index", "create", "--index", index_name)
    client.indices.delete_alias(index=f"{index_name}-pocket-1", name=index_name)
    done = glimpse("doctor", "--index", index_name)
    assert done.exit_code == 1
    assert f"{index_name}-pocket-1 holds 0 pictures without that name" in done.stdout
    client.indices.update_aliases(**json.loads(re.search(r"POST _aliases (.*)`", done.stdout)[1]))
    assert glimpse("doctor", "--index", index_name).exit_code == 0


def test_the_doctor_asks_for_no_java_where_elasticsearch_is_elsewhere(glimpse, node, tmp_path):
    done = glimpse("doctor", "--json", home=tmp_path, ES_URL=node.url)
    assert "java" not in [check["name"] for check in json.loads(done.stdout)["checks"]]


def test_the_doctor_knows_an_index_of_another_program(glimpse, client, index_name):
    client.indices.create(index=index_name)
    done = glimpse("doctor", "--index", index_name)
    assert done.exit_code == 1
    assert "was not created by Glimpse" in done.stdout


def test_without_a_node_every_command_says_how_to_get_one(glimpse, tmp_path):
    for command in (("status",), ("index", "create"), ("index", "status"), ("index", "delete", "--yes")):
        done = glimpse(*command, home=tmp_path)
        assert (done.exit_code, done.stdout) == (1, "")
        assert done.stderr == (
            "Error: No Elasticsearch is running here: run `glimpse up` or set ELASTICSEARCH_URL.\n"
        )
    doctor = glimpse("doctor", home=tmp_path)
    assert doctor.exit_code == 1
    assert "WRONG  elasticsearch  No Elasticsearch is running here: run `glimpse up`" in doctor.stdout
    assert (
        f" for it at {tmp_path / 'demo-store'}\n"
        in glimpse("doctor", "--index", "demo", home=tmp_path).stdout
    )
    down = glimpse("down", home=tmp_path)
    assert (down.exit_code, down.stdout) == (0, "No local node was up.\n")
    assert json.loads(glimpse("down", "--json", home=tmp_path).stdout) == {"stopped": False}


def test_a_java_home_that_is_too_old_is_noted_by_the_doctor(glimpse, tmp_path):
    library = tmp_path / "old" / "lib" / "server" / "libjvm.so"
    library.parent.mkdir(parents=True)
    library.write_text("")
    (tmp_path / "old" / "release").write_text('JAVA_VERSION="17.0.1"\n')
    done = glimpse("doctor", JAVA_HOME=str(tmp_path / "old"))
    assert done.exit_code == 0
    assert "which is Java 17, older than 21; it is not used" in done.stdout
