//! `protocols` and `ports`, as services.

use std::ops::RangeInclusive;

use super::{
    Service, Services,
    file::{RawRule, Word},
    problem::{Report, quoted},
};
use crate::{
    flows::{protocol_name, protocol_number},
    nearest::nearest,
};

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// TCP, UDP, DCCP, SCTP, UDP-Lite.
const WITH_PORTS: [u8; 5] = [6, 17, 33, 132, 136];

/// One entry of `protocols`.
struct Protocol {
    number: u8,
    icmp_type: Option<u8>,
}

/// What a rule speaks of; what is wrong with it is reported.
pub(super) fn services(rule: &RawRule<'_>, report: &mut Report<'_>) -> Services {
    let ports = rule.ports.as_ref().map(|words| {
        let ports = words.iter().filter_map(|word| told(word, port_range(&word.text), report));
        ports.collect::<Vec<_>>()
    });
    let Some(words) = &rule.protocols else {
        let Some(ports) = ports else {
            return Services::any();
        };
        return Services::of(WITH_PORTS.iter().flat_map(|number| each(*number, &ports)).collect());
    };
    let mut ranges = Vec::new();
    for word in words {
        let Some(protocol) = told(word, protocol(&word.text), report) else {
            continue;
        };
        match &ports {
            Some(ports) if WITH_PORTS.contains(&protocol.number) => {
                ranges.extend(each(protocol.number, ports));
            }
            Some(_) => {
                let text = quoted(&word.text);
                report.add(word.at, &format!("{text} has no ports; put it into a rule of its own"));
            }
            None => ranges.push(protocol.services()),
        }
        warn_of_reply(word, &protocol, report);
    }
    Services::of(ranges)
}

impl Protocol {
    fn services(&self) -> RangeInclusive<u32> {
        match self.icmp_type {
            Some(icmp_type) => {
                let service = Service::new(self.number, icmp_type.into()).0;
                service..=service
            }
            None => Services::protocol(self.number),
        }
    }
}

/// An echo reply belongs to the flow of its request, so a rule for it alone never matches.
fn warn_of_reply(word: &Word<'_>, protocol: &Protocol, report: &mut Report<'_>) {
    let request = match (protocol.number, protocol.icmp_type) {
        (ICMP, Some(0)) => "icmp:8",
        (ICMPV6, Some(129)) => "icmpv6:128",
        _ => return,
    };
    let text = quoted(&word.text);
    report.warn(
        word.at,
        &format!("{text} never matches: an echo reply counts as its request; write {request}"),
    );
}

fn protocol(text: &str) -> Result<Protocol, String> {
    let Some((name, icmp_type)) = text.split_once(':') else {
        let number = text.chars().all(char::is_alphanumeric).then(|| protocol_number(text));
        let number = number.flatten().ok_or_else(|| unknown_protocol(text))?;
        return Ok(Protocol { number, icmp_type: None });
    };
    let number = match name.to_ascii_lowercase().as_str() {
        "icmp" => ICMP,
        "icmpv6" => ICMPV6,
        other if protocol_number(other).is_some_and(|number| WITH_PORTS.contains(&number)) => {
            return Err(format!("{} is no protocol; write its port into `ports`", quoted(text)));
        }
        _ => {
            let text = quoted(text);
            return Err(format!("{text} is no protocol; only icmp and icmpv6 take a type"));
        }
    };
    let icmp_type = digits(icmp_type)
        .and_then(|icmp_type| u8::try_from(icmp_type).ok())
        .ok_or_else(|| format!("{} has no type that ICMP knows; it is 0 to 255", quoted(text)))?;
    Ok(Protocol { number, icmp_type: Some(icmp_type) })
}

fn unknown_protocol(text: &str) -> String {
    let names: Vec<_> = (0..=u8::MAX).map(protocol_name).collect();
    let names = names.iter().map(String::as_str).filter(|name| digits(name).is_none());
    let remedy = match nearest(&text.to_ascii_lowercase(), names) {
        _ if text == "any" => "leave `protocols` out to mean any".to_owned(),
        Some(near) => format!("did you mean `{near}`?"),
        None => "write a name such as tcp or a number from 0 to 255".to_owned(),
    };
    format!("unknown protocol {}; {remedy}", quoted(text))
}

fn port_range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (Some(first), Some(last)) = (digits(first), digits(last)) else {
        let remedy = match text {
            "any" => "leave `ports` out to mean any",
            _ => "write a number such as 22, or a range such as 8000-8100",
        };
        return Err(format!("{} is no port; {remedy}", quoted(text)));
    };
    let (Ok(first), Ok(last)) = (u16::try_from(first), u16::try_from(last)) else {
        return Err(format!("{} is no port; a port is 0 to 65535", quoted(text)));
    };
    if last < first {
        let text = quoted(text);
        return Err(format!("{text} ends before it begins; did you mean {last}-{first}?"));
    }
    Ok(first..=last)
}

/// A number of digits only; one too large for anything here is the largest there is.
fn digits(text: &str) -> Option<u32> {
    let are_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    are_digits.then(|| text.parse().unwrap_or(u32::MAX))
}

/// The services of one protocol with each of the ports.
fn each(number: u8, ports: &[RangeInclusive<u16>]) -> impl Iterator<Item = RangeInclusive<u32>> {
    let service = move |port: &u16| Service::new(number, *port).0;
    ports.iter().map(move |ports| service(ports.start())..=service(ports.end()))
}

fn told<T>(word: &Word<'_>, read: Result<T, String>, report: &mut Report<'_>) -> Option<T> {
    read.map_err(|problem| report.add(word.at, &problem)).ok()
}
