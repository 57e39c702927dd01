//! flowd's own list of peers, `peers.toml`. What is wrong with it is told with its line.

use serde::{Deserialize, Serialize};

use super::{comments::MAX_BYTES, is_key};
use crate::flows::Identity;

/// What is wrong, and in which line.
pub type Wrong = (usize, String);

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    peers: Vec<toml::Spanned<Entry>>,
}

#[derive(Debug, Serialize)]
struct List {
    peers: Vec<Entry>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    public_key: String,
    name: String,
    user: Option<String>,
    device: Option<String>,
    #[serde(default)]
    groups: Vec<String>,
}

/// The text of a list of these.
pub fn text<'a>(identities: impl Iterator<Item = &'a Identity>) -> String {
    let entry = |identity: &Identity| {
        let Identity { public_key, name, user, device, groups, endpoint: _ } = identity.clone();
        Entry { public_key, name, user, device, groups }
    };
    let list = List { peers: identities.map(entry).collect() };
    toml::to_string(&list).expect("texts and lists of texts are TOML")
}

/// The entries in their order, each with its line. No key comes twice.
pub fn parse(text: &str) -> Result<Vec<(usize, Identity)>, Wrong> {
    let newlines = |from, to| text.get(from..to).unwrap_or_default().matches('\n').count();
    let file: File = toml::from_str(text).map_err(|error| {
        let line = 1 + error.span().map_or(0, |span| newlines(0, span.start));
        (line, error.message().lines().next().unwrap_or_default().to_owned())
    })?;
    let mut seen = std::collections::HashSet::new();
    let mut entries = Vec::new();
    let (mut line, mut counted) = (1, 0);
    for spanned in file.peers {
        // Counted from the entry before: there may be many thousands.
        line += newlines(counted, spanned.span().start);
        counted = spanned.span().start;
        let entry = spanned.into_inner();
        check(&entry).map_err(|reason| (line, reason))?;
        if !seen.insert(entry.public_key.clone()) {
            return Err((line, format!("`{}` is listed twice", entry.public_key)));
        }
        let Entry { public_key, name, user, device, groups } = entry;
        entries.push((line, Identity { public_key, name, user, device, groups, endpoint: None }));
    }
    Ok(entries)
}

fn check(entry: &Entry) -> Result<(), String> {
    let Entry { public_key, name, user, device, groups } = entry;
    if !is_key(public_key) {
        return Err(format!(
            "`{}` is no WireGuard public key; it must be 44 characters of base64",
            public_key.escape_debug()
        ));
    }
    if name.is_empty() {
        return Err("`name` is empty".to_owned());
    }
    let groups = groups.iter().map(|group| ("groups", group));
    let texts = user.iter().map(|user| ("user", user)).chain(device.iter().map(|d| ("device", d)));
    for (key, text) in texts.chain(groups).chain([("name", name)]) {
        if text.len() > MAX_BYTES || text.contains(char::is_control) {
            return Err(format!("`{key}` must be at most {MAX_BYTES} bytes of printable text"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::parse;

    const KEY: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";

    #[test]
    fn an_entry_says_who_a_peer_is() {
        let text = format!(
            "\n[[peers]]\npublic_key = \"{KEY}\"\nname = \"alice-laptop\"\nuser = \"alice\"\n\
             groups = [\"ops\"]\n"
        );
        let (line, alice) = parse(&text).unwrap().remove(0);
        assert_eq!((line, alice.public_key.as_str()), (2, KEY));
        assert_eq!((alice.name.as_str(), alice.user.as_deref()), ("alice-laptop", Some("alice")));
        assert_eq!((alice.device, alice.groups), (None, vec!["ops".to_owned()]));
        assert_eq!(parse("").unwrap(), []);
    }

    #[test]
    fn a_wrong_list_is_refused_with_its_line() {
        let entry = format!("[[peers]]\npublic_key = \"{KEY}\"\nname = \"a\"\n");
        let cases = [
            ("[[peers]]\npublic_key = \"short\"\nname = \"a\"\n", 1, "no WireGuard public key"),
            (&entry.repeat(2), 4, "listed twice"),
            (&entry.replace("\"a\"", "\"\""), 1, "`name` is empty"),
            (&entry.replace("\"a\"", "\"\\u001b\""), 1, "`name` must be at most 255 bytes"),
            (&(entry.clone() + "user = \"a\\n\"\n"), 1, "`user` must be at most 255 bytes"),
            (&(entry.clone() + "groups = [\"\\t\"]\n"), 1, "`groups` must be at most 255 bytes"),
            ("[[peers]]\nname = 3\n", 2, "invalid type"),
            ("[[peer]]\n", 1, "unknown field"),
            ("[[peers\n", 1, ""),
        ];
        for (text, line, reason) in cases {
            let (at, told) = parse(text).unwrap_err();
            assert!(told.contains(reason), "{text:?} -> {told}");
            assert_eq!((at, told.lines().count()), (line, 1), "{text:?} -> {told}");
        }
    }
}
