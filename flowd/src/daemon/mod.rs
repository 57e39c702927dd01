//! Wiring: what starts in which order, and stops in the mirrored one.
//!
//! - claim the network namespace, open the store and the audit log, bind the socket, load, go on from
//!   the daemon before, attach
//! - then the threads: drain, WireGuard, names, keeper; then the API; then ready
//! - on SIGTERM or SIGINT: the API, the keeper, names and WireGuard threads, the drain thread with its
//!   last
//!   drain
//!
//! Whatever fails before «ready» leaves nothing behind.

mod alone;
mod anchors;
mod anew;
mod answers;
mod auditor;
mod collector;
mod compactor;
mod coverage;
mod cut;
mod dense;
mod drain;
mod gaps;
mod interfaces;
mod keeper;
mod lapses;
mod ledger;
mod meter;
mod overflow;
mod peers;
mod policy;
mod pulse;
mod recorder;
mod revisions;
mod sessions;
mod settling;
mod startup;
mod takeover;
mod traffic;
mod verdicts;
mod walking;
mod watched;
mod why;

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use sd_notify::NotifyState;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
};

use self::{
    collector::{Collector, now_ms},
    recorder::Recorder,
    revisions::Revisions,
    traffic::Tallies,
};
use crate::{
    api,
    audit::{Actor, Event, Outcome, Teller, word},
    config::Config,
    dataplane::{self, Dataplane, Detached, LinkHeader, LoadError},
    heap,
    identity::{self, Names, NamesError},
    live::{Live, Request},
    store, wireguard,
};

/// The daemon could not start, or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Two would count twice.
    #[error("another flowd already watches this network namespace: stop it first")]
    NotAlone,
    /// The operating system refused something that it normally grants.
    #[error("cannot {what}")]
    System {
        /// What flowd wanted.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file of peers' names is wrong.
    #[error(transparent)]
    Names(#[from] NamesError),
    /// The policy cannot be read, or is wrong, and there is none to go on with. One problem a line.
    #[error("{0}")]
    Policy(String),
    /// The policy could not be put into force, so nothing is attached.
    #[error("cannot put the policy into force: {0}")]
    NotInForce(String),
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] store::OpenError),
    /// The database does not take what a killed daemon left open.
    #[error("cannot end the flows that a killed flowd left open: {0}")]
    Leftovers(String),
    /// The audit log cannot be used.
    #[error(transparent)]
    Audit(#[from] store::AuditError),
    /// The socket cannot be used.
    #[error(transparent)]
    Socket(#[from] api::BindError),
    /// The address for scrapers cannot be used.
    #[error(transparent)]
    Listen(#[from] api::ListenError),
    /// The datapath cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The configuration names something else.
    #[error(
        "`interfaces` names {0}, which is no WireGuard interface: name a WireGuard interface, or \
         leave `interfaces` out to watch them all"
    )]
    NotWireguard(String),
    /// What a flowd before left could not be taken over.
    #[error("cannot take over from the flowd before: {0}")]
    TakeOver(String),
    /// What is still in the kernel could not be recorded.
    #[error("{0}")]
    NotRecorded(String),
    /// Nothing may be taken off that is not recorded.
    #[error(
        "flowd's tables stay, because what they counted cannot be recorded: make that right and run \
         `flowd detach` again, or lose it with `rm -r {tables}` first"
    )]
    NotDetached {
        /// The tables, as a pattern of the shell.
        tables: String,
        /// Why.
        source: Box<DaemonError>,
    },
    /// A bug in flowd.
    #[error("the drain thread has failed; see the log")]
    DrainFailed,
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> DaemonError {
    move |source| DaemonError::System { what, source }
}

/// Runs the daemon until it is told to stop.
pub fn run(config: Config) -> Result<(), DaemonError> {
    heap::tidy();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("api")
        .enable_all()
        .build()
        .map_err(system("start the API's threads"))?;
    runtime.block_on(serve(config))
}

/// Everything is attached; nothing runs yet.
struct Prepared {
    collector: Collector,
    names: identity::Reader,
    wanted: wireguard::Names,
    live: Live,
    inbox: std::sync::mpsc::Receiver<Request>,
}

/// What is looked at before anything is touched.
struct Opened {
    reader: identity::Reader,
    names: Names,
    writer: store::Writer,
}

fn open(config: &Config) -> Result<Opened, DaemonError> {
    let mut reader = identity::Reader::new(config.names.clone());
    let names = reader.read()?;
    let writer = store::Writer::open(&config.store, &config.gateway, now_ms())?
        .with_synchronous(config.synchronous)
        .map_err(store::OpenError::from)?
        .with_tail_records(config.tail_records);
    Ok(Opened { reader, names, writer })
}

/// Loads, goes on from the daemon before, attaches.
fn prepare(config: &Config, opened: Opened, teller: &Teller) -> Result<Prepared, DaemonError> {
    let Opened { reader, names, writer } = opened;
    let pins = startup::pins(config);
    let state = writer.state().map_err(|error| DaemonError::Leftovers(error.to_string()))?;
    let inherited = startup::inherited(pins.as_ref(), config.table_size, &state)?;
    let tables = inherited.tables.as_ref();
    let mut dataplane = Dataplane::load(config.table_size, LinkHeader::None, tables)?;
    dataplane.set_order(config.order);

    let wanted = wireguard::Names::new(config.interfaces.clone());
    let mut found = wireguard::scan(&[])
        .map_err(system("list WireGuard's interfaces (needs CAP_NET_ADMIN)"))?;
    check_named(&wanted, &found)?;
    found.retain(|interface| wanted.want(&interface.name));
    if found.is_empty() {
        tracing::warn!("there is no WireGuard interface to watch yet; waiting for one");
    }
    let gateway = wireguard::addresses().map_err(system("list the gateway's addresses"))?;
    let revisions =
        Revisions::open(&config.store).map_err(system("open the directory of the policies"))?;
    let (policy, policy_file) = startup::policy(config, &revisions, &found, &names)?;

    let (live, inbox, watchers) = Live::new();
    let mut collector = Collector::new(
        config.clone(),
        dataplane,
        Recorder::new(writer, watchers, Tallies::new(config.metrics.max_peers), now_ms()),
        names,
        revisions,
        policy,
        pins,
    );
    collector.tell_to(teller);
    collector.begin(found, gateway, inherited, policy_file)?;
    Ok(Prepared { collector, names: reader, wanted, live, inbox })
}

async fn serve(config: Config) -> Result<(), DaemonError> {
    let _alone = alone::claim()
        .map_err(system("claim the network namespace"))?
        .ok_or(DaemonError::NotAlone)?;
    let signals = Signals::listen()?;
    let opened = open(&config)?;
    let reports = opened.writer.reports();
    let (audit, aside) = store::AuditWriter::open(&config.store, &config.gateway, now_ms())?;
    let mut of_before = auditor::of_the_one_before(&audit, &config.told())?;
    if let Some(aside) = aside {
        tracing::error!(file = %aside.display(), "the audit log is damaged; flowd begins another one");
        let event = Event::new(now_ms(), word::AUDIT_SET_ASIDE, Actor::Auto, Outcome::Failed);
        of_before.push(event.on(aside.display().to_string()));
    }
    of_before.extend(auditor::of_what_was_signed(&audit, &config.store, &config.keys));
    let places = (config.store.as_path(), config.keys.as_path());
    let auditor = auditor::start(audit, config.audit_retention_days, places)
        .map_err(system("start the audit thread"))?;
    let audit = auditor.log();
    let socket = api::bind(&config.socket)?;
    let scrapers = api::listen(config.metrics.listen)?;
    let Prepared { collector, names: reader, wanted, live, inbox } =
        prepare(&config, opened, &audit.clone().into())?;
    collector.tell_of_pins();
    let state = api::ApiState {
        live: live.clone(),
        reader: store::Reader::new(&config.store, &config.gateway).reporting(reports),
        gateway: config.gateway.as_str().into(),
        query_timeout: config.query_timeout,
        access: Arc::new(api::Access::of(
            &config.read_groups,
            &config.admin_groups,
            &config.grants,
        )),
        audit: audit.clone(),
        audit_reader: store::AuditReader::new(&config.store),
    };
    of_before.into_iter().for_each(|event| audit.note(event));
    audit.note(of_itself(word::DAEMON_STARTED, &config));

    let (drain, drain_ended) = spawn_drain(collector, inbox)?;
    let stop_watch = Arc::new(AtomicBool::new(false));
    let news = live.clone();
    let watch = wireguard::watch(wanted, stop_watch.clone(), move |found, gateway| {
        news.tell(Request::Interfaces { found, gateway })
    })
    .map_err(system("start the WireGuard thread"))?;
    let news = live.clone();
    let names_watch = identity::watch(reader, move |names| news.tell(Request::Names(names)))
        .map_err(system("start the thread for names"))?;
    let keeper = store::Keeper::new(&config.store, config.retention)
        .with_tail_records(config.tail_records)
        .telling(audit.clone().into())
        .signing(&config.keys, &config.gateway);
    let keeper = keeper::start(keeper, live.clone()).map_err(system("start the keeper thread"))?;
    let compactor = store::Compactor::new(state.reader.clone(), config.tail_records);
    let compactor =
        compactor::start(compactor, live.clone()).map_err(system("start the compactor thread"))?;
    let reader = state.reader.clone();
    let own_socket = socket.is_own();
    let listener = socket.publish().map_err(system("put the socket into its place"))?;
    let (stop_api, api_stopped) = oneshot::channel::<()>();
    let (stop_scrapes, scrapes_stopped) = oneshot::channel::<()>();
    let scrapes = tokio::spawn(scrapers.serve(state.clone(), async {
        let _stop = scrapes_stopped.await;
    }));
    let api = tokio::spawn(api::serve(listener, state, async {
        // An error means that the sender is gone, which is the same.
        let _stop = api_stopped.await;
    }));

    // It ends with the runtime.
    tokio::spawn(heap::keep_small(move || reader.forget_idle()));

    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        gateway = config.gateway,
        socket = %config.socket.display(),
        store = %config.store.display(),
        "ready"
    );
    notify(NotifyState::Ready);
    let outcome =
        wait_for_end(signals, &names_watch, &live, &config.policy_file, drain_ended).await;

    notify(NotifyState::Stopping);
    drop((stop_api, stop_scrapes));
    if let Err(error) = tokio::try_join!(api, scrapes) {
        tracing::error!(%error, "the API ended badly");
    }
    drop(compactor);
    drop(keeper);
    drop(names_watch);
    stop_watch.store(true, Ordering::Relaxed);
    watch.thread().unpark();
    live.tell(Request::Stop);
    let drained = tokio::task::spawn_blocking(move || drain.join()).await;
    if own_socket {
        remove_socket(&config);
    }
    let ended = match (outcome, drained) {
        (Ok(()), Ok(Ok(()))) => Ok(()),
        _ => Err(DaemonError::DrainFailed),
    };
    // What the next one says of a daemon that failed is that it crashed.
    if ended.is_ok() {
        audit.note(of_itself(word::DAEMON_STOPPED, &config));
    }
    drop(auditor);
    ended
}

/// What the audit log says of the daemon.
fn of_itself(word: &'static str, config: &Config) -> Event {
    Event::new(now_ms(), word, Actor::System, Outcome::Done)
        .on(config.gateway.clone())
        .with("version", env!("CARGO_PKG_VERSION"))
        .with("configuration", config.told())
        .with("pid", std::process::id())
}

/// Records what flowd's programs have counted, ends every flow, and takes the programs off every
/// interface of this network namespace. Only while no daemon runs; where the store takes nothing, the
/// tables stay.
pub fn detach(config: &Config) -> Result<Detached, DaemonError> {
    let _alone = alone::claim()
        .map_err(system("claim the network namespace"))?
        .ok_or(DaemonError::NotAlone)?;
    let mut programs = 0;
    if dataplane::has_left_tables(&config.pins) {
        let recorded = open(config)
            .and_then(|opened| prepare(config, opened, &Teller::default()))
            .and_then(|prepared| prepared.collector.record_and_detach());
        programs = recorded.map_err(|error| DaemonError::NotDetached {
            tables: dataplane::tables_pattern(&config.pins),
            source: Box::new(error),
        })?;
    }
    let more =
        dataplane::detach_everything(&config.pins).map_err(system("take the programs off"))?;
    let detached = Detached { removed: programs + more.removed, ..more };
    if detached.removed > 0 && config.store.exists() {
        tell_of_detach(config, detached.removed);
    }
    Ok(detached)
}

/// Tells the audit log that somebody had the programs taken off, who may: the command stands.
fn tell_of_detach(config: &Config, programs: usize) {
    let event = Event::new(now_ms(), word::PROGRAM_DETACHED, Actor::System, Outcome::Done)
        .on(config.gateway.clone())
        .with("programs", programs);
    let told = store::AuditWriter::open(&config.store, &config.gateway, now_ms())
        .and_then(|(mut log, _aside)| log.append(&[event.into()]));
    if let Err(error) = told {
        tracing::error!(%error, "the audit log does not say that the programs were taken off");
    }
}

/// Refuses a name in `interfaces` that is there but no WireGuard interface; one that is not there
/// may still come.
fn check_named(
    wanted: &wireguard::Names,
    found: &[wireguard::Interface],
) -> Result<(), DaemonError> {
    for name in wanted.exact() {
        if found.iter().any(|interface| interface.name == name) {
            continue;
        }
        if wireguard::ifindex_of(name).is_some() {
            return Err(DaemonError::NotWireguard(name.to_owned()));
        }
        tracing::warn!(interface = name, "there is no such interface yet; waiting for it");
    }
    Ok(())
}

/// Starts the drain thread; the receiver ends when the thread does, whatever the reason.
fn spawn_drain(
    collector: Collector,
    inbox: std::sync::mpsc::Receiver<Request>,
) -> Result<(JoinHandle<()>, oneshot::Receiver<()>), DaemonError> {
    let (alive, ended) = oneshot::channel::<()>();
    let handle = thread::Builder::new()
        .name("drain".to_owned())
        .spawn(move || {
            let _alive = alive;
            collector.run(&inbox, || notify(NotifyState::Watchdog));
        })
        .map_err(system("start the drain thread"))?;
    Ok((handle, ended))
}

/// What the daemon is told from outside. Heard from the start, so that a stop during it is orderly.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> Result<Self, DaemonError> {
        let listen = |kind| signal(kind).map_err(system("listen for signals"));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }
}

async fn wait_for_end(
    signals: Signals,
    names_watch: &identity::Watch,
    live: &Live,
    policy_file: &Path,
    drain_ended: oneshot::Receiver<()>,
) -> Result<(), DaemonError> {
    let Signals { mut terminate, mut interrupt, mut hangup } = signals;
    tokio::pin!(drain_ended);
    loop {
        tokio::select! {
            _ = terminate.recv() => {
                tracing::info!(signal = "SIGTERM", "stopping");
                return Ok(());
            }
            _ = interrupt.recv() => {
                tracing::info!(signal = "SIGINT", "stopping");
                return Ok(());
            }
            _ = hangup.recv() => {
                names_watch.read();
                match std::fs::read_to_string(policy_file) {
                    Ok(text) => drop(live.tell(Request::PolicyFile(text))),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => tracing::error!(
                        %error,
                        file = %policy_file.display(),
                        "the policy in force stays"
                    ),
                }
            }
            _ = &mut drain_ended => return Err(DaemonError::DrainFailed),
        }
    }
}

fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!(%error, "no service manager was told");
    }
}

fn remove_socket(config: &Config) {
    if let Err(error) = std::fs::remove_file(&config.socket) {
        tracing::debug!(%error, "the socket was gone already");
    }
}
