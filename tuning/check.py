"""Whether a stored operating point still meets its target, now that the index may have grown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tuning.errors import TuneError
from tuning.points import SERVED, Setting
from tuning.sweep import Sample, Subject, measure_again

if TYPE_CHECKING:
    from tuning.points import HeldOut


@dataclass(frozen=True)
class Check:
    """A stored operating point, measured anew."""

    k: int
    setting: Setting
    target: float
    stored_recall: float
    stored_documents: int
    documents: int
    now: HeldOut

    @property
    def ok(self) -> bool:
        """Whether the mean still meets the target, and nearly all queries are still served."""
        return self.now.recall >= self.target and self.now.served >= SERVED

    def to_json(self) -> dict[str, Any]:
        """Return one flat object with `ok`."""
        found = {"ok": self.ok, **asdict(self), **asdict(self.setting)}
        del found["setting"], found["now"]
        return found | {
            "recall": self.now.recall,
            "recall_low": self.now.recall_low,
            "served": self.now.served,
        }

    def __str__(self) -> str:
        """Return one sentence."""
        verdict = "still meets" if self.ok else "no longer meets"
        grown = (
            f" (then {self.stored_recall:.4f} with {self.stored_documents} documents, now {self.documents})"
        )
        way_out = "" if self.ok else f": run `glimpse tune -k {self.k} --target-recall {self.target:g}`"
        return (
            f"k = {self.k}: {self.setting} has recall {self.now.recall:.4f} and {verdict} "
            f"{self.target:g}{grown}{way_out}."
        )


def point_key(field: str, k: int) -> str:
    """Return under which key of `operating_points` a field's point for `k` stands."""
    return str(k) if field == "image_embedding" else f"{field}:{k}"


def stored_ks(points: Mapping[str, Any], field: str) -> list[int]:
    """Return the `k` that have an operating point for a field, rising."""
    return sorted(int(key.rsplit(":", 1)[-1]) for key in points if key == point_key(field, _k(key)))


def _k(key: str) -> int:
    last = key.rsplit(":", 1)[-1]
    return int(last) if last.isdecimal() else 0


def stored_point(points: Mapping[str, Any], field: str, k: int) -> Mapping[str, Any]:
    """Return the operating point for `k`. Raises TuneError when there is none."""
    entry = points.get(point_key(field, k))
    if not entry:
        raise TuneError(f"No operating point is stored for k = {k}: run `glimpse tune -k {k}` first.")
    return entry


def check(subject: Subject, sample: Sample, entry: Mapping[str, Any]) -> Check:
    """Measure a stored operating point on all queries of a sample."""
    setting = Setting(entry["num_candidates"], entry.get("oversample"))
    return Check(
        k=subject.k,
        setting=setting,
        target=entry["target"],
        stored_recall=entry["recall"],
        stored_documents=entry["documents"],
        documents=sample.truth.documents,
        now=measure_again(subject, sample, setting),
    )
