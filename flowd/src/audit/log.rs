//! The way into the log: a channel with a bound, which whoever tells never waits for.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
    mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
};

use tokio::sync::oneshot;

use super::{Event, Head};

/// Events that wait for the thread that writes them.
const WAITING: usize = 8_192;

/// It is not in the log, so it must not be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nothing was changed, because it cannot be written to the audit log: {0}")]
pub struct NotAudited(pub String);

/// What the writing thread is sent.
#[derive(Debug)]
pub enum Message {
    /// Something happened.
    Note(Event),
    /// Something is about to happen, and waits until this is on the disk.
    Record {
        /// What.
        event: Event,
        /// Whether it is.
        reply: oneshot::Sender<Result<(), NotAudited>>,
    },
    /// Write what there is, and say which entry is the newest; `None`: the disk took nothing yet.
    Head(SyncSender<Option<Head>>),
    /// Write what there is, and end.
    Stop,
}

/// The end of whoever has something to tell.
#[derive(Clone, Debug)]
pub struct Log {
    messages: SyncSender<Message>,
    lost: Arc<AtomicU64>,
}

impl Log {
    /// Both ends, and how many events found no room: each is told in the log as a gap.
    pub fn new() -> (Self, Receiver<Message>, Arc<AtomicU64>) {
        let (messages, inbox) = sync_channel(WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        (Self { messages, lost: lost.clone() }, inbox, lost)
    }

    /// Tells of something that happened; never waits. Where there is no room it is counted.
    pub fn note(&self, event: Event) {
        if self.messages.try_send(Message::Note(event)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Tells of something that is about to happen, and waits until that is on the disk. After an
    /// error it must not happen.
    pub async fn record(&self, event: Event) -> Result<(), NotAudited> {
        let (reply, answer) = oneshot::channel();
        let full = |error| match error {
            TrySendError::Full(_) => {
                NotAudited("too much waits to be written; try again".to_owned())
            }
            TrySendError::Disconnected(_) => NotAudited("flowd is shutting down".to_owned()),
        };
        self.messages.try_send(Message::Record { event, reply }).map_err(full)?;
        answer.await.unwrap_or_else(|_| Err(NotAudited("flowd is shutting down".to_owned())))
    }

    /// Has what was told so far written, and waits for the newest entry, as the thread that wrote it
    /// knows it: nothing is read from the file. `None`: there is none yet.
    pub fn head(&self) -> Option<Head> {
        let (reply, answer) = sync_channel(1);
        self.messages.send(Message::Head(reply)).ok()?;
        answer.recv().ok()?.filter(|head| head.seq > 0)
    }

    /// Has what was told so far written, and the thread end.
    pub fn stop(&self) {
        // Waits for room: this is the last one. An error means that the thread has ended.
        let _ended = self.messages.send(Message::Stop);
    }
}

/// The end of whoever tells what flowd notices, or does of its own accord. One that is made of nothing
/// tells nobody: then only what is left of a flowd is taken off.
#[derive(Clone, Debug, Default)]
pub struct Teller(Option<Log>);

impl Teller {
    /// Tells of something that happened; never waits.
    pub fn tell(&self, event: Event) {
        if let Some(log) = &self.0 {
            log.note(event);
        }
    }

    /// The newest entry of the log, with all that was told so far, as whoever wrote it knows it;
    /// `None`: there is none.
    pub fn head(&self) -> Option<Head> {
        self.0.as_ref()?.head()
    }
}

impl From<Log> for Teller {
    fn from(log: Log) -> Self {
        Self(Some(log))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::{Log, WAITING};
    use crate::audit::{Actor, Event, Outcome, word};

    fn event() -> Event {
        Event::new(0, word::QUERY, Actor::Auto, Outcome::Done)
    }

    #[tokio::test]
    async fn what_finds_no_room_is_counted_or_refused() {
        let (log, _inbox, lost) = Log::new();
        for _ in 0..WAITING + 3 {
            log.note(event());
        }
        assert_eq!(lost.load(Ordering::Relaxed), 3);
        let error = log.record(event()).await.unwrap_err();
        assert!(error.to_string().starts_with("nothing was changed"), "{error}");
    }
}
