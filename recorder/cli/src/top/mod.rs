//! `top`: a live view of a running recording.
//!
//! ```text
//! once       one snapshot as text or JSON, for a pipe or a script
//! input      the keys of the user
//! state      the rows to show, their order, and the actions of the keys
//! draw       the state on a terminal
//! ```
//! At each refresh, the viewer reads the trace file and sends one request to the collector. So the target
//! does no work for the viewer, and the recording goes on if the viewer is killed.

mod draw;
mod input;
mod once;
mod state;

use crate::args::{TopArgs, TopFormat};
use crate::commands::{FAILED, Running, progress_of, select, watch_site};
use crate::snapshot::Reader;
use edleak_collector::sys::say::say;
use edleak_collector::{Error, ErrorKind};
use input::Input;
use state::{Action, State};
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Shortest time between two reads of the trace.
const REFRESH: Duration = Duration::from_secs(1);
/// Refreshes take at most 1/`MOST_BUSY` of the viewer's time. So the viewer reads a large trace less often
/// than a small trace.
const MOST_BUSY: u32 = 10;

/// Shows the recording until the user quits. With `--once`, or if the output is not a terminal, prints one
/// snapshot of the recording and exits.
pub(crate) fn run(args: &TopArgs) -> ExitCode {
    match show(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(error);
            ExitCode::from(FAILED)
        }
    }
}

fn show(args: &TopArgs) -> Result<(), Error> {
    let is_on_terminal = io::stdout().is_terminal() && io::stdin().is_terminal();
    let is_interactive = is_on_terminal && !args.once && args.format != TopFormat::Json;
    // A terminal of this type prints the control sequences of a full screen as text.
    if is_interactive && std::env::var_os("TERM").is_some_and(|name| name == "dumb") {
        let message = "a terminal of the type `dumb` cannot show a live view";
        let remedy = "print one screen with `edleak-record top --once`";
        return Err(Error::new(ErrorKind::System, message).with_remedy(remedy));
    }
    let session = select(args.session)?;
    let mut reader = Reader::new(session.progress.trace.clone());
    if !is_interactive {
        let mut snapshot = reader.read()?;
        snapshot.sort(args.sort);
        let text = match args.format {
            TopFormat::Text => once::text(&snapshot, &session.progress, args.sort),
            TopFormat::Json => once::json(&snapshot, &session.progress),
        };
        // Ignore an error here: if the program that reads the output has closed the pipe, it does not need
        // the rest.
        let _ = io::stdout().write_all(text.as_bytes());
        return Ok(());
    }
    let state = State::new(args.sort, session.progress.clone());
    let refused = |what: &str, error: io::Error| {
        Error::new(ErrorKind::System, format!("{what}: {error}")).with_remedy("use `--once`")
    };
    let mut terminal =
        ratatui::try_init().map_err(|error| refused("the terminal cannot be set up", error))?;
    let result = interact(&mut terminal, state, &session, &mut reader);
    ratatui::restore();
    result.map_err(|error| refused("the terminal failed", error))
}

/// Draws, refreshes and handles keys until the user quits.
fn interact(
    terminal: &mut ratatui::DefaultTerminal,
    mut state: State,
    session: &Running,
    reader: &mut Reader,
) -> io::Result<()> {
    let input = Input::start()?;
    let mut next = Instant::now();
    loop {
        if !state.is_paused() && Instant::now() >= next {
            let began = Instant::now();
            match (progress_of(session), reader.read()) {
                (progress, Ok(snapshot)) => state.refresh(snapshot, progress),
                (_, Err(error)) => state.tell(error.to_string()),
            }
            next = Instant::now() + REFRESH.max(began.elapsed() * MOST_BUSY);
        }
        terminal.draw(|frame| draw::draw(frame, &mut state))?;
        let patience = match state.is_paused() {
            true => REFRESH,
            false => next.saturating_duration_since(Instant::now()),
        };
        let Some(key) = input.key(patience)? else { continue };
        match state.on_key(key) {
            Action::None => {}
            Action::Leave => return Ok(()),
            Action::Refresh => next = Instant::now(),
            Action::Watch { spec, is_for } => {
                let answer = watch_site(session, &spec, is_for);
                state.tell(match (answer, is_for) {
                    (Ok(_), true) => "stacks are recorded here from now on".to_owned(),
                    (Ok(_), false) => "stacks are no longer recorded here".to_owned(),
                    (Err(error), _) => error.to_string(),
                });
                next = Instant::now();
            }
        }
    }
}
