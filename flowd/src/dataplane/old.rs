//! Tables of a daemon before that are not gone on with, because their layout or size is another:
//! they are read to the last packet, then removed.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use aya::maps::MapInfo;
use bytemuck::Pod;
use flowd_common::{
    counter::{CounterKey, Tally},
    flow::{FlowKey, FlowValue, OverflowKey},
};

use super::{
    DataplaneError, Notes, Tables,
    batch::{Batch, widened},
    syscall,
};

/// The tables that have counts.
const COUNTING: [&str; 3] = ["FLOWS", "OVERFLOW", "COUNTERS"];

/// One of them, read by what this flowd knows of its layout.
pub struct OldTable<K, V> {
    fd: OwnedFd,
    name: &'static str,
    key_bytes: usize,
    value: Vec<u8>,
    batch: Batch<K, V>,
}

/// All that have counts.
pub struct OldTables {
    /// Flows.
    pub flows: OldTable<FlowKey, FlowValue>,
    /// What found the table full.
    pub overflow: OldTable<OverflowKey, Tally>,
    /// The named counters.
    pub counters: OldTable<CounterKey, Tally>,
    /// What the daemon before noted.
    pub notes: Notes,
    tables: Tables,
}

impl OldTables {
    /// Opens them. `None` where no daemon has used them, or one that was killed while it made them.
    pub fn open(tables: &Tables) -> Result<Option<Self>, DataplaneError> {
        if COUNTING.iter().any(|name| !tables.path(name).exists()) {
            return Ok(None);
        }
        Ok(Some(Self {
            flows: OldTable::open(tables, "FLOWS")?,
            overflow: OldTable::open(tables, "OVERFLOW")?,
            counters: OldTable::open(tables, "COUNTERS")?,
            notes: Notes::read(tables)?,
            tables: tables.clone(),
        }))
    }

    /// As in [`Tables::number`].
    pub fn number(&self) -> u32 {
        self.tables.number()
    }

    /// As in [`Tables::name`].
    pub fn name(&self) -> String {
        self.tables.name()
    }

    /// Removes them.
    pub fn remove(self) -> io::Result<()> {
        self.tables.remove()
    }
}

impl<K: Pod, V: Pod> OldTable<K, V> {
    pub(super) fn open(tables: &Tables, name: &'static str) -> Result<Self, DataplaneError> {
        let open = || -> io::Result<Self> {
            let path = tables.path(name);
            let info = MapInfo::from_pin(&path).map_err(io::Error::other)?;
            let (key_bytes, value_bytes) = (info.key_size() as usize, info.value_size() as usize);
            Ok(Self {
                fd: syscall::object(&path)?,
                name,
                key_bytes,
                value: vec![0; value_bytes],
                batch: Batch::of(key_bytes, value_bytes),
            })
        };
        open().map_err(|source| DataplaneError::Read { table: name, source })
    }

    /// Shows every entry to `visit`.
    pub fn for_each(&mut self, visit: impl FnMut(&K, &V)) -> Result<u64, DataplaneError> {
        self.batch
            .for_each(self.fd.as_fd(), visit)
            .map_err(|source| DataplaneError::Read { table: self.name, source })
    }

    /// One entry.
    pub fn get(&mut self, key: &K) -> Result<Option<V>, DataplaneError> {
        let key = resized(key, self.key_bytes);
        match syscall::look_up(self.fd.as_fd(), &key, &mut self.value) {
            Ok(true) => Ok(Some(widened(&self.value))),
            Ok(false) => Ok(None),
            Err(source) => Err(DataplaneError::Read { table: self.name, source }),
        }
    }

    /// Deletes one entry.
    pub fn delete(&mut self, key: &K) -> Result<(), DataplaneError> {
        syscall::delete(self.fd.as_fd(), &resized(key, self.key_bytes))
            .map(drop)
            .map_err(|source| DataplaneError::Read { table: self.name, source })
    }
}

/// The bytes of a key in a table whose keys have so many.
fn resized(key: &impl Pod, bytes: usize) -> Vec<u8> {
    let mut key = bytemuck::bytes_of(key).to_vec();
    key.resize(bytes, 0);
    key
}
