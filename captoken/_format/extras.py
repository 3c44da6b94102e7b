"""What packages that most installations do not have are imported in: it names the extra to install.

    with extra("mcp"):
        import mcp

`captoken` itself needs none of them. Each import of one stands in such a block, so that whoever has
not got it reads what to write, and not the name of a module that they have never heard of.
"""

from __future__ import annotations

from types import TracebackType


class extra:  # noqa: N801, it reads as a statement
    """A block of imports that the extra `name` of captoken brings.

    What fails in it raises ImportError, or ModuleNotFoundError where a package is not there, as the
    import alone would: with a message that says what to install.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        """Nothing is done before an import fails."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not isinstance(error, ImportError):
            return
        remedy = f"install what captoken needs here: pip install 'captoken[{self._name}]'"
        if isinstance(error, ModuleNotFoundError):
            raise ModuleNotFoundError(
                f"the package {error.name} is not installed; {remedy}",
                name=error.name,
            ) from error

        # It is there, and is not what was expected: most often it is of another version.
        raise ImportError(
            f"{error}; perhaps its version does not fit; {remedy}",
            name=error.name,
            path=error.path,
        ) from error
