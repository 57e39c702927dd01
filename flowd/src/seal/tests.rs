//! The bytes of the format, which never change.

use std::num::NonZeroU32;

use super::{
    Break, Chain, Content, FORMAT, Hash, Named, PrivateKey, RANGE_IDS, Section, Statement, Value,
    What, hash, identity, range_ids,
};
use crate::{
    chunk::Row,
    flows::{Counters, EndReason, Icmp, Identity, Initiator, TcpFlags, Tuple, Verdict},
};

fn row(record_id: u64) -> Row {
    Row {
        record_id,
        interface: 1,
        peer: NonZeroU32::new(1),
        remote_peer: None,
        peer_resource: None,
        remote_resource: NonZeroU32::new(7),
        rule: NonZeroU32::new(3),
        tuple: Tuple {
            protocol: 1,
            peer_addr: "::ffff:10.8.0.2".parse().unwrap(),
            remote_addr: "fd00::1".parse().unwrap(),
            peer_port: 40_000,
            remote_port: 443,
        },
        window_start_ms: -1,
        window_end_ms: 60_000,
        first_seen_ms: 2,
        last_seen_ms: 3,
        initiator: Initiator::Remote,
        icmp: Some(Icmp { r#type: 8, code: 0 }),
        verdict: Verdict::Deny,
        enforced: true,
        policy_revision: 5,
        counters: Counters { rx_packets: 1, rx_bytes: 2, tx_packets: 3, tx_bytes: 4 },
        total: Counters { rx_packets: 5, rx_bytes: 6, tx_packets: 7, tx_bytes: 8 },
        tcp_flags: TcpFlags { rx: 0x12, tx: 0x34 },
        end_reason: Some(EndReason::Rst),
        overflow: false,
    }
}

fn peer() -> Identity {
    Identity {
        public_key: "key=".to_owned(),
        name: "alice".to_owned(),
        user: None,
        device: Some("laptop".to_owned()),
        groups: vec!["ops".to_owned(), "eu".to_owned()],
        endpoint: Some("[2001:db8::1]:51820".parse().unwrap()),
    }
}

fn named() -> Named<'static> {
    Named {
        interface: "wg0",
        peer: Some(identity(&peer())),
        remote_resource: Some("db"),
        rule: Some("ops"),
        ..Named::default()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A file of statements under one key, each with its time.
pub(crate) fn chain(key: &PrivateKey, said: &[(i64, What)]) -> String {
    let mut previous = Hash::default();
    let line = |(number, (at_ms, what)): (u64, &(i64, What))| {
        let statement = Statement {
            format: FORMAT,
            number,
            at_ms: *at_ms,
            gateway: "gw".to_owned(),
            key: key.public(),
            previous,
            what: what.clone(),
        };
        let (line, hash) = statement.signed(key);
        previous = hash;
        format!("{line}\n")
    };
    (1..).zip(said).map(line).collect()
}

/// As `docs/sealed.md` has it, field by field.
#[test]
fn a_record_is_these_bytes() {
    let mut out = Vec::new();
    super::encode::record(&mut out, &row(9), &named());
    let expected = [
        "0000000000000009",
        "00000003776730",
        "01",
        "00000000000000000000ffff0a080002",
        "fd000000000000000000000000000001",
        "9c40",
        "01bb",
        "ffffffffffffffff",
        "000000000000ea60",
        "0000000000000002",
        "0000000000000003",
        "02",
        "010800",
        &format!("01{}", identity(&peer())),
        "00",
        "00",
        "01000000026462",
        "01000000036f7073",
        "0101",
        "00000005",
        "0000000000000001000000000000000200000000000000030000000000000004",
        "0000000000000005000000000000000600000000000000070000000000000008",
        "1234",
        "0102",
        "00",
    ];
    assert_eq!(hex(&out), expected.concat());
}

#[test]
fn a_peer_is_the_hash_of_these_bytes() {
    let text = |text: &str| [&(text.len() as u32).to_be_bytes(), text.as_bytes()].concat();
    let bytes = [
        b"flowd identity 1\n".to_vec(),
        text("key="),
        text("alice"),
        vec![0, 1],
        text("laptop"),
        vec![0, 0, 0, 2],
        text("ops"),
        text("eu"),
        vec![1],
        text("[2001:db8::1]:51820"),
    ];
    assert_eq!(identity(&peer()), Hash::of(&bytes.concat()));
}

#[test]
fn ranges_are_by_quotient_and_few() {
    let cases = [
        // first, last, ids of a range
        (1, 1, RANGE_IDS),
        (1, 256 * RANGE_IDS, RANGE_IDS),
        (1, 256 * RANGE_IDS + 1, 2 * RANGE_IDS),
        (5_000_000_000, 5_010_000_000, 65_536),
    ];
    for (first, last, expected) in cases {
        assert_eq!(range_ids((first, last)), expected, "{first} to {last}");
    }
    let mut content = Content::new(Some((4_094, 4_098)), RANGE_IDS);
    for id in 4_094..=4_098 {
        content.record(&row(id), &named());
    }
    let contents = content.done();
    let of = |ids: [u64; 3], count| {
        let mut out = Vec::new();
        ids[..count].iter().for_each(|id| super::encode::record(&mut out, &row(*id), &named()));
        Hash::of(&out)
    };
    assert_eq!(contents.ranges, [of([4_094, 4_095, 0], 2), of([4_096, 4_097, 4_098], 3)]);
    assert_eq!((contents.records, contents.counters.tx_bytes), (5, 20));
    assert!(contents.holes.is_empty() && contents.outside.is_none());
}

#[test]
fn rows_of_a_section_are_sorted_and_told_apart() {
    let seal = |rows: &[&[Value<'static>]]| {
        let mut section = Section::default();
        rows.iter().for_each(|row| section.row(row.iter().copied()));
        section.seal()
    };
    let (a, b) = ([Value::Integer(1), Value::Text("x")], [Value::Null, Value::Text("")]);
    assert_eq!(seal(&[&a, &b]), seal(&[&b, &a]));
    let bytes = "00000006000200000000\
                 0000000f01000000000000000102000000 0178"
        .replace(' ', "");
    let bytes: Vec<u8> = (0..bytes.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&bytes[at..at + 2], 16).unwrap())
        .collect();
    assert_eq!(seal(&[&a, &b]).sha256, Hash::of(&bytes));
}

/// The key, the line and the signature of RFC 8032's first key.
#[test]
fn a_statement_is_this_line() {
    let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    let seed: Hash = seed.parse().unwrap();
    let key = PrivateKey::from_seed(&seed.0);
    let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    assert_eq!(key.public().to_string(), public);
    assert!(!format!("{key:?}").contains("9d61"), "a key is shown nowhere");
    let statement = Statement {
        format: FORMAT,
        number: 1,
        at_ms: 5,
        gateway: "gw".to_owned(),
        key: key.public(),
        previous: Hash::default(),
        what: What::Key,
    };
    let (line, hash) = statement.signed(&key);
    let (said, signature) = line.split_once('\t').unwrap();
    let zeros = Hash::default();
    let expected = format!(
        "{{\"format\":1,\"number\":1,\"at_ms\":5,\"gateway\":\"gw\",\"key\":\"{public}\",\
         \"previous\":\"{zeros}\",\"what\":\"key\"}}"
    );
    assert_eq!(said, expected);
    let message = format!("flowd seal 1\n{said}");
    assert_eq!(hash, Hash::of(message.as_bytes()));
    let signature = hash::bytes(signature).unwrap();
    assert!(key.public().has_signed(message.as_bytes(), &signature));
    assert!(!key.public().has_signed(said.as_bytes(), &signature));
    let chain = Chain::read(format!("{line}\n").as_bytes());
    assert_eq!((chain.head, chain.breaks.len(), chain.key()), ((1, hash), 0, Some(key.public())));
    assert_eq!(chain.proven(&[key.public()]), [true]);
    assert_eq!(Chain::read(b"nonsense\n").breaks, [Break::Unreadable(1)]);
}

/// The same key, after it said which one it is.
#[test]
fn what_is_said_of_the_audit_log_is_this_line() {
    let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    let key = PrivateKey::from_seed(&seed.parse::<Hash>().unwrap().0);
    let audit = What::Audit { sequence: 1_204, hash: Hash::of(b"abc") };
    let text = chain(&key, &[(5, What::Key), (7, audit.clone())]);
    assert_eq!(
        text.lines().nth(1).unwrap(),
        "{\"format\":1,\"number\":2,\"at_ms\":7,\"gateway\":\"gw\",\
         \"key\":\"d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a\",\
         \"previous\":\"116df615e1feb1296b3ca4bd73f05ed63ef42e9cea020f5f7e4c745bdeed7f38\",\
         \"what\":{\"audit\":{\"sequence\":1204,\
         \"hash\":\"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"}}}\t\
         e7cd4680d9cf952ba344e225002e049112810324b3a805c8e24f8c5effeb4b12\
         5bbe13f8ed3132508515002c13bb2702e9bc30fe478f161743a87ad9d1d87501"
    );
    let read = Chain::read(text.as_bytes());
    assert_eq!((read.breaks.len(), &read.links[1].statement.what), (0, &audit));
    assert_eq!(read.proven(&[key.public()]), [true, true]);
    // A kind of statement that this version does not know is no statement.
    let newer = text.replace("\"audit\"", "\"wisdom\"");
    assert_eq!(Chain::read(newer.as_bytes()).breaks, [Break::Unreadable(2)]);
}

#[test]
fn a_hash_is_written_as_it_is_read() {
    let hash = Hash::of(b"abc");
    let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!((hash.to_string().as_str(), text.parse()), (text, Ok(hash)));
    for wrong in ["", "ba78", &text.replace('b', "g"), &"é".repeat(32)] {
        assert_eq!(wrong.parse::<Hash>(), Err(hash::NotHex), "{wrong}");
    }
}
