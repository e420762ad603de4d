//! The objects of one token that this process knows: handles, look-up by label and id, and how
//! fresh each name is. Never asks the service; `operation::find` does and puts its findings here.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError},
    time::{Duration, Instant},
};

use cryptoki_sys::*;

use super::{
    Object,
    certificate::{Certificate, Given},
    profile,
};
use crate::error::{Error, Result};

/// A template as the store compares it: type and value.
pub type Wanted = Vec<(CK_ATTRIBUTE_TYPE, Vec<u8>)>;

/// The objects of one token.
#[derive(Debug)]
pub struct Store {
    inner: Mutex<Inner>,
}

#[derive(Clone, Debug, Default)]
struct Inner {
    next_handle: CK_OBJECT_HANDLE,
    /// Every object a handle was given for, found by searches or not.
    objects: BTreeMap<CK_OBJECT_HANDLE, Arc<Object>>,
    /// What searches find.
    shown: BTreeSet<CK_OBJECT_HANDLE>,
    /// What searches for its class find, and no others.
    profiles: BTreeSet<CK_OBJECT_HANDLE>,
    by_label: HashMap<Vec<u8>, BTreeSet<CK_OBJECT_HANDLE>>,
    by_id: HashMap<Vec<u8>, BTreeSet<CK_OBJECT_HANDLE>>,
    /// CKA_UNIQUE_ID to handle: an object that comes back has the handle it had.
    by_unique: HashMap<Vec<u8>, CK_OBJECT_HANDLE>,
    /// What is known of each name, by the name in lower case.
    names: HashMap<String, Known>,
    /// When all names were listed last.
    listed: Option<Instant>,
    certificates: Vec<StoredCertificate>,
}

/// What is known of one name.
#[derive(Clone, Debug)]
struct Known {
    seen: Instant,
    /// `attributes.updated` of the version shown; None for a name that does not exist.
    found: Option<Found>,
}

/// A name that exists, as it was seen last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// `attributes.updated`, to tell from a listing whether the name has changed.
    pub updated: Option<i64>,
    /// The key backs a certificate of the vault.
    pub managed: bool,
    /// The versions shown, the meant one first.
    pub versions: Vec<String>,
    /// The version that a configured certificate belongs to, where that is not the current one.
    pub pinned: Option<String>,
    /// Whether the vault was asked for the certificate of this version already.
    pub certificate_seen: bool,
    /// Handles of its objects, as [`Store::put_name`] gave them.
    pub handles: Vec<CK_OBJECT_HANDLE>,
}

/// How much is known of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Knowledge {
    /// Nothing, or nothing recent; the last finding, if any, is still shown.
    Stale,
    /// It exists, and its objects are here.
    Fresh(Found),
    /// It does not exist.
    Missing,
}

/// How long a name that was not found is not asked for again.
const MISSING_TTL: Duration = Duration::from_secs(3);

#[derive(Clone, Debug)]
struct StoredCertificate {
    certificate: Certificate,
    handle: CK_OBJECT_HANDLE,
    origin: Origin,
    /// It is there for its own key, not as an issuer of others.
    is_leaf: bool,
}

/// Where a certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The configuration, or its certificate directory.
    Configured,
    /// The vault: the certificate of the key with this name (in lower case).
    Vault(String),
}

impl Store {
    /// A store that shows the certificates of the files that the configuration names. The first of
    /// a file is a leaf, even if it is a CA's: what it says of itself does not tell a CA's own
    /// certificate, or one that is signed by its own key, from an issuer's.
    pub fn new(files: Vec<Vec<Certificate>>, first_handle: CK_OBJECT_HANDLE) -> Store {
        let mut inner = Inner { next_handle: first_handle, ..Inner::default() };
        for profile in profile::objects() {
            let handle = inner.show(profile);
            inner.hide(handle);
            inner.profiles.insert(handle);
        }
        for file in files {
            for (place, certificate) in file.into_iter().enumerate() {
                let handle = inner.add_certificate(certificate, Origin::Configured);
                let mut stored = inner.certificates.iter_mut();
                if let Some(first) = stored.find(|s| place == 0 && Some(s.handle) == handle) {
                    first.is_leaf = true;
                }
            }
        }
        Store { inner: Mutex::new(inner) }
    }

    /// A copy for a forked child; None when the lock was held at the fork by another thread.
    pub fn carried_over(&self) -> Option<Store> {
        match self.inner.try_lock() {
            Ok(inner) => Some(Store { inner: Mutex::new(inner.clone()) }),
            Err(TryLockError::Poisoned(poisoned)) => {
                Some(Store { inner: Mutex::new(poisoned.into_inner().clone()) })
            }
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Holds the lock, for the time of a fork.
    pub fn hold(&self) -> impl Sized + use<'_> {
        self.lock()
    }

    /// The object of a handle.
    ///
    /// # Errors
    /// CKR_OBJECT_HANDLE_INVALID.
    pub fn object(&self, handle: CK_OBJECT_HANDLE) -> Result<Arc<Object>> {
        self.lock().objects.get(&handle).cloned().ok_or_else(|| unknown(handle))
    }

    /// Handles of the shown objects that match `wanted` and that `visible` lets through, in the
    /// order they became known.
    pub fn find(
        &self,
        wanted: &Wanted,
        visible: impl Fn(&Object) -> bool,
    ) -> Vec<CK_OBJECT_HANDLE> {
        let inner = self.lock();
        let value_of = |kind| wanted.iter().find(|(k, _)| *k == kind).map(|(_, value)| value);
        let indexed = value_of(CKA_ID)
            .map(|id| inner.by_id.get(id))
            .or_else(|| value_of(CKA_LABEL).map(|label| inner.by_label.get(label)));
        let nothing = BTreeSet::new();
        let profiles = value_of(CKA_CLASS).is_some_and(|v| *v == CKO_PROFILE.to_ne_bytes());
        let candidates = match indexed {
            _ if profiles => &inner.profiles,
            Some(handles) => handles.unwrap_or(&nothing),
            None => &inner.shown,
        };
        candidates
            .iter()
            .filter(|handle| {
                inner
                    .objects
                    .get(handle)
                    .is_some_and(|object| visible(object) && object.attributes.match_all(wanted))
            })
            .copied()
            .collect()
    }

    /// What is known of a name.
    pub fn knowledge(&self, name: &str, ttl: Duration) -> Knowledge {
        let inner = self.lock();
        match inner.names.get(&name.to_ascii_lowercase()) {
            Some(Known { seen, found: Some(found) }) if seen.elapsed() < ttl => {
                Knowledge::Fresh(found.clone())
            }
            Some(Known { seen, found: None }) if seen.elapsed() < ttl.min(MISSING_TTL) => {
                Knowledge::Missing
            }
            _ => Knowledge::Stale,
        }
    }

    /// The last finding of a name, however old.
    pub fn last_found(&self, name: &str) -> Option<Found> {
        self.lock().names.get(&name.to_ascii_lowercase())?.found.clone()
    }

    /// Whether all names were listed within `ttl`.
    pub fn is_listed(&self, ttl: Duration) -> bool {
        self.lock().listed.is_some_and(|listed| listed.elapsed() < ttl)
    }

    /// Whether anything was ever found: then it is shown while the service is unreachable.
    pub fn has_keys(&self) -> bool {
        self.lock().names.values().any(|known| known.found.is_some())
    }

    /// Shows `objects` as what `name` has now; what it had before is found no more, but its
    /// handles go on working. Gives back the handles, in the order of `objects`.
    pub fn put_name(
        &self,
        name: &str,
        found: Found,
        objects: Vec<Object>,
    ) -> Vec<CK_OBJECT_HANDLE> {
        let mut inner = self.lock();
        let before = inner.forget(name);
        let certificate_seen = match before {
            Some(before) if before.versions == found.versions => before.certificate_seen,
            _ => {
                inner.remove_certificate_of(name);
                false
            }
        };
        let handles: Vec<_> = objects.into_iter().map(|object| inner.show(object)).collect();
        for handle in &handles {
            inner.match_certificates(*handle);
        }
        let found = Found { handles: handles.clone(), certificate_seen, ..found };
        let known = Known { seen: Instant::now(), found: Some(found) };
        inner.names.insert(name.to_ascii_lowercase(), known);
        handles
    }

    /// Gives handles to objects that no search finds: other versions than their names show. One
    /// that is known keeps its handle, and stays as it is.
    pub fn put_aside(&self, objects: Vec<Object>) -> Vec<CK_OBJECT_HANDLE> {
        let mut inner = self.lock();
        let place = |object: Object| {
            let unique = object.attributes.bytes(CKA_UNIQUE_ID).unwrap_or_default();
            if let Some(handle) = inner.by_unique.get(unique) {
                return *handle;
            }
            let handle = inner.show(object);
            inner.hide(handle);
            handle
        };
        objects.into_iter().map(place).collect()
    }

    /// Remembers that a name does not exist.
    pub fn put_missing(&self, name: &str) {
        let mut inner = self.lock();
        inner.forget(name);
        inner.remove_certificate_of(name);
        let known = Known { seen: Instant::now(), found: None };
        inner.names.insert(name.to_ascii_lowercase(), known);
    }

    /// Confirms that a name is as it was seen last.
    pub fn touch(&self, name: &str) {
        if let Some(known) = self.lock().names.get_mut(&name.to_ascii_lowercase()) {
            known.seen = Instant::now();
        }
    }

    /// Remembers that the next use of a name must ask the service.
    pub fn outdate(&self, name: &str) {
        let mut inner = self.lock();
        if let Some(known) = inner.names.get_mut(&name.to_ascii_lowercase())
            && known.found.is_none()
        {
            inner.names.remove(&name.to_ascii_lowercase());
        }
        inner.listed = None;
    }

    /// Remembers that exactly `names` exist.
    pub fn put_listing<'a>(&self, names: impl Iterator<Item = &'a str>) {
        let mut inner = self.lock();
        let names: BTreeSet<String> = names.map(str::to_ascii_lowercase).collect();
        let gone: Vec<String> =
            inner.names.keys().filter(|name| !names.contains(*name)).cloned().collect();
        for name in gone {
            inner.forget(&name);
            inner.names.remove(&name);
        }
        inner.listed = Some(Instant::now());
    }

    /// Adds a session object.
    pub fn add(&self, object: Object) -> CK_OBJECT_HANDLE {
        self.lock().show(object)
    }

    /// Puts a changed object in the place of the one with this handle.
    ///
    /// # Errors
    /// CKR_OBJECT_HANDLE_INVALID.
    pub fn replace(&self, handle: CK_OBJECT_HANDLE, object: Object) -> Result<()> {
        let mut inner = self.lock();
        if !inner.objects.contains_key(&handle) {
            return Err(unknown(handle));
        }
        inner.replace(handle, object);
        Ok(())
    }

    /// Forgets an object; its handle is unknown from now on.
    ///
    /// # Errors
    /// CKR_OBJECT_HANDLE_INVALID.
    pub fn remove(&self, handle: CK_OBJECT_HANDLE) -> Result<Arc<Object>> {
        self.lock().remove(handle).ok_or_else(|| unknown(handle))
    }

    /// Forgets the session objects that `which` picks (a session that closes, a logout).
    pub fn remove_where(&self, which: impl Fn(&Object) -> bool) {
        let mut inner = self.lock();
        let gone: Vec<_> = inner
            .objects
            .iter()
            .filter(|(_, object)| object.owner.is_some() && which(object))
            .map(|(handle, _)| *handle)
            .collect();
        for handle in gone {
            inner.remove(handle);
        }
    }

    /// Forgets all objects of a name (it was deleted).
    pub fn remove_name(&self, name: &str) {
        let mut inner = self.lock();
        let prefix = format!("{}/", name.to_ascii_lowercase());
        let gone: Vec<_> = inner
            .objects
            .iter()
            .filter(|(_, object)| {
                object.owner.is_none()
                    && object.class() != CKO_CERTIFICATE
                    && object.attributes.bytes(CKA_UNIQUE_ID).is_some_and(|unique| {
                        unique.to_ascii_lowercase().starts_with(prefix.as_bytes())
                    })
            })
            .map(|(handle, _)| *handle)
            .collect();
        for handle in gone {
            inner.remove(handle);
        }
        inner.names.remove(&name.to_ascii_lowercase());
    }

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

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Makes an object findable, under the handle it had if it was known before.
    fn show(&mut self, object: Object) -> CK_OBJECT_HANDLE {
        let unique = object.attributes.bytes(CKA_UNIQUE_ID).map(<[u8]>::to_vec);
        let handle = match unique.as_ref().and_then(|unique| self.by_unique.get(unique)) {
            Some(handle) => *handle,
            None => {
                let handle = self.next_handle;
                self.next_handle += 1;
                handle
            }
        };
        if let Some(unique) = unique {
            self.by_unique.insert(unique, handle);
        }
        self.replace(handle, object);
        handle
    }

    fn replace(&mut self, handle: CK_OBJECT_HANDLE, object: Object) {
        self.hide(handle);
        let label = object.attributes.bytes(CKA_LABEL).unwrap_or_default().to_vec();
        let id = object.attributes.bytes(CKA_ID).unwrap_or_default().to_vec();
        self.by_label.entry(label).or_default().insert(handle);
        self.by_id.entry(id).or_default().insert(handle);
        self.shown.insert(handle);
        self.objects.insert(handle, Arc::new(object));
    }

    /// Takes an object out of searches; its handle goes on working.
    fn hide(&mut self, handle: CK_OBJECT_HANDLE) {
        if !self.shown.remove(&handle) {
            return;
        }
        if let Some(object) = self.objects.get(&handle) {
            for (index, kind) in [(&mut self.by_label, CKA_LABEL), (&mut self.by_id, CKA_ID)] {
                let value = object.attributes.bytes(kind).unwrap_or_default();
                if let Some(handles) = index.get_mut(value) {
                    handles.remove(&handle);
                    if handles.is_empty() {
                        index.remove(value);
                    }
                }
            }
        }
    }

    fn remove(&mut self, handle: CK_OBJECT_HANDLE) -> Option<Arc<Object>> {
        self.hide(handle);
        let object = self.objects.remove(&handle)?;
        if let Some(unique) = object.attributes.bytes(CKA_UNIQUE_ID) {
            self.by_unique.remove(unique);
        }
        Some(object)
    }

    /// Takes what a name shows out of searches, and gives back what was known of it.
    fn forget(&mut self, name: &str) -> Option<Found> {
        let found = self.names.get(&name.to_ascii_lowercase())?.found.clone()?;
        for handle in &found.handles {
            self.hide(*handle);
        }
        Some(found)
    }

    /// Drops the vault's certificate of a name whose version has changed.
    fn remove_certificate_of(&mut self, name: &str) {
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

    fn add_certificate(
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
    fn certificate_object(&self, certificate: &Certificate) -> Object {
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
                    format!("certificate/{}", crate::hex::encode(&certificate_digest(certificate)));
                certificate.object(true, label, id, Some(&unique))
            }
        }
    }

    /// The private key object of the token, among those shown, with this computed identifier.
    fn key_of(&self, key_id: &[u8]) -> Option<&Arc<Object>> {
        let is_it = |object: &&Arc<Object>| {
            let public = object.vault_key().and_then(|key| key.public());
            public.is_some_and(|public| public.key_id() == key_id)
        };
        let by_id = self.by_id.get(key_id).into_iter().flatten();
        let objects = |handle| self.objects.get(handle);
        by_id.filter_map(objects).find(is_it).or_else(|| {
            // Its owner may have given it another CKA_ID.
            self.shown.iter().filter_map(objects).find(is_it)
        })
    }

    /// Gives certificates of a key that became known its label and id.
    fn match_certificates(&mut self, key: CK_OBJECT_HANDLE) {
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

fn certificate_digest(certificate: &Certificate) -> Vec<u8> {
    crate::crypto::Hash::Sha1.digest(&certificate.der)
}

fn unknown(handle: CK_OBJECT_HANDLE) -> Error {
    Error::new(CKR_OBJECT_HANDLE_INVALID, format!("object handle {handle} is not known"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::{Attributes, Material};

    fn object(label: &str, id: &str, unique: Option<&str>, owner: Option<CK_ULONG>) -> Object {
        let mut attributes = Attributes::default();
        attributes.set_ulong(CKA_CLASS, CKO_SECRET_KEY).set(CKA_LABEL, label).set(CKA_ID, id);
        if let Some(unique) = unique {
            attributes.set(CKA_UNIQUE_ID, unique);
        }
        Object { attributes, material: Material::None, owner }
    }

    fn labelled(label: &str) -> Wanted {
        vec![(CKA_LABEL, label.into())]
    }

    fn find(store: &Store, wanted: &Wanted) -> Vec<CK_OBJECT_HANDLE> {
        store.find(wanted, |_| true)
    }

    #[test]
    fn a_name_that_changes_keeps_old_handles_and_shows_the_new() {
        let store = Store::new(vec![], 1);
        let first = store.put_name(
            "Web",
            Found::default(),
            vec![object("Web", "1", Some("Web/1#sec"), None)],
        );
        assert_eq!(find(&store, &labelled("Web")), first);
        let second = store.put_name(
            "web",
            Found::default(),
            vec![object("Web", "2", Some("Web/2#sec"), None)],
        );
        assert_ne!(first, second);
        assert_eq!(find(&store, &labelled("Web")), second, "names are compared without case");
        assert!(find(&store, &vec![(CKA_ID, b"1".to_vec())]).is_empty());
        assert!(store.object(first[0]).is_ok(), "an open handle stays with its version");
        let again = store.put_name(
            "web",
            Found::default(),
            vec![object("Web", "1", Some("Web/1#sec"), None)],
        );
        assert_eq!(again, first, "an object that comes back has the handle it had");
    }

    #[test]
    fn a_listing_hides_what_is_gone() {
        let store = Store::new(vec![], 1);
        let kept = store.put_name("a", Found::default(), vec![object("a", "1", None, None)]);
        let gone = store.put_name("b", Found::default(), vec![object("b", "2", None, None)]);
        store.put_listing(["A"].into_iter());
        assert_eq!(find(&store, &vec![]), kept);
        assert!(store.object(gone[0]).is_ok());
        assert!(store.is_listed(Duration::from_secs(60)));
        assert!(!store.is_listed(Duration::ZERO));
        assert_eq!(store.last_found("b"), None);
    }

    #[test]
    fn knowledge_is_fresh_missing_or_stale() {
        let (store, ttl) = (Store::new(vec![], 1), Duration::from_secs(60));
        assert_eq!(store.knowledge("a", ttl), Knowledge::Stale);
        store.put_missing("a");
        assert_eq!(store.knowledge("A", ttl), Knowledge::Missing);
        store.outdate("a");
        assert_eq!(store.knowledge("a", ttl), Knowledge::Stale);
        store.put_name("a", Found::default(), vec![]);
        assert!(matches!(store.knowledge("a", ttl), Knowledge::Fresh(_)));
        assert_eq!(store.knowledge("a", Duration::ZERO), Knowledge::Stale);
        assert!(store.last_found("a").is_some());
    }

    #[test]
    fn session_objects_go_with_their_session_and_token_objects_stay() {
        let store = Store::new(vec![], 1);
        let token = store.put_name("a", Found::default(), vec![object("a", "1", None, None)]);
        let mine = store.add(object("a", "1", None, Some(7)));
        let other = store.add(object("a", "1", None, Some(8)));
        assert_eq!(find(&store, &labelled("a")), [token[0], mine, other]);
        store.remove_where(|object| object.owner == Some(7));
        assert_eq!(store.object(mine).unwrap_err().rv(), CKR_OBJECT_HANDLE_INVALID);
        assert_eq!(find(&store, &labelled("a")), [token[0], other]);
        store.remove_where(|_| true);
        assert_eq!(find(&store, &labelled("a")), token);
    }

    #[test]
    fn a_search_needs_every_attribute_of_its_template() {
        let store = Store::new(vec![], 1);
        let a = store.add(object("a", "1", None, Some(1)));
        let b = store.add(object("a", "2", None, Some(1)));
        let id_and_label = vec![(CKA_LABEL, b"a".to_vec()), (CKA_ID, b"2".to_vec())];
        assert_eq!(find(&store, &id_and_label), [b]);
        assert_eq!(find(&store, &labelled("a")), [a, b]);
        assert_eq!(find(&store, &vec![(CKA_TOKEN, vec![1])]), [0; 0]);
        assert_eq!(
            store.find(&vec![], |object| object.attributes.bytes(CKA_ID) == Some(b"1")),
            [a]
        );
        store.replace(a, object("z", "1", None, Some(1))).unwrap();
        assert_eq!(find(&store, &labelled("z")), [a]);
        assert_eq!(find(&store, &labelled("a")), [b]);
        assert!(store.replace(99, object("z", "1", None, None)).is_err());
    }

    #[test]
    fn a_copy_for_a_child_is_refused_while_the_lock_is_held() {
        let store = Store::new(vec![], 1);
        let handle = store.add(object("a", "1", None, Some(1)));
        assert!(store.carried_over().unwrap().object(handle).is_ok());
        let held = store.hold();
        assert!(store.carried_over().is_none());
        drop(held);
    }
}
