//! Every method of the vault against the emulated services, its results checked with OpenSSL.

use std::{
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
};

use akv_pkcs11::{
    config::{Config, CredentialConfig, Env, ManagedIdentityEndpoint, SecretSource, TokenConfig},
    vault::{Cipher, KeyRef, Vault, is_conflict, is_not_found},
};
use akv_wire::{
    Base64Url, EncryptionAlgorithm, JsonWebKey, KeyAttributes, KeyBundle, KeyCreateParameters,
    KeyImportParameters, KeyUpdateParameters, SignatureAlgorithm, Tags,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use cryptoki_sys::{
    CKR_ARGUMENTS_BAD, CKR_DATA_LEN_RANGE, CKR_ENCRYPTED_DATA_INVALID, CKR_KEY_HANDLE_INVALID,
    CKR_PIN_INCORRECT, CKR_USER_NOT_LOGGED_IN, CKR_WRAPPED_KEY_INVALID,
};
use openssl::{
    bn::BigNum,
    ec::{EcGroup, EcKey},
    ecdsa::EcdsaSig,
    hash::{MessageDigest, hash},
    nid::Nid,
    pkey::{PKey, Public},
    rsa::Rsa,
    sign::Verifier,
    x509::X509,
};
use rustix::process::{Pid, Signal, kill_process};

use crate::{soon, vault};

const SEED: &str = "
    keys = [
        { name = 'rsa2048', kty = 'RSA', size = 2048, service = 'kv1' },
        { name = 'p256', kty = 'EC', curve = 'P-256' },
        { name = 'aes256', kty = 'oct', size = 256, service = 'hsm1' },
    ]
    certificates = [
        { name = 'www', subject = 'CN=www.example', kty = 'EC', curve = 'P-256', service = 'kv1' },
    ]
";

/// `akv-emulator run` with a vault and a Managed HSM, until dropped.
pub struct Emulator {
    child: Child,
    tokens: Vec<TokenConfig>,
    control: String,
    pub identity_header: String,
}

impl Emulator {
    pub fn start() -> Self {
        let deps = env::current_exe().unwrap().parent().unwrap().to_owned();
        let binary = deps.parent().unwrap().join("akv-emulator");
        assert!(binary.is_file(), "{} is missing: cargo build --workspace", binary.display());
        let folder = tempfile::tempdir().unwrap();
        let seed = folder.path().join("seed.toml");
        fs::write(&seed, SEED).unwrap();
        let mut child = Command::new(binary)
            .args(["run", "--vault", "kv1", "--hsm", "hsm1", "--seed"])
            .arg(&seed)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
        let text = |name: &str| ready[name].as_str().unwrap().to_owned();
        let env = Env::Map(
            [
                ("AZURE_CLIENT_ID", text("client_id")),
                ("AZURE_CLIENT_SECRET", text("client_secret")),
                ("AZURE_TENANT_ID", text("tenant")),
            ]
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
        );
        let file = fs::read_to_string(text("module_config")).unwrap();
        let tokens = Config::parse(&file, "the emulator's", &env).unwrap().tokens;
        let (control, identity_header) = (text("control"), text("identity_header"));
        Emulator { child, tokens, control, identity_header }
    }

    pub fn vault(&self) -> Vault {
        vault(&self.tokens[0])
    }

    /// The vault for a machine with an identity, which asks there for it.
    pub fn with_identity(&self, path: &str, header: Option<&str>) -> Vault {
        let mut config = self.tokens[0].clone();
        config.credential = CredentialConfig::ManagedIdentity { identity: None };
        config.managed_identity = Some(ManagedIdentityEndpoint {
            url: format!("{}{path}", self.control),
            header: header.map(|header| header.to_owned().into()),
        });
        vault(&config)
    }

    /// Orders trouble.
    fn order(&self, fault: &str) {
        self.control("POST", "/faults", fault);
    }

    /// Asks the control endpoint; gives back the body of its answer.
    pub fn control(&self, method: &str, path: &str, body: &str) -> String {
        let address = self.control.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    pub fn hsm(&self) -> Vault {
        vault(&self.tokens[1])
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // Asked, not killed: it removes its folder then. It may have ended already.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}

fn public_key(jwk: &JsonWebKey) -> PKey<Public> {
    let number = |bytes: &[u8]| BigNum::from_slice(bytes).unwrap();
    if let (Some(n), Some(e)) = (jwk.modulus(), jwk.exponent()) {
        let key = Rsa::from_public_components(number(n), number(e)).unwrap();
        return PKey::from_rsa(key).unwrap();
    }
    let (x, y) = jwk.point().unwrap();
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    let key = EcKey::from_public_key_affine_coordinates(&group, &number(&x), &number(&y));
    PKey::from_ec_key(key.unwrap()).unwrap()
}

fn version_of(bundle: &KeyBundle) -> String {
    bundle.key.name_and_version().unwrap().1.to_owned()
}

#[test]
fn signatures_are_good_and_errors_are_the_operations() {
    let emulator = Emulator::start();
    let vault = emulator.vault();
    let digest = hash(MessageDigest::sha256(), b"message").unwrap();

    let rsa = vault.key(KeyRef::current("rsa2048")).unwrap();
    let version = version_of(&rsa);
    let key = KeyRef::version("rsa2048", &version);
    let signature = vault.sign(key, SignatureAlgorithm::Rs256, &digest).unwrap();
    let public = public_key(&rsa.key);
    let mut verifier = Verifier::new(MessageDigest::sha256(), &public).unwrap();
    assert!(verifier.verify_oneshot(&signature, b"message").unwrap());

    let ec = vault.key(KeyRef::current("p256")).unwrap();
    let current = KeyRef::current("p256");
    let signature = vault.sign(current, SignatureAlgorithm::Es256, &digest).unwrap();
    let (r, s) = signature.split_at(32);
    let number = |bytes| BigNum::from_slice(bytes).unwrap();
    let signature = EcdsaSig::from_private_components(number(r), number(s)).unwrap();
    assert!(signature.verify(&digest, &public_key(&ec.key).ec_key().unwrap()).unwrap());

    let refused = vault.sign(current, SignatureAlgorithm::Es256, &digest[1..]).unwrap_err();
    assert_eq!(refused.rv(), CKR_DATA_LEN_RANGE, "{refused}");
    let other = KeyRef::version("p256", "00000000000000000000000000000000");
    let missing = vault.sign(other, SignatureAlgorithm::Es256, &digest).unwrap_err();
    assert!(missing.rv() == CKR_KEY_HANDLE_INVALID && is_not_found(&missing), "{missing}");
    let missing = vault.key(KeyRef::current("no-such-key")).unwrap_err();
    assert!(is_not_found(&missing), "{missing}");
}

#[test]
fn the_certificate_of_a_key_has_its_name_and_version() {
    let emulator = Emulator::start();
    let vault = emulator.vault();
    let key = vault.key(KeyRef::current("www")).unwrap();
    assert_eq!(key.managed, Some(true));
    let version = version_of(&key);
    let bundle = vault.certificate(KeyRef::version("www", &version)).unwrap();
    let der = BASE64_STANDARD.decode(bundle.cer.unwrap()).unwrap();
    let leaf = X509::from_der(&der).unwrap();
    assert!(leaf.public_key().unwrap().public_eq(&public_key(&key.key)));
    let listed = vault.list_certificates(soon()).unwrap();
    assert!(listed.len() == 1 && listed[0].id.ends_with("/certificates/www"), "{listed:?}");
    let missing = vault.certificate(KeyRef::current("rsa2048")).unwrap_err();
    assert!(is_not_found(&missing), "{missing}");
}

#[test]
fn rsa_encryption_goes_there_and_back() {
    let emulator = Emulator::start();
    let vault = emulator.vault();
    let key = KeyRef::current("rsa2048");
    let plain = Cipher { value: b"sixteen bytes ok", ..Cipher::default() };
    for algorithm in
        [EncryptionAlgorithm::Rsa15, EncryptionAlgorithm::RsaOaep, EncryptionAlgorithm::RsaOaep256]
    {
        let sealed = vault.encrypt(key, algorithm, &plain).unwrap().value;
        let sealed = Cipher { value: &sealed, ..Cipher::default() };
        assert_eq!(*vault.decrypt(key, algorithm, &sealed).unwrap(), plain.value);
        let wrapped = vault.wrap_key(key, algorithm, &plain).unwrap().value;
        let wrapped = Cipher { value: &wrapped, ..Cipher::default() };
        assert_eq!(*vault.unwrap_key(key, algorithm, &wrapped).unwrap(), plain.value);
    }
    let broken = Cipher { value: &[1; 256], ..Cipher::default() };
    let refused = vault.decrypt(key, EncryptionAlgorithm::RsaOaep, &broken).unwrap_err();
    assert!(refused.rv() == CKR_ENCRYPTED_DATA_INVALID && refused.remote().is_none());
    let refused = vault.unwrap_key(key, EncryptionAlgorithm::RsaOaep, &broken).unwrap_err();
    assert_eq!(refused.rv(), CKR_WRAPPED_KEY_INVALID);
}

#[test]
fn a_key_lives_and_dies() {
    let emulator = Emulator::start();
    let vault = emulator.vault();
    let tags = Tags::from([("owner".to_owned(), "test".to_owned())]);
    let parameters = KeyCreateParameters {
        kty: Some("EC".into()),
        crv: Some("P-256".into()),
        tags: Some(tags.clone()),
        ..KeyCreateParameters::default()
    };
    let first = vault.create_key("made", &parameters).unwrap();
    let second = vault.create_key("made", &parameters).unwrap();
    assert_ne!(version_of(&first), version_of(&second));
    assert_eq!(vault.key_versions("made", soon()).unwrap().len(), 2);
    assert!(vault.key_versions("nobody", soon()).unwrap().is_empty());
    assert_eq!(vault.key(KeyRef::current("MADE")).unwrap().key.kid, second.key.kid);

    let changed = KeyUpdateParameters {
        attributes: Some(KeyAttributes { enabled: Some(false), ..KeyAttributes::default() }),
        ..KeyUpdateParameters::default()
    };
    let version = version_of(&first);
    let updated = vault.update_key(KeyRef::version("made", &version), &changed).unwrap();
    assert_eq!((updated.attributes.enabled, updated.tags), (Some(false), Some(tags)));

    vault.delete_key("made").unwrap();
    assert!(is_not_found(&vault.key(KeyRef::current("made")).unwrap_err()));
    assert!(vault.deleted_key("made").unwrap().deleted_date.is_some());
    let taken = vault.create_key("made", &parameters).unwrap_err();
    assert!(is_conflict(&taken), "{taken}");
    assert_eq!(taken.remote().unwrap().code, "ObjectIsDeletedButRecoverable");
    vault.recover_key("made").unwrap();
    assert_eq!(vault.key(KeyRef::current("made")).unwrap().key.kid, second.key.kid);
    vault.delete_key("made").unwrap();
    vault.purge_key("made").unwrap();
    assert!(is_not_found(&vault.deleted_key("made").unwrap_err()));
    vault.create_key("made", &parameters).unwrap();
}

#[test]
fn an_imported_key_signs() {
    let emulator = Emulator::start();
    let vault = emulator.vault();
    let rsa = Rsa::generate(2048).unwrap();
    let part = |number: &openssl::bn::BigNumRef| Some(Base64Url::new(number.to_vec()));
    let key = JsonWebKey {
        kty: Some("RSA".into()),
        n: part(rsa.n()),
        e: part(rsa.e()),
        d: part(rsa.d()),
        p: part(rsa.p().unwrap()),
        q: part(rsa.q().unwrap()),
        dp: part(rsa.dmp1().unwrap()),
        dq: part(rsa.dmq1().unwrap()),
        qi: part(rsa.iqmp().unwrap()),
        ..JsonWebKey::default()
    };
    let imported =
        vault.import_key("mine", &KeyImportParameters { key, ..Default::default() }).unwrap();
    assert_eq!(imported.key.modulus().unwrap(), rsa.n().to_vec());
    let digest = hash(MessageDigest::sha512(), b"message").unwrap();
    let current = KeyRef::current("mine");
    let signature = vault.sign(current, SignatureAlgorithm::Rs512, &digest).unwrap();
    let public = public_key(&imported.key);
    let mut verifier = Verifier::new(MessageDigest::sha512(), &public).unwrap();
    assert!(verifier.verify_oneshot(&signature, b"message").unwrap());
}

#[test]
fn every_key_is_listed_and_fetched_on_both_services() {
    let emulator = Emulator::start();
    for vault in [emulator.vault(), emulator.hsm()] {
        let parameters = KeyCreateParameters {
            kty: Some("EC".into()),
            crv: Some("P-256".into()),
            ..KeyCreateParameters::default()
        };
        // More than two pages of 25.
        for number in 0..50 {
            vault.create_key(&format!("many-{number}"), &parameters).unwrap();
        }
        let items = vault.keys(vault.find_deadline()).unwrap();
        let names: Vec<_> = items.iter().map(|item| item.name_and_version().unwrap().0).collect();
        assert!(names.len() > 50 && (0..50).all(|n| names.contains(&&*format!("many-{n}"))));
        let wanted: Vec<_> = names.iter().map(|name| KeyRef::current(name)).collect();
        let fetched = vault.fetch_many(&wanted, vault.find_deadline()).unwrap();
        for (name, bundle) in names.iter().zip(fetched) {
            assert_eq!(bundle.unwrap().key.name_and_version().unwrap().0, *name);
        }
    }
}

#[test]
fn a_managed_hsm_ciphers_with_aes_and_has_random_bytes() {
    let emulator = Emulator::start();
    let hsm = emulator.hsm();
    let key = KeyRef::current("aes256");
    let plain = b"thirty-two bytes of plain text!!";

    let input = Cipher { value: plain, aad: Some(b"more"), ..Cipher::default() };
    let sealed = hsm.encrypt(key, EncryptionAlgorithm::A256Gcm, &input).unwrap();
    let (iv, tag) = (sealed.iv.unwrap(), sealed.tag.unwrap());
    assert_eq!((iv.len(), tag.len()), (12, 16));
    let mut input =
        Cipher { value: &sealed.value, iv: Some(&iv), aad: Some(b"more"), tag: Some(&tag) };
    assert_eq!(*hsm.decrypt(key, EncryptionAlgorithm::A256Gcm, &input).unwrap(), plain);
    input.aad = Some(b"less");
    let refused = hsm.decrypt(key, EncryptionAlgorithm::A256Gcm, &input).unwrap_err();
    assert_eq!(refused.rv(), CKR_ENCRYPTED_DATA_INVALID, "{refused}");

    let input = Cipher { value: plain, iv: Some(&[9; 16]), ..Cipher::default() };
    let sealed = hsm.encrypt(key, EncryptionAlgorithm::A256CbcPad, &input).unwrap();
    let input = Cipher { value: &sealed.value, iv: Some(&[9; 16]), ..Cipher::default() };
    assert_eq!(*hsm.decrypt(key, EncryptionAlgorithm::A256CbcPad, &input).unwrap(), plain);

    let input = Cipher { value: plain, ..Cipher::default() };
    let wrapped = hsm.wrap_key(key, EncryptionAlgorithm::A256Kw, &input).unwrap().value;
    assert_eq!(wrapped.len(), 40);
    let input = Cipher { value: &wrapped, ..Cipher::default() };
    assert_eq!(*hsm.unwrap_key(key, EncryptionAlgorithm::A256Kw, &input).unwrap(), plain);

    assert_eq!(hsm.random(128).unwrap().len(), 128);
    assert_ne!(hsm.random(32).unwrap(), hsm.random(32).unwrap());
    for count in [0, 129] {
        assert_eq!(hsm.random(count).unwrap_err().rv(), CKR_ARGUMENTS_BAD);
    }
}

#[test]
fn the_tenant_is_learnt_and_a_wrong_secret_told() {
    let emulator = Emulator::start();
    let mut token = emulator.tokens[1].clone();
    token.tenant = None;
    vault(&token).authenticate().unwrap();
    let CredentialConfig::ClientSecret { client_id, secret } = token.credential.clone() else {
        panic!("{:?}", token.credential)
    };
    let wrong = SecretSource::Value(b"wrong".to_vec().into());
    token.credential =
        CredentialConfig::ClientSecret { client_id: client_id.clone(), secret: wrong };
    let refused = vault(&token).authenticate().unwrap_err();
    assert_eq!(refused.rv(), CKR_USER_NOT_LOGGED_IN, "{refused}");
    token.credential = CredentialConfig::FromLogin { client_id: Some(client_id) };
    let vault = vault(&token);
    assert_eq!(vault.login(b"wrong").unwrap_err().rv(), CKR_PIN_INCORRECT);
    vault.login(secret.initial()).unwrap();
    vault.key(KeyRef::current("aes256")).unwrap();
}

#[test]
fn a_machine_with_an_identity_signs_also_while_its_metadata_service_is_updated() {
    let emulator = Emulator::start();
    let sign = |vault: &Vault| {
        let key = KeyRef { name: "p256", version: None };
        vault.sign(key, SignatureAlgorithm::Es256, &[7; 32])
    };
    let imds = "/metadata/identity/oauth2/token";
    assert_eq!(sign(&emulator.with_identity(imds, None)).unwrap().len(), 64);
    // 404 and 410 while it is updated, 429 when many ask at once.
    for status in [404, 410, 429] {
        let fault = format!(r#"{{"operation":"imds","times":1,"status":{status}}}"#);
        emulator.order(&fault);
        assert_eq!(sign(&emulator.with_identity(imds, None)).unwrap().len(), 64, "{status}");
    }
    let header = emulator.identity_header.as_str();
    assert_eq!(sign(&emulator.with_identity("/msi/token", Some(header))).unwrap().len(), 64);
    let error = sign(&emulator.with_identity("/msi/token", Some("wrong"))).unwrap_err();
    assert_eq!(error.rv(), CKR_USER_NOT_LOGGED_IN, "{error}");
}
