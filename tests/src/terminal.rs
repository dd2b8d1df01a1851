//! Runs a program on a pseudo-terminal and reads the screen of this terminal.

#![allow(unsafe_code)] // calls openpty(3), and sets the controlling terminal of a child

use crate::run::wait_for;
use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZero;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

/// A running program on a pseudo-terminal, with the keyboard and the screen of this terminal.
pub struct Terminal {
    child: Child,
    keyboard: File,
    screen: Arc<Mutex<vt100::Parser>>,
}

impl Terminal {
    /// Starts `command` on a terminal that has `rows` rows and `columns` columns.
    pub fn start(command: &mut Command, rows: u16, columns: u16) -> Terminal {
        let (ours, theirs) = open(rows, columns);
        let own = |fd: &OwnedFd| Stdio::from(fd.try_clone().expect("a descriptor is free"));
        command.stdin(own(&theirs)).stdout(own(&theirs)).stderr(own(&theirs)).env("TERM", "xterm-256color");
        // SAFETY: the child makes only system calls between fork and exec.
        unsafe { command.pre_exec(take_terminal) };
        let child = command.spawn().expect("the program is there");
        drop(theirs);
        let screen = Arc::new(Mutex::new(vt100::Parser::new(cells(rows), cells(columns), 0)));
        let mut output = File::from(ours.try_clone().expect("a descriptor is free"));
        let shown = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut buffer = [0; 16384];
            // If the program on the terminal has ended, a read gives an error and not an end of file.
            while let Ok(n @ 1..) = output.read(&mut buffer) {
                shown.lock().expect("no reader panics").process(&buffer[..n]);
            }
        });
        Terminal { child, keyboard: File::from(ours), screen }
    }

    /// Sends `keys` to the program, as if a user typed them.
    pub fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("the program reads its terminal");
    }

    /// The text of the screen, line by line.
    pub fn screen(&self) -> String {
        self.screen.lock().expect("no reader panics").screen().contents()
    }

    /// Whether any character on the screen has a colour.
    pub fn has_colour(&self) -> bool {
        let parser = self.screen.lock().expect("no reader panics");
        let screen = parser.screen();
        let (rows, columns) = screen.size();
        let is_coloured = |row, column| {
            screen.cell(row, column).is_some_and(|cell| cell.fgcolor() != vt100::Color::Default)
        };
        (0..rows.get()).any(|row| (0..columns.get()).any(|column| is_coloured(row, column)))
    }

    /// Waits until `is_wanted` returns true for the text of the screen, and returns this text.
    pub fn wait_for(&self, what: &str, is_wanted: impl Fn(&str) -> bool) -> String {
        let mut last = String::new();
        wait_for(&format!("{what} on the screen"), || {
            last = self.screen();
            is_wanted(&last)
        });
        last
    }

    /// Changes the size of the terminal, as if a user resized the window.
    pub fn resize(&mut self, rows: u16, columns: u16) {
        self.screen.lock().expect("no reader panics").screen_mut().set_size(cells(rows), cells(columns));
        let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the descriptor is a terminal, and `size` lives through the call.
        let done = unsafe { libc::ioctl(self.keyboard.as_raw_fd(), libc::TIOCSWINSZ, &size) };
        assert_eq!(done, 0, "a terminal has a size");
    }

    /// Waits for the end of the program.
    pub fn finish(mut self) -> ExitStatus {
        let mut status = None;
        wait_for("the end of the program on the terminal", || {
            status = self.child.try_wait().expect("our own child can be waited for");
            status.is_some()
        });
        status.expect("waited for")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // If the program has already ended, `kill` fails, and the error of `kill` is ignored.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn cells(number: u16) -> NonZero<u16> {
    NonZero::new(number).expect("a terminal has rows and columns")
}

fn open(rows: u16, columns: u16) -> (OwnedFd, OwnedFd) {
    let (mut ours, mut theirs) = (-1, -1);
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: all pointers are null or lead to local variables.
    let done =
        unsafe { libc::openpty(&mut ours, &mut theirs, std::ptr::null_mut(), std::ptr::null(), &size) };
    assert_eq!(done, 0, "a pseudo-terminal is free: {}", std::io::Error::last_os_error());
    for fd in [ours, theirs] {
        // SAFETY: `fcntl` takes no pointers here.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    // SAFETY: openpty opened the descriptor `ours`, and no other code owns it.
    let ours = unsafe { OwnedFd::from_raw_fd(ours) };
    // SAFETY: openpty opened the descriptor `theirs`, and no other code owns it.
    let theirs = unsafe { OwnedFd::from_raw_fd(theirs) };
    (ours, theirs)
}

/// Runs in the child: starts a terminal session (setsid) whose controlling terminal is on descriptor 0.
fn take_terminal() -> std::io::Result<()> {
    // SAFETY: `setsid` takes no pointers.
    if unsafe { libc::setsid() } < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: this `ioctl` takes no pointers.
    if unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) } < 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}
