//! ROOM 4: Key Vault and Managed HSM as methods.
//!
//! A [`Vault`] is one token's service: every operation is one blocking call that builds the
//! request, finds a token for it, repeats it where that is harmless and turns whatever the service
//! says into an [`Error`] by one table (`docs/errors.md`). Nothing here knows PKCS#11's objects,
//! and nothing above knows JSON.

mod attempt;
mod call;
mod crypto;
mod errors;
mod listing;
mod operation;
mod replica;
mod site;

use std::{
    fmt,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use akv_wire::{
    ApiVersion, BackupResult, Base64Url, CertificateBundle, DeletedKeyBundle, KeyBundle,
    KeyCreateParameters, KeyImportParameters, KeyReleaseParameters, KeyReleaseResult,
    KeyRestoreParameters, KeyUpdateParameters, RotationPolicy, SecretBundle,
};
use cryptoki_sys::CKR_DEVICE_ERROR;

pub use self::{
    attempt::tenant_of,
    crypto::{Cipher, Ciphered, MAX_RANDOM},
    errors::{from_response, is_conflict, is_forbidden, is_lost_answer, is_not_found},
    operation::Operation,
};
use self::{call::Call, replica::Matches, site::Sites};
use crate::{
    config::{Replica, Service, TokenConfig},
    credential::{self, Credential},
    error::{Error, Result},
    metrics::TokenMetrics,
    net::{Net, Pace, Surroundings},
    stack,
};

/// One token's vault or Managed HSM. All methods take `&self` and may be called from any number
/// of threads; none of them holds a lock while it waits for the network.
pub struct Vault {
    net: Net,
    credential: Credential,
    metrics: Option<Arc<TokenMetrics>>,
    /// Where the service is: one endpoint, or several with the same keys.
    sites: Sites,
    replicas: Vec<Replica>,
    failover_interval: Duration,
    surroundings: Arc<Surroundings>,
    may_run_programs: bool,
    service: Service,
    api_version: String,
    timeout: Duration,
    pace: Pace,
    find_timeout: Duration,
}

/// A key, and which version of it; None is the current one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRef<'a> {
    /// `^[0-9a-zA-Z-]{1,127}$`
    pub name: &'a str,
    /// 32 hex digits.
    pub version: Option<&'a str>,
}

impl<'a> KeyRef<'a> {
    /// The current version of `name`.
    pub fn current(name: &'a str) -> Self {
        KeyRef { name, version: None }
    }

    /// One version of `name`.
    pub fn version(name: &'a str, version: &'a str) -> Self {
        KeyRef { name, version: Some(version) }
    }
}

/// What a new [`Vault`] is given beside its configuration, and what a forked child takes from its
/// parent's: plain data.
#[derive(Clone, Debug)]
pub struct Carried {
    /// Files of the machine, read at C_Initialize.
    pub surroundings: Arc<Surroundings>,
    /// Login, token and tenant.
    pub credential: credential::Carried,
    /// The host has not forbidden threads, and so a program may be started (the Azure CLI).
    pub may_run_programs: bool,
    /// Which versions are the same key at several endpoints.
    pub matches: Matches,
    /// What counts this token's requests; a child has its own.
    pub metrics: Option<Arc<TokenMetrics>>,
}

impl Default for Carried {
    fn default() -> Self {
        Arc::<Surroundings>::default().into()
    }
}

impl From<Arc<Surroundings>> for Carried {
    fn from(surroundings: Arc<Surroundings>) -> Self {
        Carried {
            surroundings,
            credential: credential::Carried::default(),
            may_run_programs: true,
            matches: Matches::default(),
            metrics: None,
        }
    }
}

impl Vault {
    /// Makes no request, starts nothing and opens nothing.
    ///
    /// # Errors
    /// CKR_GENERAL_ERROR for a CA file, client certificate or proxy URL that cannot be used.
    pub fn new(config: &TokenConfig, carried: impl Into<Carried>) -> Result<Self> {
        let Carried { surroundings, credential, may_run_programs, matches, metrics } =
            carried.into();
        let net = Net::new(config, surroundings.clone())?;
        Ok(Vault {
            credential: Credential::new(
                config,
                net.clone(),
                credential,
                may_run_programs,
                metrics.clone(),
            )?,
            may_run_programs,
            net,
            metrics,
            sites: Sites::new(config, matches)?,
            replicas: config.replicas.clone(),
            failover_interval: config.failover_interval,
            surroundings,
            service: config.endpoint.service,
            api_version: config.api_version.clone(),
            timeout: config.timeout,
            pace: Pace { width: config.find_width, rate: config.find_rate, limit: config.timeout },
            find_timeout: config.find_timeout,
        })
    }

    /// What a forked child's vault is made from. Never waits, so that it may be called in the
    /// child on the parent's vault, which is then forgotten and not dropped.
    pub fn carried(&self) -> Carried {
        Carried {
            surroundings: self.surroundings.clone(),
            credential: self.credential.carried(),
            may_run_programs: self.may_run_programs,
            matches: self.sites.carried_matches(),
            metrics: None,
        }
    }

    /// Holds the locks of what [`Vault::carried`] takes along, so that it is whole after a fork.
    /// None of them is held across a request.
    pub fn hold(&self) -> impl Sized {
        (self.credential.hold(), self.sites.hold())
    }

    /// Which of the two services this is.
    pub fn service(&self) -> Service {
        self.service
    }

    /// Gets a token with the client secret that is the PIN (`secret` or `client-id:secret`).
    ///
    /// # Errors
    /// CKR_PIN_INCORRECT when Entra refuses it, CKR_DEVICE_ERROR when Entra cannot be asked.
    pub fn login(&self, pin: &[u8]) -> Result<()> {
        let deadline = self.deadline();
        self.credential.login(pin, deadline, &|deadline| self.tenant(deadline))
    }

    /// Forgets the PIN and its token.
    pub fn logout(&self) {
        self.credential.logout();
    }

    /// The addresses requests go to, with port 0 for the endpoint's. Behind a proxy nobody needs
    /// them.
    ///
    /// # Errors
    /// CKR_DEVICE_ERROR with the reason.
    pub fn addresses(&self) -> Result<Vec<SocketAddr>> {
        let (host, _) = &self.sites.first().endpoint;
        self.net.addresses(host).map_err(|failed| {
            let advice = "check the endpoint's name and this machine's DNS, or set `address`";
            Error::new(CKR_DEVICE_ERROR, format!("{host}: {failed}; {advice}"))
        })
    }

    /// Gets an access token, unless there is one: what C_Login and `doctor` can find out.
    ///
    /// # Errors
    /// CKR_USER_NOT_LOGGED_IN when Entra refuses, CKR_DEVICE_ERROR when it cannot be asked.
    pub fn authenticate(&self) -> Result<()> {
        let deadline = self.deadline();
        self.token(deadline).map(drop)
    }

    /// GET `/keys/{name}[/{version}]`.
    ///
    /// # Errors
    /// CKR_OBJECT_HANDLE_INVALID where there is no such key ([`is_not_found`]); `docs/errors.md`.
    pub fn key(&self, key: KeyRef<'_>) -> Result<KeyBundle> {
        self.json(Call::new(Operation::GetKey, key)?)
    }

    /// The same with api-version 2025-07-01, the first that tells the size of an AES key. None
    /// where the service does not know that version.
    ///
    /// # Errors
    /// As [`Vault::key`].
    pub fn key_with_size(&self, key: KeyRef<'_>) -> Result<Option<KeyBundle>> {
        let call = Call::new(Operation::GetKey, key)?.in_version(ApiVersion::V2025_07_01);
        match self.json(call) {
            Ok(bundle) => Ok(Some(bundle)),
            Err(error) if error.remote().is_some_and(|remote| remote.status == 400) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a key. The request is never sent twice, unless it certainly was not carried out.
    ///
    /// # Errors
    /// [`is_lost_answer`] tells that the key may have been made nevertheless; [`is_conflict`] that
    /// the name is in the deleted state; `docs/errors.md`.
    pub fn create_key(&self, name: &str, parameters: &KeyCreateParameters) -> Result<KeyBundle> {
        let call = Call::new(Operation::CreateKey, KeyRef::current(name))?;
        self.json(call.with_action("create").with_json(parameters)?)
    }

    /// Imports a key, or a transfer blob (`key_hsm`). As [`Vault::create_key`].
    ///
    /// # Errors
    /// As [`Vault::create_key`].
    pub fn import_key(&self, name: &str, parameters: &KeyImportParameters) -> Result<KeyBundle> {
        stack::touched();
        let call = Call::new(Operation::ImportKey, KeyRef::current(name))?;
        self.json(call.with_json(parameters)?)
    }

    /// Changes what `parameters` holds and nothing else; its tags replace all tags.
    ///
    /// # Errors
    /// `docs/errors.md`.
    pub fn update_key(
        &self,
        key: KeyRef<'_>,
        parameters: &KeyUpdateParameters,
    ) -> Result<KeyBundle> {
        self.json(Call::new(Operation::UpdateKey, key)?.with_json(parameters)?)
    }

    /// Soft-deletes all versions of a key.
    ///
    /// # Errors
    /// As [`Vault::create_key`].
    pub fn delete_key(&self, name: &str) -> Result<DeletedKeyBundle> {
        self.json(Call::new(Operation::DeleteKey, KeyRef::current(name))?)
    }

    /// A deleted key. A vault answers 404 for up to half a minute after the deletion.
    ///
    /// # Errors
    /// [`is_not_found`] where the name is not in the deleted state; `docs/errors.md`.
    pub fn deleted_key(&self, name: &str) -> Result<DeletedKeyBundle> {
        self.json(Call::new(Operation::GetDeletedKey, KeyRef::current(name))?)
    }

    /// Brings a deleted key back. A vault answers 404 about it for some seconds afterwards.
    ///
    /// # Errors
    /// As [`Vault::create_key`].
    pub fn recover_key(&self, name: &str) -> Result<KeyBundle> {
        let call = Call::new(Operation::RecoverKey, KeyRef::current(name))?;
        self.json(call.with_action("recover"))
    }

    /// Destroys a deleted key for ever.
    ///
    /// # Errors
    /// As [`Vault::create_key`].
    pub fn purge_key(&self, name: &str) -> Result<()> {
        self.call(&Call::new(Operation::PurgeKey, KeyRef::current(name))?).map(drop)
    }

    /// All versions of a key as one blob, which only this service (a vault: its subscription and
    /// geography, a Managed HSM: its security domain) can read.
    ///
    /// # Errors
    /// `docs/errors.md`.
    pub fn backup_key(&self, name: &str) -> Result<Base64Url> {
        let call = Call::new(Operation::BackupKey, KeyRef::current(name))?;
        self.json(call.with_action("backup")).map(|backup: BackupResult| backup.value)
    }

    /// Brings a backup back under the name it was made of, with all its versions.
    ///
    /// # Errors
    /// As [`Vault::create_key`]; [`is_conflict`] where the name exists.
    pub fn restore_key(&self, backup: Base64Url) -> Result<KeyBundle> {
        let call = Call::bare(Operation::RestoreKey).with_action("restore");
        self.json(call.with_json(&KeyRestoreParameters { value: backup })?)
    }

    /// Makes a new version of a key as its rotation policy says.
    ///
    /// # Errors
    /// As [`Vault::create_key`].
    pub fn rotate_key(&self, name: &str) -> Result<KeyBundle> {
        let call = Call::new(Operation::RotateKey, KeyRef::current(name))?;
        self.json(call.with_action("rotate"))
    }

    /// The rotation policy of a key; one that was never set is the service's default.
    ///
    /// # Errors
    /// `docs/errors.md`.
    pub fn rotation_policy(&self, name: &str) -> Result<RotationPolicy> {
        let call = Call::new(Operation::GetRotationPolicy, KeyRef::current(name))?;
        self.json(call.with_action("rotationpolicy"))
    }

    /// Replaces the rotation policy of a key; answers what the service made of it.
    ///
    /// # Errors
    /// `docs/errors.md`.
    pub fn set_rotation_policy(
        &self,
        name: &str,
        policy: &RotationPolicy,
    ) -> Result<RotationPolicy> {
        let call = Call::new(Operation::SetRotationPolicy, KeyRef::current(name))?;
        self.json(call.with_action("rotationpolicy").with_json(policy)?)
    }

    /// Releases an exportable key, encrypted for the environment that `parameters.target` attests.
    ///
    /// # Errors
    /// `docs/errors.md`.
    pub fn release_key(
        &self,
        key: KeyRef<'_>,
        parameters: &KeyReleaseParameters,
    ) -> Result<KeyReleaseResult> {
        let call = Call::new(Operation::ReleaseKey, key)?.with_action("release");
        self.json(call.with_json(parameters)?)
    }

    /// The certificate of a name. That of a certificate-backed key has the key's name and version.
    ///
    /// # Errors
    /// [`is_not_found`] where there is none; a Managed HSM has no certificates at all and must
    /// not be asked; `docs/errors.md`.
    pub fn certificate(&self, certificate: KeyRef<'_>) -> Result<CertificateBundle> {
        self.json(Call::new(Operation::GetCertificate, certificate)?)
    }

    /// A secret with its value, which is wiped when the bundle is dropped. That of a certificate has
    /// the certificate's name and version.
    ///
    /// # Errors
    /// [`is_not_found`] where there is none; a Managed HSM has no secrets at all and must not be
    /// asked; `docs/errors.md`.
    pub fn secret(&self, secret: KeyRef<'_>) -> Result<SecretBundle> {
        stack::touched();
        self.json(Call::new(Operation::GetSecret, secret)?)
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("endpoint", &self.sites.first().name).finish_non_exhaustive()
    }
}
