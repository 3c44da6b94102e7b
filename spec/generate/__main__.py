"""Writes `spec/vectors/` and the opening of the specification."""

from spec.generate import anatomy, vectors


def main() -> None:
    """Write every file anew."""
    for path, content in vectors.files().items():
        path.write_text(content, encoding="utf-8", newline="\n")
    anatomy.SPECIFICATION.write_text(anatomy.specification(), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
