//! Tests the time limit of an attach (`--attach-timeout`).

use super::{answering, refused_and_answers};
use edleak_tests::ledger_program::recorder;
use edleak_tests::run::run;
use edleak_tests::temp::TempDir;
use std::time::{Duration, Instant};

#[test]
fn refusal_names_each_thread_and_its_place() {
    let program = answering("handler");
    let main = format!("thread {} (`attach_answer`) is in a signal handler", program.pid());
    let texts =
        ["no thread can load the library now: ", &main, "(`attach_answer`) is running", "(use a longer"];
    refused_and_answers(program, &texts);
}

/// The time limit of the attach is 4 s. In the first 3 s, no thread can load the library. Then a thread loads
/// the library, but another thread does not stop, so edleak-record cannot write its jumps into the target. If
/// loading the library and stopping the threads each had a limit of 4 s, edleak-record would refuse the
/// process only after 7 s.
#[test]
fn loading_the_library_and_writing_the_jumps_share_one_limit() {
    let dir = TempDir::new("attach-limit");
    let mut program = answering("late");
    let began = Instant::now();
    let limit = ["--attach-timeout", "4s"];
    let outcome = run(&mut recorder(program.pid(), &dir.join("trace.edl"), &limit));
    let time = began.elapsed();
    assert_eq!(outcome.code, 126, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("loaded edleak's library"), "the first step: {}", outcome.stderr);
    assert!(outcome.stderr.contains(" (`attach_answer`) does not stop"), "the second: {}", outcome.stderr);
    // Each time edleak-record tries to stop all threads, all threads but one stop. So the message must say
    // how long the stopped threads stood still.
    assert!(outcome.stderr.contains("; the other threads stood still for "), "{}", outcome.stderr);
    assert!((Duration::from_secs(4)..Duration::from_secs(6)).contains(&time), "{time:?}: {}", outcome.stderr);
    assert_eq!((program.ask("a").as_str(), program.finish().as_str()), ("a", "sound\n"));
}
