"""Configurations found by path or by bare name, and read; without Lightning, whose import takes seconds."""

from pathlib import Path
from typing import Any

from medmtl.errors import ConfigError
from medmtl.files import PACKAGE, TextError, parse_yaml, read_text


def find_config(name: str) -> Path:
    """A configuration by path, or by bare name in the current folder, `configs/`, or the installed package.

    Raises:
        ConfigError: there is none; lists those that are shipped.
    """
    places = [Path(), Path("configs"), PACKAGE / "configs", PACKAGE.parent / "configs"]
    for place in places if Path(name).name == name else places[:1]:
        if (place / name).is_file():
            return place / name
    shipped = sorted({path.name for place in places[1:] for path in place.glob("*.yaml")})
    raise ConfigError(f"there is no configuration {name}", fix=f"give a file, or one of: {', '.join(shipped)}")


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        ConfigError: it holds something else.
    """
    try:
        content = parse_yaml(read_text(path))
    except TextError as error:
        raise ConfigError(error.what, error.fix) from None
    except ValueError as error:
        raise ConfigError(f"{path} is not YAML ({error})", fix="correct it") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} is not a YAML mapping", fix="correct it")
    return content
