"""`glimpse search`, `glimpse knn` and `glimpse serve`, as they are typed."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request

import numpy as np
import pytest
from click.testing import CliRunner
from http_fronts import kept_port, proxy
from picture_files import save_picture
from voice_folders import save_whisper
from waiting import PATIENCE_S, wait_until

import glimpse
from es_config.requests import Filters, as_curl
from search_app.commands.search import PlacedHit, print_table, why_nothing
from search_app.core.parts import Part, read_vector
from search_app.core.query import Query, SearchHit, SearchResponse
from search_app.errors import QueryError, ServeError
from search_app.settings import parse_size
from search_app.web.hosts import address_of, is_loopback, trusted_hosts
from search_app.web.server import check_port


@pytest.fixture(scope="module")
def environment(node, gallery, tmp_path_factory):
    """The environment variables by which the commands find the gallery."""
    return {
        "ELASTICSEARCH_URL": node.url,
        "GLIMPSE_INDEX": gallery.alias,
        "GLIMPSE_STORE": gallery.store_uri,
        "GLIMPSE_TEXT_LANE": "local",
        "GLIMPSE_HOME": str(tmp_path_factory.mktemp("home")),
    }


@pytest.fixture
def run(environment):
    """Type a command and return its result."""

    def typed(*words, **more):
        return CliRunner(env=environment).invoke(glimpse.main, [str(word) for word in words], **more)

    return typed


def paths(result) -> list[str]:
    """Return the third column of tab-separated output."""
    assert result.exit_code == 0, result.output
    return [line.split("\t")[2] for line in result.stdout.splitlines()]


def test_words_give_tab_separated_lines_for_pipes(run):
    result = run("search", "a red boat on the sea", "--k", 3)
    rank, similarity, path, caption = result.stdout.splitlines()[0].split("\t")
    assert (rank, path) == ("1", "named/boat.jpg")
    assert 0 < float(similarity) <= 1
    assert caption.startswith("a red boat")
    assert len(paths(result)) == 3


def test_an_existing_file_is_a_picture(run, gallery, tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(gallery.files["cats"])
    assert paths(run("search", path))[0] == "named/cats.jpg"
    assert paths(run("search", "--image", path))[0] == "named/cats.jpg"


def test_text_says_that_a_files_name_is_meant_as_words(run, gallery, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "boat").write_bytes(gallery.files["cats"])
    answered = json.loads(run("search", "--text", "boat", "--json").stdout)
    assert (answered["query"], answered["lane"]) == ("boat", "local")


def test_the_id_of_a_picture_finds_its_like_without_a_model(run, gallery):
    assert paths(run("search", "--like", gallery.ids["car"]))[0] == "named/car.jpg"


def test_parts_of_a_question_are_options(run, gallery, tmp_path):
    boat, cats = gallery.ids["boat"], gallery.ids["cats"]
    picture, vector = tmp_path / "a boat^2.jpg", tmp_path / "v.json"
    picture.write_bytes(gallery.files["boat"])
    vector.write_text(json.dumps(gallery.searcher.index.vector(cats).tolist()))
    command = ["search", "a", "boat", "--text", "at sea^0.5", "--minus", "red boats", "--like", cats]
    command += ["--unlike", f"{picture}^0.5", "--vector", vector, "--minus", "a/b c", "--k", 4]
    asked = (
        Part(text="a boat"),
        Part(text="at sea", weight=0.5),
        Part(like=cats),
        Part(vector=tuple(gallery.searcher.index.vector(cats).tolist())),
        Part(text="red boats", wanted=False),
        Part(text="a/b c", wanted=False),
        Part(image=picture, weight=0.5, wanted=False),
    )
    found = gallery.searcher.search(Query(parts=asked, k=4)).hits
    assert paths(run(*command)) == [hit.path for hit in found]
    assert boat not in [hit.image_id for hit in found]


@pytest.mark.parametrize("mode", ["image", "hybrid"])
def test_a_search_shows_its_request(run, mode):
    command = ["search", "a boat", "--minus", "night", "--mode", mode, "--k", 4]
    shown = run(*command, "--show-request")
    assert shown.exit_code == 0, shown.stderr
    first = shown.stdout.split("\n\n#")[0].removeprefix("# visual\n")
    answer = subprocess.run(
        ["bash", "-c", first], capture_output=True, text=True, check=True, timeout=PATIENCE_S
    )
    found = [hit["_source"]["relative_path"][0] for hit in json.loads(answer.stdout)["hits"]["hits"]]
    if mode == "image":
        assert found == paths(run(*command))
    else:
        assert [line for line in shown.stdout.splitlines() if line.startswith("# ")] == [
            "# visual", "# meaning", "# words", "# written",
        ]  # fmt: skip


def test_hybrid_lines_end_with_why(run):
    first = run("search", "a red boat", "--mode", "hybrid", "--k", 2).stdout.splitlines()[0].split("\t")
    assert first[2] == "named/boat.jpg"
    assert first[4] == "visual 1st; caption meaning 1st; caption words: red, boat"


def test_an_unknown_mode_is_an_error_that_names_the_modes(run):
    result = run("search", "a red boat", "--mode", "both")
    assert result.exit_code == 2
    assert "'image', 'caption', 'words', 'hybrid'" in result.stderr


def test_json_is_the_searchers_answer(run, gallery):
    result = run("search", "a cat", "--k", 2, "--num-candidates", 50, "--mode", "caption", "--json")
    query = Query(text="a cat", k=2, num_candidates=50, mode="caption")
    expected = json.loads(json.dumps(gallery.searcher.search(query).to_json()))
    found = json.loads(result.stdout)
    # The command embeds the words once more, and a processor may then add up in another order.
    for hit, other in zip(found["hits"], expected["hits"], strict=True):
        assert [hit.pop(name) for name in ("root", "absolute_path", "file")] == [None, None, None]
        for name in ("score", "similarity"):
            assert hit.pop(name) == pytest.approx(other.pop(name), abs=1e-5)
    assert {**found, "took_ms": 0} == {**expected, "took_ms": 0}


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--path", "named/c*"], {"named/cats.jpg", "named/car.jpg"}),
        (["--date-from", "2021-07-01", "--date-to", "2021-07-01"], {"named/boat.jpg"}),
        (["--place", "52.5,13.4,50km", "--exact"], {"named/cats.jpg"}),
        (["--camera", "Drawn World Brush"], {"named/cats.jpg"}),
    ],
)
def test_filters_narrow_the_search(run, options, found):
    assert set(paths(run("search", "anything", *options))) == found


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--tag", "Summer Day"], ["named/cats.jpg", "named/boat.jpg"]),
        (
            ["--path", "named/", "--sort", "name", "-k", "2", "--page", "2"],
            ["named/cats.jpg", "named/house.jpg"],
        ),
        (["--sort", "oldest", "-k", "1"], ["named/boat.jpg"]),
        (
            ["red boat", "--path", "named/", "--sort", "newest", "-k", "2"],
            ["named/cats.jpg", "named/boat.jpg"],
        ),
    ],
)
def test_filters_alone_list_pictures_and_sort_orders_them(run, options, found):
    assert paths(run("search", *options)) == found


def test_a_list_has_no_similarity(run):
    assert run("search", "--tag", "sea").stdout.split("\t")[:3] == ["1", "–", "named/boat.jpg"]
    assert json.loads(run("search", "--tag", "sea", "--json").stdout)["hits"][0]["score"] is None


def test_pages_number_their_ranks_on(run):
    result = run("search", "a cat", "--k", 5, "--page", 3)
    assert [line.split("\t")[0] for line in result.stdout.splitlines()] == ["11", "12", "13", "14", "15"]


def test_nothing_found_is_said_on_stderr(run):
    result = run("search", "a cat", "--path", "nowhere/")
    assert (result.exit_code, result.stdout) == (1, "")  # as grep's
    assert "no picture passes the filters" in result.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["search"], "The query is empty"),
        (["search", " "], "The query is empty"),
        (["search", "--sort", "relevance"], "choose another sort"),
        (["search", "--sort", "newst"], "Did you mean 'newest'?"),
        (
            ["search", "a", "--k", "0"],
            "'-k' / '--k' (env var: 'GLIMPSE_K'): 0 is not in the range 1<=x<=10000.",
        ),
        (["search", "a", "-k", "many"], "'many' is not a valid integer range."),
        (["search", "a", "--num-candidates", "10001"], "'--num-candidates'"),
        (["search", "a", "-k", "200", "--num-candidates", "100"], "num_candidates must be between k (200)"),
        (
            ["search", "./missing.jpg"],
            "There is no file './missing.jpg'; to search for these words, put --text",
        ),
        (["search", "boats", "of/mine"], "There is no file 'of/mine'"),
        (["search", "missing.HEIC"], "There is no file 'missing.HEIC'"),
        (["search", "a", "--date-from", "2023"], "'2023' is not a day: write it as YYYY-MM-DD"),
        (["search", "a", "--date-to", "2023-02-30"], "'--date-to': '2023-02-30' is not a day"),
        (["search", "a", "--json", "--paths"], "--json prints whole hits"),
        (["search", "a", "--min-relevance", "strog"], "Did you mean 'strong'?"),
        (["search", "x" * 10_000], "at most 1000 are allowed"),
        (
            ["search", "a", "--mode", "imagee"],
            "'imagee' is not one of 'image', 'caption', 'words', 'hybrid'. Did you mean 'image'?",
        ),
        (["search", "a", "--place", "1,x"], "latitude,longitude,distance like"),
        (["search", "--image", "missing.jpg"], "There is no picture file 'missing.jpg'."),
        (["search", "--like", "0" * 64], "no picture with the id"),
        (["search", "a", "--like", "b"], "no picture with the id 'b'"),
        (["search", "a", "--unlike", "./b.jpg"], "There is no file './b.jpg'."),
        (["search", "a", "--minus", "b^0"], "A weight is more than 0"),
        (["search", "a", "--vector", "b"], "There is no file 'b'."),
        (["search", "a", "--text-lane", "tram"], "'tram' is not one of 'auto', 'infer', 'local'."),
        (["search", __file__], "not a picture that can be read"),
    ],
)
def test_a_wrong_query_is_one_sentence_and_exit_code_2(run, words, sentence):
    result = run(*words)
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert result.stdout == ""


def test_an_unknown_profile_names_the_known_ones(run):
    result = run("search", "a", "--profile", "nosuch")
    assert result.exit_code == 1
    assert "pocket" in result.stderr


def test_a_raw_vector_finds_its_picture_in_every_form(run, gallery, tmp_path):
    vector = gallery.searcher.index.vector(gallery.ids["house"])
    (tmp_path / "v.json").write_text(json.dumps(vector.tolist()))
    (tmp_path / "v.txt").write_text("\n".join(str(value) for value in vector))
    np.save(tmp_path / "v.npy", vector)
    for name in ("v.json", "v.txt", "v.npy"):
        assert paths(run("knn", tmp_path / name, "--k", 2))[0] == "named/house.jpg"
    assert paths(run("knn", input=json.dumps(vector.tolist())))[0] == "named/house.jpg"
    assert paths(run("knn", "-", "--field", "caption_embedding", input=json.dumps(vector.tolist())))


def test_show_request_prints_a_command_that_gives_the_same_hits(run, gallery):
    vector = json.dumps(gallery.searcher.index.vector(gallery.ids["house"]).tolist())
    shown = run("knn", "--k", 4, "--path", "named/", "--show-request", input=vector)
    assert shown.exit_code == 0
    assert shown.stdout.startswith("curl ")
    answer = subprocess.run(
        ["bash", "-c", shown.stdout], capture_output=True, text=True, check=True, timeout=PATIENCE_S
    )
    found = [hit["_source"]["relative_path"][0] for hit in json.loads(answer.stdout)["hits"]["hits"]]
    assert found == paths(run("knn", "--k", 4, "--path", "named/", input=vector))
    assert len(found) == 4


def test_show_request_sends_nothing_and_exact_only_counts(node, gallery, environment):
    vector = gallery.searcher.index.vector(gallery.ids["house"])
    asked: list[str] = []

    def listen(method: str, path: str) -> None:
        asked.append(f"{method} {path}")

    with proxy(node.url, listen) as url:
        run = CliRunner(env={**environment, "ELASTICSEARCH_URL": url})
        for more in ((), ("--num-candidates", "50", "--field", "caption_embedding", "--page", "2")):
            shown = run.invoke(
                glimpse.main, ["knn", "--show-request", *more], input=json.dumps(vector.tolist())
            )
            assert shown.exit_code == 0, shown.stderr
            assert asked == []
        exact = run.invoke(
            glimpse.main, ["knn", "--show-request", "--exact"], input=json.dumps(vector.tolist())
        )
    assert exact.exit_code == 0
    assert [each.split("?")[0] for each in asked] == ["GET /", f"POST /{gallery.alias}/_count"]
    query = Query(vector=tuple(vector.tolist()), k=10, page=2, num_candidates=50, mode="caption")
    sent = as_curl(gallery.searcher.prepare(query).body, url=url, index=gallery.alias)
    assert shown.stdout == f"{sent}\n"


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ("[1, 2, 3]", "has 3 dims"),
        ("", "vector"),
        ("a b c", "This is not a vector"),
        ("[1, [2]]", "numbers alone"),
        ("[[1, 2], [3, 4]]", "There are 2 vectors of 2 dims here; give one."),
        ('{"a": 1}', "must be a JSON array"),
        ("[1e999, 1]", "not finite"),
        ("[0, 0]", "only zeros"),
    ],
)
def test_a_vector_that_cannot_be_one_is_one_sentence(run, data, sentence):
    result = run("knn", input=data)
    assert result.exit_code == 2
    assert sentence in result.stderr


def test_a_npy_file_with_code_in_it_is_refused():
    data = io.BytesIO()
    np.save(data, np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(QueryError, match="damaged or does not hold numbers"):
        read_vector(data.getvalue())


def test_every_command_prints_a_path_in_the_same_form(environment, index_name, tmp_path):
    name, shown = "bad\tname\x1b.png", r"bad\tname\x1b.png"
    pictures = tmp_path / "pictures"
    copy = save_picture(pictures / "a" / name, 1)
    (pictures / "b").mkdir()
    (pictures / "b" / name).write_bytes(copy.read_bytes())
    (pictures / "damaged").mkdir()
    (pictures / "damaged" / name).write_text("no picture")
    runner = CliRunner(
        env={**environment, "GLIMPSE_INDEX": index_name, "GLIMPSE_STORE": str(tmp_path / "store")}
    )

    def typed(*words: object):
        return runner.invoke(glimpse.main, [str(word) for word in words])

    said = typed("ingest", pictures, "--captions", "off").stderr
    assert f"{pictures}/damaged/{shown}: not a picture" in said
    found = typed("search", "a boat").stdout.splitlines()
    assert [line.split("\t")[2] for line in found] == [f"{pictures}/a/{shown}"]
    assert f"  {pictures}/b/{shown}" in typed("duplicates").stdout.splitlines()
    assert shown in typed("search", "--image", tmp_path / name).stderr
    (pictures / "a" / name).unlink()
    (pictures / "b" / name).unlink()
    pruning = typed("ingest", pictures, "--prune", "--prune-anyway", "--dry-run")
    assert f"Would remove {pictures}/a/{shown}" in pruning.stderr


def test_a_terminal_gets_a_table(capsys):
    name = "b" * 150
    hit = SearchHit("id", 0.9, 0.8, f"a\x1b[31m/{name} [red].jpg", "[bold]boats\n", "/t")
    placed = [PlacedHit(hit, None)]
    print_table(SearchResponse("q", "image", "local", 1, 100, 1.5, 1, (hit,)), placed, sys.stdout)
    printed = capsys.readouterr().out
    assert "similarity" in printed
    assert "[red].jpg" in printed
    assert "[bold]boats" in printed
    assert "\x1b[31m" not in printed
    (line,) = [line for line in printed.splitlines() if "boats" in line]  # a long path is not broken up
    assert rf"a\x1b[31m/{name} [red].jpg  " in line
    assert "1 pictures" not in printed
    assert "1 picture in 1.5 ms, text model: local" in printed


def test_words_need_no_quotes(run):
    quoted, bare = (
        run("search", "a red boat on the sea", "-k", 3),
        run("search", "a", "red", "boat", "on", "the", "sea", "-k", 3),
    )
    assert paths(quoted) == paths(bare)
    assert bare.stderr == ""  # no warning in the normal case


def test_stdin_brings_words_or_a_picture(run, gallery):
    assert paths(run("search", "-", "-k", 1, input="a red boat on the sea\n")) == ["named/boat.jpg"]
    assert paths(run("search", "-", "-k", 1, input=gallery.files["cats"])) == ["named/cats.jpg"]
    refused = run("search", "-", input=b"\xff\xfe\x00")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "neither words in UTF-8 nor a picture" in refused.stderr


@pytest.fixture
def ingested(environment, index_name, tmp_path):
    """Ingest two folders with equal relative names, which are hard to print, and return them."""
    roots = [tmp_path / "first", tmp_path / "second"]
    for number, root in enumerate(roots):
        save_picture(root / "a" / "b\nc.jpg", number)
    runner = CliRunner(
        env={
            **environment,
            "GLIMPSE_INDEX": index_name,
            "GLIMPSE_STORE": str(tmp_path / "store"),
            "GLIMPSE_HOME": str(tmp_path / "home"),
        }
    )

    def typed(*words, **more):
        return runner.invoke(glimpse.main, [str(word) for word in words], **more)

    typed.env = runner.env
    assert typed("ingest", *roots, "--captions", "off").exit_code == 0
    return roots, typed


def test_paths_of_ingested_files_are_absolute_and_tell_roots_apart(ingested):
    roots, typed = ingested
    files = {str(root / "a" / "b\nc.jpg") for root in roots}
    lines = typed("search", "anything").stdout.splitlines()
    assert {line.split("\t")[2].replace("\\n", "\n") for line in lines} == files
    assert set(typed("search", "anything", "-0").stdout.split("\0")[:-1]) == files
    assert "".join(sorted(typed("search", "anything", "--paths").stdout)) == "".join(
        sorted("".join(f"{each}\n" for each in files))
    )
    hits = json.loads(typed("search", "anything", "--json").stdout)["hits"]
    assert {(hit["root"], hit["path"], hit["absolute_path"]) for hit in hits} == {
        (str(root), "a/b\nc.jpg", str(root / "a" / "b\nc.jpg")) for root in roots
    }
    assert {hit["file"] for hit in hits} == {(root / "a" / "b\nc.jpg").as_uri() for root in roots}


def test_paths_on_a_machine_that_ingested_nothing_are_relative_and_said_to_be(run):
    result = run("search", "a red boat on the sea", "-k", 1, "--paths")
    assert (result.exit_code, result.stdout) == (0, "named/boat.jpg\n")
    assert "1 of 1 pictures were not ingested on this machine" in result.stderr
    opened = run("search", "a red boat on the sea", "-k", 1, "--open")
    assert opened.exit_code == 1
    assert "named/boat.jpg is not on this machine, so it cannot be opened here." in opened.stderr


def test_open_hands_the_first_file_to_the_desktop(ingested, tmp_path):
    roots, typed = ingested
    opener, asked = tmp_path / "bin" / "xdg-open", tmp_path / "asked"
    opener.parent.mkdir()
    opener.write_text(f'#!/bin/sh\nprintf %s "$1" > {asked}.part && mv {asked}.part {asked}\n')
    opener.chmod(0o755)
    picture = roots[1] / "a" / "b\nc.jpg"
    # In a process of its own: it ends without waiting for the program that shows the picture.
    subprocess.run(
        [sys.executable, "-m", "glimpse", "search", str(picture), "--open"],
        env={**os.environ, **typed.env, "PATH": f"{opener.parent}:{os.environ['PATH']}"},
        check=True,
        capture_output=True,
        timeout=PATIENCE_S,
    )
    wait_until(asked.exists)
    assert asked.read_text() == str(picture)


@pytest.mark.parametrize(
    ("text", "size"), [("5MB", 5_000_000), ("512 KiB", 524_288), ("1000", 1000), ("2m", 2_000_000)]
)
def test_sizes_are_read(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1", "5 TB", "large"])
def test_a_size_that_makes_no_sense_is_refused(text):
    with pytest.raises(QueryError, match="is not a size"):
        parse_size(text)


def test_a_loopback_server_answers_to_this_machines_names_only():
    assert trusted_hosts("127.0.0.1", ()) == ("localhost", "127.0.0.1", "::1")
    assert trusted_hosts("0.0.0.0", ("pictures.example",))[0] == "pictures.example"
    assert [is_loopback(host) for host in ("localhost", "127.0.0.9", "::1", "0.0.0.0", "name")] == [
        True, True, True, False, False,
    ]  # fmt: skip


def test_an_ipv6_address_is_shown_in_brackets():
    assert address_of("::1", 5000) == "http://[::1]:5000"
    assert address_of("localhost", 5000) == "http://localhost:5000"


def test_a_host_that_is_not_ours_is_one_sentence():
    with pytest.raises(ServeError, match="--host"):
        check_port("no-such-host.invalid", 5000)


def test_a_taken_port_is_one_sentence_before_any_model_is_loaded(run):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = run("serve", "--port", port)
    assert result.exit_code == 1
    refusal = f"Port {port} on 127.0.0.1 cannot be used (Address already in use)"
    assert result.stderr == f"Error: {refusal}; choose another with --port.\n"


def test_a_server_for_others_without_a_login_warns(run):
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        result = run("serve", "--host", "0.0.0.0", "--no-login", "--port", taken.getsockname()[1])
    assert "without signing in" in result.stderr


def test_serve_connects_once_and_answers_until_it_is_told_to_stop(environment, gallery, node):
    greeted: list[str] = []

    def listen(method: str, path: str) -> None:
        if path == "/":
            greeted.append(method)

    with proxy(node.url, listen) as url, kept_port() as port:
        command = [sys.executable, "-m", "glimpse", "serve", "--port", str(port)]
        there = {**os.environ, **environment, "ELASTICSEARCH_URL": url}
        server = subprocess.Popen(command, env=there, stderr=subprocess.PIPE, text=True)
        check_served(server, port, gallery)
    assert greeted == ["GET"]


@pytest.mark.parametrize("damage", ["no tokenizer", "empty"])
def test_serve_shows_the_page_where_the_voice_model_cannot_be_used(environment, gallery, tmp_path, damage):
    if damage == "no tokenizer":
        save_whisper(tmp_path / "voice")
        (tmp_path / "voice" / "tokenizer.json").write_text("{}")
    else:
        (tmp_path / "voice").mkdir()
    with kept_port() as port:
        command = [sys.executable, "-m", "glimpse", "serve", "--port", str(port)]
        command += ["--voice-model", str(tmp_path / "voice")]
        there = {**os.environ, **environment}
        server = subprocess.Popen(command, env=there, stderr=subprocess.PIPE, text=True)
        check_served(server, port, gallery, warned="Warning: nobody can speak to the page yet: ")


def check_served(server: subprocess.Popen, port: int, gallery, *, warned: str = "") -> None:
    try:
        if warned:
            assert server.stderr.readline().startswith(warned)
        line = server.stderr.readline()
        assert line == f"Glimpse is at http://127.0.0.1:{port} (Ctrl+C stops it)\n"
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=PATIENCE_S) as answer:
            assert json.load(answer)["images"] == len(gallery.ids)
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=PATIENCE_S) == 0
    finally:
        server.kill()
        server.communicate()


def test_hits_that_a_least_relevance_leaves_out_are_told_from_an_empty_index():
    assert "weak or better: leave --min-relevance out" in why_nothing(Query(text="a", min_relevance="weak"))
    filtered = Query(text="a", min_relevance="weak", filters=Filters(tag="x"))
    assert "weak or better, or no picture passes the filters: leave" in why_nothing(filtered)
    assert "the index is empty" in why_nothing(Query(text="a"))
