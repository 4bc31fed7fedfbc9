"""Composed questions on the drawn world: ways to combine their parts, the chosen one through the product."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from random import Random

import numpy as np

from benchmarks.engine import fresh_index, node
from benchmarks.report import Figure, percentile, show
from demo.world.scene import COLOURS, KINDS, PLACES, WEATHERS, Group, Scene, sample
from es_config.documents import ImageDocument, IndexMeta, IndexOptions, unit_rows
from es_config.index import ImageIndex
from es_config.relevance import SAMPLE_SIZE
from models.encoders import Lazy, load_image_encoder, load_text_encoder
from models.profiles import get_profile
from search_app.core.compose import strength
from search_app.core.parts import Part
from search_app.core.query import Query
from search_app.core.searcher import Searcher
from training.pocket.evaluation import pictures_of
from training.pocket.sentences.grammar import say
from training.pocket.sentences.lexicon import LANGUAGES
from training.pocket.sentences.statements import MANY, Mention, Statement, full

SCENES = 2_000
EACH = {
    "text − text: colour": 100,
    "text − text: place or weather": 100,
    "text − text: subject": 50,
    "text − picture": 50,
    "picture, text: other place or weather": 100,
    "picture, text: one more subject": 80,
    "two pictures": 80,
    "weights": 40,
}
"""queries of each kind, 600 in all"""
TOP = 5
SHOWN = tuple(EACH)[4:6]
"""the kinds in which a picture with the facts of both parts must come first"""
SAID = (*tuple(EACH)[:4], "weights")
"""the kinds in which the wanted fact is said, and so not one of many in a picture"""
PLAIN = 300
SAMPLES, WARM_UP = 300, 50


@dataclass(frozen=True)
class Asked:
    """A part: a text, or the number of a scene of `refs` or, in the index, of `scenes`."""

    text: str | None = None
    ref: int | None = None
    scene: int | None = None
    weight: float = 1.0
    wanted: bool = True


@dataclass(frozen=True)
class Composed:
    """A composed query, with the scenes of the index that are wanted and those that are not."""

    kind: str
    parts: tuple[Asked, ...]
    wanted: np.ndarray
    """bool `[scenes]`"""
    unwanted: np.ndarray | None = None
    both: np.ndarray | None = None
    """the scenes with the facts of all parts"""
    whole: Statement | None = None
    """what the parts mean together, for one text as a yardstick"""


@dataclass
class World:
    """The scenes of the index, those that are shown as pictures, and the queries."""

    scenes: list[Scene]
    refs: list[Scene] = field(default_factory=list)
    queries: list[Composed] = field(default_factory=list)

    def holding(self, statement: Statement) -> np.ndarray:
        """Return which scenes of the index a statement is true of."""
        return np.array([statement.holds(scene) for scene in self.scenes])

    def with_subject(self, group: Group) -> np.ndarray:
        """Return which scenes have subjects of the kind and colour of a group."""
        return self.holding(Statement(mentions=(Mention(group.kind, group.colour, None),)))

    def shown(self, scene: Scene) -> Asked:
        """Return a part that shows a scene which is not in the index."""
        self.refs.append(scene)
        return Asked(ref=len(self.refs) - 1)


def drawn_world() -> World:
    """Return 2 000 unseen scenes with 600 composed queries about them, the same on every machine."""
    world = World(sample("test", SCENES))
    rng = Random("compose")
    makers = {"text − text": _without_text, "text − pi": _without_picture, "picture": _changed_scene}
    makers |= {"two": _two_pictures, "weights": _weighted}
    for kind, count in EACH.items():
        make = next(each for start, each in makers.items() if kind.startswith(start))
        made = 0
        while made < count:
            if query := make(world, kind, rng):
                world.queries.append(query)
                made += 1
    return world


def _said(statement: Statement, rng: Random, **more: object) -> Asked:
    return Asked(text=say(statement, rng.choice(LANGUAGES), rng), **more)  # type: ignore[arg-type]


def _setting(rng: Random) -> Statement:
    if rng.random() < 0.5:
        return Statement(place=rng.choice(PLACES))
    return Statement(weather=rng.choice(WEATHERS))


def _can_be_told_apart(wanted: np.ndarray, unwanted: np.ndarray) -> bool:
    return (wanted & ~unwanted).sum() >= TOP and (wanted & unwanted).sum() >= 3


def _without_text(world: World, kind: str, rng: Random) -> Composed | None:
    subject = Mention(rng.choice(KINDS), None, rng.choice((None, MANY, 1)))
    if kind.endswith("colour"):
        said = Statement(mentions=(subject,))
        not_wanted = Statement(mentions=(replace(subject, colour=rng.choice(COLOURS), count=None),))
    elif kind.endswith("subject"):
        said, not_wanted = _setting(rng), Statement(mentions=(replace(subject, count=None),))
    else:
        colour = rng.choice((None, rng.choice(COLOURS)))
        said = Statement(mentions=(replace(subject, colour=colour, count=None),))
        not_wanted = _setting(rng)
    wanted, unwanted = world.holding(said), world.holding(not_wanted)
    if not _can_be_told_apart(wanted, unwanted):
        return None
    return Composed(kind, (_said(said, rng), _said(not_wanted, rng, wanted=False)), wanted, unwanted)


def _without_picture(world: World, kind: str, rng: Random) -> Composed | None:
    number = rng.randrange(SCENES)
    scene = world.scenes[number]
    if len(scene.groups) > 1:
        return None
    said = Statement(mentions=(Mention(scene.groups[0].kind, None, None),))
    wanted, unwanted = world.holding(said), world.with_subject(scene.groups[0])
    if not _can_be_told_apart(wanted, unwanted):
        return None
    return Composed(kind, (_said(said, rng), Asked(scene=number, wanted=False)), wanted, unwanted)


def _changed_scene(world: World, kind: str, rng: Random) -> Composed | None:
    """Show a scene that differs from one of the index in one fact, and say that fact."""
    target = rng.choice(world.scenes)
    others = list(_with_another_setting(target, rng) if kind.endswith("weather") else _parted(target, rng))
    unseen = [(scene, fact) for scene, fact in others if scene.split == "test"]
    if not unseen:
        return None
    scene, fact = rng.choice(unseen)
    both = world.holding(fact)
    for group in scene.groups:
        both &= world.with_subject(group)
    shown = tuple(Mention(group.kind, group.colour, group.count) for group in scene.groups)
    whole = replace(fact, mentions=(*shown, *fact.mentions))
    parts = (world.shown(scene), _said(fact, rng))
    return Composed(kind, parts, world.holding(fact), both=both, whole=whole)


def _with_another_setting(target: Scene, rng: Random) -> Iterator[tuple[Scene, Statement]]:
    for place in PLACES:
        if place != target.place:
            yield replace(target, place=place, seed=rng.randrange(2**31)), Statement(place=target.place)
    for weather in WEATHERS:
        if weather != target.weather:
            other = replace(target, weather=weather, seed=rng.randrange(2**31))
            yield other, Statement(weather=target.weather)


def _parted(target: Scene, rng: Random) -> Iterator[tuple[Scene, Statement]]:
    if len(target.groups) == 2:
        for kept, group in (target.groups, target.groups[::-1]):
            alone = replace(target, groups=(kept,), relation=None, seed=rng.randrange(2**31))
            yield alone, Statement(mentions=(Mention(group.kind, group.colour, group.count),))


def _two_pictures(world: World, kind: str, rng: Random) -> Composed | None:
    """Show two scenes with one fact in common: the place, or the kind of their only subject."""
    numbers = rng.sample(range(SCENES), 2)
    first, second = (world.scenes[number] for number in numbers)
    if len(first.groups) + len(second.groups) > 2 or first.weather == second.weather:
        return None
    same_kind = first.groups[0].kind == second.groups[0].kind
    if same_kind == (first.place == second.place):
        return None
    mention = Mention(first.groups[0].kind, None, None)
    common = Statement(mentions=(mention,)) if same_kind else Statement(place=first.place)
    parts = tuple(Asked(scene=number) for number in numbers)
    return Composed(kind, parts, world.holding(common), whole=common)


def _weighted(world: World, kind: str, rng: Random) -> Composed | None:
    """Say a place four times as heavily as a picture of another one is shown."""
    number = rng.randrange(SCENES)
    said = Statement(place=rng.choice([each for each in PLACES if each != world.scenes[number].place]))
    parts = (Asked(scene=number, weight=0.5), _said(said, rng, weight=2.0))
    return Composed(kind, parts, world.holding(said))


Method = Callable[[Composed], np.ndarray]


class Vectors:
    """Vectors of everything, and the ways to combine them: each gives scores `[scenes]`."""

    def __init__(self, images: np.ndarray, refs: np.ndarray, texts: dict[str, np.ndarray]) -> None:
        self.images, self.refs, self.texts = unit_rows(images), unit_rows(refs), texts
        self.sample = self.images[Random(1).sample(range(len(images)), SAMPLE_SIZE)]
        self.middle_of_images = self.images.mean(axis=0)
        self.middle_of_texts = np.stack(list(texts.values())).mean(axis=0)

    def of(self, part: Asked) -> np.ndarray:
        """Return the vector of a part, float32 `[dims]`."""
        if part.text is not None:
            return self.texts[part.text]
        return self.refs[part.ref] if part.ref is not None else self.images[part.scene]

    def strength(self, part: Asked) -> float:
        """Return the weight of a part, below 0 where it is not wanted."""
        return strength(part.weight, is_text=part.text is not None, wanted=part.wanted)

    def wanted_alone(self, query: Composed) -> np.ndarray:
        """Add the wanted parts alone, for comparison."""
        return sum(self.images @ self.of(part) * part.weight for part in query.parts if part.wanted)

    def first_alone(self, query: Composed) -> np.ndarray:
        """Ask with the first part alone, for comparison."""
        return self.images @ self.of(query.parts[0])

    def last_alone(self, query: Composed) -> np.ndarray:
        """Ask with the last part alone, for comparison."""
        return self.images @ self.of(query.parts[-1])

    def summed(self, query: Composed) -> np.ndarray:
        """Add vectors as they are. Several `knn` sections, whose scores are added, order the same way."""
        return sum(self.images @ self.of(part) * self.strength(part) for part in query.parts)

    def without_gap(self, query: Composed) -> np.ndarray:
        """Add unit vectors from the middle of all texts, or of all pictures."""
        whole = np.zeros(self.images.shape[1], np.float32)
        for part in query.parts:
            middle = self.middle_of_texts if part.text is not None else self.middle_of_images
            moved = self.of(part) - middle
            whole += moved / np.linalg.norm(moved) * self.strength(part)
        return self.images @ whole

    def standardised(self, query: Composed) -> np.ndarray:
        """Add vectors divided by the deviation of their scores on a sample, as the product does."""
        return sum(
            self.images @ self.of(part) / (self.sample @ self.of(part)).std() * self.strength(part)
            for part in query.parts
        )

    def reranked(self, query: Composed) -> np.ndarray:
        """Take the 100 nearest of each wanted part, and order them by the worst of their scores."""
        scores = np.full(len(self.images), np.inf)
        candidates = np.zeros(len(self.images), bool)
        for part in query.parts:
            own = self.images @ self.of(part)
            base = self.sample @ self.of(part)
            standard = (own - base.mean()) / base.std() * part.weight
            if part.wanted:
                candidates[np.argsort(-own)[:100]] = True
                scores = np.minimum(scores, standard)
            else:
                scores = scores - np.maximum(standard, 0) * abs(self.strength(part))
        return np.where(candidates, scores, -np.inf)

    def ranks(self, query: Composed) -> np.ndarray:
        """Fuse the rankings of the parts, as several searches would be."""
        total = np.zeros(len(self.images))
        for part in query.parts:
            order = np.argsort(np.argsort(-(self.images @ self.of(part))))
            total += self.strength(part) / (60 + order)
        return total


@dataclass(frozen=True)
class Tally:
    """Shares over queries, 0 to 1."""

    unwanted: float
    wanted: float
    both_first: dict[str, float]
    by_kind: dict[str, tuple[float, float]]


def tally(queries: Sequence[Composed], rankings: Sequence[Sequence[int]]) -> Tally:
    """Return the shares of unwanted and of wanted scenes in the first five, and how often both come first."""
    unwanted, wanted = defaultdict(list), defaultdict(list)
    both: dict[str, list[bool]] = defaultdict(list)
    for query, ranking in zip(queries, rankings, strict=True):
        top = list(ranking[:TOP])
        wanted[query.kind].append(float(query.wanted[top].mean()) if top else 0.0)
        if query.unwanted is not None:
            unwanted[query.kind].append(float(query.unwanted[top].mean()))
        if query.both is not None:
            both[query.kind].append(bool(query.both[top[0]]))
    kinds = {kind: (float(np.mean(wanted[kind])), float(np.mean(unwanted[kind] or [0.0]))) for kind in wanted}
    flat = [value for kind in SAID for value in wanted.get(kind, ())]
    return Tally(
        unwanted=float(np.mean([value for values in unwanted.values() for value in values])),
        wanted=float(np.mean(flat)),
        both_first={kind: float(np.mean(values)) for kind, values in both.items()},
        by_kind=kinds,
    )


def main() -> bool:
    """Compare the ways to combine parts, then measure the product, and return whether targets are met."""
    world = drawn_world()
    profile = get_profile("pocket")
    images, texts = load_image_encoder(profile), load_text_encoder(profile)
    said = list(dict.fromkeys(part.text for query in world.queries for part in query.parts if part.text))
    vectors = Vectors(
        _embedded(images, world.scenes),
        _embedded(images, world.refs),
        dict(zip(said, texts.embed_texts(said), strict=True)),
    )
    ways = {
        "the first part alone": vectors.first_alone,
        "wanted parts alone": vectors.wanted_alone,
        "sum, or several knn sections": vectors.summed,
        "sum without the gap": vectors.without_gap,
        "sum by deviation (the product)": vectors.standardised,
        "reranked candidates": vectors.reranked,
        "fused ranks": vectors.ranks,
    }
    for name, way in ways.items():
        rankings = [_best(way(query), query) for query in world.queries]
        show(f"{len(rankings)} composed queries by numpy: {name}", _figures(tally(world.queries, rankings)))
    for kind, figures in _yardsticks(world, vectors, texts).items():
        show(f"yardsticks by numpy: {kind}", figures)
    with node() as (client, _), fresh_index(client) as index:
        _fill(index, vectors.images, profile)
        searcher = Searcher(
            index=index, profile=profile, text_encoder=Lazy(lambda: texts), image_encoder=Lazy(lambda: images)
        )
        asked = [_query(query, vectors) for query in world.queries]
        rankings = [[int(hit.image_id, 16) for hit in searcher.search(each).hits] for each in asked]
        met = show(
            f"{len(asked)} composed queries through Elasticsearch",
            _figures(tally(world.queries, rankings), judged=True),
        )
        return met & show("latency and plain queries", _plain(searcher, asked, world))


def _best(scores: np.ndarray, query: Composed) -> list[int]:
    own = {part.scene for part in query.parts if part.scene is not None}
    return [int(place) for place in np.argsort(-scores, kind="stable")[: TOP + len(own)] if place not in own]


def _yardsticks(world: World, vectors: Vectors, texts) -> dict[str, list[Figure]]:
    """Ask with one text for all parts, and with the last part alone."""
    found = {}
    for kind in (SHOWN[1], "two pictures"):
        queries = [query for query in world.queries if query.kind == kind]
        rng = Random(f"compose/yardstick/{kind}")
        said = texts.embed_texts([say(query.whole, rng.choice(LANGUAGES), rng) for query in queries])
        one_text = [_best(vectors.images @ row, query) for row, query in zip(said, queries, strict=True)]
        alone = [_best(vectors.last_alone(query), query) for query in queries]
        there = [min(int(query.wanted.sum()), TOP) / TOP for query in queries]
        found[kind] = [
            Figure("as many wanted ones as there are", float(np.mean(there))),
            Figure("the last part alone: wanted", _wanted(queries, alone)),
            Figure("one text that says all: wanted", _wanted(queries, one_text)),
        ]
        if queries[0].both is not None:
            first = [query.both[top[0]] for query, top in zip(queries, one_text, strict=True)]
            found[kind].append(Figure("one text that says all: first has both", float(np.mean(first))))
    return found


def _wanted(queries: Sequence[Composed], rankings: Sequence[Sequence[int]]) -> float:
    return float(
        np.mean([query.wanted[list(top)].mean() for query, top in zip(queries, rankings, strict=True)])
    )


def _figures(found: Tally, *, judged: bool = False) -> list[Figure]:
    shown = [found.both_first[kind] for kind in SHOWN]
    figures = [
        Figure("not wanted in the first 5", found.unwanted, "", "≤ 0.02" if judged else ""),
        Figure("wanted and said, in the first 5", found.wanted, "", "≥ 0.95" if judged else ""),
        Figure("text + picture: both facts first", float(np.mean(shown)), "", "≥ 0.9" if judged else ""),
    ]
    figures += [Figure(f"first has both: {kind}", value) for kind, value in found.both_first.items()]
    for kind, (wanted, unwanted) in found.by_kind.items():
        figures += [Figure(f"{kind}: wanted", wanted)]
        figures += [Figure(f"{kind}: not wanted", unwanted)] if "−" in kind else []
    return figures


def _embedded(encoder, scenes: Sequence[Scene]) -> np.ndarray:
    blocks = [pictures_of(scenes[start : start + 100]) for start in range(0, len(scenes), 100)]
    return np.concatenate([encoder.embed_images(block) for block in blocks])


def _query(query: Composed, vectors: Vectors) -> Query:
    parts = []
    for part in query.parts:
        if part.text is not None:
            subject = {"text": part.text}
        elif part.scene is not None:
            subject = {"like": _id(part.scene)}
        else:
            subject = {"vector": tuple(vectors.of(part).tolist())}
        parts.append(Part(**subject, weight=part.weight, wanted=part.wanted))
    return Query(parts=tuple(parts), k=TOP)


def _plain(searcher: Searcher, composed: Sequence[Query], world: World) -> list[Figure]:
    """Ask whole captions, for recall, and time plain and composed queries in turn."""
    rng = Random("compose/plain")
    found = []
    texts = [say(full(scene), rng.choice(LANGUAGES), rng) for scene in world.scenes[:PLAIN]]
    for number, text in enumerate(texts):
        by_text = searcher.search(Query(text=text, k=1)).hits[0].image_id
        by_part = searcher.search(Query(parts=(Part(text=text, weight=2.0),), k=1)).hits[0].image_id
        assert by_text == by_part
        found.append(by_text == _id(number))
    took: dict[str, list[float]] = defaultdict(list)
    for n in range(WARM_UP + SAMPLES):
        asked = {"plain": Query(text=texts[n % PLAIN], k=TOP), "composed": composed[n * 7 % len(composed)]}
        for name, query in asked.items():
            begun = time.perf_counter()
            searcher.search(query)
            if n >= WARM_UP:
                took[name].append(1000 * (time.perf_counter() - begun))
    p50 = {name: percentile(samples, 50) for name, samples in took.items()}
    return [
        Figure("plain queries, R@1", float(np.mean(found))),
        Figure("plain, its text embedded before, p50", p50["plain"], "ms"),
        Figure("composed, likewise, p50", p50["composed"], "ms"),
        Figure("composed ÷ plain, p50", p50["composed"] / p50["plain"], "", "≤ 1.5"),
    ]


def _fill(index: ImageIndex, vectors: np.ndarray, profile) -> None:
    meta = IndexMeta(profile.name, {}, profile.dims, profile.caption_dims, profile.similarity)
    index.create(meta, IndexOptions())
    result = index.add([_document(number, vector) for number, vector in enumerate(vectors)])
    assert not result.failed, result.failed
    index.refresh()


def _document(number: int, vector: np.ndarray) -> ImageDocument:
    return ImageDocument(
        image_id=_id(number),
        image_name=f"{number}.png",
        relative_path=(f"{number}.png",),
        image_embedding=vector,
        width=256,
        height=256,
        size_bytes=1,
        indexed_at=datetime.now(UTC),
    )


def _id(number: int) -> str:
    return f"{number:064x}"
