//! Shows the progress of long work on a terminal: the name of the current stage, the share of the work that
//! is done, and the elapsed time. A stage is shown only if it takes more than a second. If stderr is not a
//! terminal, nothing is written.

use edleak_text::{meter, units};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{self, IsTerminal};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The progress of a stage is shown only if the stage takes at least one second.
const LEAST_SHOWN: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(100);

/// A stage of the work. The progress of the stage is shown until its `Stage` value is dropped.
#[derive(Debug)]
pub struct Stage {
    shown: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Stage {
    /// Begins a stage. The progress of the stage is written to stderr, but only if stderr is a terminal.
    pub fn begin(name: impl Into<String>) -> Self {
        meter::begin(0);
        if !io::stderr().is_terminal() {
            return Self { shown: None };
        }
        let (sender, receiver) = channel();
        let name = name.into();
        // If the system cannot create a thread, the work goes on and no progress is shown.
        let thread =
            std::thread::Builder::new().name("progress".into()).spawn(move || show(&name, &receiver));
        Self { shown: thread.ok().map(|thread| (sender, thread)) }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some((sender, thread)) = self.shown.take() {
            drop(sender);
            // The thread only shows the progress, so ignore its error if it panicked.
            let _ = thread.join();
        }
    }
}

/// Draws the progress again and again, until the sender of `ended` is dropped.
fn show(name: &str, ended: &Receiver<()>) {
    let began = Instant::now();
    if ended.recv_timeout(LEAST_SHOWN) != Err(RecvTimeoutError::Timeout) {
        return;
    }
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
        bar.set_style(style);
    }
    while ended.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
        bar.set_message(message(name, began.elapsed()));
        bar.tick();
    }
    bar.finish_and_clear();
}

fn message(name: &str, elapsed: Duration) -> String {
    let share = meter::share().map_or_else(String::new, |share| format!(", {:.0} %", 100.0 * share));
    let awaited = meter::awaited().map_or_else(String::new, |what| format!(", waiting for {what}"));
    // The name of a stage may contain control characters from a file name, which a terminal would execute. So
    // replace them.
    let name: String = name.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    format!("{name}{share}{awaited} ({})", units::duration(elapsed.as_secs_f64().floor()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_says_stage_share_and_time() {
        meter::begin(8);
        meter::advance(2);
        assert_eq!(message("analyzing a\u{1b}b", Duration::from_millis(2900)), "analyzing a?b, 25 % (2 s)");
        meter::begin(0);
        meter::wait_for(Some("debuginfod".into()));
        assert_eq!(
            message("naming sites", Duration::from_secs(80)),
            "naming sites, waiting for debuginfod (1 min 20 s)"
        );
        meter::wait_for(None);
    }
}
