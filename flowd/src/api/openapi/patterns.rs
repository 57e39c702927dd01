//! Regular expressions of what parameters may be, in the dialect that ECMA-262, Rust and Python
//! share. Whatever matches is accepted; a little that is accepted, such as years before 0, does not
//! match.

/// A number from 0 to 255 without leading zeros.
const BYTE: &str = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
/// A number from 0 to 65535.
const PORT: &str = "(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}\
    |[0-9]{1,4})";

/// A number from 0 to 255, or a word in any case of letters.
pub(super) fn byte_or(words: &[&str]) -> String {
    let any_case = |letter: char| match letter.to_ascii_uppercase() {
        upper if upper == letter => letter.to_string(),
        upper => format!("[{letter}{upper}]"),
    };
    let words: Vec<String> =
        words.iter().map(|word| word.chars().map(any_case).collect()).collect();
    format!("^({BYTE}|{})$", words.join("|"))
}

/// An address, or a prefix.
pub(super) fn network() -> String {
    let (v4, v6) = (v4(), v6());
    format!("^({v4}(/([12]?[0-9]|3[0-2]))?|{v6}(/(12[0-8]|1[01][0-9]|[1-9]?[0-9]))?)$")
}

/// Two ends of a connection.
pub(super) fn connection() -> String {
    let end = format!("({}:{PORT}|\\[{}\\]:{PORT})", v4(), v6());
    format!("^{end}-{end}$")
}

fn v4() -> String {
    format!("{BYTE}(\\.{BYTE}){{3}}")
}

/// All notations but those that end like an IPv4 address.
fn v6() -> String {
    let group = "[0-9A-Fa-f]{1,4}";
    let mut ways = vec![
        format!("({group}:){{7}}{group}"),
        format!("({group}:){{1,7}}:"),
        format!(":(:{group}){{1,7}}"),
        "::".to_owned(),
    ];
    ways.extend((1..=6).map(|n| format!("({group}:){{{n}}}(:{group}){{1,{}}}", 7 - n)));
    format!("({})", ways.join("|"))
}

/// An instant as people write it: see [`crate::when`].
pub(super) fn instant() -> String {
    let year = "([0-8][0-9]{3}|9[0-8][0-9]{2}|99[0-8][0-9]|999[0-8])";
    let month_and_day = "((0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])|(0[13-9]|1[0-2])-(29|30)\
        |(0[13578]|1[02])-31)";
    let leap = "([0-9]{2}(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)-02-29";
    let minute = "([01][0-9]|2[0-3]):[0-5][0-9]";
    let time = format!("{minute}(:[0-5][0-9](\\.[0-9]{{1,9}})?)?");
    let zone = format!("(Z|[+-]{minute})");
    let date = format!("({year}-{month_and_day}|{leap})");
    let ago = "-?([0-9]{1,9}[sm]|[0-9]{1,8}h|[0-9]{1,6}d|[0-9]{1,5}w)";
    format!("^(now|today|yesterday|{ago}|{time}|{date}([T ]{time}{zone}?)?)$")
}

/// A number of bytes as people write it: see [`crate::size`].
pub(super) const SIZE: &str = "^([0-9]{1,18}( ?B)?|[0-9]{1,17}\\.[0-9]{1,3}( ?B)?\
    |[0-9]{1,14}(\\.[0-9]{1,3})? ?(kB|KiB)\
    |[0-9]{1,11}(\\.[0-9]{1,3})? ?(MB|MiB)|[0-9]{1,8}(\\.[0-9]{1,3})? ?(GB|GiB)\
    |[0-9]{1,5}(\\.[0-9]{1,3})? ?(TB|TiB))$";
