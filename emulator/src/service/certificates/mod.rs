//! Certificates: each one is a certificate, a key and a secret of one name and version.

mod issue;
mod pending;
mod policy;

use akv_wire::{
    ApiVersion, Base64Url, CertificateBundle, CertificateItem, CertificateUpdateParameters,
    Feature, IdReference, KeyAttributes,
};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use openssl::hash::{MessageDigest, hash};

use self::policy::canonical;
use super::objects::{add_version, check_tags, is_live, live_mut, merge_life, not_found, version};
use super::page::Row;
use super::{Outcome, Request, Service};
use crate::body;
use crate::refusal::{Noun, Refusal};
use crate::state::{CertificateVersion, KeyVersion, Object, SecretVersion, State, folded};

impl Service {
    pub(in crate::service) fn get_certificate(
        &self,
        request: &Request<'_>,
    ) -> Result<Outcome, Refusal> {
        self.settle_certificates();
        self.show_certificate(request, request.version)
    }

    pub(in crate::service) fn update_certificate(
        &self,
        request: &Request<'_>,
    ) -> Result<Outcome, Refusal> {
        let asked: CertificateUpdateParameters =
            body::read(&request.call.body, body::CERTIFICATE_UPDATE)?;
        self.settle_certificates();
        let now = self.clock.now();
        let tags = check_tags(asked.tags.as_ref())?;
        {
            let mut state = self.state.write();
            let object = live_mut(&mut state.certificates, request.name, request.version, now)?;
            let found = object
                .version_mut(request.version)
                .ok_or_else(|| not_found::<CertificateVersion>(request.name, request.version))?;
            // A certificate's validity is its own; only `enabled` can be set.
            let enabled = KeyAttributes {
                enabled: asked.attributes.as_ref().and_then(|given| given.enabled),
                ..KeyAttributes::default()
            };
            merge_life(&mut found.life, Some(&enabled), now);
            if tags.is_some() {
                found.tags = tags;
            }
            let (id, life) = (found.id.clone(), found.life.clone());
            if let Some(policy) = asked.policy {
                object.extra.policy = canonical(policy, now)?;
            }
            if let Some(key) =
                state.keys.get_mut(&folded(request.name)).and_then(|object| object.version_mut(&id))
            {
                key.life = life.clone();
            }
            if let Some(secret) = state
                .secrets
                .get_mut(&folded(request.name))
                .and_then(|object| object.version_mut(&id))
            {
                secret.life = life;
            }
        }
        self.show_certificate(request, request.version)
    }

    pub(in crate::service) fn list_certificates(
        &self,
        request: &Request<'_>,
    ) -> Result<Outcome, Refusal> {
        self.settle_certificates();
        let now = self.clock.now();
        let rows = {
            let state = self.state.read();
            state
                .certificates
                .iter()
                .filter(|(_, object)| is_live(object, now))
                .filter_map(|(marker, object)| {
                    let id = Self::id(&request.call.authority, "certificates", &object.name, "");
                    let item = self.certificate_item(id, object.version("")?, request.api);
                    Some(Row { marker: marker.clone(), sequence: object.sequence, item })
                })
                .collect()
        };
        self.page(request, Noun::Certificate, rows)
    }

    pub(in crate::service) fn list_certificate_versions(
        &self,
        request: &Request<'_>,
    ) -> Result<Outcome, Refusal> {
        self.settle_certificates();
        let now = self.clock.now();
        let authority = &request.call.authority;
        let rows = {
            let state = self.state.read();
            let object = state.certificates.get(&folded(request.name));
            object
                .filter(|object| is_live(object, now))
                .into_iter()
                .flat_map(|object| object.versions.iter().enumerate().map(move |row| (object, row)))
                .map(|(object, (rank, found))| {
                    let id = Self::id(authority, "certificates", &object.name, &found.id);
                    Row {
                        marker: folded(&format!("{}/{}", object.name, found.id)),
                        sequence: rank as u64,
                        item: self.certificate_item(id, found, request.api),
                    }
                })
                .collect()
        };
        self.page(request, Noun::Certificate, rows)
    }

    pub(in crate::service) fn delete_certificate(
        &self,
        request: &Request<'_>,
    ) -> Result<Outcome, Refusal> {
        self.settle_certificates();
        let now = self.clock.now();
        let bundle = {
            let mut state = self.state.write();
            Self::expire(&mut state.certificates, now);
            let (object, deletion) =
                self.soft_delete(&mut state.certificates, request.name, now)?;
            let bundle = self.deleted_certificate(request, object, deletion);
            // Key and secret go with the certificate.
            let name = folded(request.name);
            if let Some(key) = state.keys.get_mut(&name) {
                key.deleted = Some(deletion);
            }
            if let Some(secret) = state.secrets.get_mut(&name) {
                secret.deleted = Some(deletion);
            }
            bundle
        };
        self.ok(&bundle)
    }

    /// Lets self-signed certificates appear whose time has come.
    pub(in crate::service) fn settle_certificates(&self) {
        let now = self.clock.now();
        let waits = |object: &Object<CertificateVersion>| {
            object.extra.pending.as_ref().is_some_and(|pending| {
                !pending.completed
                    && !pending.cancelled
                    && pending.ready.is_some()
                    && pending.ready_at <= now
            })
        };
        if !self.state.read().certificates.values().any(waits) {
            return;
        }
        let mut state = self.state.write();
        let mut done = Vec::new();
        for object in state.certificates.values_mut() {
            if waits(object)
                && let Some(pending) = object.extra.pending.as_mut()
                && let Some(versions) = pending.ready.take()
            {
                pending.completed = true;
                done.push((object.name.clone(), *versions));
            }
        }
        for (name, versions) in done {
            place(&mut state, &name, versions);
        }
    }

    pub(in crate::service) fn show_certificate(
        &self,
        request: &Request<'_>,
        id: &str,
    ) -> Result<Outcome, Refusal> {
        let bundle = {
            let state = self.state.read();
            let (object, found) = version(&state.certificates, request.name, id, self.clock.now())?;
            self.certificate_bundle(&request.call.authority, object, found, request.api)
        };
        self.ok(&bundle)
    }

    pub(in crate::service) fn certificate_bundle(
        &self,
        authority: &str,
        object: &Object<CertificateVersion>,
        found: &CertificateVersion,
        api: ApiVersion,
    ) -> CertificateBundle {
        let url = |collection| Some(Self::id(authority, collection, &object.name, &found.id));
        CertificateBundle {
            id: url("certificates"),
            kid: url("keys"),
            sid: url("secrets"),
            x5t: thumbprint(&found.der),
            cer: Some(BASE64_STANDARD.encode(&found.der)),
            content_type: None,
            attributes: self.attributes(&found.life, api),
            tags: found.tags.clone(),
            policy: Some(self.shown_policy(authority, &object.name, &object.extra.policy)),
            pending: object.extra.pending.as_ref().map(|_| IdReference {
                id: format!("{}/pending", Self::id(authority, "certificates", &object.name, "")),
            }),
            preserve_cert_order: found.preserve_order,
        }
    }

    /// Recorded: listings show no recovery attributes, and an empty subject.
    pub(in crate::service) fn certificate_item(
        &self,
        id: String,
        found: &CertificateVersion,
        api: ApiVersion,
    ) -> CertificateItem {
        CertificateItem {
            id,
            x5t: thumbprint(&found.der),
            attributes: KeyAttributes {
                enabled: Some(found.life.enabled),
                nbf: found.life.nbf,
                exp: found.life.exp,
                created: Some(found.life.created),
                updated: Some(found.life.updated),
                ..KeyAttributes::default()
            },
            tags: found.tags.clone(),
            subject: api.has(Feature::CertificateSubject).then(String::new),
        }
    }
}

fn thumbprint(der: &[u8]) -> Option<Base64Url> {
    hash(MessageDigest::sha1(), der).ok().map(|digest| Base64Url::new(&*digest))
}

/// Puts the three versions into their collections.
fn place(
    state: &mut State,
    name: &str,
    (certificate, key, secret): (CertificateVersion, KeyVersion, SecretVersion),
) {
    let sequence = state.next_sequence();
    add_version(&mut state.certificates, name, certificate, sequence);
    add_version(&mut state.keys, name, key, sequence);
    add_version(&mut state.secrets, name, secret, sequence);
}
