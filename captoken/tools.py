"""Decide on tool calls in the agents' process: the adapters of all frameworks use this.

See docs/agents.md; for a plain function, see docs/tools.md.

1. The token is the one that is passed, or else the current one. Without one, the call is denied.
2. The agent's name is what the framework says about who runs. It must be the token's holder. So a
   sub-agent that was handed no token, and still runs under its parent's, can do nothing.
3. An invalid tool name or agent name, or arguments that are no JSON, lead to a denial, not to an
   exception.
4. Inside a permitted call, another run under the same token was handed nothing, whatever its name.
   It is denied, and hands nothing on. A call by the same run, such as by a tool that calls others,
   is decided normally.
5. If a decorated function is called while a request is answered, and no token is held, the grant of
   that request decides, if the decorator's own verifier made it. A grant of another verifier raises
   GuardError. Adapters of frameworks never ask that grant, because an agent holds a token.

The framework's process has the verifier's keys. So this restricts agents that can only call tools,
and does not restrict code in the same process. If tools are in another process, that process must
verify (docs/http.md, docs/mcp.md).
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from types import NoneType, UnionType
from typing import (
    Any,
    ParamSpec,
    TypeAlias,
    TypedDict,
    TypeVar,
    Union,
    Unpack,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from msgspec import structs

from captoken import current
from captoken._format import names
from captoken._format.errors import (
    DelegationError,
    GuardError,
    LimitError,
    NoToken,
    StatementError,
    WideningError,
)
from captoken._format.names import frozen_copy
from captoken._format.spelling import instead_of
from captoken._format.text import SET_PREFIX
from captoken._language import patterns
from captoken._language.access import Access, Caller, NotFinite
from captoken._language.bounds import TOO_LARGE, too_large
from captoken._language.constraints import FREE, NOTHING, Arguments, Call
from captoken._language.costs import NoCost, cost_of, read_cost
from captoken._verification.decision import Decision, Denied
from captoken._verification.grant import Grant, granted
from captoken._verification.telling import Causes, log
from captoken._verification.verifier import AnyVerifier, AsyncVerifier, Verifier
from captoken._writing.token import Token
from captoken.current import AnyGrant, AnyHeld, Held
from captoken.proof import with_proof

_CALLERS = 64  # names of agents that a guard keeps

_NO_CALL = "this is not a call that a token can permit: its name, or arguments that are no JSON"

# The cost of a call by unit, fixed or as a function of (tool, arguments); and the attributes that
# the server knows.
Cost: TypeAlias = Mapping[str, int] | Callable[[str, Mapping[str, Any]], Mapping[str, int]]
Attributes: TypeAlias = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]

# A denial of the guard's own: the code, the text, and the call, where it could be read.
_Refused: TypeAlias = tuple[str, str, Access | None]

_P = ParamSpec("_P")
_R = TypeVar("_R")

# Kinds of parameters that a caller cannot name, or that stand for any number of them.
_NAMELESS = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.VAR_POSITIONAL,
    inspect.Parameter.VAR_KEYWORD,
)


class Who(TypedDict, total=False):
    """The caller, as the framework knows it: keywords of `ToolGuard.check`."""

    agent: str | None
    """Its name."""
    run: object
    """What the framework knows the run by."""
    held: AnyHeld | None
    """The token, where it is not the current one."""


class Stated(TypedDict):
    """What the server itself states about a call: keywords of an Access.

    An agent cannot influence them, because they are not read from the arguments as they came.
    """

    attributes: Mapping[str, Any]
    """What the server knows of the request, by name."""
    cost: Mapping[str, int]
    """What it takes of a budget, by unit."""


def access_to(
    tool: Any,
    arguments: Any,
    *,
    attributes: Any = None,
    cost: Any = None,
) -> Access | None:
    """The Access of a tool call.

    None if no token can permit it: because of an invalid name, arguments that are no JSON, or too
    much of either.
    """
    try:
        stated = _read(arguments, "argument")
        known = _read(attributes, "attribute")
        if too_large(stated, known):
            return None
        return Access(
            tool=tool,
            arguments=stated,
            attributes=known,
            cost={} if cost is None else cost,
        )
    except (TypeError, ValueError, RecursionError):
        return None


def _read(given: Any, what: str) -> dict[str, Any]:
    """Arguments or attributes in a dict, to be measured and then copied: read once. None is none.

    Raises TypeError for what is no mapping, and what it raises.
    """
    return {} if given is None else frozen_copy(given, what)


class Unpriced(ValueError):  # noqa: N818, the name reads as what it is
    """A call whose cost is no amount: none of them is allowed. `access` is the call, at no cost.

    The links are asked about it as well: they know which argument is wrong.
    """

    def __init__(self, why: str, access: Access) -> None:
        """Keep why, and the call."""
        super().__init__(why)
        self.access = access


def access_or_refusal(tool: Any, arguments: Any, why: str) -> Access | tuple[str, str]:
    """The Access of a tool call; or the code and the text of its denial.

    No token permits a number that is not finite (spec 13.7). A call that exceeds `bounds` is denied
    with `too_much_work`. Anything else that is no valid call is denied with `tool` and `why`. The
    arguments are read once. Never raises.
    """
    try:
        stated = _read(arguments, "argument")
        if too_large(stated):
            return TOO_LARGE
        return Access(tool=tool, arguments=stated)
    except NotFinite as error:
        return "argument", str(error)
    except (TypeError, ValueError, RecursionError):
        return "tool", why


def refusal_of_call(tool: Any, arguments: Any, why: str) -> tuple[str, str]:
    """The code and the text of the denial for a call without an Access. Never raises."""
    found = access_or_refusal(tool, arguments, why)
    return ("tool", why) if isinstance(found, Access) else found


def stated_of(
    access: Access,
    cost: Cost | None,
    attributes: Attributes | None,
) -> Stated:
    """What the server's own functions state about a tool call. Their exceptions pass through.

    Each function gets a copy of the arguments, so it cannot change what is decided on. Raises
    Unpriced for an amount that is none.
    """
    tool = access.tool or ""

    def arguments() -> dict[str, Any]:
        return copy.deepcopy(dict(access.arguments or {}))

    known = {} if attributes is None else attributes(tool, arguments())
    try:
        amounts = cost_of(cost, tool, arguments()) if callable(cost) else cost_of(cost)
    except NoCost as error:
        free = Access(tool=tool, arguments=access.arguments, attributes=known, cost=error.free)
        raise Unpriced(str(error), free) from None
    return Stated(attributes=known, cost=amounts)


def agent_name(name: object) -> str:
    """An agent's name as tokens spell it: with hyphens in place of white space.

    The result can still be an invalid name.
    """
    return "-".join(str(name).split())


class _Lent(Held, frozen=True, eq=False, kw_only=True):
    """What is held inside a permitted call: for the run that made it, and no other (rule 4).

    It is a token like any other, and can be handed on by that run. Only the guard asks whose it is.
    """

    run: object

    @classmethod
    def of(cls, mine: Held, run: object) -> _Lent:
        """The same, for one run. What its holder has read and presented goes with it."""
        return cls(
            mine.token,
            mine.signer,
            mine.consents,
            run=run,
            _shown=mine._shown,
            _holder=mine._holder,
            _text=mine._text,
            _at=mine._at,
        )


def calling(
    grant: AnyGrant,
    *,
    run: object = None,
    held: Held | None = None,
) -> AbstractContextManager[AnyGrant]:
    """For adapters, around a permitted call: `grant` is the current grant in it.

    `held`, or by default the current token, stays held for this run only (rule 4). `run` is the
    framework's id of the run, as passed to `check`, or None.
    """
    return current.lending(_Lent.of(current.holding(held), run), grant)


def handing(agent: str | None, *, run: object = None) -> Held:
    """For adapters: the current token, for the agent that is about to hand it on.

    `agent` and `run` are as for `check`. Raises NoToken if no token is current. Raises GuardError
    if it belongs to another agent (rules 2 and 4): for example, if an agent without a guard runs
    inside a tool of a guarded one.
    """
    mine = current.holding()
    if not _is_of(mine, agent) or _is_of_another_run(mine, run):
        raise GuardError(
            f"the agent {agent!r} was given no token, and cannot hand on that of {mine.holder}"
        )
    return mine


def _is_of(mine: Held, agent: str | None) -> bool:
    """Is it held by the agent of that name (rule 2)?

    Yes where the framework has no name for who runs: the verifier then decides without a caller, by
    the token alone.
    """
    return agent is None or agent_name(agent) == mine.holder


def _is_of_another_run(mine: Held, run: object) -> bool:
    """Was it lent to a call that another run makes (rule 4)?

    No where the framework does not know runs. Runs are compared by equality: an adapter takes care
    that two of them are never equal while both go on.
    """
    return run is not None and isinstance(mine, _Lent) and mine.run != run


@contextmanager
def telling(
    error: Callable[[str], Exception],
    told: Callable[[Decision], str] = Decision.for_model,
) -> Generator[None, None, None]:
    """For adapters, around a tool: turns its Denied or StatementError into an error for the model.

    `error` makes it from a text that the model may read, and `told` makes that text from a
    decision. The operator's text is dropped, because it says what others may do.
    """
    try:
        yield
    except REFUSED as refused:
        raise error(refusal_text(refused, told)) from None


# What a tool lets through that is said to the model: by a grant, or by a guarded database.
REFUSED = (Denied, StatementError)


def refusal_text(refused: Denied | StatementError, told: Callable[[Decision], str]) -> str:
    """For adapters: the text for the model about such an exception.

    `told` makes it from a decision.
    """
    return refused.for_model() if isinstance(refused, StatementError) else told(refused.decision)


def presented_to(
    verifier: AnyVerifier,
    mine: Held,
    request: Access | None = None,
) -> str | Token:
    """What is passed to a verifier in this process.

    If the verifier has a name, the token is presented to it; of a set, the token for that name.
    Otherwise it is the token's text, which the verifier may recognise without decoding it. A token
    with discharges is passed as an object, because its text has unbound discharges. So is a token
    that cannot be presented, for example because it is for another server, or a set without a token
    for this one. The verifier then denies it.
    """
    try:
        mine = mine.at(*verifier.audiences)
    except NoToken:
        return SET_PREFIX
    token = mine.one
    if not verifier.audiences:
        text = mine.secret_text
        is_known = len(text) <= verifier.memory.longest and not token.secret_discharges
        return text if is_known else token
    try:
        return _text_for(verifier, mine, token, request)
    except (WideningError, LimitError):
        return token


def _text_for(verifier: AnyVerifier, mine: Held, token: Token, request: Access | None) -> str:
    """What is presented, also where the key that it is bound to is not here: the verifier says so.

    Without a key there is no proof, and with another one a proof that does not hold.
    """
    own = token.unverified.root.audience
    audience = own if own in verifier.audiences else verifier.audiences[0]
    try:
        return mine.present(audience=audience, request=request)
    except (NoToken, DelegationError):
        shown = token.present(audience=audience)
    if mine.signer is None:
        return shown
    return with_proof(
        shown,
        mine.signer,
        audience=audience,
        request=request,
        clock=verifier.clock,
    )


class ToolGuard:
    """Decides on tool calls by the caller's token.

    - `verifier` is a Verifier or an AsyncVerifier. If it has an audience, the token is presented to
      it, with a proof if the token is bound to a key.
    - `cost` is what a call takes from a budget: a mapping by unit, or a function of tool and
      arguments that returns one. If the arguments make an invalid cost, such as -5 cents, the call
      is denied: `argument`.
    - `attributes` is what this server knows about the call, in the same form.
    - With `tell_limits=True` the model is told the limits of a number that is out of range.

    The functions get a copy of the arguments, and their exceptions pass through. An allowed call is
    charged and recorded, whatever happens to it then.
    """

    def __init__(
        self,
        verifier: AnyVerifier,
        *,
        cost: Cost | None = None,
        attributes: Attributes | None = None,
        tell_limits: bool = False,
    ) -> None:
        self._verifier = verifier
        self._blocking = verifier.blocking
        # Then an event loop gains nothing by awaiting it.
        self._at_once = isinstance(verifier, Verifier) and not verifier.waits
        self._cost = read_cost(cost)
        self._attributes = attributes
        _check_called_with_two("cost", self._cost)
        _check_called_with_two("attributes", attributes)
        self._tell_limits = tell_limits is True  # what only looks like a yes tells nothing
        self._causes = Causes()
        self._callers: dict[str, Caller] = {}  # whoever called lately, by the framework's word

    def check(
        self,
        tool: str,
        arguments: Mapping[str, Any],
        *,
        agent: str | None = None,
        run: object = None,
        held: AnyHeld | None = None,
    ) -> Decision:
        """The decision on one call, true if allowed. Its `grant` is for the tool's own accesses.

        `agent` and `run` are the caller and its run, as the framework knows them; None if it does
        not. Never raises on denial.
        """
        mine = _held_or_nothing(held)
        decision: Decision = self._asked(self._blocking, tool, arguments, agent, run, mine)
        return self._log_if_nothing_held(decision, mine)

    def request(
        self,
        tool: str,
        arguments: Mapping[str, Any],
        *,
        agent: str | None = None,
        run: object = None,
        held: AnyHeld | None = None,
    ) -> str | None:
        """What to ask a person before a call; None where no consent would let it through.

        The keywords are those of `check`. It looks, and spends, charges and records nothing. So it
        lets nothing through either: None may as well be for a call that is denied.
        """
        looking = self._looking(self._blocking, tool, arguments, agent, run, _held_or_nothing(held))
        found: Decision | None = looking
        return None if found is None else found.request()

    async def request_async(
        self,
        tool: str,
        arguments: Mapping[str, Any],
        **who: Unpack[Who],
    ) -> str | None:
        """The same from an event loop, which does not block while a store is asked."""
        if self._at_once:
            return self.request(tool, arguments, **who)
        mine = _held_or_nothing(who.get("held"))
        looking = self._looking(
            self._verifier.awaited, tool, arguments, who.get("agent"), who.get("run"), mine
        )
        found: Decision | None = None if looking is None else await looking
        return None if found is None else found.request()

    async def check_async(
        self,
        tool: str,
        arguments: Mapping[str, Any],
        **who: Unpack[Who],
    ) -> Decision:
        """The same from an event loop, which does not block while a store is asked.

        A cancelled call counts if its effects had begun.
        """
        if self._at_once:
            return self.check(tool, arguments, **who)
        mine = _held_or_nothing(who.get("held"))
        awaited = self._asked(
            self._verifier.awaited, tool, arguments, who.get("agent"), who.get("run"), mine
        )
        decision: Decision = await awaited
        return self._log_if_nothing_held(decision, mine)

    def _log_if_nothing_held(self, decision: Decision, mine: Held | None) -> Decision:
        """The decision. The verifier has logged a denial; here, that nothing was held."""
        # Any other code is that of a grant that was asked instead (rule 5).
        if mine is not None or decision.code != "malformed":
            return decision
        if self._causes.due("nothing held", decision.now) is not None:
            log().warning(
                "a tool was called, and no token is in use: run it in `with current.use(token):`"
            )
        return decision

    def for_model(self, decision: Decision, declares: Collection[str] = ()) -> str:
        """For adapters: what the model is told about a decision, as in `Decision.for_model`.

        `declares` are the names of the tool's own arguments.
        """
        return decision.for_model(tell_limits=self._tell_limits, declares=declares)

    def served(self, grant: Grant) -> AnyGrant:
        """For adapters: the grant of `check_async`, for a tool that runs in an event loop.

        With an AsyncVerifier its methods are awaited. A grant by `check` stays as it is, because
        its caller has no event loop to await it.
        """
        return grant.awaited if isinstance(self._verifier, AsyncVerifier) else grant

    def _access(
        self,
        tool: str,
        arguments: Mapping[str, Any],
        mine: Held | Grant | None,
    ) -> Access | _Refused:
        """What is decided on, with what the server says of it; or why no token can permit it.

        `mine` is what it will be decided by: here, that changes nothing.

        The server's functions are asked only about a call that could be one. They see the arguments
        as they will be decided on, and what they do to them changes nothing.
        """
        plain = access_or_refusal(tool, arguments, _NO_CALL)
        if not isinstance(plain, Access):
            return (*plain, None)
        if not (self._attributes or self._cost):
            return plain
        try:
            stated = stated_of(plain, self._cost, self._attributes)
        except Unpriced as error:
            return "argument", str(error), error.access
        access = access_to(tool, plain.arguments, **stated)
        if access is not None:
            return access
        is_large = too_large(plain.arguments, stated["attributes"])
        return (*TOO_LARGE, None) if is_large else ("tool", _NO_CALL, None)

    def _caller(self, agent: str | None) -> Caller | None:
        """Who calls; None where the framework does not say.

        Raises TypeError or ValueError for a name that no token can have: it is nobody's, and is not
        taken for none.
        """
        if agent is None:
            return None
        known = self._callers.get(agent) if type(agent) is str else None
        if known is not None:
            return known
        caller = Caller(agent=names.name(agent_name(agent), "agent"))
        if type(agent) is str:
            if len(self._callers) >= _CALLERS:
                self._callers.clear()
            self._callers[agent] = caller
        return caller

    def _asked(
        self,
        verifier: AnyVerifier,
        tool: str,
        arguments: Mapping[str, Any],
        agent: str | None,
        run: object,
        mine: Held | None,
    ) -> Any:
        """The verifier's decision, of an async one to be awaited.

        A refusal where the call has no access, or nobody calls. The token is verified even so: a
        bad one is the first thing to say, and to record.
        """
        found = self._access(tool, arguments, mine)
        access = found if isinstance(found, Access) else None
        text = self._presented(mine, access)
        if not isinstance(found, Access):  # rule 3
            return verifier.deny(text, *found)
        if mine is not None and _is_of_another_run(mine, run) and _is_of(mine, agent):  # rule 4
            why = "a run inside a tool call, which was handed no token of its own"
            return verifier.deny(text, "caller", why)
        try:
            caller = self._caller(agent)
        except (TypeError, ValueError):  # rule 3
            return verifier.deny(text, "caller", "the agent's name is none that a token can have")
        return verifier.check(text, found, caller=caller)  # rule 2

    def _presented(self, mine: Held | None, access: Access | None) -> str | Token:
        """What the verifier is shown: of nothing, nothing (rule 1)."""
        return "" if mine is None else presented_to(self._verifier, mine, access)

    def _looking(
        self,
        verifier: AnyVerifier,
        tool: str,
        arguments: Mapping[str, Any],
        agent: str | None,
        run: object,
        mine: Held | None,
    ) -> Any:
        """What the verifier would decide, without effects; of an async one to be awaited.

        None where `_asked` refuses by itself, which no consent changes.
        """
        found = self._access(tool, arguments, mine)
        if not isinstance(found, Access) or mine is None:
            return None
        if not _is_of(mine, agent) or _is_of_another_run(mine, run):
            return None
        # It has the holder's name, so that it is one.
        caller = self._caller(agent)
        return verifier.explain(self._presented(mine, found), found, caller=caller)


def _check_called_with_two(keyword: str, function: object) -> None:
    """Raise TypeError for a function that does not take a tool's name and its arguments.

    Not for one whose parameters Python does not know: the first call then tells.
    """
    if not callable(function):
        return
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return
    try:
        signature.bind("", {})
    except TypeError:
        raise TypeError(
            f"{keyword} is called with two arguments, the tool's name and a dict of its arguments: "
            f"write {keyword}=lambda tool, arguments: {{...}}"
        ) from None


def _held_or_nothing(held: AnyHeld | None) -> Held | None:
    """Rule 1: what is passed, or what is current, or None.

    That nothing is held is no error here: it is a denial, which is recorded like others.
    """
    try:
        return current.holding(held)
    except NoToken:
        return None


# --- a function as a tool -------------------------------------------------------------------------


def guarded_tool(
    verifier: AnyVerifier,
    *,
    name: str | None = None,
    names: Mapping[str, str] | None = None,
    cost: Cost | None = None,
    attributes: Attributes | None = None,
) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Decorate a function: the current token decides on each call.

        @guarded_tool(verifier)
        def pay(to: str, cents: int) -> str: ...

        with current.use(token):
            pay("acct-1", cents=120)

    The tool has the function's name, or `name`. Its arguments are the parameters with their
    defaults, copied to plain JSON values. The function gets the same copy. In the function,
    `current.grant()` is the grant of this call.

    A parameter that is None by default, and None in this call, is left out of what is decided on.
    Where the token asks for the argument without `"optional": True`, it is there, as null.

    Where no token is current, and a request is answered that this verifier has let in, the call is
    decided by the grant of that request.

    Parameters that a caller cannot name (`*args`, `**kwargs`, positional-only ones) need a name:
    `names={"args": "files"}` states what `*args` got as one list, `files`. What `**kwargs` got is
    one object.

    `cost` and `attributes` are those of a ToolGuard. A call of a coroutine function is decided on
    when it is awaited. A call of a generator function is decided on at once, for everything that it
    yields. So is one of an async generator: the call itself awaits nothing, even if an
    AsyncVerifier awaits its stores.

    It does not check what the function does. `__wrapped__` is the function without the guard.

    A call raises Denied. It raises TypeError or ValueError for arguments that do not fit the
    function or are no JSON: then nothing is decided or recorded. It raises GuardError during a
    request that another verifier has accepted. The decorator raises TypeError or ValueError for a
    parameter that needs a name or is annotated with a type that is no JSON, for an invalid tool
    name, and for a function without a signature.
    """
    if not isinstance(verifier, (Verifier, AsyncVerifier)):
        kind = type(verifier).__name__
        raise TypeError(f"expected a verifier, not {kind}: write @guarded_tool(verifier)")
    guard = _FunctionGuard(verifier, cost=cost, attributes=attributes)
    renamed = frozen_copy({} if names is None else names, "names")

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        tool = _Tool(function, name, renamed)
        return cast("Callable[_P, _R]", wraps(function)(_asking(tool, guard.of(tool))))

    return decorate


class _FunctionGuard(ToolGuard):
    """Decides on calls of a decorated function, also by the grant of a request (rule 5)."""

    _none_by_default: Collection[str] = ()  # arguments that are left out where they are None

    def of(self, tool: _Tool) -> _FunctionGuard:
        """The guard of one function."""
        guard = copy.copy(self)
        guard._none_by_default = tool.none_by_default
        return guard

    def _access(
        self,
        tool: str,
        arguments: Mapping[str, Any],
        mine: Held | Grant | None,
    ) -> Access | _Refused:
        """As of any guard, without the arguments that are None by default, and None.

        With null in their place, where a token asks for one: the function is called with None, and
        either says so. What the token says of itself decides between the two, and nothing else.
        """
        found = super()._access(tool, arguments, mine)
        absent = {each for each in self._none_by_default if arguments[each] is None}
        if not absent or not isinstance(found, Access):
            return found
        rule = _rule_of(mine, tool, self._verifier.audiences)
        left = {
            argument: value
            for argument, value in (found.arguments or {}).items()
            if argument not in absent or not rule.get(argument, (NOTHING, True))[1]
        }
        return structs.replace(found, arguments=left)

    def _asked(
        self,
        verifier: AnyVerifier,
        tool: str,
        arguments: Mapping[str, Any],
        agent: str | None,
        run: object,
        mine: Held | None,
    ) -> Any:
        served = None if mine is not None else _served()
        if served is None:
            return super()._asked(verifier, tool, arguments, agent, run, mine)
        if not served.made_by(self._blocking):
            raise GuardError(
                f"tool {tool} is called within a request, and its guard has another verifier than "
                "the one that let the request in: give guarded_tool(...) the same verifier object "
                "as protect(...) or the server's guard; or, to call it with this server's own "
                "token, `with captoken.current.use(token):`"
            )
        found = self._access(tool, arguments, served)
        grant = served if isinstance(verifier, Verifier) else served.awaited_by(verifier)
        return grant.check(found) if isinstance(found, Access) else grant.deny(*found)


def _rule_of(mine: Held | Grant | None, tool: str, audiences: tuple[str, ...]) -> Arguments:
    """What a token says of the arguments of a tool, by its own account. Empty where it is nothing.

    For choosing how a call is stated. It permits nothing: a verifier asks each link.
    """
    try:
        said = mine.at(*audiences).one.unverified if isinstance(mine, Held) else mine
    except NoToken:
        return FREE
    calls = None if said is None else said.capability.tool
    rule: Call = None if calls is None else patterns.decided(calls, tool, None)
    return rule or FREE


def _served() -> Grant | None:
    """The grant of the request that is answered here, if there is one."""
    try:
        return current.grant(Grant)
    except NoToken:
        return None


class _Tool:
    """A function, the name that it has as a tool, and the arguments that its parameters are."""

    def __init__(self, function: Callable[..., Any], name: str | None, names: Any) -> None:
        if not inspect.isroutine(function):
            raise TypeError(f"expected a function, not {type(function).__name__}")
        self.function = function
        self.name = function.__name__ if name is None else name
        self._signature = inspect.signature(function)
        self._arguments = _arguments_of(self._signature, names)
        _check_annotations(function)
        self.none_by_default = {
            argument
            for parameter, argument in self._arguments.items()
            if self._signature.parameters[parameter].default is None
        }

        # A name that no access can have would be an error at each call: it is one now.
        Access(tool=self.name, arguments=dict.fromkeys(self._arguments.values()))

    def bind(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> tuple[dict[str, Any], inspect.BoundArguments]:
        """The arguments of a call, copied: for the decision, and for the function.

        Both hold the same values. Raises TypeError or ValueError: they do not fit, or are no JSON.
        """
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        stated: dict[str, Any] = {}
        for parameter, argument in self._arguments.items():
            value = bound.arguments[parameter]
            # Python's own tuple of what `*args` got. Another tuple is no JSON.
            is_rest = self._signature.parameters[parameter].kind is inspect.Parameter.VAR_POSITIONAL
            stated[argument] = list(value) if is_rest else value

        # An access copies what it is made of, and refuses what is no JSON.
        plain = dict(Access(tool=self.name, arguments=stated).arguments or {})
        for parameter, argument in self._arguments.items():
            bound.arguments[parameter] = plain[argument]
        return plain, bound


def _arguments_of(signature: inspect.Signature, names: Mapping[str, str]) -> dict[str, str]:
    """For each parameter the name that its argument has in a token.

    Raises TypeError for a parameter that needs a name and has none, and for a name of no parameter.
    Raises ValueError where two arguments have one name: one of them would not be decided on.
    """
    if next(iter(signature.parameters), None) == "self" and "self" not in names:
        raise TypeError(
            "this is an unbound method: decorate the bound one, "
            "guarded_tool(verifier)(thing.method)"
        )
    unknown = sorted(str(given) for given in names if given not in signature.parameters)
    if unknown:
        raise TypeError(f"names: the function has no parameter {', '.join(unknown)}")
    arguments: dict[str, str] = {}
    for parameter in signature.parameters.values():
        if parameter.kind in _NAMELESS and parameter.name not in names:
            raise TypeError(
                f"the parameter {parameter} has no name for a caller: "
                f'names={{"{parameter.name}": "..."}} gives it one'
            )
        arguments[parameter.name] = names.get(parameter.name, parameter.name)
    if len(set(arguments.values())) < len(arguments):
        raise ValueError("names: two arguments have the same name")
    return arguments


def _check_annotations(function: Callable[..., Any]) -> None:
    """Raise TypeError for a parameter whose annotation only takes values that are no JSON.

    Each call would be one. Where annotations cannot be resolved, it is the call that tells.
    """
    try:
        hints = get_type_hints(function)
    except Exception:  # somebody else's annotation, which may raise anything
        return
    hints.pop("return", None)
    for parameter, hint in hints.items():
        kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        wanted = [kind for kind in kinds if kind is not NoneType]
        advice = [instead_of(kind) if isinstance(kind, type) else "" for kind in wanted]
        if wanted and all(advice):
            raise TypeError(
                f"the parameter {parameter} of {function.__name__} is a {wanted[0].__name__}, "
                f"which JSON does not have: use {advice[0]}, and convert it in the function"
            )


def _asking(tool: _Tool, guard: ToolGuard) -> Callable[..., Any]:
    """What stands in the place of the function: as it is one, a coroutine function, or a generator.

    Each asks first, and raises Denied before anything of the function has run.
    """
    function = tool.function

    def decided(args: Any, kwargs: Any) -> tuple[Grant, inspect.BoundArguments]:
        plain, bound = tool.bind(args, kwargs)
        return granted(guard.check(tool.name, plain)), bound

    def plainly(*args: Any, **kwargs: Any) -> Any:
        grant, bound = decided(args, kwargs)
        with current.serving(grant):
            return function(*bound.args, **bound.kwargs)

    async def awaiting(*args: Any, **kwargs: Any) -> Any:
        plain, bound = tool.bind(args, kwargs)
        grant = granted(await guard.check_async(tool.name, plain))
        with current.serving(guard.served(grant)):
            return await function(*bound.args, **bound.kwargs)

    def in_steps(*args: Any, **kwargs: Any) -> Any:
        grant, bound = decided(args, kwargs)
        return current.serving_during(grant, function(*bound.args, **bound.kwargs))

    def in_awaited_steps(*args: Any, **kwargs: Any) -> Any:
        grant, bound = decided(args, kwargs)
        steps = function(*bound.args, **bound.kwargs)
        return current.serving_during(guard.served(grant), steps)

    if inspect.iscoroutinefunction(function):
        return awaiting
    if inspect.isasyncgenfunction(function):
        return in_awaited_steps
    return in_steps if inspect.isgeneratorfunction(function) else plainly
