"""`glimpse calibrate`: learns from the index's own captions which hits are good, and notes it in `_meta`."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from es_config.commands.options import AS_JSON, FILE, INDEX, MODELS, open_client, say
from es_config.documents import paths_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from elasticsearch import Elasticsearch

    from es_config.index import ImageIndex
    from es_config.relevance import Calibration
    from es_config.scan import Sample
    from evaluation.calibrate import Phrase
    from models.profiles import Profile

CALIBRATED = ("image", "caption")


@click.command()
@click.option(
    "--false-positive-rate", "rate", type=click.FloatRange(0.001, 0.06), default=0.01, show_default=True,
    help="Share of queries that nothing answers which may still get a strong hit.",
)  # fmt: skip
@click.option(
    "--miss-rate", type=click.FloatRange(0.001, 0.5), default=0.05, show_default=True,
    help="Share of answered queries that may be told that nothing good was found.",
)  # fmt: skip
@click.option("--queries", type=FILE, help="Labelled queries to learn from, too: JSONL.")
@click.option(
    "--pictures", type=click.IntRange(50, 100_000), default=20_000, show_default=True,
    help="Pictures to learn from, at most.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Measure, and write nothing.")
@MODELS
@INDEX
@AS_JSON
def calibrate(
    *,
    rate: float,
    miss_rate: float,
    queries: Path | None,
    pictures: int,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Learn from the captions which hits are good ones: strong, weak or none.

    Pieces of captions are asked, once with the pictures that answer them and once without. A hit is then
    judged beside what its own query scores on a sample of the index. Repeat it when the index has grown much.

    \b
    Example:
      glimpse calibrate
      glimpse calibrate --false-positive-rate 0.02 --dry-run
    """
    from es_config.index import ImageIndex
    from models.profiles import get_profile

    profile = get_profile(options["profile"], model_dir=options["model_dir"])
    client = open_client()
    index = ImageIndex(client, alias=options["alias"]).pinned()  # noted is what was measured
    index.check_profile(profile.name, profile.dims, text_revision=profile.text_revision())
    sample = _captioned(client, index, pictures)
    rates = {"rate": rate, "miss_rate": miss_rate}
    found = _calibrations(sample, index, profile, rates=rates, queries=queries)
    if not dry_run:
        index.note("relevance", {mode: each.as_dict() for mode, each in found.items()})
    shown = {mode: each.as_dict() for mode, each in found.items()}
    if as_json:
        click.echo(json.dumps({"written": not dry_run, "modes": shown}, indent=2))
        return
    for mode, each in found.items():
        click.echo("\n".join(_lines(mode, each)))
    say("Nothing was written." if dry_run else f"Noted in {index.name()}.")


def _captioned(client: Elasticsearch, index: ImageIndex, size: int) -> Sample:
    """Return pictures that have both vectors. Raises `EvaluationError` when there are none."""
    from es_config.mapping import MODE_FIELDS
    from es_config.scan import read_sample
    from evaluation.errors import EvaluationError

    fields = [MODE_FIELDS[mode] for mode in CALIBRATED]
    sample = read_sample(client, index.name(), fields=fields, size=size, source=["caption", "relative_path"])
    if not sample.ids:
        raise EvaluationError(
            f"The index '{index.alias}' has no captions to learn from: run `glimpse caption` first."
        )
    total = index.count()
    if total > len(sample.ids):
        click.echo(
            f"Learning from {len(sample.ids)} of {total} pictures: among more pictures more come near by"
            " chance, so expect somewhat more false positives than the rate says.",
            err=True,
        )
    return sample


def _calibrations(
    sample: Sample, index: ImageIndex, profile: Profile, *, rates: Mapping[str, float], queries: Path | None
) -> dict[str, Calibration]:
    from es_config.mapping import MODE_FIELDS
    from es_config.relevance import SAMPLE_SIZE
    from evaluation.calibrate import Side
    from evaluation.calibrate import calibrate as fit_bars
    from models.encoders import load_caption_text_encoder, load_text_encoder

    texts = load_text_encoder(profile)
    captions = texts if profile.caption_shares_space else load_caption_text_encoder(profile)
    embed = {"image": texts.embed_texts, "caption": captions.embed_texts}
    sides = {mode: Side(sample.vectors[MODE_FIELDS[mode]], embed[mode]) for mode in CALIBRATED}
    said = [source.get("caption") or "" for source in sample.sources]
    asked = _labelled(queries, sample, said) if queries else []
    found = {}
    for mode, other in (CALIBRATED, CALIBRATED[::-1]):
        click.echo(f"{mode}: asking pieces of {len(said)} captions", err=True)
        bars = fit_bars(
            said,
            sides[mode],
            sides[other],
            similarity=index.meta().similarity,
            **rates,
            sample=min(SAMPLE_SIZE, len(said)),
            more=asked,
        )
        now = datetime.now(UTC).isoformat(timespec="seconds")
        found[mode] = replace(bars, figures={**bars.figures, "measured_at": now})
    return found


def _labelled(path: Path, sample: Sample, captions: list[str]) -> list[Phrase]:
    """Return labelled queries as phrases about their rarest thing. The pictures must be in the sample."""
    from evaluation.calibrate import about, read_vocabulary
    from evaluation.labels import find_answers, picture_finder, read_labels

    rows = {image_id: row for row, image_id in enumerate(sample.ids)}
    places = [
        (image_id, paths_of(source)) for image_id, source in zip(sample.ids, sample.sources, strict=True)
    ]
    find = picture_finder(known=lambda ids: filter(rows.__contains__, ids), by_name=lambda _: places)
    answers = find_answers([query for query in read_labels(path).queries if query.text], find=find)
    vocabulary = read_vocabulary(captions)
    made = (
        about(query.text or "", rows[answers.relevant[query.key][0]], vocabulary) for query in answers.queries
    )
    return [phrase for phrase in made if phrase]


def _lines(mode: str, bars: Calibration) -> list[str]:
    figures: Mapping[str, Any] = bars.figures
    rows = [
        f"  {kind:<10} queries: {figures[kind]['strong']:.1%} get a strong hit,"
        f" {figures[kind]['weak']:.1%} a weak or strong one"
        for kind in ("answered", "unanswered")
    ]
    return [
        f"{mode}: {figures['queries']} queries over {figures['pictures']} pictures",
        *rows,
        f"  area under the ROC curve {figures['area']:.3f}; of one cut-off for all queries"
        f" {figures['area_of_a_global_cut_off']:.3f}",
    ]
