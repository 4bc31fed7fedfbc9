"""Refuse foreign pages, let people sign in and programs show a token, and let roles decide."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from flask import Blueprint, Flask, abort, g, redirect, render_template, request, session, url_for
from flask.sessions import SecureCookieSessionInterface
from flask_babel import lazy_gettext
from flask_limiter import Limiter

from search_app.core.users import Role
from search_app.web.http import MACHINE_PATHS, ForbiddenError, check_origin

if TYPE_CHECKING:
    from flask import Response
    from flask.typing import ResponseReturnValue

    from search_app.core.logs import AuditLog
    from search_app.core.users import User, UserStore

READING = frozenset({"GET", "HEAD", "OPTIONS"})
OPEN_TO_ALL = frozenset({"static", "health.healthz", "login.sign_in", "languages.choose"})
"""endpoints that nobody has to sign in for"""
GUESSES, COSTLY, WRITES = "10 per minute", "60 per minute", "300 per minute"
LIMITS = {
    "login.sign_in": GUESSES,
    "voice.transcribe": COSTLY,
    "page.search_by_picture": COSTLY,
    "api.search_by_body": COSTLY,
    "uploads.add": COSTLY,
    "add_page.add_chosen": COSTLY,
    "selection.export": COSTLY,
    "selection.edit_chosen": COSTLY,
    "selection_page.export_chosen": COSTLY,
    "selection_page.edit_form": COSTLY,
    "hiding.put_chosen_away": COSTLY,
    "hiding.restore_chosen": COSTLY,
    "hiding_page.put_chosen_away": COSTLY,
    "hiding_page.restore_chosen": COSTLY,
    "hiding_page.delete_chosen": COSTLY,
    "captions.write_caption": WRITES,
    "caption_page.write_caption": WRITES,
    "hiding.put_away": WRITES,
    "hiding.restore": WRITES,
    "selection.write_keywords": WRITES,
    "selection.mark_favourite": WRITES,
    "selection.unmark_favourite": WRITES,
    "selection_page.favourite_form": WRITES,
    "selection_page.keywords_form": WRITES,
}
"""requests of one person, or of one address that has not signed in, that change something or cost much"""
READ_LIMITS = {
    "browse.suggest": "600 per minute",
    "browse.facets": "300 per minute",
    "page.narrow": "300 per minute",
    "originals.rendering": "300 per minute",
    "duplicates.duplicates": COSTLY,
    "duplicates_page.duplicates": COSTLY,
}
"""the same for routes that only read: one asks while somebody types, another draws a large picture"""
SESSION_DAYS = 30
TOO_OFTEN = "That was asked too often; wait a minute and try again."
WRONG = lazy_gettext("Name and password do not fit.")


class SignInRequiredError(Exception):
    """The server wants to know who asks."""


def refuse_foreign_pages(app: Flask) -> None:
    """Refuse requests that a browser sends for another site's page, except followed links."""

    @app.before_request
    def check() -> None:
        if request.method not in READING:
            check_origin(request.headers, host=request.host)
        elif (
            request.headers.get("Sec-Fetch-Site") in ("cross-site", "same-site")
            and request.headers.get("Sec-Fetch-Mode", "navigate") != "navigate"
        ):
            raise ForbiddenError("Another site's page asked for this; open it on the page of Glimpse itself.")


class SessionsBelowPath(SecureCookieSessionInterface):
    """Flask's sessions, whose cookie no other program behind the same proxy gets."""

    def get_cookie_path(self, _app: Flask) -> str:
        """Return the path that the page is served below."""
        return request.script_root or "/"


@dataclass(frozen=True)
class Login:
    """The parts of signing in."""

    users: UserStore
    audit: AuditLog
    secret_key: bytes
    """signs sessions"""
    secure: bool = False
    """whether the page is reached by HTTPS alone, so that browsers send the session by nothing else"""


def add_login(app: Flask, login: Login) -> None:
    """Let only people who sign in, and programs with a token, use the application, by their roles.

    A view's role is its attribute `role`, see `requires_role`; by default it is a viewer's.
    """
    users = login.users
    app.config.update(
        SECRET_KEY=login.secret_key,
        SESSION_COOKIE_NAME="glimpse",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Strict",
        SESSION_COOKIE_SECURE=login.secure,
        PERMANENT_SESSION_LIFETIME=timedelta(days=SESSION_DAYS),
    )
    app.session_interface = SessionsBelowPath()
    app.register_blueprint(_login_blueprint(users))

    @app.before_request
    def authorize() -> ResponseReturnValue | None:
        g.user = _bearer(users) or _session_user(users)
        if request.endpoint in OPEN_TO_ALL:
            return None
        if g.user is None:
            return _sign_in_first()
        needed = getattr(app.view_functions.get(request.endpoint or ""), "role", Role.VIEWER)
        if g.user.role < needed:
            raise ForbiddenError(f"This takes the role {needed}; you are {g.user.name}, {g.user.role}.")
        return None

    @app.after_request
    def note(response: Response) -> Response:
        if request.method not in READING:
            user: User | None = getattr(g, "user", None)
            login.audit.write(
                str(request.endpoint),
                user=user.name if user else g.get("tried_name"),
                address=request.remote_addr or "",
                status=response.status_code,
                path=request.path,
                pictures=g.get("pictures", ()),
            )
        return response

    @app.context_processor
    def person() -> dict[str, Any]:
        return {"user": getattr(g, "user", None)}


def add_limits(app: Flask) -> None:
    """Limit the requests of one person, or of one address, to the routes that cost most."""
    limiter = Limiter(_asker, app=app, storage_uri="memory://", headers_enabled=True)
    limits = [(each, limit, ["POST", "PUT", "DELETE"]) for each, limit in LIMITS.items()]
    limits += [(each, limit, ["GET"]) for each, limit in READ_LIMITS.items()]
    for endpoint, limit, methods in limits:
        if view := app.view_functions.get(endpoint):
            limited = limiter.limit(limit, methods=methods, error_message=TOO_OFTEN)
            app.view_functions[endpoint] = limited(view)  # type: ignore[assignment]  # flask-limiter allows coroutines


def _asker() -> str:
    user: User | None = getattr(g, "user", None)
    return f"user {user.name}" if user else f"address {request.remote_addr}"


def _bearer(users: UserStore) -> User | None:
    authorization = request.authorization
    if authorization is None or authorization.type != "bearer" or not authorization.token:
        return None
    return users.of_token(authorization.token)


def _session_user(users: UserStore) -> User | None:
    name, stamp = session.get("user"), session.get("stamp")
    user = users.get(name) if isinstance(name, str) else None
    return user if user and user.stamp == stamp else None


def _sign_in_first() -> ResponseReturnValue:
    if request.method not in READING or request.path.startswith(MACHINE_PATHS):
        abort(
            HTTPStatus.UNAUTHORIZED,
            "Sign in on the page, or send a token as `Authorization: Bearer …` (see `glimpse token`).",
        )
    wanted = request.full_path.rstrip("?")
    query = urlencode({"next": wanted}) if wanted != "/" else ""
    return redirect(url_for("login.sign_in") + (f"?{query}" if query else ""), code=303)


def _local_path(wanted: str) -> str:
    """Return a path of this server to go on to, the start page for anything else."""
    is_local = wanted.startswith("/") and not wanted.startswith("//")
    if is_local and "\\" not in wanted and wanted.isprintable():
        return request.script_root + wanted
    return url_for("page.search")


def _login_blueprint(users: UserStore) -> Blueprint:
    login = Blueprint("login", __name__)

    @login.route("/sign-in", methods=["GET", "POST"])
    def sign_in() -> ResponseReturnValue:
        """Show the form, and sign in who knows a password."""
        if request.method in READING:
            return render_template("sign_in.html", sentence="", name="")
        g.tried_name = name = request.form.get("name", "").strip()[:64]
        user = users.sign_in(name, request.form.get("password", ""))
        if user is None:
            return render_template("sign_in.html", sentence=WRONG, name=name), HTTPStatus.UNAUTHORIZED
        session.clear()
        session.permanent = True
        session["user"], session["stamp"] = user.name, user.stamp
        g.user = user
        return redirect(_local_path(request.args.get("next", "/")), code=303)

    @login.post("/sign-out")
    def sign_out() -> ResponseReturnValue:
        """End the session of this browser."""
        session.clear()
        return redirect(url_for("login.sign_in"), code=303)

    return login
