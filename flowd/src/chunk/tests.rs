//! Whole chunks: what goes in comes out, whoever asks gets what a loop over rows would give, and
//! whatever the bytes are, nothing panics.

use std::{collections::BTreeMap, net::Ipv6Addr, num::NonZeroU32, sync::Arc};

use proptest::{prelude::*, sample::Index};

#[path = "../../../tests/benches/chunk/generate.rs"]
mod generate;

use super::{
    Chunk, ChunkError, Code, ColumnId, Digest, Encoded, End, EndSums, Fate, Header, Kind, Member,
    Number, PAGE_ROWS, Page, Plan, Predicate, Row, Selection, State, Sum, header::Seal, sum_by,
    tally,
};
use crate::flows::{self, Counters, EndReason, Icmp, Initiator, TcpFlags, Tuple, Verdict};
use generate::Generator;

fn open(encoded: &Encoded) -> Result<Chunk, ChunkError> {
    let chunk = Chunk::new(Header::decode(&encoded.header)?);
    for (column, blob) in &encoded.columns {
        chunk.load(*column, blob.clone())?;
    }
    Ok(chunk)
}

fn chunk_of(rows: &[Row]) -> Chunk {
    open(&Encoded::of(rows).unwrap()).unwrap()
}

/// Rows of a day, of which some thousands have passed.
fn generated(seed: u64, count: usize) -> Vec<Row> {
    Generator::new(seed, 5.0).skip(3_000).take(count).collect()
}

fn counters() -> impl Strategy<Value = Counters> {
    let count = prop_oneof![3 => 0_u64..3_000, 1 => any::<u64>()];
    prop::array::uniform4(count).prop_map(|[rx_packets, rx_bytes, tx_packets, tx_bytes]| Counters {
        rx_packets,
        rx_bytes,
        tx_packets,
        tx_bytes,
    })
}

fn time() -> impl Strategy<Value = i64> {
    prop_oneof![3 => 0_i64..100_000, 1 => any::<i64>()]
}

/// Any row at all, possible or not.
fn any_row() -> impl Strategy<Value = Row> {
    let ends = (0_u32..3, 0_u32..3, 0_u128..3, any::<u128>(), 0_u16..3, any::<u16>());
    let kind = (0_u8..3, 0_u8..2, 0_u8..9, any::<bool>(), any::<bool>(), 0_u32..3, any::<u16>());
    let times = (time(), time(), time(), time());
    (ends, kind, times, counters(), counters(), any::<bool>()).prop_map(
        |(ends, kind, times, counters, total, is_first)| Row {
            record_id: 0,
            interface: kind.5,
            peer: NonZeroU32::new(ends.0),
            remote_peer: NonZeroU32::new(ends.1),
            peer_resource: NonZeroU32::new(ends.1),
            remote_resource: NonZeroU32::new(ends.0),
            rule: NonZeroU32::new(kind.5),
            tuple: Tuple {
                protocol: kind.6 as u8,
                peer_addr: Ipv6Addr::from_bits(ends.2),
                remote_addr: Ipv6Addr::from_bits(ends.3),
                peer_port: ends.4,
                remote_port: ends.5,
            },
            window_start_ms: times.0,
            window_end_ms: times.1,
            first_seen_ms: times.2,
            last_seen_ms: times.3,
            initiator: Initiator::from_number(kind.0).unwrap(),
            icmp: kind.3.then_some(Icmp { r#type: kind.6 as u8, code: kind.0 }),
            verdict: Verdict::from_number(kind.1).unwrap(),
            enforced: kind.3,
            policy_revision: kind.5,
            counters,
            total: if is_first { counters } else { total },
            tcp_flags: TcpFlags { rx: kind.0, tx: kind.6 as u8 },
            end_reason: EndReason::from_number(kind.2),
            overflow: kind.4,
        },
    )
}

/// Rows by ascending id: of a day, or any.
fn rows() -> impl Strategy<Value = Vec<Row>> {
    let any_rows = (prop::collection::vec((any_row(), 1_u64..2_000), 0..200), any::<u32>());
    let numbered = any_rows.prop_map(|(rows, first)| {
        let mut id = u64::from(first);
        let number = |(row, step)| {
            id += step;
            Row { record_id: id, ..row }
        };
        rows.into_iter().map(number).collect()
    });
    prop_oneof![numbered, (any::<u64>(), 0_usize..2_000).prop_map(|(seed, n)| generated(seed, n))]
}

/// Some predicate, and what it says of a row.
fn predicate() -> impl Strategy<Value = Predicate> {
    let number = (0..Number::ALL.len(), time(), 0_i64..50_000).prop_map(|(number, from, width)| {
        Predicate::Number(Number::ALL[number], from..=from.saturating_add(width))
    });
    let leaf = prop_oneof![
        number,
        (0_u32..900).prop_map(|id| {
            Predicate::Peer(Arc::new(move |end: &End| end.peer.is_some_and(|own| own.get() <= id)))
        }),
        any::<u8>().prop_map(|bits| {
            Predicate::Remote(Arc::new(move |end: &End| end.addr.octets()[15] & bits == 0))
        }),
        Just(Predicate::Kind(Arc::new(|kind: &Kind| kind.verdict == Verdict::Deny))),
        Just(Predicate::State(Arc::new(|state: &State| state.end_reason.is_some()))),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Predicate::All),
            prop::collection::vec(inner.clone(), 0..3).prop_map(Predicate::Any),
            inner.prop_map(|part| Predicate::Not(Box::new(part))),
        ]
    })
}

/// The specification: one row at a time.
fn holds(predicate: &Predicate, row: &Row) -> bool {
    match predicate {
        Predicate::All(parts) => parts.iter().all(|part| holds(part, row)),
        Predicate::Any(parts) => parts.iter().any(|part| holds(part, row)),
        Predicate::Not(part) => !holds(part, row),
        Predicate::Peer(judge) => judge(&End::inside(row)),
        Predicate::Remote(judge) => judge(&End::other(row)),
        Predicate::Kind(judge) => judge(&Kind::of(row)),
        Predicate::State(judge) => judge(&State::of(row, false)),
        Predicate::Number(number, range) => range.contains(&number.of(row)),
    }
}

/// A page with what is wanted of it, a step after the other.
fn narrowed<'c>(page: Page<'c>, steps: &[Plan]) -> Result<Option<Page<'c>>, ChunkError> {
    steps.iter().try_fold(Some(page), |page, step| match page {
        Some(page) => step.narrow(page),
        None => Ok(None),
    })
}

fn slow_sum<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Sum {
    let mut sum = Sum::default();
    for row in rows {
        let flows = u64::from(row.counters == row.total && !row.overflow);
        sum.absorb(&Sum { records: 1, flows, counters: row.counters });
    }
    sum
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn what_goes_in_comes_out_by_id_whatever_the_order(rows in rows(), seed: u64) {
        let mut shuffled = rows.clone();
        let mut random = generate::Random::new(seed);
        for at in (1..shuffled.len()).rev() {
            shuffled.swap(at, random.below(at as u64 + 1) as usize);
        }
        prop_assert_eq!(chunk_of(&shuffled).all_rows(), Ok(rows));
    }

    #[test]
    fn a_predicate_selects_and_sums_what_a_loop_over_rows_would(
        rows in rows(),
        predicate in predicate(),
    ) {
        let chunk = chunk_of(&rows);
        let plan = Plan::of(&predicate, &chunk).unwrap();
        let expected: Vec<Row> =
            rows.iter().filter(|row| holds(&predicate, row)).copied().collect();
        // At once, and what is the same for a run first.
        for steps in [vec![plan.clone()], plan.clone().steps()] {
            let (mut selected, mut sum) = (Vec::new(), Sum::default());
            for page in chunk.pages().filter_map(|page| narrowed(page, &steps).unwrap()) {
                let wanted = page.wanted();
                sum.absorb(&tally(&page, wanted).unwrap());
                selected.extend(page.select_rows(wanted).unwrap());
                prop_assert_eq!(wanted.count(page.rows()), wanted.iter(page.rows()).count());
            }
            selected.sort_by_key(|row| row.record_id);
            prop_assert_eq!(sum, slow_sum(&expected));
            prop_assert_eq!(&selected, &expected);
        }
        prop_assert!(!plan.is_nothing() || expected.is_empty());
    }

    #[test]
    fn only_the_columns_that_are_named_are_needed(rows in rows(), predicate in predicate()) {
        let encoded = Encoded::of(&rows).unwrap();
        let chunk = Chunk::new(Header::decode(&encoded.header).unwrap());
        let load = |of| {
            for column in chunk.missing(of).iter() {
                let (_, blob) = encoded.columns.iter().find(|(id, _)| *id == column).unwrap();
                chunk.load(column, blob.clone()).unwrap();
            }
        };
        load(predicate.dictionaries());
        let mut pages: Vec<_> = chunk.pages().collect();
        for step in Plan::of(&predicate, &chunk).unwrap().steps() {
            load(step.columns());
            pages = pages.into_iter().filter_map(|page| step.narrow(page).unwrap()).collect();
        }
    }

    #[test]
    fn sums_are_those_of_the_rows(rows in rows()) {
        let chunk = chunk_of(&rows);
        let fate = |row: &Row| Fate {
            verdict: row.verdict,
            overflow: row.overflow,
            inward: row.initiator == Initiator::Remote,
        };
        let mut totals: BTreeMap<Fate, Vec<&Row>> = BTreeMap::new();
        let mut steps: BTreeMap<(i64, Fate), Vec<&Row>> = BTreeMap::new();
        let mut peers: BTreeMap<(End, Fate), Vec<&Row>> = BTreeMap::new();
        let step_ms = i64::from(chunk.header().step_minutes()) * 60_000;
        for row in &rows {
            totals.entry(fate(row)).or_default().push(row);
            let step = row.window_end_ms.div_euclid(step_ms);
            steps.entry((step, fate(row))).or_default().push(row);
            peers.entry((End::inside(row), fate(row))).or_default().push(row);
        }
        let totals: BTreeMap<_, _> =
            totals.into_iter().map(|(key, rows)| (key, slow_sum(rows))).collect();
        prop_assert_eq!(chunk.header().totals(), &totals);
        let steps: Vec<_> =
            steps.into_iter().map(|(key, rows)| (key, slow_sum(rows))).collect();
        prop_assert_eq!(&chunk.sums(ColumnId::MinuteSums).unwrap().0, &steps);
        if chunk.header().has(ColumnId::PeerSums) {
            let ends = chunk.peer_ends().unwrap();
            let sums = &chunk.sums(ColumnId::PeerSums).unwrap().0;
            prop_assert_eq!(sums.len(), peers.len());
            for ((code, fate), sum) in sums {
                let rows = &peers[&(ends[*code as usize], *fate)];
                prop_assert_eq!(*sum, slow_sum(rows.iter().copied()));
            }
        }
    }

    #[test]
    fn a_digest_says_what_the_records_of_its_chunks_say(rows in rows(), length in 20_usize..400) {
        // Short ones have no sums of their own.
        let chunks: Vec<Chunk> = rows.chunks(length).map(chunk_of).collect();
        let digest = Digest::whole(&chunks).unwrap();
        let fate = |row: &Row| Fate {
            verdict: row.verdict,
            overflow: row.overflow,
            inward: row.initiator == Initiator::Remote,
        };
        let of_ends = |end: fn(&Row) -> End| {
            let mut by_end: BTreeMap<(End, Fate), Vec<&Row>> = BTreeMap::new();
            for row in &rows {
                let end = End { resource: None, ..end(row) };
                by_end.entry((end, fate(row))).or_default().push(row);
            }
            by_end.into_iter().map(|(key, rows)| (key, slow_sum(rows))).collect::<Vec<_>>()
        };
        let told = |of: &EndSums| {
            let sums = of.sums.0.iter();
            sums.map(|((key, fate), sum)| ((of.ends[*key as usize], *fate), *sum)).collect()
        };
        prop_assert_eq!(digest.peers.as_ref().map(told), Some(of_ends(End::inside)));
        prop_assert_eq!(digest.remotes.as_ref().map(told), Some(of_ends(End::other)));
        let mut ports: BTreeMap<(i64, Fate), Vec<&Row>> = BTreeMap::new();
        for row in &rows {
            let key = i64::from(row.tuple.protocol) << 16 | Number::DstPort.of(row);
            ports.entry((key, fate(row))).or_default().push(row);
        }
        let ports = ports.into_iter().map(|(key, rows)| (key, slow_sum(rows)));
        prop_assert_eq!(digest.ports.unwrap().0, ports.collect::<Vec<_>>());
    }

    #[test]
    fn some_sums_of_a_digest_are_those_among_all(rows in rows(), is_wanted: u64) {
        let whole = Digest::whole(&[chunk_of(&rows)]).unwrap();
        let wants = |number: u64| is_wanted >> (number % 64) & 1 == 1;
        let wants_end = |end: &End| wants(end.addr.to_bits() as u64);
        let wants_pair = |pair: i64| wants(pair.cast_unsigned());
        let some = Digest::decode_some(&whole.encode(), wants_end, wants_pair).unwrap();
        let of_ends = |of: EndSums| EndSums {
            sums: of.sums.0.into_iter().filter(|((key, _), _)| {
                wants_end(&of.ends[*key as usize])
            }).collect(),
            ..of
        };
        let pairs = whole.pairs.map(|pairs| {
            pairs.0.into_iter().filter(|((key, _), _)| wants_pair(*key)).collect()
        });
        let expected = Digest {
            peers: whole.peers.map(of_ends),
            remotes: whole.remotes.map(of_ends),
            pairs,
            ..whole
        };
        prop_assert_eq!(some, expected);
    }

    #[test]
    fn a_chunk_says_of_its_records_what_they_say(rows in rows()) {
        prop_assert_eq!(chunk_of(&rows).check(), Ok(()));
    }

    #[test]
    fn what_is_there_is_a_member_and_in_its_zone(rows in rows()) {
        let chunk = chunk_of(&rows);
        let members = chunk.members().unwrap();
        for row in &rows {
            prop_assert!(members.may_have(Member::Address(row.tuple.peer_addr)));
            prop_assert!(members.may_have(Member::Address(row.tuple.remote_addr)));
            prop_assert!(members.may_have(Member::Peer(row.peer)));
            prop_assert!(members.may_have(Member::Peer(row.remote_peer)));
            let opened = chunk.header().opened().is_some_and(|zone| zone.contains(&row.first_seen_ms));
            let older = members.may_have(Member::Older(row.first_seen_ms));
            prop_assert!(opened || older);
            for number in Number::ALL {
                prop_assert!(chunk.header().zone(number).contains(&number.of(row)));
            }
        }
    }

    #[test]
    fn any_damage_is_refused(rows in rows(), part: Index, at: Index, bit in 0_u8..8) {
        let mut encoded = Encoded::of(&rows).unwrap();
        let part = part.index(encoded.columns.len() + 1);
        let blob = match part.checked_sub(1) {
            None => &mut encoded.header,
            Some(column) => &mut encoded.columns[column].1,
        };
        let at = at.index(blob.len());
        blob[at] ^= 1 << bit;
        prop_assert!(open(&encoded).is_err());
        blob_of(&mut encoded, part)[at] ^= 1 << bit;
        blob_of(&mut encoded, part).truncate(at);
        prop_assert!(open(&encoded).is_err());
    }

    #[test]
    fn bytes_with_the_right_checksum_are_read_or_refused(
        rows in rows(),
        damage in prop::collection::vec((any::<Index>(), any::<Index>(), any::<u8>()), 1..6),
        predicate in predicate(),
    ) {
        let mut encoded = Encoded::of(&rows).unwrap();
        for (part, at, byte) in damage {
            let part = part.index(encoded.columns.len() + 1);
            let blob = blob_of(&mut encoded, part);
            // The first byte is the version.
            if blob.len() > 6 {
                let at = 1 + at.index(blob.len() - 5);
                blob[at] = byte;
            }
            if part == 0 {
                let (body, crc) = blob.split_last_chunk_mut::<4>().unwrap();
                *crc = crc32fast::hash(body).to_le_bytes();
            }
        }
        let Ok(mut header) = Header::decode(&encoded.header) else { return Ok(()) };
        for (column, blob) in &encoded.columns {
            header.seals[column.index()] = Seal::of(blob);
        }
        let chunk = Chunk::new(header);
        let loaded: Result<Vec<()>, ChunkError> =
            encoded.columns.into_iter().map(|(column, blob)| chunk.load(column, blob)).collect();
        let plan = Plan::of(&predicate, &chunk);
        for (number, page) in chunk.pages().enumerate() {
            let whole = page.select_rows(&Selection::All);
            // Every part is asked, also where one before it is refused.
            for number in Number::ALL {
                let values = page.numbers(number);
                prop_assert!(values.is_ok() || whole.is_err(), "{number:?}");
                if let (Ok(codes), Ok(values)) = (page.codes(Code::DstPort), values) {
                    let mut sums = Vec::new();
                    sum_by(codes, values, &Selection::All, &mut sums);
                    let sum = sums.into_iter().fold(0, u64::wrapping_add);
                    prop_assert_eq!(sum, super::sum(values, &Selection::All));
                }
            }
            if let (Ok(rows), Ok(plan)) = (&whole, &plan) {
                prop_assert_eq!(rows.len(), page.rows());
                let left = narrowed(chunk.page(number).unwrap(), &plan.clone().steps());
                let selected = left.and_then(|left| match left {
                    None => Ok(0),
                    Some(left) => left.select_rows(left.wanted()).map(|rows| rows.len()),
                });
                prop_assert!(selected.is_ok_and(|count| count <= rows.len()) && loaded.is_ok() || loaded.is_err());
            }
        }
    }

    #[test]
    fn noise_is_no_header(mut noise in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(Header::decode(&noise).is_err());
        if let Some((body, crc)) = noise.split_last_chunk_mut::<4>()
            && let Some(version) = body.first_mut()
        {
            *version = super::VERSION;
            *crc = crc32fast::hash(body).to_le_bytes();
        }
        // What it says may be possible; then it is small.
        if let Ok(header) = Header::decode(&noise) {
            prop_assert!(header.rows() <= super::MAX_ROWS);
        }
    }
}

/// The header, or the column before `part`.
fn blob_of(encoded: &mut Encoded, part: usize) -> &mut Vec<u8> {
    match part.checked_sub(1) {
        None => &mut encoded.header,
        Some(column) => &mut encoded.columns[column].1,
    }
}

#[test]
fn chunks_of_many_pages_come_back_and_stay_small() {
    let rows: Vec<Row> = Generator::new(1, 50.0).skip(20_000).take(5 * PAGE_ROWS / 2).collect();
    let encoded = Encoded::of(&rows).unwrap();
    assert_eq!(open(&encoded).unwrap().all_rows().unwrap(), rows);
    assert!(encoded.header.len() < 600, "{} bytes of header", encoded.header.len());
    let each = encoded.bytes() as f64 / rows.len() as f64;
    assert!(each < 17.0, "{each} bytes a record");
}

#[test]
fn a_chunk_is_bounded_and_may_be_empty() {
    assert_eq!(chunk_of(&[]).all_rows().unwrap(), []);
    let row = generated(1, 1)[0];
    let rows = vec![row; super::MAX_ROWS + 1];
    assert_eq!(Encoded::of(&rows), Err(ChunkError::TooMany { rows: rows.len() }));
}

#[test]
fn a_newer_version_is_told_from_damage() {
    let encoded = Encoded::of(&generated(1, 10)).unwrap();
    let newer = Encoded { header: vec![9; 40], ..encoded };
    assert_eq!(open(&newer).unwrap_err(), ChunkError::Version { found: 9, known: 1 });
}

#[test]
fn a_column_of_another_chunk_is_refused() {
    let (one, other) = (Encoded::of(&generated(1, 500)), Encoded::of(&generated(2, 500)));
    let chunk = Chunk::new(Header::decode(&one.unwrap().header).unwrap());
    for (column, blob) in other.unwrap().columns {
        let same = matches!(chunk.load(column, blob), Ok(()));
        assert!(!same || !chunk.header().has(column) || column == ColumnId::States, "{column:?}");
    }
    assert_eq!(
        chunk.page(0).unwrap().codes(Code::Peer),
        Err(ChunkError::NotLoaded(ColumnId::PeerEnds))
    );
}
