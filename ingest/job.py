"""Run ingest for a command: with the history of earlier runs, and with the captions that follow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from es_config.errors import EngineError
from ingest.errors import IngestError
from ingest.options import CaptionOptions, Changes, IngestOptions
from ingest.pipeline.captions import caption_pictures
from ingest.pipeline.run import ingest_paths
from ingest.report import CaptionSummary, IngestSummary, Progress, open_progress
from ingest.wiring import Dependencies, open_history
from models.errors import ModelError


@dataclass(frozen=True, kw_only=True)
class IngestJob:
    """An ingest of some folders with its dependencies. A watch repeats it in rounds."""

    paths: Sequence[Path]
    dependencies: Dependencies
    options: IngestOptions
    environ: Mapping[str, str]
    captions_later: bool = False
    """caption pictures when all of them are searchable"""
    retry_failed: bool = False

    def run_all(self) -> IngestSummary:
        """Look through all folders, with a progress on stderr. Raises as `ingest_paths` does."""
        with open_progress() as progress:
            return self.run(self.paths, None, progress=progress, retry_failed=self.retry_failed)

    def run(
        self,
        folders: Sequence[Path],
        changes: Changes | None,
        *,
        progress: Progress,
        retry_failed: bool = False,
    ) -> IngestSummary:
        """Look through folders, or at `changes` below them. Raises as `ingest_paths` does."""
        index, options = self.dependencies.index, self.options
        with closing(
            open_history(index, self.environ, options=options, retry_failed=retry_failed)
        ) as history:
            return ingest_paths(
                folders,
                dependencies=self.dependencies,
                options=options,
                progress=progress,
                history=history,
                changes=changes,
            )

    def with_captions(self, summary: IngestSummary, *, say: Callable[[str], None]) -> IngestSummary:
        """Caption the pictures that a run left for `later`. The captions' `error` says why that failed."""
        if not self.captions_later or summary.interrupted or summary.dry_run:
            return summary
        try:
            waiting = self.dependencies.index.captions().count_missing(every=False)
            if not waiting:
                return summary
            say(
                f"The pictures are searchable now; {waiting} captions follow. Ctrl-C is safe:"
                " `glimpse caption` goes on from there."
            )
            with open_progress(doing="Captioning", noun="pictures") as progress:
                captions = caption_pictures(self.dependencies, options=CaptionOptions(), progress=progress)
        except (EngineError, IngestError, ModelError) as error:
            captions = CaptionSummary(error=str(error))
        return replace(summary, captions=captions)
