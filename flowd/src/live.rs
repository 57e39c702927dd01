//! The boundary between the drain thread, which owns the kernel's tables, and the API tasks, which
//! ask it questions. Tasks own, channels connect: nothing here is locked.

mod metrics;

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::{Arc, mpsc},
    time::Duration,
};

use tokio::sync::{SemaphorePermit, broadcast, oneshot};

pub use self::metrics::{ByVerdict, Durations, Metrics, Traffic, Whose};

use crate::{
    flows::{
        Board, Filter, FlowId, Gap, Grouping, Identity, Ranking, Record, Series, Summary, Tuple,
    },
    identity::Names,
    policy::World,
    store::Step,
    wire, wireguard,
};

/// Where a flow stands in the order of flows; a page starts behind the last one of the page before.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Unix milliseconds.
    pub first_seen_ms: i64,
    /// Name of the interface.
    pub interface: String,
    /// The endpoints.
    pub tuple: Tuple,
    /// As in [`Record::overflow`].
    pub overflow: bool,
}

impl Position {
    /// Where the flow of a record stands.
    pub fn of(record: &Record) -> Self {
        Self {
            first_seen_ms: record.first_seen_ms,
            interface: record.interface.to_string(),
            tuple: record.tuple,
            overflow: record.overflow,
        }
    }
}

/// What is counted but not recorded, as of one instant.
///
/// Together with the stored records up to `watermark`, and no others, it is everything: a record
/// that is committed between this answer and the reader's query has a higher id.
#[derive(Clone, Debug, Default)]
pub struct Pending<T> {
    /// The highest record id in the store at that instant.
    pub watermark: u64,
    /// The answer.
    pub answer: T,
}

/// Totals of open flows, and what is uncertain besides.
#[derive(Clone, Debug, Default)]
pub struct PendingSummary {
    /// Of what the matching open flows did since their last records.
    pub summary: Summary,
    /// How many flows match and live, whether or not they did anything since.
    pub open_flows: u64,
    /// As [`Request::Gaps`] has them.
    pub gaps: Pending<Vec<Gap>>,
}

/// What flows moved between two looks.
#[derive(Clone, Debug)]
pub struct Measured {
    /// When the later look was taken, in Unix milliseconds.
    pub now_ms: i64,
    /// How long after the one before; `None`: there was none, and nothing can be said.
    pub interval: Option<Duration>,
    /// The flows that match.
    pub board: Board,
}

/// What a policy is applied to, and whom it may name.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// Peers, their addresses, the gateway's own.
    pub world: World,
    /// Everybody who is a peer or has a name, each once.
    pub known: Vec<Identity>,
}

/// Why nobody can say what decides between two ends, in one line for who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unanswerable {
    /// There is no such peer.
    Unknown(String),
    /// Several peers are called so.
    Ambiguous(String),
    /// No packet goes from one to the other.
    Senseless(String),
}

/// A message to the drain thread. It answers questions between two drains; a dropped reply is no
/// error.
#[derive(Debug)]
pub enum Request {
    /// The first `limit` open flows in descending order of position, strictly below `before`: each
    /// as a record with id 0 that says what the flow did since its last record.
    Flows {
        /// Which flows.
        filter: Filter,
        /// The end of the page before.
        before: Option<Position>,
        /// How many at most.
        limit: usize,
        /// Where the answer goes.
        reply: oneshot::Sender<Pending<Vec<Record>>>,
    },
    /// One open flow.
    Flow {
        /// Which.
        id: FlowId,
        /// Where the answer goes.
        reply: oneshot::Sender<Pending<Option<Record>>>,
    },
    /// Totals of open flows, and gaps.
    Summary {
        /// Which flows.
        filter: Filter,
        /// Where the answer goes.
        reply: oneshot::Sender<Pending<PendingSummary>>,
    },
    /// Totals of open flows by key.
    Top {
        /// Which flows.
        filter: Filter,
        /// Which key.
        by: Grouping,
        /// Where the answer goes.
        reply: oneshot::Sender<Pending<Ranking>>,
    },
    /// Open flows over time: one point of them, as they are now.
    Series {
        /// Which flows.
        filter: Filter,
        /// Lines and steps, and nothing in them.
        empty: Series,
        /// Where the answer goes.
        reply: oneshot::Sender<Pending<Series>>,
    },
    /// What open flows move now: each question takes a look at them, which the next one is compared
    /// with.
    Rates {
        /// Which flows.
        filter: Filter,
        /// Nothing yet, and how much of it is wanted.
        empty: Board,
        /// Where the answer goes.
        reply: oneshot::Sender<Measured>,
    },
    /// The gaps that the store may not have as they are; the watermark is the highest number of a
    /// gap in the store.
    Gaps {
        /// Where the answer goes.
        reply: oneshot::Sender<Pending<Vec<Gap>>>,
    },
    /// The highest record id in the store.
    Watermark {
        /// Where the answer goes.
        reply: oneshot::Sender<u64>,
    },
    /// How the daemon is.
    Status {
        /// Where the answer goes.
        reply: oneshot::Sender<wire::Status>,
    },
    /// What `/metrics` says.
    Metrics {
        /// Where the answer goes.
        reply: oneshot::Sender<Arc<Metrics>>,
    },
    /// The peers of the watched interfaces.
    Peers {
        /// Where the answer goes.
        reply: oneshot::Sender<Arc<Vec<wire::Peer>>>,
    },
    /// What a policy would be applied to.
    World {
        /// Where the answer goes.
        reply: oneshot::Sender<Pending<Surroundings>>,
    },
    /// What WireGuard says now, and the gateway's own addresses.
    Interfaces {
        /// The interfaces to watch.
        found: Vec<wireguard::Interface>,
        /// Of every interface.
        gateway: BTreeSet<IpAddr>,
    },
    /// What the peers are called now.
    Names(Names),
    /// The policy in force.
    Policy {
        /// Where the answer goes.
        reply: oneshot::Sender<wire::Policy>,
    },
    /// What a policy would do.
    CheckPolicy {
        /// As it was written.
        text: String,
        /// The connection of whoever asks.
        caller: Option<Connection>,
        /// Given back when it is done, whether or not anybody waits for it.
        turn: Option<SemaphorePermit<'static>>,
        /// Where the answer goes.
        reply: oneshot::Sender<wire::PolicyReport>,
    },
    /// Put a policy into force, unless it is wrong, or cuts whoever asks.
    ApplyPolicy {
        /// As it was written.
        text: String,
        /// The connection of whoever asks; `None`: it may be cut.
        caller: Option<Connection>,
        /// Where the answer goes: a report without a revision is a refusal.
        reply: oneshot::Sender<Result<wire::PolicyReport, NotApplied>>,
    },
    /// What the configured file says, for putting it into force when that is news.
    PolicyFile(String),
    /// What of days that are over could not be done, in a line; `None`: all of it was.
    Kept(Option<String>),
    /// Why a flow may pass or not.
    Why {
        /// Between whom.
        question: Question,
        /// Where the answer goes; an error is one line for who asks.
        reply: oneshot::Sender<Result<wire::Why, Unanswerable>>,
    },
    /// Put a chunk into its place in the store.
    Step {
        /// The chunk.
        step: Box<Step>,
        /// Whether it was taken.
        reply: oneshot::Sender<bool>,
    },
    /// Drain for the last time and end every flow.
    Stop,
}

impl Request {
    /// Whether it tells the drain thread something, instead of asking.
    pub fn is_news(&self) -> bool {
        matches!(
            self,
            Self::Interfaces { .. }
                | Self::Names(_)
                | Self::PolicyFile(_)
                | Self::Kept(_)
                | Self::Stop
        )
    }
}

/// A TCP connection that may go through a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Who opened it.
    pub client: SocketAddr,
    /// The gateway, or something behind it.
    pub server: SocketAddr,
}

/// A policy is right and yet not in force; the old one still is.
#[derive(Debug, thiserror::Error)]
pub enum NotApplied {
    /// The store's disk.
    #[error("cannot keep the policy: {0}: check the disk's space and health")]
    NotKept(std::io::Error),
    /// The kernel.
    #[error(transparent)]
    NotInstalled(#[from] crate::dataplane::DataplaneError),
}

/// What `why` is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// An address, or a peer by name or key.
    pub src: String,
    /// Likewise.
    pub dst: String,
    /// IANA protocol number.
    pub protocol: Option<u8>,
    /// The destination's port, or the ICMP type.
    pub port: Option<u16>,
}

/// The API's end of the boundary.
#[derive(Clone, Debug)]
pub struct Live {
    requests: mpsc::Sender<Request>,
    records: broadcast::Sender<Arc<Record>>,
}

/// An answer of the drain thread that is on its way.
#[derive(Debug)]
pub struct Awaited<T>(oneshot::Receiver<T>);

impl<T> Awaited<T> {
    /// Waits for it as a task.
    pub async fn come(self) -> Result<T, Stopped> {
        self.0.await.map_err(|_| Stopped)
    }

    /// Waits for it as a thread that may block.
    pub fn wait(self) -> Result<T, Stopped> {
        self.0.blocking_recv().map_err(|_| Stopped)
    }
}

/// The drain thread is gone; the daemon is shutting down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("flowd is shutting down; try again once it has restarted")]
pub struct Stopped;

impl Live {
    /// Records that a `watch` reader may fall behind before it skips some.
    pub const WATCH_BACKLOG: usize = 4_096;

    /// Both ends: for the API, and for the drain thread, which answers the requests and publishes
    /// what it commits.
    pub fn new() -> (Self, mpsc::Receiver<Request>, broadcast::Sender<Arc<Record>>) {
        let (requests, inbox) = mpsc::channel();
        let (records, _) = broadcast::channel(Self::WATCH_BACKLOG);
        (Self { requests, records: records.clone() }, inbox, records)
    }

    /// Asks, and waits for the answer. `question` puts the reply channel into its [`Request`].
    pub async fn ask<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, Stopped> {
        self.send(question)?.come().await
    }

    /// Asks; somebody else waits for the answer.
    pub fn send<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<Awaited<T>, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(question(reply)).map_err(|_| Stopped)?;
        Ok(Awaited(answer))
    }

    /// Tells something that has no answer. Whether anybody listens.
    pub fn tell(&self, news: Request) -> bool {
        self.requests.send(news).is_ok()
    }

    /// Readers of `watch`.
    pub fn watchers(&self) -> usize {
        self.records.receiver_count()
    }

    /// Every record that is committed from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Record>> {
        self.records.subscribe()
    }
}
