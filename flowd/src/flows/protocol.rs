//! IANA protocol numbers and their names.

/// Those that people write by name; every other protocol goes by its number.
const NAMES: &[(u8, &str)] = &[
    (1, "icmp"),
    (2, "igmp"),
    (4, "ipip"),
    (6, "tcp"),
    (17, "udp"),
    (33, "dccp"),
    (41, "ipv6"),
    (47, "gre"),
    (50, "esp"),
    (51, "ah"),
    (58, "icmpv6"),
    (89, "ospf"),
    (103, "pim"),
    (112, "vrrp"),
    (115, "l2tp"),
    (132, "sctp"),
    (136, "udplite"),
];

/// The name of a protocol, its number where it has no common one.
pub fn protocol_name(number: u8) -> String {
    NAMES
        .iter()
        .find(|(known, _)| *known == number)
        .map_or_else(|| number.to_string(), |(_, name)| (*name).to_owned())
}

/// The keyword of a protocol in IANA's list, in lower case, where it has a common name.
pub fn protocol_keyword(number: u8) -> Option<&'static str> {
    match number {
        4 => Some("ipv4"),
        58 => Some("ipv6-icmp"),
        89 => Some("ospfigp"),
        _ => NAMES.iter().find(|(known, _)| *known == number).map(|(_, name)| *name),
    }
}

/// Every name that a protocol has.
pub fn protocol_names() -> impl Iterator<Item = &'static str> {
    NAMES.iter().map(|(_, name)| *name)
}

/// The number of a protocol given by name, in any case, or by number.
pub fn protocol_number(text: &str) -> Option<u8> {
    let name = text.to_ascii_lowercase();
    // `parse` would take a sign.
    let number = || name.parse().ok().filter(|_| !name.starts_with('+'));
    NAMES.iter().find(|(_, known)| *known == name).map_or_else(number, |(number, _)| Some(*number))
}

#[cfg(test)]
mod tests {
    use super::{protocol_keyword, protocol_name, protocol_number};

    #[test]
    fn keywords_are_those_of_iana() {
        let cases = [(6, Some("tcp")), (4, Some("ipv4")), (58, Some("ipv6-icmp")), (253, None)];
        for (number, keyword) in cases {
            assert_eq!(protocol_keyword(number), keyword);
        }
    }

    #[test]
    fn every_number_survives_the_round_trip() {
        for number in 0..=u8::MAX {
            assert_eq!(protocol_number(&protocol_name(number)), Some(number));
        }
    }

    #[test]
    fn names_are_read_in_any_case_and_nonsense_is_refused() {
        for (text, number) in [
            ("TCP", Some(6)),
            ("icmpv6", Some(58)),
            ("253", Some(253)),
            ("+6", None),
            ("256", None),
            ("", None),
        ] {
            assert_eq!(protocol_number(text), number, "{text}");
        }
    }
}
