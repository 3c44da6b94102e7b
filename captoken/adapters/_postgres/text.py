"""What a PostgreSQL statement names, by the server's own grammar: its tables, columns, functions and types.

Rules (cited as T1 …):

T1. One statement of at most 100,000 bytes, 3,000 tokens that nest and 200 tables: select, values, insert, update, delete
    or merge.
T2. Every kind of node is on a list. What is on none is refused, so that new grammar is refused until somebody reads it.
T3. The name of a CTE excuses an unqualified name where rows are read, in its scope; never the target of a write.
T4. A column that is not qualified belongs to every table in sight, there or outside, that has one of the name; one that is
    qualified, to every table in sight that goes by the qualifier. So too many are named rather than too few.
T5. `*`, a whole row, NATURAL and renamed columns (`t as a(x, y)`) are all columns, those that are added later too.
T6. Functions are on a list, and PostgreSQL's own; so are types. Operators are unqualified or of pg_catalog.
T7. A name after a dot is a call (`(x).name` is `name(x)`), unless it is a column of every table that goes by the qualifier.

Nothing here knows a database: `Text` is what the text says, and `_postgres_plan` asks a catalog what that means.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple, NoReturn, TypeAlias

from pglast import ast, enums
from pglast.parser import ParseError, parse_sql, scan
from psycopg import errors

Table: TypeAlias = tuple[str, str]  # schema and name
SYSTEM_COLUMNS = frozenset(("cmax", "cmin", "ctid", "tableoid", "xmax", "xmin"))
MAX_BYTES = 100_000
MAX_TABLES = 200  # in FROM clauses, and as targets
KEPT = 10_000  # characters of a statement, beyond which what it says is not remembered
_DEEPEST = 3_000  # tokens of a statement that can nest
_SHALLOW = 200  # as many fit on any stack; each can take a kilobyte or two
_STACK = 32 << 20  # bytes, for more
_FLAT = frozenset(
    ("ASCII_44", "FCONST", "ICONST", "IDENT", "PARAM", "SCONST")
)  # commas, names and constants nest nothing
_making = threading.Lock()


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_FUNCTIONS = _words(
    """
    abs acos acosd acosh asin asind asinh atan atan2 atan2d atand atanh cbrt ceil ceiling cos cosd cosh cot cotd
    degrees div erf erfc exp factorial floor gamma gcd lcm lgamma ln log log10 min_scale mod pi pow power radians
    random random_normal round scale sign sin sind sinh sqrt tan tand tanh trim_scale trunc width_bucket ascii
    bit_length bit_count btrim casefold char_length character_length chr concat concat_ws convert_from convert_to
    crc32 crc32c decode encode format get_bit get_byte initcap is_normalized left length like_escape lower lpad ltrim
    md5 normalize octet_length overlay parse_ident position quote_ident quote_literal quote_nullable regexp_count
    regexp_instr regexp_like regexp_match regexp_matches regexp_replace regexp_split_to_array regexp_split_to_table
    regexp_substr repeat replace reverse right rpad rtrim set_bit set_byte sha224 sha256 sha384 sha512
    similar_to_escape split_part starts_with string_to_array string_to_table strpos substr substring text to_ascii
    to_bin to_hex to_oct translate unistr upper age clock_timestamp date date_add date_bin date_part date_subtract
    date_trunc extract isfinite justify_days justify_hours justify_interval make_date make_interval make_time
    make_timestamp make_timestamptz now overlaps statement_timestamp timeofday timezone to_char to_date to_number
    to_timestamp transaction_timestamp array_agg avg bit_and bit_or bit_xor bool_and bool_or corr count covar_pop
    covar_samp every any_value max min mode percentile_cont percentile_disc range_agg range_intersect_agg regr_avgx
    regr_avgy regr_count regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy stddev stddev_pop stddev_samp
    string_agg sum var_pop var_samp variance cume_dist dense_rank first_value lag last_value lead nth_value ntile
    percent_rank rank row_number array_append array_cat array_dims array_fill array_length array_lower array_ndims
    array_position array_positions array_prepend array_remove array_replace array_reverse array_sample array_shuffle
    array_sort array_to_string array_upper cardinality trim_array unnest generate_series generate_subscripts
    array_to_json json_agg json_agg_strict json_array_elements json_array_elements_text json_array_length
    json_build_array json_build_object json_each json_each_text json_extract_path json_extract_path_text json_object
    json_object_agg json_object_agg_strict json_object_agg_unique json_object_agg_unique_strict json_object_keys
    json_strip_nulls json_to_record json_to_recordset json_typeof jsonb_agg
    jsonb_agg_strict jsonb_array_elements jsonb_array_elements_text jsonb_array_length jsonb_build_array
    jsonb_build_object jsonb_each jsonb_each_text jsonb_extract_path jsonb_extract_path_text jsonb_insert jsonb_object
    jsonb_object_agg jsonb_object_agg_strict jsonb_object_agg_unique jsonb_object_agg_unique_strict jsonb_object_keys
    jsonb_path_exists jsonb_path_exists_tz jsonb_path_match jsonb_path_match_tz jsonb_path_query
    jsonb_path_query_array jsonb_path_query_array_tz jsonb_path_query_first jsonb_path_query_first_tz
    jsonb_path_query_tz jsonb_pretty jsonb_set jsonb_set_lax jsonb_strip_nulls jsonb_to_record jsonb_to_recordset
    jsonb_typeof row_to_json to_json to_jsonb phraseto_tsquery plainto_tsquery setweight strip to_tsquery to_tsvector
    ts_delete ts_headline ts_rank ts_rank_cd tsvector_to_array websearch_to_tsquery isempty lower_inc lower_inf
    range_merge upper_inc upper_inf multirange int4range int8range numrange daterange tsrange tstzrange area box
    center circle diagonal diameter height line lseg path point polygon radius slope width abbrev broadcast family
    host hostmask inet_merge inet_same_family masklen netmask network set_masklen gen_random_uuid uuidv4 uuidv7
    uuid_extract_timestamp uuid_extract_version num_nulls num_nonnulls pg_size_pretty pg_typeof
    """
)
_TYPES = _words(
    """
    bit bool box bpchar bytea char cidr circle date daterange datemultirange float4 float8 inet int2 int4 int4range
    int4multirange int8 int8range int8multirange interval json jsonb jsonpath line lseg macaddr macaddr8 money name
    numeric numrange nummultirange path point polygon record text time timestamp timestamptz timetz tsquery tsrange
    tsmultirange tstzrange tstzmultirange tsvector uuid varbit varchar
    """
)
_SAMPLERS = frozenset(("bernoulli", "system"))
# T2. What has no rule of its own in `_Reader`.
_PLAIN = _words(
    """
    A_ArrayExpr A_Const A_Indices A_Star Alias BitString Boolean BooleanTest BoolExpr CaseExpr CaseWhen CoalesceExpr
    CTECycleClause CTESearchClause Float GroupingFunc GroupingSet IndexElem Integer JsonAggConstructor JsonArgument
    JsonArrayAgg JsonArrayConstructor JsonArrayQueryConstructor JsonBehavior JsonFormat JsonFuncExpr JsonIsPredicate
    JsonKeyValue JsonObjectAgg JsonObjectConstructor JsonOutput JsonParseExpr JsonReturning JsonScalarExpr
    JsonSerializeExpr JsonTable JsonTableColumn JsonTablePathSpec JsonValueExpr MergeSupportFunc MinMaxExpr
    MultiAssignRef NamedArgExpr NullTest ParamRef RangeFunction RangeSubselect ResTarget RowExpr SetToDefault String
    TypeCast WindowDef
    """
)
_SAFE_VALUES = frozenset(
    f"SVFOP_{name}" for name in (
        "CURRENT_DATE", "CURRENT_TIME", "CURRENT_TIME_N", "CURRENT_TIMESTAMP", "CURRENT_TIMESTAMP_N", "LOCALTIME",
        "LOCALTIME_N", "LOCALTIMESTAMP", "LOCALTIMESTAMP_N",
    )
)  # fmt: skip
# What PostgreSQL calls a result that has no name.
_RESULTS = _words(
    """
    ?column? array bool case coalesce column1 column2 column3 column4 column5 column6 column7 column8 column9
    current_date current_time current_timestamp exists greatest grouping key least localtime localtimestamp nullif
    ordinality row value json_array json_arrayagg json_object json_objectagg json_query json_scalar json_serialize
    json_value json_exists merge_action
    """
)


class Scope:
    """The tables in sight at one level of a statement. `outer` is the level around it."""

    __slots__ = ("joins", "outer", "tables")

    def __init__(self, outer: Scope | None) -> None:
        self.outer = outer
        self.tables: list[tuple[str, Table]] = []  # by what name it goes
        self.joins: set[str] = set()  # names of joins: each stands for all tables of the level

    def outward(self) -> Iterator[Scope]:
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = scope.outer


class Reference(NamedTuple):
    """A column that is read: as it is qualified, and spelled; "*" is all of them."""

    scope: Scope
    qualifier: str | None
    column: str


class Write(NamedTuple):
    """An insert, update or delete, with its columns; None is all of them."""

    table: Table
    operation: str
    columns: tuple[str, ...] | None


class Text:
    """What one statement says, or why it is none that any token permits (`refusal`: a code and a sentence)."""

    def __init__(self, sql: str) -> None:
        self.sql = sql
        self.refusal: tuple[str, str] | None = None
        self.reads: list[Table] = []  # tables of which rows are read, in order of mention
        self.writes: list[Write] = []
        self.references: list[Reference] = []
        self.declared: set[str] = set(_RESULTS)  # names that the statement makes
        self.functions: set[tuple[str | None, str]] = set()  # schema and name
        self.fields: set[str] = set()  # names after the dot of what is no plain column: `(x).name`
        self.values: set[str] = (
            set()
        )  # by what names functions in FROM go: each may be a value, and no row
        self.types: set[tuple[str | None, str]] = set()  # those on no list


def read(sql: str) -> Text:
    """What an exact `str` says. Raises psycopg's SyntaxError, as the server would."""
    return _remembered(sql) if len(sql) <= KEPT else _read(sql)


def _read(sql: str) -> Text:
    text = Text(sql)
    tokens = _measured(text)
    if text.refusal is not None:
        pass
    elif tokens <= _SHALLOW:
        _parse(text)
    else:
        _with_room(lambda: _parse(text))
    return text


_remembered = lru_cache(maxsize=512)(_read)


def _measured(text: Text) -> int:
    """T1. How many tokens the text has that can nest; at most, where it is short."""
    try:
        size = len(text.sql.encode())
    except UnicodeEncodeError:
        raise errors.SyntaxError("the statement is not UTF-8") from None
    if "\0" in text.sql:  # where the parser would stop
        raise errors.SyntaxError("the statement has a NUL character")
    if size <= _SHALLOW:
        return size
    if size > MAX_BYTES:
        text.refusal = ("operation", f"a statement of more than {MAX_BYTES} bytes")
        return 0
    try:
        tokens = sum(token.name not in _FLAT for token in scan(text.sql))
    except ParseError as error:
        raise errors.SyntaxError(str(error.args[0])) from None
    if tokens > _DEEPEST:
        text.refusal = (
            "operation",
            f"a statement with more than {_DEEPEST} operators and brackets",
        )
    return tokens


def _with_room(parse: Callable[[], None]) -> None:
    """T1. In a thread whose stack holds any statement: the parser recurses in C, and does not look at where it stands."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            parse()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    with _making:
        before = threading.stack_size(_STACK)
        try:
            thread.start()
        finally:
            threading.stack_size(before)
    thread.join()
    if raised:
        raise raised[0]


def _parse(text: Text) -> None:
    try:
        parsed = parse_sql(text.sql)
    except ParseError as error:
        raise errors.SyntaxError(str(error.args[0])) from None
    if len(parsed) == 1:
        _Reader(text).read(parsed[0].stmt)
    else:
        text.refusal = ("operation", "exactly one statement is granted at a time")


class _RefusedError(Exception):
    """Carries the code and the sentence."""


class _Reader:
    """Walks the tree without recursion: how deep a statement goes is its author's choice."""

    def __init__(self, text: Text) -> None:
        self.text = text
        self.work: list[
            tuple[Any, Scope, frozenset[str]]
        ] = []  # a node, what it sees, the CTEs by name
        self.items = 0

    def read(self, statement: Any) -> None:
        if type(statement).__name__ not in (
            "SelectStmt",
            "InsertStmt",
            "UpdateStmt",
            "DeleteStmt",
            "MergeStmt",
        ):
            self.text.refusal = (
                "operation",
                "only select, values, insert, update, delete and merge are granted",
            )
            return
        try:
            self.add(statement, Scope(None), frozenset())
            while self.work:
                node, scope, ctes = self.work.pop()
                name = type(node).__name__
                rule = getattr(self, f"_{name}", None)
                if rule is not None:
                    rule(node, scope, ctes)
                elif name in _PLAIN:  # T2
                    self.below(node, scope, ctes)
                else:
                    raise _RefusedError("operation", f"{name} is not granted")
        except _RefusedError as refused:
            code, sentence = refused.args
            self.text.refusal = (code, sentence)

    def add(self, value: Any, scope: Scope, ctes: frozenset[str]) -> None:
        """A node, or tuples of them, to be walked; anything else says nothing."""
        if isinstance(value, ast.Node):
            self.work.append((value, scope, ctes))
        elif isinstance(value, tuple):
            for item in value:
                self.add(item, scope, ctes)

    def below(self, node: Any, scope: Scope, ctes: frozenset[str], *without: str) -> None:
        for field in node:
            if field not in without:
                self.add(getattr(node, field), scope, ctes)

    # --- statements -------------------------------------------------------------------------------------------------

    def _with(self, clause: Any, scope: Scope, ctes: frozenset[str]) -> frozenset[str]:
        """T3. The names in sight below a WITH clause, whose queries are put to be walked."""
        if clause is None:
            return ctes
        names = frozenset(cte.ctename for cte in clause.ctes)
        for cte in clause.ctes:
            self.add(cte, Scope(scope), ctes | names if clause.recursive else ctes)
            ctes |= {cte.ctename}
        return ctes

    def _CommonTableExpr(self, node: Any, scope: Scope, ctes: frozenset[str]) -> None:  # noqa: N802
        self.text.declared |= _strings(node.aliascolnames)
        self.add((node.ctequery, node.search_clause, node.cycle_clause), scope, ctes)
        if node.search_clause is not None:
            self.text.declared.add(node.search_clause.search_seq_column)
        if node.cycle_clause is not None:
            self.text.declared |= {
                node.cycle_clause.cycle_mark_column,
                node.cycle_clause.cycle_path_column,
            }

    def _SelectStmt(self, node: Any, scope: Scope, ctes: frozenset[str]) -> None:  # noqa: N802
        if node.intoClause is not None:
            raise _RefusedError("operation", "SELECT INTO makes a table")
        own = Scope(scope)
        seen = self._with(node.withClause, own, ctes)
        if len(node.fromClause or ()) > MAX_TABLES:
            self._too_many()
        for clause in node.lockingClause or ():
            self._lock(node, clause, seen)
        for target in node.targetList or ():
            if target.name is not None:
                self.text.declared.add(target.name)
        self.below(node, own, seen, "withClause", "lockingClause")

    def _lock(self, node: Any, clause: Any, ctes: frozenset[str]) -> None:
        """FOR UPDATE and its like need `update`: on the tables that they name, or on all of the FROM clause."""
        named = {table.relname for table in clause.lockedRels or ()}
        todo = list(node.fromClause or ())
        while todo:
            item = todo.pop()
            kind = type(item).__name__
            if kind == "JoinExpr":
                todo += [item.larg, item.rarg]
            elif kind == "RangeVar":
                if (table := self._named(item, ctes)) and (not named or _goes_by(item) in named):
                    self.text.writes.append(Write(table, "update", ()))
            elif kind == "RangeFunction":
                pass  # has no rows to lock
            elif (
                not named or item.alias is None or item.alias.aliasname in named
            ):  # what is below it would be locked too
                raise _RefusedError("operation", "a lock on the rows of what is no table")

    def _InsertStmt(self, node: Any, scope: Scope, ctes: frozenset[str]) -> None:  # noqa: N802
        target = self._target(node.relation)
        seen = self._with(node.withClause, Scope(scope), ctes)
        columns = None if node.cols is None and node.selectStmt is not None else _names(node.cols)
        self.text.writes.append(Write(target, "insert", columns))
        for column in node.cols or ():
            self.add(column.indirection, scope, seen)
        self.add(node.selectStmt, scope, seen)
        own = self._sees(node, target, scope)
        conflict = node.onConflictClause
        if conflict is not None:
            if conflict.action != enums.OnConflictAction.ONCONFLICT_NOTHING:
                self.text.writes.append(Write(target, "update", _names(conflict.targetList)))
            infer = conflict.infer
            if infer is not None:
                if infer.conname is not None:  # whatever columns that is about
                    self.text.references.append(Reference(own, None, "*"))
                for element in infer.indexElems or ():
                    if element.name is not None:
                        self.text.references.append(Reference(own, None, element.name))
                    self.add(element, own, seen)
                self.add(infer.whereClause, own, seen)
            own.tables.append(("excluded", target))
            self.add((conflict.targetList, conflict.whereClause), own, seen)
        self._returning(node.returningClause, own, seen)

    def _UpdateStmt(self, node: Any, scope: Scope, ctes: frozenset[str]) -> None:  # noqa: N802
        target = self._target(node.relation)
        self.text.writes.append(Write(target, "update", _names(node.targetList)))
        self._change(node, target, scope, ctes)

    def _DeleteStmt(self, node: Any, scope: Scope, ctes: frozenset[str]) -> None:  # noqa: N802
        target = self._target(node.relation)
        self.text.writes.append(Write(target, "delete", None))
        self._change(node, target, scope, ctes)

    def _MergeStmt(self, node: Any, scope: Scope, ctes: frozenset[str]) -> None:  # noqa: N802
        target = self._target(node.relation)
        self.text.reads.append(target)
        for clause in node.mergeWhenClauses:
            kind = clause.commandType
            if kind == enums.CmdType.CMD_INSERT:
                some = clause.targetList is not None or clause.values is None
                self.text.writes.append(
                    Write(target, "insert", _names(clause.targetList) if some else None)
                )
            elif kind == enums.CmdType.CMD_UPDATE:
                self.text.writes.append(Write(target, "update", _names(clause.targetList)))
            elif kind == enums.CmdType.CMD_DELETE:
                self.text.writes.append(Write(target, "delete", None))
            elif kind != enums.CmdType.CMD_NOTHING:
                raise _RefusedError("operation", "a MERGE that does something else")
        self._change(node, target, scope, ctes)

    def _MergeWhenClause(self, node: Any, scope: Scope, ctes: frozenset[str]) -> None:  # noqa: N802
        self.below(node, scope, ctes)

    def _change(self, node: Any, target: Table, scope: Scope, ctes: frozenset[str]) -> None:
        own = self._sees(node, target, scope)
        seen = self._with(node.withClause, own, ctes)
        self._returning(node.returningClause, own, seen)
        self.below(node, own, seen, "relation", "withClause", "returningClause")

    def _target(self, node: Any) -> Table:
        return self._table(node)  # T3: no CTE hides it

    def _sees(self, node: Any, target: Table, scope: Scope) -> Scope:
        own = Scope(scope)
        names = {_goes_by(node.relation)}
        if node.returningClause is not None:
            names |= {"old", "new"} | {
                option.value for option in node.returningClause.options or ()
            }
        own.tables += [(name, target) for name in sorted(names)]
        if node.relation.alias is not None and node.relation.alias.colnames:
            self.text.declared.add(_goes_by(node.relation))
            self.text.references.append(Reference(own, None, "*"))
        return own

    def _returning(self, clause: Any, scope: Scope, ctes: frozenset[str]) -> None:
        if clause is not None:
            self.text.reads.append(scope.tables[0][1])
            self.text.declared |= {
                target.name for target in clause.exprs if target.name is not None
            }
            self.add(clause.exprs, scope, ctes)

    # --- tables -----------------------------------------------------------------------------------------------------

    def _too_many(self) -> NoReturn:
        raise _RefusedError("operation", f"a statement with more than {MAX_TABLES} tables")

    def _table(self, node: Any) -> Table:
        self.items += 1
        if self.items > MAX_TABLES:
            self._too_many()
        if node.catalogname is not None:
            raise _RefusedError(
                "table", "a table is named by its schema and name, without the database"
            )
        return (node.schemaname or "public", node.relname)

    def _named(self, node: Any, ctes: frozenset[str]) -> Table | None:
        return (
            None
            if node.schemaname is None and node.catalogname is None and node.relname in ctes
            else self._table(node)
        )

    def _RangeVar(self, node: Any, scope: Scope, ctes: frozenset[str]) -> None:  # noqa: N802
        table = self._named(node, ctes)
        alias = node.alias
        if alias is not None:
            self.text.declared |= _strings(alias.colnames)
        if table is None:
            self.text.declared.add(_goes_by(node))
            return
        self.text.reads.append(table)
        scope.tables.append((_goes_by(node), table))
        if (
            alias is not None and alias.colnames
        ):  # T5, and T7: what it names is no column of the table's own
            self.text.declared.add(_goes_by(node))
            self.text.references.append(Reference(scope, _goes_by(node), "*"))

    def _Alias(self, node: Any, scope: Scope, ctes: frozenset[str]) -> None:  # noqa: N802
        self.text.declared |= {node.aliasname} | _strings(node.colnames)

    def _JoinExpr(self, node: Any, scope: Scope, ctes: frozenset[str]) -> None:  # noqa: N802
        if node.isNatural:  # T5
            self.text.references.append(Reference(scope, None, "*"))
        for column in _strings(node.usingClause):
            self.text.references.append(Reference(scope, None, column))
        for alias in (node.alias, node.join_using_alias):
            if alias is not None:
                scope.joins.add(alias.aliasname)
                if alias.colnames:
                    self.text.references.append(Reference(scope, None, "*"))
        self.below(node, scope, ctes, "usingClause")

    def _RangeFunction(self, node: Any, scope: Scope, ctes: frozenset[str]) -> None:  # noqa: N802
        if node.alias is None and not isinstance(
            node.functions[0][0], ast.FuncCall
        ):  # T7: goes by a name of its own
            raise _RefusedError(
                "operation", "in FROM, what is no plain function needs a name: `as x`"
            )
        self.text.values.add(
            node.alias.aliasname
            if node.alias is not None
            else node.functions[0][0].funcname[-1].sval
        )
        for column in node.coldeflist or ():
            self._column(column, scope, ctes)
        for _, columns in node.functions:
            for column in columns or ():
                self._column(column, scope, ctes)
        self.add((tuple(function for function, _ in node.functions), node.alias), scope, ctes)

    def _column(self, node: Any, scope: Scope, ctes: frozenset[str]) -> None:
        self.text.declared.add(node.colname)
        self.add((node.typeName, node.collClause), scope, ctes)

    def _JsonTableColumn(self, node: Any, scope: Scope, ctes: frozenset[str]) -> None:  # noqa: N802
        if node.name is not None:
            self.text.declared.add(node.name)
        self.below(node, scope, ctes)

    def _RangeTableSample(self, node: Any, scope: Scope, ctes: frozenset[str]) -> None:  # noqa: N802
        if _last(node.method, "TABLESAMPLE") not in _SAMPLERS:
            raise _RefusedError("operation", "a sampling method that is not PostgreSQL's own")
        self.below(node, scope, ctes, "method")

    # --- expressions ------------------------------------------------------------------------------------------------

    def _ColumnRef(self, node: Any, scope: Scope, ctes: frozenset[str]) -> None:  # noqa: N802
        parts = [str(field.sval) if isinstance(field, ast.String) else "*" for field in node.fields]
        if len(parts) > 3:
            raise _RefusedError(
                "table", "a table is named by its schema and name, without the database"
            )
        self.text.references.append(
            Reference(scope, parts[-2] if len(parts) > 1 else None, parts[-1])
        )

    def _A_Indirection(self, node: Any, scope: Scope, ctes: frozenset[str]) -> None:  # noqa: N802
        for part in node.indirection:
            if isinstance(part, ast.String):
                self.text.fields.add(str(part.sval))
        self.below(node, scope, ctes)

    def _FuncCall(self, node: Any, scope: Scope, ctes: frozenset[str]) -> None:  # noqa: N802
        names = [name.sval for name in node.funcname]
        if len(names) > 2:
            raise _RefusedError(
                "operation", "a function is named by its schema and name, without the database"
            )
        self.text.functions.add((names[0] if len(names) == 2 else None, names[-1]))
        self.text.declared.add(names[-1])
        self.below(node, scope, ctes, "funcname")

    def _A_Expr(self, node: Any, scope: Scope, ctes: frozenset[str]) -> None:  # noqa: N802
        _last(node.name, "an operator")
        self.below(node, scope, ctes, "name")

    def _SubLink(self, node: Any, scope: Scope, ctes: frozenset[str]) -> None:  # noqa: N802
        _last(node.operName, "an operator")
        self.below(node, scope, ctes, "operName")

    def _SortBy(self, node: Any, scope: Scope, ctes: frozenset[str]) -> None:  # noqa: N802
        _last(node.useOp, "an operator")
        self.below(node, scope, ctes, "useOp")

    def _CollateClause(self, node: Any, scope: Scope, ctes: frozenset[str]) -> None:  # noqa: N802
        _last(node.collname, "a collation")
        self.add(node.arg, scope, ctes)

    def _SQLValueFunction(self, node: Any, scope: Scope, ctes: frozenset[str]) -> None:  # noqa: N802
        if node.op.name not in _SAFE_VALUES:
            raise _RefusedError("operation", "who the database takes the caller for is not granted")

    def _TypeName(self, node: Any, scope: Scope, ctes: frozenset[str]) -> None:  # noqa: N802
        if node.names is None or node.setof or node.pct_type:
            raise _RefusedError("operation", "a type that is named by a column is not granted")
        names = [name.sval for name in node.names]
        schema, name = (names[-2] if len(names) > 1 else None), names[-1]
        if len(names) > 2:
            raise _RefusedError(
                "operation", "a type is named by its schema and name, without the database"
            )
        self.text.declared.add(name)
        if schema not in (None, "pg_catalog") or name not in _TYPES:
            self.text.types.add((schema, name))
        self.add(node.typmods, scope, ctes)


def _goes_by(node: Any) -> str:
    return str(node.alias.aliasname if node.alias is not None else node.relname)


def _names(targets: Any) -> tuple[str, ...]:
    return tuple(sorted({target.name for target in targets or ()}))


def _strings(values: Any) -> set[str]:
    return {value.sval for value in values or ()}


def _last(names: Any, what: str) -> str:
    """T6. The name of what is PostgreSQL's own, as far as the text can say."""
    parts = [name.sval for name in names or ()]
    if len(parts) > 1 and parts[:-1] != ["pg_catalog"]:
        raise _RefusedError("operation", f"{what} of another schema is not granted")
    return parts[-1] if parts else ""


def refused_function(
    schema: str | None,
    name: str,
    foreign: frozenset[str],
    allowed: frozenset[tuple[str | None, str]],
) -> bool:
    """T6. `foreign` are the names of the owner's functions that a name without a schema can mean. Types are called too."""
    if (schema, name) in allowed:
        return False
    known = name in _FUNCTIONS or name in _TYPES
    return schema not in (None, "pg_catalog") or not known or (schema is None and name in foreign)
