"""Build the parts of a search from settings: here connections are opened and models are loaded."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from es_config.aliases import lift_dead_block
from es_config.client import EngineSettings, cache_folder, connect, engine_settings, glimpse_home
from es_config.errors import EngineError, NotAllowedError
from es_config.hidden import HiddenPictures
from es_config.index import META_SECONDS, ImageIndex
from es_config.overview import Overview, read_overview
from es_config.requests import as_curl
from es_config.runs import in_words, read_runs
from models.encoders import Lazy, TextEncoder
from models.errors import ModelError
from models.fast.standalone import (
    load_quick_caption_text_encoder,
    load_quick_image_encoder,
    load_quick_text_encoder,
)
from models.profiles import PROFILES, Profile, default_profile, get_profile
from search_app.core.compose import VectorSample
from search_app.core.hiding import HiddenIds
from search_app.core.logs import QueryLog, log_path
from search_app.core.places import Gazetteer
from search_app.core.query import Query
from search_app.core.searcher import Marks, Searcher, SearchService, build_request
from search_app.core.text_lanes import text_lanes
from search_app.errors import PlacesError, ServeError
from search_app.settings import AppSettings, SearchSettings, store_uri
from storage.errors import StorageError
from storage.store import Storage, open_storage

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

    from models.voice import Transcriber
    from search_app.core.hiding import PictureRemover
    from search_app.core.pictures import Originals
    from search_app.web.duplicates import FindDuplicates
    from search_app.web.login import Login
    from search_app.web.server import ListenOptions
    from search_app.web.uploads import PictureIndexer


WARM_EVERY_S = 0.5
TIDY_EVERY_S = 60.0
"""seconds between looks for removed uploads whose time is over"""
HIDDEN_EVERY_S = 5.0
"""seconds between looks for pictures that another program put away"""
FOLLOWER_END_S = 10.0
"""an Elasticsearch that hangs is waited for no longer"""
ANSWER_S = 6.0
"""seconds that the page waits for an answer of Elasticsearch"""


def build_searcher(
    settings: SearchSettings,
    environ: Mapping[str, str],
    *,
    warn: Callable[[str], None],
    warm: bool = False,
    client: Elasticsearch | None = None,
) -> Searcher:
    """Return a searcher whose models load on first use, or at once with `warm`. It connects if it must.

    Raises `EngineError` without Elasticsearch, `ModelError` for an unknown profile, `QueryError` for a text
    lane that the profile does not have; the models' errors come with their loading.
    """
    client = client or connect(engine_settings(environ, glimpse_home(environ)))
    index = ImageIndex(client, alias=settings.alias)
    name = index.choose_profile(settings.profile, default=default_profile(environ))
    profile = get_profile(name, model_dir=settings.model_dir)
    cache = cache_folder(environ)
    return searcher_of(index, profile, client, lane=settings.text_lane, warn=warn, warm=warm, cache=cache)


def searcher_of(
    index: ImageIndex,
    profile: Profile,
    client: Elasticsearch,
    *,
    lane: str,
    warn: Callable[[str], None],
    cache: Path,
    warm: bool = False,
    former: Searcher | None = None,
) -> Searcher:
    """Return a searcher of one index with the models of a profile, or those of a `former` one.

    In the folder `cache` are models in a form that starts at once.

    Raises as `build_searcher` does.
    """
    if former is not None:
        images, texts, captions = former.image_encoder, former.texts.encoder, former.caption_texts.encoder
    else:
        quick = partial(load_quick_text_encoder, cache=cache)
        images = Lazy(lambda: load_quick_image_encoder(profile, cache=cache))
        texts = Lazy[TextEncoder](
            lambda: text_lanes(profile, client, choice=lane, warn=warn, load_local=quick)
        )
        captions = Lazy(lambda: load_quick_caption_text_encoder(profile, cache=cache))
    sample = VectorSample(index)
    searcher = Searcher(
        index=index,
        profile=profile,
        text_encoder=texts,
        image_encoder=images,
        caption_text_encoder=None if profile.caption_shares_space else captions,
        marks=Marks(sample),
        sample=sample,
        gazetteer=Gazetteer(cache),
    )
    if warm:
        images.get()
        searcher.texts.embed("a picture")
        warm_captions(searcher)
        warm_places(searcher)
    return searcher


def requests_as_curl(searcher: Searcher, query: Query, environ: Mapping[str, str]) -> str:
    """Return the requests that answer a query as curl commands: several in mode hybrid, each with its name.

    Raises as `Searcher.search` does.
    """
    engine = engine_settings(environ, glimpse_home(environ))
    bodies = searcher.requests(query)
    commands = {name: _curl(body, engine, alias=searcher.index.alias) for name, body in bodies.items()}
    if len(commands) == 1:
        return next(iter(commands.values()))
    return "\n\n".join(f"# {name}\n{command}" for name, command in commands.items())


def _curl(body: dict[str, Any], engine: EngineSettings, *, alias: str) -> str:
    return as_curl(
        body,
        url=engine.shown_url.split(",")[0],
        index=alias,
        api_key=engine.api_key is not None,
        ca_certs=str(engine.ca_certs) if engine.ca_certs else None,
    )


def request_as_curl(query: Query, environ: Mapping[str, str], *, alias: str) -> str:
    """Return the request of a query by a vector as a curl command, without sending it.

    Pictures are counted for an exact search only. Tuned settings are not known here: `num_candidates` is the
    query's own or the default. Raises `EngineError`.
    """
    engine = engine_settings(environ, glimpse_home(environ))

    def count() -> int:
        with closing(connect(engine)) as client:
            return ImageIndex(client, alias=alias).count()

    subject = {"query_vector": np.asarray(query.vector, np.float32)}
    return _curl(
        build_request(query, subject, mode=query.mode, points={}, count=count).body, engine, alias=alias
    )


def serve_pictures(
    settings: SearchSettings,
    app_settings: AppSettings,
    environ: Mapping[str, str],
    *,
    listen: ListenOptions,
    with_login: bool,
    warn: Callable[[str], None],
    ready: Callable[[str], None],
    open_indexer: Callable[[Searcher, Storage], PictureIndexer] | None = None,
    open_originals: Callable[[Callable[[], ImageIndex]], Originals] | None = None,
    open_remover: Callable[[Searcher, Storage], PictureRemover] | None = None,
    find_duplicates: FindDuplicates | None = None,
    warm_first: bool = True,
) -> None:
    """Load the models, then serve the page until interrupted. `ready` gets the address that answers.

    Without `warm_first` it serves at once, and the models load as soon as there is an index.

    Pictures can be added when `open_indexer` returns an indexer of the index, and ingested files opened when
    `open_originals` returns those of the index that is searched at the moment, and put away when
    `open_remover` returns a remover of a searcher's index. Raises `ServeError` when the
    port is taken or nobody could sign in, and as `build_searcher` does.
    """
    # Voice and Flask would slow `glimpse search` down.
    from search_app.core.voice import build_transcriber
    from search_app.web.app import create_app
    from search_app.web.hosts import address_of
    from search_app.web.server import PageServer, check_port

    check_port(listen.host, listen.port)
    home = glimpse_home(environ)
    login = open_login(home, secure=listen.tls is not None, warn=warn) if with_login else None
    store = open_storage(store_uri(environ, home, settings.alias))
    client = connect(engine_settings(environ, home), timeout_s=ANSWER_S, is_server=True)
    log = QueryLog(log_path(home), warn=warn) if app_settings.query_log else None
    searcher = build_searcher(settings, environ, warn=warn, warm=warm_first, client=client)
    service = SearchService(searcher, log=log)
    follower = AliasFollower(
        service,
        renew=lambda former: renewed(former, settings, client, warn=warn, cache=cache_folder(environ)),
        open_indexer=(lambda each: open_indexer(each, store)) if open_indexer else None,
        open_transcriber=lambda profile: build_transcriber(profile, settings.voice_model),
        warn=warn,
    )
    if warm_first:
        warm_voice(follower.transcriber, warn)
    opened = open_remover
    remover = (lambda: opened(service.searcher, store)) if opened else None
    hidden_ids = HiddenIds(lambda: HiddenPictures(service.searcher.index))
    app = create_app(
        service=service,
        hidden_ids=hidden_ids,
        storage=store,
        settings=app_settings,
        transcriber=lambda: follower.transcriber,
        indexer=lambda: follower.indexer,
        login=login,
        originals=open_originals(lambda: service.searcher.index) if open_originals else None,
        running=lambda: in_words(read_runs(home, settings.alias)),
        remover=remover or (lambda: None),
        find_duplicates=find_duplicates,
        overview=lambda: overview_of(service.searcher.index, environ, home),
    )
    scheme = "https" if listen.tls else "http"
    address = address_of(listen.host, listen.port, scheme=scheme, prefix=listen.prefix)
    warming = nullcontext() if warm_first else warmed_later(service, follower, warn)
    tidying = (
        regularly(lambda: remover().tidy(), warn, name="tidy", every_s=TIDY_EVERY_S)
        if remover
        else nullcontext()
    )
    hiding = regularly(partial(_look_at, hidden_ids), warn, name="hidden", every_s=HIDDEN_EVERY_S)
    with follower, warming, tidying, hiding, closing(login.audit) if login else nullcontext():
        PageServer(app, listen).run(ready=lambda: ready(address))


def _look_at(hidden_ids: HiddenIds) -> None:
    try:
        hidden_ids.refresh()
    except NotAllowedError as error:
        raise EngineError(
            f"thumbnails of hidden pictures are sent to whoever knows their ids: {error}"
        ) from error
    except EngineError:  # which the `AliasFollower` says
        pass


@contextmanager
def regularly(
    step: Callable[[], object], warn: Callable[[str], None], *, name: str, every_s: float
) -> Iterator[None]:
    """Let a thread do a step now and again and again. `warn` gets each failure once."""
    over, warned = threading.Event(), set[str]()

    def repeat() -> None:
        while True:
            try:
                step()
            except (EngineError, ModelError, StorageError) as error:  # the next time may do
                if str(error) not in warned:
                    warned.add(str(error))
                    warn(str(error))
            if over.wait(every_s):
                return

    thread = threading.Thread(target=repeat, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(FOLLOWER_END_S)


def overview_of(index: ImageIndex, environ: Mapping[str, str], home: Path) -> Overview:
    """Return the state of an index, also when no Elasticsearch is known at the moment."""
    url = ""
    with suppress(EngineError):
        url = engine_settings(environ, home).shown_url
    dims = {profile.name: profile.dims for profile in PROFILES.values()}
    store = store_uri(environ, home, index.alias)
    return read_overview(index, home=home, url=url, store=store, profile_dims=dims)


def warm_captions(searcher: Searcher) -> None:
    """Load the text model of captions, if it is on this machine: an index without captions needs none."""
    if not searcher.profile.missing(("caption_text",)):
        searcher.caption_texts.embed("a picture")


def warm_places(searcher: Searcher) -> None:
    """Make the list of places where pictures have such and another machine named them."""
    with suppress(EngineError, PlacesError):  # places are then known by their own names
        gazetteer = searcher.gazetteer
        if gazetteer and not gazetteer.is_ready and searcher.index.exists() and searcher.index.has_places():
            gazetteer.prepare()


def warm_voice(transcriber: Lazy[Transcriber] | None, warn: Callable[[str], None]) -> None:
    """Load the voice model, unless voice is off. `warn` gets the reason when that fails."""
    try:
        if transcriber:
            voice = transcriber.get()
            voice.warm()
            if voice.limits:
                warn(voice.limits)
    except ModelError as error:  # the page works without it, and a recording tries again
        warn(f"nobody can speak to the page yet: {error}")


@contextmanager
def warmed_later(
    service: SearchService, follower: AliasFollower, warn: Callable[[str], None]
) -> Iterator[None]:
    """Load the models inside the context once there is an index: whoever makes it downloads them alone.

    At the end the model that is being loaded is waited for: a thread inside a library of C++, when the
    interpreter is shut down, aborts the process.
    """
    over = threading.Event()
    thread = threading.Thread(target=_warm, args=(service, follower, warn, over), name="warm", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _warm(
    service: SearchService, follower: AliasFollower, warn: Callable[[str], None], over: threading.Event
) -> None:
    while not over.is_set():
        with suppress(EngineError):
            if service.searcher.index.exists():
                break
        over.wait(WARM_EVERY_S)
    steps: list[Callable[[], object]] = [
        lambda: service.searcher.image_encoder.get(),  # noqa: PLW0108 - of the searcher at that time
        lambda: service.searcher.texts.embed("a picture"),
        lambda: warm_captions(service.searcher),
        lambda: warm_places(service.searcher),
        lambda: warm_voice(follower.transcriber, warn),
    ]
    for step in steps:
        if over.is_set():
            return
        try:
            step()
        except (EngineError, ModelError) as error:  # a search tries again, and says so
            warn(str(error))


def open_login(home: Path, *, secure: bool, warn: Callable[[str], None]) -> Login:
    """Return the parts of signing in, from the files of a GLIMPSE_HOME. Raises `ServeError`, `UserError`."""
    from search_app.core.logs import AuditLog, audit_path
    from search_app.core.users import UserStore, secret_key, users_path
    from search_app.web.login import Login

    users = UserStore(users_path(home))
    if not users.users():
        raise ServeError(
            "Nobody could sign in: add yourself with `glimpse user add NAME --role owner`, or let everybody"
            " in with --no-login."
        )
    return Login(users, AuditLog(audit_path(home), warn=warn), secret_key(home), secure)


class AliasFollower:
    """A context that replaces a service's searcher, indexer and transcriber when `renew` returns another.

    Inside the context a thread asks `renew` every few seconds. Until it returns one, the former index answers
    by its name: no search fails because the alias was switched. An error is shown once, and the former
    searcher and indexer stay. `indexer` is None when `open_indexer` is. `transcriber` is that of the
    searcher's profile, None when `open_transcriber` returns none.
    """

    def __init__(
        self,
        service: SearchService,
        *,
        renew: Callable[[Searcher], Searcher | None],
        open_indexer: Callable[[Searcher], PictureIndexer] | None,
        open_transcriber: Callable[[Profile], Lazy[Transcriber] | None] = lambda _: None,
        warn: Callable[[str], None],
        every_s: float = META_SECONDS,
    ) -> None:
        self.service = service
        self._renew, self._open_indexer, self._warn, self._every_s = renew, open_indexer, warn, every_s
        self._open_transcriber = open_transcriber
        self.indexer = open_indexer(service.searcher) if open_indexer else None
        self.transcriber = open_transcriber(service.searcher.profile)
        self._warned: set[str] = set()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="follow", daemon=True)

    def __enter__(self) -> Self:
        """Begin to follow."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop following, and wait for a model that is being loaded, as `warmed_later` does."""
        self._end.set()
        self._thread.join(FOLLOWER_END_S)

    def _follow(self) -> None:
        while True:
            try:
                former = self.service.searcher
                if newer := self._renew(former):
                    if self._open_indexer:
                        self.indexer = self._open_indexer(newer)
                    self.service.searcher = newer
                    if newer.profile != former.profile:
                        self.transcriber = self._open_transcriber(newer.profile)
            except Exception as error:  # whatever loading a model raises: the former one goes on
                if str(error) not in self._warned:
                    self._warned.add(str(error))
                    self._warn(str(error))
            if self._end.wait(self._every_s):
                return


def renewed(
    former: Searcher,
    settings: SearchSettings,
    client: Elasticsearch,
    *,
    warn: Callable[[str], None],
    cache: Path,
) -> Searcher | None:
    """Return a searcher of the index behind the alias, its models loaded, or None when `former` is one.

    Raises `EngineError` when the models of that index are not known here, and as `build_searcher` does.
    """
    with suppress(NotAllowedError):  # a key that only reads leaves it to those that write
        run, lifted = lift_dead_block(client, settings.alias)
        if lifted:
            warn(
                f"the index takes pictures again: a `glimpse reindex` that was killed ({run}) had blocked it."
            )
    index = ImageIndex(client, alias=settings.alias)
    if not index.exists() or index.name() == former.index.target:
        return None
    index = index.pinned()
    profile = profile_of(index, settings)
    if profile is None:
        name = index.meta().profile
        raise EngineError(
            f"{index.name()} is behind '{settings.alias}' now, with other weights of profile {name}: restart"
            " `glimpse serve` with their --model-dir. What answered before goes on."
        )
    same = former if profile == former.profile else None
    newer = searcher_of(
        index,
        profile,
        client,
        lane=settings.text_lane,
        warn=warn,
        cache=cache,
        warm=same is None,
        former=same,
    )
    if same is None:
        warn(f"{index.name()} answers from now on, with the models of profile {profile.name}.")
    return newer


def profile_of(index: ImageIndex, settings: SearchSettings) -> Profile | None:
    """Return the profile, from the table or from the folder that was named, whose weights an index notes."""
    meta = index.meta()
    folders = (
        [settings.model_dir, None] if settings.profile in (None, meta.profile) else [None, settings.model_dir]
    )
    for folder in dict.fromkeys(folders):
        profile = get_profile(meta.profile, model_dir=folder)
        noted = meta.revisions.get("text")
        if profile.dims == meta.dims and (noted is None or profile.weights("text").matches(noted)):
            return profile
    return None
