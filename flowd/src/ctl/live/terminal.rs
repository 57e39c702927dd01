//! The terminal while the view has it, and how it gets back what it was.
//!
//! - entered: raw, on the alternate screen, without a cursor
//! - left: on every way out, once: at the end, on an error, before a panic tells what it is, and
//!   while the shell has stopped us

use std::{
    io::{self, Stdout, Write as _},
    mem::ManuallyDrop,
    sync::atomic::{AtomicBool, Ordering},
};

use ratatui::{
    Terminal,
    backend::CrosstermBackend,
    crossterm::{
        cursor::Show,
        execute,
        terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
    },
    layout::{Position, Rect},
};

/// Whether the terminal is ours.
static IS_ENTERED: AtomicBool = AtomicBool::new(false);

/// The terminal, until this is dropped.
pub(super) struct Full {
    /// Never dropped: that would show the cursor once more, and panic where the terminal has gone.
    pub(super) screen: ManuallyDrop<Terminal<CrosstermBackend<Stdout>>>,
}

impl Full {
    /// Takes the terminal, and sees to it that a panic gives it back.
    pub(super) fn enter() -> io::Result<Self> {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            leave();
            before(panic);
        }));
        take()?;
        // Whatever fails from here on.
        let screen = Terminal::new(CrosstermBackend::new(io::stdout()));
        match screen {
            Ok(screen) => Ok(Self { screen: ManuallyDrop::new(screen) }),
            Err(error) => {
                leave();
                Err(error)
            }
        }
    }

    /// Gives the terminal back and stops, with everything that was started together, as the key
    /// does in other programs; takes it again when the shell goes on with us.
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        leave();
        // SAFETY: the call takes two numbers; our own process group is named by zero.
        let stopped = unsafe { libc::kill(0, libc::SIGTSTP) };
        if stopped != 0 {
            // The terminal is taken again all the same.
            let _not_stopped = io::Error::last_os_error();
        }
        self.take_again()
    }

    /// Sets up the terminal as if it were another one, and forgets what is on it.
    pub(super) fn take_again(&mut self) -> io::Result<()> {
        leave();
        take()?;
        self.repaint()
    }

    /// Clears the screen; everything is painted next time. ([`Terminal::clear`] would ask the
    /// terminal where its cursor is, and fail where that does not answer.)
    pub(super) fn repaint(&mut self) -> io::Result<()> {
        let size = self.screen.size()?;
        self.screen.resize(Rect::from((Position::ORIGIN, size)))
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        leave();
    }
}

/// Ends the process though the terminal takes nothing more: it is not raw any more then.
pub(super) fn give_up() -> ! {
    let _gone = disable_raw_mode();
    std::process::exit(1)
}

fn take() -> io::Result<()> {
    enable_raw_mode()?;
    IS_ENTERED.store(true, Ordering::SeqCst);
    execute!(io::stdout(), EnterAlternateScreen).inspect_err(|_| leave())
}

/// Once for each time that it was taken. A terminal that has gone needs nothing.
fn leave() {
    if IS_ENTERED.swap(false, Ordering::SeqCst) {
        let _gone = execute!(io::stdout(), LeaveAlternateScreen, Show);
        let _gone = disable_raw_mode();
        let _gone = io::stdout().flush();
    }
}
