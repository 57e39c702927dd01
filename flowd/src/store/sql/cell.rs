//! One value of a table or of an answer.

use std::{borrow::Cow, fmt::Display, net::IpAddr};

use rusqlite::{
    ToSql,
    types::{ToSqlOutput, ValueRef},
};

/// A value as SQLite has it.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell<'a> {
    /// Nothing.
    Null,
    /// A whole number.
    Integer(i64),
    /// Any other number.
    Real(f64),
    /// UTF-8; what is none in SQLite has replacement characters.
    Text(Cow<'a, str>),
    /// Bytes.
    Blob(&'a [u8]),
}

impl Cell<'_> {
    /// The text of something.
    pub(super) fn text(value: impl Display) -> Self {
        Self::Text(value.to_string().into())
    }
}

impl<'a> From<ValueRef<'a>> for Cell<'a> {
    fn from(value: ValueRef<'a>) -> Self {
        match value {
            ValueRef::Null => Self::Null,
            ValueRef::Integer(number) => Self::Integer(number),
            ValueRef::Real(number) => Self::Real(number),
            ValueRef::Text(bytes) => Self::Text(String::from_utf8_lossy(bytes)),
            ValueRef::Blob(bytes) => Self::Blob(bytes),
        }
    }
}

impl ToSql for Cell<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Integer(number) => ValueRef::Integer(*number),
            Self::Real(number) => ValueRef::Real(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

impl<'a> From<&'a str> for Cell<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text.into())
    }
}

impl From<i64> for Cell<'_> {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<u64> for Cell<'_> {
    /// Counters and numbers of records fit: SQLite stores them as they are here.
    fn from(number: u64) -> Self {
        Self::Integer(number.cast_signed())
    }
}

impl From<bool> for Cell<'_> {
    fn from(is: bool) -> Self {
        Self::Integer(is.into())
    }
}

impl From<IpAddr> for Cell<'_> {
    fn from(ip: IpAddr) -> Self {
        Self::text(ip)
    }
}

impl<'a, T: Into<Self>> From<Option<T>> for Cell<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Cell::Null, Into::into)
    }
}
