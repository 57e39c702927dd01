//! `flowctl policy`: what another policy would do.

mod replay;

use std::{
    io::Read as _,
    path::{Path, PathBuf},
};

use super::{
    args::PolicyCommand,
    client::Client,
    error::CtlError,
    output::{Format, Screen},
    text,
};
use crate::policy::Problem;

/// Runs one of the policy's commands.
pub(super) async fn run(
    client: &Client<'_>,
    screen: &mut Screen,
    format: Format,
    command: &PolicyCommand,
) -> Result<(), CtlError> {
    match command {
        PolicyCommand::Replay { file, filters } => {
            replay::run(client, screen, format, file, filters).await
        }
    }
}

fn wrong(file: &Path, problems: &[Problem]) -> CtlError {
    for problem in problems {
        eprintln!("{}", told(file, problem));
    }
    CtlError::Told
}

/// What is wrong, with its place as compilers write it.
fn told(file: &Path, Problem { line, column, text }: &Problem) -> String {
    let name = if file == Path::new("-") { Path::new("standard input") } else { file };
    let name = text::visible(&name.to_string_lossy());
    format!("{name}:{line}:{column}: {}", text::visible(text))
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{read, told};
    use crate::policy::Problem;

    #[test]
    fn a_problem_stands_in_one_line_with_its_place() {
        let problem = Problem { line: 3, column: 9, text: "unknown peer `\u{1b}x`".to_owned() };
        for (file, expected) in [
            ("a/policy.toml", "a/policy.toml:3:9: unknown peer `\\x1bx`"),
            ("-", "standard input:3:9: unknown peer `\\x1bx`"),
            ("a\nb", "a\\x0ab:3:9: unknown peer `\\x1bx`"),
        ] {
            assert_eq!(told(Path::new(file), &problem), expected);
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named_in_one_line() {
        let error = read(Path::new("/nowhere/policy.toml")).unwrap_err().to_string();
        assert!(error.starts_with("cannot read /nowhere/policy.toml: No such file"), "{error}");
        assert_eq!(error.lines().count(), 1);
    }
}
