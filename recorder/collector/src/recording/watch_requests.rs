//! Watch requests to one running recording. The collector prepares each request in the background and applies
//! the requests one after the other.

use crate::control::socket::ClientId;
use crate::rules::modules::Loaded;
use crate::rules::publisher::{Change, Publisher};
use crate::sys::shm::Session;
use crate::watch::request::Request;
use edleak_text::units::plural;
use std::collections::VecDeque;

/// A request of a client to watch or unwatch sites.
#[derive(Debug)]
pub(crate) struct WatchRequest {
    /// The client that waits for the answer.
    pub(crate) client: ClientId,
    /// The sites to watch or unwatch.
    pub(crate) requests: Vec<Request>,
    /// `true`: watch the sites; `false`: stop watching the sites.
    pub(crate) is_for: bool,
}

/// The requests that the collector has not answered yet.
#[derive(Default)]
pub(crate) struct PendingRequests {
    waiting: VecDeque<WatchRequest>,
    under_way: Option<(Change, WatchRequest, Vec<u32>)>,
}

impl PendingRequests {
    /// Whether there is a watch request that the collector has not answered yet.
    pub(crate) fn is_busy(&self) -> bool {
        self.under_way.is_some() || !self.waiting.is_empty()
    }

    /// The clients that wait for the answer to a watch request.
    pub(crate) fn clients(&self) -> impl Iterator<Item = ClientId> {
        let under_way = self.under_way.iter().map(|(_, wanted, _)| wanted);
        under_way.chain(&self.waiting).map(|wanted| wanted.client)
    }

    /// Adds a watch request to the requests that wait.
    pub(crate) fn add(&mut self, wanted: WatchRequest) {
        self.waiting.push_back(wanted);
    }

    /// Begins to prepare the next request, or applies a request whose preparation is done. If the function
    /// has applied a request, it returns the client that sent the request, and the answer for this client.
    pub(crate) fn advance(
        &mut self,
        publisher: &mut Publisher,
        session: &Session,
        modules: &[Loaded],
    ) -> Option<(ClientId, String)> {
        if self.under_way.is_none() {
            let wanted = self.waiting.pop_front()?;
            let mut watch = publisher.watch().clone();
            let serials =
                wanted.requests.iter().map(|request| watch.ask(request.clone(), wanted.is_for)).collect();
            self.under_way = Some((publisher.prepare_change(watch, modules), wanted, serials));
        }
        let (change, wanted, serials) = self.under_way.take_if(|(change, ..)| change.is_prepared())?;
        if !wanted.is_for && wanted.requests.contains(&Request::Everything) {
            publisher.end_picking();
        }
        let changed = publisher.make(change, session, modules);
        let meant = publisher.meant(&serials, modules);
        Some((wanted.client, answer(&wanted, meant, changed)))
    }
}

fn answer(wanted: &WatchRequest, meant: usize, changed: usize) -> String {
    let specs: Vec<_> = wanted.requests.iter().map(Request::to_string).collect();
    let verb = if wanted.is_for { "watching" } else { "no longer watching" };
    let changed = plural(changed as u64, "site seen so far changed", "sites seen so far changed");
    let what = if wanted.requests.contains(&Request::Everything) {
        "everything".into()
    } else if meant == 0 {
        "no code that is loaded yet".into()
    } else {
        plural(meant as u64, "function or address", "functions and addresses")
    };
    format!("{verb} {}: {what}; {changed}", specs.join(" "))
}
