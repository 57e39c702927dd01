//! Statements against the reader, which they must agree with.

use std::{
    ops::ControlFlow,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::{Answer, Beside, Cell, Question, ask, ask_within, tables};
use crate::{
    flows::{
        Bound, EndReason, Filter, FlowId, Gap, Icmp, Identity, Initiator, Record, Stage, Verdict,
        sample,
    },
    store::{
        Leash, Leaving, ReadError, Reader, Writer,
        reader::tests::{Life, filter, life, records_of},
        step_tests::compact,
    },
    wire::{Peer, WireguardCounters},
};

const DAY_MS: i64 = 86_400_000;

/// One peer and one gap.
pub(super) struct Around;

impl Beside for Around {
    fn gaps(&self) -> Result<Vec<Gap>, String> {
        Ok(vec![Gap {
            gap_id: 1,
            stage: Stage::Detached,
            interface: Some("wg0".into()),
            peer: None,
            opened_ms: 1_000,
            closed_ms: None,
            bound: Bound::of(7, 700),
            detail: "somebody did it".to_owned(),
        }])
    }

    fn peers(&self) -> Result<Arc<Vec<Peer>>, String> {
        let identity = Identity {
            public_key: "alice-key=".to_owned(),
            name: "alice".to_owned(),
            user: Some("alice@example.com".to_owned()),
            device: None,
            groups: vec!["ops".to_owned(), "all".to_owned()],
            endpoint: None,
        };
        Ok(Arc::new(vec![Peer {
            identity,
            interface: "wg0".to_owned(),
            allowed_ips: vec!["10.8.0.2/32".to_owned()],
            latest_handshake: None,
            connected_since: None,
            open_flows: 0,
            counters: sample::record().counters,
            wireguard: WireguardCounters::default(),
            coverage: None,
        }]))
    }
}

/// Rows as text, cells between bars.
#[derive(Default)]
pub(super) struct Rows {
    pub(super) names: Vec<String>,
    pub(super) rows: Vec<String>,
    /// How many are enough.
    wanted: Option<usize>,
}

impl Answer for Rows {
    fn columns(&mut self, names: Vec<String>) {
        self.names = names;
    }

    fn row(&mut self, cells: &[Cell<'_>]) -> ControlFlow<()> {
        let cell = |cell: &Cell<'_>| match cell {
            Cell::Null => "NULL".to_owned(),
            Cell::Integer(number) => number.to_string(),
            Cell::Real(number) => format!("{number:?}"),
            Cell::Text(text) => text.clone().into_owned(),
            Cell::Blob(bytes) => format!("{bytes:?}"),
        };
        self.rows.push(cells.iter().map(cell).collect::<Vec<_>>().join("|"));
        if Some(self.rows.len()) == self.wanted {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }
}

pub(super) fn question(text: &str) -> Question {
    Question {
        text: text.to_owned(),
        gateway: "gw".into(),
        watermark: i64::MAX as u64,
        now_ms: 4 * DAY_MS,
    }
}

/// Rows, and how many records were read for them.
fn asked(dir: &Path, leash: &Leash, text: &str) -> Result<(Rows, u64), ReadError> {
    let mut rows = Rows::default();
    let read = ask(&Reader::new(dir, "gw"), leash, &question(text), &Around, &mut rows)?;
    Ok((rows, read))
}

fn rows(dir: &Path, text: &str) -> Vec<String> {
    asked(dir, &Leash::default(), text).unwrap_or_else(|error| panic!("{text}: {error}")).0.rows
}

fn error(dir: &Path, text: &str) -> ReadError {
    match asked(dir, &Leash::default(), text) {
        Ok((rows, _)) => panic!("{text}: {:?}", rows.rows),
        Err(error) => error,
    }
}

/// A store of these records, as rows.
fn stored(records: Vec<Record>) -> (tempfile::TempDir, Vec<Record>) {
    stepped(records, 0)
}

/// The same, of which so many steps a day made chunks.
fn stepped(mut records: Vec<Record>, steps: usize) -> (tempfile::TempDir, Vec<Record>) {
    let dir = tempfile::tempdir().unwrap();
    records.sort_by_key(|record| record.window_end_ms);
    let first_ms = records.first().map_or(0, |record| record.window_end_ms);
    let mut writer = Writer::open(dir.path(), "gw", first_ms).unwrap();
    let days = records.chunk_by_mut(|a, b| a.window_end_ms / DAY_MS == b.window_end_ms / DAY_MS);
    for day in days {
        writer.commit(day[0].window_end_ms, day, &Leaving::default()).unwrap();
        compact(dir.path(), &mut writer, 7, steps);
    }
    writer.close();
    (dir, records)
}

fn lives(lives: &[Life]) -> Vec<Record> {
    lives.iter().zip(0..).flat_map(|(life, number)| records_of(number, life)).collect()
}

/// One record a minute of three days, of flows by two peers in turn.
fn history() -> (tempfile::TempDir, Vec<Record>) {
    let minute = |number: u16| {
        let end_ms = i64::from(number) * 60_000;
        let mut record = sample::record();
        record.tuple.peer_port = number;
        record.first_seen_ms = end_ms - 60_000;
        record.window_start_ms = end_ms - 60_000;
        record.window_end_ms = end_ms;
        if number.is_multiple_of(2) {
            let mut bob = record.peer.as_deref().cloned().unwrap();
            (bob.name, bob.public_key, bob.user) = ("bob".to_owned(), "bob-key=".to_owned(), None);
            record.peer = Some(bob.into());
            record.verdict = Verdict::Deny;
            record.rule = Some("no-bob".into());
            record.tuple.remote_addr = "fd00::1".parse().unwrap();
        }
        record
    };
    stored((1..=4_300).map(minute).collect())
}

#[test]
fn conditions_narrow_what_is_read_and_never_what_is_right() {
    let (dir, records) = history();
    let flow = {
        let record = &records[2_000];
        FlowId::new("gw", &record.interface, &record.tuple, record.first_seen_ms)
    };
    let flow = format!("flow_id = '{flow}'");
    let all = 4_300;
    let cases: &[(&str, u64, u64)] = &[
        // condition, rows, records read
        ("1", all, all),
        ("record_id = 17", 1, 1),
        ("rowid = 17", 1, 1),
        ("record_id > 4290", 10, 11),
        ("record_id BETWEEN 11 AND 20", 10, 10),
        ("record_id >= 11 AND record_id < 21 AND record_id > 5", 10, 11),
        ("record_id IN (1, 4300, 9999)", 2, 2),
        ("record_id = -1", 0, 0),
        (&flow, 1, 1),
        ("flow_id = 'x'", 0, all),
        ("window_end >= 60000 * 4000", 301, 301),
        ("window_end < 60000.5", 1, 1),
        ("window_end = 60000", 1, 1),
        ("window_end > instant('90m') - 4 * 86400000 + 86400000 * 3", 70, 71),
        ("window_end > 60000 AND window_end <= 180000", 2, 3),
        ("peer_name = 'bob'", 2_150, 2_150),
        ("peer_name = 'Bob' COLLATE NOCASE", 2_150, all),
        ("peer_name > 'alice'", 2_150, all),
        ("src_peer = 'bob' AND window_end <= 600000", 5, 5),
        ("peer_public_key = 'bob-key='", 2_150, 2_150),
        ("peer_public_key = 'bob-'", 0, 2_150),
        ("peer_public_key = 'b'", 0, all),
        ("peer_user = 'alice@example.com'", 2_150, 2_150),
        ("src_ip = '10.8.0.2'", all, all),
        ("dst_ip = 'fd00::1'", 2_150, 2_150),
        ("dst_ip = 'fd00:0::1'", 0, 2_150),
        ("dst_ip = 'nowhere'", 0, all),
        ("src_port = 77", 1, 1),
        ("src_port = '77'", 1, all),
        ("src_port = 77.0", 1, 1),
        ("src_port = 77000", 0, all),
        ("dst_port = 53", 0, 0),
        ("protocol = 'tcp'", all, all),
        ("protocol = 'udp'", 0, 0),
        ("protocol_number = 17", 0, 0),
        ("verdict = 'deny'", 2_150, 2_150),
        ("verdict = 'perhaps'", 0, all),
        ("rule = 'no-bob'", 2_150, 2_150),
        ("rule IS NULL", 2_150, 2_150),
        ("rule IS NOT NULL", 2_150, all),
        ("interface = 'wg1'", 0, 0),
        ("peer_name IN ('bob', 'alice', 'carol')", all, all),
        ("peer_name = 'bob' OR verdict = 'allow'", all, all),
        // Nothing is equal to NULL.
        ("peer_name = NULL", 0, 0),
        ("window_end = NULL", 0, 0),
        ("window_end > NULL OR window_end <= NULL", 0, 0),
        ("window_end BETWEEN NULL AND 60000", 0, 0),
        ("record_id < NULL", 0, 0),
        ("flow_id = NULL", 0, 0),
        ("window_end IS NULL", 0, all),
        ("window_end IS 60000", 1, all),
        // Every number is below every blob.
        ("window_end > x'00'", 0, 0),
        ("window_end < x'00'", all, all),
        ("record_id >= zeroblob(1)", 0, 0),
        ("record_id <= zeroblob(1)", all, all),
        ("peer_name = CAST('bob' AS BLOB)", 0, 0),
    ];
    for (condition, expected, read) in cases {
        let text = format!("SELECT count(*) FROM records WHERE {condition}");
        let (rows, looked_at) = asked(dir.path(), &Leash::default(), &text).unwrap();
        assert_eq!((&rows.rows[0], looked_at), (&expected.to_string(), *read), "{condition}");
    }
}

#[test]
fn a_range_beside_or_is_read_once() {
    let (dir, _) = history();
    let cases = [
        // condition, rows, records read
        ("record_id BETWEEN 11 AND 20 AND (src_port = 12 OR src_port = 13)", 2, 10),
        ("record_id >= 11 AND record_id <= 20 AND (src_port = 12 OR src_port = 13)", 2, 10),
        ("record_id >= 4291 AND (peer_name = 'bob' OR verdict = 'allow')", 10, 10),
        ("record_id BETWEEN 11 AND 20 AND (peer_name = 'bob' OR dst_port = 443)", 10, 10),
        ("window_end BETWEEN 60000 AND 600000 AND (peer_name = 'bob' OR dst_port = 443)", 10, 10),
        ("window_end BETWEEN 60000 AND 600000 AND (record_id < 3 OR record_id > 8)", 4, 10),
        ("record_id BETWEEN 11 AND 20 AND (record_id < 13 OR record_id > 18)", 4, 10),
        ("peer_name = 'bob' OR dst_port = 443", 4_300, 4_300),
        // Each side has a range of its own, or a point.
        ("record_id < 11 OR record_id > 4290", 20, 22),
        ("record_id = 7 OR window_end = 60000", 2, 2),
        (
            "record_id BETWEEN 1 AND 4 AND peer_name = 'bob' \
             OR record_id BETWEEN 7 AND 8 AND dst_port = 443",
            4,
            4,
        ),
    ];
    for (condition, expected, read) in cases {
        let text = format!("SELECT count(*) FROM records WHERE {condition}");
        let (rows, looked_at) = asked(dir.path(), &Leash::default(), &text).unwrap();
        assert_eq!((&rows.rows[0], looked_at), (&expected.to_string(), read), "{condition}");
    }
    let plan = |condition: &str| {
        let text = format!("EXPLAIN QUERY PLAN SELECT count(*) FROM records WHERE {condition}");
        rows(dir.path(), &text).join("\n")
    };
    assert!(!plan(cases[0].0).contains("MULTI-INDEX OR"), "{}", plan(cases[0].0));
    assert!(plan("record_id < 11 OR record_id > 4290").contains("MULTI-INDEX OR"));
}

#[test]
fn what_is_wanted_first_comes_without_the_rest() {
    let (dir, _) = history();
    let read = |text: &str| asked(dir.path(), &Leash::default(), text).unwrap();
    let (first, looked_at) = read("SELECT record_id FROM records ORDER BY record_id LIMIT 3");
    assert_eq!((&*first.rows.join(" "), looked_at), ("1 2 3", 256));
    let (last, looked_at) = read("SELECT record_id FROM records ORDER BY record_id DESC LIMIT 3");
    assert_eq!((&*last.rows.join(" "), looked_at), ("4300 4299 4298", 4_300));
    // Whoever has enough ends it.
    let mut few = Rows { wanted: Some(2), ..Rows::default() };
    let reader = Reader::new(dir.path(), "gw");
    let all = question("SELECT * FROM records");
    assert_eq!(ask(&reader, &Leash::default(), &all, &Around, &mut few).unwrap(), 256);
    assert_eq!(few.rows.len(), 2);
    let early =
        Question { watermark: 40, ..question("SELECT max(record_id), count(*) FROM records") };
    let mut rows = Rows::default();
    ask(&reader, &Leash::default(), &early, &Around, &mut rows).unwrap();
    assert_eq!(rows.rows, ["40|40"]);
}

#[test]
fn tables_are_joined_and_a_large_one_is_read_once() {
    let (dir, _) = history();
    let text = "SELECT p.name, json_array_length(p.groups), count(*), sum(r.rx_bytes) \
        FROM records r JOIN peers p ON p.public_key = r.peer_public_key GROUP BY p.name";
    let (joined, read) = asked(dir.path(), &Leash::default(), text).unwrap();
    assert_eq!((joined.rows, read), (vec![format!("alice|2|2150|{}", 2_150 * 120)], 4_300));
    let cases = [
        ("SELECT stage, packets, closed FROM gaps", "detached|7|NULL"),
        ("SELECT count(*) FROM gaps, peers", "1"),
        ("SELECT count(*) FROM GAPS AS g, \"Peers\"", "1"),
        ("SELECT EXISTS (SELECT 1 FROM main.gaps)", "1"),
        ("WITH mine AS (SELECT 7 AS x) SELECT count(*), (SELECT x FROM mine) FROM mine", "1|7"),
        ("SELECT value FROM peers, json_each(peers.groups)", "ops all"),
        (
            "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4) SELECT i FROM n",
            "1 2 3 4",
        ),
        ("SELECT * FROM (SELECT verdict, count(*) OVER () FROM records LIMIT 1)", "allow|4300"),
        ("VALUES (1, 'a', NULL, 0.5, x'00')", "1|a|NULL|0.5|[0]"),
        (
            "SELECT utc(window_end), utc(NULL) FROM records WHERE record_id = 1",
            "1970-01-01T00:01:00.000Z|NULL",
        ),
        ("SELECT instant('24h'), instant('1970-01-02 00:01')", "259200000|86460000"),
        ("SELECT 1; -- and no more", "1"),
        (
            "SELECT count(*) FROM records a JOIN records b USING (flow_id) WHERE a.record_id < 9",
            "8",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(rows(dir.path(), text).join(" "), expected, "{text}");
    }
    let twice = asked(dir.path(), &Leash::default(), "SELECT 1 AS a, 2 AS a, 3 AS b").unwrap();
    assert_eq!(twice.0.names, ["a", "a_2", "b"]);
    assert!(!rows(dir.path(), "EXPLAIN QUERY PLAN SELECT * FROM records").is_empty());
}

#[test]
fn a_statement_only_reads() {
    let (dir, _) = stored(vec![sample::record()]);
    let elsewhere = dir.path().join("elsewhere");
    let file = elsewhere.display();
    let only_reads = [
        "INSERT INTO gaps (gap_id) VALUES (1)",
        "UPDATE peers SET name = 'x'",
        "DROP TABLE gaps",
        "CREATE TABLE x (y)",
        "CREATE TEMP TABLE x AS SELECT * FROM records",
        "CREATE VIRTUAL TABLE x USING fts5(y)",
        "CREATE VIEW x AS SELECT 1",
        &format!("ATTACH '{file}' AS x"),
        "DETACH main",
        &format!("VACUUM INTO '{file}'"),
        "VACUUM",
        "PRAGMA temp_store = 2",
        "PRAGMA table_info(gaps)",
        "SELECT * FROM pragma_database_list",
        "SELECT count(*) FROM pragma_database_list",
        "SELECT * FROM sqlite_schema",
        "SELECT name FROM dbstat",
        "SELECT load_extension('x')",
        "SELECT LOAD_EXTENSION('x', 'y')",
        "EXPLAIN DROP TABLE gaps",
        "REINDEX",
        "ANALYZE",
        "BEGIN",
        "COMMIT",
        "SAVEPOINT x",
    ];
    for text in only_reads {
        let said = error(dir.path(), text).to_string();
        assert!(said.starts_with("a statement only reads"), "{text}: {said}");
    }
    assert!(!elsewhere.exists());
    let wrong = [
        ("DELETE FROM records", "table records may not be modified"),
        ("", "there is no statement"),
        (" -- nothing", "there is no statement"),
        ("SELECT 1; SELECT 2", "there is more than one statement: ask one"),
        ("SELECT 1; DROP TABLE gaps", "there is more than one statement: ask one"),
        ("SELECT 1; nonsense", "there is more than one statement: ask one"),
        ("SELECT ?", "nothing stands for a `?` or a `:name` here: write the value"),
        ("SELECT 1 FORM records", "near \"records\": syntax error, at byte 15"),
        ("SELECT \"alice\"", "no such column: \"alice\" - should this be a string literal"),
        ("SELECT x FROM nowhere", "no such table: nowhere; the tables are records, gaps and peers"),
        ("SELECT '\n' FROM records WHERE \"a\nb\"", "no such column: \"a b\" - should this be"),
        (
            "SELECT sum(9223372036854775807) FROM records, gaps, json_each('[1,2]')",
            "integer overflow",
        ),
        ("SELECT instant('soon')", "instant() takes RFC 3339"),
        ("SELECT randomblob(2000000)", "string or blob too big"),
    ];
    for (text, expected) in wrong {
        let refused = error(dir.path(), text);
        assert!(matches!(refused, ReadError::Statement(_)), "{text}: {refused:?}");
        assert!(refused.to_string().starts_with(expected), "{text}: {refused}");
        assert_eq!(refused.to_string().lines().count(), 1);
    }
    let many = "SELECT 1;".repeat(7_000);
    assert!(matches!(error(dir.path(), &many), ReadError::Statement(_)));
    let long = format!("SELECT {}1", "1 + ".repeat(100_000));
    assert!(matches!(error(dir.path(), &long), ReadError::Statement(_)));
}

/// A statement that would take years.
const ENDLESS: &str =
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";

#[test]
fn a_statement_ends_with_its_leash_and_its_memory() {
    let (dir, _) = history();
    let late = || Leash::new(Duration::ZERO);
    for text in [ENDLESS, "SELECT * FROM records", "SELECT count(*) FROM records a, records b"] {
        let ended = asked(dir.path(), &late(), text).map(|_| ());
        assert!(matches!(ended, Err(ReadError::TooLong(_))), "{text}: {ended:?}");
    }
    let abandoned = Leash::new(Duration::from_secs(3_600));
    abandoned.let_go();
    let ended = asked(dir.path(), &abandoned, ENDLESS).map(|_| ());
    assert!(matches!(ended, Err(ReadError::Abandoned)), "{ended:?}");
    // One value that grows and grows.
    let greedy = "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) \
        SELECT json_group_array(hex(zeroblob(100000))) FROM n";
    let (reader, mut rows) = (Reader::new(dir.path(), "gw"), Rows::default());
    let leash = Leash::default();
    let ended = ask_within(8, &reader, &leash, &question(greedy), &Around, &mut rows);
    assert!(matches!(ended, Err(ReadError::TooMuchMemory(8))), "{ended:?}");
}

#[test]
fn a_statement_of_one_row_ends_with_its_leash_too() {
    let (dir, _) = stored(vec![sample::record()]);
    let terms = |term: &dyn Fn(usize) -> String| {
        (0..40).map(|number| term(number % 10)).collect::<Vec<_>>().join(" + ")
    };
    let texts = "WITH a(h, n) AS MATERIALIZED \
        (SELECT hex(zeroblob(64000)), hex(zeroblob(32000)) || '1')";
    let words = "replace(hex(zeroblob(100)), '0', '0%0')";
    let all = [
        terms(&|it| format!("instr(h || {it}, n)")),
        terms(&|it| format!("length(replace(h || {it}, n, 'x'))")),
        terms(&|it| format!("length(trim(h || {it}, replace(n, '0', 'x') || '0'))")),
        terms(&|it| format!("(h || {it} LIKE '%' || substr(n, -900))")),
        terms(&|it| format!("(h || {it} LIKE {words} || '1' ESCAPE 'e')")),
        terms(&|it| format!("(h || {it} GLOB '*[' || substr(n, -900) || ']x')")),
        terms(&|it| format!("length(format(replace(substr(h, 1, 90), '0', '%.200000g'), {it}))")),
    ];
    for terms in all {
        let text = format!("{texts} SELECT {terms} FROM a");
        let begun = Instant::now();
        let leash = Leash::new(Duration::from_millis(100));
        let ended = asked(dir.path(), &leash, &text).map(|(rows, _)| rows.rows);
        let fine = ended.is_ok() || matches!(ended, Err(ReadError::TooLong(_)));
        assert!(fine && begun.elapsed() < Duration::from_secs(10), "{text}: {ended:?}");
        let late = asked(dir.path(), &Leash::new(Duration::ZERO), &text).map(|_| ());
        assert!(matches!(late, Err(ReadError::TooLong(_))), "{text}: {late:?}");
    }
    for call in ["json_patch('{}', '{}')", "json_pretty('[]', ' ')", "unhex('00', ' ')"] {
        let told = error(dir.path(), &format!("SELECT {call}")).to_string();
        assert!(told.contains("is left out: it may take too long"), "{told}");
    }
}

#[test]
fn a_day_that_goes_while_it_is_read_is_told() {
    struct Removing<'a>(&'a Path);
    impl Answer for Removing<'_> {
        fn columns(&mut self, _names: Vec<String>) {}
        fn row(&mut self, _cells: &[Cell<'_>]) -> ControlFlow<()> {
            std::fs::remove_file(self.0.join("segments/1970-01-01.sqlite")).unwrap_or(());
            ControlFlow::Continue(())
        }
    }
    let (dir, _) = history();
    let (reader, leash) = (Reader::new(dir.path(), "gw"), Leash::default());
    let all = question("SELECT * FROM records");
    let told = ask(&reader, &leash, &all, &Around, &mut Removing(dir.path()));
    assert!(matches!(told, Err(ReadError::Removed)), "{told:?}");
}

#[test]
fn what_is_beside_the_store_and_fails_is_told() {
    struct Nobody;
    impl Beside for Nobody {
        fn gaps(&self) -> Result<Vec<Gap>, String> {
            Err("the drain thread has stopped".to_owned())
        }
        fn peers(&self) -> Result<Arc<Vec<Peer>>, String> {
            Err("the drain thread has stopped".to_owned())
        }
    }
    let (dir, _) = stored(vec![sample::record()]);
    let reader = Reader::new(dir.path(), "gw");
    let ask = |text: &str| {
        ask(&reader, &Leash::default(), &question(text), &Nobody, &mut Rows::default())
    };
    for table in ["gaps", "peers"] {
        let told = ask(&format!("SELECT count(*) FROM {table}"));
        assert!(matches!(told, Err(ReadError::Beside(_))), "{table}: {told:?}");
    }
    assert_eq!(ask("SELECT * FROM records").unwrap(), 1, "nobody needs them here");
}

/// Sums over all records that the reader shows.
fn slow(dir: &Path, filter: &Filter, watermark: u64) -> [u64; 4] {
    let mut sums = [0; 4];
    let reader = Reader::new(dir, "gw");
    reader
        .records(filter, 0, watermark, &mut |record| {
            let Record { counters, .. } = &record;
            sums[0] += 1;
            sums[1] += counters.rx_bytes;
            sums[2] += counters.tx_packets;
            sums[3] += record.record_id;
            ControlFlow::Continue(())
        })
        .unwrap();
    sums
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn sums_of_a_statement_are_those_of_the_reader(
        flows in prop::collection::vec(life(), 1..20),
        wanted in filter(),
        watermark in 0_u64..60,
        steps in 0_usize..4,
    ) {
        let (dir, _) = stepped(lives(&flows), steps);
        let mut conditions = vec!["1".to_owned()];
        let mut is = |name: &str, value: Option<String>| {
            conditions.extend(value.map(|value| format!("{name}{value}")));
        };
        is("window_end >= ", wanted.since_ms.map(|ms| ms.to_string()));
        is("window_end < ", wanted.until_ms.map(|ms| ms.to_string()));
        is("protocol_number = ", wanted.protocol.map(|number| number.to_string()));
        is("verdict = ", wanted.verdict.map(|verdict| format!("'{}'", verdict.word())));
        is("src_port = ", wanted.src_port.map(|port| port.to_string()));
        is("dst_port = ", wanted.dst_port.map(|port| port.to_string()));
        is("interface = ", wanted.interface.as_ref().map(|name| format!("'{name}'")));
        is("rule IS ", wanted.rule.as_ref().map(|rule| match rule.rule() {
            Some(rule) => format!("'{rule}'"),
            None => "NULL".to_owned(),
        }));
        let same = Filter {
            since_ms: wanted.since_ms,
            until_ms: wanted.until_ms,
            protocol: wanted.protocol,
            verdict: wanted.verdict,
            src_port: wanted.src_port,
            dst_port: wanted.dst_port,
            interface: wanted.interface,
            rule: wanted.rule,
            ..Filter::default()
        };
        let text = format!(
            "SELECT count(*), total(rx_bytes), total(tx_packets), total(record_id) FROM records \
             WHERE {} AND ({} OR NOT overflow)",
            conditions.join(" AND "),
            u8::from(same.protocol.is_none()),
        );
        let asked = Question { watermark, ..question(&text) };
        let mut rows = Rows::default();
        ask(&Reader::new(dir.path(), "gw"), &Leash::default(), &asked, &Around, &mut rows).unwrap();
        let [count, sums @ ..] = slow(dir.path(), &same, watermark);
        let sums = sums.map(|sum| format!("{:?}", sum as f64)).join("|");
        prop_assert_eq!(rows.rows, vec![format!("{count}|{sums}")], "{}", text);
    }
}

#[test]
fn a_column_alone_is_what_it_is_among_all_in_either_form() {
    let record = |number: u16| {
        let end_ms = i64::from(number) * 60_000;
        let mut record = Record {
            first_seen_ms: end_ms - 60_000 - i64::from(number % 7),
            last_seen_ms: end_ms - i64::from(number % 5),
            window_start_ms: end_ms - 60_000,
            window_end_ms: end_ms,
            end_reason: number.is_multiple_of(2).then_some(EndReason::Fin),
            initiator: [Initiator::Peer, Initiator::Remote][usize::from(number % 2)],
            rule: number.is_multiple_of(3).then(|| "web".into()),
            remote_resource: number.is_multiple_of(5).then(|| "billing".into()),
            peer_resource: Some("home".into()),
            remote_peer: sample::record().peer,
            ..sample::record()
        };
        record.tuple.peer_port = number;
        record.total = record.counters + record.counters;
        if number.is_multiple_of(11) {
            (record.tuple.protocol, record.icmp) = (1, Some(Icmp { r#type: 8, code: 3 }));
        }
        if number.is_multiple_of(13) {
            record = Record {
                window_start_ms: end_ms - 60_000,
                window_end_ms: end_ms,
                ..sample::overflow()
            };
        }
        record
    };
    let records: Vec<Record> = (1..100).map(record).collect();
    let ((dir, _), (as_rows, _)) = (stepped(records.clone(), usize::MAX), stored(records));
    let all = rows(dir.path(), "SELECT * FROM records");
    assert_eq!(all, rows(as_rows.path(), "SELECT * FROM records"));
    for (at, column) in tables()[0].1.iter().enumerate() {
        let alone = rows(dir.path(), &format!("SELECT {} FROM records", column.name));
        let among: Vec<_> = all.iter().map(|row| row.split('|').nth(at).unwrap()).collect();
        assert_eq!(alone, among, "{}", column.name);
    }
    let numbers: Vec<_> = (1..100).map(|number: u16| number.to_string()).collect();
    assert_eq!(rows(dir.path(), "SELECT rowid FROM records"), numbers);
}

#[test]
fn every_column_is_told_with_what_it_means() {
    let all = tables();
    let names: Vec<_> = all.iter().map(|(table, _)| table.name).collect();
    assert_eq!(names, ["records", "gaps", "peers"]);
    let (dir, _) = stored(vec![sample::record()]);
    for (table, columns) in all {
        let text = format!("SELECT * FROM {}", table.name);
        let (rows, _) = asked(dir.path(), &Leash::default(), &text).unwrap();
        let told: Vec<_> = columns.iter().map(|column| column.name).collect();
        assert_eq!(rows.names, told);
        for column in columns {
            assert!(!column.about.is_empty() && ["INTEGER", "TEXT"].contains(&column.kind));
            // Words of SQL would need quotation marks.
            let text =
                format!("SELECT {}, typeof({}) FROM {}", column.name, column.name, table.name);
            let (_, kind) = asked(dir.path(), &Leash::default(), &text).unwrap().0.rows[0]
                .rsplit_once('|')
                .map(|(value, kind)| (value.to_owned(), kind.to_owned()))
                .unwrap();
            assert!(kind == "null" || kind == column.kind.to_lowercase(), "{}", column.name);
        }
    }
}
