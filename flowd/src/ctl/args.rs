//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::{
    audit::AuditCommand,
    complete,
    error::CtlError,
    export::ExportArgs,
    filters::{Filters, Parameters, Range},
    keys::Keys,
    lists::{FlowList, Page, Series, Top, words},
    output::Output,
    sql::Sql,
    text::Clock,
    verify::Verify,
};
use crate::{config::DEFAULT_SOCKET, flows::Stage};

/// Shows what every WireGuard peer of this gateway does, flow by flow.
#[derive(Debug, Parser)]
#[command(
    name = "flowctl",
    version,
    after_help = "Bytes are in powers of 1000 (kB, MB, GB). \
    rx is what the gateway received from the peer, tx what it sent, as in `wg show`."
)]
pub struct Cli {
    /// Socket of the daemon.
    #[arg(long, global = true, value_name = "PATH", env = "FLOWD_SOCKET", default_value = DEFAULT_SOCKET)]
    pub(super) socket: PathBuf,
    /// How to show the answer.
    #[arg(short, long, global = true, value_name = "FORMAT", default_value = "table")]
    pub(super) output: Output,
    /// Show times in UTC instead of local time.
    #[arg(long, global = true)]
    pub(super) utc: bool,
    /// Colour the output.
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(super) color: Color,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Color {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// How the daemon is: interfaces, books, table, store.
    #[command(after_help = "Example: flowctl status")]
    Status,
    /// Totals of a time range.
    #[command(after_help = "Example: flowctl summary --since 24h")]
    Summary(Filters),
    /// Flows, newest first, open ones with their live counters.
    #[command(after_help = "Example: flowctl flows --since 15m --peer alice-laptop --port 443")]
    Flows(FlowList),
    /// One flow in detail.
    #[command(after_help = "Example: flowctl flow 01a1fc8a-a425-75a7-b299-ae8d734de1c4")]
    Flow {
        /// As `flow_id` in `flowctl flows -o json`.
        flow_id: String,
    },
    /// Who did most: peers, users, addresses, ports, protocols, rules or verdicts.
    #[command(
        after_help = "Example: flowctl top --by dst --sort flows --since 1h --verdict deny\n\
        Example: flowctl top --live --peer alice-laptop"
    )]
    Top(Top),
    /// Traffic over time: a bar for each step, or a sparkline for each peer, address, port, …
    ///
    /// Of the last day unless told.
    #[command(after_help = "Example: flowctl series --since 24h --step 1h --peer alice-laptop")]
    Series(Series),
    /// Where something may have gone unrecorded, and at most how much.
    #[command(after_help = "Example: flowctl gaps --since 7d")]
    Gaps(Gaps),
    /// The audit log: who did and read what, and whether that is all.
    #[command(after_help = "Example: flowctl audit list --actor bob --since 24h")]
    Audit {
        #[command(subcommand)]
        command: AuditCommand,
    },
    /// The peers, what flowd counted for them, and what WireGuard did.
    #[command(after_help = "Example: flowctl peers")]
    Peers {
        /// Name, public key, or the start of the key.
        #[arg(long, add = complete::peers())]
        peer: Option<String>,
    },
    /// One peer: when it was there and from where, and whether its books balance.
    ///
    /// Of the last seven days unless told.
    #[command(after_help = "Example: flowctl peer alice-laptop --since 24h")]
    Peer {
        /// Name, public key, or the start of the key.
        #[arg(add = complete::peers())]
        peer: String,
        #[command(flatten)]
        range: Range,
    },
    /// The policy: what is in force, what another would do, and why.
    #[command(after_help = "Example: flowctl policy check policy.toml")]
    Policy {
        #[command(subcommand)]
        command: PolicyCommand,
    },
    /// The files of the store, a UTC day each: what is in them, and whether they are whole.
    #[command(after_help = "Example: flowctl segments verify")]
    Segments {
        #[command(subcommand)]
        command: SegmentsCommand,
    },
    /// Check that the history is as it was sealed, day by day, and that none is missing.
    ///
    /// Reads the files itself, also of a copy; no daemon is needed, and nothing is written. With
    /// `--online` it asks the daemon, which writes down that it was asked, and what it found. Exits
    /// with 1 when anything is wrong; what is not sealed yet is told, and not wrong.
    /// docs/sealed.md says what that proves, and what it cannot.
    #[command(after_help = "Example: flowctl verify /mnt/copy --key \
        d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")]
    Verify(Verify),
    /// The keys that the history is sealed with.
    #[command(after_help = "Example: flowctl keys show")]
    Keys {
        #[command(subcommand)]
        command: Keys,
    },
    /// What each peer did on each UTC day, also on those whose records have gone.
    #[command(after_help = "Example: flowctl totals --peer alice-laptop --since 365d")]
    Totals(Totals),
    /// What a shell has to be told to complete flowctl's commands, flags, peers, rules and interfaces.
    ///
    /// For bash: a line `source <(flowctl completion bash)` in ~/.bashrc; zsh and fish likewise.
    #[command(after_help = "Example: flowctl completion bash")]
    Completion {
        /// Which shell.
        #[arg(value_parser = words(complete::SHELLS))]
        shell: String,
    },
    /// Writes the manual pages into a directory.
    #[command(hide = true, after_help = "Example: flowctl manual target/man")]
    Manual {
        /// Where to.
        directory: PathBuf,
    },
    /// Records as they are written, until interrupted.
    #[command(after_help = "Example: flowctl watch --peer alice-laptop")]
    Watch(Filters),
    /// Stored records, oldest first.
    #[command(after_help = "Example: flowctl records --since 24h -o csv > records.csv")]
    Records(Page),
    /// Ask in SQL, over every stored record: one SELECT.
    ///
    /// Without a statement: the tables and their columns. docs/sql.md has more examples.
    #[command(
        after_help = "Example: flowctl sql \"SELECT peer_name, sum(rx_bytes + tx_bytes) AS bytes \
            FROM records WHERE window_end >= instant('24h') GROUP BY peer_name ORDER BY bytes DESC \
            LIMIT 10\""
    )]
    Sql(Sql),
    /// Stored records in the format of another tool.
    ///
    /// Writes to standard output, oldest first. Exits with 0 when something was exported, and with
    /// 66 when `--after-record` or `--resume` found nothing new.
    #[command(
        after_help = "Example: flowctl export --format parquet --since 24h > records.parquet\n\n\
        Every night exactly what is new:\n  \
        flowctl export --format ecs --resume /var/lib/flowd-ecs.json > \"ecs-$(date +%F).json\""
    )]
    Export(ExportArgs),
}

/// What to do about segments.
#[derive(Debug, Subcommand)]
pub(super) enum SegmentsCommand {
    /// Every segment, and what is left of those that have gone.
    #[command(after_help = "Example: flowctl segments list")]
    List,
    /// Check that segments are whole: nothing damaged, no record missing, every sum right.
    ///
    /// Reads the files itself; no daemon is needed. Exits with 1 when anything is wrong.
    #[command(after_help = "Example: flowctl segments verify")]
    Verify {
        /// Days such as 2026-11-20, or files; all of the store where none is named.
        #[arg(value_name = "DAY|FILE")]
        segments: Vec<PathBuf>,
        /// Directory of the store.
        #[arg(long, value_name = "PATH", default_value = "/var/lib/flowd")]
        store: PathBuf,
    },
}

/// What to do about the policy.
#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one a run")]
pub(super) enum PolicyCommand {
    /// Check a policy, and tell what it would cut; change nothing.
    #[command(after_help = "Example: flowctl policy check policy.toml")]
    Check {
        /// The policy; - for standard input.
        file: PathBuf,
    },
    /// The policy in force, with how often each rule decided.
    #[command(after_help = "Example: flowctl policy show")]
    Show {
        /// Only its text, as it was applied.
        #[arg(long)]
        text: bool,
    },
    /// What is different in a file from the policy in force.
    #[command(after_help = "Example: flowctl policy diff policy.toml")]
    Diff {
        /// The policy; - for standard input.
        file: PathBuf,
    },
    /// Put a policy into force, for every packet at once.
    #[command(after_help = "Example: flowctl policy apply policy.toml")]
    Apply {
        /// The policy; - for standard input.
        file: PathBuf,
        /// Even if it cuts the connection that this is typed over.
        #[arg(long)]
        yes: bool,
    },
    /// Why one end may talk to another, or not.
    #[command(after_help = "Example: flowctl policy why alice-laptop 10.0.5.10 --port 5432")]
    Why {
        /// An address, or a peer by name or public key: who opens the connection.
        #[arg(add = complete::peers())]
        src: String,
        /// Likewise: to whom.
        #[arg(add = complete::peers())]
        dst: String,
        /// By name or number; tcp where only a port is given.
        #[arg(long)]
        protocol: Option<String>,
        /// Port of the destination, or ICMP type.
        #[arg(long)]
        port: Option<String>,
    },
    /// Whose stored flows would have got another verdict under a policy.
    ///
    /// Judges the stored records of a range, by default of the last seven days, by the names and
    /// groups that the peers had then; changes nothing. What open flows did since their last
    /// record is left out.
    #[command(after_help = "Example: flowctl policy replay policy.toml --since 24h")]
    Replay {
        /// The policy; - for standard input.
        file: PathBuf,
        #[command(flatten)]
        filters: Filters,
    },
}

/// Which days; each counts whole.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Totals {
    #[command(flatten)]
    pub(super) range: Range,
    /// Name, public key, or the start of the key.
    #[arg(long, add = complete::peers())]
    pub(super) peer: Option<String>,
}

impl Totals {
    /// As query parameters.
    pub(super) fn pairs(&self, clock: &Clock) -> Result<Parameters, CtlError> {
        let mut pairs = self.range.pairs(clock)?;
        pairs.extend(self.peer.clone().map(|peer| ("peer", peer)));
        Ok(pairs)
    }
}

/// Which gaps.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Gaps {
    #[command(flatten)]
    pub(super) range: Range,
    /// Where on the way of a packet.
    #[arg(long, value_parser = words(Stage::ALL.map(Stage::word)))]
    pub(super) stage: Option<String>,
    /// Of one interface, or of all together.
    #[arg(long, value_name = "NAME", add = complete::interfaces())]
    pub(super) interface: Option<String>,
    /// Of one peer by name or key, or of all together.
    #[arg(long, add = complete::peers())]
    pub(super) peer: Option<String>,
    /// How many at most, newest first.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) limit: Option<u64>,
}

impl Gaps {
    /// As query parameters.
    pub(super) fn pairs(&self, clock: &Clock) -> Result<Parameters, CtlError> {
        let Self { range, stage, interface, peer, limit } = self;
        let own = [
            ("stage", stage.clone()),
            ("interface", interface.clone()),
            ("peer", peer.clone()),
            ("limit", limit.map(|limit| limit.to_string())),
        ];
        let mut pairs = range.pairs(clock)?;
        pairs.extend(own.into_iter().filter_map(|(name, value)| Some((name, value?))));
        Ok(pairs)
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::{Cli, Clock, Command, PolicyCommand};
    use crate::wire::Timestamp;

    fn parses(line: &str) {
        let words = line.split_whitespace().take_while(|word| !matches!(*word, ">" | "|"));
        if let Err(error) = Cli::try_parse_from(words) {
            panic!("{line}: {error}");
        }
    }

    /// The examples of a command and of those below it.
    fn examples(command: &clap::Command, path: &str, found: &mut Vec<String>) {
        for command in command.get_subcommands() {
            let path = format!("{path} {}", command.get_name());
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.starts_with("Example: "), "{path} has no example");
            for example in help.lines().filter_map(|line| line.strip_prefix("Example: ")) {
                assert!(example.starts_with(&path), "{path}: {example}");
                found.push(example.to_owned());
            }
            examples(command, &path, found);
        }
    }

    #[test]
    fn totals_take_times_as_all_commands_do() {
        let clock = Clock::fixed(Timestamp(1_795_233_600_000)); // 2026-11-21T04:00:00Z
        let cli = Cli::try_parse_from(["flowctl", "totals", "--since", "-2d", "--peer", "bob"]);
        let Command::Totals(totals) = cli.unwrap().command else { panic!("it is another command") };
        let since = ("since", "2026-11-19T04:00:00.000Z".to_owned());
        assert_eq!(totals.pairs(&clock).unwrap(), [since, ("peer", "bob".to_owned())]);
    }

    #[test]
    fn the_examples_in_the_help_parse() {
        let mut found = Vec::new();
        examples(&Cli::command(), "flowctl", &mut found);
        assert!(found.len() > 20, "{found:?}");
        found.iter().for_each(|example| parses(example));
    }

    #[test]
    fn the_commands_in_the_readme_parse() {
        let readme = include_str!("../../../README.md");
        assert!(check_commands(readme) >= 4, "the tour has commands");
    }

    #[test]
    fn the_commands_in_the_document_of_the_policy_parse() {
        let document = include_str!("../../../docs/policy.md");
        assert!(check_commands(document) >= 10, "the roll-out has commands");
    }

    /// Parses every command of flowctl in a text: behind a prompt, in a pipe, and between
    /// backticks. Returns how many stand behind a prompt.
    fn check_commands(text: &str) -> usize {
        let prompts: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("$ ")).collect();
        let outside: String = text.split("```").step_by(2).collect();
        let quoted = outside.replace('\n', " ");
        let quoted = quoted.split('`').skip(1).step_by(2);
        let pipes = prompts.iter().flat_map(|line| line.split(" | "));
        for command in pipes.chain(quoted).filter(|text| text.starts_with("flowctl ")) {
            parses(command);
        }
        prompts.len()
    }

    #[test]
    fn every_filter_has_its_flag() {
        let values = [
            ("since", "2026-11-20T08:00:00.000Z"),
            ("until", "2026-11-21T08:00:00.000Z"),
            ("peer", "alice-laptop"),
            ("user", "alice@example.com"),
            ("src", "10.8.0.2"),
            ("dst", "10.0.0.0/8"),
            ("ip", "fd00::/8"),
            ("port", "443"),
            ("src_port", "50000"),
            ("dst_port", "443"),
            ("protocol", "tcp"),
            ("verdict", "deny"),
            ("rule", "none"),
            ("initiator", "peer"),
            ("interface", "wg0"),
            ("min_bytes", "10MB"),
            ("state", "open"),
        ];
        let flag = |name: &str| name.replace('_', "-");
        let flags = values.map(|(name, value)| format!("--{} {value}", flag(name))).join(" ");
        let clock = Clock::fixed(Timestamp(0));
        for command in
            ["flows", "summary", "records", "watch", "top", "series", "policy replay x.toml"]
        {
            let line = format!("flowctl {command} {flags}");
            let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
            let filters = match cli.command {
                Command::Flows(list) => list.page.filters,
                Command::Records(page) => page.filters,
                Command::Summary(filters) | Command::Watch(filters) => filters,
                Command::Top(top) => top.filters,
                Command::Series(series) => series.filters,
                Command::Policy { command: PolicyCommand::Replay { filters, .. } } => filters,
                other => panic!("{other:?}"),
            };
            assert_eq!(
                filters.pairs(&clock).unwrap(),
                values.map(|(name, value)| (name, value.to_owned()))
            );
        }
    }

    #[test]
    fn a_ranking_is_of_peers_by_bytes_unless_told() {
        let pairs = |line: &str| match Cli::try_parse_from(line.split(' ')).unwrap().command {
            Command::Top(top) => {
                let pairs = top.pairs(&Clock::fixed(Timestamp(0))).unwrap();
                pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(pairs("flowctl top"), ["by=peer", "sort=bytes", "limit=10"]);
        let line = "flowctl top --by dst_port --sort flows --limit 3 --user bob";
        assert_eq!(pairs(line), ["user=bob", "by=dst_port", "sort=flows", "limit=3"]);
        assert!(Cli::try_parse_from(["flowctl", "top", "--by", "colour"]).is_err());
    }

    #[test]
    fn flows_are_sorted_grouped_or_followed() {
        let list = |line: &str| match Cli::try_parse_from(line.split(' ')).unwrap().command {
            Command::Flows(list) => list,
            other => panic!("{other:?}"),
        };
        let clock = Clock::fixed(Timestamp(0));
        let told = |pairs: super::Parameters| -> Vec<String> {
            pairs.iter().map(|(name, value)| format!("{name}={value}")).collect()
        };
        let sorted = list("flowctl flows --sort bytes --order asc --port 53");
        assert_eq!(told(sorted.pairs(&clock).unwrap()), ["port=53", "sort=bytes", "order=asc"]);
        let grouped = list("flowctl flows --group-by peer,dst_port --limit 3 --verdict deny");
        let by = grouped.group_by.clone().unwrap();
        let pairs = told(grouped.groups(&by, &clock).unwrap());
        assert_eq!(pairs, ["verdict=deny", "by=peer,dst_port", "limit=3"]);
        assert!(list("flowctl flows -f").follow);
        for wrong in ["--sort size", "--group-by colour", "-f --sort bytes", "-f --group-by peer"] {
            let line = format!("flowctl flows {wrong}");
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Cli::command().debug_assert();
    }
}
