//! SQL: the tables, and answers.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET /v1/sql`: what a statement may read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SqlTables {
    /// The large one first.
    pub tables: Vec<SqlTable>,
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SqlTable {
    /// Its name.
    pub name: String,
    /// What a row is.
    pub about: String,
    /// In the order of `SELECT *`.
    pub columns: Vec<SqlColumn>,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SqlColumn {
    /// Its name.
    pub name: String,
    /// `INTEGER` or `TEXT`; any may be NULL.
    pub r#type: String,
    /// What stands in it.
    pub about: String,
}

/// `POST /v1/sql` as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SqlRows {
    /// The names of the columns, each once.
    pub columns: Vec<String>,
    /// A list a row: numbers, texts, and null; bytes are text in hexadecimal.
    pub rows: Vec<Vec<serde_json::Value>>,
    /// Whether `limit` left rows out.
    pub more: bool,
}
