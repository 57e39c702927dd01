//! Questions over a day of chunks, each asked as a reader of the store would.

use std::{collections::BTreeMap, net::Ipv6Addr, num::NonZeroU32, sync::Arc, thread};

use super::{
    Chunk, ChunkError, Code, ColumnId, ColumnSet, Encoded, Header, Number, Report, fastest,
};
use super::{flows::Verdict, generate::Random};
use flowd::chunk::{
    End, Kind, Member, Page, Picked, Plan, Predicate, Row, Selection, Sum, sum_by, tally,
    tally_columns,
};

/// Cores of the machine that the targets speak of.
const THREADS: usize = 2;

/// Loads those columns of a chunk that it has not got.
pub(super) fn load(chunk: &Chunk, encoded: &Encoded, columns: ColumnSet) -> Result<(), ChunkError> {
    let missing = chunk.missing(columns);
    for (column, blob) in &encoded.columns {
        if missing.has(*column) {
            chunk.load(*column, blob.clone())?;
        }
    }
    Ok(())
}

/// Asks all questions.
pub(super) fn ask(chunks: &[Encoded], report: &mut Report) -> Result<(), ChunkError> {
    let records: usize = headers(chunks)?.iter().map(Header::rows).sum();
    let bytes: usize = chunks.iter().map(Encoded::bytes).sum();
    println!(
        "{records} records in {} chunks: {:.2} bytes a record\n",
        chunks.len(),
        bytes as f64 / records as f64
    );
    println!("{:<48} {:>10}  answer", "question", "ms");
    let last = last_row(chunks)?;
    let opened_ms = last.first_seen_ms - 6 * 3_600_000;
    let some = some_flow(chunks, opened_ms)?;
    let absent = Ipv6Addr::from(0xfd99_u128 << 112 | 7);
    let popular = last.tuple.remote_addr;
    let peer = NonZeroU32::new(17);

    let mut show = |question: &str, ask: &dyn Fn() -> Result<String, ChunkError>| {
        let answer = ask()?;
        let ms = fastest(ask)?.as_secs_f64() * 1000.0;
        println!("{question:<48} {ms:>10.2}  {answer}");
        report.add(question, ms, "ms");
        Ok::<(), ChunkError>(())
    };
    show("headers of all chunks", &|| Ok(format!("{} chunks", headers(chunks)?.len())))?;
    show("sum by verdict", &|| {
        let mut sums = BTreeMap::new();
        for header in headers(chunks)? {
            for (fate, sum) in header.totals() {
                sums.entry(fate.verdict).or_insert_with(Sum::default).absorb(sum);
            }
        }
        Ok(format!("{} denied flows", sums[&Verdict::Deny].flows))
    })?;
    show("top 10 inside addresses, from sums", &|| top(chunks, Code::Peer))?;
    show("top 10 other addresses, from sums", &|| top(chunks, Code::Remote))?;
    show("traffic by minute, from sums", &|| series(chunks))?;
    show("bytes by destination port, scanned", &|| by_port(chunks))?;
    show("the same on two threads", &|| {
        let parts = chunks.chunks(chunks.len().div_ceil(THREADS));
        let answers: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = parts.map(|part| scope.spawn(move || by_port(part))).collect();
            threads.into_iter().map(|thread| thread.join().expect("it does not panic")).collect()
        });
        answers.into_iter().next_back().unwrap_or_else(|| Ok(String::new()))
    })?;
    show("sum of one destination, scanned", &|| sum_of(chunks, &address(popular)))?;
    show("sum of one peer, scanned", &|| sum_of(chunks, &of_peer(peer)))?;
    show("sum of denied TCP to ports below 1024, scanned", &|| sum_of(chunks, &denied_low()))?;
    show("sum of flows above 1 MB received, scanned", &|| {
        sum_of(chunks, &Predicate::Number(Number::TxBytesTotal, 1_000_000..=i64::MAX))
    })?;
    show("an address that is nowhere", &|| {
        rows_with(chunks, Member::Address(absent), &address(absent))
    })?;
    show("last hundred records of a peer", &|| last_hundred(chunks, &of_peer(peer)))?;
    show("a flow by its first-seen time, 6 h ago", &|| flow(chunks, &some))?;
    println!();
    skipped(chunks, peer, report)
}

fn headers(chunks: &[Encoded]) -> Result<Vec<Header>, ChunkError> {
    chunks.iter().map(|chunk| Header::decode(&chunk.header)).collect()
}

fn start(encoded: &Encoded, columns: ColumnSet) -> Result<Chunk, ChunkError> {
    let chunk = Chunk::new(Header::decode(&encoded.header)?);
    load(&chunk, encoded, columns)?;
    Ok(chunk)
}

fn only(column: ColumnId) -> ColumnSet {
    ColumnSet::default().with(column)
}

/// By what was carried, from sums; a chunk that leaves them out is scanned.
fn top(chunks: &[Encoded], by: Code) -> Result<String, ChunkError> {
    let (sums, dictionary) = match by {
        Code::Peer => (ColumnId::PeerSums, ColumnId::PeerEnds),
        _ => (ColumnId::RemoteSums, ColumnId::RemoteEnds),
    };
    let mut bytes: BTreeMap<Ipv6Addr, u64> = BTreeMap::new();
    for encoded in chunks {
        let chunk = start(encoded, only(sums).with(dictionary))?;
        let mut by_code = Vec::new();
        if chunk.header().has(sums) {
            for ((code, _), sum) in &chunk.sums(sums)?.0 {
                let code = *code as usize;
                by_code.resize(by_code.len().max(code + 1), 0);
                by_code[code] += sum.counters.bytes();
            }
        } else {
            load(&chunk, encoded, by.columns().and(tally_columns()))?;
            for page in chunk.pages() {
                for number in [Number::RxBytes, Number::TxBytes] {
                    let (codes, values) = (page.codes(by)?, page.numbers(number)?);
                    sum_by(codes, values, &Selection::All, &mut by_code);
                }
            }
        }
        let ends = if by == Code::Peer { chunk.peer_ends()? } else { chunk.remote_ends()? };
        for (end, sum) in ends.iter().zip(by_code) {
            *bytes.entry(end.addr).or_default() += sum;
        }
    }
    let mut ranking: Vec<(u64, Ipv6Addr)> =
        bytes.into_iter().map(|(addr, bytes)| (bytes, addr)).collect();
    ranking.sort_unstable_by(|a, b| b.cmp(a));
    ranking.truncate(10);
    Ok(format!("{} leads", ranking[0].1))
}

fn series(chunks: &[Encoded]) -> Result<String, ChunkError> {
    let mut minutes: BTreeMap<i64, Sum> = BTreeMap::new();
    for encoded in chunks {
        let chunk = start(encoded, only(ColumnId::MinuteSums))?;
        for ((minute, _), sum) in &chunk.sums(ColumnId::MinuteSums)?.0 {
            minutes.entry(*minute).or_default().absorb(sum);
        }
    }
    Ok(format!("{} minutes", minutes.len()))
}

fn by_port(chunks: &[Encoded]) -> Result<String, ChunkError> {
    let columns =
        Code::DstPort.columns().and(Number::RxBytes.columns()).and(Number::TxBytes.columns());
    let mut sums = Vec::new();
    for encoded in chunks {
        let chunk = start(encoded, columns)?;
        for page in chunk.pages() {
            let ports = page.codes(Code::DstPort)?;
            for number in [Number::RxBytes, Number::TxBytes] {
                sum_by(ports, page.numbers(number)?, &Selection::All, &mut sums);
            }
        }
    }
    Ok(format!("{} ports", sums.iter().filter(|sum| **sum > 0).count()))
}

fn address(addr: Ipv6Addr) -> Predicate {
    Predicate::Remote(Arc::new(move |end: &End| end.addr == addr))
}

fn of_peer(peer: Option<NonZeroU32>) -> Predicate {
    Predicate::Any(vec![
        Predicate::Peer(Arc::new(move |end: &End| end.peer == peer)),
        Predicate::Remote(Arc::new(move |end: &End| end.peer == peer)),
    ])
}

fn denied_low() -> Predicate {
    Predicate::All(vec![
        Predicate::Kind(Arc::new(|kind: &Kind| {
            kind.verdict == Verdict::Deny && kind.protocol == 6
        })),
        Predicate::Number(Number::DstPort, 0..=1_023),
    ])
}

/// The pages of a chunk with what the predicate wants, as the store finds them.
fn matching<'c>(
    chunk: &'c Chunk,
    encoded: &Encoded,
    predicate: &Predicate,
) -> Result<Vec<Page<'c>>, ChunkError> {
    load(chunk, encoded, predicate.dictionaries())?;
    let plan = Plan::of(predicate, chunk)?;
    if plan.is_nothing() {
        return Ok(Vec::new());
    }
    let mut pages: Vec<Page<'_>> = chunk.pages().collect();
    for step in plan.steps() {
        load(chunk, encoded, step.columns())?;
        let left = pages.into_iter().map(|page| step.narrow(page));
        pages = left.filter_map(Result::transpose).collect::<Result<_, _>>()?;
    }
    Ok(pages)
}

fn sum_of(chunks: &[Encoded], predicate: &Predicate) -> Result<String, ChunkError> {
    let mut sum = Sum::default();
    for encoded in chunks {
        let chunk = start(encoded, ColumnSet::default())?;
        let pages = matching(&chunk, encoded, predicate)?;
        if !pages.is_empty() {
            load(&chunk, encoded, tally_columns())?;
        }
        for page in pages {
            sum.absorb(&tally(&page, page.wanted())?);
        }
    }
    Ok(format!("{} records, {} bytes", sum.records, sum.counters.bytes()))
}

/// The matching rows of a chunk, by id.
fn rows_of(encoded: &Encoded, predicate: &Predicate) -> Result<Vec<Row>, ChunkError> {
    let chunk = start(encoded, ColumnSet::default())?;
    let pages = matching(&chunk, encoded, predicate)?;
    if !pages.is_empty() {
        load(&chunk, encoded, Chunk::row_columns())?;
    }
    Ok(Picked::of(&chunk, pages, Chunk::row_columns())?.iter().collect())
}

fn rows_with(
    chunks: &[Encoded],
    member: Member,
    predicate: &Predicate,
) -> Result<String, ChunkError> {
    let mut found = 0;
    for encoded in chunks {
        if start(encoded, only(ColumnId::Members))?.members()?.may_have(member) {
            found += rows_of(encoded, predicate)?.len();
        }
    }
    Ok(format!("{found} records"))
}

fn last_hundred(chunks: &[Encoded], predicate: &Predicate) -> Result<String, ChunkError> {
    let mut rows = Vec::new();
    for encoded in chunks.iter().rev() {
        rows.extend(rows_of(encoded, predicate)?.into_iter().rev());
        if rows.len() >= 100 {
            break;
        }
    }
    rows.truncate(100);
    Ok(format!("{} records", rows.len()))
}

fn flow(chunks: &[Encoded], wanted: &Row) -> Result<String, ChunkError> {
    let at = wanted.first_seen_ms;
    let predicate = Predicate::Number(Number::FirstSeen, at..=at);
    let (mut found, mut read) = (0, 0);
    for encoded in chunks {
        let header = Header::decode(&encoded.header)?;
        if *header.zone(Number::WindowEnd).end() < at {
            continue;
        }
        let has = header.opened().is_some_and(|opened| opened.contains(&at))
            || start(encoded, only(ColumnId::Members))?.members()?.may_have(Member::Older(at));
        if has {
            read += 1;
            let rows = rows_of(encoded, &predicate)?;
            found += rows.iter().filter(|row| row.tuple == wanted.tuple).count();
        }
    }
    Ok(format!("{found} records, {read} of {} chunks read", chunks.len()))
}

fn last_row(chunks: &[Encoded]) -> Result<Row, ChunkError> {
    let last = &chunks[chunks.len() - 1];
    let rows = rows_of(last, &Predicate::All(Vec::new()))?;
    Ok(rows[rows.len() - 1])
}

/// A flow that began at about that time.
fn some_flow(chunks: &[Encoded], opened_ms: i64) -> Result<Row, ChunkError> {
    let near = Predicate::Number(Number::FirstSeen, opened_ms..=opened_ms + 60_000);
    for encoded in chunks {
        if let Some(row) = rows_of(encoded, &near)?.into_iter().find(Row::opens) {
            return Ok(row);
        }
    }
    last_row(chunks)
}

/// How often what is not there is taken for a member, and how many pages a peer is on.
fn skipped(
    chunks: &[Encoded],
    peer: Option<NonZeroU32>,
    report: &mut Report,
) -> Result<(), ChunkError> {
    const ASKED: usize = 2_000;
    let mut random = Random::new(9);
    let [mut taken, mut asked, mut read, mut pages] = [0_u32; 4];
    let judge = move |end: &End| end.peer == peer;
    for encoded in chunks {
        let chunk = start(encoded, only(ColumnId::Members).with(ColumnId::PeerEnds))?;
        for _ in 0..ASKED {
            let addr = Ipv6Addr::from(0xfd99_u128 << 112 | u128::from(random.next()));
            taken += u32::from(chunk.members()?.may_have(Member::Address(addr)));
            asked += 1;
        }
        let plan = Plan::of(&Predicate::Peer(Arc::new(judge)), &chunk)?;
        let Plan::Code(_, wanted) = plan else { continue };
        for page in chunk.pages() {
            let (first, last) = page.peers();
            read += u32::from(wanted[first as usize..=last as usize].contains(&true));
            pages += 1;
        }
    }
    let wrong = 100.0 * f64::from(taken) / f64::from(asked);
    let share = 100.0 * f64::from(read) / f64::from(pages);
    println!("{wrong:.2} % of addresses that are nowhere are taken for members");
    println!("a peer is on {read} of {pages} pages");
    report.add("addresses that are nowhere and taken for members", wrong, "%");
    report.add("pages that a peer is on", share, "%");
    Ok(())
}
