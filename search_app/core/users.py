"""Who may use a server: names, roles, passwords and tokens, in one file of GLIMPSE_HOME."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING

from es_config.documents import one_line
from es_config.home import OWNER_ONLY
from search_app.errors import UserError

if TYPE_CHECKING:
    from argon2 import PasswordHasher

MIN_PASSWORD = 10
MAX_PASSWORD = 1000
NAME = re.compile(r"[^\W_][\w.@+-]{0,63}")
TOKEN_PREFIX = "glimpse_"
SCHEMA = """
CREATE TABLE IF NOT EXISTS users (
    name TEXT PRIMARY KEY, role TEXT NOT NULL, password TEXT NOT NULL, stamp TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS tokens (
    id TEXT PRIMARY KEY, sha256 TEXT NOT NULL UNIQUE, user TEXT NOT NULL REFERENCES users ON DELETE CASCADE,
    label TEXT NOT NULL, created TEXT NOT NULL
) STRICT;
"""


class Role(IntEnum):
    """The rights of a person. Each role may do everything that the roles before it may."""

    VIEWER = 1
    """search"""
    CONTRIBUTOR = 2
    """add pictures, correct captions"""
    OWNER = 3
    """remove pictures, tune, see the metrics"""

    @classmethod
    def named(cls, name: str) -> Role:
        """Return the role of a name in lower case. Raises `UserError`."""
        try:
            return cls[name.upper()]
        except KeyError as error:
            raise UserError(f"'{name}' is no role: write viewer, contributor or owner.") from error

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True)
class User:
    """A person, or a program that a person gave a token to."""

    name: str
    role: Role
    stamp: str
    """changes with the password and the role: a session that was begun with another one has ended"""


@dataclass(frozen=True)
class Token:
    """A key of a program, whose secret was shown once and is kept as a hash."""

    id: str
    user: str
    label: str
    created: str
    """ISO 8601, UTC"""


class UserStore:
    """The users and tokens in an SQLite file that its owner alone can read. Thread-safe."""

    def __init__(self, path: Path, *, hasher: PasswordHasher | None = None) -> None:
        """Take the file, which is made when something is first written. Nothing is opened here.

        `hasher` says how dear a guess at a new password is, by default as argon2's authors advise.
        """
        self.path = path
        self._hasher = hasher
        self._lock = threading.Lock()
        self._hash_of_nobody: str | None = None

    def add(self, name: str, role: Role, password: str) -> None:
        """Add a user. Raises `UserError` for a name that is taken or odd, and for a short password."""
        if not NAME.fullmatch(name):
            raise UserError(
                f"'{one_line(name[:80])}' cannot be a name: write letters and digits, and after the first"
                " also .@+-_"
            )
        hashed = self._hash(password)
        with self._open() as database:
            try:
                database.execute("INSERT INTO users VALUES (?, ?, ?, ?)", (name, str(role), hashed, _stamp()))
            except sqlite3.IntegrityError as error:
                raise UserError(
                    f"There is a user '{name}' already: `glimpse user password {name}` sets another password."
                ) from error

    def set_password(self, name: str, password: str) -> None:
        """Set another password, which ends the user's sessions. Raises `UserError`."""
        self._change(
            "UPDATE users SET password = ?, stamp = ? WHERE name = ?", (self._hash(password), _stamp(), name)
        )

    def set_role(self, name: str, role: Role) -> None:
        """Give a user another role, which ends the user's sessions. Raises `UserError`."""
        self._change("UPDATE users SET role = ?, stamp = ? WHERE name = ?", (str(role), _stamp(), name))

    def remove(self, name: str) -> None:
        """Remove a user with all tokens and sessions. Raises `UserError`."""
        self._change("DELETE FROM users WHERE name = ?", (name,))

    def users(self) -> list[User]:
        """Return all users by name."""
        if not self.path.exists():
            return []
        with self._open() as database:
            return [
                _user(row) for row in database.execute("SELECT name, role, stamp FROM users ORDER BY name")
            ]

    def get(self, name: str) -> User | None:
        """Return the user of a name."""
        return self._one("SELECT name, role, stamp FROM users WHERE name = ?", name)

    def sign_in(self, name: str, password: str) -> User | None:
        """Return the user when name and password fit. An unknown name takes as long as a wrong password."""
        with self._open() as database:
            row = database.execute("SELECT password FROM users WHERE name = ?", (name,)).fetchone()
        with self._lock:  # argon2 takes 64 MiB for each password that is tried
            if self._hash_of_nobody is None:
                self._hash_of_nobody = self._hash(secrets.token_urlsafe())
            fits = _fits(row[0] if row else self._hash_of_nobody, password[:MAX_PASSWORD])
        return self.get(name) if row and fits else None

    def add_token(self, user: str, label: str) -> str:
        """Make a token of a user and return its secret, which is kept nowhere. Raises `UserError`."""
        if self.get(user) is None:
            raise _unknown(user)
        secret = TOKEN_PREFIX + secrets.token_urlsafe(32)
        hashed = _sha256(secret)
        with self._open() as database:
            database.execute(
                "INSERT INTO tokens VALUES (?, ?, ?, ?, ?)", (hashed[:8], hashed, user, label, _now())
            )
        return secret

    def tokens(self) -> list[Token]:
        """Return all tokens, oldest first."""
        if not self.path.exists():
            return []
        with self._open() as database:
            rows = database.execute("SELECT id, user, label, created FROM tokens ORDER BY created, id")
            return [Token(*row) for row in rows]

    def revoke(self, token_id: str) -> None:
        """End a token. Raises `UserError` when there is none with this id."""
        with self._open() as database:
            if not database.execute("DELETE FROM tokens WHERE id = ?", (token_id,)).rowcount:
                raise UserError(f"There is no token '{token_id}': see `glimpse token list`.")

    def of_token(self, secret: str) -> User | None:
        """Return the user whose token this is."""
        return self._one(
            "SELECT users.name, role, stamp FROM users JOIN tokens ON user = users.name WHERE sha256 = ?",
            _sha256(secret),
        )

    def _hash(self, password: str) -> str:
        from argon2 import PasswordHasher

        if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
            raise UserError(f"A password has {MIN_PASSWORD} to {MAX_PASSWORD} characters.")
        return (self._hasher or PasswordHasher()).hash(password)

    def _one(self, query: str, value: str) -> User | None:
        if not self.path.exists():
            return None
        with self._open() as database:
            row = database.execute(query, (value,)).fetchone()
        return _user(row) if row else None

    def _change(self, statement: str, values: tuple[str, ...]) -> None:
        with self._open() as database:
            if not database.execute(statement, values).rowcount:
                raise _unknown(values[-1])

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Give a connection whose changes are kept when the block ends well. Raises `UserError`."""
        try:
            if not self.path.exists():
                self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, OWNER_ONLY))
            with closing(sqlite3.connect(self.path, timeout=10)) as database, database:
                database.execute("PRAGMA foreign_keys = ON")
                database.executescript(SCHEMA)
                yield database
        except (OSError, sqlite3.DatabaseError) as error:
            if isinstance(error, sqlite3.IntegrityError):
                raise
            raise UserError(
                f"The users cannot be read or written in {self.path} ({error}): mend the file or its folder."
            ) from error


def users_path(home: Path) -> Path:
    """Return where the users of a GLIMPSE_HOME are kept."""
    return home / "users.sqlite"


def secret_key(home: Path) -> bytes:
    """Return the key that signs sessions, made on first use and readable by its owner alone."""
    path = home / "session.key"
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY)
        except FileExistsError:
            pass
        else:
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_bytes(32))
        key = path.read_bytes()
    except OSError as error:
        raise UserError(f"The key of sessions cannot be kept in {path} ({error.strerror}).") from error
    if len(key) < 32:
        raise UserError(f"{path} is damaged: delete it, and everyone signs in anew.")
    return key


def _user(row: tuple[str, str, str]) -> User:
    return User(row[0], Role.named(row[1]), row[2])


def _unknown(name: str) -> UserError:
    return UserError(f"There is no user '{name}': see `glimpse user list`.")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _stamp() -> str:
    return secrets.token_hex(8)


def _sha256(secret: str) -> str:
    # A token is 32 random bytes: unlike a password it cannot be guessed from a fast hash.
    return hashlib.sha256(secret.encode()).hexdigest()


def _fits(hashed: str, password: str) -> bool:
    from argon2 import PasswordHasher
    from argon2.exceptions import InvalidHashError, VerificationError

    try:
        return PasswordHasher().verify(hashed, password)
    except (VerificationError, InvalidHashError):
        return False
