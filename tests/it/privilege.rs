//! The least privilege: what is enough for whom, and what a refusal tells the operator to grant.

use std::{collections::BTreeSet, fs};

use akv_pkcs11::{
    config::Service,
    error::Error,
    vault::{Cipher, KeyRef, Operation, Vault},
};
use akv_wire::{
    EncryptionAlgorithm, KeyCreateParameters, KeyImportParameters, KeyReleaseParameters,
    KeyUpdateParameters, RotationPolicy, SignatureAlgorithm,
};
use cryptoki_sys::*;
use openssl::pkey::PKey;

use crate::{
    identity::self_made,
    life::{on_token, rsa_template},
    service::{Emulator, HSM, VAULT},
    signing::P256,
    token::{Family, Mechanism, Module, Parameter, Rv, Session, bytes, flag, number},
};

const SEED: &str = "keys = [{ name = 'rsa', kty = 'RSA', size = 2048 }, \
                    { name = 'ec', kty = 'EC', curve = 'P-256' }]";
/// May sign, and nothing else.
const SIGNER: &str = "[[client]]\nid = 'signer'\nsecret = 'of-the-signer'\nkeys = ['sign']\n\
                      secrets = []\ncertificates = []\n";

fn emulator(permission: &str) -> Emulator {
    let services = format!("[[vault]]\nname = '{VAULT}'\n[[hsm]]\nname = '{HSM}'\n");
    let client = SIGNER.replace("'sign'", permission);
    let switches = "[switches]\npermission_model = 'rbac'\n";
    Emulator::configured(SEED, &format!("{services}{client}{switches}"))
}

/// The `[[token]]` of a service for the signer.
fn as_signer(emulator: &Emulator, service: &str, more: &str) -> String {
    let (client, secret) = emulator.client_and_secret();
    emulator.token(service, more).replace(&client, "signer").replace(&secret, "of-the-signer")
}

/// Files with the public keys, and a certificate for `ec`, in the emulator's folder: the lines of
/// the configuration that name them, with versions or without.
pub fn public_keys(emulator: &Emulator, service: &str, versions: bool) -> String {
    let module = Module::start(&emulator.token(service, ""));
    let session = module.open(0);
    let folder = emulator.folder.path().display();
    let (mut keys, mut files) = (Vec::new(), Vec::new());
    for label in ["rsa", "ec"] {
        let info = session.value(session.object(CKO_PUBLIC_KEY, label), CKA_PUBLIC_KEY_INFO);
        let info = info.expect("a public key");
        let (pem, certificate) = match label {
            "ec" => (self_made(&info).to_pem().expect("PEM"), "ec.pem"),
            _ => {
                let key = PKey::public_key_from_der(&info).expect("a public key");
                (key.public_key_to_pem().expect("PEM"), "rsa.pem")
            }
        };
        fs::write(emulator.folder.path().join(certificate), pem).expect("write");
        let bundle = emulator.vault(service).key(KeyRef::current(label)).expect("the key");
        let version = bundle.key.name_and_version().expect("an identifier").1.to_owned();
        keys.push(match versions {
            true => format!("'{label}/{version}'"),
            false => format!("'{label}'"),
        });
        files.push(format!("{label} = '{folder}/{certificate}'"));
    }
    format!(
        "keys = [{}]\npublic_keys = {{ {} }}\ncertificates = ['{folder}/ec.pem']",
        keys.join(", "),
        files.join(", ")
    )
}

/// What a TLS server does: it finds key and certificate by label, id and unique id, and signs. Not
/// one request but for signatures, which is all that the identity may.
#[test]
fn with_its_public_keys_at_hand_a_token_needs_the_permission_to_sign_and_no_other() {
    let emulator = emulator("'sign'");
    for service in [VAULT, HSM] {
        for versions in [false, true] {
            let more = public_keys(&emulator, service, versions);
            let log = emulator.folder.path().join(format!("{service}-{versions}.log"));
            emulator.reset();
            let module = Module::load();
            let toml = as_signer(&emulator, service, &more);
            let sink = format!("[log]\nlevel = 'info'\nsink = 'file:{}'\n", log.display());
            assert_eq!(module.initialize_as_is(&format!("{sink}{toml}")), Ok(()));
            let session = module.open(0);
            let all = session.find(&[number(CKA_CLASS, CKO_PRIVATE_KEY)]).unwrap();
            assert_eq!(all.len(), 2);
            let mut signatures = 0;
            for (label, mechanisms) in [
                ("rsa", &[CKM_SHA256_RSA_PKCS, CKM_SHA512_RSA_PKCS][..]),
                ("ec", &[CKM_ECDSA, CKM_ECDSA_SHA256][..]),
            ] {
                let (private, public) = session.pair(label);
                let id = session.value(private, CKA_ID).unwrap();
                let unique = session.value(private, CKA_UNIQUE_ID).unwrap();
                let by_id = [bytes(CKA_ID, &id), number(CKA_CLASS, CKO_PRIVATE_KEY)];
                assert_eq!(session.find(&by_id).unwrap(), [private]);
                // As nginx's workers look a key up again.
                let again = [bytes(CKA_ID, &id), bytes(CKA_LABEL, label)];
                assert!(session.find(&again).unwrap().contains(&private));
                assert_eq!(session.find(&[bytes(CKA_UNIQUE_ID, unique)]).unwrap(), [private]);
                for kind in mechanisms {
                    let mechanism = Mechanism::plain(*kind);
                    let signature = session.sign(&mechanism, private, &[3; 32]).unwrap();
                    session.verify(&mechanism, public, &[3; 32], &signature).unwrap();
                    signatures += 1;
                }
            }
            let certificate = session.object(CKO_CERTIFICATE, "ec");
            let key = session.object(CKO_PRIVATE_KEY, "ec");
            assert_eq!(session.value(certificate, CKA_ID), session.value(key, CKA_ID));
            let counts = emulator.counts(service);
            assert_eq!(counts.into_iter().collect::<Vec<_>>(), [("keys/sign".into(), signatures)]);

            // What is offered without being known to be allowed is refused in words.
            let (private, public) = session.pair("rsa");
            let pkcs1 = Mechanism::plain(CKM_RSA_PKCS);
            let ciphertext = session.run(Family::Encrypt, &pkcs1, public, b"data").unwrap();
            let refused = session.run(Family::Decrypt, &pkcs1, private, &ciphertext);
            assert_eq!(refused, Err(CKR_KEY_FUNCTION_NOT_PERMITTED), "{service}");
            let told = fs::read_to_string(&log).expect("the log");
            assert!(told.contains("/keys/decrypt/action"), "{told}");
        }
    }
}

/// A new version signs with a key that is not the file's: no peer gets such a signature.
#[test]
fn a_rotation_behind_a_public_key_of_a_file_is_told() {
    let emulator = emulator("'sign'");
    let (current, pinned) =
        (public_keys(&emulator, VAULT, false), public_keys(&emulator, VAULT, true));
    let log = emulator.folder.path().join("log");
    let parameters = KeyCreateParameters {
        kty: Some("EC".into()),
        crv: Some("P-256".into()),
        ..KeyCreateParameters::default()
    };
    emulator.vault(VAULT).create_key("ec", &parameters).unwrap();
    for (more, outcome) in [(pinned, Ok(())), (current, Err(CKR_DEVICE_ERROR))] {
        let module = Module::load();
        let sink = format!("[log]\nlevel = 'info'\nsink = 'file:{}'\n", log.display());
        let toml = as_signer(&emulator, VAULT, &more);
        assert_eq!(module.initialize_as_is(&format!("{sink}{toml}")), Ok(()));
        let session = module.open(0);
        let key = session.object(CKO_PRIVATE_KEY, "ec");
        let signed = session.sign(&Mechanism::plain(CKM_ECDSA), key, &[3; 32]);
        assert_eq!(signed.map(drop), outcome);
    }
    let told = fs::read_to_string(&log).expect("the log");
    assert!(told.contains("key 'ec' signs with another key than that of"), "{told}");
}

/// Whatever the padding, and whether the service knows the hash or signs bare bytes.
#[test]
fn each_signature_with_another_key_than_that_of_a_file_is_told() {
    let emulator = emulator("'sign'");
    let more = public_keys(&emulator, VAULT, false);
    let parameters = KeyCreateParameters {
        kty: Some("RSA".into()),
        key_size: Some(2048),
        ..KeyCreateParameters::default()
    };
    let module = Module::start(&as_signer(&emulator, VAULT, &more));
    let session = module.open(0);
    let key = session.object(CKO_PRIVATE_KEY, "rsa");
    let mechanisms = [
        Mechanism::plain(CKM_RSA_PKCS),
        Mechanism::plain(CKM_SHA1_RSA_PKCS),
        Mechanism::plain(CKM_SHA384_RSA_PKCS),
        Mechanism::pss(CKM_SHA256_RSA_PKCS_PSS, CKM_SHA256, CKG_MGF1_SHA256, 32),
    ];
    let sign = |mechanism| session.sign(mechanism, key, b"bytes that are no digest").map(drop);
    mechanisms.iter().for_each(|mechanism| assert_eq!(sign(mechanism), Ok(())));
    emulator.vault(VAULT).create_key("rsa", &parameters).unwrap();
    for mechanism in &mechanisms {
        assert_eq!(sign(mechanism), Err(CKR_DEVICE_ERROR), "{:#x}", mechanism.kind);
    }
    assert_eq!(
        session.init(Family::Sign, &Mechanism::plain(CKM_RSA_X_509), key),
        Err(CKR_MECHANISM_INVALID)
    );
}

/// With `keys`, to get and to sign is enough, and to get is asked for once per key.
#[test]
fn named_keys_need_get_and_sign() {
    let emulator = emulator("'get', 'sign'");
    for service in [VAULT, HSM] {
        emulator.reset();
        let module = Module::start(&as_signer(&emulator, service, "keys = ['rsa', 'ec']"));
        let session = module.open(0);
        assert_eq!(session.find(&[number(CKA_CLASS, CKO_PRIVATE_KEY)]).unwrap().len(), 2);
        let key = session.object(CKO_PRIVATE_KEY, "ec");
        session.sign(&Mechanism::plain(CKM_ECDSA), key, &[3; 32]).unwrap();
        let counts: Vec<_> = emulator.counts(service).into_iter().collect();
        assert_eq!(counts, [("keys/get".into(), 2), ("keys/sign".into(), 1)]);
    }
}

/// Carries an operation out; None where the service has no such thing.
fn perform(vault: &Vault, operation: Operation) -> Option<Result<(), Error>> {
    use Operation::*;
    let hsm = vault.service() == Service::ManagedHsm;
    let key = KeyRef::current("some-key");
    let soon = vault.find_deadline();
    let input = Cipher { value: &[1; 256], ..Cipher::default() };
    let oaep = EncryptionAlgorithm::RsaOaep;
    let empty = || akv_wire::JsonWebKey { kty: Some("RSA".into()), ..Default::default() };
    Some(match operation {
        GetCertificate | ListCertificates | GetSecret | ListSecrets if hsm => return None,
        Random if !hsm => return None,
        GetKey => vault.key(key).map(drop),
        ListKeys => vault.keys(soon).map(drop),
        ListKeyVersions => vault.key_versions(key.name, soon).map(drop),
        Sign => vault.sign(key, SignatureAlgorithm::Rs256, &[1; 32]).map(drop),
        Verify => vault.verify(key, SignatureAlgorithm::Hs256, b"m", &[1; 32]).map(drop),
        Encrypt => vault.encrypt(key, oaep, &input).map(drop),
        Decrypt => vault.decrypt(key, oaep, &input).map(drop),
        WrapKey => vault.wrap_key(key, oaep, &input).map(drop),
        UnwrapKey => vault.unwrap_key(key, oaep, &input).map(drop),
        CreateKey => vault.create_key(key.name, &KeyCreateParameters::default()).map(drop),
        ImportKey => {
            let parameters = KeyImportParameters {
                hsm: None,
                key: empty(),
                attributes: None,
                tags: None,
                release_policy: None,
            };
            vault.import_key(key.name, &parameters).map(drop)
        }
        UpdateKey => vault.update_key(key, &KeyUpdateParameters::default()).map(drop),
        DeleteKey => vault.delete_key(key.name).map(drop),
        GetDeletedKey => vault.deleted_key(key.name).map(drop),
        RecoverKey => vault.recover_key(key.name).map(drop),
        PurgeKey => vault.purge_key(key.name),
        Random => vault.random(16).map(drop),
        GetCertificate => vault.certificate(key).map(drop),
        ListCertificates => vault.list_certificates(soon).map(drop),
        GetSecret => vault.secret(key).map(drop),
        ListSecrets => vault.secrets(soon).map(drop),
        ListDeletedKeys => vault.deleted_keys(soon).map(drop),
        BackupKey => vault.backup_key(key.name).map(drop),
        RestoreKey => vault.restore_key(akv_wire::Base64Url::new([1; 8])).map(drop),
        RotateKey => vault.rotate_key(key.name).map(drop),
        GetRotationPolicy => vault.rotation_policy(key.name).map(drop),
        SetRotationPolicy => {
            vault.set_rotation_policy(key.name, &RotationPolicy::default()).map(drop)
        }
        ReleaseKey => {
            let parameters =
                KeyReleaseParameters { target: "a.b.c".into(), ..KeyReleaseParameters::default() };
            vault.release_key(key, &parameters).map(drop)
        }
    })
}

/// Every operation that is refused names the data action it needs and where to grant it; the
/// service's own words, by a table of its own, name the same action.
#[test]
fn each_missing_permission_is_named_with_its_scope() {
    let emulator = Emulator::with("", "denied_by = 'rbac'\npermission_model = 'rbac'\n");
    for service in [VAULT, HSM] {
        let vault = emulator.vault(service);
        let mut wrong = Vec::new();
        let mut asked = BTreeSet::new();
        for operation in Operation::all() {
            let Some(outcome) = perform(&vault, operation) else { continue };
            let error = outcome.expect_err(operation.name());
            let action = operation.data_action(vault.service());
            asked.insert(operation.name());
            let sentence = error.sentence();
            let forbidden = [CKR_KEY_FUNCTION_NOT_PERMITTED, CKR_FUNCTION_REJECTED];
            let own = format!("the identity lacks data action {action}");
            let scoped = sentence.contains("; grant it on the vault")
                || sentence.contains("; grant it on scope /");
            let theirs = sentence.split_once("(the service says: ").map(|(_, words)| words);
            let agreed = theirs.is_some_and(|words| words.contains(action));
            if !(forbidden.contains(&error.rv()) && sentence.contains(&own) && scoped && agreed) {
                wrong.push(format!("{}: {action}: {error}", operation.name()));
            }
        }
        assert!(wrong.is_empty(), "{service}:\n{}", wrong.join("\n"));
        assert_eq!(asked.len(), if service == VAULT { 27 } else { 24 }, "{asked:?}");
    }
}

/// Something that needs one permission, with what needs no other prepared by who may all.
struct Deed {
    /// What the identity lacks: a permission on keys, any on certificates, or to get secrets.
    lacking: &'static str,
    operation: Operation,
    /// The function that is refused; none where the refusal only hides something.
    function: Option<&'static str>,
    perform: fn(&Session<'_>, &[u8]) -> Rv,
}

const KEY_PERMISSIONS: [&str; 11] = [
    "get",
    "list",
    "create",
    "import",
    "update",
    "delete",
    "encrypt",
    "decrypt",
    "wrapKey",
    "unwrapKey",
    "sign",
];

fn deeds() -> Vec<Deed> {
    use Operation::*;
    let deed = |lacking, operation, function, perform| Deed {
        lacking,
        operation,
        function: Some(function),
        perform,
    };
    vec![
        deed("get", GetKey, "C_FindObjectsInit", |s, _| {
            s.find(&[number(CKA_CLASS, CKO_PRIVATE_KEY), bytes(CKA_LABEL, "rsa")]).map(drop)
        }),
        deed("list", ListKeys, "C_FindObjectsInit", |s, _| {
            s.find(&[number(CKA_CLASS, CKO_PRIVATE_KEY)]).map(drop)
        }),
        deed("sign", Sign, "C_Sign", |s, _| {
            let key = s.object(CKO_PRIVATE_KEY, "rsa");
            s.sign(&Mechanism::plain(CKM_SHA256_RSA_PKCS), key, b"data").map(drop)
        }),
        deed("decrypt", Decrypt, "C_Decrypt", |s, sealed| {
            let key = s.object(CKO_PRIVATE_KEY, "rsa");
            s.run(Family::Decrypt, &Mechanism::oaep(CKM_SHA_1, CKG_MGF1_SHA1), key, sealed)
                .map(drop)
        }),
        deed("unwrapKey", UnwrapKey, "C_UnwrapKey", |s, sealed| {
            let key = s.object(CKO_PRIVATE_KEY, "rsa");
            let aes = [number(CKA_CLASS, CKO_SECRET_KEY), number(CKA_KEY_TYPE, CKK_AES)];
            s.unwrap(&Mechanism::oaep(CKM_SHA_1, CKG_MGF1_SHA1), key, sealed, &aes).map(drop)
        }),
        deed("wrapKey", WrapKey, "C_WrapKey", |s, _| {
            let key = s.object(CKO_SECRET_KEY, "aes");
            let value = [
                number(CKA_CLASS, CKO_SECRET_KEY),
                number(CKA_KEY_TYPE, CKK_AES),
                bytes(CKA_VALUE, [7; 16]),
                flag(CKA_EXTRACTABLE, true),
            ];
            let wrapped = s.create(&value).expect("a session key");
            s.wrap(&Mechanism::plain(CKM_AES_KEY_WRAP), key, wrapped).map(drop)
        }),
        deed("encrypt", Encrypt, "C_Encrypt", |s, _| {
            let key = s.object(CKO_SECRET_KEY, "aes");
            let cbc =
                Mechanism { kind: CKM_AES_CBC_PAD, parameter: Parameter::Bytes([9; 16].into()) };
            s.run(Family::Encrypt, &cbc, key, b"data").map(drop)
        }),
        deed("create", CreateKey, "C_GenerateKeyPair", |s, _| {
            let public = [vec![bytes(CKA_EC_PARAMS, P256)], on_token("made")].concat();
            s.generate(&Mechanism::plain(CKM_EC_KEY_PAIR_GEN), &public, &on_token("made")).map(drop)
        }),
        deed("import", ImportKey, "C_CreateObject", |s, _| {
            let key = openssl::rsa::Rsa::generate(2048).expect("a key");
            s.create(&[rsa_template(&key), on_token("brought")].concat()).map(drop)
        }),
        deed("delete", DeleteKey, "C_DestroyObject", |s, _| {
            s.destroy(s.object(CKO_PRIVATE_KEY, "ec"))
        }),
        deed("secrets", GetSecret, "C_GetAttributeValue", |s, _| {
            s.value(s.object(CKO_DATA, "kept"), CKA_VALUE).map(drop)
        }),
        // A certificate that may not be had hides no key (design): it is only told.
        Deed {
            lacking: "certificates",
            operation: GetCertificate,
            function: None,
            perform: |s, _| {
                s.object(CKO_PRIVATE_KEY, "tls");
                let all = s.find(&[number(CKA_CLASS, CKO_CERTIFICATE), bytes(CKA_LABEL, "tls")])?;
                assert!(all.is_empty());
                Ok(())
            },
        },
    ]
}

/// What an operator reads, from the C function that a client called to the data action to grant:
/// one line each, for an identity that lacks this permission and no other.
#[test]
fn each_c_function_tells_the_permission_it_lacks() {
    let deeds = deeds();
    let quoted = |all: &[&str]| -> String {
        all.iter().map(|one| format!("'{one}'")).collect::<Vec<_>>().join(", ")
    };
    let clients: String = deeds
        .iter()
        .map(|deed| {
            let keys: Vec<_> =
                KEY_PERMISSIONS.into_iter().filter(|name| *name != deed.lacking).collect();
            let mut client = format!(
                "[[client]]\nid = 'no-{0}'\nsecret = 'kept-from-everybody-{0:.3}'\nkeys = [{1}]\n",
                deed.lacking,
                quoted(&keys)
            );
            // A secret is found where it is listed, and its value is another matter.
            client += match deed.lacking {
                "certificates" => "certificates = []\n",
                "secrets" => "secrets = ['list']\n",
                _ => "",
            };
            client
        })
        .collect();
    let seed = "
        keys = [
            { name = 'rsa', kty = 'RSA', size = 2048 },
            { name = 'ec', kty = 'EC', curve = 'P-256' },
            { name = 'aes', kty = 'oct-HSM', size = 256, service = 'hsm1' },
        ]
        certificates = [{ name = 'tls', subject = 'CN=tls' }]
        secrets = [{ name = 'kept', value = 'a value that a vault keeps' }]";
    let services = format!("[[vault]]\nname = '{VAULT}'\n[[hsm]]\nname = '{HSM}'\n");
    let switches = "[switches]\npermission_model = 'rbac'\n";
    let emulator = Emulator::configured(seed, &format!("{services}{clients}{switches}"));
    let (client, secret) = emulator.client_and_secret();
    for service in [VAULT, HSM] {
        let more = match service {
            VAULT => "allow_delete = true\nsecrets = ['kept']",
            _ => "allow_delete = true\napi_version = '2025-07-01'",
        };
        let module = Module::load();
        let all = emulator.token(service, more);
        assert_eq!(module.initialize(&all), Ok(()));
        let session = module.open(0);
        let oaep = Mechanism::oaep(CKM_SHA_1, CKG_MGF1_SHA1);
        let sealed = session.run(Family::Encrypt, &oaep, session.pair("rsa").1, &[7; 16]).unwrap();
        assert_eq!(module.finalize(), Ok(()));
        for deed in &deeds {
            let only = match deed.operation {
                Operation::GetCertificate | Operation::GetSecret => VAULT,
                Operation::WrapKey | Operation::Encrypt => HSM,
                _ => service,
            };
            if only != service {
                continue;
            }
            let what = format!("{service}, {}", deed.lacking);
            let log = emulator.folder.path().join(&what);
            let toml = all
                .replace(&client, &format!("no-{}", deed.lacking))
                .replace(&secret, &format!("kept-from-everybody-{:.3}", deed.lacking));
            let sink = format!("[log]\nlevel = 'info'\nsink = 'file:{}'\n", log.display());
            assert_eq!(module.initialize_as_is(&format!("{sink}{toml}")), Ok(()));
            let outcome = (deed.perform)(&module.open(0), &sealed);
            let told = fs::read_to_string(&log).unwrap_or_default();
            let forbidden = [CKR_KEY_FUNCTION_NOT_PERMITTED, CKR_FUNCTION_REJECTED];
            match deed.function {
                None => assert_eq!(outcome, Ok(()), "{what}"),
                Some(_) => {
                    assert!(outcome.is_err_and(|rv| forbidden.contains(&rv)), "{what}: {outcome:?}")
                }
            }
            let kind = if service == VAULT { Service::Vault } else { Service::ManagedHsm };
            let action = deed.operation.data_action(kind);
            let lacks = format!("the identity lacks data action {action}");
            let lines: Vec<_> = told.lines().filter(|line| line.contains(&lacks)).collect();
            let [line] = lines[..] else { panic!("{what}: {told}") };
            let head = match deed.function {
                Some(function) => format!(" ERROR akv_pkcs11::abi {function}: token '{service}': "),
                None => " INFO ".to_owned(),
            };
            assert!(line.contains(&head) && line.contains("; grant it on "), "{what}: {line}");
            assert!(line.contains(deed.operation.name()), "{what}: {line}");
            assert_eq!(module.finalize(), Ok(()));
        }
    }
}
