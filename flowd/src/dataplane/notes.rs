//! What a daemon tells the next one, in tables that live as long as the flows do.

use std::{collections::HashSet, hash::Hash};

use aya::maps::{Array, HashMap, Map, MapData, MapError};
use bytemuck::Pod;
use flowd_common::{
    memory::{Anchor, InterfaceNote, PeerNote},
    peer::PeerId,
};

use super::{DataplaneError, Tables, error::os_error, old::OldTable};

/// What the daemon before noted.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    /// Whom the numbers stand for.
    pub peers: Vec<(PeerId, PeerNote)>,
    /// Interfaces by number.
    pub interfaces: Vec<(u32, InterfaceNote)>,
    /// The revision of the policy in an epoch.
    pub epochs: Vec<(u32, u32)>,
    /// Where the wall clock stood.
    pub anchors: Vec<(u32, Anchor)>,
}

impl Notes {
    /// Reads those of tables that a daemon has used.
    pub fn read(tables: &Tables) -> Result<Self, DataplaneError> {
        let mut notes = Self::default();
        all(tables, "PEERS", &mut notes.peers)?;
        all(tables, "INTERFACES", &mut notes.interfaces)?;
        all(tables, "EPOCHS", &mut notes.epochs)?;
        all(tables, "ANCHORS", &mut notes.anchors)?;
        notes.anchors.retain(|(_, anchor): &(u32, Anchor)| *anchor != Anchor::default());
        Ok(notes)
    }

    /// Adds what `older` says of what this one says nothing of.
    pub fn fill_up(&mut self, older: &Self) {
        fn fill<K: Copy + Eq + Hash, V: Clone>(notes: &mut Vec<(K, V)>, older: &[(K, V)]) {
            let known: HashSet<K> = notes.iter().map(|(key, _)| *key).collect();
            notes.extend(older.iter().filter(|(key, _)| !known.contains(key)).cloned());
        }
        fill(&mut self.peers, &older.peers);
        fill(&mut self.interfaces, &older.interfaces);
        fill(&mut self.epochs, &older.epochs);
        fill(&mut self.anchors, &older.anchors);
    }
}

/// Where the daemon writes its own.
pub struct Notebook {
    peers: HashMap<MapData, PeerId, PeerNote>,
    interfaces: HashMap<MapData, u32, InterfaceNote>,
    epochs: HashMap<MapData, u32, u32>,
    anchors: Array<MapData, Anchor>,
}

impl Notebook {
    pub(super) fn new(peers: Map, interfaces: Map, epochs: Map, anchors: Map) -> Self {
        Self {
            peers: HashMap::try_from(peers).expect("PEERS is a hash of these types"),
            interfaces: HashMap::try_from(interfaces).expect("INTERFACES is a hash of these types"),
            epochs: HashMap::try_from(epochs).expect("EPOCHS is a hash of these types"),
            anchors: Array::try_from(anchors).expect("ANCHORS is an array of these types"),
        }
    }

    /// Notes whom a number stands for, before any flow bears it.
    pub fn peer(&mut self, id: PeerId, note: &PeerNote) -> Result<(), DataplaneError> {
        self.peers.insert(id, note, 0).map_err(write)
    }

    /// Forgets a number that no flow bears any more.
    pub fn forget_peer(&mut self, id: PeerId) -> Result<(), DataplaneError> {
        gone(self.peers.remove(&id))
    }

    /// Notes an interface.
    pub fn interface(&mut self, ifindex: u32, note: &InterfaceNote) -> Result<(), DataplaneError> {
        self.interfaces.insert(ifindex, note, 0).map_err(write)
    }

    /// Forgets an interface.
    pub fn forget_interface(&mut self, ifindex: u32) -> Result<(), DataplaneError> {
        gone(self.interfaces.remove(&ifindex))
    }

    /// Notes the revision of an epoch, before any flow is judged in it.
    pub fn epoch(&mut self, epoch: u32, revision: u32) -> Result<(), DataplaneError> {
        self.epochs.insert(epoch, revision, 0).map_err(write)
    }

    /// Forgets an epoch that no flow was judged in.
    pub fn forget_epoch(&mut self, epoch: u32) -> Result<(), DataplaneError> {
        gone(self.epochs.remove(&epoch))
    }

    /// Notes where the wall clock stands.
    pub fn anchor(&mut self, index: u32, anchor: &Anchor) -> Result<(), DataplaneError> {
        self.anchors.set(index, anchor, 0).map_err(write)
    }
}

fn all<K: Pod, V: Pod>(
    tables: &Tables,
    name: &'static str,
    notes: &mut Vec<(K, V)>,
) -> Result<(), DataplaneError> {
    // A daemon that was killed while it made them had no use for them yet.
    if tables.path(name).exists() {
        OldTable::open(tables, name)?.for_each(|key, note| notes.push((*key, *note)))?;
    }
    Ok(())
}

fn write(source: MapError) -> DataplaneError {
    DataplaneError::Write { table: "notes", source }
}

fn gone(result: Result<(), MapError>) -> Result<(), DataplaneError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(error) if os_error(&error) == Some(libc::ENOENT) => Ok(()),
        other => other.map_err(write),
    }
}
