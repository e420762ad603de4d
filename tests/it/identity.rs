//! Identity: CKA_ID, CKA_LABEL, CKA_UNIQUE_ID, which version a label means, and which certificate
//! belongs to it.

use std::fs;

use akv_pkcs11::vault::KeyRef;
use akv_wire::KeyCreateParameters;
use cryptoki_sys::*;
use openssl::{
    pkey::{Id, PKey},
    sha::sha1,
    x509::X509,
};

use crate::{
    life::on_token,
    service::{Emulator, HSM, VAULT},
    signing::{P256, SEED},
    token::{Family, Mechanism, Module, NOTHING, Session, bytes, flag, number},
};

/// CKA_ID is the SHA-1 of the subjectPublicKey bits, whoever computes it.
#[test]
fn ids_are_those_of_rfc_5280() {
    let emulator = Emulator::start(&SEED);
    let module = Module::start(&emulator.tokens());
    let session = module.open(0);
    for private in session.find(&[number(CKA_CLASS, CKO_PRIVATE_KEY)]).unwrap() {
        let label = session.text(private, CKA_LABEL).unwrap();
        let der = session.value(private, CKA_PUBLIC_KEY_INFO).unwrap();
        let key = PKey::public_key_from_der(&der).unwrap();
        let bits = match key.id() {
            Id::RSA => key.rsa().unwrap().public_key_to_der_pkcs1().unwrap(),
            Id::EC => {
                let ec = key.ec_key().unwrap();
                let mut context = openssl::bn::BigNumContext::new().unwrap();
                let form = openssl::ec::PointConversionForm::UNCOMPRESSED;
                ec.public_key().to_bytes(ec.group(), form, &mut context).unwrap()
            }
            other => panic!("{other:?}"),
        };
        let id = session.value(private, CKA_ID).unwrap();
        assert_eq!(id, sha1(&bits), "{label}");
        if key.id() == Id::EC {
            let point = session.value(private, CKA_EC_POINT).unwrap();
            let header = point.len() - bits.len();
            assert_eq!((point[0], &point[header..]), (4, &bits[..]), "a DER OCTET STRING");
        }
        let by_id = [bytes(CKA_ID, &id), number(CKA_CLASS, CKO_PUBLIC_KEY)];
        let found = session.find(&by_id).unwrap();
        assert_eq!(found.len(), 1, "{label}");
        assert_eq!(session.text(found[0], CKA_LABEL).unwrap(), label);
        let unique = session.text(private, CKA_UNIQUE_ID).unwrap();
        assert!(unique.starts_with(&format!("{label}/")) && unique.ends_with("#priv"), "{unique}");
        assert_eq!(session.find(&[bytes(CKA_UNIQUE_ID, &unique)]).unwrap(), [private]);
    }
    let hsm = module.open(1);
    let aes = hsm.object(CKO_SECRET_KEY, "aes256");
    let unique = hsm.text(aes, CKA_UNIQUE_ID).unwrap();
    let version = unique.strip_prefix("aes256/").unwrap().strip_suffix("#sec").unwrap().to_owned();
    let id: String = hsm.value(aes, CKA_ID).unwrap().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(id, version, "the 16 bytes of the version");
}

/// Keys that Microsoft's TLS Offload Library made: label and id are in their tags.
#[test]
fn keys_of_the_tls_offload_library_are_found_as_it_named_them() {
    const SEED: &str = "keys = [
        { name = 'p11-6d8f', kty = 'RSA', size = 2048,
          tags = { p11_pri_label = 'web server', p11_pri_id = '0a0B', p11_pub_label = 'web server',
                   p11_pub_id = '0a0B' } },
    ]";
    let emulator = Emulator::start(SEED);
    let module = Module::start(&emulator.tokens());
    for slot in [0, 1] {
        let session = module.open(slot);
        let (private, public) = session.pair("web server");
        let id = bytes(CKA_ID, [10, 11]);
        assert_eq!(session.find(&[id, number(CKA_CLASS, CKO_PRIVATE_KEY)]).unwrap(), [private]);
        let mechanism = Mechanism::plain(CKM_SHA256_RSA_PKCS);
        let signature = session.sign(&mechanism, private, b"data").unwrap();
        assert_eq!(session.verify(&mechanism, public, b"data", &signature), Ok(()));
    }
}

/// A cold process that looks a key up by its unique id asks for that key alone.
#[test]
fn a_unique_id_needs_one_look() {
    let emulator = Emulator::start(&SEED);
    let toml = emulator.tokens();
    let unique = {
        let module = Module::start(&toml);
        let session = module.open(0);
        let key = session.object(CKO_PRIVATE_KEY, "p384");
        session.text(key, CKA_UNIQUE_ID).unwrap()
    };
    emulator.reset();
    let module = Module::start(&toml);
    let session = module.open(0);
    let template = [number(CKA_CLASS, CKO_PRIVATE_KEY), bytes(CKA_UNIQUE_ID, &unique)];
    assert_eq!(session.find(&template).unwrap().len(), 1);
    assert_eq!(emulator.counts(VAULT).into_iter().collect::<Vec<_>>(), [("keys/get".into(), 1)]);
    let none = [bytes(CKA_UNIQUE_ID, "no-slash")];
    assert_eq!(session.find(&none).unwrap(), NOTHING);
}

fn ec_parameters() -> KeyCreateParameters {
    KeyCreateParameters {
        kty: Some("EC".into()),
        crv: Some("P-256".into()),
        ..KeyCreateParameters::default()
    }
}

fn version_of(bundle: &akv_wire::KeyBundle) -> String {
    bundle.key.name_and_version().expect("an identifier").1.to_owned()
}

#[test]
fn versions_are_shown_as_configured() {
    let emulator = Emulator::start("");
    let vault = emulator.vault(VAULT);
    let versions: Vec<String> = (0..3)
        .map(|_| version_of(&vault.create_key("rolling", &ec_parameters()).unwrap()))
        .collect();
    let labels = |module: &Module| {
        let session = module.open(0);
        let keys = session.find(&[number(CKA_CLASS, CKO_PRIVATE_KEY)]).unwrap();
        let mut labels: Vec<_> = keys
            .iter()
            .map(|key| {
                let unique = session.text(*key, CKA_UNIQUE_ID).unwrap();
                (session.text(*key, CKA_LABEL).unwrap(), unique)
            })
            .collect();
        labels.sort();
        labels
    };
    let unique = |version: &str| format!("rolling/{version}#priv");
    let current = Module::start(&emulator.token(VAULT, ""));
    assert_eq!(labels(&current), [("rolling".into(), unique(&versions[2]))]);

    let pinned =
        Module::start(&emulator.token(VAULT, &format!("keys = ['rolling/{}']", versions[0])));
    assert_eq!(labels(&pinned), [("rolling".into(), unique(&versions[0]))]);

    let enabled = Module::start(&emulator.token(VAULT, "versions = 'enabled'"));
    let mut wanted = vec![
        ("rolling".to_owned(), unique(&versions[2])),
        (format!("rolling@{}", versions[0]), unique(&versions[0])),
        (format!("rolling@{}", versions[1]), unique(&versions[1])),
    ];
    wanted.sort();
    assert_eq!(labels(&enabled), wanted);
    // Each version signs with its own key.
    let session = enabled.open(0);
    let ecdsa = Mechanism::plain(CKM_ECDSA);
    for (label, _) in &wanted {
        let (private, public) = session.pair(label);
        let signature = session.sign(&ecdsa, private, &[9; 32]).unwrap();
        session.verify(&ecdsa, public, &[9; 32], &signature).unwrap();
    }
    // Cold, by label alone.
    let cold = Module::start(&emulator.token(VAULT, "versions = 'enabled'"));
    let session = cold.open(0);
    let key = session.object(CKO_PRIVATE_KEY, &format!("rolling@{}", versions[1]));
    assert_eq!(session.text(key, CKA_UNIQUE_ID).unwrap(), unique(&versions[1]));
}

/// What is changed of an older version is changed of that one, and its name means what it did.
#[test]
fn an_older_version_that_is_changed_is_still_an_older_version() {
    let emulator = Emulator::start("");
    let vault = emulator.vault(VAULT);
    let [old, new] = ["old", "new"]
        .map(|_| version_of(&vault.create_key("rolling", &ec_parameters()).expect("a version")));
    let unique = |version: &str| format!("rolling/{version}#priv");
    let changes = |session: &Session<'_>, older: CK_OBJECT_HANDLE, end: &str| {
        let end = bytes(CKA_END_DATE, end);
        assert_eq!(session.text(older, CKA_UNIQUE_ID), Ok(unique(&old)));
        session.set(older, std::slice::from_ref(&end)).expect("changed");
        assert_eq!(session.value(older, CKA_END_DATE).as_ref(), Ok(&end.1));
        for name in [bytes(CKA_ID, [5]), bytes(CKA_LABEL, "mine")] {
            assert_eq!(session.set(older, &[name]), Err(CKR_ATTRIBUTE_READ_ONLY));
        }
        let meant = session.object(CKO_PRIVATE_KEY, "rolling");
        assert_eq!(session.text(meant, CKA_UNIQUE_ID), Ok(unique(&new)));
        assert_eq!(session.value(meant, CKA_END_DATE).as_deref(), Ok(&[][..]));
        session.set(meant, &[bytes(CKA_ID, [6])]).expect("the current version's own");
    };
    let enabled = Module::start(&emulator.token(VAULT, "versions = 'enabled'"));
    let session = enabled.open(0);
    let label = format!("rolling@{old}");
    let older = session.object(CKO_PRIVATE_KEY, &label);
    let its_id = session.value(older, CKA_ID).expect("an id");
    changes(&session, older, "20991231");
    assert_eq!(session.object(CKO_PRIVATE_KEY, &label), older);

    // Where only current versions are shown, one that was asked for by its id is in no search.
    let end = vault.key(KeyRef::version("rolling", &old)).expect("a version").attributes.exp;
    assert!(end.is_some_and(|end| end > 4_000_000_000), "{end:?}");
    let current = Module::start(&emulator.token(VAULT, ""));
    let session = current.open(0);
    let private = number(CKA_CLASS, CKO_PRIVATE_KEY);
    let by_id = [private.clone(), bytes(CKA_LABEL, "rolling"), bytes(CKA_ID, &its_id)];
    let found = session.find(&by_id).expect("a search");
    let [older] = found[..] else { panic!("{} older versions", found.len()) };
    assert_ne!(session.object(CKO_PRIVATE_KEY, "rolling"), older);
    changes(&session, older, "20981231");
    assert_eq!(session.find(&[private]).expect("a search").len(), 1);
}

/// Names mean one key whatever their case; labels do not.
#[test]
fn labels_have_a_case() {
    let emulator = Emulator::start("keys = [{ name = 'Web-1', kty = 'EC', curve = 'P-256' }]");
    let module = Module::start(&emulator.tokens());
    let session = module.open(0);
    for wrong in ["web-1", "WEB-1"] {
        assert_eq!(session.find(&[bytes(CKA_LABEL, wrong)]).unwrap(), NOTHING, "{wrong}");
    }
    session.object(CKO_PRIVATE_KEY, "Web-1");
    for no_name in ["a b", "", "ü", "a/b", "..", "%2e", "web@1"] {
        assert_eq!(session.find(&[bytes(CKA_LABEL, no_name)]).unwrap(), NOTHING, "{no_name}");
    }
    assert_eq!(session.find(&[bytes(CKA_LABEL, [0xff, 0xfe])]).unwrap(), NOTHING, "not UTF-8");
}

/// After a rotation the label stays with the version whose certificate is configured: that is the
/// one a server's certificate needs.
#[test]
fn a_configured_certificate_pins_its_version() {
    let seed = "certificates = [{ name = 'www', subject = 'CN=www', kty = 'EC', curve = 'P-256' }]";
    for (service, own) in [(VAULT, true), (HSM, false)] {
        let emulator = Emulator::start(if own { seed } else { "" });
        let vault = emulator.vault(service);
        let file = emulator.folder.path().join("www.pem");
        let (x509, version) = if own {
            let der = vault.certificate(KeyRef::current("www")).unwrap().der().unwrap().unwrap();
            let bundle = vault.key(KeyRef::current("www")).unwrap();
            (X509::from_der(&der).unwrap(), version_of(&bundle))
        } else {
            let bundle = vault.create_key("www", &ec_parameters()).unwrap();
            let toml = emulator.token(service, "");
            let module = Module::start(&toml);
            let session = module.open(0);
            let key = session.object(CKO_PUBLIC_KEY, "www");
            (self_made(&session.value(key, CKA_PUBLIC_KEY_INFO).unwrap()), version_of(&bundle))
        };
        fs::write(&file, x509.to_pem().unwrap()).unwrap();
        vault.create_key("www", &ec_parameters()).unwrap();
        vault.create_key("www", &ec_parameters()).unwrap();

        let more =
            format!("certificates = ['{}']\ngenerate_on_existing = 'new-version'", file.display());
        let module = Module::start(&emulator.token(service, &more));
        let session = module.open(0);
        let key = session.object(CKO_PRIVATE_KEY, "www");
        let unique = session.text(key, CKA_UNIQUE_ID).unwrap();
        assert_eq!(unique, format!("www/{version}#priv"), "{service}");
        let certificate = session.object(CKO_CERTIFICATE, "www");
        assert_eq!(session.value(certificate, CKA_VALUE).unwrap(), x509.to_der().unwrap());
        assert_eq!(session.value(certificate, CKA_ID), session.value(key, CKA_ID));
        let ecdsa = Mechanism::plain(CKM_ECDSA_SHA256);
        let signature = session.sign(&ecdsa, key, b"hello").unwrap();
        let (_, public) = session.pair("www");
        session.verify(&ecdsa, public, b"hello", &signature).unwrap();
        session.init(Family::Verify, &ecdsa, public).unwrap();
        // Who makes another version gets that one, and the label stays where it is.
        let template = [vec![bytes(CKA_EC_PARAMS, P256)], on_token("www")].concat();
        let mechanism = Mechanism::plain(CKM_EC_KEY_PAIR_GEN);
        let (public, private) =
            session.generate(&mechanism, &template, &on_token("www")).expect("a version");
        let made = version_of(&vault.key(KeyRef::current("www")).expect("a key"));
        assert_ne!(made, version);
        assert_eq!(session.text(private, CKA_UNIQUE_ID), Ok(format!("www/{made}#priv")));
        assert_eq!(session.text(public, CKA_UNIQUE_ID), Ok(format!("www/{made}#pub")));
        let signature = session.sign(&ecdsa, private, b"hello").expect("signed");
        let session = module.open(0);
        session.verify(&ecdsa, public, b"hello", &signature).expect("its own");
        assert_eq!(session.object(CKO_PRIVATE_KEY, "www"), key);
        for half in [private, public] {
            let renamed = session.set(half, &[bytes(CKA_ID, [1])]);
            assert_eq!(renamed, Err(CKR_ATTRIBUTE_READ_ONLY), "its name means another");
        }
        assert_eq!(session.find(&[bytes(CKA_ID, [1])]).expect("a search"), NOTHING);
    }
}

/// A certificate for a public key, signed by a key of nobody's.
pub fn self_made(info: &[u8]) -> X509 {
    use openssl::{asn1::Asn1Time, ec, hash::MessageDigest, nid::Nid, x509::X509NameBuilder};
    let group = ec::EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    let signer = PKey::from_ec_key(ec::EcKey::generate(&group).unwrap()).unwrap();
    let mut name = X509NameBuilder::new().unwrap();
    name.append_entry_by_text("CN", "www").unwrap();
    let name = name.build();
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    builder.set_subject_name(&name).unwrap();
    builder.set_issuer_name(&name).unwrap();
    builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::days_from_now(30).unwrap()).unwrap();
    builder.set_pubkey(&PKey::public_key_from_der(info).unwrap()).unwrap();
    builder.sign(&signer, MessageDigest::sha256()).unwrap();
    builder.build()
}

/// Leaf and chain of a file: one leaf for the key, each certificate of the chain by itself.
#[test]
fn a_chain_is_shown_behind_its_leaf() {
    let emulator = Emulator::start("");
    let key = emulator.vault(HSM).create_key("www", &ec_parameters()).unwrap();
    let module = Module::start(&emulator.token(HSM, ""));
    let info = {
        let session = module.open(0);
        let public = session.object(CKO_PUBLIC_KEY, "www");
        session.value(public, CKA_PUBLIC_KEY_INFO).unwrap()
    };
    let group = openssl::ec::EcGroup::from_curve_name(openssl::nid::Nid::SECP384R1).unwrap();
    let other = || {
        let pair = PKey::from_ec_key(openssl::ec::EcKey::generate(&group).unwrap()).unwrap();
        self_made(&pair.public_key_to_der().unwrap())
    };
    let (leaf, middle, root) = (self_made(&info), other(), other());
    let file = emulator.folder.path().join("chain.pem");
    let pem: Vec<u8> = [&leaf, &middle, &root].map(|one| one.to_pem().unwrap()).concat();
    fs::write(&file, pem).unwrap();
    let more = format!("certificates = ['{}']", file.display());
    let module = Module::start(&emulator.token(HSM, &more));
    let session = module.open(0);
    let found = session.find(&[number(CKA_CLASS, CKO_CERTIFICATE)]).unwrap();
    let mut shown: Vec<_> = found
        .iter()
        .map(|one| (session.value(*one, CKA_VALUE).unwrap(), session.value(*one, CKA_ID).unwrap()))
        .collect();
    shown.sort();
    let mut wanted: Vec<_> = [&leaf, &middle, &root].map(|one| one.to_der().unwrap()).to_vec();
    wanted.sort();
    assert_eq!(shown.iter().map(|(der, _)| der.clone()).collect::<Vec<_>>(), wanted);
    let mut ids: Vec<_> = shown.iter().map(|(_, id)| id.clone()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 3, "no id twice, none empty: {ids:?}");
    assert!(ids.iter().all(|id| !id.is_empty()));
    let private = session.object(CKO_PRIVATE_KEY, "www");
    let id = session.value(private, CKA_ID).unwrap();
    let by_id = [number(CKA_CLASS, CKO_CERTIFICATE), bytes(CKA_ID, &id)];
    let [certificate] = session.find(&by_id).unwrap()[..] else { panic!("one leaf") };
    assert_eq!(session.value(certificate, CKA_VALUE).unwrap(), leaf.to_der().unwrap());
    assert_eq!(session.text(certificate, CKA_LABEL).unwrap(), "www");
    // As SunPKCS11 builds a chain: by subject.
    let subject = middle.subject_name().to_der().unwrap();
    let by_subject = [number(CKA_CLASS, CKO_CERTIFICATE), bytes(CKA_SUBJECT, subject)];
    assert_eq!(session.find(&by_subject).unwrap().len(), 3, "all three have this subject here");
    assert_eq!(version_of(&key).len(), 32);
}

/// The same key imported twice is two versions and one pair of objects.
#[test]
fn the_same_material_is_shown_once() {
    let group = openssl::ec::EcGroup::from_curve_name(openssl::nid::Nid::X9_62_PRIME256V1).unwrap();
    let pair = PKey::from_ec_key(openssl::ec::EcKey::generate(&group).unwrap()).unwrap();
    let pem = String::from_utf8(pair.private_key_to_pem_pkcs8().unwrap()).unwrap();
    let row = format!("[[keys]]\nname = 'twice'\npem = \"\"\"{pem}\"\"\"\n");
    let emulator = Emulator::start(&row);
    // The seed planted the first version; this is the second, of the same material.
    let vault = emulator.vault(VAULT);
    let first = vault.key(KeyRef::current("twice")).unwrap();
    let ec = pair.ec_key().unwrap();
    let jwk = akv_wire::JsonWebKey {
        kty: Some("EC".into()),
        d: Some(ec.private_key().to_vec_padded(32).unwrap().into()),
        ..first.key.clone()
    };
    let parameters = akv_wire::KeyImportParameters {
        hsm: None,
        key: akv_wire::JsonWebKey { kid: None, key_ops: None, ..jwk },
        attributes: None,
        tags: None,
        release_policy: None,
    };
    let second = vault.import_key("twice", &parameters).unwrap();
    assert_ne!(version_of(&first), version_of(&second));
    let module = Module::start(&emulator.token(VAULT, "versions = 'enabled'"));
    let session = module.open(0);
    let found = session.find(&[number(CKA_CLASS, CKO_PRIVATE_KEY)]).unwrap();
    let [key] = found[..] else { panic!("{} keys", found.len()) };
    let unique = session.text(key, CKA_UNIQUE_ID).unwrap();
    assert_eq!(unique, format!("twice/{}#priv", version_of(&second)), "the newest");
}

/// A certificate that a client brings for the session: whole, or told what is missing or wrong.
#[test]
fn a_certificate_of_the_session_is_the_one_that_was_brought() {
    let emulator = Emulator::start("");
    let module = Module::start(&emulator.token(VAULT, ""));
    let session = module.open_with(0, CKF_SERIAL_SESSION).unwrap();
    let group = openssl::ec::EcGroup::from_curve_name(openssl::nid::Nid::X9_62_PRIME256V1).unwrap();
    let pair = PKey::from_ec_key(openssl::ec::EcKey::generate(&group).unwrap()).unwrap();
    let x509 = self_made(&pair.public_key_to_der().unwrap());
    let subject = x509.subject_name().to_der().unwrap();
    let whole = [
        number(CKA_CLASS, CKO_CERTIFICATE),
        number(CKA_CERTIFICATE_TYPE, CKC_X_509),
        bytes(CKA_SUBJECT, &subject),
        bytes(CKA_VALUE, x509.to_der().unwrap()),
        bytes(CKA_LABEL, "mine"),
        bytes(CKA_ID, [7]),
    ];
    let object = session.create(&whole).expect("a certificate");
    let issuer = x509.issuer_name().to_der().unwrap();
    for (kind, value) in whole.iter().cloned().chain([bytes(CKA_ISSUER, issuer)]) {
        assert_eq!(session.value(object, kind), Ok(value), "{kind:#x}");
    }
    let without = |left_out| -> Vec<_> {
        whole.iter().filter(|(kind, _)| *kind != left_out).cloned().collect()
    };
    for (what, template, wanted) in [
        ("no subject", without(CKA_SUBJECT), CKR_TEMPLATE_INCOMPLETE),
        ("no value", without(CKA_VALUE), CKR_TEMPLATE_INCOMPLETE),
        ("no class", without(CKA_CLASS), CKR_TEMPLATE_INCOMPLETE),
        (
            "another subject",
            [without(CKA_SUBJECT), vec![bytes(CKA_SUBJECT, [0x30, 0])]].concat(),
            CKR_TEMPLATE_INCONSISTENT,
        ),
        (
            "another type",
            [
                without(CKA_CERTIFICATE_TYPE),
                vec![number(CKA_CERTIFICATE_TYPE, CKC_X_509_ATTR_CERT)],
            ]
            .concat(),
            CKR_TEMPLATE_INCONSISTENT,
        ),
        (
            "trusted",
            [whole.to_vec(), vec![flag(CKA_TRUSTED, true)]].concat(),
            CKR_TEMPLATE_INCONSISTENT,
        ),
        (
            "no DER",
            [without(CKA_VALUE), vec![bytes(CKA_VALUE, "no certificate")]].concat(),
            CKR_ATTRIBUTE_VALUE_INVALID,
        ),
    ] {
        assert_eq!(session.create(&template), Err(wanted), "{what}");
    }
    assert_eq!(emulator.requests(VAULT), 0);
}
