//! Apache Parquet: every field, typed, in blocks of a fixed number of records.

use std::{
    io::{self, Write},
    sync::Arc,
};

use parquet::{
    basic::{Compression, ZstdLevel},
    data_type::{
        BoolType, ByteArray, ByteArrayType, FixedLenByteArray, FixedLenByteArrayType, Int32Type,
        Int64Type,
    },
    errors::ParquetError,
    file::{
        properties::WriterProperties,
        writer::{SerializedColumnWriter, SerializedFileWriter},
    },
    schema::{parser::parse_message_type, types::ColumnPath},
};

use crate::{
    flows::{Counters, Identity},
    wire::{CSV_COLUMNS, Endpoint, Record},
};

/// Records of a block, which are in memory together: some tens of megabytes.
const BLOCK: usize = 32_768;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Bool,
    U8,
    U16,
    U32,
    U64,
    Time,
    Text,
    Texts,
    Uuid,
}

impl Kind {
    /// Its column in the language of Parquet's schemas.
    fn column(self, name: &str) -> String {
        match self {
            Self::Bool => format!("optional boolean {name};"),
            Self::U8 => format!("optional int32 {name} (INTEGER(8,false));"),
            Self::U16 => format!("optional int32 {name} (INTEGER(16,false));"),
            Self::U32 => format!("optional int32 {name} (INTEGER(32,false));"),
            Self::U64 => format!("optional int64 {name} (INTEGER(64,false));"),
            Self::Time => format!("optional int64 {name} (TIMESTAMP(MILLIS,true));"),
            Self::Text => format!("optional binary {name} (STRING);"),
            Self::Texts => format!(
                "required group {name} (LIST) {{ repeated group list {{ required binary element \
                 (STRING); }} }}"
            ),
            Self::Uuid => format!("optional fixed_len_byte_array(16) {name} (UUID);"),
        }
    }
}

/// What [`CSV_COLUMNS`] hold, in their order.
const KINDS: [Kind; CSV_COLUMNS.len()] = {
    use Kind::{Bool, Text, Texts, Time, U8, U16, U32, U64, Uuid};
    [
        U64, Uuid, Text, Text, Time, Time, Time, Time, Text,
        U8, // record_id to protocol_number
        Text, U16, Text, Text, // source
        Text, U16, Text, Text, // destination
        Text, U8, U8, // initiator, ICMP
        Text, Text, Text, Text, Texts, Text, // peer
        Text, Bool, Text, U32, // verdict
        U64, U64, U64, U64, // window
        U64, U64, U64, U64, // total
        U8, U8, Text, Bool, // flags, end, overflow
    ]
};

/// The values of a column in a block; which rows have one is in the levels.
#[derive(Debug)]
enum Values {
    Bool(Vec<bool>),
    Int(Vec<i32>),
    Long(Vec<i64>),
    Text(Vec<ByteArray>),
    Uuid(Vec<FixedLenByteArray>),
}

#[derive(Debug)]
struct Column {
    values: Values,
    /// 1 where there is a value.
    defined: Vec<i16>,
    /// 1 where a list goes on; empty where there are no lists.
    repeated: Vec<i16>,
    /// The text before, which is often the next one too and then shares its memory.
    last: Option<ByteArray>,
}

impl Column {
    fn new(kind: Kind) -> Self {
        let values = match kind {
            Kind::Bool => Values::Bool(Vec::new()),
            Kind::U8 | Kind::U16 | Kind::U32 => Values::Int(Vec::new()),
            Kind::U64 | Kind::Time => Values::Long(Vec::new()),
            Kind::Text | Kind::Texts => Values::Text(Vec::new()),
            Kind::Uuid => Values::Uuid(Vec::new()),
        };
        Self { values, defined: Vec::new(), repeated: Vec::new(), last: None }
    }

    fn push(&mut self, cell: Cell<'_>) {
        match (&mut self.values, cell) {
            (_, Cell::Null) => {
                self.defined.push(0);
                return;
            }
            (Values::Bool(values), Cell::Bool(value)) => values.push(value),
            // Unsigned numbers stand in signed ones, bit by bit; the schema says so.
            (Values::Int(values), Cell::Number(value)) => {
                let value = u32::try_from(value).expect("the column is as wide as its field");
                values.push(value.cast_signed());
            }
            (Values::Long(values), Cell::Number(value)) => values.push(value.cast_signed()),
            (Values::Long(values), Cell::Time(ms)) => values.push(ms),
            (Values::Text(_), Cell::Text(text)) => self.push_text(text),
            (Values::Text(_), Cell::Texts(texts)) => {
                for (index, text) in texts.iter().enumerate() {
                    self.push_text(text);
                    self.defined.push(1);
                    self.repeated.push(i16::from(index > 0));
                }
                if texts.is_empty() {
                    self.defined.push(0);
                    self.repeated.push(0);
                }
                return;
            }
            (Values::Uuid(values), Cell::Uuid(bytes)) => values.push(bytes.to_vec().into()),
            (_, cell) => unreachable!("{cell:?} is not of its column's kind"),
        }
        self.defined.push(1);
    }

    fn push_text(&mut self, text: &str) {
        let Values::Text(values) = &mut self.values else {
            unreachable!("only columns of text are given texts")
        };
        let known = self.last.take().filter(|last| last.data() == text.as_bytes());
        let value = known.unwrap_or_else(|| ByteArray::from(text.as_bytes().to_vec()));
        self.last = Some(value.clone());
        values.push(value);
    }

    /// Writes the block's values and forgets them.
    fn write(&mut self, to: &mut SerializedColumnWriter<'_>) -> Result<(), ParquetError> {
        let Self { values, defined, repeated, last: _ } = self;
        let levels = Some(&defined[..]);
        let lists = Some(&repeated[..]).filter(|levels| !levels.is_empty());
        match values {
            Values::Bool(values) => {
                to.typed::<BoolType>().write_batch(values, levels, lists)?;
                values.clear();
            }
            Values::Int(values) => {
                to.typed::<Int32Type>().write_batch(values, levels, lists)?;
                values.clear();
            }
            Values::Long(values) => {
                to.typed::<Int64Type>().write_batch(values, levels, lists)?;
                values.clear();
            }
            Values::Text(values) => {
                to.typed::<ByteArrayType>().write_batch(values, levels, lists)?;
                values.clear();
            }
            Values::Uuid(values) => {
                to.typed::<FixedLenByteArrayType>().write_batch(values, levels, lists)?;
                values.clear();
            }
        }
        defined.clear();
        repeated.clear();
        Ok(())
    }
}

/// A value of a record.
#[derive(Debug)]
enum Cell<'a> {
    Null,
    Bool(bool),
    Number(u64),
    /// Unix milliseconds.
    Time(i64),
    Text(&'a str),
    Texts(&'a [String]),
    Uuid([u8; 16]),
}

impl<'a> Cell<'a> {
    fn number(value: Option<impl Into<u64>>) -> Self {
        value.map_or(Self::Null, |value| Self::Number(value.into()))
    }

    fn text(value: Option<&'a str>) -> Self {
        value.map_or(Self::Null, Self::Text)
    }
}

/// A Parquet file that is being written.
pub(super) struct Blocks<W: Write + Send> {
    file: SerializedFileWriter<W>,
    columns: Vec<Column>,
    /// In the block so far.
    records: usize,
    /// Of a whole block.
    block: usize,
}

impl<W: Write + Send> Blocks<W> {
    pub(super) fn begin(out: W) -> io::Result<Self> {
        Self::of(BLOCK, out)
    }

    /// With so many records a block.
    fn of(block: usize, out: W) -> io::Result<Self> {
        let columns = CSV_COLUMNS.iter().zip(KINDS).map(|(name, kind)| kind.column(name));
        let schema = format!("message flowd {{ {} }}", columns.collect::<Vec<_>>().join(" "));
        let schema = parse_message_type(&schema).expect("the schema is fixed");
        let properties = WriterProperties::builder()
            .set_created_by(concat!("flowd ", env!("CARGO_PKG_VERSION")).to_owned())
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            // No value stands in two records.
            .set_column_dictionary_enabled(ColumnPath::from("record_id"), false)
            .build();
        let file =
            SerializedFileWriter::new(out, Arc::new(schema), Arc::new(properties)).map_err(io)?;
        let columns = KINDS.into_iter().map(Column::new).collect();
        Ok(Self { file, columns, records: 0, block })
    }

    pub(super) fn record(&mut self, record: &Record) -> io::Result<()> {
        // What the cells of addresses borrow.
        let texts = Texts::of(record);
        let cells = cells(record, &texts);
        for (column, cell) in self.columns.iter_mut().zip(cells) {
            column.push(cell);
        }
        self.records += 1;
        if self.records == self.block { self.write() } else { Ok(()) }
    }

    pub(super) fn end(mut self) -> io::Result<W> {
        if self.records > 0 {
            self.write()?;
        }
        let mut out = self.file.into_inner().map_err(io)?;
        out.flush()?;
        Ok(out)
    }

    fn write(&mut self) -> io::Result<()> {
        let mut group = self.file.next_row_group().map_err(io)?;
        for column in &mut self.columns {
            let next = group.next_column().map_err(io)?;
            let mut writer = next.expect("the schema has a column for each");
            column.write(&mut writer).map_err(io)?;
            writer.close().map_err(io)?;
        }
        group.close().map_err(io)?;
        self.records = 0;
        Ok(())
    }
}

/// Addresses as text.
struct Texts {
    src: Option<String>,
    dst: Option<String>,
    endpoint: Option<String>,
}

impl Texts {
    fn of(record: &Record) -> Self {
        let ip = |end: &Endpoint| end.ip.map(|ip| ip.to_string());
        let endpoint = record.peer.as_ref().and_then(|peer| peer.endpoint);
        Self {
            src: ip(&record.src),
            dst: ip(&record.dst),
            endpoint: endpoint.map(|endpoint| endpoint.to_string()),
        }
    }
}

/// A record in the order of [`CSV_COLUMNS`].
fn cells<'a>(record: &'a Record, texts: &'a Texts) -> [Cell<'a>; CSV_COLUMNS.len()] {
    let Record {
        record_id,
        flow_id,
        gateway,
        interface,
        window_start,
        window_end,
        first_seen,
        last_seen,
        protocol,
        protocol_number,
        src,
        dst,
        initiator,
        icmp,
        peer,
        verdict,
        enforced,
        rule,
        policy_revision,
        counters,
        total,
        tcp_flags,
        end_reason,
        overflow,
    } = record;
    let name = |name: &'a Option<String>| Cell::text(name.as_deref());
    let who = |of: fn(&Identity) -> Option<&str>| Cell::text(peer.as_ref().and_then(of));
    let number = |value: u64| Cell::Number(value);
    let Counters { rx_packets, rx_bytes, tx_packets, tx_bytes } = *counters;
    [
        Cell::number(*record_id),
        Cell::Uuid(flow_id.0.into_bytes()),
        Cell::Text(gateway),
        Cell::Text(interface),
        Cell::Time(window_start.0),
        Cell::Time(window_end.0),
        Cell::Time(first_seen.0),
        Cell::Time(last_seen.0),
        Cell::Text(protocol),
        number((*protocol_number).into()),
        Cell::text(texts.src.as_deref()),
        Cell::number(src.port),
        name(&src.peer),
        name(&src.resource),
        Cell::text(texts.dst.as_deref()),
        Cell::number(dst.port),
        name(&dst.peer),
        name(&dst.resource),
        Cell::Text(initiator.word()),
        Cell::number(icmp.map(|icmp| icmp.r#type)),
        Cell::number(icmp.map(|icmp| icmp.code)),
        who(|peer| Some(&peer.public_key)),
        who(|peer| Some(&peer.name)),
        who(|peer| peer.user.as_deref()),
        who(|peer| peer.device.as_deref()),
        Cell::Texts(peer.as_ref().map_or(&[], |peer| &peer.groups)),
        Cell::text(texts.endpoint.as_deref()),
        Cell::Text(verdict.word()),
        Cell::Bool(*enforced),
        name(rule),
        number((*policy_revision).into()),
        number(rx_packets),
        number(rx_bytes),
        number(tx_packets),
        number(tx_bytes),
        number(total.rx_packets),
        number(total.rx_bytes),
        number(total.tx_packets),
        number(total.tx_bytes),
        number(tcp_flags.rx.into()),
        number(tcp_flags.tx.into()),
        Cell::text(end_reason.map(|reason| reason.word())),
        Cell::Bool(*overflow),
    ]
}

/// The error of the output where it is one, so that a pipe that closes is known as that.
fn io(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(source) => match source.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(source) => io::Error::other(source),
        },
        error => io::Error::other(error),
    }
}

#[cfg(test)]
mod tests {
    use parquet::{
        file::reader::{FileReader as _, SerializedFileReader},
        record::{Field, RowAccessor as _},
    };

    use super::Blocks;
    use crate::{
        export::sample,
        wire::{CSV_COLUMNS, Record, csv_row},
    };

    /// A file with blocks of three records.
    fn file(records: impl IntoIterator<Item = Record>) -> SerializedFileReader<bytes::Bytes> {
        let mut blocks = Blocks::of(3, Vec::new()).unwrap();
        for record in records {
            blocks.record(&record).unwrap();
        }
        SerializedFileReader::new(bytes::Bytes::from(blocks.end().unwrap())).unwrap()
    }

    /// A field as CSV has it, but for the apostrophe.
    fn as_text(field: &Field) -> String {
        match field {
            Field::Null => String::new(),
            Field::Str(text) => text.clone(),
            Field::TimestampMillis(ms) => crate::wire::Timestamp(*ms).to_string(),
            Field::ListInternal(list) => {
                list.elements().iter().map(as_text).collect::<Vec<_>>().join(" ")
            }
            Field::Bytes(bytes) => {
                uuid::Uuid::from_slice(bytes.data()).unwrap().hyphenated().to_string()
            }
            other => other.to_string(),
        }
    }

    #[test]
    fn every_column_has_what_csv_has() {
        let records: Vec<_> = sample::all().into_iter().map(|(_, record)| record).collect();
        let file = file(records.clone());
        let rows: Vec<_> = file.get_row_iter(None).unwrap().map(Result::unwrap).collect();
        assert_eq!(rows.len(), records.len());
        for (row, record) in rows.iter().zip(&records) {
            let cells = csv_row(record);
            for ((name, field), (column, cell)) in
                row.get_column_iter().zip(CSV_COLUMNS.iter().zip(&cells))
            {
                assert_eq!(name, column);
                let text = as_text(field);
                assert!(text == *cell || format!("'{text}") == *cell, "{name}: {text} {cell}");
            }
        }
    }

    #[test]
    fn a_file_of_several_blocks_has_every_record_once() {
        for (count, blocks) in [(0, 0), (2, 1), (3, 1), (6, 2), (7, 3)] {
            let file = file((1..=count).map(|id| Record { record_id: Some(id), ..sample::tcp() }));
            assert_eq!(file.num_row_groups(), blocks, "{count}");
            let rows = file.get_row_iter(None).unwrap();
            let ids: Vec<_> = rows.map(|row| row.unwrap().get_ulong(0).unwrap()).collect();
            assert_eq!(ids, (1..=count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn counters_above_the_signed_range_stay_what_they_are() {
        let mut record = sample::tcp();
        record.counters.rx_bytes = u64::MAX;
        let file = file([record]);
        let row = file.get_row_iter(None).unwrap().next().unwrap().unwrap();
        let at = CSV_COLUMNS.iter().position(|name| *name == "rx_bytes").unwrap();
        assert_eq!(row.get_ulong(at).unwrap(), u64::MAX);
    }
}
