//! What can go wrong between flowd and the kernel, and what to do about it.

use std::io;

use aya::{EbpfError, maps::MapError, programs::ProgramError};

/// The datapath could not be brought into the kernel.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// flowd needs 5.15.
    #[error("the kernel is {found}; flowd needs Linux 5.15 or newer")]
    OldKernel {
        /// The running kernel's version.
        found: String,
    },
    /// Not root, or a service without the capabilities.
    #[error(
        "no permission to load eBPF programs: run flowd as root, or give it CAP_BPF, CAP_NET_ADMIN \
         and CAP_PERFMON"
    )]
    NoPermission,
    /// The table does not fit.
    #[error("no memory for a flow table of {flows} entries: lower `flows.table_size`")]
    NoMemory {
        /// Its configured size.
        flows: u32,
    },
    /// Anything else that the kernel said.
    #[error("the kernel refused the eBPF datapath: {reason}")]
    Refused {
        /// The innermost reason, on one line.
        reason: String,
    },
}

impl LoadError {
    pub(super) fn from_ebpf(error: &EbpfError, flows: u32) -> Self {
        Self::from_chain(error, flows)
    }

    pub(super) fn from_program(error: &ProgramError, flows: u32) -> Self {
        Self::from_chain(error, flows)
    }

    fn from_chain(error: &(dyn std::error::Error + 'static), flows: u32) -> Self {
        match os_error(error) {
            Some(libc::EPERM | libc::EACCES) => Self::NoPermission,
            Some(libc::ENOMEM | libc::E2BIG) => Self::NoMemory { flows },
            _ => Self::Refused { reason: first_line(error) },
        }
    }
}

/// Something between flowd and a loaded datapath failed.
#[derive(Debug, thiserror::Error)]
pub enum DataplaneError {
    /// The programs could not be put on an interface.
    #[error("cannot attach to {interface}: {reason}")]
    Attach {
        /// Its name.
        interface: String,
        /// On one line.
        reason: String,
    },
    /// Nobody can tell what hangs on an interface.
    #[error("cannot see what hangs on {interface}: {reason}")]
    Look {
        /// Its name.
        interface: String,
        /// On one line.
        reason: String,
    },
    /// A table could not be read.
    #[error("cannot read the kernel's {table} table")]
    Read {
        /// Its name.
        table: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A table could not be changed.
    #[error("cannot change the kernel's {table} table")]
    Write {
        /// Its name.
        table: &'static str,
        /// What the kernel said.
        source: MapError,
    },
    /// A control program did not run.
    #[error("cannot run {program} in the kernel")]
    Control {
        /// Its name.
        program: &'static str,
        /// What the kernel said.
        source: ProgramError,
    },
}

pub(super) fn os_error(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut link = Some(error);
    while let Some(error) = link {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return io.raw_os_error();
        }
        link = error.source();
    }
    None
}

pub(super) fn first_line(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut link = error.source();
    while let Some(error) = link {
        let inner = error.to_string();
        if !text.contains(&inner) {
            text = format!("{text}: {inner}");
        }
        link = error.source();
    }
    text.lines().next().unwrap_or_default().to_owned()
}
