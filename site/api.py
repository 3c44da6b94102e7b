"""The reference of the API, from the code alone: nothing of it is imported, and no extra is needed.

A public module is one without an underscore in its path. Its names are those of `__all__`, or else
what it defines. Each has one entry, in the shortest public module that gives it: its signature, its
docstring, what it has, and the keywords that stand in a TypedDict, as a table.
"""

from __future__ import annotations

import ast
import html
import io
import re
import textwrap
import tokenize
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TypeAlias

import griffe
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer
from sources import ROOT, as_text

Entry: TypeAlias = griffe.Class | griffe.Function | griffe.Attribute | griffe.TypeAlias

# The groups of modules, in their order. A module belongs to the first that has it or its package.
GROUPS: dict[str, tuple[str, ...]] = {
    "The core": (
        "captoken",
        "captoken.keys",
        "captoken.local",
        "captoken.tools",
        "captoken.rows",
        "captoken.current",
        "captoken.caveats",
        "captoken.consent",
        "captoken.discharge",
        "captoken.proof",
        "captoken.errors",
    ),
    "Guards and adapters": ("captoken.adapters",),
    "Stores": ("captoken.stores",),
    "Operators and the trail": ("captoken.control", "captoken.audit"),
    "Issuance": ("captoken.issuance",),
    "Tests, and other libraries": ("captoken.testing", "captoken.interop"),
}
COMMANDS = "captoken.cli"  # has a reference of its own
WIDTH = 88  # of a signature
# Of a method without a docstring: it overrides one.
OF_THE_FRAMEWORK = "As the framework's own method of that name, which it overrides."


def _sections() -> dict[str, str]:
    """By the title of a section of the specification, its anchor."""
    text = (ROOT / "spec/captoken-v1.md").read_text("utf-8")
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"^[\d.]+ ", "", title): anchor_of(title) for title in titles}


def anchor_of(title: str) -> str:
    """The anchor of a heading, as GitHub has it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


SECTIONS = _sections()


class Api:
    """All public modules, and where each public name has its entry."""

    def __init__(self, root: Path = ROOT) -> None:
        self.root = griffe.load(
            "captoken",
            search_paths=[root],
            resolve_aliases=True,
            resolve_external=False,
        )
        found = (module for module in _modules(self.root) if _is_public(module.path))
        self.modules = {module.path: module for module in sorted(found, key=_order)}
        self.home: dict[str, tuple[str, str]] = {}  # by where it is defined: module and name
        for path, module in self.modules.items():
            for name in public_names(module):
                self.home.setdefault(_defined(module[name]).path, (path, name))
        self.links: dict[str, str] = {}
        self.by_name: dict[str, str] = {}
        self.links = dict(self._anchors())
        self.by_name = dict(self._spoken())

    def names(self) -> list[tuple[str, str]]:
        """Every public name, with its module: some stand in two modules."""
        return [
            (path, name) for path, module in self.modules.items() for name in public_names(module)
        ]

    def _anchors(self) -> Iterator[tuple[str, str]]:
        """By where it is defined: page and anchor of its entry, seen from a page beside it."""
        for path in self.modules:
            page = Page(self, path)
            page.text()  # its links lead nowhere yet, which moves no anchor
            for where, anchor in page.anchors.items():
                yield where, f"{path}.md#{anchor}"

    def _spoken(self) -> Iterator[tuple[str, str]]:
        """The same by the name that a docstring writes: `Grant`, `Grant.check`."""
        for where, (_, name) in reversed(self.home.items()):
            for inner, link in self.links.items():
                if inner == where or inner.startswith(f"{where}."):
                    yield f"{name}{inner.removeprefix(where)}", link

    def groups(self) -> Iterator[tuple[str, list[str]]]:
        """Each group, with its modules."""
        for group, packages in GROUPS.items():
            yield group, [path for path in self.modules if _is_of(path, packages)]


def _is_of(path: str, packages: tuple[str, ...]) -> bool:
    """Whether a module is one of these, or within one; all are within `captoken` itself."""
    within = (package for package in packages if package != "captoken")
    return path in packages or any(path.startswith(f"{package}.") for package in within)


def _order(module: griffe.Module) -> tuple[int, str]:
    return module.path.count("."), module.path


def _modules(module: griffe.Module) -> Iterator[griffe.Module]:
    yield module
    for inner in module.modules.values():
        if not inner.is_alias:
            yield from _modules(inner)


def _is_public(path: str) -> bool:
    is_command = path == COMMANDS or path.startswith(f"{COMMANDS}.")
    hidden = any(part.startswith("_") for part in path.split("."))
    return not hidden and not is_command


def public_names(module: griffe.Module) -> list[str]:
    """What a module gives: what it says, or what it defines without an underscore."""
    if module.exports is not None:
        return [str(name) for name in module.exports]
    found = []
    for name, member in module.members.items():
        is_entry = not member.is_alias and (member.is_function or member.is_class)
        if is_entry and not name.startswith("_"):
            found.append(name)
    return found


def _defined(member: griffe.Object | griffe.Alias) -> Entry:
    return member.final_target if member.is_alias else member


class Page:
    """The page of one module."""

    def __init__(self, api: Api, path: str) -> None:
        self._api, self._path = api, path
        self._module = api.modules[path]
        self._slugs: Counter[str] = Counter()
        self.anchors: dict[str, str] = {}  # by where it is defined
        self._types: dict[str, str] = {}  # by name, where it is defined

    def text(self) -> str:
        """The page as Markdown, with signatures in HTML."""
        out = [f"# {self._path}", "", self._prose(self._module), ""]
        if self._path == "captoken.errors":  # the tree is drawn where they are written
            drawn = _docstring(self._api.root["_format.errors"])
            tree = next(text for text in _paragraphs(drawn) if text.startswith("    "))
            out += [_block(textwrap.dedent(tree)), ""]
        elsewhere: list[str] = []
        for name in public_names(self._module):
            entry = _defined(self._module[name])
            page, shown = self._api.home[entry.path]
            if page != self._path:
                elsewhere.append(f"- `{name}`: [{page}.{shown}]({self._link(entry.path)})")
            else:
                out += self._entry(name, entry)
        if elsewhere:
            out += [self._heading("Also here", 2), "", *elsewhere, ""]
        return "\n".join([*out, *self._type_rows()])

    def summary(self) -> str:
        """The first sentence of the module, for lists."""
        said = _docstring(self._module).split("\n\n")[0]
        return re.split(r"(?<=[.:])\s", " ".join(said.split()), maxsplit=1)[0].rstrip(":")

    # --- one entry ------------------------------------------------------------------------------

    def _entry(self, name: str, entry: Entry) -> list[str]:
        out = [self._heading(name, 2, entry), ""]
        if entry.is_class:
            return out + self._class(name, entry)
        if entry.is_function:
            return out + self._function(name, entry)
        said = self._prose(entry) or _comment(entry)
        return [*out, self._signature(_assigned(name, entry), entry), "", said, ""]

    def _class(self, name: str, entry: griffe.Class) -> list[str]:
        out = []
        members = {
            key: _defined(member)
            for key, member in entry.all_members.items()
            if not key.startswith("_") and _is_ours(member)
        }
        made = _constructor(name, entry, members)
        out += [self._signature(made or f"class {name}", entry), "", self._prose(entry), ""]
        init = entry.members.get("__init__")
        if init is not None and not init.is_alias:
            out += [self._prose(init), "", *self._keywords(init)]
        fields = {key: member for key, member in members.items() if _is_field(member)}
        if not made or any(self._said(member) for member in fields.values()):
            out += self._fields(fields)
        for key, member in members.items():
            if key in fields or not (member.is_function or "property" in member.labels):
                continue
            out += [self._heading(f"{name}.{key}", 3, member), ""]
            out += self._function(f"{name}.{key}", member)
        return out

    def _function(self, name: str, entry: griffe.Function | griffe.Attribute) -> list[str]:
        if not entry.is_function:  # a property
            kind = _typed(entry.annotation)
            return [self._signature(f"{name}{kind}", entry), "", self._prose(entry), ""]
        forms = entry.overloads or [entry]
        written = [_called(name, form, before=_before(entry)) for form in forms]
        said = self._prose(entry) or OF_THE_FRAMEWORK
        out = [self._signature("\n\n".join(written), entry), "", said, ""]
        return out + self._keywords(entry)

    def _keywords(self, entry: griffe.Function) -> list[str]:
        """The keywords that a TypedDict names, as a table."""
        out = []
        for parameter in entry.parameters:
            table = _unpacked(parameter.annotation)
            if table is None:
                continue
            where = self._api.root[table.removeprefix("captoken.")]
            of = _defined(where)
            rows = {
                key: _defined(member) for key, member in of.all_members.items() if _is_ours(member)
            }
            out += [f"Keywords of `**{parameter.name}`:", "", *self._table(rows, "keyword")]
        return out

    def _fields(self, fields: dict[str, griffe.Attribute]) -> list[str]:
        return self._table(fields, "attribute") if fields else []

    def _table(self, rows: dict[str, griffe.Attribute], first: str) -> list[str]:
        out = ['<div class="members">', "", f"| {first} | type | what |", "| --- | --- | --- |"]
        for name, member in rows.items():
            default = "" if member.value is None else f" `= {_cell(_short(str(member.value)))}`"
            said = _cell(self._said(member))
            out.append(f"| `{name}` | {self._kind(member)}{default} | {said} |")
        return [*out, "", "</div>", ""]

    def _said(self, member: griffe.Attribute) -> str:
        """What an attribute means: its docstring, or the comment beside it."""
        said = self._prose(member)
        return " ".join(said.split()) if said else _comment(member)

    # --- text and links ---------------------------------------------------------------------------

    def _heading(self, title: str, level: int, entry: Entry | None = None) -> str:
        slug = anchor_of(title)
        anchor = slug if not self._slugs[slug] else f"{slug}-{self._slugs[slug]}"
        self._slugs[slug] += 1
        if entry is not None:
            self.anchors.setdefault(entry.path, anchor)
        return f"{'#' * level} {title}"

    def _link(self, where: str) -> str:
        return self._api.links.get(where, "")

    def _prose(self, entry: griffe.Object) -> str:
        """The docstring, with links to what it names."""
        out = []
        for paragraph in _paragraphs(_docstring(entry)):
            if paragraph.startswith("    "):
                out.append(_block(textwrap.dedent(paragraph)))
                continue
            text = self._with_links(as_text(paragraph))
            out.append(re.sub(r"(?<!\S)Raises (?=\S)", "**Raises** ", text))
        return "\n\n".join(out)

    def _with_links(self, text: str) -> str:
        """What a docstring names leads there: a name of ours, an error, a page, a section."""
        known = self._api.by_name

        def name(found: re.Match[str]) -> str:
            link = known.get(found[1].removesuffix("()"))
            is_own = link is None or found[1][0].islower()
            return found[0] if is_own else f"[{found[0]}]({link})"

        def error(found: re.Match[str]) -> str:
            link = known.get(found[0])
            return found[0] if link is None else f"[{found[0]}]({link})"

        def section(found: re.Match[str]) -> str:
            slug = SECTIONS.get(found[1])
            shown = found[0]
            return shown if slug is None else f"[{shown}](../../spec/captoken-v1.md#{slug})"

        text = re.sub(r"(?<!`)`([\w.]+(?:\(\))?)`(?!`)", name, text)
        text = re.sub(
            r"(?<![`\w\[.])(?:[A-Z]\w*Error|Denied|Refused|NoToken)\b(?![`\]])", error, text
        )
        text = re.sub(r"(?<!`)\bdocs/([\w-]+)\.md\b(?!`)", r"[\1](../../docs/\1.md)", text)
        return re.sub(r'spec,\s+"([^"]+)"', section, text)

    def _signature(self, written: str, entry: Entry) -> str:
        """A signature in colours, in which each name of ours leads to its entry."""
        shown = highlight(written, PythonLexer(), HtmlFormatter(nowrap=True)).rstrip("\n")
        for name, where in _named(entry):
            target = self._target(name, where)
            if target:
                span = f'<span class="n">{name}</span>'
                shown = shown.replace(span, f'<a class="n" href="{target}">{name}</a>')
        return f'<div class="signature highlight"><pre>{shown}</pre></div>'

    def _kind(self, member: griffe.Attribute) -> str:
        """The type of an attribute, for a cell of a table."""
        kind = html.escape(str(member.annotation or "")).replace("|", "&#124;")
        for name, where in _named(member):
            target = self._target(name, where)
            if target:
                kind = re.sub(rf"\b{name}\b", f'<a href="{target}">{name}</a>', kind)
        return f"<code>{kind}</code>" if kind else ""

    def _target(self, name: str, where: str) -> str:
        """Where the entry of a type is: among the public names, or at the end of this page."""
        if where in self._api.home:
            return self._api.links.get(where, "").replace(".md#", ".html#")
        if self._is_kept_inside(where):
            self._types[name] = where
            return f"#type-{name.lower()}"
        return ""

    def _is_kept_inside(self, where: str) -> bool:
        """Whether it is a name for a type, which stands in no public module."""
        if not where.startswith("captoken.") or where.rpartition(".")[2].startswith("_"):
            return False
        try:
            found = _defined(self._api.root[where.removeprefix("captoken.")])
        except (KeyError, griffe.AliasResolutionError):
            return False
        return found.is_attribute and found.value is not None

    def _type_rows(self) -> list[str]:
        """The types that signatures of this page name, and no public module gives."""
        if not self._types:
            return []
        out = [self._heading("Types named here", 2), "", "| type | stands for | what |"]
        out.append("| --- | --- | --- |")
        for name, where in sorted(self._types.items()):
            found = _defined(self._api.root[where.removeprefix("captoken.")])
            shown = f'<span id="type-{name.lower()}"></span>`{name}`'
            value = _cell(" ".join(str(found.value).split()))
            out.append(f"| {shown} | `{value}` | {_cell(self._said(found))} |")
        return [*out, ""]


# --- how things are written ----------------------------------------------------------------------


def _docstring(entry: griffe.Object) -> str:
    return entry.docstring.value.strip() if entry.docstring else ""


def _paragraphs(text: str) -> list[str]:
    """Its paragraphs; what is indented is one, with the empty lines that are in it."""
    found: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text):
        goes_on = bool(found) and found[-1].startswith("    ") and paragraph.startswith("    ")
        if goes_on:
            found[-1] += f"\n\n{paragraph}"
        else:
            found.append(paragraph)
    return found


def _block(text: str) -> str:
    """A block of a docstring: a program, in which `…` may stand for anything, or a list."""
    program = text.replace("…", "...")
    try:
        ast.parse(program)
    except SyntaxError:
        return f"```text\n{text}\n```"
    return f"```python\n{program}\n```"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 40 else f"{flat[:37]}..."


def _named(entry: Entry) -> Iterator[tuple[str, str]]:
    """The names in the annotations of a signature, each with where it is defined."""
    written: list[object] = [getattr(entry, "annotation", None)]
    for form in [entry, *(getattr(entry, "overloads", None) or [])]:
        written += [one.annotation for one in getattr(form, "parameters", [])]
        written.append(getattr(form, "returns", None))
    if entry.is_class:
        init = entry.all_members.get("__init__")
        members = [_defined(one) for one in entry.all_members.values() if _is_ours(one)]
        written += [one.annotation for one in members if one.is_attribute]
        if init is not None and _is_ours(init):
            written += [one.annotation for one in _defined(init).parameters]
    for annotation in written:
        if isinstance(annotation, griffe.Expr):
            for part in annotation.iterate():
                if isinstance(part, griffe.ExprName):
                    yield part.name, part.canonical_path


def _typed(annotation: griffe.Expr | str | None) -> str:
    return "" if annotation is None else f": {annotation}"


def _assigned(name: str, entry: griffe.Attribute) -> str:
    value = "" if entry.value is None else f" = {_short(str(entry.value))}"
    return f"{name}{_typed(getattr(entry, 'annotation', None))}{value}"


def _before(entry: griffe.Function) -> str:
    if "async" in entry.labels:
        return "async "
    return ""


def _called(name: str, entry: griffe.Function, *, before: str = "") -> str:
    """A signature, on one line if it is short, else with a line for each parameter."""
    given = [one for one in entry.parameters if one.name not in ("self", "cls")]
    parameters: list[str] = []
    kinds = griffe.ParameterKind
    seen_star = False
    for index, one in enumerate(given):
        if one.kind is kinds.keyword_only and not seen_star:
            parameters.append("*")
            seen_star = True
        seen_star = seen_star or one.kind is kinds.var_positional
        star = {kinds.var_positional: "*", kinds.var_keyword: "**"}.get(one.kind, "")
        default = "" if star or one.default is None else f" = {_short(str(one.default))}"
        parameters.append(f"{star}{one.name}{_typed(one.annotation)}{default}")
        is_last_before = one.kind is kinds.positional_only and (
            index + 1 == len(given) or given[index + 1].kind is not kinds.positional_only
        )
        if is_last_before:
            parameters.append("/")
    returned = "" if entry.annotation is None else f" -> {entry.annotation}"
    return _wrapped(f"{before}{name}", parameters, returned)


def _wrapped(name: str, parameters: list[str], returned: str) -> str:
    line = f"{name}({', '.join(parameters)}){returned}"
    if len(line) <= WIDTH:
        return line
    rows = "".join(f"    {one},\n" for one in parameters)
    return f"{name}(\n{rows}){returned}"


_MADE_OF_FIELDS = ("Struct", "SealedValue", "NamedTuple")


def _constructor(name: str, entry: griffe.Class, members: dict[str, Entry]) -> str:
    """How one is made: by `__init__`, or by the fields of a struct. "" where nobody makes one."""
    init = entry.all_members.get("__init__")
    if init is not None and _is_ours(init):
        made = _defined(init)
        return _called(f"class {name}", made).removesuffix(" -> None")
    above = [base.path for base in entry.mro()] + [
        str(base) for one in [entry, *entry.mro()] for base in one.bases
    ]
    is_data = any(path.rpartition(".")[2] in _MADE_OF_FIELDS for path in above)
    is_data = is_data or any("dataclass" in str(one.value) for one in entry.decorators)
    if not is_data:
        return ""
    parameters: list[str] = []
    for key, member in members.items():
        if not _is_field(member) or "ClassVar" in str(member.annotation):
            continue
        of = member.parent
        by_keyword = getattr(of, "keywords", {}).get("kw_only") == "True"
        if by_keyword and "*" not in parameters:
            parameters.append("*")
        default = "" if member.value is None else f" = {_short(str(member.value))}"
        parameters.append(f"{key}{_typed(member.annotation)}{default}")
    return _wrapped(f"class {name}", parameters, "")


def _is_field(member: Entry) -> bool:
    return member.is_attribute and "property" not in member.labels


def _is_ours(member: griffe.Object | griffe.Alias) -> bool:
    return (member.final_target if member.is_alias else member).path.startswith("captoken.")


def _unpacked(annotation: griffe.Expr | str | None) -> str | None:
    """Where the TypedDict is defined that a `**` parameter unpacks."""
    if not isinstance(annotation, griffe.ExprSubscript) or str(annotation.left) != "Unpack":
        return None
    return annotation.slice.canonical_path


@cache
def _comments(file: Path) -> dict[int, str]:
    """By line, the comment at its end."""
    source = file.read_text("utf-8")
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {
        token.start[0]: token.string.lstrip("# ")
        for token in tokens
        if token.type == tokenize.COMMENT and token.line[: token.start[1]].strip()
    }


def _comment(member: griffe.Attribute) -> str:
    """The comment at the end of its line, or the one that stands right above it."""
    file, line = member.filepath, member.lineno
    if not isinstance(file, Path) or line is None:
        return ""
    beside = _comments(file).get(member.endlineno or line, "")
    if beside:
        return as_text(beside)
    above: list[str] = []
    lines = file.read_text("utf-8").split("\n")
    for text in reversed(lines[: line - 1]):
        if not text.startswith("# ") or text.startswith("# ---"):
            break
        above.insert(0, text.removeprefix("# "))
    return as_text(" ".join(above))
