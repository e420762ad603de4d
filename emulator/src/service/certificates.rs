//! Certificates: each one is a certificate, a key and a secret of one name and version.

use std::sync::Arc;

use akv_wire::{
    ApiVersion, Base64Url, BasicConstraints, CertificateAction, CertificateBundle,
    CertificateCreateParameters, CertificateImportParameters, CertificateItem,
    CertificateKeyProperties, CertificateLifetimeAction, CertificateMergeParameters,
    CertificateOperation, CertificatePolicy, CertificateSecretProperties, CertificateTrigger,
    CertificateUpdateParameters, Feature, IdReference, Issuer, KeyAttributes, KeyType,
};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use openssl::hash::{MessageDigest, hash};
use openssl::pkcs12::Pkcs12;
use openssl::pkey::PKey;
use openssl::stack::Stack;
use openssl::x509::X509;
use zeroize::Zeroizing;

use super::objects::{
    add_version, check_free, check_tags, is_live, live, live_mut, merge_life, not_found, version,
};
use super::page::Row;
use super::{Outcome, Request, Service};
use crate::body;
use crate::crypto::{Material, x509};
use crate::dialect::uuid;
use crate::refusal::{Noun, Refusal};
use crate::state::{
    CertificateExtra, CertificateVersion, KeyVersion, Life, Object, Pending, SecretVersion, State,
    folded,
};

const PFX: &str = "application/x-pkcs12";
const PEM: &str = "application/x-pem-file";

/// A finished certificate with its key and chain.
struct Finished {
    leaf: X509,
    chain: Vec<X509>,
    material: Arc<Material>,
    enabled: bool,
    tags: Option<akv_wire::Tags>,
    preserve_order: Option<bool>,
}

impl Service {
    pub(super) async fn create_certificate(
        &self,
        request: &Request<'_>,
    ) -> Result<Outcome, Refusal> {
        let asked: CertificateCreateParameters =
            body::read(&request.call.body, body::CERTIFICATE_CREATE)?;
        let operation = self.begin_certificate(request.name, &asked).await?;
        let id = self.pending_id(request);
        let location =
            format!("{id}?api-version={}&request_id={}", request.api, operation.request_id);
        let mut outcome = self.ok(&self.operation(&operation, id, None))?;
        outcome.status = 202;
        outcome.location = Some(location);
        Ok(outcome)
    }

    /// Makes key and request, and for `Self` the certificate, which shows when its time has come.
    pub(super) async fn begin_certificate(
        &self,
        name: &str,
        asked: &CertificateCreateParameters,
    ) -> Result<Pending, Refusal> {
        let now = self.clock.now();
        let policy = canonical(asked.policy.clone().unwrap_or_default(), now)?;
        let tags = check_tags(asked.tags.as_ref())?;
        let enabled = asked.attributes.as_ref().and_then(|given| given.enabled).unwrap_or(true);
        self.check_certificate_name(&self.state.read(), name, now)?;
        let (props, recipe) = key_recipe(&policy)?;
        let material = tokio::task::spawn_blocking(recipe)
            .await
            .map_err(|error| Refusal::Internal(format!("key generation: {error}")))??;
        let material = Arc::new(material);
        let pair = material.private_key().ok_or(Refusal::MemberInvalid("kty".to_owned()))?;
        let csr = x509::request(pair, &policy)?.to_der()?;
        let issuer = issuer_name(&policy);
        let ready = if issuer.eq_ignore_ascii_case("self") {
            let leaf = x509::self_signed(pair, &policy, now)?;
            let finished = Finished {
                leaf,
                chain: Vec::new(),
                material: Arc::clone(&material),
                enabled,
                tags: tags.clone(),
                preserve_order: asked.preserve_cert_order,
            };
            Some(self.three_versions(&finished, &policy, &props)?)
        } else {
            None
        };
        let pending = Pending {
            request_id: uuid().replace('-', ""),
            issuer,
            csr,
            material,
            tags,
            enabled,
            ready_at: now + self.switches.certificate_delay,
            ready: ready.map(Box::new),
            cancelled: false,
            completed: false,
        };
        let mut state = self.state.write();
        self.check_certificate_name(&state, name, now)?;
        let sequence = state.next_sequence();
        let object =
            state.certificates.entry(folded(name)).or_insert_with(|| Object::new(name, sequence));
        object.extra = CertificateExtra { policy, pending: Some(pending.clone()) };
        Ok(pending)
    }

    pub(super) fn import_certificate(&self, request: &Request<'_>) -> Result<Outcome, Refusal> {
        let asked: CertificateImportParameters =
            body::read(&request.call.body, body::CERTIFICATE_IMPORT)?;
        let now = self.clock.now();
        let (material, leaf, chain) = read_bundle(&asked)?;
        let facts = x509::facts(&leaf)?;
        let given = asked.policy.clone().unwrap_or_default();
        let is_pem = asked.value.contains("-----BEGIN");
        let policy = CertificatePolicy {
            key_props: Some(CertificateKeyProperties {
                kty: Some(material.key_type(false).as_str().to_owned()),
                key_size: material.bits().or_else(|| material.private_key().map(|key| key.bits())),
                crv: material.public().crv,
                ..given.key_props.clone().unwrap_or_default()
            }),
            secret_props: given.secret_props.clone().or_else(|| {
                let content_type = if is_pem { PEM } else { PFX };
                Some(CertificateSecretProperties { content_type: Some(content_type.to_owned()) })
            }),
            x509_props: Some(facts.properties),
            lifetime_actions: Some(
                given
                    .lifetime_actions
                    .clone()
                    .unwrap_or_else(|| vec![lifetime_action("EmailContacts")]),
            ),
            issuer: given
                .issuer
                .clone()
                .or_else(|| Some(Issuer { name: Some("Unknown".to_owned()), ..Issuer::default() })),
            ..given
        };
        let policy = canonical(policy, now)?;
        let props = policy.key_props.clone().unwrap_or_default();
        let finished = Finished {
            leaf,
            chain,
            material: Arc::new(material),
            enabled: asked.attributes.as_ref().and_then(|given| given.enabled).unwrap_or(true),
            tags: check_tags(asked.tags.as_ref())?,
            preserve_order: asked.preserve_cert_order,
        };
        let versions = self.three_versions(&finished, &policy, &props)?;
        {
            let mut state = self.state.write();
            self.check_certificate_name(&state, request.name, now)?;
            place(&mut state, request.name, versions);
            if let Some(object) = state.certificates.get_mut(&folded(request.name)) {
                object.extra = CertificateExtra { policy, pending: None };
            }
        }
        self.show_certificate(request, "")
    }

    pub(super) fn get_certificate(&self, request: &Request<'_>) -> Result<Outcome, Refusal> {
        self.settle_certificates();
        self.show_certificate(request, request.version)
    }

    pub(super) fn certificate_policy(&self, request: &Request<'_>) -> Result<Outcome, Refusal> {
        self.settle_certificates();
        let policy = {
            let state = self.state.read();
            let object = live(&state.certificates, request.name, "", self.clock.now())?;
            self.shown_policy(&request.call.authority, &object.name, &object.extra.policy)
        };
        self.ok(&policy)
    }

    /// Members that are named replace the old ones; the rest stays.
    pub(super) fn update_certificate_policy(
        &self,
        request: &Request<'_>,
    ) -> Result<Outcome, Refusal> {
        let asked: CertificatePolicy = body::read(&request.call.body, body::POLICY)?;
        self.settle_certificates();
        let now = self.clock.now();
        let policy = {
            let mut state = self.state.write();
            let object = live_mut(&mut state.certificates, request.name, "", now)?;
            let old = object.extra.policy.clone();
            let created = old.attributes.as_ref().and_then(|attributes| attributes.created);
            let mut policy = canonical(
                CertificatePolicy {
                    key_props: asked.key_props.or(old.key_props),
                    secret_props: asked.secret_props.or(old.secret_props),
                    x509_props: asked.x509_props.or(old.x509_props),
                    lifetime_actions: asked.lifetime_actions.or(old.lifetime_actions),
                    issuer: asked.issuer.or(old.issuer),
                    ..CertificatePolicy::default()
                },
                now,
            )?;
            if let Some(attributes) = &mut policy.attributes {
                attributes.created = created.or(attributes.created);
            }
            object.extra.policy = policy.clone();
            self.shown_policy(&request.call.authority, &object.name, &policy)
        };
        self.ok(&policy)
    }

    pub(super) fn cancel_certificate(&self, request: &Request<'_>) -> Result<Outcome, Refusal> {
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

    pub(super) fn delete_pending_certificate(
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

    pub(super) fn pending_certificate(&self, request: &Request<'_>) -> Result<Outcome, Refusal> {
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

    pub(super) fn merge_certificate(&self, request: &Request<'_>) -> Result<Outcome, Refusal> {
        let asked: CertificateMergeParameters =
            body::read(&request.call.body, body::CERTIFICATE_MERGE)?;
        let now = self.clock.now();
        let mut certificates = Vec::new();
        for text in &asked.x5c {
            let der = BASE64_STANDARD
                .decode(text)
                .map_err(|_| Refusal::MemberInvalid("x5c".to_owned()))?;
            let parsed =
                X509::from_der(&der).map_err(|_| Refusal::MemberInvalid("x5c".to_owned()))?;
            certificates.push(parsed);
        }
        if certificates.is_empty() {
            return Err(Refusal::MemberMissing("x5c"));
        }
        let (pending, policy) = {
            let state = self.state.read();
            let object = live(&state.certificates, request.name, "", now)?;
            let pending = object.extra.pending.clone();
            let pending = pending.filter(|pending| !pending.completed && !pending.cancelled);
            let pending =
                pending.ok_or_else(|| Refusal::PendingNotFound(request.name.to_owned()))?;
            (pending, object.extra.policy.clone())
        };
        let leaf = certificates.remove(0);
        let matches = pending
            .material
            .private_key()
            .is_some_and(|pair| leaf.public_key().is_ok_and(|public| pair.public_eq(&public)));
        if !matches {
            return Err(Refusal::BadParameter(
                "The public key of the end-entity certificate in the specified X.509 certificate \
                 content does not match the public part of the specified private key. Please \
                 check if certificate is valid."
                    .to_owned(),
            ));
        }
        let finished = Finished {
            leaf,
            chain: certificates,
            material: Arc::clone(&pending.material),
            enabled: pending.enabled,
            tags: check_tags(asked.tags.as_ref())?.or(pending.tags),
            preserve_order: None,
        };
        let props = policy.key_props.clone().unwrap_or_default();
        let versions = self.three_versions(&finished, &policy, &props)?;
        {
            let mut state = self.state.write();
            live(&state.certificates, request.name, "", now)?;
            place(&mut state, request.name, versions);
            if let Some(object) = state.certificates.get_mut(&folded(request.name)) {
                object.extra.pending = None;
            }
        }
        let mut outcome = self.show_certificate(request, "")?;
        outcome.status = 201;
        Ok(outcome)
    }

    pub(super) fn update_certificate(&self, request: &Request<'_>) -> Result<Outcome, Refusal> {
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

    pub(super) fn list_certificates(&self, request: &Request<'_>) -> Result<Outcome, Refusal> {
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

    pub(super) fn list_certificate_versions(
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

    pub(super) fn delete_certificate(&self, request: &Request<'_>) -> Result<Outcome, Refusal> {
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
    pub(super) fn settle_certificates(&self) {
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

    fn check_certificate_name(&self, state: &State, name: &str, now: i64) -> Result<(), Refusal> {
        check_free(&state.certificates, name, now)?;
        let foreign = state
            .keys
            .get(&folded(name))
            .and_then(|object| object.version(""))
            .is_some_and(|key| !key.managed);
        if foreign {
            return Err(Refusal::Conflict(format!(
                "A key with the name '{name}' exists already and is not managed by a certificate."
            )));
        }
        Ok(())
    }

    pub(super) fn pending_id(&self, request: &Request<'_>) -> String {
        let id = Self::id(&request.call.authority, "certificates", request.name, "");
        format!("{id}/pending")
    }

    pub(super) fn operation(
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

    pub(super) fn show_certificate(
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

    pub(super) fn certificate_bundle(
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
    pub(super) fn certificate_item(
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

    pub(super) fn shown_policy(
        &self,
        authority: &str,
        name: &str,
        policy: &CertificatePolicy,
    ) -> CertificatePolicy {
        let id = format!("{}/policy", Self::id(authority, "certificates", name, ""));
        CertificatePolicy { id: Some(id), ..policy.clone() }
    }

    /// The certificate, its key and its secret, all of one new version.
    fn three_versions(
        &self,
        finished: &Finished,
        policy: &CertificatePolicy,
        props: &CertificateKeyProperties,
    ) -> Result<(CertificateVersion, KeyVersion, SecretVersion), Refusal> {
        let id = self.dialect.version_id();
        let facts = x509::facts(&finished.leaf)?;
        let (nbf, exp) = (Some(facts.not_before), Some(facts.not_after));
        let life = Life::new(self.clock.now(), finished.enabled, nbf, exp);
        let exportable = props.exportable.unwrap_or(true);
        let content_type = policy
            .secret_props
            .as_ref()
            .and_then(|secret| secret.content_type.clone())
            .unwrap_or_else(|| PFX.to_owned());
        let hsm = props.kty.as_deref().and_then(|kty| kty.parse::<KeyType>().ok());
        let kty = finished.material.key_type(hsm.is_some_and(KeyType::is_hsm));
        let key = KeyVersion {
            id: id.clone(),
            kty,
            key_ops: certificate_ops(kty),
            material: Arc::clone(&finished.material),
            life: life.clone(),
            exportable: false,
            release_policy: None,
            tags: finished.tags.clone(),
            managed: true,
        };
        let secret = SecretVersion {
            id: id.clone(),
            value: secret_value(finished, &content_type, exportable)?,
            content_type: Some(content_type),
            life: life.clone(),
            tags: finished.tags.clone(),
            managed: true,
        };
        let certificate = CertificateVersion {
            id,
            der: finished.leaf.to_der()?,
            life,
            tags: finished.tags.clone(),
            preserve_order: finished.preserve_order,
        };
        Ok((certificate, key, secret))
    }
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

fn thumbprint(der: &[u8]) -> Option<Base64Url> {
    hash(MessageDigest::sha1(), der).ok().map(|digest| Base64Url::new(&*digest))
}

fn certificate_ops(kty: KeyType) -> Vec<String> {
    let ops: &[&str] = if kty.is_ec() {
        &["sign", "verify"]
    } else {
        &["sign", "verify", "wrapKey", "unwrapKey", "encrypt", "decrypt"]
    };
    ops.iter().map(|op| (*op).to_owned()).collect()
}

fn issuer_name(policy: &CertificatePolicy) -> String {
    policy.issuer.as_ref().and_then(|issuer| issuer.name.clone()).unwrap_or_default()
}

fn lifetime_action(kind: &str) -> CertificateLifetimeAction {
    CertificateLifetimeAction {
        trigger: CertificateTrigger { lifetime_percentage: Some(80), days_before_expiry: None },
        action: CertificateAction { action_type: kind.to_owned() },
    }
}

/// Fills in what the service fills in.
fn canonical(mut policy: CertificatePolicy, now: i64) -> Result<CertificatePolicy, Refusal> {
    let mut issuer = issuer_name(&policy);
    // Recorded: the two names that are no issuers are taken in any case, and shown as given.
    for known in ["Self", "Unknown"] {
        if issuer.eq_ignore_ascii_case(known) {
            issuer = known.to_owned();
        }
    }
    if issuer.is_empty() {
        return Err(Refusal::BadParameter("Issuer name is required in the policy.".to_owned()));
    }
    if issuer != "Self" && issuer != "Unknown" {
        return Err(Refusal::NotImplemented(format!("the certificate issuer '{issuer}'")));
    }
    policy.id = None;
    let key = policy.key_props.get_or_insert_default();
    key.exportable.get_or_insert(true);
    key.reuse_key.get_or_insert(false);
    let kty = key.kty.get_or_insert_with(|| "RSA".to_owned());
    match kty.parse::<KeyType>() {
        Ok(kind) if kind.is_rsa() => {
            key.key_size.get_or_insert(2048);
        }
        Ok(kind) if kind.is_ec() => {
            let name = key.crv.get_or_insert_with(|| "P-256".to_owned());
            let bits = match name.as_str() {
                "P-384" => 384,
                "P-521" => 521,
                _ => 256,
            };
            key.key_size = Some(bits);
        }
        _ => return Err(Refusal::MemberInvalid("kty".to_owned())),
    }
    policy.secret_props.get_or_insert_default().content_type.get_or_insert_with(|| PFX.to_owned());
    let x509 = policy.x509_props.get_or_insert_default();
    let has_names = x509.sans.as_ref().is_some_and(|sans| {
        [&sans.dns_names, &sans.emails, &sans.upns]
            .into_iter()
            .flatten()
            .any(|names| !names.is_empty())
    });
    match x509.subject.as_deref() {
        Some(subject) if x509::is_subject(subject) => {}
        Some("") | None if has_names => {}
        _ => {
            return Err(Refusal::BadParameter(
                "Property policy.x509_props.subject is not a valid X.500 name.\r\n".to_owned(),
            ));
        }
    }
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    x509.ekus.get_or_insert_with(|| owned(&["1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"]));
    x509.key_usage.get_or_insert_with(|| owned(&["digitalSignature", "keyEncipherment"])).sort();
    x509.validity_months.get_or_insert(12);
    x509.basic_constraints.get_or_insert(BasicConstraints { ca: false });
    let default_action = if issuer == "Self" { "AutoRenew" } else { "EmailContacts" };
    policy.lifetime_actions.get_or_insert_with(|| vec![lifetime_action(default_action)]);
    policy.attributes = Some(KeyAttributes {
        enabled: Some(true),
        created: Some(now),
        updated: Some(now),
        ..KeyAttributes::default()
    });
    Ok(policy)
}

type Generator = Box<dyn FnOnce() -> Result<Material, openssl::error::ErrorStack> + Send + 'static>;

fn key_recipe(
    policy: &CertificatePolicy,
) -> Result<(CertificateKeyProperties, Generator), Refusal> {
    let props = policy.key_props.clone().unwrap_or_default();
    let kind = props.kty.as_deref().and_then(|kty| kty.parse::<KeyType>().ok());
    let generator: Generator = match kind {
        Some(kind) if kind.is_rsa() => match props.key_size {
            Some(bits @ (2048 | 3072 | 4096)) => {
                Box::new(move || Material::generate_rsa(bits, 65537))
            }
            _ => return Err(Refusal::MemberInvalid("key_size".to_owned())),
        },
        Some(kind) if kind.is_ec() => {
            let curve = props.crv.as_deref().and_then(|name| name.parse().ok());
            let curve = curve.ok_or_else(|| Refusal::MemberInvalid("crv".to_owned()))?;
            Box::new(move || Material::generate_ec(curve))
        }
        _ => return Err(Refusal::MemberInvalid("kty".to_owned())),
    };
    Ok((props, generator))
}

/// The secret: PFX or PEM, with the private key only where the policy lets it out.
fn secret_value(
    finished: &Finished,
    content_type: &str,
    exportable: bool,
) -> Result<Zeroizing<String>, Refusal> {
    let pair = finished.material.private_key();
    let pair = pair.ok_or(Refusal::Internal("a certificate without a pair".to_owned()))?;
    if content_type == PEM {
        let mut pem = Zeroizing::new(String::new());
        if exportable {
            let key = Zeroizing::new(pair.private_key_to_pem_pkcs8()?);
            pem.push_str(&String::from_utf8_lossy(&key));
        }
        for certificate in std::iter::once(&finished.leaf).chain(&finished.chain) {
            pem.push_str(&String::from_utf8_lossy(&certificate.to_pem()?));
        }
        return Ok(pem);
    }
    let mut chain = Stack::new()?;
    let mut builder = Pkcs12::builder();
    if exportable {
        builder.pkey(pair).cert(&finished.leaf);
    } else {
        chain.push(finished.leaf.clone())?;
    }
    for certificate in &finished.chain {
        chain.push(certificate.clone())?;
    }
    if !chain.is_empty() {
        builder.ca(chain);
    }
    let der = Zeroizing::new(builder.build2("")?.to_der()?);
    Ok(Zeroizing::new(BASE64_STANDARD.encode(&*der)))
}

/// Key, leaf and chain of an import: a PFX in base64, or PEM text.
fn read_bundle(
    asked: &CertificateImportParameters,
) -> Result<(Material, X509, Vec<X509>), Refusal> {
    let refused = || {
        Refusal::BadParameter(
            "The specified PKCS#12 or PEM X.509 certificate content is invalid.".to_owned(),
        )
    };
    if asked.value.contains("-----BEGIN") {
        let pem = asked.value.as_bytes();
        let pair = PKey::private_key_from_pem(pem).map_err(|_| refused())?;
        let mut certificates = X509::stack_from_pem(pem).map_err(|_| refused())?;
        if certificates.is_empty() {
            return Err(refused());
        }
        let at = certificates
            .iter()
            .position(|one| one.public_key().is_ok_and(|public| public.public_eq(&pair)))
            .ok_or_else(refused)?;
        let leaf = certificates.remove(at);
        return Ok((Material::from_private_key(pair)?, leaf, certificates));
    }
    let der: String = asked.value.split_ascii_whitespace().collect();
    let der = Zeroizing::new(BASE64_STANDARD.decode(der).map_err(|_| refused())?);
    let parsed = Pkcs12::from_der(&der).map_err(|_| refused())?;
    let password = asked.pwd.as_deref().unwrap_or_default();
    let parsed = parsed.parse2(password).map_err(|_| {
        Refusal::BadParameter(
            "The specified password does not match the specified PKCS#12 content.".to_owned(),
        )
    })?;
    let (Some(pair), Some(leaf)) = (parsed.pkey, parsed.cert) else { return Err(refused()) };
    let chain = parsed.ca.into_iter().flatten().collect();
    Ok((Material::from_private_key(pair)?, leaf, chain))
}
