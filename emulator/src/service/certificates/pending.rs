//! The operation that makes a certificate.

use akv_wire::{CertificateOperation, Issuer};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::body;
use crate::refusal::Refusal;
use crate::service::objects::is_live;
use crate::service::{Outcome, Request, Service};
use crate::state::{Pending, folded};

impl Service {
    pub(in crate::service) fn pending_certificate(
        &self,
        request: &Request<'_>,
    ) -> Result<Outcome, Refusal> {
        self.settle_certificates();
        let authority = &request.call.authority;
        let operation = {
            let state = self.state.read();
            let object = state
                .certificates
                .get(&folded(request.name))
                .filter(|object| is_live(object, self.clock.now()));
            let pending = object
                .and_then(|object| object.extra.pending.as_ref())
                .ok_or_else(|| Refusal::PendingNotFound(request.name.to_owned()))?;
            let target =
                pending.completed.then(|| Self::id(authority, "certificates", request.name, ""));
            self.operation(pending, self.pending_id(request), target)
        };
        self.ok(&operation)
    }

    pub(in crate::service) fn cancel_certificate(
        &self,
        request: &Request<'_>,
    ) -> Result<Outcome, Refusal> {
        #[derive(serde::Deserialize)]
        struct Cancel {
            cancellation_requested: Option<bool>,
        }
        let asked: Cancel = body::read(&request.call.body, body::CERTIFICATE_CANCEL)?;
        self.change_pending(request, |pending| {
            if !pending.completed {
                pending.cancelled = asked.cancellation_requested.unwrap_or(pending.cancelled);
            }
        })
    }

    pub(in crate::service) fn delete_pending_certificate(
        &self,
        request: &Request<'_>,
    ) -> Result<Outcome, Refusal> {
        let shown = self.change_pending(request, |_| ())?;
        let mut state = self.state.write();
        if let Some(object) = state.certificates.get_mut(&folded(request.name)) {
            object.extra.pending = None;
            if object.versions.is_empty() {
                state.certificates.remove(&folded(request.name));
            }
        }
        Ok(shown)
    }

    fn change_pending(
        &self,
        request: &Request<'_>,
        change: impl FnOnce(&mut Pending),
    ) -> Result<Outcome, Refusal> {
        self.settle_certificates();
        let now = self.clock.now();
        let operation = {
            let mut state = self.state.write();
            let pending = state
                .certificates
                .get_mut(&folded(request.name))
                .filter(|object| is_live(object, now))
                .and_then(|object| object.extra.pending.as_mut())
                .ok_or_else(|| Refusal::PendingNotFound(request.name.to_owned()))?;
            change(pending);
            self.operation(pending, self.pending_id(request), None)
        };
        self.ok(&operation)
    }

    pub(in crate::service) fn pending_id(&self, request: &Request<'_>) -> String {
        let id = Self::id(&request.call.authority, "certificates", request.name, "");
        format!("{id}/pending")
    }

    pub(in crate::service) fn operation(
        &self,
        pending: &Pending,
        id: String,
        target: Option<String>,
    ) -> CertificateOperation {
        let status = match (pending.completed, pending.cancelled) {
            (true, _) => "completed",
            (_, true) => "cancelled",
            _ => "inProgress",
        };
        let details = "Pending certificate created. Certificate request is in progress. This may \
                       take some time based on the issuer provider. Please check again later.";
        CertificateOperation {
            id: Some(id),
            issuer: Some(Issuer { name: Some(pending.issuer.clone()), ..Issuer::default() }),
            csr: Some(BASE64_STANDARD.encode(&pending.csr)),
            cancellation_requested: Some(pending.cancelled),
            status: Some(status.to_owned()),
            status_details: (status == "inProgress").then(|| details.to_owned()),
            target,
            request_id: Some(pending.request_id.clone()),
            ..CertificateOperation::default()
        }
    }
}
