"""The pass that gives captions to pictures of the index, the newest first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from PIL.Image import Image

from es_config.index import CaptionUpdate, WaitingPicture
from ingest.errors import Fault
from ingest.options import CaptionOptions
from ingest.pipeline.embed import caption_each, open_thumbnail
from ingest.pipeline.passes import Made, PicturePass
from ingest.report import UNCAPTIONED, PassCounts, PassSummary, Progress
from ingest.wiring import Dependencies
from storage.errors import NoSuchKeyError
from storage.keys import thumbnail_key


def caption_pictures(
    dependencies: Dependencies, *, options: CaptionOptions, progress: Progress | None = None
) -> PassSummary:
    """Caption the pictures of the index that have no caption, from their thumbnails.

    Only captions and their vectors are written. A picture that fails is reported, costs nothing else, and is
    tried again by the next pass. Ctrl-C, or the loss of Elasticsearch or the store, ends the pass early with
    a summary: everything written stays, and the same call goes on from there. No model is loaded if nothing
    is missing. Raises `ModelError` if a model cannot be loaded, and `IngestError` if the index holds vectors
    of another one.
    """
    run = _CaptionPass(dependencies, options, progress or Progress())
    seconds, interrupted, error = run.run()
    return run.counts.summary(seconds, interrupted=interrupted, error=error)


class _CaptionPass(PicturePass[CaptionUpdate]):
    made = "caption"

    def __init__(self, dependencies: Dependencies, options: CaptionOptions, progress: Progress) -> None:
        super().__init__(dependencies.index, options, progress, PassCounts(progress, what=UNCAPTIONED))
        self._storage = dependencies.storage
        self._captioner, self._caption_encoder = dependencies.captioner, dependencies.caption_encoder
        self._captions, self._every = dependencies.index.captions(), options.every

    def count(self) -> int:
        return self._captions.count_missing(every=self._every)

    def waiting(self) -> Iterator[list[WaitingPicture]]:
        return self._captions.missing(every=self._every)

    def load(self) -> None:
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
                    source="model",
                    seq_no=waiting.seq_no,
                    primary_term=waiting.primary_term,
                ),
            )
            for (waiting, _), one in zip(batch, captions, strict=True)
        ]

    def write(self, updates: Sequence[CaptionUpdate]) -> Mapping[str, str]:
        return self._captions.write(updates).failed
