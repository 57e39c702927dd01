//! Manual pages, made of the command line's own words.

use std::{fs::File, io, io::Write as _, path::Path};

use clap::CommandFactory as _;
use clap_mangen::Man;

use super::args::Cli;

/// Writes the pages of flowctl and its subcommands into a directory.
pub fn write_own(directory: &Path) -> io::Result<()> {
    write(Cli::command(), "1", directory)
}

/// Writes a page for a command, and one for each subcommand that is not hidden, into a directory.
pub fn write(command: clap::Command, section: &str, directory: &Path) -> io::Result<()> {
    let mut command = command.disable_help_subcommand(true);
    // Gives subcommands their whole names.
    command.build();
    write_built(&command, section, directory)
}

fn write_built(command: &clap::Command, section: &str, directory: &Path) -> io::Result<()> {
    for subcommand in command.get_subcommands().filter(|command| !command.is_hide_set()) {
        write_built(subcommand, section, directory)?;
    }
    let page = Man::new(command.clone())
        .section(section)
        .source(concat!("flowd ", env!("CARGO_PKG_VERSION")))
        .manual("flowd");
    let mut file = File::create(directory.join(page.get_filename()))?;
    page.render(&mut file)?;
    file.flush()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::CommandFactory as _;

    use super::{Cli, write_own};

    #[test]
    fn every_command_has_a_page_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        write_own(directory.path()).unwrap();
        let page = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
        let mut names = vec!["flowctl.1".to_owned()];
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let name = format!("flowctl-{}.1", command.get_name());
            let about = command.get_about().unwrap().to_string();
            let first = about.split([' ', '\n', '-']).next().unwrap();
            assert!(page(&name).contains(first), "{name} says {about:?}");
            names.push(name);
            let nested = command.get_subcommands().filter(|command| !command.is_hide_set());
            names.extend(
                nested.map(|nested| {
                    format!("flowctl-{}-{}.1", command.get_name(), nested.get_name())
                }),
            );
        }
        assert!(page("flowctl.1").contains("flowctl\\-flows(1)"));
        names.sort();
        let mut found: Vec<_> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        found.sort();
        assert_eq!(found, names, "no page of a hidden command, and none missing");
    }
}
