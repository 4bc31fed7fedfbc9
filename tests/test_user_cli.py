"""`glimpse user` and `glimpse token`, and the refusals of `glimpse serve` before it starts."""

from __future__ import annotations

import os
import re

import pytest
from click.testing import CliRunner, Result
from http_fronts import kept_port

from glimpse import main

PASSWORD = "a long enough password\n"


@pytest.fixture
def run(tmp_path, node):
    def call(*arguments: str, stdin: str | None = None) -> Result:
        environ = os.environ | {"GLIMPSE_HOME": str(tmp_path), "ELASTICSEARCH_URL": node.url}
        return CliRunner().invoke(main, arguments, input=stdin, env=environ)

    return call


def test_people_are_added_listed_changed_and_removed(run):
    assert run("user", "list").output == ""
    added = run("user", "add", "ada", "--role", "owner", "--password-stdin", stdin=PASSWORD)
    assert (added.exit_code, added.output) == (0, "ada can sign in, as owner.\n")
    run("user", "add", "bo", "--password-stdin", stdin=PASSWORD)
    assert run("user", "list").output == "ada\towner\nbo\tviewer\n"
    assert "contributor now" in run("user", "role", "bo", "contributor").output
    assert "another password" in run("user", "password", "bo", "--password-stdin", stdin=PASSWORD).output
    assert "can no longer sign in" in run("user", "remove", "bo").output
    assert run("user", "list").output == "ada\towner\n"


def test_a_password_is_asked_twice_and_not_shown(run):
    added = run("user", "add", "ada", stdin=PASSWORD * 2)
    assert added.exit_code == 0
    assert PASSWORD.strip() not in added.output
    unequal = run("user", "add", "bo", stdin=f"{PASSWORD}another password\n")
    assert unequal.exit_code == 1
    assert "do not match" in unequal.output


def test_a_token_is_printed_once(run):
    run("user", "add", "ada", "--password-stdin", stdin=PASSWORD)
    secret = run("token", "add", "ada", "--label", "report").stdout.strip()
    assert re.fullmatch(r"glimpse_[\w-]{43}", secret)
    listed = run("token", "list").output
    assert secret not in listed
    token_id, user, _, label = listed.strip().split("\t")
    assert (user, label) == ("ada", "report")
    assert "has ended" in run("token", "revoke", token_id).output
    assert run("token", "list").output == ""


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("user", "add", "ada", "--password-stdin"), "A password has 10 to 1000 characters."),
        (("user", "remove", "ada"), "There is no user 'ada': see `glimpse user list`."),
        (("token", "add", "ada"), "There is no user 'ada': see `glimpse user list`."),
        (("token", "revoke", "12"), "There is no token '12': see `glimpse token list`."),
        (("serve", "--host", "0.0.0.0"), "Nobody could sign in: add yourself with `glimpse user add NAME"),
        (("serve", "--login"), "Nobody could sign in"),
        (("serve", "--self-signed", "--key", __file__), "Give either --self-signed or"),
        (("serve", "--certificate", __file__), "HTTPS needs both --certificate and --key."),
        (("serve", "--certificate", __file__, "--key", __file__), "are no certificate and key"),
        (("serve", "--prefix", "glimpse"), "write it like /glimpse"),
        (("serve", "--trusted-proxy", "x"), "such as 10.0.0.1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_mistakes_get_one_sentence(run, arguments, sentence):
    with kept_port() as port:
        more = ("--port", str(port)) if arguments[0] == "serve" else ()
        refused = run(*arguments, *more, stdin="short\n")
    assert refused.exit_code in (1, 2)
    assert sentence in refused.output
    assert "Traceback" not in refused.output
