//! The daemon.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{CommandFactory as _, Parser, Subcommand};
use flowd::{
    config::{self, Config, ConfigError},
    ctl,
    daemon::{self, DaemonError},
    identity::Names,
};
use tracing_subscriber::EnvFilter;

/// Counts what every WireGuard peer of this gateway does, flow by flow.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// Configuration file [default: /etc/flowd/flowd.toml, which need not exist]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Take flowd's programs off every interface of this network namespace, where they stayed to
    /// enforce a policy; only while no daemon runs.
    Detach,
    /// Check a configuration file and do nothing else.
    CheckConfig {
        /// The file to check.
        #[arg(value_name = "FILE", default_value = config::DEFAULT_PATH)]
        file: PathBuf,
    },
    /// Print the names that the comments in WireGuard's configurations give to peers, as a list like
    /// /etc/flowd/peers.toml. No keys but public ones are in it.
    Names {
        /// Write it into this file, whole, instead.
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// Writes the manual pages into a directory.
    #[command(hide = true)]
    Manual {
        /// Where to.
        directory: PathBuf,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Some(Command::CheckConfig { file }) => check_config(&file),
        Some(Command::Manual { directory }) => {
            ctl::manual::write(Cli::command(), "8", &directory).map_err(|error| error.to_string())
        }
        Some(Command::Names { to }) => names(cli.config, to.as_deref()),
        Some(Command::Detach) => detach(cli.config),
        None => run(cli.config),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(lines) => {
            for line in lines.lines() {
                eprintln!("flowd: {line}");
            }
            ExitCode::FAILURE
        }
    }
}

fn check_config(file: &Path) -> Result<(), String> {
    Config::read(file).map_err(|error| error.to_string())?;
    println!("{} is valid", file.display());
    Ok(())
}

fn names(file: Option<PathBuf>, to: Option<&Path>) -> Result<(), String> {
    let config = read_config(file).map_err(|error| error.to_string())?;
    let (list, unread) = Names::copied(&config.names);
    for unread in unread {
        eprintln!("flowd: cannot read {}: {}", unread.path.display(), unread.reason);
    }
    let Some(to) = to else {
        print!("{list}");
        return Ok(());
    };
    // Nobody reads half of it.
    let new = to.with_extension("new");
    let written = fs::write(&new, list).and_then(|()| fs::rename(&new, to));
    written.map_err(|error| format!("cannot write {}: {error}", to.display()))
}

fn detach(file: Option<PathBuf>) -> Result<(), String> {
    let config = read_config(file).map_err(|error| error.to_string())?;
    let done = daemon::detach(&config).map_err(|error| chain(&error))?;
    for path in done.foreign {
        eprintln!("flowd: {} is not flowd's, and stays", path.display());
    }
    let removed = done.removed;
    println!("{removed} programs, links and tables of flowd were taken off");
    Ok(())
}

fn run(file: Option<PathBuf>) -> Result<(), String> {
    let config = read_config(file).map_err(|error| error.to_string())?;
    start_log();
    daemon::run(config).map_err(|error| match error {
        DaemonError::Policy(problems) => problems,
        error => chain(&error),
    })
}

/// The named file must exist; the default one need not.
fn read_config(file: Option<PathBuf>) -> Result<Config, ConfigError> {
    match file {
        Some(file) => Config::read(&file),
        None => match Config::read(config::DEFAULT_PATH.as_ref()) {
            Err(ConfigError::Read { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                Ok(Config::default())
            }
            read => read,
        },
    }
}

/// Logs to standard error. The journal adds time and takes no colours.
fn start_log() {
    // The netlink parser warns at every scan of attributes that are newer than itself.
    let filter = EnvFilter::try_from_env("FLOWD_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,netlink_packet_route=error"));
    let to_journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(!to_journal && std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false);
    if to_journal { log.without_time().init() } else { log.init() }
}

/// An error and what it came from, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let inner = error.to_string();
        if !text.contains(&inner) {
            text = format!("{text}: {inner}");
        }
        source = error.source();
    }
    text.replace('\n', "; ")
}
