"""
The words that may stand before a parenthesis and leave nothing behind in a session.

The law for `FUNCTIONS`: it runs no SQL from text, calls no function by name, and leaves no setting, lock,
cursor, channel, seed or table when the transaction has ended. One that is missing here only costs a
question.

The law for `KEYWORDS`: the grammar gives the word a meaning of its own before a parenthesis. Most of them
can't name a function at all; where one can, and somebody might, `KEYWORDS_AFTER` asks for the word before.
"""

from __future__ import annotations


def _words(text: str) -> frozenset[bytes]:
    return frozenset(text.encode().split())


FUNCTIONS = _words(
    # Aggregates and window functions
    """
    any_value array_agg avg bit_and bit_or bit_xor bool_and bool_or corr count covar_pop covar_samp every
    json_agg json_object_agg jsonb_agg jsonb_object_agg max min range_agg range_intersect_agg regr_avgx
    regr_avgy regr_count regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy stddev stddev_pop
    stddev_samp string_agg sum var_pop var_samp variance xmlagg mode percentile_cont percentile_disc
    cume_dist dense_rank first_value lag last_value lead nth_value ntile percent_rank rank row_number
    """
    # Numbers
    """
    abs acos acosd acosh asin asind asinh atan atan2 atan2d atand atanh cbrt ceil ceiling cos cosd cosh cot
    cotd degrees div erf erfc exp factorial floor gamma gcd lcm lgamma ln log log10 min_scale mod pi power
    pow radians random random_normal round scale sign sin sind sinh sqrt tan tand tanh trim_scale trunc
    width_bucket
    """
    # Strings and bytes
    """
    ascii bit_count bit_length btrim casefold char_length character_length chr concat concat_ws convert
    convert_from convert_to crc32 crc32c decode encode format get_bit get_byte initcap left length lower
    lpad ltrim md5 octet_length overlay parse_ident pg_client_encoding position quote_ident quote_literal
    quote_nullable hashtext hashtextextended num_nonnulls num_nulls regexp_count regexp_instr regexp_like
    regexp_match regexp_matches regexp_replace regexp_split_to_array regexp_split_to_table regexp_substr
    repeat replace reverse right rpad rtrim
    set_bit set_byte sha224 sha256 sha384 sha512 split_part starts_with string_to_array string_to_table
    strpos substr substring to_ascii to_bin to_hex to_oct translate unicode_assigned unistr upper
    """
    # Types written as functions
    """
    bool bpchar date float4 float8 int2 int4 int8 money name oid text timestamptz timetz uuid box circle
    inet cidr jsonb lseg path point polygon
    """
    # Dates and times
    """
    age clock_timestamp date_add date_bin date_part date_subtract date_trunc isfinite justify_days
    justify_hours justify_interval make_date make_interval make_time make_timestamp make_timestamptz now
    statement_timestamp timeofday timezone to_char to_date to_number to_timestamp transaction_timestamp
    pg_sleep pg_sleep_for pg_sleep_until
    """
    # JSON, arrays, ranges, sets of rows
    """
    array_to_json json_array_elements json_array_elements_text json_array_length json_build_array
    json_build_object json_each json_each_text json_extract_path json_extract_path_text json_object_keys
    json_strip_nulls json_to_record json_to_recordset json_typeof jsonb_array_elements
    jsonb_array_elements_text jsonb_array_length jsonb_build_array jsonb_build_object jsonb_each
    jsonb_each_text jsonb_extract_path jsonb_extract_path_text jsonb_insert jsonb_object jsonb_object_keys
    jsonb_path_exists jsonb_path_match jsonb_path_query jsonb_path_query_array jsonb_path_query_first
    jsonb_path_exists_tz jsonb_path_match_tz jsonb_path_query_tz jsonb_path_query_array_tz
    jsonb_path_query_first_tz json_to_tsvector jsonb_to_tsvector
    jsonb_populate_record jsonb_populate_recordset jsonb_pretty jsonb_set jsonb_set_lax jsonb_strip_nulls
    jsonb_to_record jsonb_to_recordset jsonb_typeof row_to_json to_json to_jsonb json_populate_record
    json_populate_recordset array_append array_cat array_dims array_fill array_length array_lower
    array_ndims array_position array_positions array_prepend array_remove array_replace array_reverse
    array_sample array_shuffle array_sort array_to_string array_upper cardinality generate_subscripts
    trim_array unnest generate_series int4range int8range numrange tsrange tstzrange daterange
    int4multirange int8multirange nummultirange tsmultirange tstzmultirange datemultirange isempty
    lower_inc lower_inf upper_inc upper_inf multirange range_merge
    """
    # Text search, UUIDs, networks, enums
    """
    array_to_tsvector numnode phraseto_tsquery plainto_tsquery querytree setweight strip to_tsquery
    to_tsvector ts_delete ts_filter ts_headline ts_rank ts_rank_cd tsvector_to_array websearch_to_tsquery
    get_current_ts_config gen_random_uuid uuidv4 uuidv7 uuid_extract_timestamp uuid_extract_version abbrev
    broadcast family host hostmask inet_merge inet_same_family masklen netmask network set_masklen
    enum_first enum_last enum_range
    """
    # The server, its catalogs and its locks within a transaction
    """
    col_description current_database current_query current_schema current_schemas current_setting format_type
    has_any_column_privilege has_column_privilege has_database_privilege has_function_privilege
    has_language_privilege has_parameter_privilege has_schema_privilege has_sequence_privilege
    has_server_privilege has_table_privilege has_tablespace_privilege has_type_privilege pg_has_role
    row_security_active inet_client_addr inet_client_port inet_server_addr inet_server_port
    obj_description shobj_description pg_backend_pid pg_blocking_pids pg_cancel_backend pg_collation_for
    pg_collation_is_visible pg_column_compression pg_column_size pg_conf_load_time pg_current_snapshot
    pg_current_wal_insert_lsn pg_current_wal_lsn pg_current_xact_id pg_current_xact_id_if_assigned
    pg_database_size pg_describe_object pg_encoding_to_char pg_filenode_relation pg_function_is_visible
    pg_get_constraintdef pg_get_expr pg_get_function_arguments pg_get_function_identity_arguments
    pg_get_function_result pg_get_functiondef pg_get_indexdef pg_get_keywords
    pg_get_partition_constraintdef pg_get_partkeydef pg_get_ruledef pg_get_serial_sequence
    pg_get_statisticsobjdef pg_get_triggerdef pg_get_userbyid pg_get_viewdef pg_identify_object
    pg_index_column_has_property pg_index_has_property pg_indexam_has_property pg_indexes_size
    pg_is_in_recovery pg_is_other_temp_schema pg_is_wal_replay_paused pg_last_wal_receive_lsn
    pg_last_wal_replay_lsn pg_last_xact_replay_timestamp pg_my_temp_schema pg_notify pg_opclass_is_visible
    pg_operator_is_visible pg_partition_ancestors pg_partition_root pg_partition_tree
    pg_postmaster_start_time pg_relation_filenode pg_relation_filepath pg_relation_is_publishable
    pg_relation_size pg_safe_snapshot_blocking_pids pg_sequence_parameters pg_size_bytes pg_size_pretty
    pg_snapshot_xmax pg_snapshot_xmin pg_statistics_obj_is_visible pg_stat_get_backend_pid
    pg_table_is_visible pg_table_size pg_tablespace_databases pg_tablespace_location pg_tablespace_size
    pg_terminate_backend pg_total_relation_size pg_try_advisory_xact_lock pg_try_advisory_xact_lock_shared
    pg_advisory_xact_lock pg_advisory_xact_lock_shared pg_type_is_visible pg_typeof pg_visible_in_snapshot
    pg_wal_lsn_diff pg_xact_status pg_current_logfile pg_trigger_depth to_regclass to_regcollation
    to_regnamespace to_regoper to_regoperator to_regproc to_regprocedure to_regrole to_regtype
    txid_current txid_current_if_assigned txid_current_snapshot txid_snapshot_xmax txid_snapshot_xmin
    txid_status txid_visible_in_snapshot version lo_close lo_creat lo_create lo_export lo_from_bytea
    lo_get lo_import lo_lseek lo_lseek64 lo_open lo_put lo_tell lo_tell64 lo_truncate lo_truncate64
    lo_unlink loread lowrite
    """
    # XML from values, and the methods of TABLESAMPLE
    """
    xmlcomment xpath xpath_exists xml_is_well_formed xml_is_well_formed_content
    xml_is_well_formed_document bernoulli system
    """
)

SESSION_LOCKS = _words(
    """
    pg_advisory_lock pg_advisory_lock_shared pg_try_advisory_lock pg_try_advisory_lock_shared
    pg_advisory_unlock pg_advisory_unlock_shared pg_advisory_unlock_all
    """
)

KEYWORDS = _words(
    """
    all and any array as asymmetric between both case check coalesce cast char character dec decimal
    distinct else end except exists extract fetch float for from greatest group grouping having in
    interval intersect into json json_array json_arrayagg json_exists json_object json_objectagg
    json_query json_scalar json_serialize json_table json_value lateral leading least limit national nchar
    normalize not nullif numeric offset on only or order overlay position precision returning row select
    some substring symmetric table then time timestamp trailing treat trim union unique using values
    varchar variadic when where window with xmlattributes xmlconcat xmlelement xmlexists xmlforest
    xmlnamespaces xmlparse xmlpi xmlroot xmlserialize xmltable bit current_time current_timestamp
    localtime localtimestamp merge_action
    """
)
"""Words that are key words wherever they stand."""

NEW_KEYWORDS = _words(
    """
    json json_array json_arrayagg json_exists json_objectagg json_query json_scalar json_serialize
    json_table json_value merge_action
    """
)
"""Those that PostgreSQL has had since 16 or 17 only: before, a function may be called so."""

INFIX = _words("like ilike overlaps join")
"""Key words between two operands, which could as well name a function."""

KEYWORDS_AFTER = {
    word: _words(before)
    for word, before in {
        b"by": "order group partition",
        b"conflict": "on",
        b"cube": "by",
        b"filter": ")",
        b"first": "fetch",
        b"insert": "then",
        b"materialized": "as not",
        b"next": "fetch",
        b"over": ") nulls",
        b"repeatable": ")",
        b"rollup": "by",
        b"second": "to interval",
        b"sets": "grouping",
        b"stdout": "to",
        b"varying": "character char nchar bit",
        b"zone": "time",
    }.items()
}
"""Words that could as well name a function, and what stands before them where they don't."""
