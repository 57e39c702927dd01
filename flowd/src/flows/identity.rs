//! Who a peer is: the key, and what people call it.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A peer as it was known at one time. Records point to it and never change with it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct Identity {
    /// The WireGuard public key in base64.
    pub public_key: String,
    /// What people call the peer; the short public key where nobody named it.
    pub name: String,
    /// The person behind it.
    pub user: Option<String>,
    /// The machine.
    pub device: Option<String>,
    /// The groups it belongs to.
    pub groups: Vec<String>,
    /// The outer address that WireGuard talks to.
    #[schema(value_type = Option<String>)]
    pub endpoint: Option<SocketAddr>,
}

impl Identity {
    /// The name of a peer that nobody named: enough of its key to tell it apart.
    pub fn short_key(public_key: &str) -> String {
        public_key.chars().take(8).collect()
    }

    /// Whether `wanted` means this peer: its name, its public key, or the start of the key (at
    /// least four characters).
    pub fn is(&self, wanted: &str) -> bool {
        self.name == wanted || (wanted.len() >= 4 && self.public_key.starts_with(wanted))
    }
}
