"""What the CLI of the Claude Agent SDK reads because a prompt names it after an `@`.

    paths("Look at @notes.txt, please.", "/project", "/home/jane")    # ["/project/notes.txt"]

The CLI reads these files, and lists these folders, before the model is asked and outside of any
tool. So they are found here as it finds them, and more than that: an `@` counts wherever it could
be one, and each end that its path could have is looked at. A path counts if something is there.
"""

from __future__ import annotations

import errno
import os
import re
import unicodedata
from collections.abc import Generator

MOST = 1_000  # mentions of a prompt; the CLI reads 100 of them

_LONGEST = 4_096  # characters of a path: the CLI passes over what is longer

# White space as JavaScript has it: a name ends there, and at nothing else that Python calls space.
_SPACE = "\t\n\v\f\r \xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"
# Behind a letter, a digit or `_` it is none: `jane@example.com`.
_MENTION = re.compile(rf'(?<![0-9A-Za-z_])@(?:"([^"]+)"|([^{_SPACE}]+))')
_AFTER_THE_NAME = re.compile(r"[^0-9A-Za-z_]+\Z")


def paths(prompt: str, folder: str, home: str) -> list[str]:
    """The files and folders that a prompt names, each once, as absolute paths.

    `folder` is where the CLI runs. Raises ValueError for a prompt of more than `MOST` mentions.
    """
    found: dict[str, None] = {}
    for number, mention in enumerate(_MENTION.finditer(prompt)):
        if number >= MOST:
            raise ValueError(f"the text has more than {MOST} mentions")
        for name in _names(mention[1] or mention[2]):
            path = _absolute(name, folder, home)
            if path is not None and _is_there(path):
                found[path] = None
    return list(found)


def _names(text: str) -> Generator[str, None, None]:
    """Return the texts after an `@` that may name a file.

    As it is, or without signs at its end (`@a.txt.`); each also without lines (`@a.txt#L1-9`).
    """
    text = text[: _LONGEST + 1]
    for name in (text, _AFTER_THE_NAME.sub("", text)):
        yield name
        yield name.partition("#")[0]


def _absolute(name: str, folder: str, home: str) -> str | None:
    """The path that a name is; None where it is none."""
    name = name.strip()
    if not name or len(name) > _LONGEST:
        return None
    if name == "~" or name.startswith("~/"):
        name = home + name[1:]
    path = os.path.normpath(os.path.join(folder, unicodedata.normalize("NFC", name)))
    return "/" + path.lstrip("/") if path.startswith("//") else path


def _is_there(path: str) -> bool:
    """Whether there is something; also where nobody can say."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError as error:
        return error.errno != errno.ENAMETOOLONG
    return True
