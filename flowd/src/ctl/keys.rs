//! `flowctl keys`: the keys that the history is sealed with. Reads and writes the store's files.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde::Serialize;

use super::{
    error::CtlError,
    output::{Format, Screen},
};
use crate::store;

/// What to do about keys.
#[derive(Clone, Debug, Subcommand)]
pub(super) enum Keys {
    /// The public keys, oldest first: keep them somewhere else than on the gateway.
    #[command(after_help = "Example: flowctl keys show")]
    Show {
        /// Directory of the store.
        #[arg(long, value_name = "PATH", default_value = "/var/lib/flowd")]
        store: PathBuf,
    },
    /// Seal with another key from now on; the old one signs that.
    ///
    /// The daemon may run meanwhile. Wants to be root, or flowd.
    #[command(after_help = "Example: flowctl keys rotate")]
    Rotate {
        /// Directory of the store.
        #[arg(long, value_name = "PATH", default_value = "/var/lib/flowd")]
        store: PathBuf,
        /// Directory of the key, where `store.keys` says another one than `keys` in the store's.
        #[arg(long, value_name = "PATH")]
        keys: Option<PathBuf>,
    },
}

/// A key, as programs are told of it.
#[derive(Serialize)]
struct Told {
    key: String,
    /// The number of the first statement that it signed.
    from_statement: u64,
    /// Whether the key before it named it.
    is_named: bool,
    is_current: bool,
}

/// Does it.
pub(super) fn run(screen: &mut Screen, format: Format, wanted: &Keys) -> Result<(), CtlError> {
    match wanted {
        Keys::Show { store } => show(screen, format, store),
        Keys::Rotate { store, keys } => {
            let own = store.join("keys");
            let now_ms = jiff::Timestamp::now().as_millisecond();
            store::rotate_key(store, keys.as_deref().unwrap_or(&own), now_ms)
                .map_err(CtlError::Seal)?;
            show(screen, format, store)
        }
    }
}

fn show(screen: &mut Screen, format: Format, store: &Path) -> Result<(), CtlError> {
    let keys = store::read_chain(store).map_err(CtlError::Seal)?.keys();
    let last = keys.len().saturating_sub(1);
    let told: Vec<_> = keys
        .iter()
        .enumerate()
        .map(|(at, (key, from_statement, is_named))| Told {
            key: key.to_string(),
            from_statement: *from_statement,
            is_named: *is_named,
            is_current: at == last,
        })
        .collect();
    match format {
        Format::Table => {
            if told.is_empty() {
                screen.line("No key yet: flowd makes one when it is started first.")?;
            }
            for one in &told {
                let Told { key, from_statement, is_current, .. } = one;
                let now = if *is_current { "signs now" } else { "signed once" };
                screen.line(&format!("{key}  {now}, from statement {from_statement} on"))?;
            }
        }
        Format::Json => screen.json(&told)?,
        Format::Jsonl => {
            for one in &told {
                screen.json_line(one)?;
            }
        }
        Format::Csv => screen.flat_csv(&told)?,
    }
    screen.flush()
}
