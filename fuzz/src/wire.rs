//! Answers of the service: JSON of every type of `wire/`, what becomes of a key bundle, and what a
//! refusal is to the caller. The first byte says which.

use std::sync::LazyLock;

use akv_pkcs11::{
    config::{Config, Env, Service, TokenConfig},
    net::{Headers, Response},
    object::{
        Object,
        attribute::row_of,
        certificate::Certificate,
        project::{self, Standing},
    },
    vault::{Operation, from_response},
};
use akv_wire::*;
use cryptoki_sys::{CK_ULONG, CKA_CLASS, CKA_ID, CKA_LABEL, CKR_GENERAL_ERROR, CKR_OK};
use serde::{Serialize, de::DeserializeOwned};

use crate::Seed;

macro_rules! types {
    ($($type:ty),* $(,)?) => {
        /// Every type that an answer's body is read as.
        const TYPES: &[fn(&[u8])] = &[$(round_trip::<$type>),*];
        const NAMES: &[&str] = &[$(stringify!($type)),*];
    };
}

types! {
    KeyBundle, KeyItem, Page<KeyItem>, DeletedKeyBundle, DeletedKeyItem, KeyOperationResult,
    KeyVerifyResult, RandomBytes, BackupResult, KeyReleaseResult, RotationPolicy, ErrorBody,
    CertificateBundle, CertificateItem, Page<CertificateItem>, DeletedCertificateBundle,
    CertificateOperation, CertificatePolicy, SecretBundle, SecretItem, Page<SecretItem>,
    DeletedSecretBundle, KeyCreateParameters, KeyImportParameters, KeyOperationParameters,
    KeyUpdateParameters,
}

/// The first byte chooses the type, the rest is the body.
pub fn run(input: &[u8]) {
    let Some((first, body)) = input.split_first() else {
        return;
    };
    match TYPES.get(usize::from(*first)) {
        Some(round_trip) => round_trip(body),
        None => refusal(*first, body),
    }
    match usize::from(*first) {
        0 => bundle(body),
        at if NAMES.get(at) == Some(&"CertificateBundle") => certificate(body),
        _ => {}
    }
}

/// What was read is written as something that is read as the same.
fn round_trip<T: Serialize + DeserializeOwned>(body: &[u8]) {
    let Ok(value) = serde_json::from_slice::<T>(body) else {
        return;
    };
    let written = serde_json::to_value(&value).expect("what was read can be written");
    let again: T = serde_json::from_value(written.clone()).expect("and read again");
    assert_eq!(serde_json::to_value(&again).expect("and written again"), written);
}

/// The objects that a client sees of a key.
fn bundle(body: &[u8]) {
    let Ok(bundle) = serde_json::from_slice::<KeyBundle>(body) else {
        return;
    };
    project::lacks_size(&bundle);
    let id = project::key_id(&bundle.key);
    for token in &*TOKENS {
        for standing in [Standing::Meant, Standing::Other] {
            let Ok(objects) = project::objects(&bundle, token, standing) else {
                continue;
            };
            assert_eq!(objects.len(), if id.is_some() { 2 } else { 1 });
            objects.iter().for_each(settled);
            let same = |kind| {
                let mut values = objects.iter().map(|object| object.attributes.bytes(kind));
                let first = values.next();
                values.all(|value| Some(value) == first)
            };
            assert!(same(CKA_LABEL) && same(CKA_ID), "a pair has one label and one id");
            if let (Standing::Other, Some(id)) = (standing, &id) {
                assert_eq!(objects[0].attributes.bytes(CKA_ID), Some(id.as_slice()));
            }
        }
    }
}

/// Each value is one that the attribute can have.
fn settled(object: &Object) {
    assert!(object.attributes.ulong(CKA_CLASS).is_some());
    for (kind, value) in object.attributes.iter() {
        let row = row_of(kind).expect("an attribute of the table");
        assert!(row.check(value).is_ok(), "{} of {} bytes", row.name, value.len());
        assert!(object.value(kind).is_ok());
    }
    assert!(object.size() > size_of::<CK_ULONG>());
}

fn certificate(body: &[u8]) {
    let bundle = serde_json::from_slice::<CertificateBundle>(body);
    if let Ok(Some(Ok(der))) = bundle.map(|bundle| bundle.der()) {
        let _ = Certificate::parse(&der);
    }
}

/// An answer that is no success: never CKR_OK, and a sentence of one printable line.
fn refusal(first: u8, body: &[u8]) {
    let statuses = [400, 401, 403, 404, 409, 412, 429, 500, 503, 302, 600];
    let operations = [Operation::Sign, Operation::CreateKey, Operation::Decrypt, Operation::GetKey];
    let choice = usize::from(first);
    let (status, operation) = (statuses[choice % statuses.len()], operations[choice % 4]);
    let headers = Headers::Head(Box::default());
    let answer = Response { status, headers, body: body.to_vec().into() };
    for service in [Service::Vault, Service::ManagedHsm] {
        let error = from_response(operation, None, service, &answer);
        assert_ne!(error.rv(), CKR_OK);
        assert!(error.rv() != CKR_GENERAL_ERROR, "{error}");
        let sentence = error.sentence();
        assert!(!sentence.is_empty() && sentence.len() < 4096, "{} bytes", sentence.len());
        assert!(!sentence.contains(char::is_control), "{sentence:?}");
    }
}

/// A vault and a Managed HSM.
static TOKENS: LazyLock<Vec<TokenConfig>> = LazyLock::new(|| {
    let text = "[[token]]\nendpoint = 'https://contoso.vault.azure.net'\nversions = 'enabled'\n\
                [[token]]\nendpoint = 'https://contoso.managedhsm.azure.net'\nlabel = 'hsm'\nlogin = 'pin'\n\
                pin_hash = '$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$\
                ZSt8V7oWqRZWsKk0GFVmYQ'\napi_version = '7.6'\nhmac = true\n";
    Config::parse(text, "fuzz", &Env::empty()).expect("a configuration").tokens
});

/// A bundle of each kind of key, its neighbours, and a body for every other type.
pub fn seeds() -> Vec<Seed> {
    let kid = "https://contoso.vault.azure.net/keys/www/0123456789abcdef0123456789abcdef";
    let big = Base64Url::new([0xc5; 256]).encode();
    let ec = akv_pkcs11::crypto::PrivateKey::from_pkcs8(crate::import::EC).expect("the sample");
    let public = ec.public();
    let (x, y) = public.coordinates().expect("a point");
    let [x, y] = [x, y].map(|part| Base64Url::new(part).encode());
    let bundle = |key: &str| {
        format!(
            "{{\"key\":{{\"kid\":\"{kid}\",\"key_ops\":[\"sign\",\"verify\"],{key}}},\
             \"attributes\":{{\"enabled\":true,\"created\":1,\"exp\":253402300800}},\
             \"tags\":{{\"akv-p11\":\"l=a%20b;i=0a;s=256\"}}}}"
        )
    };
    let rsa = bundle(&format!("\"kty\":\"RSA\",\"n\":\"{big}\",\"e\":\"AQAB\""));
    let mut seeds: Vec<Seed> = [
        ("rsa", rsa.clone()),
        ("rsa-even", rsa.replace("xcXF\"", "xcXE\"")),
        ("ec", bundle(&format!("\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"{x}\",\"y\":\"{y}\""))),
        (
            "ec-off",
            bundle(&format!("\"kty\":\"EC-HSM\",\"crv\":\"P-521\",\"x\":\"{y}\",\"y\":\"\"")),
        ),
        ("aes", bundle("\"kty\":\"oct-HSM\"")),
        ("kid", bundle("\"kty\":\"oct-HSM\"").replace("/www/", "//")),
        ("years", bundle("\"kty\":\"oct-HSM\"").replace("253402300800", "9223372036854775807")),
    ]
    .map(|(name, body)| Seed::new(format!("bundle-{name}.json"), format!("\0{body}")))
    .into();
    let error = "{\"error\":{\"code\":\"Forbidden\",\"message\":\"no\\nmore\",\"innererror\":{\
                 \"code\":\"ForbiddenByPolicy\"}}}";
    let der =
        Base64Url::new(crate::import::CERTIFICATE).encode().replace('-', "+").replace('_', "/");
    for (at, name) in NAMES.iter().enumerate().skip(1) {
        let body = match *name {
            "ErrorBody" => error.to_owned(),
            "KeyOperationResult" => {
                format!("{{\"kid\":\"{kid}\",\"value\":\"AAEC\",\"iv\":\"AA\"}}")
            }
            "KeyVerifyResult" => "{\"value\":true}".to_owned(),
            "RandomBytes" | "BackupResult" | "KeyReleaseResult" => {
                "{\"value\":\"AAEC\"}".to_owned()
            }
            "SecretBundle" => format!("{{\"id\":\"{kid}\",\"value\":\"v\"}}"),
            "CertificateBundle" => {
                format!("{{\"id\":\"{kid}\",\"kid\":\"{kid}\",\"cer\":\"{der}\"}}")
            }
            name if name.starts_with("Page") => {
                format!(
                    "{{\"value\":[{{\"kid\":\"{kid}\",\"id\":\"{kid}\"}}],\"nextLink\":\"https://h/\"}}"
                )
            }
            name if name.contains("KeyBundle") => rsa.clone(),
            _ => {
                format!("{{\"id\":\"{kid}\",\"kid\":\"{kid}\",\"kty\":\"RSA\",\"alg\":\"RS256\"}}")
            }
        };
        let name = name.replace(['<', '>'], "-");
        let input = [&[at as u8], body.as_bytes()].concat();
        seeds.push(Seed::new(format!("{}.json", name.trim_end_matches('-')), input));
    }
    seeds.push(Seed::new("refusal.json", [b"\xf0", error.as_bytes()].concat()));
    seeds
}
