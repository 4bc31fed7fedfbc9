"""What a search says besides its query: the tuned operating point, also for a `k` that was not tuned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from search_app.core.query import MAX_CANDIDATES, default_candidates, doubled


def operating_point(
    points: Mapping[str, Any], *, field: str, k: int, asked: int | None = None
) -> dict[str, Any]:
    """Return `num_candidates`, and `oversample` where rescoring was tuned, for the `k` nearest.

    What was `asked` for is done, without more. Otherwise the point of this `k` is used; else that of the next
    larger one, which finds these neighbours too; else that of the largest one, its candidates doubled as
    often as `k` asks for: pages within one doubling are cut from one and the same list.
    """
    if asked is not None:
        return {"num_candidates": max(asked, k)}
    tuned = tuned_points(points, field)
    if not tuned:
        return {"num_candidates": default_candidates(k)}
    near = min((each for each in tuned if each >= k), default=max(tuned))
    candidates = tuned[near]["num_candidates"] * doubled(near, k) // near
    point = {"num_candidates": max(k, min(MAX_CANDIDATES, candidates))}
    oversample = tuned[near].get("oversample")
    # The first k of more neighbours need more oversampling, so that as many are rescored.
    return {**point, "oversample": round(oversample * max(1, near / k), 2)} if oversample else point


def point_key(field: str, k: int | str) -> str:
    """Return under which key of `operating_points` a field's point for `k` stands: `10`, `other_field:10`."""
    return str(k) if field == "image_embedding" else f"{field}:{k}"


def tuned_points(points: Mapping[str, Any], field: str) -> dict[int, Mapping[str, Any]]:
    """Return the points of one field by `k`, rising."""
    own = point_key(field, "")
    found = {
        int(key.removeprefix(own)): point
        for key, point in points.items()
        if key.startswith(own) and key.removeprefix(own).isdecimal() and isinstance(point, Mapping)
    }
    return dict(sorted(found.items()))
