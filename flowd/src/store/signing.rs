//! The gateway's key on the disk, and the file of what it has signed: `seals.chain` in the store's
//! directory.
//!
//! - A line is appended and safe on the disk before anything goes on. What a crash left of one is
//!   cut off by the next who writes; it was never said.
//! - The directory of keys is locked while somebody may write: the keeper, or `flowctl keys rotate`.
//! - A key that is to be the next lies beside the old one until the chain has the word of both.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, fchown},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use super::aside;
use crate::{
    audit::{Signature, Signed},
    seal::{Chain, FORMAT, Hash, Link, PrivateKey, PublicKey, Statement, What},
};

/// Name of the chain in the store's directory.
const CHAIN: &str = "seals.chain";
/// Name of the key in the directory of keys.
const KEY: &str = "gateway.ed25519";
/// Name of the hash of the last statement there, where nobody else can write.
const HEAD: &str = "head";
/// How long somebody else may take.
const PATIENCE: Duration =
    if cfg!(test) { Duration::from_millis(200) } else { Duration::from_secs(10) };

/// Something could not be sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// A file or directory.
    #[error("cannot use {path}: {source}: check its owner, permissions and disk")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file of the key has something else.
    #[error(
        "{0} has no key of flowd: restore it from a backup, or move it away, and flowd makes \
         another one"
    )]
    NoKey(PathBuf),
    /// There is nothing to go on from.
    #[error("{0} has no key yet: flowd makes one when it is started first")]
    NotBegun(PathBuf),
    /// The key is another one than the chain's.
    #[error("the key in {0} is not the one that signs: start flowd, which says so in its chain")]
    OtherKey(PathBuf),
    /// Somebody else is adding to the chain.
    #[error(
        "{0} is locked: another flowd or `flowctl keys rotate` has not ended; end it, or try again"
    )]
    Locked(PathBuf),
    /// What was said last is not in the chain.
    #[error(
        "{path} has lost what was said in it last, {last}: put the last good copy back; to go on \
         without what is lost, move {head} away"
    )]
    Cut {
        /// The chain.
        path: PathBuf,
        /// Hash of that statement.
        last: Hash,
        /// Where that is kept.
        head: PathBuf,
    },
    /// The chain says that another key has named the gateway's, which flowd never left so.
    #[error(
        "the last line of {0} names the key that is in its place already, which no rotation leaves \
         so: put the last good copy back, or cut that line off"
    )]
    Named(PathBuf),
    /// A day's file has other tables than flowd's.
    #[error(
        "segment {0} has tables, views or triggers that are not flowd's, and is not sealed: restore \
         it from a backup, or move it away"
    )]
    Foreign(String),
    /// A day was sealed before with other records.
    #[error(
        "segment {0} is not as it was sealed, and is not sealed again: `flowctl verify` tells what \
         is wrong"
    )]
    Changed(String),
    /// A day has come behind one that was sealed.
    #[error(
        "segment {0} was not there when a later day was sealed, and is not sealed: find out where it \
         comes from, or move it away"
    )]
    Behind(String),
    /// The chain is not as it was written.
    #[error("{0} is not as it was written; flowd goes on behind it: `flowctl verify` tells more")]
    Broken(PathBuf),
}

/// Where the chain of a store is.
pub(super) fn chain_path(store: &Path) -> PathBuf {
    store.join(CHAIN)
}

/// The chain of a store as it is; an empty one where there is none.
pub fn read_chain(store: &Path) -> Result<Chain, SealError> {
    let path = chain_path(store);
    match fs::read(&path) {
        Ok(bytes) => Ok(Chain::read(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Chain::default()),
        Err(source) => Err(SealError::Io { path, source }),
    }
}

/// Puts another key into the place of the gateway's. The old one, and the new one.
pub fn rotate_key(
    store: &Path,
    keys: &Path,
    now_ms: i64,
) -> Result<(PublicKey, PublicKey), SealError> {
    let key_path = keys.join(KEY);
    // Somebody else than flowd makes nothing that flowd could not read.
    if !key_path.exists() {
        return Err(SealError::NotBegun(key_path));
    }
    let begun = read_chain(store)?.links.pop();
    let Some(last) = begun else { return Err(SealError::NotBegun(chain_path(store))) };
    let mut signer = Signer::lock(store, keys, &last.statement.gateway, now_ms)?;
    let old = signer.key.public();
    if signer.chain.key() != Some(old) {
        signer.heed_names()?;
        return Err(SealError::OtherKey(key_path));
    }
    let next = make_key(&next_path(keys))?;
    failpoint!("key-made");
    let new = next.public();
    signer.say(now_ms, What::Rotate { next: new })?;
    signer.key = next;
    signer.take_turn(now_ms)?;
    Ok((old, new))
}

/// The gateway's word for something that is not in the chain.
pub fn sign(keys: &Path, message: &[u8]) -> Result<Signature, SealError> {
    let key = read_key(&keys.join(KEY))?;
    Ok(Signature { key: key.public(), bytes: key.sign(message) })
}

/// What the gateway's key, as it lies on the disk, proves of the audit log; nothing where nothing was
/// said.
pub fn signed(store: &Path, keys: &Path) -> Result<Signed, SealError> {
    let chain = read_chain(store)?;
    if chain.links.is_empty() {
        return Ok(Signed::default());
    }
    let key = read_key(&keys.join(KEY))?.public();
    Ok(Signed::of(&chain, &[key]))
}

/// Who may add to the chain.
#[derive(Debug)]
pub(super) struct Signer {
    path: PathBuf,
    file: File,
    keys: PathBuf,
    /// The directory of keys, which nobody else can open: locked as long as this lives.
    _lock: File,
    end: u64,
    gateway: String,
    key: PrivateKey,
    pub(super) chain: Chain,
    /// Statements that it had before.
    pub(super) known: usize,
}

impl Signer {
    /// Opens the chain, and makes it and a key where there is none.
    pub(super) fn open(
        store: &Path,
        keys: &Path,
        gateway: &str,
        now_ms: i64,
    ) -> Result<Self, SealError> {
        let mut signer = Self::lock(store, keys, gateway, now_ms)?;
        let key = signer.key.public();
        if signer.chain.key() != Some(key) {
            signer.heed_names()?;
            signer.say(now_ms, What::Key)?;
            tracing::info!(
                %key,
                "from now on, days are sealed with this key; `flowctl verify --key` wants it: \
                 keep it somewhere else than on this machine"
            );
        }
        Ok(signer)
    }

    /// The same, which says no more than what a rotation before left unsaid.
    fn lock(store: &Path, keys: &Path, gateway: &str, now_ms: i64) -> Result<Self, SealError> {
        DirBuilder::new().recursive(true).mode(0o700).create(keys).map_err(io_at(keys))?;
        let lock = locked(keys)?;
        let path = chain_path(store);
        let io = io_at(&path);
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o640).custom_flags(libc::O_NOFOLLOW);
        let mut file = options.open(&path).map_err(&io)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(&io)?;
        let chain = Chain::read(&bytes);
        let head = keys.join(HEAD);
        match fs::read_to_string(&head).map(|text| text.trim().parse::<Hash>()) {
            Ok(Ok(last)) if !chain.links.iter().any(|link| link.hash == last) => {
                return Err(SealError::Cut { path, last, head });
            }
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(io_at(&head)(source));
            }
            _ => {}
        }
        let end = chain.whole_bytes as u64;
        if chain.has_rest {
            file.set_len(end).and_then(|()| file.sync_all()).map_err(&io)?;
            tracing::warn!(path = %path.display(), "cut off what a crash left of a line");
        }
        if bytes.is_empty() {
            sync_directory(store)?;
        }
        let next = next_key(keys, &chain)?;
        let is_rotating = next.is_some();
        let key = next.map_or_else(|| key(keys, &chain), Ok)?;
        let (gateway, known) = (gateway.to_owned(), chain.links.len());
        let keys_path = keys.to_owned();
        let mut signer =
            Self { path, file, keys: keys_path, _lock: lock, end, gateway, key, chain, known };
        if is_rotating {
            signer.take_turn(now_ms)?;
        }
        Ok(signer)
    }

    /// Says that the key that was named last signs from here on, and puts it into its place: in this
    /// order, so that no key in its place ever follows one that somebody else says has named it.
    fn take_turn(&mut self, now_ms: i64) -> Result<(), SealError> {
        if self.chain.key() != Some(self.key.public()) {
            self.say(now_ms, What::Key)?;
        }
        put_in_place(&next_path(&self.keys), &self.keys.join(KEY))?;
        failpoint!("key-put");
        Ok(())
    }

    /// An error when the chain says at its end that another key has named this one, which no rotation
    /// leaves so: what goes on from there vouches for whoever said it.
    fn heed_names(&self) -> Result<(), SealError> {
        let own = What::Rotate { next: self.key.public() };
        match self.chain.links.last() {
            Some(last) if last.statement.what == own => Err(SealError::Named(self.path.clone())),
            _ => Ok(()),
        }
    }

    /// An error when the chain is not as it was written. It goes on all the same.
    pub(super) fn check(&self) -> Result<(), SealError> {
        if self.chain.breaks.is_empty() {
            Ok(())
        } else {
            Err(SealError::Broken(self.path.clone()))
        }
    }

    /// What it has said of the audit log, and keys for which it has its word.
    pub(super) fn signed(&self) -> Signed {
        Signed::of(&self.chain, &[self.key.public()])
    }

    /// Adds a statement. Its number and hash.
    pub(super) fn say(&mut self, at_ms: i64, what: What) -> Result<(u64, Hash), SealError> {
        let (last, previous) = self.chain.head;
        let statement = Statement {
            format: FORMAT,
            number: last + 1,
            at_ms,
            gateway: self.gateway.clone(),
            key: self.key.public(),
            previous,
            what,
        };
        let (mut line, hash) = statement.signed(&self.key);
        line.push('\n');
        if let Err(source) = append(&mut self.file, &line) {
            // What is left of it is no line, and goes when somebody writes again, if not now.
            let _left = self.file.set_len(self.end);
            return Err(SealError::Io { path: self.path.clone(), source });
        }
        self.end += line.len() as u64;
        self.chain.add(statement, hash);
        failpoint!("seal-written");
        let path = self.keys.join(HEAD);
        let new = aside::with(&path, ".new");
        write_own(&new, &self.keys, &hash.to_string())?;
        fs::rename(&new, &path).map_err(io_at(&path))?;
        Ok((last + 1, hash))
    }
}

fn append(file: &mut File, line: &str) -> io::Result<()> {
    let (said, signature) = line.split_at(line.rfind('\t').unwrap_or_default());
    file.write_all(said.as_bytes())?;
    failpoint!("seal-half-written");
    file.write_all(signature.as_bytes())?;
    file.sync_all()
}

/// The directory of keys, locked.
fn locked(keys: &Path) -> Result<File, SealError> {
    let lock = File::open(keys).map_err(io_at(keys))?;
    let begun = Instant::now();
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(TryLockError::WouldBlock) if begun.elapsed() > PATIENCE => {
                return Err(SealError::Locked(keys.to_owned()));
            }
            Err(TryLockError::WouldBlock) => thread::sleep(PATIENCE / 100),
            Err(TryLockError::Error(source)) => return Err(io_at(keys)(source)),
        }
    }
}

/// The key of a rotation that a crash cut off, if the chain has its word or that of the key which is
/// still in its place. One that nobody knows of is removed.
fn next_key(keys: &Path, chain: &Chain) -> Result<Option<PrivateKey>, SealError> {
    let next_path = next_path(keys);
    if !next_path.exists() {
        return Ok(None);
    }
    if let Ok(next) = read_key(&next_path) {
        let names_it = |last: &Link| last.statement.what == What::Rotate { next: next.public() };
        let is_next = match chain.links.last().filter(|last| last.is_signed && names_it(last)) {
            Some(last) => match read_key(&keys.join(KEY)) {
                Err(SealError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                    false
                }
                old => last.statement.key == old?.public(),
            },
            None => chain.key() == Some(next.public()),
        };
        if is_next {
            return Ok(Some(next));
        }
    }
    fs::remove_file(&next_path).map_err(io_at(&next_path))?;
    Ok(None)
}

/// The gateway's key, made where there is none.
fn key(keys: &Path, chain: &Chain) -> Result<PrivateKey, SealError> {
    let path = keys.join(KEY);
    if path.try_exists().map_err(io_at(&path))? {
        return read_key(&path);
    }
    if !chain.links.is_empty() {
        tracing::error!(
            path = %path.display(),
            "the gateway's key is gone, and flowd makes another one: nobody can tell that it was \
             not somebody else; keep both public keys"
        );
    }
    let new = aside::with(&path, ".new");
    make_key(&new)?;
    put_in_place(&new, &path)?;
    read_key(&path)
}

fn next_path(keys: &Path) -> PathBuf {
    aside::with(&keys.join(KEY), ".next")
}

/// Makes a key and puts it into a file, which nobody else can read.
fn make_key(path: &Path) -> Result<PrivateKey, SealError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)
        .map_err(|error| SealError::Io { path: path.to_owned(), source: error.into() })?;
    write_own(path, path.parent().unwrap_or(path), &Hash(seed).to_string())?;
    Ok(PrivateKey::from_seed(&seed))
}

/// Writes a file anew that nobody else can read than whoever has the directory `keys`.
fn write_own(path: &Path, keys: &Path, text: &str) -> Result<(), SealError> {
    let io = io_at(path);
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    let owner = fs::metadata(keys).map_err(io_at(keys))?;
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let mut file = options.open(path).map_err(&io)?;
    let made = file.metadata().map_err(&io)?;
    // Root writes for flowd; flowd itself may not give files away in its sandbox, and need not.
    if (made.uid(), made.gid()) != (owner.uid(), owner.gid()) {
        fchown(&file, Some(owner.uid()), Some(owner.gid())).map_err(&io)?;
    }
    writeln!(file, "{text}").and_then(|()| file.sync_all()).map_err(&io)
}

fn read_key(path: &Path) -> Result<PrivateKey, SealError> {
    let text = fs::read_to_string(path).map_err(io_at(path))?;
    let seed: Hash = text.trim().parse().map_err(|_| SealError::NoKey(path.to_owned()))?;
    Ok(PrivateKey::from_seed(&seed.0))
}

fn put_in_place(from: &Path, to: &Path) -> Result<(), SealError> {
    fs::rename(from, to).map_err(io_at(to))?;
    to.parent().map_or(Ok(()), sync_directory)
}

fn sync_directory(path: &Path) -> Result<(), SealError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(io_at(path))
}

pub(super) fn io_at(path: &Path) -> impl Fn(io::Error) -> SealError + use<> {
    let path = path.to_owned();
    move |source| SealError::Io { path: path.clone(), source }
}
