//! How a certificate comes to be: self-signed, imported, or merged from elsewhere.

use std::sync::Arc;

use akv_wire::{
    CertificateCreateParameters, CertificateImportParameters, CertificateKeyProperties,
    CertificateMergeParameters, CertificatePolicy, CertificateSecretProperties, Issuer, KeyType,
};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use openssl::nid::Nid;
use openssl::pkcs12::Pkcs12;
use openssl::pkey::PKey;
use openssl::stack::Stack;
use openssl::x509::X509;
use zeroize::Zeroizing;

use super::place;
use super::policy::{PFX, canonical, issuer_name, lifetime_action};
use crate::body;
use crate::crypto::{Material, x509};
use crate::dialect::uuid;
use crate::refusal::Refusal;
use crate::service::objects::{check_free, check_tags, live};
use crate::service::{Outcome, Request, Service};
use crate::state::{
    CertificateExtra, CertificateVersion, KeyVersion, Life, Object, Pending, SecretVersion, State,
    folded,
};

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
    pub(in crate::service) async fn create_certificate(
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
    pub(in crate::service) async fn begin_certificate(
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

    pub(in crate::service) fn import_certificate(
        &self,
        request: &Request<'_>,
    ) -> Result<Outcome, Refusal> {
        let asked: CertificateImportParameters =
            body::read(&request.call.body, body::CERTIFICATE_IMPORT)?;
        self.take_certificate(request.name, &asked)?;
        self.show_certificate(request, "")
    }

    /// Takes a certificate with its key and chain.
    pub(in crate::service) fn take_certificate(
        &self,
        name: &str,
        asked: &CertificateImportParameters,
    ) -> Result<(), Refusal> {
        let now = self.clock.now();
        let Bundle { material, leaf, chain, content_type } = read_bundle(asked)?;
        let facts = x509::facts(&leaf)?;
        let given = asked.policy.clone().unwrap_or_default();
        let policy = CertificatePolicy {
            key_props: Some(CertificateKeyProperties {
                kty: Some(material.key_type(false).as_str().to_owned()),
                key_size: material.bits().or_else(|| material.private_key().map(|key| key.bits())),
                crv: material.public().crv,
                ..given.key_props.clone().unwrap_or_default()
            }),
            secret_props: given.secret_props.clone().or_else(|| {
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
        let mut state = self.state.write();
        self.check_certificate_name(&state, name, now)?;
        place(&mut state, name, versions);
        if let Some(object) = state.certificates.get_mut(&folded(name)) {
            object.extra = CertificateExtra { policy, pending: None };
        }
        Ok(())
    }

    pub(in crate::service) fn merge_certificate(
        &self,
        request: &Request<'_>,
    ) -> Result<Outcome, Refusal> {
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

type Generator = Box<dyn FnOnce() -> Result<Material, openssl::error::ErrorStack> + Send + 'static>;

fn certificate_ops(kty: KeyType) -> Vec<String> {
    let ops: &[&str] = if kty.is_ec() {
        &["sign", "verify"]
    } else {
        &["sign", "verify", "wrapKey", "unwrapKey", "encrypt", "decrypt"]
    };
    ops.iter().map(|op| (*op).to_owned()).collect()
}

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
    // As the service does, by its recorded answers.
    builder.key_algorithm(Nid::PBE_WITHSHA1AND3_KEY_TRIPLEDES_CBC);
    builder.cert_algorithm(Nid::PBE_WITHSHA1AND3_KEY_TRIPLEDES_CBC);
    builder.key_iter(2000);
    let der = Zeroizing::new(builder.build2("")?.to_der()?);
    Ok(Zeroizing::new(BASE64_STANDARD.encode(&*der)))
}

/// What an import brings.
struct Bundle {
    material: Material,
    leaf: X509,
    chain: Vec<X509>,
    content_type: &'static str,
}

/// A PFX in base64, or PEM: as it is, as every SDK but one sends it, or in base64, too.
fn read_bundle(asked: &CertificateImportParameters) -> Result<Bundle, Refusal> {
    const MARK: &[u8] = b"-----BEGIN";
    let unreadable = |kind: &str, more: &str| {
        Refusal::BadParameter(format!(
            "The specified {kind} X.509 certificate content can not be read. Please check if \
             certificate is in valid {kind} format.{more}"
        ))
    };
    let plain = asked.value.as_bytes();
    let decoded = || {
        let text: Vec<u8> =
            plain.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
        BASE64_STANDARD.decode(Zeroizing::new(text)).map(Zeroizing::new)
    };
    let content = match plain.windows(MARK.len()).any(|window| window == MARK) {
        true => Zeroizing::new(plain.to_vec()),
        false => decoded().map_err(|_| unreadable("PKCS#12", ""))?,
    };
    if content.windows(MARK.len()).any(|window| window == MARK) {
        let refused =
            || unreadable("PEM", " Accepted formats: PEM content or Base64 encoded PEM content.");
        let pair = PKey::private_key_from_pem(&content).map_err(|_| refused())?;
        let mut chain = X509::stack_from_pem(&content).map_err(|_| refused())?;
        let at = chain
            .iter()
            .position(|one| one.public_key().is_ok_and(|public| public.public_eq(&pair)))
            .ok_or_else(refused)?;
        let leaf = chain.remove(at);
        let material = Material::from_private_key(pair)?;
        return Ok(Bundle { material, leaf, chain, content_type: PEM });
    }
    let refused = || unreadable("PKCS#12", "");
    let parsed = Pkcs12::from_der(&content).map_err(|_| refused())?;
    let password = asked.pwd.as_deref().unwrap_or_default();
    let parsed = parsed.parse2(password).map_err(|_| {
        Refusal::BadParameter(
            "The specified password does not match the specified PKCS#12 content.".to_owned(),
        )
    })?;
    let (Some(pair), Some(leaf)) = (parsed.pkey, parsed.cert) else { return Err(refused()) };
    let chain = parsed.ca.into_iter().flatten().collect();
    Ok(Bundle { material: Material::from_private_key(pair)?, leaf, chain, content_type: PFX })
}
