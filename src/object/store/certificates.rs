//! Certificates of the token, and the keys they belong to: a certificate has label and id of its
//! key, and of two for one key a configured one wins.

use std::sync::Arc;

use cryptoki_sys::*;

use super::{Inner, Store, names::Known};
use crate::{
    crypto::Hash,
    hex,
    object::{
        Object,
        certificate::{Certificate, Given},
    },
};

/// Where a certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The configuration, or its certificate directory.
    Configured,
    /// The vault: the certificate of the key with this name (in lower case).
    Vault(String),
    /// The vault: an issuer, from the secret behind a certificate. Several may have it, so it stays
    /// when one of them changes.
    Issuer,
}

#[derive(Clone, Debug)]
pub(super) struct StoredCertificate {
    pub(super) certificate: Certificate,
    pub(super) handle: CK_OBJECT_HANDLE,
    pub(super) origin: Origin,
    /// It is there for its own key, not as an issuer of others.
    pub(super) is_leaf: bool,
}

impl Store {
    /// Adds a certificate of the token. One of the vault gives way to a configured one for the
    /// same key.
    pub fn add_certificate(
        &self,
        certificate: Certificate,
        origin: Origin,
    ) -> Option<CK_OBJECT_HANDLE> {
        self.lock().add_certificate(certificate, origin)
    }

    /// The token certificate of a handle, if it comes from there.
    pub fn certificate(&self, handle: CK_OBJECT_HANDLE, origin: &Origin) -> Option<Certificate> {
        let inner = self.lock();
        let is_it = |s: &&StoredCertificate| s.handle == handle && s.origin == *origin;
        inner.certificates.iter().find(is_it).map(|stored| stored.certificate.clone())
    }

    /// Forgets a token certificate.
    pub fn remove_certificate(&self, handle: CK_OBJECT_HANDLE) {
        let mut inner = self.lock();
        inner.certificates.retain(|stored| stored.handle != handle);
        inner.remove(handle);
    }

    /// Forgets configured certificates that `leaf` takes the place of: those for the same key.
    pub fn replace_leaf(&self, leaf: &Certificate) {
        let mut inner = self.lock();
        let replaced: Vec<_> = inner
            .certificates
            .extract_if(.., |stored| {
                !leaf.is_ca
                    && stored.certificate.key_id == leaf.key_id
                    && stored.certificate.der != leaf.der
            })
            .map(|stored| stored.handle)
            .collect();
        for handle in replaced {
            inner.remove(handle);
        }
    }

    /// Names, with the version shown, of keys that back a certificate of the vault which was not
    /// asked for yet.
    pub fn names_without_certificate(&self) -> Vec<(String, String)> {
        let inner = self.lock();
        let wanting = |known: &Known| {
            let found = known.found.as_ref()?;
            let version = found.versions.first()?;
            (found.managed && !found.certificate_seen).then(|| version.clone())
        };
        let names = inner.names.iter();
        names.filter_map(|(name, known)| Some((name.clone(), wanting(known)?))).collect()
    }

    /// Remembers that the vault was asked for a name's certificate.
    pub fn certificate_seen(&self, name: &str) {
        if let Some(Known { found: Some(found), .. }) =
            self.lock().names.get_mut(&name.to_ascii_lowercase())
        {
            found.certificate_seen = true;
        }
    }

    /// Key identifiers (SHA-1 of the subjectPublicKey bits) of configured leaf certificates that may
    /// belong to a version of `name`: one that it shows, or one that no name shows.
    pub fn leaves_open_to(&self, name: &str) -> Vec<Vec<u8>> {
        let inner = self.lock();
        let open = |stored: &&StoredCertificate| {
            let key = inner.key_of(&stored.certificate.key_id);
            key.and_then(|key| key.vault_key()).is_none_or(|k| k.name.eq_ignore_ascii_case(name))
        };
        inner
            .certificates
            .iter()
            .filter(|stored| stored.origin == Origin::Configured && stored.is_leaf)
            .filter(open)
            .map(|stored| stored.certificate.key_id.clone())
            .collect()
    }

    /// Whether a configured certificate is for this key.
    pub fn has_configured_certificate(&self, key_id: &[u8]) -> bool {
        self.lock().certificates.iter().any(|stored| {
            stored.origin == Origin::Configured && stored.certificate.key_id == key_id
        })
    }
}

impl Inner {
    /// Drops the vault's certificate of a name whose version has changed.
    pub(super) fn remove_certificate_of(&mut self, name: &str) {
        let origin = Origin::Vault(name.to_ascii_lowercase());
        let gone: Vec<_> = self
            .certificates
            .extract_if(.., |stored| stored.origin == origin)
            .map(|stored| stored.handle)
            .collect();
        for handle in gone {
            self.remove(handle);
        }
    }

    pub(super) fn add_certificate(
        &mut self,
        certificate: Certificate,
        origin: Origin,
    ) -> Option<CK_OBJECT_HANDLE> {
        if let Some(same) =
            self.certificates.iter_mut().find(|s| s.certificate.der == certificate.der)
        {
            let handle = same.handle;
            if certificate.given != Given::default() && same.certificate.given != certificate.given
            {
                same.certificate.given = certificate.given.clone();
                let object = self.certificate_object(&certificate);
                self.replace(handle, object);
            }
            return Some(handle);
        }
        let same_key = |stored: &StoredCertificate| {
            stored.certificate.key_id == certificate.key_id && !certificate.is_ca
        };
        if origin != Origin::Configured
            && self.certificates.iter().any(|s| same_key(s) && s.origin == Origin::Configured)
        {
            return None;
        }
        let replaced: Vec<_> = self
            .certificates
            .extract_if(.., |stored| {
                stored.origin != Origin::Configured
                    && stored.certificate.key_id == certificate.key_id
                    && !certificate.is_ca
            })
            .map(|stored| stored.handle)
            .collect();
        for handle in replaced {
            self.remove(handle);
        }
        let object = self.certificate_object(&certificate);
        let handle = self.show(object);
        let is_leaf = !certificate.is_ca;
        self.certificates.push(StoredCertificate { certificate, handle, origin, is_leaf });
        Some(handle)
    }

    /// A certificate takes id and label of its key, but for a label of its own; without a key it
    /// stands for itself.
    pub(super) fn certificate_object(&self, certificate: &Certificate) -> Object {
        let given = &certificate.given;
        match self.key_of(&certificate.key_id) {
            Some(key) => {
                let label = given.label.clone().unwrap_or_else(|| key.label());
                let id = key.attributes.bytes(CKA_ID).unwrap_or(&certificate.key_id);
                let unique = key.vault_key().map(|k| format!("{}/{}#cert", k.name, k.version));
                certificate.object(true, &label, id, unique.as_deref())
            }
            None => {
                let label = given.label.as_ref().unwrap_or(&certificate.common_name);
                let id = given.id.as_ref().unwrap_or(&certificate.key_id);
                let unique =
                    format!("certificate/{}", hex::encode(&Hash::Sha1.digest(&certificate.der)));
                certificate.object(true, label, id, Some(&unique))
            }
        }
    }

    /// The private key object of the token, among those shown, with this computed identifier.
    pub(super) fn key_of(&self, key_id: &[u8]) -> Option<&Arc<Object>> {
        let is_it = |object: &&Arc<Object>| {
            let public = object.vault_key().and_then(|key| key.public());
            public.is_some_and(|public| public.key_id() == key_id)
        };
        let objects = |handle| self.objects.get(&handle);
        self.by_id.of(key_id).filter_map(objects).find(is_it).or_else(|| {
            // Its owner may have given it another CKA_ID.
            self.shown.iter().copied().filter_map(objects).find(is_it)
        })
    }

    /// Gives certificates of a key that became known its label and id.
    pub(super) fn match_certificates(&mut self, key: CK_OBJECT_HANDLE) {
        let Some(object) = self.objects.get(&key) else { return };
        let Some(public) = object.vault_key().and_then(|key| key.public()) else { return };
        let key_id = public.key_id();
        let matching: Vec<_> = self
            .certificates
            .iter()
            .filter(|stored| stored.certificate.key_id == key_id)
            .map(|stored| (stored.handle, stored.certificate.clone()))
            .collect();
        for (handle, certificate) in matching {
            let object = self.certificate_object(&certificate);
            self.replace(handle, object);
        }
    }
}
