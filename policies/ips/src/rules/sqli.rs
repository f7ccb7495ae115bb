//! SQL injection.

use super::Category::SqlInjection as Sql;
use super::Severity::{Critical, Error, Warning};
use super::statement::{
    comment_behind_quote, condition_behind_quote, constant_condition, delay, order_by_number, quote_in_name, select_where,
    stacked, statement_in_name, subselect, union_select,
};
use super::{Confirm, Find, Matcher, Rule, Targets, rule};
use crate::bytes::Classes;

/// `/* */` stands between words.
pub const COMMENT_BETWEEN_WORDS: &str = "sqli-20";

const QUOTED: Classes = Classes::QUOTE;
const NOT_PATH: Targets = Targets::INPUTS.without(Targets::PATH);

/// The rules of this category.
pub(super) const RULES: &[Rule] = &[
    rule("sqli-1", Sql, Critical, Targets::INPUTS, around(&["union"], union_select), "UNION SELECT"),
    rule("sqli-2", Sql, Critical, Targets::INPUTS, check(Classes::SEMICOLON, stacked), "A second SQL statement behind `;`"),
    rule(
        "sqli-3",
        Sql,
        Critical,
        Targets::INPUTS,
        around(&["sleep(", "pg_sleep(", "pg_sleep_for(", "benchmark("], delay),
        "A function that delays the answer: SLEEP(5), BENCHMARK, pg_sleep",
    ),
    rule(
        "sqli-4",
        Sql,
        Critical,
        Targets::INPUTS,
        check(QUOTED, condition_behind_quote),
        "A condition behind a closing quote: ' OR 1=1",
    ),
    rule(
        "sqli-5",
        Sql,
        Critical,
        NOT_PATH,
        around(CONNECTORS, constant_condition),
        "A condition on constants: OR 1=1, AND 'a'='b'",
    ),
    rule(
        "sqli-6",
        Sql,
        Critical,
        Targets::INPUTS,
        check(QUOTED, comment_behind_quote),
        "A comment behind a closing quote: admin'--",
    ),
    rule(
        "sqli-7",
        Sql,
        Critical,
        Targets::INPUTS,
        around(&["select"], subselect),
        "A SELECT of everything, of a constant or of a function",
    ),
    rule("sqli-8", Sql, Critical, Targets::INPUTS, Matcher::Any(SCHEMA), "Tables and variables that describe the database"),
    rule(
        "sqli-9",
        Sql,
        Critical,
        Targets::INPUTS,
        Matcher::Any(EXTRACTION),
        "Functions used to read data through errors or to run code",
    ),
    rule("sqli-10", Sql, Critical, Targets::INPUTS, Matcher::Any(FILES), "Files read or written by the database"),
    rule("sqli-11", Sql, Critical, Targets::INPUTS, Matcher::Any(DELAYS), "Statements that delay the answer: WAITFOR DELAY"),
    rule(
        "sqli-12",
        Sql,
        Critical,
        Targets::INPUTS,
        Matcher::Any(BLIND),
        "Single characters taken out of a value: ASCII(SUBSTR(..))",
    ),
    rule(
        "sqli-13",
        Sql,
        Critical,
        Targets::INPUTS,
        seq(&[CHARACTERS, CHARACTERS], 12),
        "A string built of character codes: CHAR(65)+CHAR(66)",
    ),
    rule("sqli-14", Sql, Critical, NOT_PATH, around(&["where"], select_where), "SELECT .. FROM .. WHERE"),
    rule(
        "sqli-15",
        Sql,
        Critical,
        Targets::NAMES,
        around(NAME_KEYWORDS, statement_in_name),
        "An SQL keyword and its punctuation in a parameter name",
    ),
    rule("sqli-16", Sql, Critical, Targets::NAMES, Matcher::Any(OPERATORS), "A query operator in a parameter name: name[$ne]"),
    rule("sqli-17", Sql, Error, NOT_PATH, seq(&[&["case when"], &["then"], &["else", "end"]], 48), "CASE WHEN .. THEN"),
    rule("sqli-18", Sql, Error, Targets::INPUTS, Matcher::Any(IDENTITY), "Functions that name the database, its user or version"),
    rule("sqli-19", Sql, Error, Targets::INPUTS, Matcher::Any(CONCATENATION), "A string continued behind a quote: '||'"),
    rule("sqli-23", Sql, Critical, Targets::AGENT, Matcher::Any(CALLS_IN_AGENT), "A database function in the User-Agent"),
    rule(COMMENT_BETWEEN_WORDS, Sql, Warning, Targets::PARAMETERS, Matcher::Message, "A /* */ comment inside a value"),
    rule(
        "sqli-21",
        Sql,
        Warning,
        NOT_PATH,
        around(&["order by", "group by"], order_by_number),
        "ORDER BY a column number, to count columns",
    ),
    rule("sqli-22", Sql, Warning, Targets::NAMES, check(QUOTED, quote_in_name), "A single quote in a parameter name"),
];

const SCHEMA: &[&str] = &[
    "information_schema",
    "mysql.user",
    "mysql.innodb_table_stats",
    "pg_catalog",
    "pg_shadow",
    "sqlite_master",
    "sqlite_schema",
    "sysobjects",
    "syscolumns",
    "sysdatabases",
    "sys.databases",
    "sys.tables",
    "sys.objects",
    "sys.sql_logins",
    "master..*",
    "all_tab_columns",
    "user_tab_columns",
    "v$version",
    "@@version",
    "@@datadir",
    "@@hostname",
    "@@basedir",
    "msysaccessobjects",
];

const EXTRACTION: &[&str] = &[
    "extractvalue(",
    "updatexml(",
    "xp_cmdshell",
    "xp_dirtree",
    "xp_regread",
    "xp_fileexist",
    "sp_executesql",
    "sp_oacreate",
    "sp_configure",
    "utl_http.request",
    "utl_inaddr.get_host*",
    "dbms_xmlgen*",
    "dbms_java*",
    "ctxsys.drithsx",
    "group_concat(",
    "string_agg(",
    "concat(0x*",
    "concat_ws(0x*",
    "unhex(hex(",
    "make_set(",
    "procedure analyse(",
    "exp(~(",
    "name_const(",
    "gtid_subset(",
    "json_keys((select",
    "openrowset(",
    "opendatasource(",
    "query_to_xml(",
];

const FILES: &[&str] = &[
    "into outfile",
    "into dumpfile",
    "load_file(",
    "load data infile",
    "load data local infile",
    "lo_import(",
    "pg_read_file(",
    "bulk insert",
    "copy (select",
];

const DELAYS: &[&str] =
    &["waitfor delay", "waitfor time", "dbms_pipe.receive_message", "dbms_lock.sleep", "dbms_session.sleep", "randomblob(1*"];

const BLIND: &[&str] = &[
    "ascii(substr*",
    "ascii(mid(",
    "ascii(lower(",
    "ord(mid(",
    "ord(substr*",
    "unicode(substr*",
    "substr((select",
    "substring((select",
    "mid((select",
    "length((select",
    "length(database(",
    "substr(database(",
    "substring(database(",
    "if((select",
];

const CALLS_IN_AGENT: &[&str] = &["select(", "sleep(", "pg_sleep(", "benchmark(", "if(now(", "xor(if(", "union select"];

const CHARACTERS: &[&str] = &["char(", "chr(", "nchar("];

const OPERATORS: &[&str] =
    &["[$ne", "[$eq", "[$gt*", "[$lt*", "[$regex", "[$where", "[$in", "[$nin", "[$or", "[$exists", "$where"];

const IDENTITY: &[&str] = &[
    "database()",
    "current_user()",
    "session_user()",
    "system_user()",
    "user()",
    "version()",
    "sqlite_version()",
    "db_name()",
    "user_name()",
];

const CONCATENATION: &[&str] = &["'||'", "'||(", "'+(select", "' || '", "' || (", "\"||\"", "'|| '", "' ||'"];

const fn around(literals: &'static [&'static str], confirm: Confirm) -> Matcher {
    Matcher::Around { literals, confirm }
}

const fn check(needs: Classes, find: Find) -> Matcher {
    Matcher::Check { needs, find }
}

const fn seq(steps: &'static [&'static [&'static str]], gap: usize) -> Matcher {
    Matcher::Sequence { steps, gap }
}

const CONNECTORS: &[&str] = &["or", "and", "xor", "having", "where", "||", "&&"];

const NAME_KEYWORDS: &[&str] = &[
    "select",
    "insert",
    "update",
    "delete",
    "drop",
    "alter",
    "union",
    "exec",
    "execute",
    "truncate",
    "declare",
    "waitfor",
    "sleep",
    "benchmark",
    "or",
    "and",
    "having",
];
