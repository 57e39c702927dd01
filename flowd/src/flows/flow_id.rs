//! The name of a flow: computed from stored columns, so that it costs no disk and every reader and
//! every restart derives the same one.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Tuple;

/// UUIDv7 (RFC 9562, section 5.7): the first-seen millisecond, then a hash of gateway, interface,
/// endpoints and first-seen.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(transparent)]
#[schema(value_type = String, format = "uuid")]
pub struct FlowId(pub Uuid);

impl FlowId {
    /// Derives the name of a flow. `first_seen_ms` is in Unix milliseconds.
    pub fn new(gateway: &str, interface: &str, tuple: &Tuple, first_seen_ms: i64) -> Self {
        let Tuple { protocol, peer_addr, remote_addr, peer_port, remote_port } = tuple;
        let mut hash = Sha256::new();
        for name in [gateway, interface] {
            hash.update((name.len() as u64).to_be_bytes());
            hash.update(name);
        }
        hash.update([*protocol]);
        hash.update(peer_addr.octets());
        hash.update(remote_addr.octets());
        hash.update(peer_port.to_be_bytes());
        hash.update(remote_port.to_be_bytes());
        hash.update(first_seen_ms.to_be_bytes());
        let digest = hash.finalize();

        let mut random = [0_u8; 10];
        random.copy_from_slice(&digest[..10]);
        let millis = u64::try_from(first_seen_ms).unwrap_or(0);
        Self(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
    }

    /// The first-seen millisecond that the name carries.
    pub fn first_seen_ms(&self) -> i64 {
        let bytes = self.0.as_bytes();
        bytes[..6].iter().fold(0_i64, |millis, byte| millis << 8 | i64::from(*byte))
    }
}

impl fmt::Display for FlowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for FlowId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::{FlowId, Tuple};

    fn tuple() -> Tuple {
        Tuple {
            protocol: 6,
            peer_addr: "::ffff:10.8.0.2".parse().unwrap(),
            remote_addr: "::ffff:10.0.0.1".parse().unwrap(),
            peer_port: 40_000,
            remote_port: 443,
        }
    }

    #[test]
    fn the_name_is_a_version_7_uuid_that_carries_the_time() {
        let id = FlowId::new("gw", "wg0", &tuple(), 1_795_233_600_123);
        assert_eq!(id.0.get_version_num(), 7);
        assert_eq!(id.first_seen_ms(), 1_795_233_600_123);
        assert_eq!(id.to_string().parse::<FlowId>().unwrap(), id);
    }

    #[test]
    fn every_part_of_the_flow_is_in_the_name() {
        let base = FlowId::new("gw", "wg0", &tuple(), 5);
        let mut others = vec![
            FlowId::new("gw2", "wg0", &tuple(), 5),
            FlowId::new("gw", "wg1", &tuple(), 5),
            FlowId::new("gww", "g0", &tuple(), 5),
            FlowId::new("gw", "wg0", &tuple(), 6),
        ];
        for change in [
            |t: &mut Tuple| t.protocol = 17,
            |t: &mut Tuple| t.peer_port = 1,
            |t: &mut Tuple| t.remote_port = 1,
            |t: &mut Tuple| std::mem::swap(&mut t.peer_addr, &mut t.remote_addr),
        ] {
            let mut other = tuple();
            change(&mut other);
            others.push(FlowId::new("gw", "wg0", &other, 5));
        }
        assert_eq!(FlowId::new("gw", "wg0", &tuple(), 5), base);
        assert!(others.iter().all(|other| *other != base));
    }
}
