//! The programs that the demo's hosts run: a web and DNS server, and clients that use it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Subcommand;

const PAGE: &str = "<h1>The intranet</h1>\n";
const TIMEOUT: Duration = Duration::from_secs(5);

/// How much is sent at a time, and how often: some 3 MB/s, which every machine carries.
const PIECE: usize = 64 * 1024;
const PACE: Duration = Duration::from_millis(20);

/// What a host does.
#[derive(Subcommand)]
pub(crate) enum Role {
    /// Answers on TCP port 80 and UDP port 53
    Serve,
    /// Reads a page
    Web { server: IpAddr },
    /// Asks for the address of a name
    Dns { server: IpAddr, name: String },
    /// Reads a long answer
    Download {
        server: IpAddr,
        #[arg(long)]
        milliseconds: u64,
    },
}

impl Role {
    /// Plays the role to its end; a server has none.
    pub(crate) fn play(self) -> Result<()> {
        match self {
            Self::Serve => serve(),
            Self::Web { server } => {
                let bytes = get(server, "/")?;
                ensure!(bytes == PAGE.len() as u64, "the page has {bytes} bytes");
                Ok(())
            }
            Self::Dns { server, name } => ask(server, &name),
            Self::Download { server, milliseconds } => {
                let bytes = get(server, &format!("/backup/{milliseconds}"))?;
                ensure!(bytes > 0, "the backup is empty");
                Ok(())
            }
        }
    }
}

fn serve() -> Result<()> {
    let dns = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 53)).context("cannot listen on port 53")?;
    let web = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 80)).context("cannot listen on port 80")?;
    thread::spawn(move || answer_dns(&dns));
    for client in web.incoming() {
        let client = client?;
        // A client that hangs up early is the client's matter.
        thread::spawn(move || drop(answer_web(&client)));
    }
    Ok(())
}

fn answer_dns(socket: &UdpSocket) -> io::Result<()> {
    let mut buffer = [0; 512];
    loop {
        let (length, client) = socket.recv_from(&mut buffer)?;
        if length < 12 {
            continue;
        }
        let mut answer = buffer[..length].to_vec();
        // A response, recursion available, with one answer.
        answer[2..4].copy_from_slice(&[0x81, 0x80]);
        answer[6..8].copy_from_slice(&[0, 1]);
        // The name of the question, type A, class IN, 60 s, four bytes.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 99, 0, 10]);
        socket.send_to(&answer, client)?;
    }
}

fn answer_web(mut client: &TcpStream) -> io::Result<()> {
    let mut request = String::new();
    let mut lines = BufReader::new(client);
    lines.read_line(&mut request)?;
    let mut header = String::new();
    while lines.read_line(&mut header)? > 2 {
        header.clear();
    }
    let path = request.split(' ').nth(1).unwrap_or("/");
    client.write_all(b"HTTP/1.0 200 OK\r\nConnection: close\r\n\r\n")?;
    let Some(milliseconds) = path.strip_prefix("/backup/").and_then(|time| time.parse().ok())
    else {
        return client.write_all(PAGE.as_bytes());
    };
    let end = Instant::now() + Duration::from_millis(milliseconds);
    while Instant::now() < end {
        client.write_all(&[b'x'; PIECE])?;
        thread::sleep(PACE);
    }
    Ok(())
}

/// Reads a page and returns its length.
fn get(server: IpAddr, path: &str) -> Result<u64> {
    let mut server = TcpStream::connect_timeout(&(server, 80).into(), TIMEOUT)
        .with_context(|| format!("cannot connect to {server}"))?;
    server.set_read_timeout(Some(TIMEOUT))?;
    write!(server, "GET {path} HTTP/1.0\r\nHost: intranet.example\r\n\r\n")?;
    let mut answer = BufReader::new(server);
    let mut header = String::new();
    while answer.read_line(&mut header)? > 2 {
        header.clear();
    }
    Ok(io::copy(&mut answer.by_ref(), &mut io::sink())?)
}

fn ask(server: IpAddr, name: &str) -> Result<()> {
    let socket = UdpSocket::bind(("0.0.0.0", 0))?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    // Id 1, recursion desired, one question.
    let mut question = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        question.push(u8::try_from(label.len()).context("a label has at most 63 letters")?);
        question.extend(label.as_bytes());
    }
    // The root, type A, class IN.
    question.extend([0, 0, 1, 0, 1]);
    socket.send_to(&question, (server, 53))?;
    let mut answer = [0; 512];
    let (length, _server) = socket.recv_from(&mut answer).context("no answer from the DNS")?;
    ensure!(length > question.len(), "the DNS knows no {name}");
    Ok(())
}
