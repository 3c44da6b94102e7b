"""What the text of a statement may name: the lists behind rules T2 and T6 of `text`.

All of them list what is granted, and what is on none of them is refused. So a new release of
PostgreSQL adds nothing that somebody did not read first.
"""

from __future__ import annotations

from captoken.adapters._postgres.text import Functions


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# T6. Functions of PostgreSQL's own that compute from their arguments, from the time, or by chance.
# None of them writes, sleeps, locks, reads a file, runs SQL from a string or says who is logged in.
FUNCTIONS = _words(
    """
    abs acos acosd acosh asin asind asinh atan atan2 atan2d atand atanh cbrt ceil ceiling cos
    cosd cosh cot cotd degrees div erf erfc exp factorial floor gamma gcd lcm lgamma ln log
    log10 min_scale mod pi pow power radians random random_normal round scale sign sin sind sinh
    sqrt tan tand tanh trim_scale trunc width_bucket ascii bit_length bit_count btrim casefold
    char_length character_length chr concat concat_ws convert_from convert_to crc32 crc32c
    decode encode format get_bit get_byte initcap is_normalized left length like_escape lower
    lpad ltrim md5 normalize octet_length overlay parse_ident position quote_ident quote_literal
    quote_nullable regexp_count regexp_instr regexp_like regexp_match regexp_matches
    regexp_replace regexp_split_to_array regexp_split_to_table regexp_substr repeat replace
    reverse right rpad rtrim set_bit set_byte sha224 sha256 sha384 sha512 similar_to_escape
    split_part starts_with string_to_array string_to_table strpos substr substring text to_ascii
    to_bin to_hex to_oct translate unistr upper age clock_timestamp date date_add date_bin
    date_part date_subtract date_trunc extract isfinite justify_days justify_hours
    justify_interval make_date make_interval make_time make_timestamp make_timestamptz now
    overlaps statement_timestamp timeofday timezone to_char to_date to_number to_timestamp
    transaction_timestamp array_agg avg bit_and bit_or bit_xor bool_and bool_or corr count
    covar_pop covar_samp every any_value max min mode percentile_cont percentile_disc range_agg
    range_intersect_agg regr_avgx regr_avgy regr_count regr_intercept regr_r2 regr_slope
    regr_sxx regr_sxy regr_syy stddev stddev_pop stddev_samp string_agg sum var_pop var_samp
    variance cume_dist dense_rank first_value lag last_value lead nth_value ntile percent_rank
    rank row_number array_append array_cat array_dims array_fill array_length array_lower
    array_ndims array_position array_positions array_prepend array_remove array_replace
    array_reverse array_sample array_shuffle array_sort array_to_string array_upper cardinality
    trim_array unnest generate_series generate_subscripts array_to_json json_agg json_agg_strict
    json_array_elements json_array_elements_text json_array_length json_build_array
    json_build_object json_each json_each_text json_extract_path json_extract_path_text
    json_object json_object_agg json_object_agg_strict json_object_agg_unique
    json_object_agg_unique_strict json_object_keys json_strip_nulls json_to_record
    json_to_recordset json_typeof jsonb_agg jsonb_agg_strict jsonb_array_elements
    jsonb_array_elements_text jsonb_array_length jsonb_build_array jsonb_build_object jsonb_each
    jsonb_each_text jsonb_extract_path jsonb_extract_path_text jsonb_insert jsonb_object
    jsonb_object_agg jsonb_object_agg_strict jsonb_object_agg_unique
    jsonb_object_agg_unique_strict jsonb_object_keys jsonb_path_exists jsonb_path_exists_tz
    jsonb_path_match jsonb_path_match_tz jsonb_path_query jsonb_path_query_array
    jsonb_path_query_array_tz jsonb_path_query_first jsonb_path_query_first_tz
    jsonb_path_query_tz jsonb_pretty jsonb_set jsonb_set_lax jsonb_strip_nulls jsonb_to_record
    jsonb_to_recordset jsonb_typeof row_to_json to_json to_jsonb phraseto_tsquery
    plainto_tsquery setweight strip to_tsquery to_tsvector ts_delete ts_headline ts_rank
    ts_rank_cd tsvector_to_array websearch_to_tsquery isempty lower_inc lower_inf range_merge
    upper_inc upper_inf multirange int4range int8range numrange daterange tsrange tstzrange area
    box center circle diagonal diameter height line lseg path point polygon radius slope width
    abbrev broadcast family host hostmask inet_merge inet_same_family masklen netmask network
    set_masklen gen_random_uuid uuidv4 uuidv7 uuid_extract_timestamp uuid_extract_version
    num_nulls num_nonnulls pg_size_pretty pg_typeof
    """
)

# T6. Types of PostgreSQL's own. A cast to one of them reads nothing but the value.
TYPES = _words(
    """
    bit bool box bpchar bytea char cidr circle date daterange datemultirange float4 float8 inet
    int2 int4 int4range int4multirange int8 int8range int8multirange interval json jsonb
    jsonpath line lseg macaddr macaddr8 money name numeric numrange nummultirange path point
    polygon record text time timestamp timestamptz timetz tsquery tsrange tsmultirange tstzrange
    tstzmultirange tsvector uuid varbit varchar
    """
)

# T6. The methods of TABLESAMPLE that PostgreSQL has itself. An extension can add others.
SAMPLERS = frozenset(("bernoulli", "system"))

# T2. The kinds of node that say nothing themselves: what is below them is read, and that is all.
# The kinds that have a rule are in `expressions`, `tables` and `statements`.
PLAIN_NODES = _words(
    """
    A_ArrayExpr A_Const A_Indices A_Star BitString Boolean BooleanTest BoolExpr CaseExpr
    CaseWhen CoalesceExpr CommonTableExpr CTECycleClause CTESearchClause Float GroupingFunc
    GroupingSet IndexElem Integer JsonAggConstructor JsonArgument JsonArrayAgg JsonArrayConstructor
    JsonArrayQueryConstructor JsonBehavior JsonFormat JsonFuncExpr JsonIsPredicate JsonKeyValue
    JsonObjectAgg JsonObjectConstructor JsonOutput JsonParseExpr JsonReturning JsonScalarExpr
    JsonSerializeExpr JsonTableColumn JsonTablePathSpec JsonValueExpr MergeSupportFunc
    MergeWhenClause MinMaxExpr MultiAssignRef NamedArgExpr NullTest ParamRef ResTarget RowExpr
    SetToDefault TypeCast WindowDef
    """
)

# T6. Values that are spelled like words: the time. CURRENT_USER and its like are on no list, since
# they name the role that the guard took on, which is nobody whom the caller knows.
SAFE_VALUES = _words(
    """
    SVFOP_CURRENT_DATE SVFOP_CURRENT_TIME SVFOP_CURRENT_TIME_N SVFOP_CURRENT_TIMESTAMP
    SVFOP_CURRENT_TIMESTAMP_N SVFOP_LOCALTIME SVFOP_LOCALTIME_N SVFOP_LOCALTIMESTAMP
    SVFOP_LOCALTIMESTAMP_N
    """
)

# T7. The columns of functions in FROM that return rows, where the text gives them no names.
_PAIRS = frozenset(("key", "value"))
_VALUES = frozenset(("value",))
FUNCTION_COLUMNS = {
    "json_each": _PAIRS,
    "json_each_text": _PAIRS,
    "jsonb_each": _PAIRS,
    "jsonb_each_text": _PAIRS,
    "json_array_elements": _VALUES,
    "json_array_elements_text": _VALUES,
    "jsonb_array_elements": _VALUES,
    "jsonb_array_elements_text": _VALUES,
}

# And those that return a value, whose column goes by the name of the function there.
SCALAR_FUNCTIONS = _words(
    """
    generate_series generate_subscripts json_object_keys jsonb_object_keys
    regexp_split_to_table string_to_table
    """
)

# T7. Fields that PostgreSQL itself gives to rows. As functions they are nobody's but an owner's.
FIELDS = frozenset(("key", "value", *(f"f{place}" for place in range(1, 100))))

# Columns that every table has, and for which there is no right of their own.
SYSTEM_COLUMNS = frozenset(("cmax", "cmin", "ctid", "tableoid", "xmax", "xmin"))


def refused_function(
    schema: str | None,
    name: str,
    foreign: frozenset[str],
    allowed: Functions,
) -> bool:
    """T6. Whether a call of that function is refused. Types are called like functions, too.

    `foreign` are the names of the owner's functions on the search path: a name without a schema can
    mean one of them. `allowed` are those that the server listed for its block, as they are spelled.
    """
    if (schema, name) in allowed:
        return False

    if schema not in (None, "pg_catalog"):
        return True
    if name not in FUNCTIONS and name not in TYPES:
        return True

    # A name on the list, unqualified: the owner's function of that name could be meant instead.
    return schema is None and name in foreign
