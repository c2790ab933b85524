"""The service: what all requests share, and the way of a scan from an upload to what is kept of it."""

import logging
import shutil
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from starlette.requests import Request

from medmtl.predict.progress import outcome_line
from medmtl.serve.kept import Kept, new_folder
from medmtl.serve.options import Options
from medmtl.serve.predicting import Predictor, Result
from medmtl.serve.uploads import Form, Upload, receive
from medmtl.serve.work import Work

logger = logging.getLogger(__name__)

IMAGES = 8  # of the MONAI Label plug-in that are kept at most


@dataclass(frozen=True)
class Service:
    """What requests share.

    Attributes:
        predictor: predicts uploads.
        work: the queue.
        results: what was predicted, by the name of its folder.
        images: uploads of the MONAI Label plug-in, which sends a scan before it asks for its mask.
        home: the temporary folder, in which everything lies.
        options: of the command.
    """

    predictor: Predictor
    work: Work
    results: Kept[Result]
    images: Kept[Upload]
    home: Path
    options: Options

    @classmethod
    def of(cls, predictor: Predictor, home: Path, options: Options) -> "Service":
        """A service that has not answered yet.

        Args:
            predictor: predicts uploads.
            home: an empty folder of its own.
            options: of the command.
        """
        seconds = 60.0 * options.keep_minutes
        results: Kept[Result] = Kept("result", options.keep, seconds)
        images: Kept[Upload] = Kept("scan", IMAGES, seconds)
        return cls(predictor, Work(options.queue), results, images, home, options)

    @asynccontextmanager
    async def received(self, request: Request, files: Collection[str] = ("file",)) -> AsyncIterator[tuple[Form, Path]]:
        """Take a place among the requests, and read a form into a folder, which is removed unless it is kept.

        Args:
            request: whose body was not read yet.
            files: names of the parts that are files.

        Raises:
            RequestError: see `Work.place` and `receive`.
        """
        with self.work.place():
            folder = new_folder(self.home)
            try:
                yield await receive(request, folder, self.options, files), folder
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise

    async def predicted(
        self,
        request: Request,
        upload: Upload,
        folder: Path,
        task: str | None,
        modality: str | None,
    ) -> Result:
        """Predict an upload and keep the result under the name of its folder.

        Raises:
            RequestError: see `Predictor`.
        """
        self.predictor.check(task, modality)
        predict: Callable[[], Result] = partial(self.predictor.predict, upload, folder, task, modality)
        result = await self.work.do(predict, partial(_gone, request))
        self.results.add(folder.name, result, folder)
        logger.info("%s", outcome_line(result.case))
        return result

    def expire(self) -> None:
        """Remove what has been kept for long enough."""
        self.results.expire()
        self.images.expire()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
