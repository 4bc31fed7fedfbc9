"""Whether a stored operating point still meets its target, now that the index may have grown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

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
