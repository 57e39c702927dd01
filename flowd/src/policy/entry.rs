//! The entries of `from`, `to`, groups and resources.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use super::{
    Selector,
    file::Word,
    names::Names,
    problem::{Report, quoted},
};

/// An entry of `from` or `to`.
pub(super) fn selector(
    word: &Word<'_>,
    names: &Names<'_>,
    report: &mut Report<'_>,
) -> Option<Selector> {
    let text = word.text.as_ref();
    let selector = match text {
        "any" => Selector::Any,
        "gateway" => Selector::Gateway,
        "" => {
            report.add(word.at, "an entry is empty; leave it out");
            return None;
        }
        _ => match net(text) {
            Some(Ok(net)) => Selector::Net(net),
            Some(Err(problem)) => {
                let is_peer = names.peers(text).is_some_and(|peers| !peers.is_empty());
                let hint =
                    if is_peer { format!("; the peer is `peer:{text}`") } else { String::new() };
                report.add(word.at, &format!("{problem}{hint}"));
                return None;
            }
            None => named(text),
        },
    };
    if let Selector::Resource(name)
    | Selector::Peer(name)
    | Selector::User(name)
    | Selector::Group(name) = &selector
        && name.is_empty()
    {
        report.add(word.at, &format!("{} names nothing", quoted(text)));
        return None;
    }
    names.check(&selector, word.at, report);
    Some(selector)
}

/// An entry of a group.
pub(super) fn member(
    word: &Word<'_>,
    names: &Names<'_>,
    report: &mut Report<'_>,
) -> Option<Selector> {
    let member = selector(word, names, report)?;
    let remedy = match member {
        Selector::Peer(_) | Selector::User(_) | Selector::Group(_) => return Some(member),
        Selector::Any | Selector::Gateway => "write it into the rule itself",
        Selector::Net(_) => "put addresses into [resources]",
        Selector::Resource(_) => "write it into the rule itself",
    };
    let word_text = quoted(&word.text);
    report.add(
        word.at,
        &format!("{word_text} cannot be in a group, which holds peers, users and groups; {remedy}"),
    );
    None
}

/// An entry of a resource.
pub(super) fn address(word: &Word<'_>, report: &mut Report<'_>) -> Option<IpNet> {
    match net(&word.text).unwrap_or_else(|| Err(not_a_net(&word.text))) {
        Ok(net) => Some(net),
        Err(problem) => {
            report.add(word.at, &problem);
            None
        }
    }
}

fn named(text: &str) -> Selector {
    match text.split_once(':') {
        Some(("resource", name)) => Selector::Resource(name.to_owned()),
        Some(("user", name)) => Selector::User(name.to_owned()),
        Some(("group", name)) => Selector::Group(name.to_owned()),
        Some(("peer", name)) => Selector::Peer(name.to_owned()),
        _ => Selector::Peer(text.to_owned()),
    }
}

/// An address or prefix; `None`: the text does not look as if it were meant as one.
fn net(text: &str) -> Option<Result<IpNet, String>> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(Ok(ip.to_canonical().into()));
    }
    let Ok(net) = text.parse::<IpNet>() else {
        return looks_like_net(text).then(|| Err(not_a_net(text)));
    };
    let net = unmapped(net);
    if net.trunc() == net {
        return Some(Ok(net));
    }
    let (prefix, host) = (net.trunc(), IpNet::from(net.addr()));
    let text = quoted(text);
    Some(Err(format!("{text} has host bits set; did you mean {prefix} or {host}?")))
}

/// IPv4 that was written as mapped IPv6 becomes IPv4.
fn unmapped(net: IpNet) -> IpNet {
    const MAPPED_BITS: u8 = 96;
    let IpNet::V6(v6) = net else {
        return net;
    };
    let prefix_len = v6.prefix_len().checked_sub(MAPPED_BITS);
    let v4 = v6.addr().to_ipv4_mapped().zip(prefix_len);
    v4.and_then(|(addr, len)| Ipv4Net::new(addr, len).ok()).map_or(net, IpNet::V4)
}

/// Whether a text that is no address was probably meant as one. A peer of such a name needs
/// `peer:` before it.
fn looks_like_net(text: &str) -> bool {
    let is_ip = |text: &str| text.parse::<IpAddr>().is_ok();
    if let Some(end) = text.find(['/', '%'])
        && is_ip(&text[..end])
    {
        return true;
    }
    if let Some((first, last)) = text.split_once('-')
        && is_ip(first)
        && is_ip(last)
    {
        return true;
    }
    let of_addresses = |c: char| c.is_ascii_hexdigit() || matches!(c, '.' | ':' | '/');
    let begins_with_digit = text.starts_with(|c: char| c.is_ascii_digit());
    text.chars().all(of_addresses)
        && (text.contains(':')
            || (begins_with_digit
                && (text.contains(['.', '/']) || text.chars().all(|c| c.is_ascii_digit()))))
}

fn not_a_net(text: &str) -> String {
    let text = quoted(text);
    format!("{text} is neither an address nor a prefix such as 10.0.0.0/24 or fd00::/64")
}
