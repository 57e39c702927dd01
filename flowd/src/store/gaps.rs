//! Gaps: rows that may still change while they last, so that the newest segment that has a number
//! is right about it.

use std::collections::BTreeMap;

use rusqlite::{Connection, Row, params};

use super::{
    ReadError, Reader, WriteError, Writer,
    reader::{open_file, read},
    row::Names,
    segment::Interned,
    writer::Newest,
};
use crate::flows::{Bound, Filter, Gap, Stage};

/// The version of the schema that brought gaps: older segments have none.
const SINCE_VERSION: usize = 3;

const COLUMNS: &str =
    "gap_id, stage, interface_id, peer_id, opened, closed, packets, bytes, detail";

/// What the next segment must know of gaps.
#[derive(Clone, Debug, Default)]
pub(super) struct CarriedGaps {
    pub(super) last_id: u64,
    open: Vec<Gap>,
}

impl CarriedGaps {
    pub(super) fn read(conn: &Connection) -> rusqlite::Result<Self> {
        let mut open = rows(conn)?;
        open.retain(|gap| gap.closed_ms.is_none());
        Ok(Self { last_id: last_id(conn)?, open })
    }

    pub(super) fn write(&self, conn: &Connection, interned: &mut Interned) -> rusqlite::Result<()> {
        let Self { last_id, open } = self;
        for gap in open {
            upsert(conn, interned, gap)?;
        }
        set_last_id(conn, *last_id)
    }
}

impl Writer {
    /// Numbers the gaps that are new, and stores all of them as they are now. On an error nothing
    /// has changed, and those that were new keep the id 0.
    pub fn put_gaps(&mut self, now_ms: i64, gaps: &mut [Gap]) -> Result<(), WriteError> {
        let new: Vec<usize> = (0..gaps.len()).filter(|index| gaps[*index].gap_id == 0).collect();
        let outcome = self.transaction(now_ms, |tx, interned| {
            let before = last_id(tx)?;
            for (id, index) in (before + 1..).zip(&new) {
                gaps[*index].gap_id = id;
            }
            for gap in gaps.iter() {
                upsert(tx, interned, gap)?;
            }
            set_last_id(tx, before + new.len() as u64)
        });
        if outcome.is_err() {
            new.into_iter().for_each(|index| gaps[index].gap_id = 0);
        }
        outcome
    }

    /// The highest number of a gap in the store; 0: none yet.
    pub fn last_gap_id(&self) -> Result<u64, WriteError> {
        match &self.newest {
            Newest::Open(segment) => Ok(last_id(segment.conn())?),
            Newest::Closed { carried, .. } => Ok(carried.gaps.last_id),
            Newest::Wanted { gaps, .. } => Ok(gaps.last_id),
        }
    }

    /// The gaps that last, as the daemon before left them.
    pub fn open_gaps(&self) -> Result<Vec<Gap>, WriteError> {
        match &self.newest {
            Newest::Open(segment) => Ok(CarriedGaps::read(segment.conn())?.open),
            Newest::Closed { carried, .. } => Ok(carried.gaps.open.clone()),
            Newest::Wanted { gaps, .. } => Ok(gaps.open.clone()),
        }
    }
}

impl Reader {
    /// The gaps that touch a range, oldest first.
    pub fn gaps(
        &self,
        since_ms: Option<i64>,
        until_ms: Option<i64>,
    ) -> Result<Vec<Gap>, ReadError> {
        let (since, until) = (since_ms.unwrap_or(i64::MIN), until_ms.unwrap_or(i64::MAX));
        let mut newest: BTreeMap<u64, Gap> = BTreeMap::new();
        // One that was closed before the range has its last word in an older segment; one that
        // lasts, or was written late, may have it in any newer one.
        for path in self.paths(&Filter { since_ms, ..Filter::default() })? {
            let Some((conn, version)) = open_file(&path)? else { continue };
            if version >= SINCE_VERSION {
                let found = rows(&conn).map_err(read(&path))?;
                newest.extend(found.into_iter().map(|gap| (gap.gap_id, gap)));
            }
        }
        Ok(newest.into_values().filter(|gap| gap.touches(since, until)).collect())
    }
}

fn last_id(conn: &Connection) -> rusqlite::Result<u64> {
    let id: i64 = conn.query_row("SELECT last_gap_id FROM state", [], |row| row.get(0))?;
    Ok(id.cast_unsigned())
}

fn set_last_id(conn: &Connection, id: u64) -> rusqlite::Result<()> {
    conn.execute("UPDATE state SET last_gap_id = ?", [id.cast_signed()])?;
    Ok(())
}

fn upsert(conn: &Connection, interned: &mut Interned, gap: &Gap) -> rusqlite::Result<()> {
    let Gap { gap_id, stage, interface, peer, opened_ms, closed_ms, bound, detail } = gap;
    let interface = interface.as_ref().map(|name| interned.interface(conn, name)).transpose()?;
    let peer = peer.as_ref().map(|identity| interned.peer(conn, identity)).transpose()?;
    // More than SQLite's numbers hold is as good as unknown.
    let count = |count: Option<u64>| count.and_then(|count| i64::try_from(count).ok());
    conn.prepare_cached(&format!(
        "INSERT OR REPLACE INTO gap ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
    ))?
    .execute(params![
        gap_id.cast_signed(),
        stage.number(),
        interface,
        peer,
        opened_ms,
        closed_ms,
        count(bound.packets),
        count(bound.bytes),
        detail,
    ])?;
    Ok(())
}

/// Every gap of a segment.
fn rows(conn: &Connection) -> rusqlite::Result<Vec<Gap>> {
    let mut query = conn.prepare(&format!("SELECT {COLUMNS} FROM gap ORDER BY gap_id"))?;
    let mut found = query.query([])?;
    let mut gaps = Vec::new();
    let mut names = None;
    while let Some(row) = found.next()? {
        let names = match &mut names {
            Some(names) => names,
            // Most segments have no gap, and many names.
            None => names.insert(Names::read(conn)?),
        };
        gaps.push(gap(row, names)?);
    }
    Ok(gaps)
}

fn gap(row: &Row<'_>, names: &Names) -> rusqlite::Result<Gap> {
    let stage = row.get(1)?;
    let stage = Stage::from_number(stage)
        .ok_or(rusqlite::Error::IntegralValueOutOfRange(1, stage.into()))?;
    let interface = row.get::<_, Option<i64>>(2)?;
    let peer = row.get::<_, Option<i64>>(3)?;
    let count = |column| {
        Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(column)?.map(i64::cast_unsigned))
    };
    Ok(Gap {
        gap_id: row.get::<_, i64>(0)?.cast_unsigned(),
        stage,
        interface: interface.and_then(|id| names.interfaces.get(&id).cloned()),
        peer: peer.and_then(|id| names.peers.get(&id).cloned()),
        opened_ms: row.get(4)?,
        closed_ms: row.get(5)?,
        bound: Bound { packets: count(6)?, bytes: count(7)? },
        detail: row.get(8)?,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Bound, Gap, Reader, Stage, Writer};
    use crate::flows::Identity;

    const DAY: i64 = 86_400_000;

    fn gap(stage: Stage, opened_ms: i64) -> Gap {
        Gap {
            gap_id: 0,
            stage,
            interface: Some("wg0".into()),
            peer: None,
            opened_ms,
            closed_ms: None,
            bound: Bound::UNKNOWN,
            detail: "somebody did it".to_owned(),
        }
    }

    fn alice() -> Arc<Identity> {
        Arc::new(Identity {
            public_key: "YWxpY2U=".to_owned(),
            name: "alice".to_owned(),
            user: None,
            device: None,
            groups: vec!["staff".to_owned()],
            endpoint: None,
        })
    }

    /// Ids of the gaps that touch a range.
    fn ids(reader: &Reader, since_ms: Option<i64>, until_ms: Option<i64>) -> Vec<u64> {
        reader.gaps(since_ms, until_ms).unwrap().iter().map(|gap| gap.gap_id).collect()
    }

    #[test]
    fn an_open_gap_goes_on_in_the_next_segments_and_closes_everywhere() {
        let dir = tempfile::tempdir().unwrap();
        let reader = Reader::new(dir.path(), "gw");
        assert_eq!(ids(&reader, None, None), [0; 0], "there is no store yet");
        let mut writer = Writer::open(dir.path(), "gw", 0).unwrap();
        let mut first = [gap(Stage::Detached, 10), gap(Stage::Store, 20)];
        first[1].closed_ms = Some(30);
        first[1].peer = Some(alice());
        writer.put_gaps(40, &mut first).unwrap();
        assert_eq!(first.each_ref().map(|gap| gap.gap_id), [1, 2]);
        // A day, a restart and another day on which nothing is written but the ledger.
        writer.beat(DAY, false).unwrap();
        writer.close();
        let mut writer = Writer::open(dir.path(), "gw", 2 * DAY).unwrap();
        assert_eq!(writer.open_gaps().unwrap(), [first[0].clone()]);
        assert_eq!(reader.gaps(Some(DAY), None).unwrap(), [first[0].clone()]);
        assert_eq!(writer.last_gap_id().unwrap(), 2);

        first[0].closed_ms = Some(2 * DAY + 5);
        first[0].bound = Bound::of(7, 700);
        writer.put_gaps(2 * DAY + 5, &mut first[..1]).unwrap();
        assert_eq!(writer.open_gaps().unwrap(), []);
        assert_eq!(reader.gaps(None, None).unwrap(), first);
        for (since, until, expected) in [
            (None, Some(15), vec![1]),
            (None, Some(10), vec![]),
            (Some(31), Some(50), vec![1]),
            (Some(DAY), Some(DAY + 1), vec![1]),
            (Some(2 * DAY), None, vec![1]),
            (Some(2 * DAY + 6), None, vec![]),
        ] {
            assert_eq!(ids(&reader, since, until), expected, "{since:?} to {until:?}");
        }
        let mut third = [gap(Stage::Clock, 3 * DAY)];
        writer.put_gaps(3 * DAY, &mut third).unwrap();
        assert_eq!(third[0].gap_id, 3, "numbers go on over days without a gap");
        assert_eq!(ids(&reader, None, None), [1, 2, 3]);
    }

    #[test]
    fn what_is_not_stored_has_no_number() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(dir.path(), "gw", 0).unwrap();
        let mut gaps = [gap(Stage::Drain, 10), gap(Stage::Drain, 20)];
        gaps[1].closed_ms = Some(5);
        writer.put_gaps(30, &mut gaps).unwrap_err();
        assert_eq!(gaps.each_ref().map(|gap| gap.gap_id), [0, 0]);
        gaps[1].closed_ms = Some(25);
        writer.put_gaps(30, &mut gaps).unwrap();
        assert_eq!(gaps.each_ref().map(|gap| gap.gap_id), [1, 2]);
        gaps[0].detail = "known by now".to_owned();
        writer.put_gaps(40, &mut gaps).unwrap();
        assert_eq!(Reader::new(dir.path(), "gw").gaps(None, None).unwrap(), gaps);
    }

    #[test]
    fn segments_of_older_versions_have_no_gaps() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(dir.path(), "gw", 0).unwrap();
        writer.beat(DAY, false).unwrap();
        writer.close();
        let path = dir.path().join("segments/1970-01-01.sqlite");
        let old = rusqlite::Connection::open(path).unwrap();
        old.execute_batch("DROP TABLE gap; DROP TABLE state").unwrap();
        old.pragma_update(None, "user_version", 2).unwrap();
        assert_eq!(ids(&Reader::new(dir.path(), "gw"), None, None), [0; 0]);
    }
}
