"""`glimpse tune --check`: do the stored operating points still hold?"""

from __future__ import annotations

import json
from typing import Any

import click

from tuning import parts_cli as parts


def run_check(options: dict[str, Any], *, as_json: bool) -> None:
    """Measure the stored operating points of a field, or that of one k; exit 1 when one fails."""
    found = measured(**options)
    ok = all(each.ok for each in found)
    if as_json:
        click.echo(json.dumps({"ok": ok, "checks": [each.to_json() for each in found]}, indent=2))
    else:
        click.echo("\n".join(map(str, found)))
    if not ok:
        raise SystemExit(1)


def measured(*, alias: str, field: str, k: int | None, seed: int, truth: str, **options: Any) -> list:
    """Return a check of each stored point. Raises TuneError when none is stored."""
    from search_app.operating_point import tuned_points
    from tuning.check import check
    from tuning.errors import TuneError
    from tuning.run import Goal, with_truth
    from tuning.sweep import Subject

    found = []
    with parts.stoppable(), parts.opened(alias, field) as (_, corpus):
        stored = tuned_points(corpus.field.meta.get("operating_points", {}), field)
        for each in [k] if k else stored:
            if each not in stored:
                raise TuneError(
                    f"No operating point is stored for k = {each}: run `glimpse tune -k {each}` first."
                )
            entry = stored[each]
            more = {**options, "target": entry["target"]}
            # Other queries than those that chose the point, and the same ones in every run.
            drawn = parts.queries(corpus, alias=alias, seed=seed + 1, k=each, **more)
            subject = Subject(corpus.view, corpus.field, each)
            sample = with_truth(subject, drawn, goal=Goal(truth=truth), say=parts.say)
            found.append(check(subject, sample, entry))
    if not found:
        raise TuneError("No operating point is stored: run `glimpse tune` first.")
    return found
