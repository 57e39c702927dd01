//! nfdump on the same records, where it is installed: its collector gets them as IPFIX (RFC 7011) over
//! loopback, no faster than it takes them.

use std::{
    error::Error,
    fs,
    net::{IpAddr, Ipv4Addr, UdpSocket},
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use flowd::wire;

use super::{
    filled::{Filled, GATEWAY, bytes, cool, records},
    questions::{Answered, Question, median},
};

/// Information elements (IANA) and their lengths; addresses, which come first, are of the family.
const ADDRESSES: [[u16; 2]; 2] = [[8, 12], [27, 28]];
const ELEMENTS: [(u16, u16); 8] =
    [(7, 2), (11, 2), (4, 1), (6, 1), (2, 8), (1, 8), (152, 8), (153, 8)];
/// Template of IPv4; that of IPv6 follows.
const TEMPLATE: u16 = 256;
const MESSAGE_BYTES: usize = 1_400;
/// What the collector has not read yet, of some 200 KB that its socket takes.
const WAITING_BYTES: u64 = 50_000;
/// Messages between two looks at that.
const BURST: usize = 16;
const PATIENCE: Duration = Duration::from_secs(60);

/// What it told.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) version: String,
    /// Records a second of one core.
    pub(super) rate: f64,
    pub(super) bytes: u64,
    /// In the order of the questions, of those that it can be asked.
    pub(super) answers: Vec<Option<Answered>>,
}

/// Has the collector take everything, and asks; `None` where it is not installed.
pub(super) fn ask(filled: &Filled, questions: &[Question]) -> Result<Option<Told>, Box<dyn Error>> {
    let Ok(version) = Command::new("nfdump").arg("-V").output() else { return Ok(None) };
    let version = String::from_utf8_lossy(&version.stdout).trim().to_owned();
    let directory = filled.directory.path().join("nfdump");
    fs::create_dir(&directory)?;
    let mut collector = Collector::start(&directory)?;
    let mut batches = [Batch::new(0), Batch::new(1)];
    for record in records(filled.count) {
        let record = wire::Record::new(GATEWAY, &record);
        let (Some(src), Some(dst)) = (record.src.ip, record.dst.ip) else { continue };
        let batch = &mut batches[usize::from(src.is_ipv6() || dst.is_ipv6())];
        batch.add(&record, [src, dst]);
        if batch.is_full() {
            collector.send(batch.take())?;
        }
    }
    for batch in &mut batches {
        collector.send(batch.take())?;
    }
    let (cpu, sent) = (collector.end()?, batches.iter().map(|batch| batch.sent).sum::<u64>());
    let stored = number(&nfdump(&directory, &["-I"])?, "Flows: ")?;
    if stored != sent {
        return Err(format!("nfdump has {stored} of {sent} records").into());
    }
    let ask = |question: &Question| -> Result<Option<Answered>, Box<dyn Error>> {
        let Some(args) = &question.nfdump else { return Ok(None) };
        let args = [&["-N", "-o", "csv"][..], &args.each_ref().map(String::as_str)].concat();
        let asked = || -> Result<Duration, Box<dyn Error>> {
            let start = Instant::now();
            nfdump(&directory, &args)?;
            Ok(start.elapsed())
        };
        let answer = bytes_of(&nfdump(&directory, &args)?);
        let cold = median(&mut || cool(&directory).and_then(|()| asked()))?;
        Ok(Some(Answered { answer, warm: median(&mut || asked())?, cold }))
    };
    let answers = questions.iter().map(ask).collect::<Result<_, _>>()?;
    let rate = sent as f64 / cpu.as_secs_f64();
    Ok(Some(Told { version, rate, bytes: bytes(&directory)?, answers }))
}

fn nfdump(directory: &Path, args: &[&str]) -> Result<String, Box<dyn Error>> {
    let mut command = Command::new("nfdump");
    let Output { status, stdout, stderr } =
        command.arg("-R").arg(directory).args(args).stdin(Stdio::null()).output()?;
    if !status.success() {
        return Err(format!("nfdump {args:?}: {}", String::from_utf8_lossy(&stderr)).into());
    }
    Ok(String::from_utf8(stdout)?)
}

/// The bytes of all rows of a statistic, which an empty line ends.
fn bytes_of(csv: &str) -> u64 {
    let mut lines = csv.lines().take_while(|line| !line.is_empty());
    let names: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
    let Some(at) = names.iter().position(|name| *name == "byt") else { return 0 };
    lines.filter_map(|line| line.split(',').nth(at)?.parse::<u64>().ok()).sum()
}

/// The number behind `name`.
fn number(text: &str, name: &str) -> Result<u64, Box<dyn Error>> {
    let rest = text.split_once(name).ok_or_else(|| format!("nfdump says no `{name}`: {text}"))?.1;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    Ok(rest[..end].parse()?)
}

/// Records of one family, for one message; of two families that of the longer addresses.
struct Batch {
    family: usize,
    data: Vec<u8>,
    records: u32,
    sent: u64,
}

impl Batch {
    fn new(family: usize) -> Self {
        Self { family, data: Vec::new(), records: 0, sent: 0 }
    }

    fn add(&mut self, record: &wire::Record, ends: [IpAddr; 2]) {
        let data = &mut self.data;
        for end in ends {
            match end {
                IpAddr::V4(end) if self.family == 0 => data.extend(end.octets()),
                IpAddr::V4(end) => data.extend(end.to_ipv6_mapped().octets()),
                IpAddr::V6(end) => data.extend(end.octets()),
            }
        }
        for port in [record.src.port, record.dst.port] {
            data.extend(port.unwrap_or(0).to_be_bytes());
        }
        data.extend([record.protocol_number, 0]);
        let counters = record.counters;
        let times = [record.window_start.0, record.window_end.0].map(i64::cast_unsigned);
        for number in [counters.packets(), counters.bytes()].into_iter().chain(times) {
            data.extend(number.to_be_bytes());
        }
        self.records += 1;
    }

    fn is_full(&self) -> bool {
        self.data.len() + self.data.len() / self.records.max(1) as usize > MESSAGE_BYTES
    }

    /// A message, and none of its records any more.
    fn take(&mut self) -> (Vec<u8>, u32) {
        let mut message = Vec::with_capacity(MESSAGE_BYTES + 64);
        let addresses = ADDRESSES[self.family].map(|id| (id, [4, 16][self.family]));
        let template = TEMPLATE + u16::from(self.family == 1);
        let mut set = vec![template, (addresses.len() + ELEMENTS.len()) as u16];
        set.extend(addresses.into_iter().chain(ELEMENTS).flat_map(|(id, length)| [id, length]));
        let set: Vec<u8> = set.into_iter().flat_map(u16::to_be_bytes).collect();
        for (id, content) in [(2, &set), (template, &self.data)] {
            message.extend(u16::to_be_bytes(id));
            message.extend((content.len() as u16 + 4).to_be_bytes());
            message.extend(content);
        }
        let records = std::mem::take(&mut self.records);
        self.sent += u64::from(records);
        self.data.clear();
        (message, records)
    }
}

/// A running collector.
struct Collector {
    child: Child,
    socket: UdpSocket,
    port: u16,
    sequence: u32,
    messages: usize,
}

impl Collector {
    fn start(directory: &Path) -> Result<Self, Box<dyn Error>> {
        let port = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let mut command = Command::new("nfcapd");
        command.args(["-b", "127.0.0.1", "-p", &port.to_string(), "-z", "-t", "86400", "-w"]);
        command.arg(directory).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn()?;
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.connect((Ipv4Addr::LOCALHOST, port))?;
        let collector = Self { child, socket, port, sequence: 0, messages: 0 };
        collector.wait_for(|waiting| waiting.is_some())?;
        Ok(collector)
    }

    /// Bytes that wait to be read; `None` while nobody listens.
    fn waiting(&self) -> Result<Option<u64>, Box<dyn Error>> {
        let address = format!("0100007F:{:04X}", self.port);
        let sockets = fs::read_to_string("/proc/net/udp")?;
        let fields = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let own = fields.into_iter().find(|fields| fields.get(1) == Some(&address.as_str()));
        let queue = own.and_then(|fields| fields.get(4)?.split_once(':'));
        Ok(queue.map(|(_, received)| u64::from_str_radix(received, 16)).transpose()?)
    }

    fn wait_for(&self, done: impl Fn(Option<u64>) -> bool) -> Result<(), Box<dyn Error>> {
        let begun = Instant::now();
        while !done(self.waiting()?) {
            if begun.elapsed() > PATIENCE {
                return Err("nfcapd takes nothing".into());
            }
            thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }

    fn send(&mut self, (sets, records): (Vec<u8>, u32)) -> Result<(), Box<dyn Error>> {
        let mut message = Vec::with_capacity(sets.len() + 16);
        message.extend(10_u16.to_be_bytes());
        message.extend((sets.len() as u16 + 16).to_be_bytes());
        // When it was exported: the times of the records are their own.
        for word in [1_700_000_000, self.sequence, 1] {
            message.extend(u32::to_be_bytes(word));
        }
        message.extend(sets);
        self.sequence = self.sequence.wrapping_add(records);
        if self.messages.is_multiple_of(BURST) {
            self.wait_for(|waiting| waiting.is_some_and(|bytes| bytes < WAITING_BYTES))?;
        }
        self.messages += 1;
        self.socket.send(&message)?;
        Ok(())
    }

    /// What it took of a core, once it has read everything and written its file.
    fn end(self) -> Result<Duration, Box<dyn Error>> {
        self.wait_for(|waiting| waiting == Some(0))?;
        let pid = self.child.id().cast_signed();
        let (mut status, mut usage) = (0, std::mem::MaybeUninit::<libc::rusage>::zeroed());
        // SAFETY: the process is a child that nobody has waited for.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        // SAFETY: the same, and the kernel writes to this stack.
        let ended = unsafe { libc::wait4(pid, &raw mut status, 0, usage.as_mut_ptr()) };
        if ended != pid || status != 0 {
            return Err(format!("nfcapd ended with {status}").into());
        }
        // SAFETY: zeroes are a usage, and the kernel has filled it.
        let usage = unsafe { usage.assume_init() };
        let time = |time: libc::timeval| {
            Duration::from_secs(time.tv_sec.cast_unsigned())
                + Duration::from_micros(time.tv_usec.cast_unsigned())
        };
        Ok(time(usage.ru_utime) + time(usage.ru_stime))
    }
}
