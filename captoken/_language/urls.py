"""Urls as constraints compare them: strings of one strict form (spec, "Constraints").

    url_of("https://example.com/a?q=1")   # Url("https", "example.com", "", "/a")
    site("https://*.example.com/a")       # the same, of an entry: the host may begin with `*.`
    is_within_one(inner, outers)          # is it at or below one of several?
    both(some, others)                    # what two lists have in common

*Why so strict:* a url is read again by whoever fetches it, and readers differ. Whatever two of them
could read as two hosts or two paths is no url here: user info, backslashes, dot segments, encoded
separators, an address in octal, a dot at the end of a host, capital letters.

This is about the string. Names are not resolved: `localtest.me` may be 127.0.0.1. A redirect is a
further access, and is asked about by itself; so a server that fetches follows nothing on its own.

Two entries are nested, crossed or disjoint, part by part: scheme and port are equal or not, and
hosts and paths are trees. So what two have in common is one entry or nothing, and of several
entries the widest ones are one list for one set of urls.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeAlias

from captoken._format.spelling import shown
from captoken._language import addresses

MAX_CHARS = 2048  # of a url, as a value and as an entry
MAX_LISTED = 16  # entries that a link may list
MAX_MET = 256  # entries that several links may leave together

# Default ports are not written, because no port means the default one.
_DEFAULT_PORTS = {
    "https": "443",
    "http": "80",
    "wss": "443",
    "ws": "80",
}
_LABEL = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_is_name = re.compile(rf"{_LABEL}(?:\.{_LABEL})*").fullmatch
_is_port = re.compile("[1-9][0-9]{0,4}").fullmatch
# The codes of `.`, `/`, `\`, `%`, NUL and `;`.
_EVASIVE = ("%2e", "%2f", "%5c", "%25", "%00", "%3b")
# Makes each hexadecimal digit an `f`, so that every percent sign that is a code is `%ff`.
_DIGITS = str.maketrans(dict.fromkeys("0123456789abcdef", "f"))
_DOTS = frozenset((".", ".."))


class Url(NamedTuple):
    """A url in its parts, or an entry, whose host may begin with `*.`. A query is no part of it."""

    scheme: str
    host: str  # as it is written; with brackets for version 6
    port: str  # empty for the default one
    path: str  # begins with a slash

    def __str__(self) -> str:
        """As it is written; the path of an entry that has none is `/`."""
        port = f":{self.port}" if self.port else ""
        return f"{self.scheme}://{self.host}{port}{self.path}"


# --- reading --------------------------------------------------------------------------------------


def url_of(text: str) -> Url | None:
    """The parts of a url that an access states, or None for what is none. Never raises.

    Its query is looked at for characters alone, and is no part of what is compared.
    """
    try:
        return _parts(text, is_entry=False)
    except ValueError:
        # What is wrong with it, nobody is told: the value is a stranger's, and reasons go to logs.
        return None


def site(text: str) -> Url:
    """The parts of an entry of a `url` list. Raises ValueError, which says what is wrong.

    An entry has no query, and its host may begin with `*.`. Else it is a url like any other.

        site("https://*.example.com")     # Url("https", "*.example.com", "", "/")
        site("https://example.com:443")   # ValueError: that port is not written
    """
    try:
        return _parts(text, is_entry=True)
    except ValueError as error:
        raise ValueError(f"url {shown(text)}: {error}") from None


def _parts(text: str, is_entry: bool) -> Url:
    """The parts of a url (spec 13.9). Raises ValueError, which says what is wrong.

    First what every part has to be, then part by part. The order matters: once no backslash and no
    fragment is there, the first slash ends what stands before the path for every reader.
    """
    # The length first, so that a long value costs nothing. Some readers take a backslash for a
    # slash. What is printable and no space is visible.
    is_visible = 0 < len(text) <= MAX_CHARS and text.isascii() and text.isprintable()
    if not is_visible or " " in text or "\\" in text:
        raise ValueError(
            f"it must have at most {MAX_CHARS} characters, all visible ASCII, and no backslash"
        )
    scheme, mark, rest = text.partition("://")
    if not mark or scheme not in _DEFAULT_PORTS:
        raise ValueError("it must begin with https://, http://, wss:// or ws://")
    if "#" in rest:
        raise ValueError("it must not have a fragment")
    if is_entry and "?" in rest:
        raise ValueError("an entry must not have a query")

    # Up to the first slash, also where a query comes before it: not all readers end the host at
    # the question mark. To one that does not, `https://a.b?@evil.org/` is a url of evil.org.
    if "@" in rest.partition("/")[0]:
        raise ValueError("it must not have user info")

    # Behind the first question mark all is query, and free.
    located, _, _ = rest.partition("?")
    authority, _, path = located.partition("/")

    host, port = _host_and_port(scheme, authority)
    _check_host(host, is_entry)
    if path:
        _check_path(path)
    return Url(scheme, host, port, f"/{path}")


def _host_and_port(scheme: str, authority: str) -> tuple[str, str]:
    """The host, and the port or an empty string (spec 13.11).

    Raises ValueError for a port that is none, or is the default one. The host is not looked at.

        _host_and_port("https", "a.b:8443")      # ("a.b", "8443")
        _host_and_port("https", "[::1]:8443")    # ("[::1]", "8443")
    """
    # The colons of version 6 stand inside its brackets.
    if authority.startswith("["):
        end = authority.find("]") + 1
    else:
        end = authority.find(":")

    # No bracket that closes, or no colon: all of it is the host, good or bad.
    if end < 1:
        return authority, ""
    host = authority[:end]
    behind = authority[end:]
    if not behind:
        return host, ""

    # Here a colon stands, or something that follows the brackets of version 6.
    port = behind[1:]
    if behind[0] != ":" or not _is_port(port) or int(port) > 65535:
        raise ValueError("a port must be a number from 1 to 65535 without leading zeros")
    if port == _DEFAULT_PORTS[scheme]:
        raise ValueError(f"port {port} is the default: leave it out")
    return host, port


def _check_host(host: str, is_entry: bool) -> None:
    """Raise ValueError for a host that is no name and no address in its one spelling (spec 13.10).

    The last label of a name has a letter and does not begin with `0x`: else some readers take it
    for an address. So `127.1`, `0x7f000001` and `2130706433` are neither name nor address. Does not
    ask whether there is such a host.
    """
    if host.startswith("["):
        inside = host[1:-1]
        is_closed = host.endswith("]")
        # An address of version 4 has no colon, and does not belong into brackets.
        if not is_closed or ":" not in inside or addresses.address(inside) is None:
            raise ValueError(
                "an IPv6 address must be written as in RFC 5952, and not be a mapped one"
            )
        return

    name = host
    if is_entry and host.startswith("*."):
        name = host[2:]
        if "." not in name:
            raise ValueError("'*.' must be followed by at least two labels")

    # Letters outside ASCII come as `xn--`, which is a label like any other.
    if len(host) > 253 or not _is_name(name):
        raise ValueError(
            "a host must have labels of a-z, 0-9 and -, in lower case, without a dot at the end"
        )

    last = name.rpartition(".")[2]
    is_of_names = last.strip("0123456789-") != "" and not last.startswith("0x")
    # An address of version 4 is a name by its characters. It is never below a star.
    if not is_of_names and (name != host or addresses.address(host) is None):
        raise ValueError("an IPv4 address must be four decimals without leading zeros")


def _check_path(path: str) -> None:
    """Raise ValueError for a path that could be read as another one (spec 13.11).

    Without its first slash. The last segment may be empty: `/a/` is a path, and not the same as
    `/a`.
    """
    if "%" in path and _has_bad_codes(path.lower()):
        raise ValueError(
            "its path must not have %2e %2f %5c %25 %00 %3b, nor a % without two hex digits"
        )

    if path[0] == "/" or "//" in path:
        raise ValueError("its path must not have an empty segment, except at the end")
    if path[0] != "." and "/." not in path:  # nearly always
        return
    # What stands behind a semicolon some servers cut off, and then `..;x` is `..`.
    names = (segment.partition(";")[0] for segment in path.split("/"))
    if not _DOTS.isdisjoint(names):
        raise ValueError("its path must not have a segment '.' or '..'")


def _has_bad_codes(path: str) -> bool:
    """Has a path, in lower case, a code that nobody may write, or a percent sign that is none?"""
    codes = path.translate(_DIGITS).count("%ff")
    return codes != path.count("%") or any(map(path.__contains__, _EVASIVE))


# --- comparing ------------------------------------------------------------------------------------


def is_within_one(inner: Url, outers: Iterable[Url]) -> bool:
    """Is one url, or all of an entry, within one of several entries (spec 13.12)?

    Part by part, and all of them. `*.a.b` holds `x.a.b` and `*.x.a.b`, and not `a.b`. The port is
    compared as it is written, since no port means the default one and that is never written.
    """
    scheme, host, port, path = inner
    for its_scheme, its_host, its_port, its_path in outers:
        # What differs most often is asked first.
        if not path.startswith(its_path) or scheme != its_scheme or port != its_port:
            continue
        # The dot behind the star stays in the comparison: `xa.b` is not below `*.a.b`.
        if host != its_host and not (its_host[0] == "*" and host.endswith(its_host[1:])):
            continue
        # The path ends there or goes on at a slash, its last one or the next: `/a/` is not `/a`.
        if its_path[-1] == "/" or path[len(its_path) : len(its_path) + 1] in ("", "/"):
            return True
    return False


def both(one: Iterable[Url], two: Iterable[Url]) -> set[Url]:
    """What two lists have in common, pair by pair; not only the widest.

    Each pair has one url in common or nothing: the narrower host, with the narrower path.

        `https://*.b.c/x` and `https://a.b.c`     # `https://a.b.c/x`
        `https://*.b.c` and `https://b.c`         # nothing
    """
    mine = _by_place(one)
    theirs = _by_place(two)
    found: set[Url] = set()
    # The narrower place of a pair is of the one list or of the other. Equal ones are found once.
    for place, paths in mine.items():
        for outer in (place, *_wider_places(place)):
            if outer in theirs:
                found |= _of_both(place, paths, theirs[outer])
    for place, paths in theirs.items():
        for outer in _wider_places(place):
            if outer in mine:
                found |= _of_both(place, paths, mine[outer])
    return found


# Scheme, port and host, and the paths that stand with them.
_Place: TypeAlias = tuple[str, str, str]
_Places: TypeAlias = dict[_Place, set[str]]


def _by_place(urls: Iterable[Url]) -> _Places:
    """The paths of each scheme, port and host."""
    made: _Places = {}
    for url in urls:
        place = (url.scheme, url.port, url.host)
        made.setdefault(place, set()).add(url.path)
    return made


def _wider_places(place: _Place) -> Iterator[_Place]:
    """The places with a star that hold this one, but for itself; nearest first.

    So a list is looked up label by label, and not compared with each entry of another.

        ("https", "", "x.a.b.c")     # with *.a.b.c, *.b.c and *.c
    """
    scheme, port, host = place
    rest = host.removeprefix("*.")
    while "." in rest:
        rest = rest.partition(".")[2]
        yield scheme, port, f"*.{rest}"


def _wider_paths(path: str) -> Iterator[str]:
    """The paths that a path lies below, nearest first.

    list(_wider_paths("/a/b"))    # "/a/", "/a", "/"
    """
    # The slash at the end of a path is a segment of its own, an empty one.
    while path:
        path, _, last = path.rpartition("/")
        if last:
            yield f"{path}/"
        if path:
            yield path


def _of_both(
    place: _Place,
    paths: set[str],
    others: set[str],
) -> set[Url]:
    """The urls at a place with the narrower path of each pair, where one is within the other."""
    narrow = paths & others
    narrow.update(path for path in paths if not others.isdisjoint(_wider_paths(path)))
    narrow.update(path for path in others if not paths.isdisjoint(_wider_paths(path)))

    scheme, port, host = place
    made = {Url(scheme, host, port, path) for path in narrow}
    # A longer one is no url, and so nothing is within it. That keeps this exact, and makes each
    # result one that could be an entry.
    return {url for url in made if len(str(url)) <= MAX_CHARS}


def widest_of(urls: Iterable[Url]) -> frozenset[Url] | None:
    """Those that lie within no other, or None for more than 256.

    One result for one set of urls. An entry has a url that no narrower one has: its own path, on a
    host that nobody names. So it is missed unless a wider one is there, and several narrower ones
    never make up for it.

    It stops at the bound, so that what links say cannot make this work without end (spec 13.13).
    """
    places = _by_place(urls)
    # Most lists name hosts alone. Then no place is wider than another.
    has_stars = any(host[0] == "*" for _, _, host in places)
    kept: set[Url] = set()
    for place, paths in places.items():
        outer: list[set[str]] = []
        if has_stars:
            outer = [places[wider] for wider in _wider_places(place) if wider in places]
        scheme, port, host = place
        for path in paths:
            # Beside itself, only the paths above one make it superfluous; on a wider host its
            # equal does too.
            above = tuple(_wider_paths(path))
            if not paths.isdisjoint(above):
                continue
            if any(path in others or not others.isdisjoint(above) for others in outer):
                continue
            kept.add(Url(scheme, host, port, path))
            if len(kept) > MAX_MET:
                return None
    return frozenset(kept)
