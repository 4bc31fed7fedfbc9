"""The pass that gives captions to pictures of the index, the newest first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from PIL.Image import Image

from es_config.index import CaptionUpdate, WaitingPicture
from ingest.errors import Fault
from ingest.options import CaptionOptions
from ingest.pipeline.embed import caption_each, open_thumbnail
from ingest.pipeline.passes import Made, PicturePass
from ingest.report import UNCAPTIONED, PassSummary, Progress
from ingest.wiring import Dependencies
from ingest.workers.driver import SharedWork
from storage.errors import NoSuchKeyError
from storage.keys import thumbnail_key

MODEL = "model"
"""`caption_source` of captions that are made here"""


def caption_pictures(
    dependencies: Dependencies,
    *,
    options: CaptionOptions,
    progress: Progress | None = None,
    work: SharedWork | None = None,
) -> PassSummary:
    """Caption the pictures of the index that have no caption, from their thumbnails, or let workers do it.

    Only captions and their vectors are written. A picture that fails is reported, costs nothing else, and is
    tried again by the next pass. Ctrl-C, or the loss of Elasticsearch or the store, ends the pass early with
    a summary: everything written stays, and the same call goes on from there. No model is loaded if nothing
    is missing. Raises `ModelError` if a model cannot be loaded, and `IngestError` if the index holds vectors
    of another one.
    """
    run = CaptionPass(dependencies, options, progress or Progress())
    seconds, interrupted, error = run.run(work)
    return run.counts.summary(seconds, interrupted=interrupted, error=error)


class CaptionPass(PicturePass[CaptionUpdate]):
    """Captions pictures of the index."""

    made = "caption"

    def __init__(self, dependencies: Dependencies, options: CaptionOptions, progress: Progress) -> None:
        self._captions, self._every = dependencies.index.captions(), options.every
        super().__init__(dependencies.index, options, progress, what=UNCAPTIONED, lacking=self._captions)
        self._storage = dependencies.storage
        self._captioner, self._caption_encoder = dependencies.captioner, dependencies.caption_encoder

    def count(self) -> int:
        """Return how many pictures wait."""
        return self._captions.count_missing(every=self._every)

    def waiting(self) -> Iterator[list[WaitingPicture]]:
        """Yield the pictures that wait, in lists."""
        return self._captions.missing(every=self._every)

    def load(self) -> None:
        """Load the captioner and the text model."""
        _ = (self._captioner.get(), self._caption_encoder.get())

    def read(self, waiting: WaitingPicture) -> Image | Fault:
        """Return a picture's thumbnail, or a fault."""
        try:
            data = self._storage.get(thumbnail_key(waiting.image_id))
        except NoSuchKeyError as error:
            return Fault(f"{error} Ingest its folder again, or name its store with --store.")
        try:
            return open_thumbnail(data)
        except Exception as error:  # decoders raise whatever damaged bytes lead them to
            return Fault(f"its thumbnail is damaged ({type(error).__name__}: {error})")

    def make(self, batch: Sequence[tuple[WaitingPicture, Image]]) -> list[Made[CaptionUpdate]]:
        """Return a caption for each picture, or a fault."""
        captions = caption_each(
            [image for _, image in batch], captioner=self._captioner, caption_encoder=self._caption_encoder
        )
        return [
            Made(waiting, fault=one)
            if isinstance(one, Fault)
            else Made(
                waiting,
                CaptionUpdate(
                    waiting.image_id,
                    one.text,
                    one.vector,
                    source=MODEL,
                    seq_no=waiting.seq_no,
                    primary_term=waiting.primary_term,
                ),
            )
            for (waiting, _), one in zip(batch, captions, strict=True)
        ]

    def write(self, updates: Sequence[CaptionUpdate]) -> Mapping[str, str]:
        """Write captions and return the reason for each refusal, by image id."""
        return self._captions.write(updates).failed

    def recount(self, waiting: WaitingPicture, fields: Mapping[str, Any]) -> bool:  # noqa: ARG002
        """Count a caption that a worker wrote before it died. One of a person is another matter."""
        if fields["caption_source"] != MODEL:
            return False
        self.counts.add(written=1)
        return True
