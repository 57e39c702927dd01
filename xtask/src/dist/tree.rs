//! Everything in its place, as it is installed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context, Result};

use super::licences;
use crate::command::{command, read, run, workspace};

/// What is copied from the sources: from where, to where.
const FILES: &[(&str, &str)] = &[
    ("systemd/flowd.toml", "etc/flowd/flowd.toml"),
    ("systemd/flowd.service", "usr/lib/systemd/system/flowd.service"),
    ("systemd/flowd.socket", "usr/lib/systemd/system/flowd.socket"),
    ("systemd/flowd-names.service", "usr/lib/systemd/system/flowd-names.service"),
    ("systemd/flowd-names.path", "usr/lib/systemd/system/flowd-names.path"),
    ("systemd/sysusers.conf", "usr/lib/sysusers.d/flowd.conf"),
    ("systemd/tmpfiles.conf", "usr/lib/tmpfiles.d/flowd.conf"),
    // An example: what it says would be in force where it would be read.
    ("systemd/policy.toml", "usr/share/doc/flowd/examples/policy.toml"),
    ("README.md", "usr/share/doc/flowd/README.md"),
    ("docs/policy.md", "usr/share/doc/flowd/policy.md"),
    ("docs/api.md", "usr/share/doc/flowd/api.md"),
    ("docs/sql.md", "usr/share/doc/flowd/sql.md"),
    ("docs/sealed.md", "usr/share/doc/flowd/sealed.md"),
    ("docs/formats.md", "usr/share/doc/flowd/formats.md"),
    ("docs/gaps.md", "usr/share/doc/flowd/gaps.md"),
    ("docs/guarantees.md", "usr/share/doc/flowd/guarantees.md"),
    ("docs/audit.md", "usr/share/doc/flowd/audit.md"),
    ("docs/audit_verify.py", "usr/share/doc/flowd/audit_verify.py"),
    ("CHANGELOG.md", "usr/share/doc/flowd/changelog"),
];

/// Completions: the shell, and where it looks.
const COMPLETIONS: &[(&str, &str)] = &[
    ("bash", "usr/share/bash-completion/completions/flowctl"),
    ("zsh", "usr/share/zsh/vendor-completions/_flowctl"),
    ("fish", "usr/share/fish/vendor_completions.d/flowctl.fish"),
];

/// zsh runs the script, as a function, when somebody completes for the first time.
const FIRST_TIME_IN_ZSH: &str =
    "[[ $funcstack[1] == _flowctl ]] && _clap_dynamic_completer_flowctl \"$@\"\n";

const DOCUMENTS: &str = "usr/share/doc/flowd";

/// Makes the tree anew.
pub(super) fn lay_out(tree: &Path, flowd: &Path, flowctl: &Path, epoch: u64) -> Result<()> {
    if tree.exists() {
        fs::remove_dir_all(tree).with_context(|| format!("cannot remove {}", tree.display()))?;
    }
    program(flowd, &tree.join("usr/sbin/flowd"))?;
    program(flowctl, &tree.join("usr/bin/flowctl"))?;
    for (from, to) in FILES {
        let text =
            fs::read(workspace().join(from)).with_context(|| format!("cannot read {from}"))?;
        write(&tree.join(to), &text)?;
    }
    for (program, section) in [(flowctl, "man1"), (flowd, "man8")] {
        let pages = tree.join("usr/share/man").join(section);
        fs::create_dir_all(&pages)?;
        run(command([program]).arg("manual").arg(&pages))?;
    }
    for (shell, to) in COMPLETIONS {
        let mut script = read(command([flowctl]).args(["completion", shell]))?;
        if *shell == "zsh" {
            script.push_str(FIRST_TIME_IN_ZSH);
        }
        write(&tree.join(to), script.as_bytes())?;
    }
    let documents = tree.join(DOCUMENTS);
    write(&documents.join("copyright"), licences::copyright()?.as_bytes())?;
    write(&documents.join("third-party-licences"), licences::texts()?.as_bytes())?;
    write(&documents.join("changelog.Debian"), debian_changelog(epoch)?.as_bytes())?;
    compress(tree)?;
    permit(tree)
}

/// Copies a program without its symbols.
fn program(from: &Path, to: &Path) -> Result<()> {
    let directory = to.parent().expect("it is below the tree");
    fs::create_dir_all(directory)?;
    run(command(["strip", "-o"]).arg(to).arg(from))
}

fn write(path: &Path, text: &[u8]) -> Result<()> {
    let directory = path.parent().expect("it is below the tree");
    fs::create_dir_all(directory)
        .and_then(|()| fs::write(path, text))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// What Debian wants compressed, without the time.
fn compress(tree: &Path) -> Result<()> {
    let documents = tree.join(DOCUMENTS);
    let mut files: Vec<_> = ["changelog", "changelog.Debian", "third-party-licences"]
        .map(|name| documents.join(name))
        .into();
    for section in ["man1", "man8"] {
        for page in fs::read_dir(tree.join("usr/share/man").join(section))? {
            files.push(page?.path());
        }
    }
    run(command(["gzip", "-n", "-9"]).args(files))
}

/// The tree's own modes, whatever the umask is.
fn permit(path: &Path) -> Result<()> {
    let is_directory = path.is_dir();
    let is_program = path.parent().is_some_and(|dir| dir.ends_with("bin") || dir.ends_with("sbin"));
    let mode = if is_directory || is_program { 0o755 } else { 0o644 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    if is_directory {
        for entry in fs::read_dir(path)? {
            permit(&entry?.path())?;
        }
    }
    Ok(())
}

/// Debian's own changelog, of this version only: the other one has what users see.
fn debian_changelog(epoch: u64) -> Result<String> {
    let mut date = command(["date", "--utc", "--rfc-email", &format!("--date=@{epoch}")]);
    let date = read(date.env("LC_ALL", "C"))?;
    let maintainer = maintainer()?;
    let version = env!("CARGO_PKG_VERSION");
    Ok(format!(
        "flowd ({version}-1) unstable; urgency=medium\n\n  * What is new stands in changelog.gz.\n\n \
         -- {maintainer}  {date}"
    ))
}

/// As the package says.
fn maintainer() -> Result<String> {
    let manifest = fs::read_to_string(workspace().join("flowd/Cargo.toml"))?;
    let line = manifest.lines().find_map(|line| line.strip_prefix("maintainer = "));
    Ok(line.context("flowd/Cargo.toml names no maintainer")?.trim_matches('"').to_owned())
}
