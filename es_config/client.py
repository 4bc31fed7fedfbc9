"""Connect to Elasticsearch as the environment says, and explain its errors in one sentence each."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import platformdirs
from elasticsearch import (
    ApiError,
    AuthorizationException,
    ConnectionError,
    ConnectionTimeout,
    Elasticsearch,
    SerializationError,
    TransportError,
    UnsupportedProductError,
)

from es_config.errors import EngineError, NotAllowedError, RefusedQueryError
from es_config.home import RunningNode, find_running
from es_config.transport import BreakingTransport, WholeAnswers, following


@dataclass(frozen=True)
class EngineSettings:
    """Address of Elasticsearch and login."""

    url: str
    """the address of a node, or of several with commas between them: when one is away, another is asked"""
    api_key: str | None = None
    ca_certs: Path | None = None
    local_home: Path | None = None
    """the GLIMPSE_HOME of the local node, None for another Elasticsearch"""
    local_key: str | None = field(default=None, repr=False)
    """the API key of the local node"""

    @property
    def local(self) -> bool:
        """Whether it is the local node of this machine."""
        return self.local_home is not None

    @property
    def shown_url(self) -> str:
        """The addresses without user and password, as they may be printed."""
        parts = map(urlsplit, self.urls)
        return ",".join(each._replace(netloc=each.netloc.rpartition("@")[2]).geturl() for each in parts)

    @property
    def urls(self) -> list[str]:
        """Each address alone."""
        return self.url.split(",")


def glimpse_home(environ: Mapping[str, str]) -> Path:
    """Return GLIMPSE_HOME, by default the platform's folder for the data of a user's programs."""
    if environ.get("GLIMPSE_HOME"):
        return Path(environ["GLIMPSE_HOME"]).expanduser().absolute()
    return platformdirs.user_data_path("glimpse")


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Return GLIMPSE_CACHE, the folder of things that can be made again, else `cache` in GLIMPSE_HOME."""
    if environ.get("GLIMPSE_CACHE"):
        return Path(environ["GLIMPSE_CACHE"]).expanduser().absolute()
    return glimpse_home(environ) / "cache"


def engine_settings(environ: Mapping[str, str], home: Path) -> EngineSettings:
    """Return ELASTICSEARCH_URL (or ES_URL) with its key and CA, otherwise the running local node of `home`.

    Raises EngineError when there is neither, or when the URL or the CA file cannot be used.
    """
    url = remote_url(environ)
    if url is None:
        local = _local_node(home)
        return EngineSettings(local.url, local_home=home, local_key=local.key)
    ca_certs = Path(named).expanduser() if (named := environ.get("ELASTICSEARCH_CA_CERTS")) else None
    if ca_certs and not ca_certs.is_file():
        raise EngineError(
            f"ELASTICSEARCH_CA_CERTS names {ca_certs}, which is not a file: give the CA certificate as PEM."
        )
    urls = ",".join(_checked_url(each.strip()) for each in url.split(","))
    node, api_key = find_running(home), _api_key(environ)
    local_key = node.key if node and node.url == urls else None
    return EngineSettings(urls, api_key, ca_certs, local_key=local_key)


def remote_url(environ: Mapping[str, str]) -> str | None:
    """Return ELASTICSEARCH_URL, or else ES_URL, as it is written. None means the local node."""
    return _either(environ, "ELASTICSEARCH_URL", "ES_URL")


def _either(environ: Mapping[str, str], *names: str) -> str | None:
    return next((environ[name].strip() for name in names if environ.get(name, "").strip()), None)


def _api_key(environ: Mapping[str, str]) -> str | None:
    """Return the API key of the environment, else of the file that ELASTICSEARCH_API_KEY_FILE names."""
    if key := _either(environ, "ELASTICSEARCH_API_KEY", "ES_API_KEY"):
        return key
    named = environ.get("ELASTICSEARCH_API_KEY_FILE")
    if not named:
        return None
    try:
        key = Path(named).expanduser().read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise EngineError(
            f"ELASTICSEARCH_API_KEY_FILE names {named}, which cannot be read ({reason}): name a file that"
            " holds the API key alone."
        ) from error
    if not key:
        raise EngineError(
            f"ELASTICSEARCH_API_KEY_FILE names {named}, which is empty: write the API key into it."
        )
    return key


def _local_node(home: Path) -> RunningNode:
    node = find_running(home)
    if node is None:
        raise EngineError("No Elasticsearch is running here: run `glimpse up` or set ELASTICSEARCH_URL.")
    if not node.ready:
        raise EngineError(
            "The local node is still starting: wait a few seconds, or run `glimpse up` to wait for it."
        )
    return node


def _checked_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise EngineError(f"ELASTICSEARCH_URL is '{url}': write it like https://elastic.example:9200.")
    if parts.scheme == "http" and parts.port is None:
        raise EngineError(
            f"ELASTICSEARCH_URL is '{url}', which names no port: Elasticsearch's own is :9200 after the host"
            " name, that of a proxy is often :80."
        )
    return url.rstrip("/")


MIN_VERSION = (9, 5)
WANTED = ".".join(map(str, MIN_VERSION))
TIMEOUT_S = 60.0
HANDSHAKE_S = 3.0
BY_KIND = {
    "index_not_found_exception": (
        "There is no such index ({reason}): run `glimpse index create` or `glimpse ingest FOLDER`."
    ),
    "index_closed_exception": "The index {index} is closed: open it with `POST {index}/_open`.",
    "invalid_index_name_exception": "This cannot be the name of an index ({reason}): choose another.",
    "media_type_header_exception": "Elasticsearch{at} is too old: Glimpse needs {version} or newer.",
}
BY_STATUS = {
    401: "Elasticsearch{at} refused the login: set ELASTICSEARCH_API_KEY to a valid API key.",
    403: "The API key may not do this{at} ({reason}): give it that right, or use another key.",
    413: (
        "Elasticsearch{at}, or a proxy in front of it, takes no request of this size (413): raise its limit,"
        " such as client_max_body_size of nginx."
    ),
    429: "Elasticsearch{at} is overloaded ({reason}): wait and try again, or give it more memory.",
}
NAME_MISMATCH = (62, 64)
"""OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH"""
MISSING_KEY_USAGE = 92
"""OpenSSL's X509_V_ERR_CA_CERT_MISSING_KEY_USAGE"""
PARSERS = ("X509", "PEM", "ASN1")
"""libraries of OpenSSL that read certificate files"""
NOT_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE")
"""reasons of OpenSSL, the second since 3.2, when a server answers something other than TLS"""
ANY_OTHER = "Elasticsearch{at} answered {status} ({reason}): see `glimpse doctor`."
FOR_VISITORS = {
    "index_not_found_exception": "There are no pictures yet: run `glimpse ingest FOLDER` on the server.",
    "index_closed_exception": "The index is closed: `glimpse doctor` on the server says how to open it.",
    429: "The search engine is overloaded: wait a moment and try again.",
}
"""by kind and by status; else that of `EngineError`"""
QUERY_FAULTS = frozenset(
    {
        "action_request_validation_exception",
        "illegal_argument_exception",
        "named_object_not_found_exception",
        "number_format_exception",
        "parse_exception",
        "parsing_exception",
        "query_shard_exception",
        "too_complex_to_determinize_exception",
        "too_many_clauses",
        "too_many_nested_clauses",
        "x_content_parse_exception",
    }
)
"""kinds of errors of Elasticsearch that lie in a query, with status 400 or 413"""
HTML_TITLE = re.compile(r"<title>(.*?)</title>", re.IGNORECASE | re.DOTALL)
LONGEST_REASON = 400


def connect(
    settings: EngineSettings, *, timeout_s: float = TIMEOUT_S, is_server: bool = False
) -> Elasticsearch:
    """Return a client that has spoken to the server once. Raises EngineError when that fails.

    `is_server` is whether many people wait for its answers: then none waits for an engine that hangs, see
    `BreakingTransport`.
    """
    # Not 429: the client would repeat the request at once, and bulk writing backs off by itself.
    options: dict[str, Any] = {"request_timeout": timeout_s, "retry_on_status": (502, 503, 504)}
    if key := settings.local_key or settings.api_key:
        options["api_key"] = key
    if settings.ca_certs:
        options["ca_certs"] = str(settings.ca_certs)
    if settings.local_home:
        options["node_class"] = following(settings.local_home)
    options["transport_class"] = BreakingTransport if is_server else WholeAnswers
    with _plain_to_tls(settings), engine_errors(settings.shown_url), _address_errors(settings.shown_url):
        client = Elasticsearch(settings.urls, **options)
        try:
            if number := read_version(client):
                _check_version(number, settings.shown_url)
        except BaseException:
            client.close()
            raise
    return client


@contextmanager
def _plain_to_tls(settings: EngineSettings) -> Iterator[None]:
    """Explain the failure of a server that speaks TLS and was asked without: each server fails in its way."""
    try:
        yield
    except EngineError as error:
        cause = error.__cause__
        may_be = isinstance(cause, ConnectionError) or (
            isinstance(cause, ApiError) and cause.status_code == 400
        )
        urls = [url for url in settings.urls if may_be and url.startswith("http:") and _speaks_tls(url)]
        if not urls:
            raise
        shown = replace(settings, url=urls[0]).shown_url
        raise EngineError(
            f"The server at {shown} speaks TLS: write ELASTICSEARCH_URL with https:// instead."
        ) from cause


def _speaks_tls(url: str) -> bool:
    """Return whether the server of an address ends a handshake. Nothing is sent to it, nor believed of it."""
    parts = urlsplit(url)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((str(parts.hostname), parts.port or 80), HANDSHAKE_S) as connection,
            context.wrap_socket(connection, server_hostname=parts.hostname),
        ):
            return True
    except (OSError, ValueError):  # ssl.SSLError is an OSError
        return False


@contextmanager
def _address_errors(url: str) -> Iterator[None]:
    """Turn ValueErrors of the client and of urllib3 about an address into EngineError."""
    try:
        yield
    except ssl.SSLError:  # one kind of it is a ValueError, too
        raise
    except ValueError as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise EngineError(
            f"ELASTICSEARCH_URL is '{url}', to which no request can be sent ({reason}): write it like"
            " https://elastic.example:9200."
        ) from error


def read_version(client: Elasticsearch) -> str | None:
    """Return the server's version, or None where the API key lacks the right to ask (`monitor`)."""
    try:
        return str(client.info()["version"]["number"])
    except AuthorizationException:
        return None


def _check_version(number: str, url: str) -> None:
    found = tuple(int(part) for part in re.findall(r"\d+", number)[:2])
    if found < MIN_VERSION:
        raise EngineError(
            f"Elasticsearch at {url} is version {number}: Glimpse needs {WANTED} or newer; upgrade it, "
            "or use the local node (`glimpse up`)."
        )


@contextmanager
def afterwards(clean_up: Callable[[], object]) -> Iterator[None]:
    """Call `clean_up` at the end of a `with` statement, also after an error in its body.

    When both fail, the body's error is raised, with the message of the clean-up as a note. An interruption is
    raised only after a clean-up that succeeds.
    """
    try:
        yield
    except Exception as error:
        try:
            clean_up()
        except Exception as failed:
            if failed is not error:
                error.add_note(str(failed))
        raise
    except BaseException:
        clean_up()
        raise
    clean_up()


@contextmanager
def engine_errors(url: str = "") -> Iterator[None]:
    """Turn the client's errors in the body of a `with` statement into EngineError."""
    try:
        yield
    except (ApiError, TransportError, ssl.SSLError) as error:
        raise explain(error, url=url) from error


def raise_item_error(item: Any, meta: Any) -> None:
    """Raise the client's ApiError if one answer of several, such as of `_msearch`, is an error."""
    if "error" in item:
        status = int(item.get("status", 500))
        raise ApiError(item["error"]["type"], replace(meta, status=status), dict(item))


def explain(error: Exception, *, url: str = "") -> EngineError:
    """Explain an exception of the client in a sentence with the way out. `url` was asked."""
    at = f" at {url}" if url else ""
    if isinstance(error, UnsupportedProductError | SerializationError):
        return EngineError(f"What answers{at} is not Elasticsearch: correct ELASTICSEARCH_URL.")
    if isinstance(error, ApiError):
        return _refused(error, at)
    if isinstance(error, ConnectionTimeout):
        return EngineError(
            f"Elasticsearch{at} did not answer in time: try again, and see `glimpse doctor`.",
            for_visitors="The search engine did not answer in time: try again in a moment.",
        )
    if (fault := _tls_fault(error)) is not None:
        return _untrusted(fault, at)
    if isinstance(error, ConnectionError):
        sentence = "No Elasticsearch answers{}: run `glimpse up`, or correct ELASTICSEARCH_URL if it is set."
        return EngineError(sentence.format(at), for_visitors=sentence.format(""))
    return EngineError(f"Elasticsearch{at} could not be asked ({error}): see `glimpse doctor`.")


def _tls_fault(error: BaseException | None) -> ssl.SSLError | None:
    """Return the error of `ssl` that an exception was made of."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        each = waiting.pop(0)
        if isinstance(each, ssl.SSLError):
            return each
        if isinstance(each, BaseException) and id(each) not in seen:
            seen.add(id(each))
            waiting += [*each.args, *getattr(each, "errors", ()), each.__cause__, each.__context__]
    return None


def _untrusted(fault: ssl.SSLError, at: str) -> EngineError:
    """Explain a failure of TLS by the codes of OpenSSL."""
    code = getattr(fault, "verify_code", None)
    if code in NAME_MISMATCH:
        return EngineError(
            f"The certificate of Elasticsearch{at} is for another host name: correct ELASTICSEARCH_URL."
        )
    if code == MISSING_KEY_USAGE:
        return EngineError(
            f"The CA certificate of Elasticsearch{at} does not say what it is for, which Python 3.13 wants to"
            " read: make a new one with today's elasticsearch-certutil, or run Glimpse with Python 3.12."
        )
    if isinstance(fault, ssl.SSLCertVerificationError):
        return EngineError(
            f"The certificate of Elasticsearch{at} is not trusted: set ELASTICSEARCH_CA_CERTS to the "
            "certificate of the CA that signed it."
        )
    if fault.library in PARSERS:
        return EngineError(
            "ELASTICSEARCH_CA_CERTS names a file without a certificate: give the CA certificate as PEM."
        )
    if fault.reason in NOT_TLS:
        return EngineError(
            f"The server{at} does not speak TLS: write ELASTICSEARCH_URL with http:// instead."
        )
    reason = fault.reason or fault.strerror or type(fault).__name__
    return EngineError(f"TLS with Elasticsearch{at} failed ({reason}): see its log, and `glimpse doctor`.")


def _refused(error: ApiError, at: str) -> EngineError:
    reason, status = refusal(error.body, error.message), error.status_code
    kinds = _kinds(error.body)
    if "cluster_block_exception" in kinds:
        return blocked(reason, status)
    if status in (400, 413) and not kinds.isdisjoint(QUERY_FAULTS):
        sentence = f"The search engine does not accept the query ({reason}): change it."
        return RefusedQueryError(sentence, for_visitors=sentence)
    known = [kind for kind in BY_KIND if kind in kinds]
    sentence = BY_KIND[known[0]] if known else BY_STATUS.get(status, ANY_OTHER)
    raised = NotAllowedError if status == 403 else EngineError
    return raised(
        sentence.format(at=at, reason=reason, status=status, version=WANTED, index=_index_of(error.body)),
        for_visitors=FOR_VISITORS.get(known[0] if known else status),
    )


def _causes(error: Any) -> Iterator[Mapping[str, Any]]:
    """Yield an error of a body and those that it comes from."""
    if isinstance(error, Mapping):
        yield error
        yield from _causes(error.get("caused_by"))
        for each in error.get("root_cause") or ():
            if each is not error:
                yield from _causes(each)
        for failure in error.get("failed_shards") or ():
            yield from _causes(failure.get("reason"))


def _kinds(body: Any) -> frozenset[str]:
    error = body.get("error") if isinstance(body, dict) else None
    return frozenset(str(each.get("type")) for each in _causes(error))


def _index_of(body: Any) -> str:
    """Return the name of the index that an error body names, or `<index>`."""
    error = body.get("error") if isinstance(body, dict) else None
    return next((str(each["index"]) for each in _causes(error) if each.get("index")), "<index>")


def refusal(body: Any, message: str) -> str:
    """Return the deepest reason of an error body, on one line, or the title of a proxy's HTML page."""
    if isinstance(body, str) and "<" in body:
        title = HTML_TITLE.search(body)
        message = title[1] if title else "a page of HTML, as of a proxy"
    error = body.get("error") if isinstance(body, dict) else None
    if isinstance(error, dict) and error.get("failed_shards"):
        error = error["failed_shards"][0]["reason"]
    while isinstance(error, dict) and isinstance(error.get("caused_by"), dict):
        error = error["caused_by"]
    reason = error.get("reason") if isinstance(error, dict) else None
    return " ".join(str(reason or message).split())[:LONGEST_REASON].rstrip(".;")


def blocked(reason: str, status: int) -> EngineError:
    """Explain a write that a block stopped, by its HTTP status."""
    if status == 429:  # the block that Elasticsearch itself sets at the flood stage of a disk
        return EngineError(
            "The disk of Elasticsearch is nearly full, so the index takes no pictures: free space "
            "there, or delete an index; the block lifts within a minute, then run the same command again.",
            for_visitors="The disk of the search engine is nearly full, so the index takes no pictures.",
        )
    if status == 503:
        return EngineError(
            "Elasticsearch has no master node: too many nodes are away, or a disk is full; see its log, mend "
            "that, then run the same command again."
        )
    return EngineError(
        f"The index takes no writes ({reason}): while `glimpse reindex` switches it, wait a moment; else "
        'lift the block, as in `PUT images/_settings {"index.blocks.write": null}`, then run the same '
        "command again.",
        for_visitors="The index takes no writes at the moment: wait a little, then try again.",
    )
