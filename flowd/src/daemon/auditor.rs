//! The thread that writes the audit log, so that nobody else waits for the disk.
//!
//! - what happened is written together with what happened meanwhile, once a second at the latest
//! - what is about to happen is written at once, and whoever waits is told whether it was
//! - while the disk takes nothing, events wait in memory; what is more than that is counted by who
//!   and what, and the log says so itself as soon as it can

use std::{
    collections::BTreeMap,
    io, iter,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use serde_json::{Map, Value};
use tokio::sync::oneshot;

use super::{
    collector::now_ms,
    pulse::{Belief, Reading},
};
use crate::{
    audit::{Actor, Event, Fold, Folded, Log, Message, NotAudited, Outcome, word},
    config,
    store::{self, AuditError, AuditWriter},
};

/// How long events wait for others at most; and between two attempts while the disk takes nothing.
const TICK: Duration = Duration::from_secs(1);
/// Messages that are taken before they are written.
const TOGETHER: usize = 1_024;
/// Events that wait for the disk.
const WAITING: usize = 4_096;
/// Actors and words that are told apart beyond that.
const COUNTED: usize = 256;
const DAY_MS: i64 = 86_400_000;
const HOUR_MS: i64 = 3_600_000;

/// The running thread, and the way to it. It ends with the guard, when all is written.
#[derive(Debug)]
pub(super) struct Running {
    log: Log,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// The way to it.
    pub(super) fn log(&self) -> Log {
        self.log.clone()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.log.stop();
        if let Some(thread) = self.thread.take() {
            // An error: it has failed, and said so.
            let _failed = thread.join();
        }
    }
}

/// Starts it. `retention_days` 0: entries are kept for ever; `keys` is where the gateway's key is, which
/// signs what is cut off of the log of this store.
pub(super) fn start(
    writer: AuditWriter,
    retention_days: u32,
    (store, keys): (&Path, &Path),
) -> io::Result<Running> {
    let (log, inbox, lost) = Log::new();
    let retention_ms = (retention_days > 0).then(|| i64::from(retention_days) * DAY_MS);
    let auditor = Auditor::new(writer, lost, retention_ms, (store, keys));
    let thread =
        thread::Builder::new().name("audit".to_owned()).spawn(move || auditor.run(&inbox))?;
    Ok(Running { log, thread: Some(thread) })
}

type Reply = oneshot::Sender<Result<(), NotAudited>>;

struct Auditor {
    writer: AuditWriter,
    /// Events for which the channel had no room.
    lost: Arc<AtomicU64>,
    /// `None`: for ever.
    retention_ms: Option<i64>,
    store: PathBuf,
    keys: PathBuf,
    fold: Fold,
    waiting: Vec<Folded>,
    /// What did not find a place among those that wait: how many, by word and actor.
    unwritten: BTreeMap<(String, String), u64>,
    /// Since when the disk takes nothing.
    failing_since_ms: Option<i64>,
    /// Whether the clock may say what is old.
    belief: Belief,
    /// When the old end is looked at next.
    cut_ms: i64,
}

impl Auditor {
    fn new(
        writer: AuditWriter,
        lost: Arc<AtomicU64>,
        retention_ms: Option<i64>,
        (store, keys): (&Path, &Path),
    ) -> Self {
        Self {
            writer,
            lost,
            retention_ms,
            store: store.to_owned(),
            keys: keys.to_owned(),
            fold: Fold::default(),
            waiting: Vec::new(),
            unwritten: BTreeMap::new(),
            failing_since_ms: None,
            belief: Belief::new(Reading::now()),
            cut_ms: 0,
        }
    }

    fn run(mut self, inbox: &Receiver<Message>) {
        loop {
            let goes_on = self.take(inbox);
            let told = self.fold.ended(now_ms());
            told.into_iter().for_each(|folded| self.wait(folded));
            if !goes_on {
                let rest = self.fold.rest(now_ms());
                rest.into_iter().for_each(|folded| self.wait(folded));
            }
            // An error was told, and what could not be written waits.
            let written = self.write();
            if !goes_on {
                if written.is_err() {
                    self.give_up();
                }
                return;
            }
            self.cut(Reading::now());
        }
    }

    /// Takes what there is. `false`: it was the last.
    fn take(&mut self, inbox: &Receiver<Message>) -> bool {
        let first = match inbox.recv_timeout(TICK) {
            Ok(message) => message,
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        };
        for message in iter::once(first).chain(inbox.try_iter().take(TOGETHER)) {
            match message {
                Message::Note(event) => {
                    if let Some(folded) = self.fold.take(event) {
                        self.wait(folded);
                    }
                }
                Message::Record { event, reply } => self.record(event, reply),
                Message::Head(reply) => {
                    // An error was told, and what could not be written is not the newest.
                    let _told = self.write();
                    // Whoever asked may have gone.
                    let _gone = reply.send(self.writer.head());
                }
                Message::Stop => return false,
            }
        }
        true
    }

    /// Writes at once, or says that it must not happen; then the log does not say that it did.
    fn record(&mut self, event: Event, reply: Reply) {
        self.waiting.push(event.into());
        let written = self.write().map_err(|error| {
            self.waiting.pop();
            NotAudited(error.to_string())
        });
        // Whoever asked may have gone; what is written stands.
        let _gone = reply.send(written);
    }

    fn wait(&mut self, folded: Folded) {
        if self.waiting.len() < WAITING {
            self.waiting.push(folded);
            return;
        }
        let by = (folded.event.word.to_owned(), folded.event.actor.to_string());
        let is_known = self.unwritten.contains_key(&by) || self.unwritten.len() < COUNTED;
        let by = if is_known { by } else { ("others".to_owned(), "others".to_owned()) };
        *self.unwritten.entry(by).or_default() += folded.count;
    }

    /// Writes all that waits, and what is missing, or nothing.
    fn write(&mut self) -> Result<(), AuditError> {
        let found_no_room = self.lost.load(Ordering::Relaxed);
        let gap = self.gap(found_no_room);
        if self.waiting.is_empty() && gap.is_none() {
            return Ok(());
        }
        let events = self.waiting.len();
        self.waiting.extend(gap);
        if let Err(error) = self.writer.append(&self.waiting) {
            self.waiting.truncate(events);
            if self.failing_since_ms.is_none() {
                tracing::error!(
                    %error,
                    "the audit log cannot be written: policies stay as they are until it can"
                );
                self.failing_since_ms = Some(now_ms());
            }
            return Err(error);
        }
        self.waiting.clear();
        self.unwritten.clear();
        self.lost.fetch_sub(found_no_room, Ordering::Relaxed);
        if self.failing_since_ms.take().is_some() {
            tracing::info!("the audit log is written again");
        }
        Ok(())
    }

    /// The daemon stops, and nobody will write what waits.
    fn give_up(&self) {
        for ((event, actor), entries) in self.left() {
            tracing::error!(event, actor, entries, "lost: the audit log cannot be written");
        }
        let found_no_room = self.lost.load(Ordering::Relaxed);
        if found_no_room > 0 {
            tracing::error!(found_no_room, "lost: events for the audit log that found no room");
        }
    }

    /// How many events are not written, by word and actor.
    fn left(&self) -> BTreeMap<(String, String), u64> {
        let mut left = self.unwritten.clone();
        for Folded { event, count, .. } in &self.waiting {
            *left.entry((event.word.to_owned(), event.actor.to_string())).or_default() += count;
        }
        left
    }

    /// What the log says of itself: events that are not in it.
    fn gap(&self, found_no_room: u64) -> Option<Folded> {
        if found_no_room == 0 && self.unwritten.is_empty() {
            return None;
        }
        let now_ms = now_ms();
        let mut event = Event::new(now_ms, word::AUDIT_GAP, Actor::Auto, Outcome::Failed)
            .with("found_no_room", found_no_room);
        if let Some(since_ms) = self.failing_since_ms {
            event = event.with("failing_since_ms", since_ms);
        }
        let missing = self.unwritten.iter().map(|((word, actor), count)| {
            let one = [("event", word.as_str().into()), ("actor", actor.as_str().into())];
            let mut one: Map<_, _> =
                one.map(|(name, value)| (name.to_owned(), value)).into_iter().collect();
            one.insert("count".to_owned(), (*count).into());
            Value::Object(one)
        });
        Some(event.with("unwritten", missing.collect::<Vec<_>>()).into())
    }

    /// Once a day, and soon after the start; never by a clock that is in doubt.
    fn cut(&mut self, now: Reading) {
        let (is_believed, now_ms) = (self.belief.look(now), now.wall);
        let Some(retention_ms) = self.retention_ms.filter(|_| is_believed) else { return };
        if (self.cut_ms - DAY_MS..self.cut_ms).contains(&now_ms) {
            return;
        }
        self.cut_ms = now_ms + DAY_MS;
        let sign = |message: &[u8]| store::sign(&self.keys, message);
        let cut =
            store::signed(&self.store, &self.keys).map_err(AuditError::from).and_then(|signed| {
                self.writer.cut(&signed.anchors, now_ms - retention_ms, now_ms, sign)
            });
        match cut {
            Ok(None) => {}
            Ok(Some(checkpoint)) => {
                let event = Event::new(now_ms, word::AUDIT_CUT, Actor::Auto, Outcome::Done)
                    .with("seq", checkpoint.seq)
                    .with("hash", checkpoint.hash.to_string());
                self.wait(event.into());
            }
            Err(error) => {
                tracing::error!(%error, "old entries of the audit log stay for another hour");
                self.cut_ms = now_ms + HOUR_MS;
            }
        }
    }
}

/// What the daemon before left to be told: that it crashed, was another version, or ran with another
/// configuration than `now`.
pub(super) fn of_the_one_before(
    writer: &AuditWriter,
    now: &Map<String, Value>,
) -> Result<Vec<Event>, AuditError> {
    let Some((last, details)) = writer.last_start()? else { return Ok(Vec::new()) };
    let told = |word, outcome| Event::new(now_ms(), word, Actor::Auto, outcome);
    let mut events = Vec::new();
    if last == word::DAEMON_STARTED {
        events.push(told(word::DAEMON_CRASHED, Outcome::Failed));
    }
    let details: Map<String, Value> = serde_json::from_str(&details).unwrap_or_default();
    let version = details.get("version").and_then(Value::as_str).unwrap_or_default();
    if version != env!("CARGO_PKG_VERSION") {
        let event = told(word::DAEMON_UPGRADED, Outcome::Done).with("from", version);
        events.push(event.with("to", env!("CARGO_PKG_VERSION")));
    }
    if let Some(before) = details.get("configuration").and_then(Value::as_object) {
        let changes = config::changes(before, now);
        if !changes.is_empty() {
            let event = told(word::CONFIGURATION_CHANGED, Outcome::Done);
            events.push(event.with("keys", changes));
        }
    }
    Ok(events)
}

/// What is wrong with the log by what the gateway's key has signed of it last: somebody changed the
/// file while flowd did not run. Told, and gone on from: whoever checks finds it all the same.
pub(super) fn of_what_was_signed(writer: &AuditWriter, store: &Path, keys: &Path) -> Option<Event> {
    let compared = store::signed(store, keys)
        .map_err(AuditError::from)
        .and_then(|signed| writer.contradicts(&signed));
    match compared {
        Ok(None) => None,
        Ok(Some(problem)) => {
            tracing::error!(problem, "the audit log is not as it was signed: somebody changed it");
            let event = Event::new(now_ms(), word::AUDIT_BROKEN, Actor::Auto, Outcome::Failed);
            Some(event.with("problem", problem))
        }
        Err(error) => {
            tracing::error!(%error, "the audit log is not compared with what was signed of it");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        ops::ControlFlow,
        sync::{Arc, atomic::AtomicU64, atomic::Ordering},
    };

    use super::{Auditor, DAY_MS, HOUR_MS, Reading, TOGETHER, WAITING, of_the_one_before, start};
    use crate::{
        audit::{Actor, Caller, Entry, Event, Outcome, word},
        config::Config,
        seal::{PrivateKey, What, tests::chain},
        store::{AuditFilter, AuditReader, AuditWriter},
    };

    fn event(word: &'static str, n: usize) -> Event {
        let caller = Caller { uid: 1000, name: Some("alice".to_owned()), ..Caller::default() };
        Event::new(super::now_ms(), word, Actor::Caller(caller), Outcome::Done).on(format!("/{n}"))
    }

    fn open(dir: &std::path::Path) -> AuditWriter {
        AuditWriter::open(dir, "gw", 0).unwrap().0
    }

    fn entries(dir: &std::path::Path) -> Vec<Entry> {
        let reader = AuditReader::new(dir);
        let mut entries = Vec::new();
        let mut each = |entry| {
            entries.push(entry);
            ControlFlow::Continue(())
        };
        reader.list(&AuditFilter { after: Some(0), ..AuditFilter::default() }, &mut each).unwrap();
        assert_eq!(reader.verify(None, &[]).unwrap().problems, [] as [String; 0]);
        entries
    }

    #[tokio::test]
    async fn what_was_told_is_there_when_the_thread_has_ended() {
        let dir = tempfile::tempdir().unwrap();
        let running = start(open(dir.path()), 0, (dir.path(), dir.path())).unwrap();
        let log = running.log();
        for _ in 0..3 * TOGETHER {
            log.note(event(word::QUERY, 1));
        }
        log.record(event(word::POLICY_REQUESTED, 2)).await.unwrap();
        let written = entries(dir.path());
        let is_written = written.iter().any(|entry| entry.event == word::POLICY_REQUESTED);
        assert!(is_written, "before it is answered");
        drop(running);
        let of_query = entries(dir.path());
        let told = of_query.iter().filter(|entry| entry.event == word::QUERY);
        let told: Vec<u64> = told.map(|entry| entry.count).collect();
        assert_eq!(told, [1, 3 * TOGETHER as u64 - 1]);
        assert!(log.record(event(word::POLICY_REQUESTED, 3)).await.is_err());
    }

    #[test]
    fn a_crash_and_another_version_are_found_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let started = |version| {
            Event::new(0, word::DAEMON_STARTED, Actor::System, Outcome::Done)
                .with("version", version)
        };
        let stopped = Event::new(0, word::DAEMON_STOPPED, Actor::System, Outcome::Done)
            .with("version", env!("CARGO_PKG_VERSION"));
        let now = Config::default().told();
        let before = Config { admin_groups: vec!["wheel".to_owned()], ..Config::default() }.told();
        let cases = [
            (started(env!("CARGO_PKG_VERSION")), vec![word::DAEMON_CRASHED]),
            (started("0.0.1"), vec![word::DAEMON_CRASHED, word::DAEMON_UPGRADED]),
            (stopped.clone().with("configuration", now.clone()), vec![]),
            (stopped.clone().with("configuration", before), vec![word::CONFIGURATION_CHANGED]),
            (stopped, vec![]),
        ];
        assert_eq!(of_the_one_before(&open(dir.path()), &now).unwrap(), []);
        for (event, expected) in cases {
            let mut writer = open(dir.path());
            writer.append(&[event.into()]).unwrap();
            let found = of_the_one_before(&writer, &now).unwrap();
            assert_eq!(found.iter().map(|event| event.word).collect::<Vec<_>>(), expected);
        }
    }

    /// A file in which nothing can be written any more, as on a full disk.
    #[test]
    fn while_the_disk_takes_nothing_changes_are_refused_and_the_rest_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let writer = open(dir.path());
        writer.fill();
        let lost = Arc::new(AtomicU64::new(7));
        let mut auditor = Auditor::new(writer, lost.clone(), None, (dir.path(), dir.path()));
        let (reply, mut answer) = tokio::sync::oneshot::channel();
        auditor.record(event(word::POLICY_REQUESTED, 0), reply);
        let error = answer.try_recv().unwrap().unwrap_err().to_string();
        assert!(error.starts_with("nothing was changed, because it cannot be written"), "{error}");
        for n in 0..WAITING + 5 {
            auditor.wait(event(word::QUERY, n).into());
        }
        assert!(auditor.write().is_err());
        let of_query = (word::QUERY.to_owned(), "alice".to_owned());
        assert_eq!(auditor.left(), [(of_query, WAITING as u64 + 5)].into(), "told at a stop");
        auditor.writer.empty();
        auditor.write().unwrap();
        assert!(auditor.left().is_empty());
        assert_eq!(lost.load(Ordering::Relaxed), 0);
        let entries = entries(dir.path());
        assert_eq!(entries.len(), WAITING + 1);
        assert!(entries.iter().all(|entry| entry.event != word::POLICY_REQUESTED));
        let gap = entries.last().unwrap();
        assert_eq!(gap.event, word::AUDIT_GAP);
        for told in
            ["\"found_no_room\":7", "\"count\":5", "\"actor\":\"alice\"", "failing_since_ms"]
        {
            assert!(gap.details.contains(told), "{}", gap.details);
        }
    }

    #[test]
    fn a_clock_that_jumps_ahead_cuts_nothing_off() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("gateway.ed25519"), "01".repeat(32)).unwrap();
        let mut writer = open(dir.path());
        writer.append(&[1, 2, 3].map(|n| event(word::QUERY, n).into())).unwrap();
        let places = (dir.path(), dir.path());
        let mut auditor = Auditor::new(writer, Arc::default(), Some(DAY_MS), places);
        let now = Reading::now();
        let said = What::Audit { sequence: 2, hash: entries(dir.path())[1].hash };
        let said = [(now.wall, What::Key), (now.wall, said)];
        let chain = chain(&PrivateKey::from_seed(&[1; 32]), &said);
        std::fs::write(dir.path().join("seals.chain"), chain).unwrap();
        let after = |ms, apart| Reading { wall: now.wall + ms + apart, boot: now.boot + ms, ..now };
        let year = 365 * DAY_MS;
        for (now, left) in [
            (after(HOUR_MS - 60_000, 0), 3),
            (after(2 * HOUR_MS, 0), 3),
            (after(2 * HOUR_MS + 1_000, year), 3),
            (after(2 * HOUR_MS + 2_000, 0), 3),
            (after(3 * DAY_MS, 0), 1),
        ] {
            auditor.cut(now);
            assert_eq!(entries(dir.path()).len(), left, "{now:?}");
        }
    }
}
