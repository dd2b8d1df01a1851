//! Functions for measurements: the time and peak memory of a child process, rounds in which every contender
//! runs once, and medians.

use anyhow::{Context, Result, bail};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The reason why the peak memory of a child is unknown.
pub(crate) const HIDDEN: &str =
    "its peak memory is hidden behind that of this process (run this group alone, with --only)";

/// The time and the peak memory of one run of a program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// The time from start to end.
    pub(crate) wall: Duration,
    /// The largest resident memory of the process, or of any process for which the process waited. `None`:
    /// the peak memory of the child was not higher than that of edleak-bench and is unknown, because a child
    /// begins as a copy of edleak-bench, and the kernel counts the copy as memory of the child.
    pub(crate) peak_bytes: Option<u64>,
}

/// Runs a command to its end and discards the output.
pub(crate) fn cost(command: &mut Command) -> Result<Cost> {
    let name = command.get_program().to_string_lossy().into_owned();
    let start = Instant::now();
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start `{name}`"))?;
    let (status, usage) = wait(&child)?;
    let own = peak_of_this_process();
    let wall = start.elapsed();
    if !status.success() {
        bail!("`{name}` failed: {status}");
    }
    Ok(Cost { wall, peak_bytes: Some(usage.ru_maxrss as u64 * 1024).filter(|peak| *peak > own) })
}

fn peak_of_this_process() -> u64 {
    // SAFETY: a `rusage` consists of plain numbers, for which zeros are valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the call writes into a local variable.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) };
    usage.ru_maxrss as u64 * 1024
}

/// Waits with `wait4`, because the standard library does not return the resource usage of a child.
fn wait(child: &Child) -> Result<(ExitStatus, libc::rusage)> {
    let mut status = 0;
    // SAFETY: a `rusage` consists of plain numbers, for which zeros are valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: the call waits for this process's own child and writes into two local variables.
        let pid = unsafe { libc::wait4(child.id() as i32, &mut status, 0, &mut usage) };
        if pid == child.id() as i32 {
            return Ok((ExitStatus::from_raw(status), usage));
        }
        let error = std::io::Error::last_os_error();
        if error.kind() != std::io::ErrorKind::Interrupted {
            return Err(error).context("cannot wait for a child");
        }
    }
}

/// The median of a list of numbers.
///
/// # Panics
/// Panics if there are no numbers.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

/// The ratio of a value to a baseline, as the median of the ratios of all rounds. In a round, the run of the
/// value and the run of the baseline follow directly after each other, so a slow phase of the machine affects
/// both runs.
pub(crate) fn ratio(values: &[f64], baseline: &[f64]) -> f64 {
    let ratios: Vec<f64> = values.iter().zip(baseline).map(|(value, base)| value / base).collect();
    median(&ratios)
}

/// Measures several contenders in rounds. Each round measures every contender once, so a slow phase of the
/// machine affects all contenders. Returns one list of values for each contender.
pub(crate) fn rounds<T: Copy>(
    rounds: usize,
    things: &[T],
    mut one: impl FnMut(T) -> Result<f64>,
) -> Result<Vec<Vec<f64>>> {
    let mut values = vec![Vec::with_capacity(rounds); things.len()];
    for round in 0..rounds {
        for at in 0..things.len() {
            // Every second round runs the contenders in reverse order, so that no contender always runs
            // after the same other contender.
            let at = if round % 2 == 0 { at } else { things.len() - 1 - at };
            values[at].push(one(things[at])?);
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_and_no_outlier_moves_it() {
        assert_eq!(median(&[3.0, 1.0, 1e9]), 3.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 1e9]), 3.0);
    }

    #[test]
    fn a_ratio_is_taken_within_each_round() {
        // In the test data, the machine becomes ten times slower after half of the rounds.
        assert_eq!(ratio(&[1.1, 1.2, 11.0, 10.0, 12.0], &[1.0, 1.0, 10.0, 10.0, 10.0]), 1.1);
    }

    #[test]
    fn rounds_alternate() {
        let mut order = Vec::new();
        let values = rounds(2, &['a', 'b'], |thing| {
            order.push(thing);
            Ok(f64::from(order.len() as u32))
        })
        .expect("nothing fails");
        assert_eq!(order, ['a', 'b', 'b', 'a']);
        assert_eq!(values, [[1.0, 4.0], [2.0, 3.0]]);
    }

    #[test]
    fn failed_child_is_not_a_measurement() {
        assert!(cost(&mut Command::new("false")).is_err());
        cost(&mut Command::new("true")).expect("true succeeds");
    }

    #[test]
    fn peak_is_that_of_the_child() {
        let peak = |mebibytes: usize| {
            let script = format!("head -c {mebibytes}M /dev/zero | tail -c {mebibytes}M | tail -c 1");
            cost(Command::new("sh").args(["-c", &script])).expect("a shell").peak_bytes
        };
        assert!(peak(300) > Some(300 << 20));
        let mut ours = vec![1u8; 400 << 20];
        ours[1 << 20] = 2;
        assert_eq!(peak(300), None, "{}", ours.len());
    }
}
