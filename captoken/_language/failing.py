"""Why one argument, attribute or column of a row prohibits, told by the check that it failed.

The sentence is for the operator, and has no value: values may be private, and reasons go to logs.
Beside it stands what failed, for whoever words it for others (spec 24.14).

And what a writer has to write, in the place of a value that could mean several constraints.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any, Literal

from msgspec import UNSET, structs

from captoken._format.spelling import named_all, shown, spelled
from captoken._language.access import Access
from captoken._language.constraints import NOTHING, Constraint, Paths, Range, completed, is_path
from captoken._language.reasons import Failing, Reason

# What the writer of a token may have meant.
_MAY_BE_LEFT_OUT = ': if a call may leave it out, add "optional": true in the token'


def call_failed(
    argument: str,
    tool: str | None,
    rule: Mapping[str, tuple[Constraint, bool]],
    stated: Mapping[str, Any],
) -> Reason:
    """The first argument for which a call is refused: in a closed world, or missing from it.

    An argument that is named to keep it out, as `_` is where none is permitted, is told as one that
    is not named.
    """
    constraint, optional = rule.get(argument, (NOTHING, True))
    if optional and constraint == NOTHING:
        return _unknown_argument(argument, tool, rule, stated)

    failing = _failing("argument", argument, constraint, stated)
    text = "must be present" if stated else "must be present, and the call has no arguments"
    if failing.problem == "value":
        text = _unsatisfied(constraint, stated[argument])

    # Clients leave such an argument out, or send null for it. That it is null is all that is told.
    if not optional and stated.get(argument) is None:
        text += _MAY_BE_LEFT_OUT
        failing = structs.replace(failing, words=f"{failing.words}{_MAY_BE_LEFT_OUT}")
    return Reason("argument", f"argument {argument} of tool {tool} {text}", failing)


def _unknown_argument(
    argument: str,
    tool: str | None,
    rule: Mapping[str, tuple[Constraint, bool]],
    stated: Mapping[str, Any],
) -> Reason:
    """An argument that a closed world does not name, or names only to keep it out.

    `rule` is that closed world: what it names is told, but for what must be absent.
    """
    # What must be absent says nothing of what may be there, whatever it is called.
    allowed = [name for name, (constraint, _) in rule.items() if constraint != NOTHING]
    missing = [name for name in allowed if name not in stated and not rule[name][1]]
    if missing:
        words = f"is not among {named_all(allowed)}, and {named_all(missing)} must be present"
    elif allowed:
        free = spelled({argument: {"any": True}})[1:-1]
        words = f"is not among {named_all(allowed)}: to permit it, add {free} to the token"
    else:
        words = "must be left out: the token permits no argument"

    failing = Failing("argument", argument, "unknown", words)
    return Reason("argument", f"argument {argument} of tool {tool} {words}", failing)


def attribute_failed(
    attribute: str,
    constraint: Constraint,
    stated: Mapping[str, Any],
) -> Reason:
    """An attribute that is asked about, and not stated or of another value."""
    failing = _failing("attribute", attribute, constraint, stated)
    text = "is restricted, and the access does not state it"
    if failing.problem == "value":
        text = _unsatisfied(constraint, stated[attribute])
    return Reason("attribute", f"attribute {attribute} {text}", failing)


def row_failed(
    fact: str,
    column: str,
    rule: Mapping[str, Constraint],
    access: Access,
) -> Reason:
    """What `failing_row` found, or conditions that were held without that of a link."""
    rows = f"rows of table {access.table} are restricted"
    if access.row is UNSET and access.becomes is UNSET and access.rows is None:
        return Reason("row", f"{rows}, and the access does not say which rows it touches")
    if fact == "rows":
        why = "this condition is not among those that the server applied"
        return Reason("row", f"{rows}, and {why}")
    if not column:
        return Reason("row", f"{rows}: {access.operation} must state {fact}")
    stated: Any = getattr(access, fact)
    failing = _failing("row" if fact == "row" else "becomes", column, rule[column], stated)
    text = "is not stated"
    if failing.problem == "value":
        text = _unsatisfied(rule[column], stated[column])
    return Reason("row", f"column {column} of table {access.table} {text}", failing)


def _unsatisfied(constraint: Constraint, value: Any) -> str:
    """The end of a sentence, which shows the constraint and no value."""
    why = ""
    if isinstance(constraint, Paths) and not (type(value) is str and is_path(value)):
        why = ": write an absolute path like /a/b, without '.', '..' or a '/' at its end"
    return f"does not satisfy {spelled(constraint.json())}{why}"


def _failing(
    fact: Literal["argument", "attribute", "row", "becomes"],
    name: str,
    constraint: Constraint,
    stated: Mapping[str, Any],
) -> Failing:
    """What failed: it is missing, or `constraint` does not accept it.

    Of a range the bounds stand beside it. Of any other constraint nothing does but the words for
    the operator: its strings are a holder's.
    """
    if name not in stated:
        return Failing(fact, name, "unstated", "is not stated")

    if not isinstance(constraint, Range):
        return Failing(fact, name, "value", _unsatisfied(constraint, stated[name]))
    return Failing(
        fact,
        name,
        "value",
        _missed(constraint, stated[name]),
        least=constraint.low,
        most=constraint.high,
    )


def _missed(bounds: Range, value: Any) -> str:
    """On which side a value is of a range that it is not in."""
    # By exact type, as the range itself asks: a boolean is no number.
    if type(value) is not int and not (type(value) is float and isfinite(value)):
        return "is no number"
    if bounds.low is not None and value < bounds.low:
        return f"is less than {bounds.low}"
    return f"is more than {bounds.high}"


# --- what to write instead ------------------------------------------------------------------------


def no_rules(tools: Any) -> TypeError:
    """For names of tools without what their arguments may be.

    Nobody can say whether any arguments were meant, or none: so it has to be written.
    """
    names = tools if isinstance(tools, (list, tuple, set, frozenset)) else [tools]
    if not names or not all(type(name) is str for name in names):
        names = ["search"]
    entries = spelled({name: {} for name in sorted(names)})
    kind = type(tools).__name__
    return TypeError(f"tools must be a mapping, not {kind}: {entries} leaves all arguments free")


def completed_or_refused(given: Any, held: Constraint, name: Any) -> Any:
    """`completed`, for the constraint on `name`.

    Raises TypeError, with what to write, for a value in its place: it could be meant as that value
    alone, as the most, or as the start of a path.
    """
    if isinstance(given, Mapping):
        return completed(given, held)
    values = given if isinstance(given, (list, tuple, set, frozenset)) else [given]
    wanted = '{"in": [...]}'
    if values and all(type(value) in (str, int, bool) for value in values):
        wanted = spelled({"in": list(values)})
    if type(given) is int and given >= 0:
        wanted += f' for that value alone, or {{"max": {shown(given)}}}'
    kind = type(given).__name__
    raise TypeError(
        f"the constraint on {shown(name)} must be a mapping, not {kind}: write {wanted}"
    )
