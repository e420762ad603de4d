//! Listings, page by page.

use akv_wire::Page;
use serde::Serialize;

use super::{Outcome, Request, Service};
use crate::config::ServiceKind;
use crate::dialect::{NextPage, Position};
use crate::refusal::{Noun, Refusal};

/// One object of a listing, before it is shown.
pub struct Row<T> {
    /// `NAME` or `NAME/VERSION`, upper-cased.
    pub marker: String,
    /// Rank in order of creation.
    pub sequence: u64,
    /// What is shown.
    pub item: T,
}

/// Largest and default page.
const PAGE: usize = 25;

impl Service {
    /// Shows one page of `rows`.
    pub(super) fn page<T: Serialize>(
        &self,
        request: &Request<'_>,
        noun: Noun,
        mut rows: Vec<Row<T>>,
    ) -> Result<Outcome, Refusal> {
        let max_results = self.max_results(request)?;
        let (mut start, mut shown) = (0, 0);
        if self.dialect.by_creation() {
            rows.sort_by_key(|row| row.sequence);
        } else {
            rows.sort_by(|a, b| a.marker.cmp(&b.marker));
        }
        if let Some(token) = request.call.parameter("$skiptoken") {
            match self.dialect.position(token) {
                Some(Position::Marker(marker)) => {
                    start = rows.partition_point(|row| row.marker < marker);
                }
                Some(Position::Sequence(sequence, before)) => {
                    start = rows.partition_point(|row| row.sequence < sequence);
                    shown = before;
                }
                None => {
                    return Err(Refusal::BadParameter("Invalid $skiptoken\r\n".to_owned()));
                }
            }
        }
        // Recorded of vaults: a page may be empty and still have a successor.
        let empty = self.switches.vault_empty_pages
            && self.kind == ServiceKind::Vault
            && request.call.parameter("$skiptoken").is_none();
        let limit = if empty { 0 } else { max_results.unwrap_or(PAGE) };
        let end = rows.len().min(start + limit);
        let next_link = rows.get(end).map(|next| {
            self.dialect.next_link(
                &request.call.authority,
                &NextPage {
                    path: request.call.path.trim_end_matches('/'),
                    api_version: request.call.parameter("api-version"),
                    max_results,
                    marker: &next.marker,
                    noun: noun.lower(),
                    sequence: next.sequence,
                    shown: shown + end - start,
                },
            )
        });
        let value = rows.drain(start..end).map(|row| row.item).collect();
        self.ok(&Page { value, next_link })
    }

    fn max_results(&self, request: &Request<'_>) -> Result<Option<usize>, Refusal> {
        let Some(text) = request.call.parameter("maxresults") else {
            return Ok(None);
        };
        match text.parse() {
            Ok(limit @ 1..=PAGE) => Ok(Some(limit)),
            _ => Err(Refusal::BadParameter(format!(
                "invalid maxresults '{text}': it must be between 1 and {PAGE}"
            ))),
        }
    }
}
