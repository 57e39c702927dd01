//! Noticing that the names of peers have changed.
//!
//! A thread of its own, so that nobody else waits for a file: while it hangs, names stay as they
//! were, and counting goes on.
//!
//! - look at every file, short of reading it, once a second
//! - when something has changed, leave the writer time to finish, then read
//! - when asked, read at once, changed or not

use std::{
    io,
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::Duration,
};

use super::{
    Names, NamesError,
    sources::{Fingerprint, Sources, Unread},
};

/// How long a change may be there before flowd notices.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long who writes a file in place may take for it.
const SETTLE: Duration = Duration::from_millis(200);

/// Reads names, remembers what the files looked like, and tells the log once what it cannot read.
#[derive(Debug)]
pub struct Reader {
    sources: Sources,
    seen: Fingerprint,
    told: Vec<Unread>,
}

impl Reader {
    /// Has read nothing yet.
    pub fn new(sources: Sources) -> Self {
        Self { sources, seen: Fingerprint::default(), told: Vec::new() }
    }

    /// Reads every source.
    pub fn read(&mut self) -> Result<Names, NamesError> {
        // Looked at first: what changes while it is read is read again.
        self.seen = self.sources.fingerprint();
        let names = Names::read(&self.sources)?;
        for unread in names.unread().iter().filter(|unread| !self.told.contains(unread)) {
            let Unread { path, reason, is_forbidden: _ } = unread;
            tracing::warn!(path = %path.display(), %reason, "cannot be read; it names no peer");
        }
        self.told = names.unread().to_vec();
        Ok(names)
    }

    fn is_outdated(&self) -> bool {
        self.sources.fingerprint() != self.seen
    }
}

/// The thread that watches. It ends when this is dropped.
#[derive(Debug)]
pub struct Watch {
    asking: Sender<()>,
}

impl Watch {
    /// Makes it read, whether or not anything has changed.
    pub fn read(&self) {
        if self.asking.send(()).is_err() {
            tracing::debug!("nobody listens to names any more");
        }
    }
}

/// Reads again when it is time, and gives the names to `publish`, which says whether anybody still
/// listens. What is wrong with the files is told once, and names stay as they were.
pub fn watch(
    reader: Reader,
    publish: impl FnMut(Names) -> bool + Send + 'static,
) -> io::Result<Watch> {
    let (asking, asked) = mpsc::channel();
    thread::Builder::new().name("names".to_owned()).spawn(move || run(reader, &asked, publish))?;
    Ok(Watch { asking })
}

fn run(mut reader: Reader, asked: &Receiver<()>, mut publish: impl FnMut(Names) -> bool) {
    let mut refused = None;
    loop {
        let mut request = asked.recv_timeout(INTERVAL);
        let is_outdated = request.is_err() && reader.is_outdated();
        if is_outdated {
            request = asked.recv_timeout(SETTLE);
        }
        match request {
            Ok(()) => refused = None,
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) if !is_outdated => continue,
            Err(RecvTimeoutError::Timeout) => {}
        }
        match reader.read() {
            Ok(names) => {
                refused = None;
                tracing::info!(named = names.known().count(), "read the names of the peers");
                if !publish(names) {
                    return;
                }
            }
            Err(error) => {
                let error = error.to_string();
                if refused.as_ref() != Some(&error) {
                    tracing::error!(error, "names of peers stay as they were");
                }
                refused = Some(error);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::mpsc, time::Duration};

    use super::{Reader, Sources, watch};

    const KEY: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
    const SOON: Duration = Duration::from_secs(30);

    #[test]
    fn a_change_is_noticed_and_a_mistake_leaves_names_as_they_were() {
        let directory = tempfile::tempdir().unwrap();
        let list = directory.path().join("peers.toml");
        let wireguard = directory.path().join("wireguard");
        let sources = Sources {
            peers: list.clone(),
            wireguard: vec![wireguard.clone()],
            networkd: Vec::new(),
            copy: directory.path().join("copy.toml"),
        };
        let mut reader = Reader::new(sources);
        assert_eq!(reader.read().unwrap().known().count(), 0);
        let (publish, published) = mpsc::channel();
        let watch =
            watch(reader, move |names| publish.send(names.identity(KEY, None).name).is_ok())
                .unwrap();
        let next = || published.recv_timeout(SOON).unwrap();

        fs::create_dir(&wireguard).unwrap();
        fs::write(wireguard.join("wg0.conf"), format!("# alice\n[Peer]\nPublicKey={KEY}\n"))
            .unwrap();
        assert_eq!(next(), "alice");
        let text = format!("[[peers]]\npublic_key = \"{KEY}\"\nname = \"bob\"\n");
        fs::write(&list, &text).unwrap();
        assert_eq!(next(), "bob");
        watch.read();
        assert_eq!(next(), "bob", "nothing has changed, but it was asked for");
        fs::write(&list, "[[peer]]\n").unwrap();
        watch.read();
        let new = directory.path().join("new");
        fs::write(&new, text.replace("bob", "carol")).unwrap();
        fs::rename(&new, &list).unwrap();
        assert_eq!(next(), "carol", "the mistake was not published");
        drop(watch);
        assert!(published.iter().all(|name| name == "carol"), "and the thread has ended");
    }
}
