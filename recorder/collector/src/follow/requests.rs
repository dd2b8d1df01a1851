//! Answers the requests that other programs send to the running recordings.

use super::Follower;
use crate::control::socket::ClientId;
use crate::error::{Error, ErrorKind};
use crate::recording::Recording;
use crate::recording::watch_requests::WatchRequest;
use crate::watch::request::Request;
use std::time::Instant;

impl Follower<'_> {
    /// Reads new requests of clients, and answers the earlier requests that the recordings have carried out.
    pub(super) fn serve(&mut self, now: Instant) {
        let mut answers = Vec::new();
        for recording in self.recordings() {
            answers.extend(recording.tend(now).map(|(client, text)| (client, Ok(text))));
        }
        let lines = self.control.as_mut().map(|control| control.serve(now)).unwrap_or_default();
        for line in lines {
            answers.extend(self.take_request(line.client, line.words).map(|answer| (line.client, answer)));
        }
        for (client, answer) in answers {
            self.answer(client, answer, now);
        }
    }

    /// The answer to a request; `None`: the recording answers this request later.
    fn take_request(
        &mut self,
        client: ClientId,
        words: Option<Vec<String>>,
    ) -> Option<Result<String, Error>> {
        let words = words.unwrap_or_default();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["list"] => {
                let lines: Vec<_> = self.recordings().map(|one| one.progress().to_string()).collect();
                Some(Ok(lines.join("\n")))
            }
            [verb @ ("watch" | "unwatch"), pid, specs @ ..] => {
                let requests: Result<Vec<_>, _> =
                    specs.iter().map(|spec| Request::parse_plain(spec)).collect();
                let requests = match requests {
                    Ok(requests) => requests,
                    Err(error) => return Some(Err(error)),
                };
                let Some(recording) = self.recordings().find(|one| one.pid().to_string() == *pid) else {
                    let message = format!("process {pid} is not being recorded, or no longer");
                    return Some(Err(Error::new(ErrorKind::Request, message)));
                };
                recording.steer(WatchRequest { client, requests, is_for: *verb == "watch" });
                None
            }
            ["mark", pid, name] => {
                let Some(recording) = self.recordings().find(|one| one.pid().to_string() == *pid) else {
                    let message = format!("process {pid} is not being recorded (any more)");
                    return Some(Err(Error::new(ErrorKind::Request, message)));
                };
                Some(match recording.mark(name) {
                    Ok(count) => Ok(format!("marked {name} in process {pid}: {count} so far")),
                    Err(error) => Err(Error::output(&error, "see why the recording ended")
                        .context("failed to write the mark")),
                })
            }
            _ => Some(Err(Error::new(ErrorKind::Request, "unknown request")
                .with_remedy("use edleak-record of the same version on both sides"))),
        }
    }

    fn answer(&mut self, client: ClientId, answer: Result<String, Error>, now: Instant) {
        if let Some(control) = &mut self.control {
            control.answer(client, answer, now);
        }
    }

    /// Tells each client that waits for an answer of this recording that the recording is over.
    pub(super) fn dismiss_clients(&mut self, recording: &Recording) {
        for client in recording.clients().collect::<Vec<_>>() {
            let message = format!("the recording of process {} is over", recording.pid());
            let over = Error::new(ErrorKind::Request, message).with_remedy("read its trace");
            self.answer(client, Err(over), Instant::now());
        }
    }
}
