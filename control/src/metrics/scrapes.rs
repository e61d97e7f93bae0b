//! The HTTP end of the metrics: answers `GET /metrics`, and nothing else.
//!
//! Without an answer from the switch a scrape gets 503. The text is rendered at most once in [`FRESH`], however often
//! it is requested.

use std::time::{Duration, Instant};

use crate::http::{Answer, Cached, Request, Site};

/// Greatest age of a text that is sent again.
const FRESH: Duration = Duration::from_millis(100);
const TYPE: &str = "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n";

/// Answers scrapes with a text that `render` makes.
#[derive(Debug)]
pub struct Scrapes<R> {
    render: R,
    last: Cached,
}

impl<R: FnMut() -> Result<String, String>> Scrapes<R> {
    /// Answers with the text that `render` makes, or with its reason why there is none.
    pub fn new(render: R) -> Scrapes<R> {
        Scrapes { render, last: Cached::new(FRESH) }
    }
}

impl<R: FnMut() -> Result<String, String>> Site for Scrapes<R> {
    fn answer(&mut self, request: &Request<'_>, now: Instant) -> Answer {
        if request.path != "/metrics" {
            return Answer::of_status("404 Not Found");
        }
        let Scrapes { render, last } = self;
        last.get(now, || match render() {
            Ok(text) => Answer::ok(TYPE, text.into_bytes()),
            Err(reason) => Answer::unavailable(&reason),
        })
    }
}
