//! Certificate policies.

use akv_wire::{
    BasicConstraints, CertificateAction, CertificateLifetimeAction, CertificatePolicy,
    CertificateTrigger, KeyAttributes, KeyType,
};

use crate::body;
use crate::crypto::x509;
use crate::refusal::Refusal;
use crate::service::objects::{live, live_mut};
use crate::service::{Outcome, Request, Service};

/// Media type of a PFX secret, the default.
pub(super) const PFX: &str = "application/x-pkcs12";

impl Service {
    pub(in crate::service) fn certificate_policy(
        &self,
        request: &Request<'_>,
    ) -> Result<Outcome, Refusal> {
        self.settle_certificates();
        let policy = {
            let state = self.state.read();
            let object = live(&state.certificates, request.name, "", self.clock.now())?;
            self.shown_policy(&request.call.authority, &object.name, &object.extra.policy)
        };
        self.ok(&policy)
    }

    /// Members that are named replace the old ones; the rest stays.
    pub(in crate::service) fn update_certificate_policy(
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

    pub(in crate::service) fn shown_policy(
        &self,
        authority: &str,
        name: &str,
        policy: &CertificatePolicy,
    ) -> CertificatePolicy {
        let id = format!("{}/policy", Self::id(authority, "certificates", name, ""));
        CertificatePolicy { id: Some(id), ..policy.clone() }
    }
}

pub(super) fn issuer_name(policy: &CertificatePolicy) -> String {
    policy.issuer.as_ref().and_then(|issuer| issuer.name.clone()).unwrap_or_default()
}

pub(super) fn lifetime_action(kind: &str) -> CertificateLifetimeAction {
    CertificateLifetimeAction {
        trigger: CertificateTrigger { lifetime_percentage: Some(80), days_before_expiry: None },
        action: CertificateAction { action_type: kind.to_owned() },
    }
}

/// Fills in what the service fills in.
pub(super) fn canonical(
    mut policy: CertificatePolicy,
    now: i64,
) -> Result<CertificatePolicy, Refusal> {
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
        // It would have to be one of /certificates/issuers, which are left out.
        return Err(Refusal::NotSupported("issuers"));
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
