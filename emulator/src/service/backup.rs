//! Backups: all versions of a name in one opaque, authenticated blob.
//!
//! The shape is the recorded one, a compact JWE behind a marker; the key is one per Managed HSM
//! (its security domain) and one for all vaults (their subscription and geography).

use akv_wire::{BackupResult, KeyRestoreParameters};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use openssl::symm::{Cipher, decrypt_aead, encrypt_aead};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::objects::{Collected, check_free, live, not_found};
use super::{Outcome, Request, Service};
use crate::body;
use crate::config::ServiceKind;
use crate::crypto;
use crate::refusal::{Noun, Refusal};
use crate::state::{
    CertificateVersion, Collection, KeyVersion, Object, SecretVersion, State, folded,
};

/// A certificate goes with its key and its secret.
#[derive(Serialize, Deserialize)]
struct Three {
    certificate: Object<CertificateVersion>,
    key: Object<KeyVersion>,
    secret: Object<SecretVersion>,
}

impl Service {
    pub(super) fn backup_key(&self, request: &Request<'_>) -> Result<Outcome, Refusal> {
        let object = self.whole(&self.state.read().keys, request)?;
        self.seal(Noun::Key, &object)
    }

    pub(super) fn backup_secret(&self, request: &Request<'_>) -> Result<Outcome, Refusal> {
        self.settle_certificates();
        let object = self.whole(&self.state.read().secrets, request)?;
        self.seal(Noun::Secret, &object)
    }

    pub(super) fn backup_certificate(&self, request: &Request<'_>) -> Result<Outcome, Refusal> {
        self.settle_certificates();
        let three = {
            let state = self.state.read();
            Three {
                certificate: self.whole(&state.certificates, request)?,
                key: self.whole(&state.keys, request)?,
                secret: self.whole(&state.secrets, request)?,
            }
        };
        self.seal(Noun::Certificate, &three)
    }

    pub(super) fn restore_key(&self, request: &Request<'_>) -> Result<Outcome, Refusal> {
        let object: Object<KeyVersion> = self.open(Noun::Key, request)?;
        let (name, current) = {
            let mut state = self.state.write();
            self.check_restore(&state.keys, &object, request)?;
            self.check_room(&state.keys, &object.name)?;
            put(&mut state, object, |state| &mut state.keys)
        };
        self.show_key(request, &name, &current)
    }

    pub(super) fn restore_secret(&self, request: &Request<'_>) -> Result<Outcome, Refusal> {
        let object: Object<SecretVersion> = self.open(Noun::Secret, request)?;
        let (name, current) = {
            let mut state = self.state.write();
            self.check_restore(&state.secrets, &object, request)?;
            put(&mut state, object, |state| &mut state.secrets)
        };
        self.ok(&self.secret_bundle(request, &name, &current, false))
    }

    pub(super) fn restore_certificate(&self, request: &Request<'_>) -> Result<Outcome, Refusal> {
        let three: Three = self.open(Noun::Certificate, request)?;
        let name = {
            let mut state = self.state.write();
            self.check_restore(&state.certificates, &three.certificate, request)?;
            self.check_restore(&state.keys, &three.key, request)?;
            self.check_restore(&state.secrets, &three.secret, request)?;
            put(&mut state, three.key, |state| &mut state.keys);
            put(&mut state, three.secret, |state| &mut state.secrets);
            put(&mut state, three.certificate, |state| &mut state.certificates).0
        };
        if let Some(object) = self.state.write().certificates.get_mut(&folded(&name)) {
            object.extra.pending = None;
        }
        self.show_certificate(&Request { name: &name, ..*request }, "")
    }

    fn whole<V: Collected>(
        &self,
        objects: &Collection<V>,
        request: &Request<'_>,
    ) -> Result<Object<V>, Refusal> {
        let object = live(objects, request.name, "", self.clock.now())?;
        let (versions, most) = (object.versions.len(), self.switches.backup_versions);
        if versions > most {
            return Err(Refusal::TooManyVersions { noun: V::NOUN, versions, most });
        }
        Ok(object.clone())
    }

    fn check_restore<V: Collected>(
        &self,
        objects: &Collection<V>,
        object: &Object<V>,
        request: &Request<'_>,
    ) -> Result<(), Refusal> {
        check_free(objects, &object.name, self.clock.now())?;
        let current = object.version("").ok_or_else(|| not_found::<V>(&object.name, ""))?;
        if objects.contains_key(&folded(&object.name)) {
            let id =
                Self::id(&request.call.authority, V::NOUN.collection(), &object.name, current.id());
            return Err(Refusal::RestoreConflict { noun: V::NOUN, id });
        }
        Ok(())
    }

    fn seal<T: Serialize>(&self, noun: Noun, content: &T) -> Result<Outcome, Refusal> {
        let content = serde_json::to_vec(content)
            .map(Zeroizing::new)
            .map_err(|error| Refusal::Internal(format!("backup: {error}")))?;
        let header = match self.kind {
            ServiceKind::Vault => r#"{"kid":"emulator","alg":"dir","enc":"A256GCM"}"#,
            ServiceKind::ManagedHsm => {
                r#"{"alg":"dir","enc":"A256GCM","kid":"backup-protection-key"}"#
            }
        };
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let (header, iv) = (encode(header.as_bytes()), crypto::random(12)?);
        let mut tag = [0; 16];
        let sealed = encrypt_aead(
            Cipher::aes_256_gcm(),
            self.backup_key.as_slice(),
            Some(&iv),
            header.as_bytes(),
            &content,
            &mut tag,
        )?;
        let jwe = format!("{header}..{}.{}.{}", encode(&iv), encode(&sealed), encode(&tag));
        let mut blob = self.marker(noun);
        blob.extend(jwe.into_bytes());
        self.ok(&BackupResult { value: blob.into() })
    }

    fn open<T: DeserializeOwned>(&self, noun: Noun, request: &Request<'_>) -> Result<T, Refusal> {
        let asked: KeyRestoreParameters = body::read(&request.call.body, body::RESTORE)?;
        let content = self.opened(noun, asked.value.as_bytes()).ok_or(Refusal::BackupMalformed)?;
        serde_json::from_slice(&content).map_err(|_| Refusal::BackupMalformed)
    }

    fn opened(&self, noun: Noun, blob: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let jwe = std::str::from_utf8(blob.strip_prefix(self.marker(noun).as_slice())?).ok()?;
        let parts: Vec<&str> = jwe.split('.').collect();
        let [header, "", iv, sealed, tag] = parts.as_slice() else {
            return None;
        };
        let decode = |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text).ok();
        decrypt_aead(
            Cipher::aes_256_gcm(),
            self.backup_key.as_slice(),
            Some(&decode(iv)?),
            header.as_bytes(),
            &decode(sealed)?,
            &decode(tag)?,
        )
        .ok()
        .map(Zeroizing::new)
    }

    /// Recorded: a vault's blob begins with a counted marker, an HSM's with the JWE. Certificates
    /// say "Key".
    fn marker(&self, noun: Noun) -> Vec<u8> {
        if self.kind == ServiceKind::ManagedHsm {
            return Vec::new();
        }
        let what = if noun == Noun::Secret { "Secret" } else { "Key" };
        let text = format!("AzureKeyVault{what}BackupV1.microsoft.com");
        let mut marker = vec![u8::try_from(text.len()).unwrap_or_default()];
        marker.extend(text.into_bytes());
        marker
    }
}

/// Puts a restored object in and gives back its name and current version.
fn put<V: Collected>(
    state: &mut State,
    mut object: Object<V>,
    collection: impl Fn(&mut State) -> &mut Collection<V>,
) -> (String, V) {
    object.sequence = state.next_sequence();
    object.recovering_until = 0;
    let name = object.name.clone();
    let current = object.versions[object.versions.len() - 1].clone();
    collection(state).insert(folded(&name), object);
    (name, current)
}
