//! Issuers of a vault's certificates, from the secrets behind them.

use cryptoki_sys::*;
use openssl::{
    asn1::Asn1Time,
    ec::{EcGroup, EcKey},
    hash::MessageDigest,
    nid::Nid,
    pkey::{PKey, Private},
    x509::{X509, X509NameBuilder, extension::BasicConstraints},
};

use crate::{
    service::{Emulator, VAULT},
    token::{Module, Session, bytes, number},
};

/// A certificate with its key.
struct Made {
    key: PKey<Private>,
    certificate: X509,
}

fn made(name: &str, by: Option<&Made>, ca: bool) -> Made {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    let key = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
    let mut subject = X509NameBuilder::new().unwrap();
    subject.append_entry_by_text("CN", name).unwrap();
    let subject = subject.build();
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    builder.set_subject_name(&subject).unwrap();
    let issuer = by.map_or(&*subject, |issuer| issuer.certificate.subject_name());
    builder.set_issuer_name(issuer).unwrap();
    builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::days_from_now(1).unwrap()).unwrap();
    builder.set_pubkey(&key).unwrap();
    if ca {
        builder.append_extension(BasicConstraints::new().critical().ca().build().unwrap()).unwrap();
    }
    let signer = by.map_or(&key, |issuer| &issuer.key);
    builder.sign(signer, MessageDigest::sha256()).unwrap();
    Made { certificate: builder.build(), key }
}

/// A seed with `tls`, issued by `middle`, issued by `root`; and the three in DER.
fn seed(more: &str) -> (String, [Vec<u8>; 3]) {
    let root = made("root", None, true);
    let middle = made("middle", Some(&root), true);
    let leaf = made("leaf", Some(&middle), false);
    let mut pem = String::from_utf8(leaf.key.private_key_to_pem_pkcs8().unwrap()).unwrap();
    for one in [&leaf, &middle, &root] {
        pem += std::str::from_utf8(&one.certificate.to_pem().unwrap()).unwrap();
    }
    let seed = format!("certificates = [{{ name = 'tls', pem = '''{pem}'''{more} }}]");
    (seed, [leaf, middle, root].map(|one| one.certificate.to_der().unwrap()))
}

fn certificates(session: &Session<'_>) -> Vec<(String, Vec<u8>)> {
    let found = session.find(&[number(CKA_CLASS, CKO_CERTIFICATE)]).unwrap();
    let shown = |object: &CK_OBJECT_HANDLE| {
        let label = session.text(*object, CKA_LABEL).unwrap();
        (label, session.value(*object, CKA_VALUE).unwrap())
    };
    let mut all: Vec<_> = found.iter().map(shown).collect();
    all.sort();
    all
}

fn reads(emulator: &Emulator) -> u64 {
    emulator.counts(VAULT).get("secrets/get").copied().unwrap_or(0)
}

#[test]
fn the_chain_comes_from_the_secret_when_asked_for() {
    for more in [
        ", content_type = 'application/x-pkcs12'",
        ", content_type = 'application/x-pem-file'",
        // Then the secret holds the certificates alone.
        ", exportable = false, content_type = 'application/x-pkcs12'",
        ", exportable = false, content_type = 'application/x-pem-file'",
    ] {
        let (seed, [leaf, middle, root]) = seed(more);
        let emulator = Emulator::start(&seed);
        let module = Module::start(&emulator.token(VAULT, ""));
        let session = module.open(0);
        assert_eq!(certificates(&session), [("tls".to_owned(), leaf.clone())], "{more}");
        assert_eq!(reads(&emulator), 0, "not asked for, not read");

        let module = Module::start(&emulator.token(VAULT, "certificate_chains = true"));
        let session = module.open(0);
        let wanted = [
            ("middle".to_owned(), middle.clone()),
            ("root".to_owned(), root),
            ("tls".to_owned(), leaf),
        ];
        assert_eq!(certificates(&session), wanted, "{more}");
        assert_eq!(certificates(&session), wanted);
        assert_eq!(reads(&emulator), 1, "read once");
        let middle = session.object(CKO_CERTIFICATE, "middle");
        assert_eq!(session.flag(middle, CKA_TRUSTED), Ok(false));
        assert_eq!(session.flag(middle, CKA_TOKEN), Ok(true));
        let category = session.number(middle, CKA_CERTIFICATE_CATEGORY);
        assert_eq!(category, Ok(CK_CERTIFICATE_CATEGORY_AUTHORITY));
        assert_eq!(session.destroy(middle), Err(CKR_ACTION_PROHIBITED));
        let (private, _) = session.pair("tls");
        let id = session.value(private, CKA_ID).unwrap();
        let with_id = session.find(&[number(CKA_CLASS, CKO_CERTIFICATE), bytes(CKA_ID, id)]);
        assert_eq!(with_id.unwrap().len(), 1, "one certificate has the key's id: its own");
    }
}

/// Without the permission to get secrets the certificate is there, alone.
#[test]
fn a_chain_that_cannot_be_had_hides_nothing() {
    const FORBIDDEN: &str = "[[fault]]\nservice = 'vault:kv1'\noperation = 'secrets/get'\n\
        status = 403\ncode = 'Forbidden'\n";
    let (seed, [leaf, ..]) = seed("");
    let emulator = Emulator::with(&seed, FORBIDDEN);
    let module = Module::start(&emulator.token(VAULT, "certificate_chains = true"));
    let session = module.open(0);
    assert_eq!(certificates(&session), [("tls".to_owned(), leaf)]);
    session.pair("tls");
}
