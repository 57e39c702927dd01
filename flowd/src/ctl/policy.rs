//! `flowctl policy`: what is in force, what another would do, and why.

mod diff;
mod replay;
mod show;
mod why;

use std::{
    io::Read as _,
    path::{Path, PathBuf},
};

use hyper::Method;

use super::{
    args::PolicyCommand,
    client::Client,
    error::CtlError,
    output::{Format, Screen},
    text,
};
use crate::{policy::Problem, wire};

/// Runs one of the policy's commands.
pub(super) async fn run(
    client: &Client<'_>,
    screen: &mut Screen,
    format: Format,
    command: &PolicyCommand,
) -> Result<(), CtlError> {
    match command {
        PolicyCommand::Check { file } => check(client, screen, format, file).await,
        PolicyCommand::Show { text } => {
            let policy: wire::Policy = client.get("/v1/policy", &[]).await?;
            if *text {
                screen.raw(policy.text.as_bytes())?;
                return screen.flush();
            }
            show::run(screen, format, &policy)
        }
        PolicyCommand::Diff { file } => diff::run(client, screen, format, file).await,
        PolicyCommand::Apply { file, yes } => apply(client, screen, format, file, *yes).await,
        PolicyCommand::Replay { file, filters } => {
            replay::run(client, screen, format, file, filters).await
        }
        PolicyCommand::Why { src, dst, protocol, port } => {
            let mut pairs = vec![("src", src.clone()), ("dst", dst.clone())];
            pairs.extend(protocol.clone().map(|protocol| ("protocol", protocol)));
            pairs.extend(port.clone().map(|port| ("port", port)));
            let answer: wire::Why = client.get("/v1/policy/why", &pairs).await?;
            screen.one(format, &answer, |screen| why::show(screen, &answer))
        }
    }
}

async fn check(
    client: &Client<'_>,
    screen: &mut Screen,
    format: Format,
    file: &Path,
) -> Result<(), CtlError> {
    let report = checked(client, file).await?;
    tell(file, &report.warnings, "warning: ");
    let valid = report.problems.is_empty();
    if valid || format != Format::Table {
        screen.one(format, &report, |screen| show::report(screen, &report))?;
    }
    if valid { Ok(()) } else { Err(wrong(file, &report.problems)) }
}

/// The daemon's opinion of a file.
async fn checked(client: &Client<'_>, file: &Path) -> Result<wire::PolicyReport, CtlError> {
    let body = read(file)?;
    client.send_text(Method::POST, "/v1/policy/check", &via(), body).await
}

async fn apply(
    client: &Client<'_>,
    screen: &mut Screen,
    format: Format,
    file: &Path,
    yes: bool,
) -> Result<(), CtlError> {
    let body = read(file)?;
    let pairs = if yes { Vec::new() } else { via() };
    let answer = client.send_text(Method::PUT, "/v1/policy", &pairs, body).await;
    let report: wire::PolicyReport = match answer {
        Err(CtlError::Policy(problems)) => return Err(wrong(file, &problems)),
        answer => answer?,
    };
    tell(file, &report.warnings, "warning: ");
    screen.one(format, &report, |screen| show::report(screen, &report))
}

fn wrong(file: &Path, problems: &[Problem]) -> CtlError {
    tell(file, problems, "");
    CtlError::Told
}

fn tell(file: &Path, problems: &[Problem], kind: &str) {
    let name = if file == Path::new("-") { Path::new("standard input") } else { file };
    for Problem { line, column, text } in problems {
        eprintln!("{}:{line}:{column}: {kind}{}", name.display(), text::visible(text));
    }
}

fn read(file: &Path) -> Result<String, CtlError> {
    let mut content = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut content).map(|_| content)
    } else {
        std::fs::read_to_string(file)
    };
    read.map_err(|source| CtlError::Read { path: PathBuf::from(file), source })
}

/// The connection that flowctl is typed over, if it is one of SSH: of this process or of one that
/// started it, since sudo keeps the variable back.
fn via() -> Vec<(&'static str, String)> {
    let own = std::env::var("SSH_CONNECTION").ok();
    own.or_else(inherited)
        .and_then(|text| endpoints(&text))
        .map(|via| ("via", via))
        .into_iter()
        .collect()
}

/// The variable of the nearest process above that has it, as far as one may look.
fn inherited() -> Option<String> {
    let mut pid = std::os::unix::process::parent_id();
    while pid > 1 {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let found = environment
            .split(|byte| *byte == 0)
            .find_map(|variable| variable.strip_prefix(b"SSH_CONNECTION="));
        if let Some(found) = found {
            return Some(String::from_utf8_lossy(found).into_owned());
        }
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
        pid = parent.trim().parse().ok()?;
    }
    None
}

/// `client port server port`, as sshd writes it (ssh(1)), as the API wants it.
fn endpoints(text: &str) -> Option<String> {
    let mut words = text.split_ascii_whitespace();
    let mut end = || {
        let ip: std::net::IpAddr = words.next()?.parse().ok()?;
        let port: u16 = words.next()?.parse().ok()?;
        Some(std::net::SocketAddr::new(ip, port))
    };
    let (client, server) = (end()?, end()?);
    Some(format!("{client}-{server}"))
}

#[cfg(test)]
mod tests {
    use super::endpoints;

    #[test]
    fn the_connection_of_a_shell_is_understood() {
        for (text, expected) in [
            ("10.8.0.2 50000 10.8.0.1 22", Some("10.8.0.2:50000-10.8.0.1:22")),
            ("fd08::2 50000 fd08::1 22", Some("[fd08::2]:50000-[fd08::1]:22")),
            ("UNKNOWN 65535 UNKNOWN 65535", None),
            ("", None),
        ] {
            assert_eq!(endpoints(text).as_deref(), expected);
        }
    }
}
