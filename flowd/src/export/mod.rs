//! Records in the formats of other tools. Pure: records come in, bytes go out. `docs/formats.md`
//! has every format field by field.
//!
//! - one record at a time, and a block of them for Parquet: memory does not grow with the records
//! - a format that has no place for something loses it, and its table says so; what one side sent
//!   in a window is lost in none

mod csv;
mod ecs;
mod jsonl;
mod ocsf;
mod parquet;
mod tailscale;
mod vpc;
mod zeek;

#[cfg(test)]
mod doc_tests;
#[cfg(test)]
mod sample;

use std::io::{self, Write};

use crate::{
    flows::Initiator,
    wire::{Gap, Record, Timestamp},
};

/// A format of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Comma-separated values with a header, every field.
    Csv,
    /// One JSON object a line, as the API has it.
    Jsonl,
    /// Apache Parquet, every field, typed.
    Parquet,
    /// Tailscale's network flow logs, one message a line.
    Tailscale,
    /// Flow logs of AWS VPC, version 5, with a header.
    Vpc,
    /// Zeek's `conn.log`, tab-separated.
    Zeek,
    /// Zeek's `conn.log`, one JSON object a line.
    ZeekJson,
    /// Elastic Common Schema, one JSON object a line.
    Ecs,
    /// Open Cybersecurity Schema Framework, class 4001, one JSON object a line.
    Ocsf,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 9] = [
        Self::Csv,
        Self::Jsonl,
        Self::Parquet,
        Self::Tailscale,
        Self::Vpc,
        Self::Zeek,
        Self::ZeekJson,
        Self::Ecs,
        Self::Ocsf,
    ];

    /// The word on the command line.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Jsonl => "jsonl",
            Self::Parquet => "parquet",
            Self::Tailscale => "tailscale",
            Self::Vpc => "vpc",
            Self::Zeek => "zeek",
            Self::ZeekJson => "zeek-json",
            Self::Ecs => "ecs",
            Self::Ocsf => "ocsf",
        }
    }

    /// The format of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.word() == word)
    }

    /// Whether it says where records may be missing.
    pub const fn has_gaps(self) -> bool {
        matches!(self, Self::Vpc)
    }

    /// Whether a terminal can show it.
    pub const fn is_text(self) -> bool {
        !matches!(self, Self::Parquet)
    }
}

/// Records on their way into one file.
pub struct Export<W: Write + Send>(To<W>);

enum To<W: Write + Send> {
    Lines { format: Format, line: Vec<u8>, out: W },
    Blocks(Box<parquet::Blocks<W>>),
}

impl<W: Write + Send> Export<W> {
    /// An empty file: what stands before the first record.
    pub fn begin(format: Format, mut out: W) -> io::Result<Self> {
        match format {
            Format::Parquet => {
                return Ok(Self(To::Blocks(Box::new(parquet::Blocks::begin(out)?))));
            }
            Format::Csv => out.write_all(&csv::header())?,
            Format::Vpc => out.write_all(vpc::header().as_bytes())?,
            Format::Zeek => out.write_all(zeek::header().as_bytes())?,
            Format::Jsonl | Format::Tailscale | Format::ZeekJson | Format::Ecs | Format::Ocsf => {}
        }
        Ok(Self(To::Lines { format, line: Vec::new(), out }))
    }

    /// The next record.
    pub fn record(&mut self, record: &Record) -> io::Result<()> {
        match &mut self.0 {
            To::Lines { format, line, out } => {
                line.clear();
                match format {
                    Format::Csv => csv::write(record, line),
                    Format::Jsonl => jsonl::write(record, line),
                    Format::Tailscale => tailscale::write(record, line),
                    Format::Vpc => vpc::write(record, line),
                    Format::Zeek => zeek::write_tsv(record, line),
                    Format::ZeekJson => zeek::write_json(record, line),
                    Format::Ecs => ecs::write(record, line),
                    Format::Ocsf => ocsf::write(record, line),
                    Format::Parquet => unreachable!("it is made of blocks"),
                }
                out.write_all(line)
            }
            To::Blocks(blocks) => blocks.record(record),
        }
    }

    /// A gap, cut to the range from `since` to `until`. Whether there was something to tell: not
    /// where the format has no gaps, or nothing is missing.
    pub fn gap(
        &mut self,
        gap: &Gap,
        since: Option<Timestamp>,
        until: Timestamp,
    ) -> io::Result<bool> {
        match &mut self.0 {
            To::Lines { format: Format::Vpc, line, out } => {
                line.clear();
                vpc::write_gap(gap, since, until, line);
                out.write_all(line)?;
                Ok(!line.is_empty())
            }
            To::Lines { .. } | To::Blocks(_) => Ok(false),
        }
    }

    /// What stands behind the last record; then the file is whole.
    pub fn end(self) -> io::Result<W> {
        match self.0 {
            To::Lines { format, mut out, .. } => {
                if format == Format::Zeek {
                    out.write_all(zeek::FOOTER.as_bytes())?;
                }
                out.flush()?;
                Ok(out)
            }
            To::Blocks(blocks) => blocks.end(),
        }
    }
}

/// What one end of a flow sent in a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sent {
    packets: u64,
    /// IP header included.
    bytes: u64,
    /// Since the first packet.
    tcp_flags: u8,
}

/// What the source sent, and what the destination did.
fn sent(record: &Record) -> (Sent, Sent) {
    let Record { counters, tcp_flags, .. } = record;
    let peer =
        Sent { packets: counters.rx_packets, bytes: counters.rx_bytes, tcp_flags: tcp_flags.rx };
    let remote =
        Sent { packets: counters.tx_packets, bytes: counters.tx_bytes, tcp_flags: tcp_flags.tx };
    record.initiator.first(peer, remote)
}

/// Whether the source is the end inside the tunnel.
fn peer_is_source(record: &Record) -> bool {
    match record.initiator {
        Initiator::Peer | Initiator::Unknown => true,
        Initiator::Remote => false,
    }
}

/// The version of IP; `None` for overflow.
fn ip_version(record: &Record) -> Option<u8> {
    record.src.ip.map(|ip| if ip.is_ipv4() { 4 } else { 6 })
}

/// What names a record among all gateways.
fn record_uid(record: &Record) -> String {
    match record.record_id {
        Some(id) => format!("{}:{id}", record.gateway),
        None => format!("{}:{}", record.gateway, record.flow_id),
    }
}

fn write_json(value: &impl serde::Serialize, out: &mut Vec<u8>) {
    serde_json::to_writer(&mut *out, value).expect("these shapes have JSON");
    out.push(b'\n');
}

/// Bits of the TCP header's flags.
mod tcp {
    pub(super) const FIN: u8 = 0x01;
    pub(super) const SYN: u8 = 0x02;
    pub(super) const RST: u8 = 0x04;
    pub(super) const PSH: u8 = 0x08;
    pub(super) const ACK: u8 = 0x10;
    /// The protocol's number.
    pub(super) const NUMBER: u8 = 6;
}

#[cfg(test)]
mod tests {
    use super::{Export, Format, sample};

    /// Every sample in one file.
    fn exported(format: Format) -> Vec<u8> {
        let mut export = Export::begin(format, Vec::new()).unwrap();
        for (_, record) in sample::all() {
            export.record(&record).unwrap();
        }
        export.end().unwrap()
    }

    #[test]
    fn words_and_formats_are_one_to_one() {
        for format in Format::ALL {
            assert_eq!(Format::from_word(format.word()), Some(format));
        }
        assert_eq!(Format::from_word("xlsx"), None);
    }

    #[test]
    fn every_format_of_lines_has_whole_lines_whatever_names_are() {
        for format in Format::ALL.into_iter().filter(|format| format.is_text()) {
            let text = String::from_utf8(exported(format)).unwrap();
            assert!(text.ends_with('\n'), "{format:?}");
            match format {
                Format::Csv => {
                    let mut reader = csv::Reader::from_reader(text.as_bytes());
                    assert_eq!(reader.records().count(), sample::all().len());
                }
                Format::Vpc | Format::Zeek => {}
                _ => {
                    assert_eq!(text.lines().count(), sample::all().len(), "{format:?}");
                    for line in text.lines() {
                        serde_json::from_str::<serde_json::Value>(line).unwrap();
                    }
                }
            }
        }
    }

    #[test]
    fn an_empty_file_is_one_of_its_format() {
        for (format, lines) in [(Format::Csv, 1), (Format::Vpc, 1), (Format::Zeek, 8)] {
            let file = Export::begin(format, Vec::new()).unwrap().end().unwrap();
            let text = String::from_utf8(file).unwrap();
            assert_eq!(text.lines().count(), lines, "{format:?}: {text}");
        }
        let file = Export::begin(Format::Parquet, Vec::new()).unwrap().end().unwrap();
        assert!(file.starts_with(b"PAR1") && file.ends_with(b"PAR1"));
        let file = Export::begin(Format::Ocsf, Vec::new()).unwrap().end().unwrap();
        assert!(file.is_empty());
    }
}
