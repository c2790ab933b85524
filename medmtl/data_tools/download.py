"""`medmtl data download`: public tasks of the Medical Segmentation Decathlon, from the addresses that MONAI lists."""

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.error import URLError

from monai.apps import DecathlonDataset
from monai.apps.utils import HashCheckError, check_hash, download_url, extractall

from medmtl.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

MIRROR = "MEDMTL_MSD_URL"


def download(tasks: Sequence[str], to: Path | None = None) -> list[Path]:
    """Download tasks, check them and unpack them; those that exist are left as they are.

    An archive that an earlier call left is used if its checksum is right, and downloaded again if not. A task is
    unpacked beside its place and then renamed, so that its folder is whole if it is there.

    Args:
        tasks: names such as `Task04_Hippocampus`.
        to: folder to unpack into; None: `$MEDMTL_DATA`.

    Returns:
        The folder of each task.

    Raises:
        ConfigError: there is no such task, or no folder is named.
        DataError: a task cannot be downloaded, or its checksum is not that of MONAI's list.
    """
    unknown = [task for task in tasks if task not in DecathlonDataset.resource]
    if unknown:
        raise ConfigError(f"there is no task {unknown[0]}", fix=f"use one of: {', '.join(DecathlonDataset.resource)}")
    if to is None and not os.environ.get("MEDMTL_DATA"):
        raise ConfigError("no folder is named", fix="add --output DIR, or set MEDMTL_DATA")
    logging.getLogger("monai.apps").setLevel(logging.CRITICAL)  # it writes to stdout; one line is logged here
    folder = to or Path(os.environ["MEDMTL_DATA"])
    return [_download(task, folder) for task in dict.fromkeys(tasks)]


def address(task: str) -> str:
    """Where a task's archive is: on the mirror that `MEDMTL_MSD_URL` names, or as MONAI lists it."""
    official: str = DecathlonDataset.resource[task]
    mirror = os.environ.get(MIRROR)
    return f"{mirror.rstrip('/')}/{task}.tar" if mirror else official


def _download(task: str, to: Path) -> Path:
    folder, archive, checksum = to / task, to / f"{task}.tar", DecathlonDataset.md5[task]
    if folder.is_dir():
        logger.info("%s is there already", folder)
        return folder
    to.mkdir(parents=True, exist_ok=True)
    if archive.exists() and not check_hash(archive, checksum, "md5"):
        logger.info("%s is incomplete: it is downloaded again", archive)
        archive.unlink()
    url = address(task)
    try:
        if not archive.exists():
            logger.info("fetching %s", url)
        download_url(url, archive, checksum, "md5", progress=sys.stderr.isatty())
        with TemporaryDirectory(dir=to, prefix=f".{task}.") as beside:
            extractall(archive, beside, checksum, "md5")
            (Path(beside) / task).replace(folder)
    except HashCheckError:
        raise DataError(
            f"the download from {url} has another checksum than MONAI's list", fix="try again, or another mirror"
        ) from None
    except (URLError, OSError) as error:
        reason = " ".join(str(error).split())
        fix = f"check the connection and the free space in {to} and TMPDIR, then repeat the command"
        raise DataError(f"{url} cannot be fetched ({reason})", fix=fix) from None
    archive.unlink()
    return folder
