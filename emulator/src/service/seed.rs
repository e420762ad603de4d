//! Keys, certificates and secrets that are there from the start.

use std::path::Path;

use akv_wire::{
    CertificateCreateParameters, CertificateImportParameters, CertificateKeyProperties,
    CertificatePolicy, CertificateSecretProperties, Issuer, KeyAttributes, KeyCreateParameters,
    KeyImportParameters, KeyType, SecretSetParameters, SubjectAlternativeNames, Tags,
    X509Properties,
};
use openssl::pkey::PKey;
use serde::Deserialize;

use super::Service;
use crate::config::ServiceKind;
use crate::crypto::Material;
use crate::refusal::Refusal;
use crate::state::folded;

/// What a seed file describes; TOML, or JSON of the same shape.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Seed {
    /// Keys.
    pub keys: Vec<KeySeed>,
    /// Certificates (vaults only).
    pub certificates: Vec<CertificateSeed>,
    /// Secrets (vaults only).
    pub secrets: Vec<SecretSeed>,
}

/// One key.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeySeed {
    /// Name.
    pub name: String,
    /// Only in the service of this name.
    #[serde(default)]
    pub service: Option<String>,
    /// Key type as in the contract; may be left out with `pem`.
    #[serde(default)]
    pub kty: Option<String>,
    /// Bits of RSA and AES keys.
    #[serde(default)]
    pub size: Option<u32>,
    /// Curve of an EC key.
    #[serde(default)]
    pub curve: Option<String>,
    /// Allowed operations.
    #[serde(default)]
    pub ops: Option<Vec<String>>,
    /// A private key to import instead: PEM text, or a file beside the seed file.
    #[serde(default)]
    pub pem: Option<String>,
    /// Tags.
    #[serde(default)]
    pub tags: Option<Tags>,
    /// Whether it may be used.
    #[serde(default)]
    pub enabled: Option<bool>,
}

/// One certificate.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateSeed {
    /// Name.
    pub name: String,
    /// Only in the service of this name.
    #[serde(default)]
    pub service: Option<String>,
    /// Subject of a self-signed one, for example `CN=localhost`.
    #[serde(default)]
    pub subject: String,
    /// A certificate to import instead, with its key and its issuers: PEM text, or a file beside
    /// the seed file.
    #[serde(default)]
    pub pem: Option<String>,
    /// Media type of its secret: `application/x-pkcs12` or `application/x-pem-file`.
    #[serde(default)]
    pub content_type: Option<String>,
    /// DNS names and IP addresses.
    #[serde(default)]
    pub dns_names: Vec<String>,
    /// Key type; RSA when left out.
    #[serde(default)]
    pub kty: Option<String>,
    /// Bits of an RSA key.
    #[serde(default)]
    pub size: Option<u32>,
    /// Curve of an EC key.
    #[serde(default)]
    pub curve: Option<String>,
    /// Whether the secret holds the private key.
    #[serde(default)]
    pub exportable: Option<bool>,
}

/// One secret.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretSeed {
    /// Name.
    pub name: String,
    /// Only in the service of this name.
    #[serde(default)]
    pub service: Option<String>,
    /// The value.
    pub value: String,
    /// Media type.
    #[serde(default)]
    pub content_type: Option<String>,
    /// Whether it may be read.
    #[serde(default)]
    pub enabled: Option<bool>,
}

/// Name, type, size, curve of the built-in seed `demo`.
const DEMO: &[(&str, &str, Option<u32>, Option<&str>)] = &[
    ("rsa2048", "RSA", Some(2048), None),
    ("rsa3072", "RSA", Some(3072), None),
    ("rsa4096", "RSA", Some(4096), None),
    ("p256", "EC", None, Some("P-256")),
    ("p256k", "EC", None, Some("P-256K")),
    ("p384", "EC", None, Some("P-384")),
    ("p521", "EC", None, Some("P-521")),
    ("aes128", "oct", Some(128), None),
    ("aes256", "oct", Some(256), None),
];

impl Seed {
    /// The built-in seed: a key of every kind.
    pub fn demo() -> Self {
        let keys = DEMO.iter().map(|(name, kty, size, curve)| KeySeed {
            name: (*name).to_owned(),
            service: None,
            kty: Some((*kty).to_owned()),
            size: *size,
            curve: curve.map(str::to_owned),
            ops: None,
            pem: None,
            tags: None,
            enabled: None,
        });
        Self { keys: keys.collect(), ..Self::default() }
    }

    /// Reads a seed file; files named in it are taken from its folder.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("seed {}: {error}", path.display()))?;
        let mut seed: Self = if text.trim_start().starts_with('{') {
            serde_json::from_str(&text).map_err(|error| error.to_string())
        } else {
            toml::from_str(&text).map_err(|error| error.to_string())
        }
        .map_err(|error| format!("seed {}: {error}", path.display()))?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let keys = seed.keys.iter_mut().map(|key| (&key.name, &mut key.pem));
        let certificates = seed.certificates.iter_mut().map(|one| (&one.name, &mut one.pem));
        for (name, pem) in keys.chain(certificates) {
            if let Some(pem) = pem.as_mut().filter(|pem| !pem.contains("-----BEGIN")) {
                let file = folder.join(&*pem);
                *pem = std::fs::read_to_string(&file)
                    .map_err(|error| format!("'{name}': {}: {error}", file.display()))?;
            }
        }
        Ok(seed)
    }
}

impl Service {
    /// Makes everything the seed has for this service.
    pub async fn plant(&self, seed: &Seed) -> Result<(), String> {
        let mine = |service: &Option<String>| {
            service.as_ref().is_none_or(|name| name.eq_ignore_ascii_case(&self.name))
        };
        for key in seed.keys.iter().filter(|key| mine(&key.service) && !self.has(&key.name)) {
            let secret = key.kty.as_deref().is_some_and(|kty| kty.starts_with("oct"));
            if secret
                && key.service.is_none()
                && self.kind == ServiceKind::Vault
                && !self.switches.vault_oct_keys
            {
                continue; // a vault has no secret keys: the line is for the HSMs
            }
            self.plant_key(key)
                .await
                .map_err(|refusal| format!("seed key '{}': {refusal:?}", key.name))?;
        }
        if self.kind == ServiceKind::Vault {
            for certificate in
                seed.certificates.iter().filter(|one| mine(&one.service) && !self.has(&one.name))
            {
                self.plant_certificate(certificate).await.map_err(|refusal| {
                    format!("seed certificate '{}': {refusal:?}", certificate.name)
                })?;
            }
            self.settle_certificates();
            for secret in seed.secrets.iter().filter(|one| mine(&one.service)) {
                self.plant_secret(secret)
                    .map_err(|refusal| format!("seed secret '{}': {refusal:?}", secret.name))?;
            }
        }
        self.save()
    }

    /// Whether the name is there already: what was kept is not seeded again.
    fn has(&self, name: &str) -> bool {
        let (state, name) = (self.state.read(), folded(name));
        state.keys.contains_key(&name) || state.certificates.contains_key(&name)
    }

    async fn plant_key(&self, seed: &KeySeed) -> Result<(), Refusal> {
        let attributes = seed
            .enabled
            .map(|enabled| KeyAttributes { enabled: Some(enabled), ..KeyAttributes::default() });
        let Some(pem) = &seed.pem else {
            let asked = KeyCreateParameters {
                kty: seed.kty.clone(),
                key_size: seed.size,
                crv: seed.curve.clone(),
                key_ops: seed.ops.clone(),
                attributes,
                tags: seed.tags.clone(),
                ..KeyCreateParameters::default()
            };
            return self.make_key(&seed.name, &asked).await.map(drop);
        };
        let pair = PKey::private_key_from_pem(pem.as_bytes())?;
        let hsm = seed.kty.as_deref().and_then(|kty| kty.parse::<KeyType>().ok());
        let asked = KeyImportParameters {
            key: private_jwk(&Material::from_private_key(pair)?, seed.ops.clone())?,
            hsm: hsm.map(KeyType::is_hsm),
            attributes,
            tags: seed.tags.clone(),
            ..KeyImportParameters::default()
        };
        self.take_key(&seed.name, &asked).map(drop)
    }

    /// One that is there already stays as it is.
    fn plant_secret(&self, seed: &SecretSeed) -> Result<(), Refusal> {
        if self.state.read().secrets.contains_key(&folded(&seed.name)) {
            return Ok(());
        }
        let mut asked = SecretSetParameters::default();
        asked.value = Some(seed.value.clone());
        asked.content_type.clone_from(&seed.content_type);
        asked.attributes = seed
            .enabled
            .map(|enabled| KeyAttributes { enabled: Some(enabled), ..KeyAttributes::default() });
        self.put_secret(&seed.name, asked).map(drop)
    }

    async fn plant_certificate(&self, seed: &CertificateSeed) -> Result<(), Refusal> {
        let secret_props = seed
            .content_type
            .clone()
            .map(|kind| CertificateSecretProperties { content_type: Some(kind) });
        if let Some(pem) = &seed.pem {
            let key_props = CertificateKeyProperties {
                exportable: seed.exportable,
                ..CertificateKeyProperties::default()
            };
            let mut asked = CertificateImportParameters::default();
            asked.value.clone_from(pem);
            asked.policy = Some(CertificatePolicy {
                key_props: Some(key_props),
                secret_props,
                ..CertificatePolicy::default()
            });
            return self.take_certificate(&seed.name, &asked);
        }
        let sans = (!seed.dns_names.is_empty()).then(|| SubjectAlternativeNames {
            dns_names: Some(seed.dns_names.clone()),
            ..SubjectAlternativeNames::default()
        });
        let policy = CertificatePolicy {
            key_props: Some(CertificateKeyProperties {
                exportable: seed.exportable,
                kty: seed.kty.clone(),
                key_size: seed.size,
                crv: seed.curve.clone(),
                reuse_key: None,
            }),
            x509_props: Some(X509Properties {
                subject: Some(seed.subject.clone()),
                sans,
                ..X509Properties::default()
            }),
            issuer: Some(Issuer { name: Some("Self".to_owned()), ..Issuer::default() }),
            secret_props,
            ..CertificatePolicy::default()
        };
        let asked = CertificateCreateParameters {
            policy: Some(policy),
            ..CertificateCreateParameters::default()
        };
        self.begin_certificate(&seed.name, &asked).await.map(drop)
    }
}

/// The private JWK of a pair, as an import carries it.
fn private_jwk(
    material: &Material,
    key_ops: Option<Vec<String>>,
) -> Result<akv_wire::JsonWebKey, Refusal> {
    let mut key = material.public();
    key.kty = Some(material.key_type(false).as_str().to_owned());
    key.key_ops = key_ops;
    let some = |number: &openssl::bn::BigNumRef| Some(number.to_vec().into());
    match material {
        Material::Rsa { key: pair, .. } => {
            let pair = pair.rsa()?;
            key.d = some(pair.d());
            key.p = pair.p().and_then(some);
            key.q = pair.q().and_then(some);
            key.dp = pair.dmp1().and_then(some);
            key.dq = pair.dmq1().and_then(some);
            key.qi = pair.iqmp().and_then(some);
        }
        Material::Ec { key: pair, .. } => key.d = some(pair.ec_key()?.private_key()),
        Material::Oct(bytes) => key.k = Some(bytes.to_vec().into()),
    }
    Ok(key)
}
