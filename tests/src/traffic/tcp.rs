//! TCP: how the kernel cuts it is its own business, so packets are read from the interface; the
//! payload is known.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    thread,
    time::Duration,
};

use super::{End, raw};
use crate::namespace::Namespace;

/// An established connection.
#[derive(Debug)]
pub struct Connection {
    /// Opened it.
    pub client: TcpStream,
    /// Accepted it.
    pub server: TcpStream,
}

impl Connection {
    /// `client` opens to `port` of `server`; port 0 is the kernel's choice.
    pub fn open(client: End<'_>, server: End<'_>, port: u16) -> Self {
        let listener = server
            .0
            .run(|| TcpListener::bind(SocketAddr::new(server.1, port)))
            .expect("the port is free");
        let address = listener.local_addr().expect("bound");
        let client = client.0.run(|| TcpStream::connect(address)).expect("it listens");
        let (server, _) = listener.accept().expect("it connected");
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a deadline");
            stream.set_nodelay(true).expect("an open socket");
        }
        Self { client, server }
    }

    /// Ports of client and server.
    pub fn ports(&self) -> (u16, u16) {
        let port = |stream: &TcpStream| stream.local_addr().expect("open").port();
        (port(&self.client), port(&self.server))
    }

    /// So many bytes each way, `up` first, received whole.
    pub fn transfer(&mut self, up: usize, down: usize) {
        pour(&mut self.client, &mut self.server, up);
        pour(&mut self.server, &mut self.client, down);
    }

    /// FIN both ways, the client's first.
    pub fn close(mut self) {
        self.client.shutdown(std::net::Shutdown::Write).expect("open");
        assert_eq!(self.server.read(&mut [0]).expect("the FIN arrives"), 0);
        self.server.shutdown(std::net::Shutdown::Write).expect("open");
        assert_eq!(self.client.read(&mut [0]).expect("the FIN arrives"), 0);
    }

    /// The client resets.
    pub fn reset(mut self) {
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        raw::set_option(self.client.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, &linger)
            .expect("an open socket");
        drop(self.client);
        self.server.read(&mut [0]).expect_err("the reset arrives");
    }
}

fn pour(from: &mut TcpStream, to: &mut TcpStream, bytes: usize) {
    thread::scope(|scope| {
        scope.spawn(move || {
            let chunk = [0x77; 65_536];
            let mut left = bytes;
            while left > 0 {
                let part = left.min(chunk.len());
                from.write_all(&chunk[..part]).expect("the other side reads");
                left -= part;
            }
        });
        let mut buffer = [0; 65_536];
        let mut left = bytes;
        while left > 0 {
            let room = left.min(buffer.len());
            let got = to.read(&mut buffer[..room]).expect("the other side writes");
            assert_ne!(got, 0, "{left} bytes before the end");
            left -= got;
        }
    });
}

/// Segments that TCP of one namespace has sent, super-packets as their segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentsSent {
    /// For the first time: data, acknowledgements, SYN, FIN.
    pub first: u64,
    /// Again.
    pub again: u64,
}

impl SegmentsSent {
    /// Since the namespace began (`Tcp:` in `/proc/net/snmp`: `OutSegs`, which counts no
    /// retransmission, and `RetransSegs`).
    pub fn of(namespace: &Namespace) -> Self {
        let table = namespace.output("cat", &["/proc/self/net/snmp"]);
        let mut lines = table.lines().filter_map(|line| line.strip_prefix("Tcp: "));
        let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
        let value = |wanted: &str| {
            let index = names.split(' ').position(|name| name == wanted).expect("a counter");
            values.split(' ').nth(index).expect("a value").parse().expect("a number")
        };
        Self { first: value("OutSegs"), again: value("RetransSegs") }
    }

    /// Since an earlier look.
    pub fn since(self, earlier: Self) -> Self {
        Self { first: self.first - earlier.first, again: self.again - earlier.again }
    }
}
