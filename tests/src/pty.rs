//! A program on a terminal of its own, which is read as a person reads it.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    num::NonZeroU16,
    os::{
        fd::{AsRawFd as _, FromRawFd as _},
        unix::process::CommandExt as _,
    },
    process::{Child, Command, ExitStatus},
    ptr,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Instant,
};

use crate::wait;

/// The terminal, and the program, which ends with it.
pub struct Pty {
    child: Child,
    /// What a keyboard is connected to.
    keyboard: File,
    /// Keeps the terminal alive after the program.
    line: File,
    screen: Arc<Mutex<vt100::Parser>>,
}

/// Columns and rows.
pub type Size = (u16, u16);

/// Makes the calling process the first one of a session, on the terminal that it reads.
fn lead_a_session() -> io::Result<()> {
    // SAFETY: it takes nothing.
    let session = unsafe { libc::setsid() };
    if session < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: this request takes a number.
    let terminal = unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) };
    if terminal < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

impl Pty {
    /// Starts a program as the first one of a session on a new terminal.
    pub fn start(command: &mut Command, size: Size) -> Self {
        let (keyboard, line) = open(size);
        let end = || line.try_clone().expect("a descriptor");
        command.stdin(end()).stdout(end()).stderr(end()).env("TERM", "xterm-256color");
        command.env_remove("NO_COLOR");
        // SAFETY: between fork and exec the function makes two system calls and nothing else.
        unsafe { command.pre_exec(lead_a_session) };
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let [columns, rows] = [size.0, size.1].map(nonzero);
        let screen = Arc::new(Mutex::new(vt100::Parser::new(rows, columns, 0)));
        let (shown, mut output) = (screen.clone(), keyboard.try_clone().expect("a descriptor"));
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // Fails when nobody has the terminal open any more.
            while let Ok(length @ 1..) = output.read(&mut buffer) {
                shown.lock().unwrap_or_else(PoisonError::into_inner).process(&buffer[..length]);
            }
        });
        Self { child, keyboard, line, screen }
    }

    /// Types.
    pub fn send(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("the terminal is open");
    }

    /// Lines on the screen.
    pub fn text(&self) -> String {
        self.look(vt100::Screen::contents)
    }

    /// What the terminal says of itself.
    pub fn look<T>(&self, look: impl FnOnce(&vt100::Screen) -> T) -> T {
        look(self.screen.lock().unwrap_or_else(PoisonError::into_inner).screen())
    }

    /// Waits until the screen is as wanted; panics with what it shows when it does not get so.
    pub fn until(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + wait::SOON;
        wait::until_some(2 * wait::SOON, what, || {
            let text = self.text();
            assert!(Instant::now() < end, "waited in vain: {what}\n{text}");
            wanted(&text).then_some(text)
        })
    }

    /// Another size, as when somebody pulls at a corner of the window.
    pub fn resize(&mut self, size: Size) {
        let mut screen = self.screen.lock().unwrap_or_else(PoisonError::into_inner);
        screen.screen_mut().set_size(nonzero(size.1), nonzero(size.0));
        self.set_window(size);
    }

    /// How the terminal treats what is typed: flags, and control characters.
    pub fn modes(&self) -> ([u32; 4], Vec<u8>) {
        // SAFETY: a struct of numbers may be all zeroes.
        let mut modes: libc::termios = unsafe { std::mem::zeroed() };
        // SAFETY: the call fills one struct of this type.
        let done = unsafe { libc::tcgetattr(self.line.as_raw_fd(), &mut modes) };
        assert_eq!(done, 0, "{}", io::Error::last_os_error());
        let flags = [modes.c_iflag, modes.c_oflag, modes.c_cflag, modes.c_lflag];
        (flags, modes.c_cc.to_vec())
    }

    /// Sends the program a signal.
    pub fn signal(&self, signal: libc::c_int) {
        let pid = libc::pid_t::try_from(self.child.id()).expect("pids fit");
        // SAFETY: the process is our child and not yet waited for, so the id is still its own.
        let sent = unsafe { libc::kill(pid, signal) };
        assert_eq!(sent, 0, "the program is running");
    }

    /// How it ends by a signal when nobody reads what it writes any more, of which a larger window
    /// makes it write more than the terminal holds.
    pub fn ended_unread(&mut self, size: Size, signal: libc::c_int) -> ExitStatus {
        let screen = self.screen.clone();
        let _unread = screen.lock().unwrap_or_else(PoisonError::into_inner);
        self.set_window(size);
        let path = format!("/proc/{}/syscall", self.child.id());
        wait::until(wait::SOON, "it is held up by what it writes", || {
            let call = fs::read_to_string(&path).unwrap_or_default();
            call.split(' ').next() == Some(&libc::SYS_write.to_string())
        });
        self.signal(signal);
        self.ended()
    }

    fn set_window(&self, size: Size) {
        let window = window(size);
        // SAFETY: the call reads one struct of this type.
        let done = unsafe { libc::ioctl(self.line.as_raw_fd(), libc::TIOCSWINSZ, &window) };
        assert_eq!(done, 0, "{}", io::Error::last_os_error());
    }

    /// How it ended.
    pub fn ended(&mut self) -> ExitStatus {
        let Self { child, .. } = self;
        wait::until_some(wait::SOON, "the program ends", || child.try_wait().expect("our child"))
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        let _ = self.child.kill(); // It may have ended.
        let _ = self.child.wait();
    }
}

fn nonzero(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).expect("a terminal has a size")
}

fn window((columns, rows): Size) -> libc::winsize {
    libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// Both ends of a new terminal.
fn open(size: Size) -> (File, File) {
    let (mut keyboard, mut line) = (-1, -1);
    let window = window(size);
    // SAFETY: the call writes two descriptors and reads one struct; where null, it takes defaults.
    let done =
        unsafe { libc::openpty(&mut keyboard, &mut line, ptr::null_mut(), ptr::null(), &window) };
    assert_eq!(done, 0, "a terminal: {}", io::Error::last_os_error());
    [keyboard, line]
        .map(|fd| {
            // SAFETY: the call takes numbers.
            let done = unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
            assert_eq!(done, 0, "{}", io::Error::last_os_error());
            // SAFETY: the descriptor is new and nobody else's.
            unsafe { File::from_raw_fd(fd) }
        })
        .into()
}
