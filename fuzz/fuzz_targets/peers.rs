//! Where peers get their names: `peers.toml`, and the comments in WireGuard's own configurations.
//!
//! One text is read as both. Of either, nothing leaves but public keys and names that people can
//! read, and no name holds anything like a key.

#![no_main]

use flowd::identity::{
    comments::{self, Comment},
    list,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match list::parse(text) {
        Ok(entries) => {
            for (line, identity) in &entries {
                assert!((1..=1 + text.matches('\n').count()).contains(line), "line {line}");
                assert!(is_key(&identity.public_key), "{identity:?}");
                let texts = identity.user.iter().chain(&identity.device).chain(&identity.groups);
                assert!(
                    texts.chain([&identity.name]).all(|text| is_readable(text)),
                    "{identity:?}"
                );
                let twice = entries.iter().filter(|(_, e)| e.public_key == identity.public_key);
                assert_eq!(twice.count(), 1, "{identity:?}");
            }
        }
        Err((line, reason)) => {
            assert!((1..=1 + text.matches('\n').count()).contains(&line), "line {line}");
            assert!(!reason.contains(char::is_control), "{reason:?}");
        }
    }
    for (public_key, comment) in comments::parse(text) {
        assert!(is_key(&public_key), "{public_key:?}");
        assert!(text.contains(&public_key));
        let Comment { name, user, device, groups } = &comment;
        let texts = || [name, user, device].into_iter().flatten().chain(groups);
        assert!(texts().count() > 0, "a comment says nothing");
        for text in texts() {
            assert!(!text.is_empty() && is_readable(text) && !holds_key(text), "{text:?}");
        }
    }
});

fn is_readable(text: &str) -> bool {
    text.len() <= 255 && !text.contains(char::is_control)
}

/// Whether it is 32 bytes in base64.
fn is_key(text: &str) -> bool {
    text.len() == 44 && text.ends_with('=') && text[..43].bytes().all(is_symbol)
}

/// Whether 32 bytes in base64 stand in it, alone between other characters.
fn holds_key(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.windows(44).enumerate().any(|(at, window)| {
        let alone = at == 0 || !is_symbol(bytes[at - 1]);
        alone && window[43] == b'=' && window[..43].iter().copied().all(is_symbol)
    })
}

fn is_symbol(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/')
}
