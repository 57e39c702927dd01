//! Numbers as bars and sparklines.

/// A part of the whole as a bar of at most `cells`, with the resolution of an eighth of a cell.
pub(super) fn bar(share: f64, cells: usize) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (share.clamp(0.0, 1.0) * (cells * 8) as f64).round() as usize;
    format!("{}{}", "█".repeat(eighths / 8), EIGHTHS[eighths % 8])
}

/// Values as columns of at most `cells` characters, the highest one full; where there are more
/// values, neighbours are summed. Nothing is a space, the smallest something is not.
pub(super) fn sparkline(values: &[u64], cells: usize) -> String {
    const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let width = values.len().div_ceil(cells.max(1)).max(1);
    let sums: Vec<u64> = values.chunks(width).map(|some| some.iter().sum()).collect();
    let most = sums.iter().copied().max().unwrap_or_default();
    let level = |value: &u64| match value {
        0 => ' ',
        value => LEVELS[((*value as f64 / most as f64 * 8.0).ceil() as usize).clamp(1, 8) - 1],
    };
    sums.iter().map(level).collect()
}

#[cfg(test)]
mod tests {
    use super::{bar, sparkline};

    #[test]
    fn a_bar_is_as_long_as_its_share() {
        for (share, text) in
            [(0.0, ""), (1.0 / 3.0, "███▍"), (0.001, ""), (1.0, "██████████"), (7.0, "██████████")]
        {
            assert_eq!(bar(share, 10), text, "{share}");
        }
    }

    #[test]
    fn a_sparkline_shows_every_value_or_the_sums_of_neighbours() {
        for (values, cells, text) in [
            (&[][..], 10, ""),
            (&[0, 0], 10, "  "),
            (&[1, 2, 4, 8], 10, "▁▂▄█"),
            (&[0, 1, 1_000_000], 10, " ▁█"),
            (&[1, 1, 2, 2, 4], 3, "▄██"),
            (&[u64::MAX], 1, "█"),
        ] {
            assert_eq!(sparkline(values, cells), text, "{values:?}");
        }
    }
}
