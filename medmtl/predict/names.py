"""Names of what is written for an image: no output replaces an image, another output, or a file of someone else."""

from collections import Counter
from collections.abc import Sequence

from medmtl.errors import ConfigError, DataError
from medmtl.files import resolved
from medmtl.io.input import MASK, Input
from medmtl.io.stacking import without_channel
from medmtl.io.writer import mask_paths
from medmtl.predict.options import Options
from medmtl.results.prediction import PredictedCase


def named(inputs: Sequence[Input], options: Options) -> list[Input]:
    """The images by the names that their outputs have; with an empty suffix as nnU-Net names them.

    Args:
        inputs: the images, with unique names.
        options: of the command.

    Raises:
        ConfigError: two outputs would have the same name.
        DataError: an output would replace an image.
    """
    found = list(inputs) if options.suffix else without_channel(inputs)
    endings = [options.suffix, *(["_probability"] * options.probability), *(["_entropy"] * options.entropy)]
    outputs = Counter(f"{one.name}{ending}" for one in found for ending in endings)
    twice = next((name for name, times in outputs.items() if times > 1), None)
    if twice is not None:
        raise ConfigError(f"two outputs would be named {twice}", fix="choose another --suffix")
    folder = resolved(options.output)
    files = {part.path for one in found for part in (one, *one.channels.values())}
    images = {resolved(path.parent) / path.name for path in files} | set(map(resolved, files))
    replaced = [path for one in found for path in mask_paths(folder, one, options.suffix) if path in images]
    if replaced:
        raise DataError(f"the mask would replace the image {replaced[0]}", fix="choose another folder for --output")
    return found


def check_unclaimed(source: Input, record: PredictedCase | None, options: Options) -> None:
    """Refuse to replace a file that no earlier command wrote, such as a label, where the suffix is not the usual one.

    Args:
        source: the image.
        record: of an earlier command for it, if there is one.
        options: of the command.

    Raises:
        DataError: there is such a file.
    """
    own = [] if record is None else list(record.files.values())
    for path in mask_paths(options.output, source, options.suffix) if options.suffix != MASK else ():
        if path.exists() and path.name not in own:
            raise DataError(
                f"{path} was not written by an earlier command", fix="choose another --output, or add --overwrite"
            )
