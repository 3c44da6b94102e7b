"""The nodes of the tree that the parser makes of a statement: each kind, with all of its fields.

`select s.id from sales s` is in JSON, without places and flags:

    {"SelectStmt": {
        "targetList": [{"ResTarget": {"val": {"ColumnRef": {"fields": [
            {"String": {"sval": "s"}}, {"String": {"sval": "id"}}]}}}}],
        "fromClause": [{"RangeVar": {"relname": "sales", "alias": {"aliasname": "s"}}}]}}

A node of it is an object of a class of that name: `type(node).__name__` is its kind. What a text
does not say is not there in JSON; the field is None. A list is a list, of nodes, names, lists and
None. A String is a name, and a `str` here: strings of the text are in constants. An alias, and all
else that can be of one kind alone, comes without the name of its kind. It is in the list of kinds,
behind a colon.

T2. What is on no list is refused: a kind when it is walked (`walk`), a field here. So a field that
a later grammar adds, or calls otherwise, is not overlooked.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn

from captoken.adapters._postgres.text import RefusedError

# PostgreSQL cuts longer names off, and knows them by what is left. The library does not.
_NAME_BYTES = 63
_ANY_CHARACTERS = _NAME_BYTES // 4  # of whatever length

# The types of JSON that are something else in a tree. Flags and numbers are themselves.
_GROW = (dict, list, str)

# As the library's own description has them, `pg_query.proto`, for PostgreSQL 18.
_KINDS = """
A_ArrayExpr: elements list_start list_end location
A_Const: ival fval boolval sval bsval isnull location
A_Expr: kind name lexpr rexpr rexpr_list_start rexpr_list_end location
A_Indices: is_slice lidx uidx
A_Indirection: arg indirection
A_Star:
Alias: aliasname colnames
BitString: bsval
Boolean: boolval
BooleanTest: arg booltesttype location
BoolExpr: boolop args location
CaseExpr: casetype casecollid arg args defresult location
CaseWhen: expr result location
CoalesceExpr: coalescetype coalescecollid args location
CollateClause: arg collname location
ColumnDef: colname typeName:TypeName compression inhcount is_local is_not_null is_from_type
    storage storage_name raw_default cooked_default identity identitySequence:RangeVar
    generated collClause:CollateClause collOid constraints fdwoptions location
ColumnRef: fields location
CommonTableExpr: ctename aliascolnames ctematerialized ctequery
    search_clause:CTESearchClause cycle_clause:CTECycleClause location cterecursive
    cterefcount ctecolnames ctecoltypes ctecoltypmods ctecolcollations
CTECycleClause: cycle_col_list cycle_mark_column cycle_mark_value cycle_mark_default
    cycle_path_column location cycle_mark_type cycle_mark_typmod cycle_mark_collation
    cycle_mark_neop
CTESearchClause: search_col_list search_breadth_first search_seq_column location
DeleteStmt: relation:RangeVar usingClause whereClause returningClause:ReturningClause
    withClause:WithClause
Float: fval
FuncCall: funcname args agg_order agg_filter over:WindowDef agg_within_group agg_star
    agg_distinct func_variadic funcformat location
GroupingFunc: args refs agglevelsup location
GroupingSet: kind content location
IndexElem: name expr indexcolname collation opclass opclassopts ordering nulls_ordering
InferClause: indexElems whereClause conname location
InsertStmt: relation:RangeVar cols selectStmt onConflictClause:OnConflictClause
    returningClause:ReturningClause withClause:WithClause override
Integer: ival
IntoClause: rel:RangeVar colNames accessMethod options onCommit tableSpaceName viewQuery skipData
JoinExpr: jointype isNatural larg rarg usingClause join_using_alias:Alias quals alias:Alias
    rtindex
JsonAggConstructor: output:JsonOutput agg_filter agg_order over:WindowDef location
JsonArgument: val:JsonValueExpr name
JsonArrayAgg: constructor:JsonAggConstructor arg:JsonValueExpr absent_on_null
JsonArrayConstructor: exprs output:JsonOutput absent_on_null location
JsonArrayQueryConstructor: query output:JsonOutput format:JsonFormat absent_on_null location
JsonBehavior: btype expr coerce location
JsonFormat: format_type encoding location
JsonFuncExpr: op column_name context_item:JsonValueExpr pathspec passing output:JsonOutput
    on_empty:JsonBehavior on_error:JsonBehavior wrapper quotes location
JsonIsPredicate: expr format:JsonFormat item_type unique_keys location
JsonKeyValue: key value:JsonValueExpr
JsonObjectAgg: constructor:JsonAggConstructor arg:JsonKeyValue absent_on_null unique
JsonObjectConstructor: exprs output:JsonOutput absent_on_null unique location
JsonOutput: typeName:TypeName returning:JsonReturning
JsonParseExpr: expr:JsonValueExpr output:JsonOutput unique_keys location
JsonReturning: format:JsonFormat typid typmod
JsonScalarExpr: expr output:JsonOutput location
JsonSerializeExpr: expr:JsonValueExpr output:JsonOutput location
JsonTable: context_item:JsonValueExpr pathspec:JsonTablePathSpec passing columns
    on_error:JsonBehavior alias:Alias lateral location
JsonTableColumn: coltype name typeName:TypeName pathspec:JsonTablePathSpec format:JsonFormat
    wrapper quotes columns on_empty:JsonBehavior on_error:JsonBehavior location
JsonTablePathSpec: string name name_location location
JsonValueExpr: raw_expr formatted_expr format:JsonFormat
LockingClause: lockedRels strength waitPolicy
MergeStmt: relation:RangeVar sourceRelation joinCondition mergeWhenClauses
    returningClause:ReturningClause withClause:WithClause
MergeSupportFunc: msftype msfcollid location
MergeWhenClause: matchKind commandType override condition targetList values
MinMaxExpr: minmaxtype minmaxcollid inputcollid op args location
MultiAssignRef: source colno ncolumns
NamedArgExpr: arg name argnumber location
NullTest: arg nulltesttype argisrow location
OnConflictClause: action infer:InferClause targetList whereClause location
ParamRef: number location
RangeFunction: lateral ordinality is_rowsfrom functions alias:Alias coldeflist
RangeSubselect: lateral subquery alias:Alias
RangeTableFunc: lateral docexpr rowexpr namespaces columns alias:Alias location
RangeTableSample: relation method args repeatable location
RangeVar: catalogname schemaname relname inh relpersistence alias:Alias location
ResTarget: name indirection val location
ReturningClause: options exprs
ReturningOption: option value location
RowExpr: args row_typeid row_format colnames location
SelectStmt: distinctClause intoClause:IntoClause targetList fromClause whereClause groupClause
    groupDistinct havingClause windowClause valuesLists sortClause limitOffset limitCount
    limitOption lockingClause withClause:WithClause op all larg:SelectStmt rarg:SelectStmt
SetToDefault: typeId typeMod collation location
SortBy: node sortby_dir sortby_nulls useOp location
SQLValueFunction: op type typmod location
SubLink: subLinkType subLinkId testexpr operName subselect location
TypeCast: arg typeName:TypeName location
TypeName: names typeOid setof pct_type typmods typemod arrayBounds location
UpdateStmt: relation:RangeVar targetList whereClause fromClause
    returningClause:ReturningClause withClause:WithClause
WindowDef: name refname partitionClause orderClause frameOptions startOffset endOffset
    location
WithClause: ctes recursive location
"""


class Node:
    """A node of the tree. Each kind is a class below this one, which knows its fields."""


class _Kind(NamedTuple):
    """A kind of node: its class, its fields, and which of them hold what kind without its name."""

    made: type[Node]
    fields: frozenset[str]
    inner: dict[str, str]


def _kinds() -> dict[str, _Kind]:
    kinds: dict[str, _Kind] = {}
    for entry in _KINDS.strip().replace("\n    ", " ").splitlines():
        name, _, rest = entry.partition(":")
        pairs = [word.partition(":") for word in rest.split()]
        fields = [field for field, _, _ in pairs]
        kinds[name] = _Kind(
            made=type(name, (Node,), dict.fromkeys(fields)),
            fields=frozenset(fields),
            inner={field: kind for field, colon, kind in pairs if colon},
        )
    return kinds


KINDS = _kinds()

# What is in it is no name, and nobody looks at it: it stays as JSON has it.
_CONSTANT = KINDS["A_Const"]


def tree_of(statement: dict[str, Any]) -> Node:
    """The tree of a statement, out of the JSON, whose objects become the nodes.

    Without recursion: how deep a statement nests is up to whoever wrote it. Raises RefusedError
    for a field that is on no list.
    """
    to_come: list[tuple[_Kind, Node]] = []
    root: Node = _grown(statement, None, to_come)
    while to_come:
        kind, node = to_come.pop()
        fields = vars(node)
        if not fields.keys() <= kind.fields:
            _refuse(kind.made.__name__)
        for field, value in fields.items():
            if type(value) in _GROW:
                fields[field] = _grown(value, kind.inner.get(field), to_come)
    return root


def nodes_in(tree: Any) -> Iterator[Node]:
    """A node and all that are below it. Without recursion, as the tree was made."""
    to_come = [tree]
    while to_come:
        item = to_come.pop()
        if isinstance(item, Node):
            yield item
            to_come += vars(item).values()
        elif isinstance(item, list):
            to_come += item


def take_apart(tree: Any) -> None:
    """Empty a tree that nobody needs any more, from its top down.

    Python lets go of what is in a node inside of letting go of the node. Of a deep tree that takes
    more than a small stack has, and the process would end. Without recursion, as it was made.
    """
    to_come = [tree]
    while to_come:
        item = to_come.pop()
        inner = vars(item) if isinstance(item, Node) else item
        if isinstance(inner, dict):
            to_come += inner.values()
        elif isinstance(inner, list):
            to_come += inner
        else:
            continue
        inner.clear()


def _grown(value: Any, kind: str | None, to_come: list[tuple[_Kind, Node]]) -> Any:
    """What an object, a list or a string of JSON is in the tree.

    `kind` is that of an object without its name. A node whose fields are to be looked at is put in
    `to_come`. Lists nest as deep as the grammar says, not as the text does: so this recursion has
    an end that no text moves.
    """
    if type(value) is str:
        # A name as PostgreSQL has it: what there is room for, in whole characters.
        if len(value) <= _ANY_CHARACTERS:
            return value
        return value.encode()[:_NAME_BYTES].decode(errors="ignore")
    if type(value) is list:  # where an empty object is no node
        return [_grown(item, None, to_come) if item else None for item in value]

    name = kind
    if name is None:
        (name, value), *more = value.items() or [("", {})]
        if more:
            _refuse(name)
    if name in ("String", "List"):
        (value,) = value.values()
        return _grown(value, None, to_come)

    known = KINDS.get(name)
    if known is None:
        return type(name, (Node,), {})()  # nobody is to look into it
    node = known.made()
    node.__dict__ = value
    if known is not _CONSTANT:
        to_come.append((known, node))
    return node


def _refuse(kind: str) -> NoReturn:
    raise RefusedError("operation", f"{kind} is not granted in this place")
