//! What people call the peers: `/etc/flowd/peers.toml`.

pub mod comments;

use std::{collections::HashMap, io, net::SocketAddr, path::Path};

use serde::Deserialize;

use crate::flows::Identity;

/// The names of peers by public key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names(HashMap<String, Entry>);

/// The file cannot be used.
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

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    peers: Vec<toml::Spanned<Entry>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    public_key: String,
    name: String,
    user: Option<String>,
    device: Option<String>,
    #[serde(default)]
    groups: Vec<String>,
}

impl Names {
    /// Reads `path`; a file that is not there names nobody.
    pub fn read(path: &Path) -> Result<Self, NamesError> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text).map_err(|(line, reason)| NamesError::Invalid {
                path: path.display().to_string(),
                line,
                reason,
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(NamesError::Read { path: path.display().to_string(), source }),
        }
    }

    /// The peer with this key, as it is known now.
    pub fn identity(&self, public_key: &str, endpoint: Option<SocketAddr>) -> Identity {
        let public_key = public_key.to_owned();
        match self.0.get(&public_key) {
            Some(Entry { public_key: _, name, user, device, groups }) => Identity {
                public_key,
                name: name.clone(),
                user: user.clone(),
                device: device.clone(),
                groups: groups.clone(),
                endpoint,
            },
            None => Identity {
                name: Identity::short_key(&public_key),
                public_key,
                user: None,
                device: None,
                groups: Vec::new(),
                endpoint,
            },
        }
    }

    fn parse(text: &str) -> Result<Self, (usize, String)> {
        let line_of = |offset: usize| text[..offset].matches('\n').count() + 1;
        let file: File = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| line_of(span.start));
            (line, error.message().lines().next().unwrap_or_default().to_owned())
        })?;
        let mut names = HashMap::new();
        for spanned in file.peers {
            let line = line_of(spanned.span().start);
            let entry = spanned.into_inner();
            if !is_key(&entry.public_key) {
                let reason = format!(
                    "`{}` is no WireGuard public key; it must be 44 characters of base64",
                    entry.public_key.escape_debug()
                );
                return Err((line, reason));
            }
            if entry.name.is_empty() {
                return Err((line, "`name` is empty".to_owned()));
            }
            if let Some(first) = names.insert(entry.public_key.clone(), entry) {
                return Err((line, format!("`{}` is listed twice", first.public_key)));
            }
        }
        Ok(Self(names))
    }
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
    use super::Names;

    const KEY: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";

    #[test]
    fn a_listed_peer_has_its_name_and_another_its_key() {
        let text = format!(
            "[[peers]]\npublic_key = \"{KEY}\"\nname = \"alice-laptop\"\nuser = \"alice\"\ngroups = [\"ops\"]\n"
        );
        let names = Names::parse(&text).unwrap();
        let alice = names.identity(KEY, None);
        assert_eq!((alice.name.as_str(), alice.user.as_deref()), ("alice-laptop", Some("alice")));
        assert_eq!(alice.groups, ["ops"]);
        let other = KEY.replace('x', "y");
        assert_eq!(names.identity(&other, None).name, "yTIBA5rb");
    }

    #[test]
    fn a_wrong_file_is_refused_with_its_line() {
        let twice = format!("[[peers]]\npublic_key = \"{KEY}\"\nname = \"a\"\n").repeat(2);
        let cases = [
            ("[[peers]]\npublic_key = \"short\"\nname = \"a\"\n", 1, "no WireGuard public key"),
            (twice.as_str(), 4, "listed twice"),
            ("[[peers]]\nname = 3\n", 2, "invalid type"),
            ("[[peer]]\n", 1, "unknown field"),
        ];
        for (text, line, reason) in cases {
            let (at, told) = Names::parse(text).unwrap_err();
            assert!(told.contains(reason), "{text:?} -> {told}");
            assert_eq!(at, line, "{text:?} -> {told}");
        }
    }
}
