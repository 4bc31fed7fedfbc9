"""Hybrid search: pictures and captions are asked in one request, and their rankings fused into one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum

from es_config.documents import Hit, SearchResult
from es_config.requests import IN_PICTURE, MAX_CANDIDATES, MEANINGLESS, NAMES
from search_app.core.query import SearchHit, doubled, search_hit

VECTOR_PARTS = {"visual": "image", "meaning": "caption"}
"""the parts of a hybrid search that are kNN searches, and the mode that each is"""
WORDS, WRITTEN, WHOLE = "words", "written", "whole"
"""the words of captions; what is written in pictures and what they are called; the same with every word"""
EVEN = {"visual": 1.0, "meaning": 1.0, WORDS: 0.5, WRITTEN: 2.5, WHOLE: 5.0}
"""pictures and captions have a vote each; the words of a caption repeat a part of its meaning; a picture in
which the words are written outweighs all three, as few are, and whoever types them means them; one in which
every word is outweighs all others"""
POCKET = {"visual": 1.0, "meaning": 0.05, WORDS: 0.2, WRITTEN: 1.5, WHOLE: 3.0}
"""its towers read short queries better from pictures (nDCG@10 0.94) than from captions (0.78)"""
WEIGHTS = {"pocket": POCKET}
"""by profile, since the worth of a part depends on the models (`python -m benchmarks hybrid`); else `EVEN`"""
NEARLY = 0.7
"""share of the best score from which on every word of a query counts as found as it is"""
WINDOW = 100
RANK_CONSTANT = 60
"""the k of Cormack, Clarke and Büttcher (2009): the larger, the less the first places differ"""


@dataclass(frozen=True)
class Fused:
    """One picture of the fused ranking."""

    image_id: str
    score: float
    """the sum of weight / (RANK_CONSTANT + rank) over the rankings that hold it"""
    ranks: dict[str, int]
    """its rank, from 1, by the name of each ranking that holds it"""


def fuse(
    rankings: Mapping[str, Sequence[str]],
    *,
    weights: Mapping[str, float],
    scores: Mapping[str, Mapping[str, float]] | None = None,
) -> list[Fused]:
    """Fuse rankings (image ids, best first, by name) by reciprocal rank into one, best first.

    Pictures of equal score are ordered by their best rank, and then by id, so that the same rankings always
    give the same order. A ranking that is empty changes nothing. In one whose `scores` are given, by image
    id, pictures of equal score share a rank: all in a folder that was named are named equally.
    """
    ranks: dict[str, dict[str, int]] = {}
    for name, image_ids in rankings.items():
        score = (scores or {}).get(name)
        first: dict[float, int] = {}
        for rank, image_id in enumerate(image_ids, 1):
            shared = first.setdefault(score[image_id], rank) if score else rank
            ranks.setdefault(image_id, {}).setdefault(name, shared)
    fused = [Fused(image_id, _score(places, weights), places) for image_id, places in ranks.items()]
    return sorted(fused, key=lambda each: (-each.score, min(each.ranks.values()), each.image_id))


def _score(ranks: Mapping[str, int], weights: Mapping[str, float]) -> float:
    # fsum rounds once, so that equal sums are equal in whatever order their parts come.
    return fsum(weights[name] / (RANK_CONSTANT + rank) for name, rank in ranks.items())


def window(depth: int) -> int:
    """Return how many hits each part is asked for: 100, 200, 400, … and at least `depth`, at most 10 000.

    Pages within one step are cut from one and the same fused list.
    """
    return min(doubled(WINDOW, depth), MAX_CANDIDATES)


def fuse_results(
    results: Mapping[str, SearchResult], *, weights: Mapping[str, float], words: Sequence[str] = ()
) -> list[SearchHit]:
    """Return the pictures of all parts, best first, each with its reason, `words` in their order.

    The score is that of the fusion. The similarity is the picture's cosine, None when the picture is not
    among its nearest.
    """
    found: dict[str, dict[str, Hit]] = {
        name: {hit.image_id: hit for hit in result.hits} for name, result in results.items()
    }
    named = {hit.image_id: hit.score for hit in results[WRITTEN].hits} if WRITTEN in results else {}
    whole = _with_every_word(found.get(WRITTEN, {}), words)
    rankings = {name: list(hits) for name, hits in found.items()} | {WHOLE: list(whole)}
    fused = fuse(rankings, weights=weights, scores={WRITTEN: named, WHOLE: whole})
    hits = []
    for each in fused:
        parts = {name: found[name][each.image_id] for name in each.ranks if name != WHOLE}
        matched = {name: parts[name].matched for name in (WORDS, WRITTEN) if name in parts}
        in_caption = [word.casefold() for word in words if word.casefold() in matched.get(WORDS, ())]
        hits.append(
            search_hit(
                next(iter(parts.values())),
                score=round(each.score, 6),
                similarity=parts["visual"].similarity if "visual" in parts else None,
                why=reason(each.ranks, in_caption, named_by(words, matched.get(WRITTEN, ()))),
            )
        )
    return hits


def _with_every_word(hits: Mapping[str, Hit], words: Sequence[str]) -> dict[str, float]:
    """Return the pictures in which every one of `words` is written, or which are named by them.

    Their scores are equal unless a word of one is only nearly the same, or begins another.
    """
    meant = {word.casefold() for word in words}
    needed = (meant - MEANINGLESS) or meant
    scores = {image_id: hit.score for image_id, hit in hits.items() if needed and needed <= set(hit.matched)}
    best = max(scores.values(), default=0.0)
    return {image_id: float(score >= NEARLY * best) for image_id, score in scores.items()}


def reason(ranks: Mapping[str, int], words: Sequence[str], written: Sequence[str] = ()) -> str:
    """Return why a picture was found, such as `visual 2nd; caption meaning 1st; caption words: boat, red`.

    `written` are the reasons of `named_by`, which come first.
    """
    parts = list(written)
    parts += [f"visual {ordinal(ranks['visual'])}"] if "visual" in ranks else []
    parts += [f"caption meaning {ordinal(ranks['meaning'])}"] if "meaning" in ranks else []
    parts += [f"caption words: {', '.join(words)}"] if words else []
    return "; ".join(parts)


def named_by(words: Sequence[str], matched: Sequence[str]) -> list[str]:
    """Return where the words of a query were found, such as `file name: IMG_0060` and `person: Ada`."""
    found = set(matched)
    labels = [IN_PICTURE, *(label for label, _ in NAMES.values())]
    there = {label: [word for word in words if f"{label}: {word.casefold()}" in found] for label in labels}
    there[IN_PICTURE] = [word.casefold() for word in there[IN_PICTURE]]
    return [f"{label}: {', '.join(each)}" for label, each in there.items() if each]


def ordinal(number: int) -> str:
    """Return `1st`, `2nd`, `3rd`, `4th`, … `11th`, …"""
    teen = number % 100 in (11, 12, 13)
    return f"{number}{'th' if teen else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"
