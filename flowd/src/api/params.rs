//! Query parameters: read once, checked whole, refused by name.

use std::{
    net::{IpAddr, Ipv4Addr},
    str::FromStr,
};

use axum::{
    extract::{FromRequestParts, Path, Query},
    http::{Uri, request::Parts},
};
use ipnet::{IpNet, Ipv4Net};
use jiff::tz::TimeZone;

use super::error::ApiError;
use crate::{
    flows::{Decider, Filter, Initiator, Order, State, Tuple, Verdict, protocol_number},
    live::Position,
    seal::{Hash, PublicKey},
    size, when,
};

/// The filters, the same for every endpoint that takes them.
pub(super) const FILTERS: [&str; 17] = [
    "since",
    "until",
    "peer",
    "user",
    "src",
    "dst",
    "ip",
    "port",
    "src_port",
    "dst_port",
    "protocol",
    "verdict",
    "rule",
    "initiator",
    "interface",
    "min_bytes",
    "state",
];

/// Hashes that are taken at a time.
pub(super) const MOST_HASHES: usize = 16;

/// The parameters of one request, each at most once.
#[derive(Clone, Debug, Default)]
pub(super) struct Params(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        Self::in_uri(&parts.uri)
    }
}

/// The part of a path that names a thing.
#[derive(Clone, Debug)]
pub(super) struct Named(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(name)) => Ok(Self(name)),
            Err(_) => Err(ApiError::BadRequest("the path is no UTF-8 text".to_owned())),
        }
    }
}

impl Params {
    /// The parameters behind the `?` of a request's target.
    pub(super) fn in_uri(uri: &Uri) -> Result<Self, ApiError> {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|_| ApiError::BadRequest("the query string is malformed".to_owned()))?;
        for (index, (name, _)) in pairs.iter().enumerate() {
            if pairs[..index].iter().any(|(earlier, _)| earlier == name) {
                return Err(ApiError::BadRequest(format!(
                    "`{}` is given twice; give it once",
                    name.escape_debug()
                )));
            }
        }
        Ok(Self(pairs))
    }

    #[cfg(test)]
    pub(super) fn of(pairs: &[(&str, &str)]) -> Self {
        Self(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    /// Refuses every parameter that is not in `known`.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), ApiError> {
        let Some((unknown, _)) = self.0.iter().find(|(name, _)| !known.contains(&name.as_str()))
        else {
            return Ok(());
        };
        let nearest = known
            .iter()
            .map(|known| (strsim::damerau_levenshtein(unknown, known), *known))
            .filter(|(distance, known)| *distance <= known.len().max(unknown.len()) / 2)
            .min();
        let remedy = match nearest {
            Some((_, nearest)) => format!("did you mean `{nearest}`?"),
            None if known.is_empty() => "this endpoint takes none".to_owned(),
            None => format!("known here are {}", known.join(", ")),
        };
        Err(ApiError::BadRequest(format!(
            "unknown parameter `{}`; {remedy}",
            unknown.escape_debug()
        )))
    }

    /// All of them, as they were given.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The filters; everything else must be in `more`.
    pub(super) fn filter(&self, more: &[&str], now_ms: i64) -> Result<Filter, ApiError> {
        let known: Vec<&str> = FILTERS.iter().chain(more).copied().collect();
        self.only(&known)?;
        let (since_ms, until_ms) = self.range(now_ms)?;
        Ok(Filter {
            since_ms,
            until_ms,
            peer: self.peer()?,
            user: self.read("user", "the user of a peer, as in peers.toml", |text| {
                (!text.is_empty()).then(|| text.to_owned())
            })?,
            src: self.network("src")?,
            dst: self.network("dst")?,
            ip: self.network("ip")?,
            port: self.port("port")?,
            src_port: self.port("src_port")?,
            dst_port: self.port("dst_port")?,
            protocol: self.read(
                "protocol",
                "a name such as tcp, udp or icmp, or a number from 0 to 255",
                protocol_number,
            )?,
            verdict: self.read("verdict", "`allow` or `deny`", Verdict::from_word)?,
            rule: self.read(
                "rule",
                "the id of a rule, or `none` for what no rule decided",
                |text| match text {
                    "" => None,
                    "none" => Some(Decider::Nobody),
                    id => Some(Decider::Rule(id.to_owned())),
                },
            )?,
            initiator: self.read(
                "initiator",
                "`peer`, `remote` or `unknown`",
                Initiator::from_word,
            )?,
            interface: self.read("interface", "the name of an interface, such as wg0", |text| {
                (!text.is_empty()).then(|| text.to_owned())
            })?,
            min_bytes: self.read("min_bytes", "a size such as 1500, 10kB or 1.5GB", size::bytes)?,
            state: self.read("state", "`open` or `closed`", |text| match text {
                "open" => Some(State::Open),
                "closed" => Some(State::Closed),
                _ => None,
            })?,
        })
    }

    /// The time range, in Unix milliseconds.
    pub(super) fn range(&self, now_ms: i64) -> Result<(Option<i64>, Option<i64>), ApiError> {
        let instant = |text: &str| when::parse(text, now_ms, &TimeZone::UTC);
        let since_ms = self.read("since", when::ACCEPTED, instant)?;
        let until_ms = self.read("until", when::ACCEPTED, instant)?;
        if let (Some(since), Some(until)) = (since_ms, until_ms)
            && since >= until
        {
            return Err(ApiError::Senseless(
                "`since` is not before `until`; exchange them".to_owned(),
            ));
        }
        Ok((since_ms, until_ms))
    }

    /// What names a peer.
    pub(super) fn peer(&self) -> Result<Option<String>, ApiError> {
        self.read(
            "peer",
            "a peer's name, its public key, or the first four or more characters of it",
            |text| (!text.is_empty()).then(|| text.to_owned()),
        )
    }

    /// A port.
    pub(super) fn port(&self, name: &str) -> Result<Option<u16>, ApiError> {
        self.read(name, "a number from 0 to 65535", digits)
    }

    fn network(&self, name: &str) -> Result<Option<IpNet>, ApiError> {
        self.read(name, "an address such as 10.8.0.2, or a prefix such as 10.8.0.0/24", |text| {
            let host = || IpAddr::from_str(text).ok().map(IpNet::from);
            IpNet::from_str(text).ok().or_else(host).map(|net| unmapped(net.trunc()))
        })
    }

    /// Which end comes first.
    pub(super) fn order(&self) -> Result<Option<Order>, ApiError> {
        self.read("order", "`desc` or `asc`", Order::from_word)
    }

    /// The number of items at most, from 1 to `max`.
    pub(super) fn limit(&self, max: usize) -> Result<Option<usize>, ApiError> {
        self.read("limit", &format!("a number from 1 to {max}"), |text| {
            digits(text).filter(|limit| (1..=max).contains(limit))
        })
    }

    /// What a page before gave: a text that is none was understood, and leads nowhere.
    pub(super) fn cursor<T>(
        &self,
        accepted: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        self.read("cursor", accepted, parse).map_err(|error| match error {
            ApiError::BadRequest(text) if self.get("cursor") != Some("") => {
                ApiError::Senseless(text)
            }
            other => other,
        })
    }

    /// Public keys, with commas between them.
    pub(super) fn keys(&self) -> Result<Option<Vec<PublicKey>>, ApiError> {
        let Some(keys) = self.hashes("key")? else { return Ok(None) };
        let key = |Hash(bytes): Hash| {
            PublicKey::from_bytes(bytes).map_err(|error| {
                // It looks like one, and is none.
                ApiError::Senseless(format!("`key` has {}: {error}", Hash(bytes)))
            })
        };
        keys.into_iter().map(key).collect::<Result<Vec<_>, _>>().map(Some)
    }

    /// Numbers of 32 bytes, with commas between them.
    pub(super) fn hashes(&self, name: &str) -> Result<Option<Vec<Hash>>, ApiError> {
        let accepted = format!("64 digits of 0 to 9 and a to f, or up to {MOST_HASHES} such");
        self.read(name, &accepted, |text| {
            let hashes: Option<Vec<Hash>> = text.split(',').map(|one| one.parse().ok()).collect();
            hashes.filter(|hashes| hashes.len() <= MOST_HASHES)
        })
    }

    /// A parameter, or a refusal that says what it may be.
    pub(super) fn read<T>(
        &self,
        name: &str,
        accepted: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        parse(text).map(Some).ok_or_else(|| {
            ApiError::BadRequest(format!(
                "`{name}` is `{}`; it must be {accepted}",
                text.escape_debug()
            ))
        })
    }
}

/// An IPv4 prefix that is written as one of IPv6 is the IPv4 one: records have no other.
fn unmapped(net: IpNet) -> IpNet {
    let IpAddr::V4(addr) = net.addr().to_canonical() else { return net };
    let spare = net.max_prefix_len() - Ipv4Addr::BITS as u8;
    let len = net.prefix_len().checked_sub(spare);
    len.and_then(|len| Ipv4Net::new(addr, len).ok()).map_or(net, IpNet::from)
}

/// A number without a sign, which `parse` would take.
pub(super) fn digits<T: FromStr>(text: &str) -> Option<T> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok())?
}

/// What is accepted where there is a list of words.
pub(super) fn one_of(words: &[&str]) -> String {
    format!("one of {}", words.join(", "))
}

/// What is accepted as `cursor`.
pub(super) const CURSOR: &str = "the `next_cursor` of the page before, unchanged";

/// A position as text: nothing in it is secret, and a changed one is only another position.
pub(super) fn cursor(position: &Position) -> String {
    let Position { first_seen_ms, interface, tuple, overflow } = position;
    let Tuple { protocol, peer_addr, remote_addr, peer_port, remote_port } = tuple;
    format!(
        "{first_seen_ms}~{protocol}~{peer_addr}~{peer_port}~{remote_addr}~{remote_port}~{}~{interface}",
        u8::from(*overflow)
    )
}

/// The position behind a cursor.
pub(super) fn parse_cursor(text: &str) -> Option<Position> {
    let mut parts = text.splitn(8, '~');
    let position = Position {
        first_seen_ms: parts.next()?.parse().ok()?,
        tuple: {
            let protocol = parts.next()?.parse().ok()?;
            let peer_addr = parts.next()?.parse().ok()?;
            let peer_port = parts.next()?.parse().ok()?;
            let remote_addr = parts.next()?.parse().ok()?;
            let remote_port = parts.next()?.parse().ok()?;
            Tuple { protocol, peer_addr, remote_addr, peer_port, remote_port }
        },
        overflow: match parts.next()? {
            "0" => false,
            "1" => true,
            _ => return None,
        },
        interface: parts.next()?.to_owned(),
    };
    Some(position)
}

#[cfg(test)]
mod tests {
    use super::{Params, Position, cursor, parse_cursor};
    use crate::flows::Tuple;

    #[test]
    fn what_cannot_be_understood_is_refused_by_name() {
        let cases = [
            (("since", "tomorrow-ish"), "`since` is `tomorrow-ish`; it must be RFC 3339"),
            (("until", ""), "`until` is ``; it must be"),
            (("src", "10.0.0"), "`src` is `10.0.0`; it must be an address"),
            (("dst", "10.0.0.0/33"), "`dst` is `10.0.0.0/33`"),
            (("ip", "::g"), "`ip` is `::g`"),
            (("port", "70000"), "`port` is `70000`; it must be a number from 0 to 65535"),
            (("protocol", "tpc"), "`protocol` is `tpc`"),
            (("src_port", "https"), "`src_port` is `https`; it must be a number from 0 to 65535"),
            (("dst_port", "+1"), "`dst_port` is `+1`; it must be a number from 0 to 65535"),
            (("initiator", "me"), "`initiator` is `me`; it must be `peer`, `remote` or `unknown`"),
            (("interface", ""), "`interface` is ``; it must be the name of an interface"),
            (("min_bytes", "10 mb"), "`min_bytes` is `10 mb`; it must be a size such as 1500"),
            (("state", "half-open"), "`state` is `half-open`; it must be `open` or `closed`"),
            (("peer", ""), "`peer` is ``"),
            (("user", ""), "`user` is ``; it must be the user of a peer"),
            (("verdict", "denied"), "`verdict` is `denied`; it must be `allow` or `deny`"),
            (("rule", ""), "`rule` is ``; it must be the id of a rule, or `none`"),
            (("sicne", "1h"), "unknown parameter `sicne`; did you mean `since`?"),
            (("colour", "red"), "unknown parameter `colour`; known here are since, until"),
        ];
        for (pair, expected) in cases {
            let told = Params::of(&[pair]).filter(&[], 0).unwrap_err().to_string();
            assert!(told.starts_with(expected), "{pair:?} -> {told}");
            assert_eq!(told.lines().count(), 1);
        }
        let backwards = Params::of(&[("since", "1h"), ("until", "2h")]);
        assert!(backwards.filter(&[], 0).unwrap_err().to_string().contains("not before"));
    }

    #[test]
    fn an_address_is_the_same_however_it_is_written() {
        let cases = [
            ("10.8.0.2", "10.8.0.2/32"),
            ("10.8.0.2/24", "10.8.0.0/24"),
            ("::ffff:10.8.0.2", "10.8.0.2/32"),
            ("::ffff:10.8.0.2/120", "10.8.0.0/24"),
            ("::ffff:0.0.0.0/96", "0.0.0.0/0"),
            ("::ffff:10.8.0.2/95", "::fffe:0:0/95"),
            ("::/0", "::/0"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("FD00:0::1/64", "fd00::/64"),
        ];
        for (text, expected) in cases {
            let filter = Params::of(&[("src", text)]).filter(&[], 0).unwrap();
            assert_eq!(filter.src, Some(expected.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn a_cursor_survives_the_round_trip_and_a_broken_one_is_refused() {
        let position = Position {
            first_seen_ms: -5,
            interface: "wg~0".to_owned(),
            tuple: Tuple {
                protocol: 6,
                peer_addr: "::ffff:10.8.0.2".parse().unwrap(),
                remote_addr: "fd00::1".parse().unwrap(),
                peer_port: 40_000,
                remote_port: 443,
            },
            overflow: true,
        };
        let text = cursor(&position);
        assert_eq!(parse_cursor(&text), Some(position));
        for broken in ["", "x", "1~2~3", &text[1..text.len() - 8], "1~6~::~1~::~2~2~wg0"] {
            assert_eq!(parse_cursor(broken), None, "{broken}");
        }
    }
}
