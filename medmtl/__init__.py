"""medmtl: one segmentation network for several medical datasets, which says where it can be trusted."""

from typing import TYPE_CHECKING, Any

from medmtl.version import __version__

if TYPE_CHECKING:
    from medmtl.predict.model import Model

    load = Model.load

__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    """`load` is `Model.load`, which brings torch along only when it is asked for."""
    if name == "load":
        from medmtl.predict.model import Model

        return Model.load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), "load"]
