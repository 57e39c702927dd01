//! What the socket and JSON add to an answer: the same is asked of the store itself and over HTTP of the
//! daemon's own server, in turns. No flow is open: the drain thread's stand-in has nothing to say.

use std::{
    error::Error,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use flowd::{
    api::{self, Access, ApiState},
    audit,
    flows::{Filter, FlowId},
    live::{Live, Pending, Request},
    store::{AuditReader, Reader},
};
use tokio::{net::UnixListener, sync::oneshot};

use super::filled::{Filled, GATEWAY};

/// Times that something is asked, of which the median counts.
const TRIES: usize = 301;
const ALL: u64 = u64::MAX >> 1;

/// Medians.
pub(super) struct Added {
    pub(super) what: &'static str,
    pub(super) direct: Duration,
    pub(super) served: Duration,
}

/// Asks for a sum and for a flow.
pub(super) fn added(filled: &Filled) -> Result<[Added; 2], Box<dyn Error>> {
    let reader = Reader::new(&filled.store(), GATEWAY);
    let socket = filled.directory.path().join("flowd.sock");
    let (stop, stopped) = oneshot::channel();
    let (store, at) = (filled.store(), socket.clone());
    let (ready, is_ready) = mpsc::channel();
    let serving =
        thread::spawn(move || serve(&store, &at, &ready, stopped).map_err(|e| e.to_string()));
    let asked = is_ready
        .recv()
        .map_err(|_| "the server does not start")
        .and_then(|()| UnixStream::connect(&socket).map_err(|_| "nobody listens on the socket"));
    let mut client = asked?;
    let short: FlowId = filled.facts.short;
    // The answer has gaps in it, too.
    let mut sum = || {
        reader.summary(&Filter::default(), ALL)?;
        reader.gaps(None, None).map(drop)
    };
    let of_sum = ask("sum by verdict", &mut sum, &mut client, "/v1/summary")?;
    let mut flow = || reader.flow(short, ALL).map(drop);
    let path = format!("/v1/flows/{short}");
    let of_flow = ask("flow of two records, by id", &mut flow, &mut client, &path)?;
    drop((client, stop));
    serving.join().map_err(|_| "the server has failed")??;
    Ok([of_sum, of_flow])
}

fn ask<E: Error + 'static>(
    what: &'static str,
    direct: &mut dyn FnMut() -> Result<(), E>,
    client: &mut UnixStream,
    path: &str,
) -> Result<Added, Box<dyn Error>> {
    let (mut of_store, mut of_socket) = (Vec::new(), Vec::new());
    for _ in 0..TRIES {
        let start = Instant::now();
        direct()?;
        of_store.push(start.elapsed());
        let start = Instant::now();
        get(client, path)?;
        of_socket.push(start.elapsed());
    }
    let [direct, served] = [of_store, of_socket].map(|mut times| {
        times.sort();
        times[TRIES / 2]
    });
    Ok(Added { what, direct, served })
}

/// Reads an answer of known length to its end.
fn get(client: &mut UnixStream, path: &str) -> Result<(), Box<dyn Error>> {
    write!(client, "GET {path} HTTP/1.1\r\nhost: flowd\r\naccept: application/json\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut piece = [0; 16_384];
    loop {
        let count = client.read(&mut piece)?;
        answer.extend_from_slice(&piece[..count]);
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            if count == 0 {
                return Err("the answer ends in its head".into());
            }
            continue;
        };
        if !head.starts_with("HTTP/1.1 200") {
            return Err(text.into());
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if body.len() >= length.ok_or("the answer does not say its length")?.parse::<usize>()? {
            return Ok(());
        }
        if count == 0 {
            return Err("the answer is cut short".into());
        }
    }
}

/// Serves the store until `stopped`.
fn serve(
    store: &Path,
    socket: &Path,
    ready: &mpsc::Sender<()>,
    stopped: oneshot::Receiver<()>,
) -> Result<(), Box<dyn Error>> {
    let (live, inbox, _watchers) = Live::new();
    thread::spawn(move || inbox.into_iter().for_each(answer));
    let (audit, told, _lost) = audit::Log::new();
    thread::spawn(move || told.into_iter().for_each(drop));
    let state = ApiState {
        live,
        reader: Reader::new(store, GATEWAY),
        gateway: GATEWAY.into(),
        query_timeout: Duration::from_secs(30),
        access: Arc::new(Access::of(&[], &[], &[])),
        audit,
        audit_reader: AuditReader::new(store),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = UnixListener::bind(socket)?;
        // Who waits for it is there.
        let _waits = ready.send(());
        api::serve(listener, state, async {
            let _stopped = stopped.await;
        })
        .await;
        Ok(())
    })
}

/// What the drain thread says where nothing is open. Whoever asks for more gets no answer.
fn answer(question: Request) {
    match question {
        Request::Summary { reply, .. } => {
            drop(reply.send(Pending { watermark: ALL, ..Pending::default() }));
        }
        Request::Flow { reply, .. } => {
            drop(reply.send(Pending { watermark: ALL, ..Pending::default() }));
        }
        _ => {}
    }
}
