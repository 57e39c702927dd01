//! What people call the peers. Who wins, in this order:
//!
//! - an entry of `/etc/flowd/peers.toml`, whole
//! - the comments in WireGuard's own configuration: the first file that names a peer
//! - where flowd may not read that configuration, the list that [`Names::copied`] made of it
//! - the start of the public key
//!
//! WireGuard's configuration holds private keys. They are read with it, because they are in the
//! same file, and forgotten with its text: nothing but public keys and names leaves [`comments`].

pub mod comments;
pub mod list;
mod sources;
mod watch;

use std::{
    collections::{BTreeMap, HashSet, btree_map},
    io,
    net::SocketAddr,
    path::Path,
};

pub use sources::{Sources, Unread};
pub use watch::{Reader, Watch, watch};

use crate::flows::Identity;

/// The names of peers by public key, as they were when they were read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Without endpoints.
    known: BTreeMap<String, Identity>,
    /// The entries of `peers.toml`.
    listed: Vec<Listed>,
    unread: Vec<Unread>,
}

/// An entry of `peers.toml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Where it begins.
    pub line: usize,
    /// Whom it names.
    pub public_key: String,
}

/// `peers.toml` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NamesError {
    /// It cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Where it is.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// It says something that flowd does not understand.
    #[error("{path}: line {line}: {reason}")]
    Invalid {
        /// Where it is.
        path: String,
        /// Which line.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
}

impl Names {
    /// Reads every source. One that is not there names nobody, nor does a configuration of
    /// WireGuard that cannot be read: see [`Names::unread`]. Only `peers.toml` must be right.
    pub fn read(sources: &Sources) -> Result<Self, NamesError> {
        let mut names = Self::default();
        names.list(&read_list(&sources.peers)?).map_err(|(line, reason)| NamesError::Invalid {
            path: sources.peers.display().to_string(),
            line,
            reason,
        })?;
        names.configurations(sources);
        if names.unread.iter().any(|unread| unread.is_forbidden) {
            names.copy(&sources.copy);
        }
        Ok(names)
    }

    /// The names in WireGuard's own configurations as a list, for somebody who may not read those.
    pub fn copied(sources: &Sources) -> (String, Vec<Unread>) {
        let mut names = Self::default();
        names.configurations(sources);
        (list::text(names.known.values()), names.unread)
    }

    /// The peer with this key, as it is known now.
    pub fn identity(&self, public_key: &str, endpoint: Option<SocketAddr>) -> Identity {
        match self.known.get(public_key) {
            Some(known) => Identity { endpoint, ..known.clone() },
            None => Identity {
                name: Identity::short_key(public_key),
                public_key: public_key.to_owned(),
                user: None,
                device: None,
                groups: Vec::new(),
                endpoint,
            },
        }
    }

    /// Everybody whom some source names, by public key, whether or not an interface has the peer.
    pub fn known(&self) -> impl Iterator<Item = Identity> {
        self.known.values().cloned()
    }

    /// The entries of `peers.toml` whose peers are not among the `present` public keys.
    pub fn strangers(&self, present: &HashSet<String>) -> Vec<Listed> {
        let is_stranger = |listed: &&Listed| !present.contains(&listed.public_key);
        self.listed.iter().filter(is_stranger).cloned().collect()
    }

    /// The files and directories that are there and could not be read.
    pub fn unread(&self) -> &[Unread] {
        &self.unread
    }

    fn configurations(&mut self, sources: &Sources) {
        let (files, unread) = sources.files();
        self.unread = unread;
        for path in files {
            match sources::read(&path) {
                Ok(Some(text)) => self.comments(&String::from_utf8_lossy(&text)),
                Ok(None) => {}
                Err(error) => self.unread.push(Unread::new(&path, &error)),
            }
        }
    }

    /// Takes from the copy who is not named yet. With it, nothing that is forbidden is missing.
    fn copy(&mut self, path: &Path) {
        let identities = match sources::read(path) {
            Ok(None) => return,
            Ok(Some(text)) => list::parse(&String::from_utf8_lossy(&text))
                .map_err(|(line, reason)| io::Error::other(format!("line {line}: {reason}"))),
            Err(error) => Err(error),
        };
        match identities {
            Ok(identities) => {
                self.unread.retain(|unread| !unread.is_forbidden);
                for (_, identity) in identities {
                    self.known.entry(identity.public_key.clone()).or_insert(identity);
                }
            }
            Err(error) => self.unread.push(Unread::new(path, &error)),
        }
    }

    fn list(&mut self, text: &str) -> Result<(), list::Wrong> {
        for (line, identity) in list::parse(text)? {
            self.listed.push(Listed { line, public_key: identity.public_key.clone() });
            self.known.insert(identity.public_key.clone(), identity);
        }
        Ok(())
    }

    /// Takes from a configuration of WireGuard who is not named yet.
    fn comments(&mut self, text: &str) {
        for (public_key, comment) in comments::parse(text) {
            let btree_map::Entry::Vacant(place) = self.known.entry(public_key) else {
                continue;
            };
            let comments::Comment { name, user, device, groups } = comment;
            let public_key = place.key().clone();
            let name = name.unwrap_or_else(|| Identity::short_key(&public_key));
            place.insert(Identity { public_key, name, user, device, groups, endpoint: None });
        }
    }
}

fn read_list(path: &Path) -> Result<String, NamesError> {
    let read = sources::read(path).and_then(|bytes| {
        String::from_utf8(bytes.unwrap_or_default())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.utf8_error()))
    });
    read.map_err(|source| NamesError::Read { path: path.display().to_string(), source })
}

/// Whether `text` is 32 bytes in base64.
fn is_key(text: &str) -> bool {
    let symbols = |text: &str| {
        text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
    };
    text.len() == 44 && text.strip_suffix('=').is_some_and(symbols)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::{Listed, Names, Sources, Unread};

    const ALICE: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
    const BOB: &str = "2S7mA0vEMethCNQrJpJKE81/JmhgtB+tHHLYQhgM6kk=";
    const CAROL: &str = "qnoxQoQI8KKMupLnSSureORV0wMmH7JryZNsmGVISzU=";

    fn in_directory(directory: &Path) -> Sources {
        Sources {
            peers: directory.join("peers.toml"),
            wireguard: vec![directory.join("wireguard"), directory.join("more")],
            networkd: vec![directory.join("networkd")],
            copy: directory.join("copy.toml"),
        }
    }

    fn write(directory: &Path, name: &str, text: &str) {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn the_first_source_that_names_a_peer_wins() {
        let directory = tempfile::tempdir().unwrap();
        let sources = in_directory(directory.path());
        let names = || {
            let names = Names::read(&sources).unwrap();
            [ALICE, BOB, CAROL].map(|key| names.identity(key, None).name).join(" ")
        };
        assert_eq!(names(), "xTIBA5rb 2S7mA0vE qnoxQoQI", "nothing is there");
        let steps = [
            ("networkd/wg0.netdev", "carol-n", CAROL, "xTIBA5rb 2S7mA0vE carol-n"),
            ("networkd/wg0.conf", "x", ALICE, "xTIBA5rb 2S7mA0vE carol-n"),
            ("more/wg0.conf", "carol-m", CAROL, "xTIBA5rb 2S7mA0vE carol-m"),
            ("wireguard/wg1.conf", "alice-1", ALICE, "alice-1 2S7mA0vE carol-m"),
            ("wireguard/wg0.conf", "alice-0", ALICE, "alice-0 2S7mA0vE carol-m"),
            ("wireguard/wg0.netdev", "x", BOB, "alice-0 2S7mA0vE carol-m"),
        ];
        for (file, name, key, expected) in steps {
            let text = format!("# {name}\n[Peer]\nPublicKey = {key}\n");
            write(directory.path(), file, &text);
            assert_eq!(names(), expected, "{file}");
        }
        let text = format!("[[peers]]\npublic_key = \"{ALICE}\"\nname = \"alice\"\n");
        write(directory.path(), "peers.toml", &text);
        assert_eq!(names(), "alice 2S7mA0vE carol-m");
    }

    #[test]
    fn an_entry_of_the_list_wins_whole() {
        let mut names = Names::default();
        names.list(&format!("[[peers]]\npublic_key = \"{ALICE}\"\nname = \"alice\"\n")).unwrap();
        let json = "# friendly_json={\"name\":\"x\",\"user\":\"u\",\"groups\":[\"g\"]}";
        names.comments(&format!("[Peer]\n{json}\nPublicKey={ALICE}\n"));
        names.comments(&format!("[Peer]\n{json}\nPublicKey={BOB}\n"));
        let endpoint = Some("192.0.2.1:51820".parse().unwrap());
        let alice = names.identity(ALICE, endpoint);
        assert_eq!((alice.user, alice.groups, alice.endpoint), (None, vec![], endpoint));
        assert_eq!(names.identity(BOB, None).user.as_deref(), Some("u"));
        let known: Vec<_> = names.known().map(|peer| (peer.name, peer.endpoint)).collect();
        assert_eq!(known, [("x".to_owned(), None), ("alice".to_owned(), None)]);
    }

    #[test]
    fn entries_for_peers_that_no_interface_has_are_strangers() {
        let entry = |key| format!("[[peers]]\npublic_key = \"{key}\"\nname = \"a\"\n");
        let mut names = Names::default();
        names.list(&(entry(ALICE) + &entry(BOB))).unwrap();
        names.comments(&format!("# carol\n[Peer]\nPublicKey={CAROL}\n"));
        let strangers = names.strangers(&[ALICE.to_owned()].into());
        assert_eq!(strangers, [Listed { line: 4, public_key: BOB.to_owned() }]);
    }

    #[test]
    fn what_cannot_be_read_is_told_and_names_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let sources = in_directory(directory.path());
        let text = format!("# alice\n[Peer]\nPublicKey = {ALICE}\n");
        write(directory.path(), "wireguard/wg0.conf", &text);
        // Directories where a file is expected, and the other way round: unreadable, root or not.
        write(directory.path(), "wireguard/wg1.conf/x", "");
        write(directory.path(), "networkd", "");
        let names = Names::read(&sources).unwrap();
        assert_eq!(names.identity(ALICE, None).name, "alice");
        let unread: Vec<_> = names
            .unread()
            .iter()
            .map(|unread| unread.path.strip_prefix(directory.path()).unwrap().to_str().unwrap())
            .collect();
        assert_eq!(unread, ["networkd", "wireguard/wg1.conf"]);

        write(directory.path(), "peers.toml", "[[peers]]\n");
        let error = Names::read(&sources).unwrap_err().to_string();
        assert!(error.contains("peers.toml: line 1: missing field"), "{error}");
        fs::write(directory.path().join("peers.toml"), b"\xff").unwrap();
        let error = Names::read(&sources).unwrap_err().to_string();
        assert!(error.starts_with("cannot read /") && error.contains("utf-8"), "{error}");
    }

    #[test]
    fn the_copy_says_what_the_configurations_do_and_is_asked_where_they_are_forbidden() {
        let directory = tempfile::tempdir().unwrap();
        let sources = in_directory(directory.path());
        let json = "# friendly_json={\"name\":\"b \\\"ob\",\"user\":\"u\",\"groups\":[\"g\"]}";
        let text = format!(
            "[Interface]\nPrivateKey = {CAROL}\n# alice\n[Peer]\nPublicKey = {ALICE}\n\
             [Peer]\n{json}\nPublicKey = {BOB}\n"
        );
        write(directory.path(), "wireguard/wg0.conf", &text);
        write(directory.path(), "peers.toml", "");
        let (copy, unread) = Names::copied(&sources);
        assert_eq!(unread, []);
        assert!(!copy.contains(CAROL), "{copy}");
        write(directory.path(), "copy.toml", &copy);
        let read = Names::read(&sources).unwrap();

        let mut from_copy = Names::default();
        let of_others = |name: &str| Unread {
            path: directory.path().join(name),
            reason: "other".to_owned(),
            is_forbidden: name == "forbidden",
        };
        from_copy.unread = vec![of_others("forbidden"), of_others("broken")];
        from_copy.copy(&sources.copy);
        assert_eq!(from_copy.known, read.known);
        assert_eq!(from_copy.unread, [of_others("broken")], "it has what is forbidden, only that");

        write(directory.path(), "copy.toml", "[[peers]]\n");
        from_copy.copy(&sources.copy);
        assert_eq!(from_copy.unread.len(), 2, "a wrong copy is told");
        assert_eq!(Names::read(&sources).unwrap(), read, "and nobody asks it where none is needed");
    }

    #[test]
    fn no_secret_gets_any_further() {
        const SECRET: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
        let directory = tempfile::tempdir().unwrap();
        let text = format!(
            "# {SECRET}\n[Interface]\nPrivateKey = {SECRET}\n# PrivateKey = {SECRET}\n\n\
             # alice\n[Peer]\nPublicKey = {ALICE}\nPresharedKey = {SECRET}\n#{SECRET}\n"
        );
        write(directory.path(), "wireguard/wg0.conf", &text);
        // The same as garbage where flowd's own list should be.
        write(directory.path(), "more/wg0.conf", &text.replace('\n', "\0"));
        let names = Names::read(&in_directory(directory.path())).unwrap();
        assert_eq!(names.identity(ALICE, None).name, "alice");
        assert!(!format!("{names:?}").contains(&SECRET[..9]));
    }
}
