//! The names that people and their tools leave in comments of WireGuard configurations: `wg-quick`'s
//! `*.conf` and systemd-networkd's `*.netdev`. Text in, names by public key out; no file.
//!
//! Of a line that is no comment nothing is looked at but the name of a section and the value of
//! `PublicKey`, and a comment that holds something like a key names nobody: such files are full of
//! secrets, and none of them may get any further.
//!
//! Whose is a comment?
//! - inside a section, followed by another of its settings: that section's
//! - after a section's last setting: the next section's, as tools write above `[Peer]`
//! - the same, but an empty line or an end marker separates it from what follows: the section's
//!   before it, where nothing else names that one

use serde_json::Value;

use super::is_key;

/// Bytes that a name has at most.
pub(super) const MAX_BYTES: usize = 255;
/// Base64 of 32 bytes, less its padding.
const KEY_SYMBOLS: usize = 43;
/// The same in hexadecimal.
const KEY_DIGITS: usize = 64;

/// What comments say of one peer. At least one field says something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comment {
    /// What people call it.
    pub name: Option<String>,
    /// The person behind it.
    pub user: Option<String>,
    /// The machine.
    pub device: Option<String>,
    /// The groups it belongs to.
    pub groups: Vec<String>,
}

/// The peers that comments name, by public key, in the order of the text. A key may come twice.
pub fn parse(text: &str) -> Vec<(String, Comment)> {
    let mut parser = Parser { separated: true, ..Parser::default() };
    for line in text.trim_start_matches('\u{feff}').lines() {
        parser.line(line.trim());
    }
    parser.end_section();
    parser.found
}

/// What one comment is.
#[derive(Debug, PartialEq, Eq)]
enum Form {
    /// One of the forms in which tools and people name peers.
    Explicit(Comment),
    /// Words.
    Plain(String),
    /// `### end NAME ###` and its like: what follows is not about the section before.
    End,
    /// `#[Peer]`: a section that is switched off. What stood above it is about it.
    Section,
    /// A setting that is switched off, decoration, a secret.
    Nothing,
}

/// What some comments say together: of every kind, the last one.
#[derive(Default)]
struct Notes {
    explicit: Comment,
    plain: Option<String>,
}

/// A `[Peer]` section so far.
#[derive(Default)]
struct Peer {
    public_key: Option<String>,
    notes: Notes,
    /// Behind `[Peer]` or the key, on the same line.
    beside: Notes,
}

#[derive(Default)]
struct Parser {
    found: Vec<(String, Comment)>,
    /// `None` in other sections and before the first one.
    peer: Option<Peer>,
    /// Comments since the last setting, up to an empty line.
    near: Notes,
    /// Comments after that line.
    apart: Notes,
    /// Whether there was such a line. The start of the text is one.
    separated: bool,
}

impl Parser {
    fn line(&mut self, line: &str) {
        if line.is_empty() {
            self.separated = true;
        } else if line.starts_with(['#', ';']) {
            self.comment(form(line));
        } else if let Some((section, comment)) = line.strip_prefix('[').and_then(section) {
            self.section(section, comment);
        } else {
            self.setting(line);
        }
    }

    fn comment(&mut self, form: Form) {
        let waiting = if self.separated { &mut self.apart } else { &mut self.near };
        match form {
            Form::End => {
                self.separated = true;
                self.apart = Notes::default();
            }
            Form::Section => *waiting = Notes::default(),
            form => waiting.add(form),
        }
    }

    fn section(&mut self, name: &str, comment: &str) {
        if !self.separated {
            self.apart = std::mem::take(&mut self.near);
        }
        self.end_section();
        let above = std::mem::take(&mut self.apart);
        self.peer = is_peer(name).then(|| {
            let mut peer = Peer { notes: above, ..Peer::default() };
            peer.beside.add(form(comment));
            peer
        });
        self.separated = false;
    }

    fn setting(&mut self, line: &str) {
        let (near, apart) = (std::mem::take(&mut self.near), std::mem::take(&mut self.apart));
        self.separated = false;
        let Some(peer) = &mut self.peer else {
            return;
        };
        peer.notes.overrule(near);
        peer.notes.overrule(apart);
        let Some((key, value)) = line.split_once('=') else {
            return;
        };
        if key.trim_end().eq_ignore_ascii_case("PublicKey") {
            let (value, comment) = value.split_at(value.find('#').unwrap_or(value.len()));
            let value = value.trim();
            peer.public_key = is_key(value).then(|| value.to_owned());
            peer.beside.add(form(comment));
        }
    }

    fn end_section(&mut self) {
        let near = std::mem::take(&mut self.near);
        let Some(Peer { public_key: Some(public_key), mut notes, beside }) = self.peer.take()
        else {
            return;
        };
        notes.complete(beside);
        notes.complete(near);
        let Notes { explicit, plain } = notes;
        let comment = Comment { name: explicit.name.or(plain), ..explicit };
        if comment != Comment::default() {
            self.found.push((public_key, comment));
        }
    }
}

impl Notes {
    fn add(&mut self, form: Form) {
        match form {
            Form::Explicit(comment) => {
                self.overrule(Self { explicit: comment, plain: None });
            }
            Form::Plain(name) => self.plain = Some(name),
            Form::End | Form::Section | Form::Nothing => {}
        }
    }

    /// Takes from `later` what it says.
    fn overrule(&mut self, later: Self) {
        let before = std::mem::replace(self, later);
        self.complete(before);
    }

    /// Takes from `other` what is not said yet.
    fn complete(&mut self, other: Self) {
        let Self { explicit: Comment { name, user, device, groups }, plain } = other;
        let own = &mut self.explicit;
        own.name = own.name.take().or(name);
        own.user = own.user.take().or(user);
        own.device = own.device.take().or(device);
        if own.groups.is_empty() {
            own.groups = groups;
        }
        self.plain = self.plain.take().or(plain);
    }
}

/// The name and the rest of what follows a `[`.
fn section(line: &str) -> Option<(&str, &str)> {
    let (name, rest) = line.split_once(']')?;
    let rest = rest.trim_start();
    (rest.is_empty() || rest.starts_with(['#', ';'])).then_some((name.trim(), rest))
}

fn is_peer(section: &str) -> bool {
    ["Peer", "WireGuardPeer"].iter().any(|peer| section.eq_ignore_ascii_case(peer))
}

fn is_section(name: &str) -> bool {
    is_peer(name) || name.eq_ignore_ascii_case("Interface")
}

/// What a comment is; the empty one is nothing.
fn form(comment: &str) -> Form {
    let is_heading = comment.starts_with("###");
    let text = comment.trim_start_matches(is_decoration).trim();
    // PiVPN switches a peer off by this before each of its lines.
    let text = after(text, "[disabled]").unwrap_or(text).trim();
    if text.strip_prefix('[').and_then(section).is_some_and(|(name, _)| is_section(name)) {
        return Form::Section;
    }
    if let Some((key, value)) = assignment(text) {
        return of_assignment(key, value);
    }
    if let Some(name) = after(text, "Client:") {
        let without_id = name.strip_suffix(')').and_then(|name| name.rsplit_once(" ("));
        return explicit(without_id.map_or(name, |(name, _)| name));
    }
    let heading = text.trim_end_matches('#').trim_end();
    let words = || heading.split_whitespace();
    let (first, last) =
        (words().next().unwrap_or_default(), words().next_back().unwrap_or_default());
    let is = |word: &str, wanted: &str| word.eq_ignore_ascii_case(wanted);
    if is(first, "END_PEER") || (is_heading && is(first, "end")) {
        return Form::End;
    }
    if is(first, "BEGIN_PEER") || (is_heading && (is(first, "begin") || is(first, "Client"))) {
        return explicit(heading.get(first.len()..).unwrap_or_default());
    }
    if words().count() == 2 && is(last, "end") {
        return Form::End;
    }
    if words().count() == 2 && is(last, "start") {
        return explicit(first);
    }
    let words = clean(text).unwrap_or_default();
    let words = words.trim_end_matches(is_decoration);
    let is_said = words.contains(char::is_alphanumeric);
    if is_said { Form::Plain(words.to_owned()) } else { Form::Nothing }
}

fn is_decoration(c: char) -> bool {
    matches!(c, '#' | ';' | '-' | '=' | '*' | '~') || c.is_whitespace()
}

/// `KEY = VALUE`, or `Name: VALUE`.
fn assignment(text: &str) -> Option<(&str, &str)> {
    if let Some(value) = after(text, "Name:") {
        return Some(("name", value));
    }
    let (key, value) = text.split_once('=')?;
    let key = key.trim_end();
    let is_word = !key.is_empty()
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    is_word.then_some((key, value))
}

fn of_assignment(key: &str, value: &str) -> Form {
    if key.eq_ignore_ascii_case("name") || key.eq_ignore_ascii_case("friendly_name") {
        explicit(value)
    } else if key.eq_ignore_ascii_case("friendly_json") {
        serde_json::from_str(value).map_or(Form::Nothing, |json| Form::Explicit(of_json(&json)))
    } else {
        Form::Nothing
    }
}

fn of_json(json: &Value) -> Comment {
    let text = |key| json.get(key).and_then(Value::as_str).and_then(clean);
    let groups = json.get("groups").and_then(Value::as_array).map(Vec::as_slice);
    Comment {
        name: text("name"),
        user: text("user"),
        device: text("device"),
        groups: groups
            .unwrap_or_default()
            .iter()
            .filter_map(Value::as_str)
            .filter_map(clean)
            .collect(),
    }
}

fn explicit(name: &str) -> Form {
    match clean(name) {
        Some(name) => Form::Explicit(Comment { name: Some(name), ..Comment::default() }),
        None => Form::Nothing,
    }
}

/// What follows `prefix`, in upper or lower case.
fn after<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let start = text.get(..prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then(|| &text[prefix.len()..])
}

/// A name as flowd keeps it; `None`: it is none.
fn clean(text: &str) -> Option<String> {
    let printable: String = text.chars().filter(|c| !c.is_control()).collect();
    if may_be_secret(&printable) {
        return None;
    }
    let name = printable.trim();
    let name = &name[..name.floor_char_boundary(MAX_BYTES)];
    Some(name.trim_end().to_owned()).filter(|name| !name.is_empty())
}

/// Whether there is something like a key in `text`.
fn may_be_secret(text: &str) -> bool {
    let is_symbol = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/');
    let is_key = |run: &str| {
        let symbols = run.trim_end_matches('=');
        symbols.len() == KEY_SYMBOLS
            || (symbols.len() > KEY_SYMBOLS && symbols.len() < run.len())
            || (run.len() == KEY_DIGITS && run.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    text.split_inclusive(|c| !is_symbol(c))
        .any(|run| is_key(run.trim_end_matches(|c| !is_symbol(c) && c != '=')))
}

#[cfg(test)]
#[path = "comments_tests.rs"]
mod tests;
