//! Functions of SQLite that may take as long as the product of what they are given: the same
//! answers, with a look at the leash before each call.
//!
//! SQLite itself looks between two rounds of a loop, and a statement may call many in one.

use std::{borrow::Cow, ffi::CString};

use memchr::memmem;
use rusqlite::{
    Connection, Error, ToSql, ffi,
    functions::{Context, FunctionFlags},
    limits::Limit,
    params_from_iter,
    types::{ToSqlOutput, Value, ValueRef},
};

use super::guard::{PATTERN_BYTES, Stopped, VALUE_BYTES};
use crate::store::Leash;

/// Those that a statement does without.
const LEFT_OUT: [(&str, i32); 5] =
    [("json_patch", 2), ("jsonb_patch", 2), ("json_pretty", 1), ("json_pretty", 2), ("unhex", 2)];

/// Text that need not be UTF-8.
struct Text(Vec<u8>);

impl ToSql for Text {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Text(&self.0)))
    }
}

/// What is asked before each call, and while one goes on.
#[derive(Clone)]
pub(super) struct Looking {
    pub(super) leash: Leash,
    pub(super) stopped: Stopped,
}

impl Looking {
    fn look(&self) -> rusqlite::Result<()> {
        let Some(over) = self.leash.over() else { return Ok(()) };
        self.stopped.set(over.into());
        Err(Error::UserFunctionError("interrupted".into()))
    }
}

/// Puts them in the place of SQLite's.
pub(super) fn define(conn: &Connection, looking: &Looking) -> rusqlite::Result<()> {
    let pure = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    let looks = looking.clone();
    conn.create_scalar_function("instr", 2, pure, move |of| looks.look().and_then(|()| instr(of)))?;
    let looks = looking.clone();
    conn.create_scalar_function("replace", 3, pure, move |of| {
        looks.look().and_then(|()| replace(of))
    })?;
    for (name, at_start, at_end) in
        [("trim", true, true), ("ltrim", true, false), ("rtrim", false, true)]
    {
        let looks = looking.clone();
        conn.create_scalar_function(name, 2, pure, move |of| trim(of, &looks, at_start, at_end))?;
    }
    for count in [2, 3] {
        let looks = looking.clone();
        conn.create_scalar_function("like", count, pure, move |of| {
            looks.look().and_then(|()| like(of))
        })?;
    }
    let looks = looking.clone();
    conn.create_scalar_function("glob", 2, pure, move |of| looks.look().and_then(|()| glob(of)))?;
    for name in ["format", "printf"] {
        let (looks, own) = (looking.clone(), Connection::open_in_memory()?);
        own.set_limit(Limit::SQLITE_LIMIT_LENGTH, VALUE_BYTES)?;
        conn.create_scalar_function(name, -1, pure, move |of| {
            looks.look().and_then(|()| format(of, &own))
        })?;
    }
    for (name, count) in LEFT_OUT {
        conn.create_scalar_function(name, count, pure, move |_| -> rusqlite::Result<Value> {
            Err(wrong(&format!("{name}() of {count} is left out: it may take too long")))
        })?;
    }
    Ok(())
}

/// The text of an argument as SQLite has it; `None` for NULL.
fn text<'a>(of: &'a Context<'_>, index: usize) -> Option<Cow<'a, [u8]>> {
    Some(match of.get_raw(index) {
        ValueRef::Null => return None,
        ValueRef::Integer(number) => number.to_string().into_bytes().into(),
        ValueRef::Real(number) => real(number).into(),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.into(),
    })
}

fn real(number: f64) -> Vec<u8> {
    let mut buffer = [0_u8; 64];
    // SAFETY: SQLite writes no more than the length and terminates it; the format takes an integer
    // and a double.
    unsafe {
        ffi::sqlite3_snprintf(
            buffer.len() as i32,
            buffer.as_mut_ptr().cast(),
            c"%!.*g".as_ptr(),
            17_i32,
            number,
        )
    };
    terminated(&buffer).to_vec()
}

/// What stands before the first zero.
fn terminated(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn too_big() -> Error {
    Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_TOOBIG), None)
}

/// Whether a character goes on in this byte.
fn goes_on(byte: u8) -> bool {
    byte & 0xc0 == 0x80
}

/// Counts characters, or bytes where both are blobs.
fn instr(of: &Context<'_>) -> rusqlite::Result<Option<i64>> {
    let (Some(within), Some(sought)) = (text(of, 0), text(of, 1)) else { return Ok(None) };
    let is_blobs = [0, 1].iter().all(|at| matches!(of.get_raw(*at), ValueRef::Blob(_)));
    let at = match sought.first() {
        // A text is not looked at within its characters.
        Some(first) if !is_blobs && goes_on(*first) => within.starts_with(&sought).then_some(0),
        _ => memmem::find(&within, &sought),
    };
    let before = at.map(|at| {
        let passed = within.iter().skip(1).take(at);
        passed.filter(|byte| is_blobs || !goes_on(**byte)).count()
    });
    Ok(Some(before.map_or(0, |before| before as i64 + 1)))
}

fn replace(of: &Context<'_>) -> rusqlite::Result<Option<Text>> {
    let (Some(within), Some(sought)) = (text(of, 0), text(of, 1)) else { return Ok(None) };
    if sought.first().is_none_or(|first| *first == 0) {
        return Ok(Some(Text(within.into_owned())));
    }
    let Some(instead) = text(of, 2) else { return Ok(None) };
    let (mut replaced, mut from) = (Vec::with_capacity(within.len()), 0);
    for at in memmem::find_iter(&within, &sought) {
        replaced.extend_from_slice(&within[from..at]);
        replaced.extend_from_slice(&instead);
        from = at + sought.len();
        if replaced.len() > VALUE_BYTES as usize {
            return Err(too_big());
        }
    }
    replaced.extend_from_slice(&within[from..]);
    Ok(Some(Text(replaced)))
}

/// Of characters that are any of the second argument.
fn trim(
    of: &Context<'_>,
    looking: &Looking,
    at_start: bool,
    at_end: bool,
) -> rusqlite::Result<Option<Text>> {
    looking.look()?;
    let (Some(whole), Some(any)) = (text(of, 0), text(of, 1)) else { return Ok(None) };
    let (mut rest, any) = (&*whole, characters(terminated(&any)));
    while at_start && let Some(cut) = any.iter().find_map(|one| rest.strip_prefix(*one)) {
        looking.look()?;
        rest = cut;
    }
    while at_end && let Some(cut) = any.iter().find_map(|one| rest.strip_suffix(*one)) {
        looking.look()?;
        rest = cut;
    }
    Ok(Some(Text(rest.to_vec())))
}

/// As SQLite divides what may be no UTF-8.
fn characters(mut text: &[u8]) -> Vec<&[u8]> {
    let mut all = Vec::new();
    while let Some((first, rest)) = text.split_first() {
        let further = rest.iter().take_while(|byte| *first >= 0xc0 && goes_on(**byte)).count();
        let (one, rest) = text.split_at(1 + further);
        all.push(one);
        text = rest;
    }
    all
}

/// `text LIKE pattern ESCAPE character`, which SQLite calls with the pattern first.
fn like(of: &Context<'_>) -> rusqlite::Result<Option<bool>> {
    let pattern = pattern(of)?;
    let escape = if of.len() == 3 {
        let Some(escape) = text(of, 2) else { return Ok(None) };
        let [character] = characters(terminated(&escape))[..] else {
            return Err(wrong("ESCAPE expression must be a single character"));
        };
        let character = str::from_utf8(character).ok().and_then(|text| text.chars().next());
        let Some(character) = character.filter(|it| !['%', '_'].contains(it)) else {
            return Err(wrong("ESCAPE takes UTF-8, and neither % nor _"));
        };
        character.into()
    } else {
        0
    };
    let (Some(pattern), Some(text)) = (pattern, text(of, 1)) else { return Ok(None) };
    let text = c_string(&text);
    // SAFETY: both are terminated, and are only read.
    Ok(Some(unsafe { ffi::sqlite3_strlike(pattern.as_ptr(), text.as_ptr(), escape) } == 0))
}

/// `text GLOB pattern`, in the same order.
fn glob(of: &Context<'_>) -> rusqlite::Result<Option<bool>> {
    let (Some(pattern), Some(text)) = (pattern(of)?, text(of, 1)) else { return Ok(None) };
    let text = c_string(&text);
    // SAFETY: both are terminated, and are only read.
    Ok(Some(unsafe { ffi::sqlite3_strglob(pattern.as_ptr(), text.as_ptr()) } == 0))
}

/// The first argument; SQLite's words where it is too long.
fn pattern(of: &Context<'_>) -> rusqlite::Result<Option<CString>> {
    match text(of, 0) {
        Some(pattern) if pattern.len() > PATTERN_BYTES as usize => {
            Err(wrong("LIKE or GLOB pattern too complex"))
        }
        pattern => Ok(pattern.map(|pattern| c_string(&pattern))),
    }
}

fn c_string(text: &[u8]) -> CString {
    CString::new(terminated(text)).expect("no zero is in it")
}

/// SQLite's own, on a connection where it still is.
fn format(of: &Context<'_>, own: &Connection) -> rusqlite::Result<Option<Text>> {
    if !of.is_empty() && text(of, 0).is_some_and(|format| format.len() > PATTERN_BYTES as usize) {
        return Err(wrong("the format is too long"));
    }
    let places = vec!["?"; of.len()].join(",");
    let mut statement = own.prepare_cached(&format!("SELECT format({places})"))?;
    let given = (0..of.len()).map(|at| ToSqlOutput::Borrowed(of.get_raw(at)));
    statement.query_row(params_from_iter(given), |row| {
        Ok(match row.get_ref(0)? {
            ValueRef::Text(bytes) => Some(Text(bytes.to_vec())),
            _ => None,
        })
    })
}

fn wrong(told: &str) -> Error {
    Error::UserFunctionError(told.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rusqlite::{Connection, params_from_iter, types::Value};

    use super::{Looking, define};
    use crate::store::{Leash, sql::guard::Stopped};

    const CALLS: [&str; 13] = [
        "instr(?1, ?2)",
        "replace(?1, ?2, ?3)",
        "trim(?1, ?2)",
        "ltrim(?1, ?2)",
        "rtrim(?1, ?2)",
        "?1 LIKE ?2",
        "?1 NOT LIKE ?2",
        "?1 LIKE ?2 ESCAPE 'a'",
        "?1 LIKE ?2 ESCAPE ?3",
        "?1 GLOB ?2",
        "format(?1, ?2, ?3)",
        "printf('%d|%.3f|%s|%10s', ?1, ?2, ?3, ?1)",
        "format()",
    ];

    fn value() -> impl Strategy<Value = Value> {
        let bytes = || {
            let byte = prop::sample::select(b"aAb%_*?[]^-d0.1\xc3\xa9\xe2\x82\xac\x00".to_vec());
            prop_oneof![
                prop::collection::vec(byte.clone(), 0..3),
                prop::collection::vec(byte, 0..9)
            ]
        };
        prop_oneof![
            1 => Just(Value::Null),
            1 => (-200_i64..200).prop_map(Value::Integer),
            1 => any::<i64>().prop_map(Value::Integer),
            1 => any::<f64>().prop_map(Value::Real),
            1 => (-20_i32..20).prop_map(|tenths| Value::Real(f64::from(tenths) / 10.0)),
            2 => bytes().prop_map(Value::Blob),
            6 => "[aAb%_*?.0é€]{0,6}".prop_map(Value::Text),
            // SQLite makes text of it that is no UTF-8.
            6 => bytes().prop_map(|bytes| Value::Text(bytes.iter().map(|it| format!("{it:02x}")).collect())),
        ]
    }

    /// Type and bytes of what a call gives.
    fn called(
        conn: &Connection,
        call: &str,
        given: &[Value],
        is_hex: bool,
    ) -> Result<String, String> {
        let place = |number: usize| match &given[number - 1] {
            Value::Text(_) if is_hex => format!("CAST(unhex(?{number}) AS TEXT)"),
            _ => format!("?{number}"),
        };
        let call = call.replace("?1", "<1>").replace("?2", "<2>").replace("?3", "<3>");
        let call = (1..=3).fold(call, |call, at| call.replace(&format!("<{at}>"), &place(at)));
        let sql =
            format!("SELECT typeof(it) || ' ' || hex(it), ?1, ?2, ?3 FROM (SELECT {call} AS it)");
        conn.query_row(&sql, params_from_iter(given), |row| row.get(0))
            .map_err(|error| error.to_string())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn they_answer_as_those_of_sqlite(
            given in prop::collection::vec(value(), 3),
            is_hex in any::<bool>(),
        ) {
            let (theirs, ours) = (Connection::open_in_memory().unwrap(), Connection::open_in_memory().unwrap());
            define(&ours, &Looking { leash: Leash::default(), stopped: Stopped::default() }).unwrap();
            for call in CALLS {
                let told = called(&ours, call, &given, is_hex);
                if told.as_ref().is_err_and(|told| told.starts_with("ESCAPE takes")) {
                    continue;
                }
                prop_assert_eq!(told, called(&theirs, call, &given, is_hex), "{}", call);
            }
        }
    }
}
