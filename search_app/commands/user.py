"""`glimpse user` and `glimpse token`: who may use a server that others can reach."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from es_config.commands.options import say

if TYPE_CHECKING:
    from search_app.core.users import UserStore

ROLES = click.Choice(["viewer", "contributor", "owner"])
FROM_STDIN = click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")


@click.group()
def user() -> None:
    """Add, list and remove the people who may sign in to `glimpse serve`.

    \b
    Example:
      glimpse user add ada --role owner
    """


@user.command()
@click.argument("name")
@click.option("--role", type=ROLES, default="viewer", show_default=True, help="What the person may do.")
@FROM_STDIN
def add(*, name: str, role: str, password_stdin: bool) -> None:
    """Add a person: a viewer searches, a contributor also adds and corrects, an owner may do everything.

    \b
    Example:
      glimpse user add ada --role owner
    """
    from search_app.core.users import Role

    _store().add(name, Role.named(role), _password(password_stdin))
    say(f"{name} can sign in, as {role}.")


@user.command("list")
def list_users() -> None:
    """List the people who may sign in, with their roles."""
    for each in _store().users():
        click.echo(f"{each.name}\t{each.role}")


@user.command()
@click.argument("name")
def remove(*, name: str) -> None:
    """Remove a person, with all sessions and tokens."""
    _store().remove(name)
    say(f"{name} can no longer sign in; the tokens of {name} have ended.")


@user.command()
@click.argument("name")
@FROM_STDIN
def password(*, name: str, password_stdin: bool) -> None:
    """Set another password, which ends the person's sessions."""
    _store().set_password(name, _password(password_stdin))
    say(f"{name} has another password, and has to sign in anew.")


@user.command()
@click.argument("name")
@click.argument("role", type=ROLES)
def role(*, name: str, role: str) -> None:
    """Give a person another role, which ends the person's sessions."""
    from search_app.core.users import Role

    _store().set_role(name, Role.named(role))
    say(f"{name} is {role} now, and has to sign in anew.")


@click.group()
def token() -> None:
    """Make and revoke tokens: programs send one as `Authorization: Bearer …`.

    \b
    Example:
      glimpse token add ada --label "nightly report"
    """


@token.command("add")
@click.argument("user_name", metavar="USER")
@click.option("--label", default="", help="What the token is for.")
def add_token(*, user_name: str, label: str) -> None:
    """Make a token with the rights of USER. It is printed once and kept as a hash."""
    click.echo(_store().add_token(user_name, label))
    say("This is shown once: keep it where the program reads it, such as an environment variable.")


@token.command("list")
def list_tokens() -> None:
    """List the tokens, without their secrets."""
    for each in _store().tokens():
        click.echo(f"{each.id}\t{each.user}\t{each.created}\t{each.label}")


@token.command()
@click.argument("token_id", metavar="ID")
def revoke(*, token_id: str) -> None:
    """End a token, by the ID that `glimpse token list` shows."""
    _store().revoke(token_id)
    say(f"The token {token_id} has ended.")


def _store() -> UserStore:
    from es_config.client import glimpse_home
    from search_app.core.users import UserStore, users_path

    return UserStore(users_path(glimpse_home(os.environ)))


def _password(from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    entered: str = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    return entered
