"""Extension of griffe: a section `Example:` of a docstring is shown as code, as it would be under `Examples:`."""

from typing import Any

from griffe import Extension, Object


class Examples(Extension):
    """Rename the section before docstrings are read."""

    def on_instance(self, *, obj: Object, **_: Any) -> None:
        """Rename it in one docstring."""
        if obj.docstring is not None:
            obj.docstring.value = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")
