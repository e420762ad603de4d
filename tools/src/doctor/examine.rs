//! The steps of one token. Each needs the one before; what comes after a failure is skipped.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use akv_pkcs11::{
    config::{CredentialConfig, Env, Login, Secrets, TokenConfig},
    crypto::{Hash, PublicKey},
    error::Error,
    net::Surroundings,
    object::given,
    slot::Slot,
    vault::{Carried, KeyRef, Operation},
};
use akv_wire::{KeyBundle, SignatureAlgorithm};

use super::{remedy::Remedy, report::Check};
use crate::{
    cli::{Common, DoctorArgs},
    failure::Failure,
    key,
    target::{self, Wanted},
};

/// Of an unnamed key: how many are looked at before it is said that none may sign.
const CANDIDATES: usize = 64;
/// What is signed, so that whoever finds the signature knows what it was for.
const MESSAGE: &[u8] = b"akv-pkcs11 doctor";

/// Examines one token.
pub fn token(token: TokenConfig, env: &Env, common: &Common, args: &DoctorArgs) -> Vec<Check> {
    let mut checks = Vec::new();
    let surroundings = Arc::new(Surroundings::read(env, None));
    match Slot::new(Arc::new(token), Carried::from(surroundings), 1) {
        Ok(slot) => {
            let mut examination = Examination { slot: &slot, checks: &mut checks };
            // Whether it went well is in the checks.
            let _ = examination.run(common, args);
        }
        Err(error) => checks.push(Check::failed("files", error.to_string())),
    }
    checks
}

struct Examination<'a> {
    slot: &'a Slot,
    checks: &'a mut Vec<Check>,
}

/// A check failed, and those that need it make no sense.
struct Stop;

impl Examination<'_> {
    fn run(&mut self, common: &Common, args: &DoctorArgs) -> Result<(), Stop> {
        self.dns()?;
        self.tls()?;
        self.token(common)?;
        let names = self.list();
        self.secrets();
        if args.no_sign {
            self.checks.push(Check::skipped("sign", "--no-sign"));
            return Ok(());
        }
        let key = match &args.key {
            Some(key) => self.named(&Wanted::parse(key))?,
            None => self.any(&names)?,
        };
        self.sign(&key)
    }

    fn dns(&mut self) -> Result<(), Stop> {
        let token = &self.slot.token;
        let host = &token.endpoint.host;
        if let Some(proxy) = &token.proxy {
            self.checks.push(Check::skipped("dns", format!("{proxy} looks {host} up")));
            return Ok(());
        }
        let started = Instant::now();
        let found = self.slot.vault.addresses();
        let check = match found {
            Ok(addresses) => {
                let given = if token.address.is_some() { ", by `address`" } else { "" };
                Check::ok("dns", format!("{host} is {}{given}", listed(&addresses)))
            }
            Err(error) => return self.stop("dns", started, &error, Operation::ListKeys),
        };
        self.checks.push(check.since(started));
        Ok(())
    }

    fn tls(&mut self) -> Result<(), Stop> {
        let started = Instant::now();
        let challenge = match self.slot.vault.challenge() {
            Ok(challenge) => challenge,
            Err(error) => return self.stop("tls", started, &error, Operation::ListKeys),
        };
        let roots = if self.slot.token.ca.is_some() { "`ca_file`" } else { "the system's roots" };
        let answers = format!("trusted by {roots}; the service answers and asks for a token");
        let scope = &self.slot.token.scope;
        let check = match resource(&challenge) {
            // The scope is the resource and /.default, the resource being with or without a slash.
            Some(resource)
                if scope.trim_end_matches("/.default").trim_end_matches('/')
                    != resource.trim_end_matches('/') =>
            {
                let wanted = format!("{}/.default", resource.trim_end_matches('/'));
                let advice = "set `scope` to that if the token is refused";
                Check::warning("tls", format!("{answers} of scope {wanted}, not {scope}; {advice}"))
            }
            _ => Check::ok("tls", answers),
        };
        self.checks.push(check.since(started));
        Ok(())
    }

    fn token(&mut self, common: &Common) -> Result<(), Stop> {
        let token = &self.slot.token;
        let pin = match token.login {
            Login::ClientSecret => Some(target::pin(common, &token.label)),
            Login::None | Login::Pin(_) => None,
        };
        let started = Instant::now();
        let got = match pin {
            Some(Ok(pin)) => self.slot.login(pin.as_bytes()).map_err(Failure::from),
            Some(Err(failure)) => Err(failure),
            None => self.slot.vault.authenticate().map_err(Failure::from),
        };
        let check = match got {
            Ok(()) => Check::ok(
                "access-token",
                format!("{} got one from {}", credential(token), token.authority),
            ),
            Err(failure) => Check::failed("access-token", failure.to_string()),
        };
        let failed = check.status == super::Status::Failed;
        self.checks.push(check.since(started));
        if failed { Err(Stop) } else { Ok(()) }
    }

    /// The names of the keys: those of the configuration, else of a listing. A refused listing
    /// stops nothing: a key that is named can be used nevertheless.
    fn list(&mut self) -> Vec<(String, Option<String>)> {
        if let Some(keys) = &self.slot.token.keys {
            let detail = format!("`keys` names {}: no list permission is needed", keys.len());
            self.checks.push(Check::skipped("list", detail));
            return keys.iter().map(|key| (key.name.clone(), key.version.clone())).collect();
        }
        let started = Instant::now();
        match self.slot.vault.keys(self.slot.vault.find_deadline()) {
            Ok(items) => {
                self.checks.push(Check::ok("list", count(items.len())).since(started));
                let enabled = items.iter().filter(|item| item.attributes.enabled.unwrap_or(true));
                let mut names: Vec<_> = enabled
                    .filter_map(|item| item.name_and_version())
                    .map(|(name, _)| (name.to_owned(), None))
                    .collect();
                names.sort_unstable();
                names
            }
            Err(error) => {
                self.failed("list", started, &error, Operation::ListKeys);
                Vec::new()
            }
        }
    }

    /// Whether the secrets that the token shows can be listed; no value is asked for.
    fn secrets(&mut self) {
        match &self.slot.token.secrets {
            Secrets::None => return,
            Secrets::Named(names) => {
                let detail =
                    format!("`secrets` names {}: no list permission is needed", names.len());
                self.checks.push(Check::skipped("secrets", detail));
                return;
            }
            Secrets::All => {}
        }
        let started = Instant::now();
        match self.slot.vault.secrets(self.slot.vault.find_deadline()) {
            Ok(items) => {
                let shown = items.iter().filter(|item| item.managed != Some(true)).count();
                let detail = format!("{shown} beside those of certificates");
                self.checks.push(Check::ok("secrets", detail).since(started));
            }
            Err(error) => self.failed("secrets", started, &error, Operation::ListSecrets),
        }
    }

    fn named(&mut self, wanted: &Wanted) -> Result<Signer, Stop> {
        let started = Instant::now();
        let bundle = match self.given(&wanted.name) {
            Some(bundle) => Ok(bundle),
            None => self.slot.vault.key(wanted.key()),
        };
        let bundle = match bundle {
            Ok(bundle) => bundle,
            Err(error) => return self.stop("key", started, &error, Operation::GetKey),
        };
        Signer::of(&bundle, self.slot).ok_or_else(|| {
            let detail = format!(
                "'{}' is not enabled, has no `sign` among its operations, or is a secret key",
                wanted.name
            );
            self.checks.push(Check::failed("key", detail).since(started));
            Stop
        })
    }

    /// The key as a file of the configuration has it; the service is not asked then.
    fn given(&mut self, name: &str) -> Option<KeyBundle> {
        let token = &self.slot.token;
        let given = token.given_key(name)?;
        let detail =
            format!("'{name}' as in {}: no get permission is needed", given.path.display());
        self.checks.push(Check::skipped("key", detail));
        Some(given::bundle(given, token))
    }

    /// The first key that may sign.
    fn any(&mut self, names: &[(String, Option<String>)]) -> Result<Signer, Stop> {
        let in_files = names.iter().find(|(name, _)| self.slot.token.given_key(name).is_some());
        if let Some((name, _)) = in_files
            && let Some(bundle) = self.given(name)
            && let Some(signer) = Signer::of(&bundle, self.slot)
        {
            return Ok(signer);
        }
        let keys: Vec<_> = names
            .iter()
            .take(CANDIDATES)
            .map(|(name, version)| KeyRef { name, version: version.as_deref() })
            .collect();
        let started = Instant::now();
        let mut refused = None;
        let deadline = self.slot.vault.find_deadline();
        let fetched = self.slot.vault.fetch_many(&keys, deadline).unwrap_or_else(|error| {
            refused = Some(error);
            Vec::new()
        });
        for bundle in fetched {
            match bundle {
                Ok(bundle) => {
                    if let Some(signer) = Signer::of(&bundle, self.slot) {
                        return Ok(signer);
                    }
                }
                Err(error) => refused = Some(error),
            }
        }
        match refused {
            Some(error) => self.stop("key", started, &error, Operation::GetKey),
            None => {
                let detail = "no key is known that may sign; name one with --key";
                self.checks.push(Check::skipped("sign", detail));
                Err(Stop)
            }
        }
    }

    fn sign(&mut self, signer: &Signer) -> Result<(), Stop> {
        let digest = signer.hash.digest(MESSAGE);
        // Without a version in the configuration it is the current one.
        let version = Some(signer.version.as_str()).filter(|version| !version.is_empty());
        let key = KeyRef { name: &signer.name, version };
        let started = Instant::now();
        let signature = match self.slot.vault.sign(key, signer.algorithm, &digest) {
            Ok(signature) => signature,
            Err(error) => return self.stop("sign", started, &error, Operation::Sign),
        };
        let what = format!("{} by key '{}'", signer.algorithm, signer.name);
        let check = match signer.verifies(&digest, &signature) {
            Ok(()) => Check::ok("sign", format!("{what}, verified here")),
            Err(_) => Check::failed("sign", format!("{what} is no signature of that key")),
        };
        self.checks.push(check.since(started));
        Ok(())
    }

    fn stop<T>(
        &mut self,
        check: &'static str,
        started: Instant,
        error: &Error,
        operation: Operation,
    ) -> Result<T, Stop> {
        self.failed(check, started, error, operation);
        Err(Stop)
    }

    fn failed(
        &mut self,
        check: &'static str,
        started: Instant,
        error: &Error,
        operation: Operation,
    ) {
        let remedy = Remedy::of(operation, error, &self.slot.token);
        // The first request of all is worded as a listing; without a token it is none.
        let sentence = error.to_string();
        let detail = match check {
            "tls" => sentence.strip_prefix("list keys: ").unwrap_or(&sentence),
            _ => &sentence,
        };
        let check = Check::failed(check, detail);
        self.checks.push(check.since(started).with_remedy(remedy));
    }
}

/// A key that may sign, and how.
struct Signer {
    name: String,
    version: String,
    public: PublicKey,
    algorithm: SignatureAlgorithm,
    hash: Hash,
}

impl Signer {
    fn of(bundle: &KeyBundle, slot: &Slot) -> Option<Signer> {
        let may = bundle.key.key_ops.iter().flatten().any(|operation| operation == "sign");
        if !may || bundle.attributes.enabled == Some(false) {
            return None;
        }
        let public = key::public_key(bundle, slot).ok()??;
        let algorithm = match bundle.key.curve() {
            None => SignatureAlgorithm::Ps256,
            curve => *SignatureAlgorithm::ALL.iter().find(|each| each.curve() == curve)?,
        };
        let hash = match algorithm.digest_len()? {
            32 => Hash::Sha256,
            48 => Hash::Sha384,
            _ => Hash::Sha512,
        };
        let (name, version) = bundle.key.name_and_version()?;
        let (name, version) = (name.to_owned(), version.to_owned());
        Some(Signer { name, version, public, algorithm, hash })
    }

    fn verifies(&self, digest: &[u8], signature: &[u8]) -> Result<(), Error> {
        match self.public.is_rsa() {
            true => self.public.verify_pss(self.hash, self.hash, digest.len(), digest, signature),
            false => self.public.verify_ecdsa(digest, signature),
        }
    }
}

fn listed(addresses: &[SocketAddr]) -> String {
    let all: Vec<_> = addresses.iter().map(|address| address.ip().to_string()).collect();
    all.join(", ")
}

/// A credential as the configuration names it.
fn credential(token: &TokenConfig) -> &'static str {
    match token.credential {
        CredentialConfig::ManagedIdentity { .. } => "managed-identity",
        CredentialConfig::WorkloadIdentity { .. } => "workload-identity",
        CredentialConfig::ClientSecret { .. } => "client-secret",
        CredentialConfig::ClientCertificate { .. } => "client-certificate",
        CredentialConfig::AzureCli => "azure-cli",
        CredentialConfig::FromLogin { .. } => "login",
    }
}

fn count(keys: usize) -> String {
    match keys {
        1 => "1 key".to_owned(),
        keys => format!("{keys} keys"),
    }
}

/// What a token must be for, as the challenge says: `resource="…"`, or a scope on some clouds.
fn resource(challenge: &str) -> Option<&str> {
    let (_, rest) = challenge.split_once("resource=\"")?;
    rest.split('"').next().filter(|resource| !resource.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resource_is_taken_from_a_challenge() {
        let challenge = "Bearer authorization=\"https://login/x\", resource=\"https://v\"";
        assert_eq!(resource(challenge), Some("https://v"));
        assert_eq!(resource("Bearer authorization=\"https://login/x\""), None);
    }
}
