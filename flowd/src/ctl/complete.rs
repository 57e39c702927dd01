//! What a shell completes: words of ours, and names that the daemon knows. A daemon that does not
//! answer at once completes nothing, and says nothing into the line that somebody types.
//!
//! A name may have been given by somebody else, and shells put what is completed into the line as it
//! stands: only names that no shell takes for anything but a word are offered.

use std::{path::PathBuf, time::Duration};

use clap::CommandFactory as _;
use clap_complete::{
    CompleteEnv,
    engine::{ArgValueCandidates, CompletionCandidate},
    env::Shells,
};
use serde::de::DeserializeOwned;

use super::{args::Cli, client::Client, error::CtlError, output::Screen};
use crate::{config::DEFAULT_SOCKET, flows::Identity, wire};

/// How long somebody waits who has pressed the key.
const PATIENCE: Duration = Duration::from_millis(800);
/// The environment variable with which a shell asks.
const VARIABLE: &str = "COMPLETE";

/// Answers a shell that asks what may follow, and ends the program then.
pub fn complete() {
    CompleteEnv::with_factory(Cli::command).var(VARIABLE).complete();
}

/// Prints what a shell has to be told, so that it asks.
pub(super) fn register(screen: &mut Screen, shell: &str) -> Result<(), CtlError> {
    let shells = Shells::builtins();
    let completer = shells.completer(shell).expect("only its words are accepted");
    let mut text = Vec::new();
    completer.write_registration(VARIABLE, "flowctl", "flowctl", "flowctl", &mut text)?;
    screen.raw(&text)?;
    screen.flush()
}

/// The shells that can ask.
pub(super) const SHELLS: [&str; 5] = ["bash", "elvish", "fish", "powershell", "zsh"];

/// These words.
pub(super) fn words<const N: usize>(words: [&'static str; N]) -> ArgValueCandidates {
    ArgValueCandidates::new(move || words.iter().map(CompletionCandidate::new).collect())
}

/// Names of peers.
pub(super) fn peers() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let list = ask::<wire::PeerList>("/v1/peers").map(|list| list.peers).unwrap_or_default();
        list.into_iter().map(|peer| peer.identity).filter_map(peer_candidate).collect()
    })
}

/// A peer by its name, or by its key where the name is no plain word.
fn peer_candidate(peer: Identity) -> Option<CompletionCandidate> {
    let Identity { name, public_key, user, .. } = peer;
    let word = if is_plain(&name) { name } else { public_key };
    is_plain(&word).then(|| CompletionCandidate::new(word).help(user.map(Into::into)))
}

/// Users of peers.
pub(super) fn users() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let list = ask::<wire::PeerList>("/v1/peers").map(|list| list.peers).unwrap_or_default();
        let mut users: Vec<_> = list.into_iter().filter_map(|peer| peer.identity.user).collect();
        users.retain(|user| is_plain(user));
        users.sort();
        users.dedup();
        users.into_iter().map(CompletionCandidate::new).collect()
    })
}

/// Ids of the rules in force, and the word for none.
pub(super) fn rules() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let rules =
            ask::<wire::Policy>("/v1/policy").map(|policy| policy.rules).unwrap_or_default();
        let ids = rules.into_iter().filter_map(|rule| rule.id).filter(|id| is_plain(id));
        ids.map(CompletionCandidate::new).chain([CompletionCandidate::new("none")]).collect()
    })
}

/// Names of the watched interfaces.
pub(super) fn interfaces() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let status = ask::<wire::Status>("/v1/status");
        let interfaces = status.map(|status| status.interfaces).unwrap_or_default();
        let names = interfaces.into_iter().map(|one| one.name).filter(|name| is_plain(name));
        names.map(CompletionCandidate::new).collect()
    })
}

/// Whether every shell takes a text for one word, and flowctl for no flag.
fn is_plain(text: &str) -> bool {
    let is_plain = |letter: char| letter.is_alphanumeric() || "-_.@:+,/=%".contains(letter);
    !text.is_empty() && text.chars().all(is_plain) && !text.starts_with(['-', '=', '@', '%'])
}

/// What the daemon says, if it does so at once.
fn ask<T: DeserializeOwned>(path: &str) -> Option<T> {
    let socket = socket(std::env::args().skip(1), std::env::var_os("FLOWD_SOCKET").map(Into::into));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let client = Client::new(&socket);
    runtime
        .block_on(async { tokio::time::timeout(PATIENCE, client.get(path, &[])).await.ok()?.ok() })
}

/// The socket that the unfinished line names, else that of the environment, else the usual one.
fn socket(words: impl Iterator<Item = String>, environment: Option<PathBuf>) -> PathBuf {
    let words: Vec<String> = words.collect();
    let behind = words.windows(2).rev().find(|pair| pair[0] == "--socket").map(|pair| &*pair[1]);
    let joined = words.iter().rev().find_map(|word| word.strip_prefix("--socket="));
    let named = behind.or(joined).filter(|path| !path.is_empty()).map(PathBuf::from);
    named.or(environment).unwrap_or_else(|| DEFAULT_SOCKET.into())
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use clap_complete::env::Shells;

    use super::{DEFAULT_SOCKET, SHELLS, Screen, is_plain, peer_candidate, register, socket};
    use crate::{ctl::output::Sink, flows::Identity, wire::Timestamp};

    #[test]
    fn every_shell_can_be_told() {
        let mut known: Vec<_> = Shells::builtins().names().collect();
        known.sort_unstable();
        assert_eq!(known, SHELLS);
        for shell in SHELLS {
            let sink = Sink::default();
            let mut screen = Screen::fixed(Box::new(sink.clone()), Timestamp(0), 80);
            register(&mut screen, shell).unwrap();
            assert!(sink.text().contains("COMPLETE"), "{shell}");
            assert!(sink.text().contains("flowctl"), "{shell}");
        }
    }

    #[test]
    fn the_daemon_that_is_asked_is_that_of_the_line() {
        let found = |line: &str, environment: Option<&str>| {
            socket(line.split(' ').map(str::to_owned), environment.map(PathBuf::from))
        };
        for (line, environment, expected) in [
            ("-- flowctl flows --peer ", None, DEFAULT_SOCKET),
            ("-- flowctl flows --peer ", Some("/e"), "/e"),
            ("-- flowctl --socket /a flows --peer ", Some("/e"), "/a"),
            ("-- flowctl flows --socket=/b --peer ", None, "/b"),
            ("-- flowctl --socket ", None, DEFAULT_SOCKET),
        ] {
            assert_eq!(found(line, environment), Path::new(expected), "{line}");
        }
    }
    #[test]
    fn what_a_shell_would_not_take_for_a_word_is_not_offered() {
        let plain = ["alice-laptop", "bob@example.com", "Jürgen.2", "wg0", "a/b+c=", "none"];
        let odd = ["", "a b", "a$(id)", "`id`", "a;id", "a|b", "a&b", "a>b", "a'b", "a\"b", "a\\b"];
        let more =
            ["-x", "=ls", "@x", "%1", "~root", "a*", "a?", "[a]", "{a,b}", "!1", "#a", "a\nb"];
        plain.iter().for_each(|word| assert!(is_plain(word), "{word}"));
        odd.iter().chain(&more).for_each(|word| assert!(!is_plain(word), "{word}"));
    }

    #[test]
    fn a_peer_with_an_odd_name_is_offered_by_its_key() {
        let public_key = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
        for (name, expected) in [("alice", "alice"), ("a$(id)", public_key), ("a b", public_key)] {
            let peer = Identity {
                public_key: public_key.to_owned(),
                name: name.to_owned(),
                user: None,
                device: None,
                groups: Vec::new(),
                endpoint: None,
            };
            let offered = peer_candidate(peer).unwrap();
            assert_eq!(offered.get_value().to_str(), Some(expected));
        }
    }
}
