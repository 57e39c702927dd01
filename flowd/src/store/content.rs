//! What a segment has, as hashes that are the same for rows and chunks, and after VACUUM.

use std::collections::HashMap;

use rusqlite::{Connection, types::ValueRef};

use super::{
    chunks::{self, damaged},
    digests,
    row::{self, Names},
};
use crate::{
    chunk::{Chunk, ColumnId, NameId, Row},
    flows::DayTotal,
    seal::{self, Content, Contents, Hash, Named, Section, SectionSeal, Value},
};

/// What is hashed besides records: the name of a section, the version of the schema that brought it,
/// and its rows. docs/sealed.md has the same.
const SECTIONS: &[(&str, usize, &str)] = &[
    ("peers", 1, "SELECT public_key, name, user, device, groups, endpoint FROM peer"),
    (
        "gaps",
        3,
        "SELECT gap_id, stage, interface.name, public_key, peer.name, user, device, groups, \
         endpoint, opened, closed, packets, bytes, detail FROM gap \
         LEFT JOIN interface USING (interface_id) LEFT JOIN peer USING (peer_id)",
    ),
    (
        "peer_events",
        3,
        "SELECT at, kind, interface.name, public_key, peer.name, user, device, groups, \
         peer.endpoint, epoch, peer_event.endpoint, was FROM peer_event \
         LEFT JOIN interface USING (interface_id) LEFT JOIN peer USING (peer_id)",
    ),
    (
        "coverage",
        3,
        "SELECT window_start, window_end, interface.name, public_key, peer.name, user, device, \
         groups, endpoint, epoch, rx_packets, rx_bytes, tx_packets, tx_bytes, \
         wireguard_rx_bytes, wireguard_tx_bytes, rx_off, tx_off FROM coverage \
         LEFT JOIN interface USING (interface_id) LEFT JOIN peer USING (peer_id)",
    ),
    (
        "totals",
        4,
        "SELECT interface.name, public_key, peer.name, user, device, groups, endpoint, verdict, \
         records, flows, rx_packets, rx_bytes, tx_packets, tx_bytes FROM total \
         LEFT JOIN interface USING (interface_id) LEFT JOIN peer USING (peer_id)",
    ),
    ("policies", 4, "SELECT revision, text FROM policy"),
];

/// Whether what is only derived from records is compared with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Derived {
    /// It is not read.
    Skipped,
    /// Sums, bounds and filters of chunks and digests that are not those of the records are an
    /// error.
    Checked,
}

/// The segment as of one instant, when the connection is in a transaction or nobody writes it.
pub(super) fn of(
    conn: &Connection,
    version: usize,
    mut content: Content,
    derived: Derived,
) -> rusqlite::Result<Contents> {
    let names = Names::whole(conn, version)?;
    let peers: HashMap<i64, Hash> =
        names.peers.iter().map(|(id, peer)| (*id, seal::identity(peer))).collect();
    // One that points to nothing is not the same as none.
    let peer =
        |id: NameId| id.map(|id| peers.get(&i64::from(id.get())).copied().unwrap_or_default());
    let named = |row: &Row| Named {
        interface: names.interfaces.get(&i64::from(row.interface)).map_or("?", |name| name),
        peer: peer(row.peer),
        remote_peer: peer(row.remote_peer),
        ..Named::default()
    };
    if version >= chunks::SINCE_VERSION {
        let columns = match derived {
            Derived::Skipped => Chunk::row_columns(),
            Derived::Checked => ColumnId::ALL.iter().copied().collect(),
        };
        let word = |id: NameId| id.and_then(|id| names.words.get(&id.get())).map(|text| &**text);
        for stored in chunks::between(conn, 0, i64::MAX.cast_unsigned())? {
            stored.need(conn, columns)?;
            if derived == Derived::Checked {
                stored.chunk.check().map_err(damaged)?;
            }
            for row in stored.chunk.all_rows().map_err(damaged)? {
                let named = Named {
                    rule: word(row.rule),
                    peer_resource: word(row.peer_resource),
                    remote_resource: word(row.remote_resource),
                    ..named(&row)
                };
                content.record(&row, &named);
            }
        }
        if derived == Derived::Checked {
            digests::check(conn, version)?;
        }
    }
    let sql = format!("SELECT {} FROM record ORDER BY record_id", row::columns(version));
    let mut query = conn.prepare(&sql)?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let (row, texts) = row::numbers(row)?;
        let named = Named {
            rule: texts.rule.as_deref(),
            peer_resource: texts.peer_resource.as_deref(),
            remote_resource: texts.remote_resource.as_deref(),
            ..named(&row)
        };
        content.record(&row, &named);
    }
    for (name, since, sql) in SECTIONS {
        if version >= *since {
            content.section(name, section(conn, sql)?);
        }
    }
    Ok(content.done())
}

fn section(conn: &Connection, sql: &str) -> rusqlite::Result<SectionSeal> {
    let mut query = conn.prepare(sql)?;
    let columns = query.column_count();
    let mut rows = query.query([])?;
    let mut section = Section::default();
    while let Some(row) = rows.next()? {
        let value = |column| match row.get_ref(column)? {
            ValueRef::Null => Ok(Value::Null),
            ValueRef::Integer(number) => Ok(Value::Integer(number)),
            ValueRef::Text(text) => Ok(std::str::from_utf8(text).map(Value::Text)?),
            other => {
                let (name, kind) = (format!("column {column}"), other.data_type());
                Err(rusqlite::Error::InvalidColumnType(column, name, kind))
            }
        };
        section.row((0..columns).map(value).collect::<rusqlite::Result<Vec<_>>>()?);
    }
    Ok(section.seal())
}

/// What is kept for ever of each peer of a day.
pub(super) fn of_peers(peers: &[DayTotal]) -> SectionSeal {
    let mut section = Section::default();
    for peer in peers {
        let DayTotal {
            day,
            interface,
            public_key,
            name,
            user,
            device,
            verdict,
            records,
            flows,
            counters: c,
        } = peer;
        let texts = [Value::Text(day), Value::Text(interface)];
        let described = [public_key, name, user, device].map(optional);
        let numbers = [
            u64::from(verdict.number()),
            *records,
            *flows,
            c.rx_packets,
            c.rx_bytes,
            c.tx_packets,
            c.tx_bytes,
        ];
        let numbers = numbers.map(|number| Value::Integer(number.cast_signed()));
        section.row(texts.into_iter().chain(described).chain(numbers));
    }
    section.seal()
}

fn optional(text: &Option<String>) -> Value<'_> {
    text.as_deref().map_or(Value::Null, Value::Text)
}
