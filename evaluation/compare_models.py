"""Compare models: one sample of pictures and queries, embedded by each profile into an index of its own."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from es_config.documents import IndexOptions
from es_config.index import ImageIndex
from es_config.vector_field import TemporaryIndex, temporary_index
from evaluation.errors import EvaluationError
from evaluation.evaluate import ALPHA, Difference, Estimate, difference, estimate, query_metrics, table
from evaluation.labels import Find, LabelledQuery, Labels, find_answers, index_finder, picture_finder
from models.encoders import ImageEncoder, TextEncoder, load_image_encoder, load_text_encoder
from models.profiles import PROFILES, Profile, get_profile
from storage.keys import thumbnail_key
from storage.store import Storage

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

BATCH = 32
CANDIDATES = 200
FEWEST_PICTURES = 2
FORMATS = (".png", ".svg", ".pdf")
COLOUR = "#2f6f8f"


@dataclass(frozen=True)
class Picture:
    """One picture of the sample, decoded only when a model looks at it."""

    image_id: str
    open: Callable[[], Image.Image]
    captions: tuple[str, ...] = ()


@dataclass(frozen=True)
class ComparisonData:
    """The pictures and queries that every model gets."""

    pictures: Sequence[Picture]
    questions: Sequence[LabelledQuery]
    """each with the ids of the pictures that answer it"""
    asked: str
    """where the queries came from"""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelScores:
    """The scores of one profile."""

    name: str
    dims: int
    metrics: dict[str, Estimate]
    images_per_second: float
    """preprocessing and embedding; reading and decoding the files apart"""
    query_ms: float
    """median: embedding the text, and the kNN search"""
    index_bytes: int
    per_query: dict[str, np.ndarray]
    """float64 `[queries]` by metric"""


@dataclass(frozen=True)
class ModelComparison:
    """All results, best nDCG first, with their distance from the first, and advice."""

    results: tuple[ModelScores, ...]
    against_best: dict[str, Difference]
    """by name: that profile minus the best, in nDCG"""
    pictures: int
    queries: int
    asked: str
    """where the queries came from"""
    k: int

    @property
    def recommendation(self) -> str:
        """Which profile to take, and why, in one sentence."""
        best = self.results[0]
        alike = [each for each in self.results[1:] if self.against_best[each.name].p_value >= ALPHA]
        if len(self.results) == 1:
            return f"{best.name} was measured alone: name two profiles or more for a choice."
        fastest = max([best, *alike], key=lambda each: each.images_per_second)
        if fastest is not best:
            times = fastest.images_per_second / best.images_per_second
            p_value = self.against_best[fastest.name].p_value
            return (
                f"Take {fastest.name}: chance alone could explain why {best.name} finds more"
                f" (p = {p_value:.4f}), and it embeds {times:.1f} times as many pictures a second."
            )
        if alike:
            names = ", ".join(each.name for each in alike)
            return f"Take {best.name}: it finds at least as much as {names}, and none of these is faster."
        quality = best.metrics[f"ndcg@{self.k}"].mean
        worst = max(self.against_best[each.name].p_value for each in self.results[1:])
        return (
            f"Take {best.name}: its nDCG@{self.k} of {quality:.3f} is the best, beyond chance"
            f" (p ≤ {worst:.4f})."
        )

    def to_json(self) -> dict[str, Any]:
        """Return the JSON of `glimpse evaluate --profiles … --json`."""
        rows = [
            {name: value for name, value in vars(each).items() if name != "per_query"}
            | {"metrics": {name: asdict(value) for name, value in each.metrics.items()}}
            for each in self.results
        ]
        return {
            "profiles": rows,
            "against_best": {name: asdict(value) for name, value in self.against_best.items()},
            "pictures": self.pictures,
            "queries": self.queries,
            "asked": self.asked,
            "recommendation": self.recommendation,
        }

    def lines(self) -> Iterator[str]:
        """Give a row for each profile, and the recommendation."""
        yield f"{self.pictures} pictures, {self.queries} queries ({self.asked})"
        header = ("profile", *self.results[0].metrics, "p", "pictures/s", "ms/query", "MB", "dims")
        rows = [
            (
                each.name,
                *map(str, each.metrics.values()),
                f"{self.against_best[each.name].p_value:.4f}" if each.name in self.against_best else "",
                f"{each.images_per_second:.1f}",
                f"{each.query_ms:.1f}",
                f"{each.index_bytes / 1e6:.2f}",
                str(each.dims),
            )
            for each in self.results
        ]
        yield from table(header, rows)
        yield self.recommendation


def named_profiles(text: str) -> dict[str, Profile]:
    """Return the rows of `clip,mine=FOLDER`. A folder is loaded as the row of its name, else as `pocket`."""
    rows: dict[str, Profile] = {}
    for part in (part.strip() for part in text.split(",")):
        name, _, folder = part.partition("=")
        if name in rows or not name:
            raise EvaluationError(
                f"'{text}' must name different profiles: give each name=FOLDER its own name."
            )
        row = name if name in PROFILES or not folder else "pocket"
        rows[name] = get_profile(row, model_dir=Path(folder).expanduser() if folder else None)
    return rows


@dataclass(frozen=True)
class PictureSource:
    """Pictures to choose from."""

    take: Callable[[int, Sequence[str]], list[Picture]]
    """gives at most so many pictures: those with the wanted ids first, then others in the order of ids"""
    find: Find


@dataclass(frozen=True)
class FolderFile:
    """A file below a folder."""

    image_id: str
    relative_path: str
    load: Callable[[], Picture | None]
    """decodes the file; None when it is no picture"""


def folder_source(files: Iterable[FolderFile]) -> PictureSource:
    """Return the pictures of a folder. Of files with the same content, the first is taken."""
    by_id: dict[str, list[FolderFile]] = {}
    for file in files:
        by_id.setdefault(file.image_id, []).append(file)

    def take(size: int, wanted: Sequence[str]) -> list[Picture]:
        chosen = dict.fromkeys([*(each for each in wanted if each in by_id), *sorted(by_id)])
        pictures = (by_id[image_id][0].load() for image_id in chosen)
        return list(islice(filter(None, pictures), size))

    places = [(image_id, [file.relative_path for file in same]) for image_id, same in by_id.items()]
    known = partial(filter, by_id.__contains__)
    return PictureSource(take, picture_finder(known=known, by_name=lambda _: places))


def index_source(index: ImageIndex, store: Storage) -> PictureSource:
    """Return the pictures of an index, as their thumbnails show them. Raises `EngineError`."""
    index.meta()  # says in one sentence what is wrong with the index
    return PictureSource(partial(_thumbnails, index, store), index_finder(index))


def _thumbnails(index: ImageIndex, store: Storage, size: int, wanted: Sequence[str]) -> list[Picture]:
    def open_thumbnail(image_id: str) -> Image.Image:
        return Image.open(io.BytesIO(store.get(thumbnail_key(image_id)))).convert("RGB")

    captions: dict[str, str | None] = dict.fromkeys(wanted[:size])
    everything = {"query": {"match_all": {}}, "sort": [{"image_id": "asc"}], "_source": ["caption"]}
    for hit in index.search({**everything, "size": size}).hits:
        if len(captions) < size or hit.image_id in captions:
            captions[hit.image_id] = hit.source.get("caption")
    kept = {each: said for each, said in captions.items() if store.exists(thumbnail_key(each))}
    if captions and not kept:
        raise EvaluationError("The store has no thumbnails of this index: check --store, or give --folder.")
    return [
        Picture(each, partial(open_thumbnail, each), (said,) if said else ()) for each, said in kept.items()
    ]


def choose_data(source: PictureSource, *, size: int, labels: Labels | None) -> ComparisonData:
    """Take pictures and queries: labelled ones with the pictures that answer them, else captions.

    Raises `EvaluationError` when the source answers no labelled query.
    """
    if labels is None:
        pictures = source.take(size, ())
        return ComparisonData(pictures, caption_questions(pictures), "the pictures' captions")
    answers = find_answers([query for query in labels.queries if query.text], find=source.find)
    wanted = dict.fromkeys(each for ids in answers.relevant.values() for each in ids)
    pictures = source.take(size, tuple(wanted))
    held = {picture.image_id for picture in pictures}
    asked = [
        replace(query, relevant=tuple(each for each in answers.relevant[query.key] if each in held))
        for query in answers.queries
    ]
    warnings = (*labels.warnings, *answers.warnings)
    return ComparisonData(pictures, [each for each in asked if each.relevant], "labelled queries", warnings)


def caption_questions(pictures: Sequence[Picture]) -> list[LabelledQuery]:
    """Ask for every picture by its captions. Pictures with the same caption answer it together."""
    answers: dict[str, list[str]] = {}
    for picture in pictures:
        for caption in picture.captions:
            answers.setdefault(caption, []).append(picture.image_id)
    return [LabelledQuery(text, text, tuple(ids)) for text, ids in answers.items()]


def compare_models(
    client: Elasticsearch,
    profiles: Mapping[str, Profile],
    data: ComparisonData,
    *,
    k: int,
    say: Callable[[str], None],
) -> ModelComparison:
    """Measure each profile on the same pictures and queries, one after the other, in a temporary index.

    Raises `EvaluationError` when there is nothing to ask or to find, `ModelError` and `EngineError`.
    """
    if len(data.pictures) < FEWEST_PICTURES:
        raise EvaluationError(
            f"The sample has {len(data.pictures)} pictures: index a folder first, or name one with --folder."
        )
    if not data.questions:
        raise EvaluationError(
            "There is nothing to ask: give labelled --queries, or write captions with `glimpse caption`."
        )
    results = [_measure(client, name, row, data, k=k, say=say) for name, row in profiles.items()]
    metric = f"ndcg@{k}"
    results.sort(key=lambda each: -each.metrics[metric].mean)
    best = results[0].per_query[metric]
    against = {each.name: difference(best, each.per_query[metric]) for each in results[1:]}
    return ModelComparison(tuple(results), against, len(data.pictures), len(data.questions), data.asked, k)


def _measure(
    client: Elasticsearch,
    name: str,
    profile: Profile,
    data: ComparisonData,
    *,
    k: int,
    say: Callable[[str], None],
) -> ModelScores:
    say(f"{name}: loading the models")
    images, texts = load_image_encoder(profile), load_text_encoder(profile)
    say(f"{name}: embedding {len(data.pictures)} pictures")
    vectors, seconds = _embed(images, data.pictures)
    dims, graph = profile.dims, IndexOptions().graph
    with temporary_index(
        client, label=name, dims=dims, similarity=profile.similarity, index_options=graph
    ) as index:
        index.add([picture.image_id for picture in data.pictures], vectors)
        say(f"{name}: asking {len(data.questions)} queries")
        ranked, milliseconds = _ask(texts, index, data.questions, k=k)
        size = index.size_bytes()
    relevant = {str(row): question.relevant for row, question in enumerate(data.questions)}
    values = query_metrics(relevant, ranked, k=k)
    means = {metric: estimate(value) for metric, value in values.items()}
    speed = round(len(data.pictures) / seconds, 1)
    return ModelScores(name, dims, means, speed, round(milliseconds, 2), size, values)


def _embed(images: ImageEncoder, pictures: Sequence[Picture]) -> tuple[np.ndarray, float]:
    """Return the vectors `[n, dims]` and the seconds that embedding took after one batch to warm up."""
    rows, seconds = [], 0.0
    images.embed_images([pictures[0].open()])
    for start in range(0, len(pictures), BATCH):
        opened = [picture.open() for picture in pictures[start : start + BATCH]]
        started = time.perf_counter()
        rows.append(images.embed_images(opened))
        seconds += time.perf_counter() - started
    return np.concatenate(rows), seconds


def _ask(
    texts: TextEncoder, index: TemporaryIndex, questions: Sequence[LabelledQuery], *, k: int
) -> tuple[dict[str, list[str]], float]:
    """Return the ids by the question's number, and the median milliseconds of one question."""
    ranked: dict[str, list[str]] = {}
    took: list[float] = []
    texts.embed_texts([questions[0].text or ""])  # warms up
    for row, question in enumerate(questions):
        started = time.perf_counter()
        vector = texts.embed_texts([question.text or ""])[0]
        ranked[str(row)] = index.nearest(vector, k=k, num_candidates=max(k, CANDIDATES))
        took.append(1000 * (time.perf_counter() - started))
    return ranked, median(took)


def check_format(path: Path) -> None:
    """Raise `EvaluationError` for a file that no plot can be written to, before anything is measured."""
    if path.suffix.lower() not in FORMATS:
        raise EvaluationError(f"A plot can be {', '.join(FORMATS)}, and '{path.name}' is none of them.")
    if not path.absolute().parent.is_dir():
        raise EvaluationError(f"There is no folder {path.absolute().parent} for the plot: make it first.")


def plot_comparison(comparison: ModelComparison, path: Path) -> None:
    """Draw four bar charts in one row, one for each thing that was measured. Raises `EvaluationError`."""
    from matplotlib.figure import Figure

    results = comparison.results[::-1]  # matplotlib draws the first at the bottom
    names = [each.name for each in results]
    quality = [each.metrics[f"ndcg@{comparison.k}"] for each in results]
    charts = {
        f"nDCG@{comparison.k}": [each.mean for each in quality],
        "pictures embedded a second": [each.images_per_second for each in results],
        "milliseconds a query": [each.query_ms for each in results],
        "MB of index": [each.index_bytes / 1e6 for each in results],
    }
    figure = Figure(figsize=(13, 1.6 + 0.45 * len(names)), layout="constrained")
    axes = figure.subplots(1, len(charts), sharey=True)
    for axis, (title, values) in zip(axes, charts.items(), strict=True):
        bars = axis.barh(names, values, color=COLOUR)
        axis.bar_label(bars, fmt="{:.3g}", padding=4)
        axis.set_title(title, fontsize=10)
        axis.set_xlim(0, 1.25 * max(values) or 1)
        axis.spines[["top", "right"]].set_visible(False)
    low_high = [[each.mean - each.low for each in quality], [each.high - each.mean for each in quality]]
    axes[0].errorbar(
        [each.mean for each in quality], names, xerr=low_high, fmt="none", ecolor="black", capsize=3
    )
    figure.suptitle(
        f"{comparison.pictures} pictures, {comparison.queries} queries ({comparison.asked})", fontsize=10
    )
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise EvaluationError(f"The plot cannot be written to {path} ({error.strerror}).") from error
