"""What is being attempted, and who is known to call (spec, "Access").

Facts, stated by the resource server. An access or a caller that holds an illegal fact is not made.

A caveat asks about these facts and about nothing else. So whatever the server does not state, no
caveat can restrict: it can only prohibit for the lack of it (spec 15.10). And whatever is stated
wrongly is judged wrongly. Two mistakes are answered here, as early as possible:

- An illegal fact raises at once, where the access is made (spec 7.7). It is a mistake of the
  program, and not a denial that somebody has to explain.
- Values are copied, in one reading (spec 7.10). A list that is changed after the check would else
  be another access, and so would a mapping that says something else the second time.

Names are compared code point by code point (spec 4.6). A server that folds case, in table names
for example, states the folded name.

What is not checked here: whether the table, the tool or the columns exist, and whether the caller
may be trusted. A cost is the server's word too, and nobody can prove it to others (spec 7.9).

Lengths are not bounded, since the server states these facts and has read them already. Depth is
bounded by Python's stack alone, and going beyond it is a ValueError.

How each fact is spelled:

    table, tool     names in dot-separated segments, without `*`: `market.eu`
    operation       an ASCII name: `select`
    columns         free names, none of them `*`
    row, becomes    columns to any JSON values, or None: there is no such row
    rows            conditions that the server has held: columns to constraints, as a token has them
    arguments       free names to any JSON values, of any length
    attributes      likewise; they belong to the request, whatever it is
    cost            units to integers from 0 to 2^53 − 1

    Access(table="sales", operation="select")    # does not state its columns
    Access()                                     # legal; a link that names a domain refuses it
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from math import ceil, floor, isfinite
from typing import Any, NamedTuple, cast

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import force_setattr

from captoken._format import names
from captoken._format.encoding import MAX_INTEGER
from captoken._format.names import frozen_copy
from captoken._format.spelling import json_text, no_json, shown, written
from captoken._language.constraints import RowRule, read_constraint


class NotFinite(ValueError):  # noqa: N818, the name reads as what it is
    """A number in a fact is NaN or infinite: JSON has no spelling for it.

    Whoever guards the calls of clients tells it from what is no access at all: such a number is the
    client's, and is denied as an argument (spec 13.7).
    """


def _value(value: Any, what: str) -> Any:
    """A copy of a JSON value of any size (spec 7.5).

    A copy, so that whoever stated it cannot change it between the check and the decision. By exact
    types: a subclass may compare as it likes. Raises TypeError for what JSON does not have,
    NotFinite for NaN and infinity. A lone surrogate is UnicodeEncodeError and deep nesting
    RecursionError: `facts_of` catches both.
    """
    kind = type(value)
    if value is None or kind is bool or kind is int:
        return value
    if kind is str:
        # The only strings that UTF-8 cannot spell. Everything else in a value is data (spec 4.9).
        value.encode()  # of a lone surrogate a UnicodeEncodeError, which `facts_of` catches
        return value
    if kind is float:
        # JSON has no spelling for these, and NaN is not even equal to itself.
        if not isfinite(value):
            raise NotFinite(f"{what} is not a finite number")
        return value
    # Copied level by level. A tuple or a set is no JSON value, and is refused below.
    if kind is list:
        return _items([*value], what) if value else []
    if kind is dict:
        return _object(dict(value), what) if value else {}
    raise no_json(what, kind)


def _object(copied: dict[Any, Any], what: str) -> dict[str, Any]:
    """An object, each item a copy: a small one item by item, and so a key that is no string."""
    if len(copied) < _FEW or not _are_strings(copied):
        return {_key(key, what): _value(item, what) for key, item in copied.items()}
    return dict(zip(copied, _items([*copied.values()], what), strict=True))


def _items(values: list[Any], what: str) -> list[Any]:
    """The items of a list or the values of an object, each a copy. Takes the list for its own.

    What needs no copy is looked at all at once, since a client sends as many items as it likes. A
    few are sooner gone through.
    """
    if len(values) < _FEW:
        return [_value(item, what) for item in values]
    if _WHOLE.issuperset(map(type, values)) or _are_strings(values):
        return values
    return [_value(item, what) for item in values]


_FEW = 8
_WHOLE = frozenset((int, bool, type(None)))
_STRINGS = frozenset((str,))


def _are_strings(values: Collection[Any]) -> bool:
    """Are all of them strings? Raises UnicodeEncodeError for one that UTF-8 cannot spell."""
    if not _STRINGS.issuperset(map(type, values)):
        return False
    "".join(values).encode()
    return True


def _key(key: Any, what: str) -> str:
    """A key inside a value: any string that UTF-8 can spell, not a free name.

    Raises TypeError for no string, and UnicodeEncodeError as above.
    """
    names.exact_str(key, f"a key in {what}").encode()
    return str(key)


def facts_of(given: Any, what: str) -> dict[str, Any]:
    """Arguments or attributes, copied: names to values (spec 7.2, 7.5).

    Checks form alone, not whether a tool has such an argument. Raises TypeError or ValueError, also
    for what is nested too deeply.
    """
    stated = frozen_copy(given, what)
    try:
        facts = {}
        # The name is checked before its value, so that the message can show it.
        for key, item in stated.items():
            name, kind = names.free_name(key, what), type(item)
            if kind is str:
                item.encode()  # as in `_value`, without the words for it: most facts are these
            elif kind not in _WHOLE:
                item = _value(item, f"{what} {shown(key)}")
            facts[name] = item
        return facts
    # A stranger's arguments may be nested without end. That is no error of this program.
    except RecursionError:
        raise ValueError(f"{what} is nested too deeply") from None
    except UnicodeEncodeError:
        raise ValueError(f"{what} contains a lone surrogate, which UTF-8 cannot encode") from None


def _columns(given: Any) -> tuple[str, ...]:
    """The columns that are touched, in the order given (spec 7.2).

    A single string is refused, since it would be read as a list of its letters. So is a mapping,
    as the caveat's {"sales": ["region"]}, and `*`: an access names what it touches, and only a
    caveat may say "all". Raises TypeError or ValueError.
    """
    # Both are iterable: `columns="id"` would be the two columns `i` and `d`.
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        raise TypeError(f"columns must be a list of names, not {type(given).__name__}")
    # Order and repetition are kept, and mean nothing to any caveat.
    columns = tuple(names.free_name(column, "column") for column in given)
    _check_columns(columns)
    return columns


def _check_columns(columns: Collection[str]) -> None:
    """Raise ValueError for `*`, which is no column."""
    if "*" in columns:
        raise ValueError("'*' is not a column: name each column")


def _conditions(given: Any) -> tuple[dict[str, Any], ...]:
    """The conditions that a server has held, each from columns to constraints (spec 7.12).

    As `grant.rows` gives them. Raises TypeError or ValueError.
    """
    if not isinstance(given, (list, tuple)):
        raise TypeError(f"rows must be a list of conditions, not {type(given).__name__}")
    made = tuple(facts_of(condition, "a column of rows") for condition in given)
    for condition in made:
        for stated in condition.values():
            read_constraint(stated)
    return made


def amount(value: Any, what: str) -> int:
    """An integer from 0 to 2^53 − 1: so many of something. `what` is for the message.

    Raises TypeError or ValueError.
    """
    # By exact type: True is no amount, and neither is 1.0.
    if type(value) is not int:
        raise TypeError(f"{what} must be an int, not {type(value).__name__}")
    if not 0 <= value <= MAX_INTEGER:
        raise ValueError(f"{what} must not be negative, nor above {MAX_INTEGER}")
    return value


def amounts(given: Any, what: str) -> dict[str, int]:
    """Integers from 0 to 2^53 − 1, by unit (spec 7.9).

    `what` is for the message. What a unit means is not known here. A negative cost would give
    something back, so it is refused. Raises TypeError or ValueError.
    """
    read = frozen_copy(given, what)
    for unit, value in read.items():
        names.name(unit, "unit")
        amount(value, f"{what} in {unit}")
    return read


class Statement(NamedTuple):
    """What a step of several accesses is, where a person is to consent to it: a SQL text, say.

    `parameters` are its values in order, each as its type and its text: `("integer", "5")`. Both
    are part of what is consented to (spec 47.5).
    """

    text: str
    parameters: tuple[tuple[str, str], ...] = ()


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller tries to do: `table` and `operation` with `columns`, or `tool` and `arguments`.

    It may state both, and also `attributes`. `cost` is the most that it costs, in units of your
    own: `{"usd_cents": 5}`. A token with a `budget` is charged this amount.

        Access(table="sales", operation="select", columns=("region", "amount"))
        Access(tool="send_mail", arguments={"to": "a@example.org"}, cost={"mails": 1})

    If a token restricts rows, state the row: `row` as it is stored, `becomes` as it will be. A
    select or delete needs the first, an insert the second, and all other operations need both. None
    says that there is no such row. Or enforce the conditions that `grant.rows(table)` returned, and
    state them in `rows`.

        Access(table="orders", operation="select", row={"id": 7, "tenant": "acme"})

    Arguments and attributes are data: any JSON value, copied. `columns=()` states that the access
    touches no column. Columns that are left out are not stated, and a caveat that asks for them
    prohibits (spec 15.10).

    The core compares what is stated. It cannot know whether the server then does what it stated
    (spec 7.8). State facts from the parsed request, never from a summary that the caller sent.

    Raises TypeError or ValueError for a fact of the wrong type or with an illegal name, for half a
    pair, for columns or rows without a table, and for arguments without a tool (spec, "Access").
    """

    table: str | None = None
    operation: str | None = None
    columns: Iterable[str] | None = None
    tool: str | None = None
    arguments: Mapping[str, Any] | None = None
    attributes: Mapping[str, Any] = {}
    cost: Mapping[str, int] = {}
    row: Mapping[str, Any] | UnsetType | None = UNSET
    becomes: Mapping[str, Any] | UnsetType | None = UNSET
    rows: Sequence[Mapping[str, Any]] | None = None

    def __repr__(self) -> str:
        """As the call that makes it. Never raises, whatever the values are."""
        left_out = {"row": self.row is UNSET, "becomes": self.becomes is UNSET}
        left_out["rows"] = self.rows is None
        shown = [name for name in self.__struct_fields__ if not left_out.get(name)]
        stated = [f"{name}={written(getattr(self, name))}" for name in shown]
        return f"{type(self).__name__}({', '.join(stated)})"

    def __post_init__(self) -> None:
        # An access is frozen once made. So `force_setattr` puts the copies in place, only here.
        """Check every fact, and replace what could change by copies.

        Half a pair is refused, since a caveat on the other half would have nothing to ask about.
        """
        if (self.table is None) != (self.operation is None):
            left_out = "operation" if self.operation is None else "table"
            raise ValueError(f"table and operation go together: {left_out} is missing")
        if self.table is not None:
            # A `*` in a name would look like a pattern in a caveat. An operation has none either
            # (spec 4.5, 7.2).
            names.segmented(self.table, "table")
            names.name(self.operation, "operation")
        if self.columns is not None:
            if self.table is None:
                raise ValueError("columns need a table: state table and operation as well")
            force_setattr(self, "columns", _columns(self.columns))
        if self.row is not UNSET or self.becomes is not UNSET or self.rows is not None:
            self._copy_rows()
        # Both a table and a tool may be stated: then a link must be open in both domains (spec
        # 18.3).
        if self.tool is not None:
            # A tool stated without arguments states that it has none, and a closed world may ask.
            names.segmented(self.tool, "tool")
            arguments = {} if self.arguments is None else facts_of(self.arguments, "argument")
            force_setattr(self, "arguments", arguments)
        elif self.arguments is not None:
            raise ValueError("arguments need a tool: state tool as well")
        # Most accesses state neither attributes nor cost; these need no look at each item. Only an
        # empty dict is known to say nothing: another mapping may be equal to one, and say more.
        given, cost = self.attributes, self.cost
        no_attributes = type(given) is dict and not given
        force_setattr(self, "attributes", {} if no_attributes else facts_of(given, "attribute"))
        no_cost = type(cost) is dict and not cost
        force_setattr(self, "cost", {} if no_cost else amounts(cost, "cost"))

    def _copy_rows(self) -> None:
        """Check what is stated of rows, and replace it by copies (spec 7.11, 7.12)."""
        if self.table is None:
            raise ValueError("a row needs a table: state table and operation as well")
        for fact in ("row", "becomes"):
            row = getattr(self, fact)
            if row is UNSET:
                continue
            if self.rows is not None:
                raise ValueError(
                    f"state {fact}, or the conditions that were held in rows, but not both"
                )
            if row is not None:
                copied = facts_of(row, "column")
                _check_columns(copied)
                force_setattr(self, fact, copied)
        if self.rows is not None:
            force_setattr(self, "rows", _conditions(self.rows))

    @property
    def domains(self) -> tuple[str, ...]:
        """The domains whose facts are stated (spec 18.1): none, one or both.

        Attributes and cost are of no domain.
        """
        # In this order wherever domains are told.
        stated = {"data": self.table, "tool": self.tool}
        return tuple(domain for domain, fact in stated.items() if fact is not None)

    @property
    def summary(self) -> str:
        """What is attempted, in a line, without the values of arguments and attributes.

        Values may be private, and this goes to logs. Names are not escaped here. Not to be parsed.
        """
        # The parts are in the order of the facts: data, tool, attributes, cost.
        parts = []
        if self.table is not None:
            # Columns that are not stated, and columns that are none, read differently.
            columns = ""
            if self.columns is not None:
                columns = f" ({', '.join(self.columns) or 'no columns'})"
            parts.append(f"{self.operation} on table {self.table}{columns}")
        if self.tool is not None:
            parts.append(f"tool {self.tool}({', '.join(self.arguments or ())})")
        if self.attributes:
            parts.append(f"with {', '.join(self.attributes)}")
        if self.cost:
            cost = ", ".join(f"{amount} {unit}" for unit, amount in sorted(self.cost.items()))
            parts.append(f"costing {cost}")
        return " and ".join(parts) or "nothing in particular"

    def needed(self) -> dict[str, Any]:
        """The keywords of the smallest grant that permits this access, values included.

        For a hint after a denial. Does not look at any token, and does not say that the grant
        should be given. Of rows it says nothing: which of them a task needs, one row does not show.
        Where no constraint can name a value, it is the narrowest around it, or `any`: see
        `narrowest`.
        """
        keywords: dict[str, Any] = {}
        if self.table is not None:
            # `allow` ties the operation to the table, where two lists would permit every pair.
            keywords["allow"] = {self.table: [self.operation]}
            if self.columns is not None:
                keywords["columns"] = {self.table: sorted(set(self.columns))}
        if self.tool is not None:
            # An empty rule leaves all free: one that permits none has one that nothing satisfies.
            none = {"_": {"in": [], "optional": True}}
            keywords["tools"] = {self.tool: _exactly_all(self.arguments or {}) or none}
        if self.attributes:
            keywords["where"] = _exactly_all(self.attributes)
        return keywords

    def needed_text(self) -> str:
        """`needed` for people: the names of arguments and attributes, not their values.

        One line, for messages. It is JSON in parts, and not meant to be read back.
        """
        keywords = self.needed()
        if self.tool is not None:
            # Values may be secrets of the caller: this text goes into messages and logs.
            arguments = dict.fromkeys(self.arguments or {}, "as stated")
            keywords["tools"] = {self.tool: arguments or "without arguments"}
        if self.attributes:
            keywords["where"] = dict.fromkeys(self.attributes, "as stated")
        return ", ".join(
            f"{key}={json_text(value, ascii_alone=True)}" for key, value in keywords.items()
        )


def _exactly_all(facts: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """For each fact the narrowest constraint that accepts its value."""
    return {key: narrowest([value]) for key, value in facts.items()}


def narrowest(values: Collection[Any]) -> dict[str, Any]:
    """The narrowest constraint that accepts all `values` and that writers write (spec, section 13).

    Strings, integers and booleans are listed. Fractions are in a range, from one integer to
    another. Lists have an `each` for all their items together, and are as long as the longest.

    Others are `any`: null, objects, large numbers, strings that are no free name or not in normal
    form C, and what is of two of these kinds. Never raises.

        narrowest(["eu", "us"])         # {"in": ["eu", "us"]}
        narrowest([2.5])                # {"min": 2, "max": 3}
        narrowest([["eu"], ["us"]])     # {"each": {"in": ["eu", "us"]}, "most": 1}
    """
    return _around(values, _DEEPEST)


_DEEPEST = 4  # of `each` in `each` (spec 13.17)
_ROOM = 1024  # characters of what is in a list: a link has not room for any number of items


def _around(values: Collection[Any], depth: int) -> dict[str, Any]:
    """What `narrowest` says, with at most so many `each` in each other."""
    if all(map(_is_listed, values)):
        # Each with its type: True is not 1. And by it first, since two types have no order.
        typed = {(type(value).__name__, value) for value in values}
        return {"in": [value for _, value in sorted(typed)]}

    if all(type(value) in (int, float) for value in values):
        low, high = floor(min(values)), ceil(max(values))
        if low >= -MAX_INTEGER and high <= MAX_INTEGER:
            return {"min": low, "max": high}

    if depth > 0 and all(type(value) is list for value in values):
        inside = _around([item for value in values for item in value], depth - 1)
        if len(json_text(inside, ascii_alone=True)) > _ROOM:
            inside = {"any": True}
        return {"each": inside, "most": max(map(len, values))}
    return {"any": True}


def _is_listed(value: Any) -> bool:
    """Can writers name it in a list?"""
    kind = type(value)
    if kind is str:
        try:
            names.free_name(value, "a value")
            # Writers refuse what is not in normal form C (spec 4.7), so it cannot be listed.
            names.composed(value)
        except ValueError:
            return False
        return True
    # A list takes integers that every JSON reader reads alike.
    return kind is bool or (kind is int and -MAX_INTEGER <= value <= MAX_INTEGER)


# What an operation touches: the row as it is stored, or as it will be. Any other may touch both.
_TOUCHED = {"select": ("row",), "delete": ("row",), "insert": ("becomes",)}
_BOTH = ("row", "becomes")


def failing_row(rule: RowRule, access: Access) -> tuple[str, str] | None:
    """The fact and the column for which an access is refused that states rows, or None.

    The column is empty where the row has to be stated. Of what may touch both, both have to be, and
    one of the two may be None: there is no such row. A column that a row lacks satisfies nothing.
    """
    rows = {"row": access.row, "becomes": access.becomes}
    touched = _TOUCHED.get(access.operation or "", _BOTH)
    stated = {fact: row for fact, row in rows.items() if type(row) is dict}
    for fact in touched:
        if fact not in stated and (rows[fact] is UNSET or stated.keys().isdisjoint(touched)):
            return fact, ""
    for fact, row in stated.items():
        for column, constraint in rule.items():
            if column not in row or not constraint.accepts(row[column]):
                return fact, column
    return None


def beside(access: Access, context: Mapping[str, Any]) -> Access:
    """The same access, with facts of the moment among its attributes (spec 7.13).

    `context` is a copy that `facts_of` made. What the access states itself stays: where both state
    a name, the plan denies.
    """
    made: Access = cast("Any", access).__copy__()  # all that it holds was checked and copied
    force_setattr(made, "attributes", {**context, **access.attributes})
    return made


class Asks(msgspec.Struct, frozen=True):
    """A consent that is missing: of which key, after which link, and to what.

    A refusal has it. `Decision.request` makes a text of it.
    """

    by: bytes  # the Ed25519 public key
    link: int  # the place of the link in the chain
    state: bytes  # of the chain after that link: it commits to it, and is no secret (28.3)
    audience: str  # the name of the server
    accesses: tuple[Access, ...]
    statement: Statement | None


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who calls, as far as the server's own authentication knows: the agent, the task, or both.

    Never fill this from the token or from what the caller says of itself (spec 7.6). That would
    compare the token with itself, and a stolen one would always pass. If you know nothing, pass no
    Caller. An empty Caller raises, so that a look-up that found nobody does not count as a check.

        Caller(agent="sales-agent")        # from the client certificate, for example

    Does not check that there is such an agent. Raises TypeError or ValueError for no name.
    """

    agent: str | None = None
    task: str | None = None

    def __post_init__(self) -> None:
        """Form alone: `agent` is a name, `task` a task path (spec 4.1, 4.2)."""
        # An empty Caller would compare nothing, and yet look like a check to whoever reads it.
        if self.agent is None and self.task is None:
            raise ValueError("a Caller needs the agent, the task or both: Caller(agent=…)")
        if self.agent is not None:
            names.name(self.agent, "agent")
        if self.task is not None:
            names.task(self.task)
