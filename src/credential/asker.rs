//! A token request, repeated while that may help.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    backoff::{self, Backoff, Connecting, Pause},
    metrics::TokenMetrics,
    net::{Net, NetError, Request, Response},
};

/// Whoever asks for one token: until when, and what stays of it for the next.
pub(super) struct Asker {
    pub net: Net,
    pub deadline: Instant,
    /// Connecting is given up after some attempts that took at least so long.
    pub connect_timeout: Duration,
    /// While whoever gives out the tokens asks to be left alone.
    pub pauses: Arc<Backoff>,
    pub metrics: Option<Arc<TokenMetrics>>,
}

/// Why a token request ended without an answer.
#[derive(Clone, Debug)]
pub(super) enum Unanswered {
    /// The network.
    Failed(NetError),
    /// Nobody was asked: an earlier request left a pause that ends too late.
    Paused(Pause),
}

impl Asker {
    /// Asks until there is an answer that another attempt would not better, or no time for one.
    /// `passing` tells which other statuses than 408, 429 and 5xx are worth another attempt.
    pub fn ask(
        &self,
        request: &Request,
        passing: impl Fn(u16) -> bool,
    ) -> Result<Response, Unanswered> {
        let mut last = None;
        let mut connecting = Connecting::new(self.connect_timeout);
        let mut attempt = 0;
        loop {
            if let Err(pause) = self.pauses.wait(self.deadline) {
                return last.unwrap_or(Err(Unanswered::Paused(pause)));
            }
            attempt += 1;
            let answer = self.send(request, attempt);
            let hopeless = connecting.is_hopeless_after(answer.as_ref().err());
            let again = match &answer {
                Ok(answer) => {
                    matches!(answer.status, 408 | 429 | 500..=599) || passing(answer.status)
                }
                Err(failed) => failed.transient() && !hopeless,
            };
            let asked = answer.as_ref().ok().and_then(backoff::retry_after);
            match answer {
                Ok(answer) if !again => {
                    self.pauses.succeeded();
                    return Ok(answer);
                }
                // Why it came to a last attempt tells more than that the attempt ran out of time.
                Err(NetError::Timeout) => {
                    return last.unwrap_or(Err(Unanswered::Failed(NetError::Timeout)));
                }
                Err(failed) if !again => return Err(Unanswered::Failed(failed)),
                answer => last = Some(answer.map_err(Unanswered::Failed)),
            }
            self.pauses.failed(asked);
        }
    }

    /// Sends it once.
    fn send(&self, request: &Request, attempt: u32) -> Result<Response, NetError> {
        let started = Instant::now();
        let answer = self.net.send_to_authority(request, self.deadline);
        if let Some(metrics) = &self.metrics {
            metrics.requested(None, &answer, started.elapsed(), attempt);
        }
        let (told, id) = match &answer {
            Ok(answer) => (answer.status.to_string(), answer.header("x-ms-request-id")),
            Err(error) => (error.to_string(), None),
        };
        log::debug!(
            "token request to {}: {told}, {} ms, attempt {attempt}, x-ms-request-id {}",
            request.origin.host(),
            started.elapsed().as_millis(),
            id.unwrap_or("none")
        );
        answer
    }
}
