//! Deleted secrets and certificates: listing, showing, recovering, purging.

use akv_wire::{
    DeletedCertificateBundle, DeletedCertificateItem, DeletedSecretBundle, DeletedSecretItem,
};

use super::objects::{deleted, not_found};
use super::page::Row;
use super::{Outcome, Request, Service};
use crate::refusal::{Noun, Refusal};
use crate::state::{CertificateVersion, Deletion, Object, SecretVersion, folded};

impl Service {
    pub(super) fn list_deleted_secrets(&self, request: &Request<'_>) -> Result<Outcome, Refusal> {
        let now = self.clock.now();
        let authority = &request.call.authority;
        let rows = {
            let mut state = self.state.write();
            Self::expire(&mut state.secrets, now);
            state
                .secrets
                .iter()
                .filter_map(|(marker, object)| {
                    let deletion = object.deleted.filter(|gone| gone.settled_at <= now)?;
                    let id = Self::id(authority, "secrets", &object.name, "");
                    let item = DeletedSecretItem {
                        recovery_id: Some(Self::id(authority, "deletedsecrets", &object.name, "")),
                        deleted_date: Some(deletion.at),
                        scheduled_purge_date: Some(deletion.purge_at),
                        item: self.secret_item(id, object.version("")?, request.api),
                    };
                    Some(Row { marker: marker.clone(), sequence: object.sequence, item })
                })
                .collect()
        };
        self.page(request, Noun::Secret, rows)
    }

    pub(super) fn get_deleted_secret(&self, request: &Request<'_>) -> Result<Outcome, Refusal> {
        let now = self.clock.now();
        let bundle = {
            let mut state = self.state.write();
            Self::expire(&mut state.secrets, now);
            let (object, deletion) = deleted(&state.secrets, request.name, now)?;
            self.deleted_secret(request, object, deletion)
        };
        self.ok(&bundle)
    }

    pub(super) fn recover_secret(&self, request: &Request<'_>) -> Result<Outcome, Refusal> {
        let now = self.clock.now();
        let bundle = {
            let mut state = self.state.write();
            Self::expire(&mut state.secrets, now);
            let object = self.undelete(&mut state.secrets, request.name, now)?;
            let current =
                object.version("").ok_or_else(|| not_found::<SecretVersion>(request.name, ""))?;
            self.secret_bundle(request, &object.name, current, false)
        };
        self.ok(&bundle)
    }

    pub(super) fn purge_secret(&self, request: &Request<'_>) -> Result<Outcome, Refusal> {
        let mut state = self.state.write();
        Self::purge(&mut state.secrets, request.name, self.clock.now())?;
        Ok(Outcome { status: 204, body: Vec::new(), location: None })
    }

    pub(super) fn deleted_secret(
        &self,
        request: &Request<'_>,
        object: &Object<SecretVersion>,
        deletion: Deletion,
    ) -> Option<DeletedSecretBundle> {
        let authority = &request.call.authority;
        Some(DeletedSecretBundle {
            recovery_id: Some(Self::id(authority, "deletedsecrets", &object.name, "")),
            deleted_date: Some(deletion.at),
            scheduled_purge_date: Some(deletion.purge_at),
            bundle: self.secret_bundle(request, &object.name, object.version("")?, false),
        })
    }

    pub(super) fn list_deleted_certificates(
        &self,
        request: &Request<'_>,
    ) -> Result<Outcome, Refusal> {
        let now = self.clock.now();
        let authority = &request.call.authority;
        let rows = {
            let mut state = self.state.write();
            Self::expire(&mut state.certificates, now);
            state
                .certificates
                .iter()
                .filter_map(|(marker, object)| {
                    let deletion = object.deleted.filter(|gone| gone.settled_at <= now)?;
                    let id = Self::id(authority, "certificates", &object.name, "");
                    let current = object.version("")?;
                    let mut item = self.certificate_item(id, current, request.api);
                    // Recorded: deleted ones show recovery attributes and no subject.
                    item.attributes = self.attributes(&current.life, request.api);
                    item.subject = None;
                    let item = DeletedCertificateItem {
                        recovery_id: Some(Self::id(
                            authority,
                            "deletedcertificates",
                            &object.name,
                            "",
                        )),
                        deleted_date: Some(deletion.at),
                        scheduled_purge_date: Some(deletion.purge_at),
                        item,
                    };
                    Some(Row { marker: marker.clone(), sequence: object.sequence, item })
                })
                .collect()
        };
        self.page(request, Noun::Certificate, rows)
    }

    pub(super) fn get_deleted_certificate(
        &self,
        request: &Request<'_>,
    ) -> Result<Outcome, Refusal> {
        let now = self.clock.now();
        let bundle = {
            let mut state = self.state.write();
            Self::expire(&mut state.certificates, now);
            let (object, deletion) = deleted(&state.certificates, request.name, now)?;
            self.deleted_certificate(request, object, deletion)
        };
        self.ok(&bundle)
    }

    /// Key and secret come back with the certificate.
    pub(super) fn recover_certificate(&self, request: &Request<'_>) -> Result<Outcome, Refusal> {
        let now = self.clock.now();
        {
            let mut state = self.state.write();
            Self::expire(&mut state.certificates, now);
            self.undelete(&mut state.certificates, request.name, now)?;
            let name = folded(request.name);
            if state.keys.get(&name).is_some_and(|object| object.deleted.is_some()) {
                self.undelete(&mut state.keys, request.name, now)?;
            }
            if state.secrets.get(&name).is_some_and(|object| object.deleted.is_some()) {
                self.undelete(&mut state.secrets, request.name, now)?;
            }
        }
        let bundle = {
            let state = self.state.read();
            let found = state.certificates.get(&folded(request.name));
            found.and_then(|object| {
                let current = object.version("")?;
                Some(self.certificate_bundle(&request.call.authority, object, current, request.api))
            })
        };
        self.ok(&bundle)
    }

    /// Key and secret go with the certificate.
    pub(super) fn purge_certificate(&self, request: &Request<'_>) -> Result<Outcome, Refusal> {
        let mut state = self.state.write();
        Self::purge(&mut state.certificates, request.name, self.clock.now())?;
        let name = folded(request.name);
        state.keys.remove(&name);
        state.secrets.remove(&name);
        Ok(Outcome { status: 204, body: Vec::new(), location: None })
    }

    pub(super) fn deleted_certificate(
        &self,
        request: &Request<'_>,
        object: &Object<CertificateVersion>,
        deletion: Deletion,
    ) -> Option<DeletedCertificateBundle> {
        let authority = &request.call.authority;
        Some(DeletedCertificateBundle {
            recovery_id: Some(Self::id(authority, "deletedcertificates", &object.name, "")),
            deleted_date: Some(deletion.at),
            scheduled_purge_date: Some(deletion.purge_at),
            bundle: self.certificate_bundle(authority, object, object.version("")?, request.api),
        })
    }
}
