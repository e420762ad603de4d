//! What must not be seen is in no log, at the most talkative level, whatever is done.

use std::fs;

use cryptoki_sys::*;

use crate::{
    confidence::Forms,
    service::{Emulator, HSM, VAULT},
    signing::{P256, session_ec, session_rsa},
    token::{Family, Mechanism, Module, bytes, flag, number},
};

const PLAINTEXT: &[u8] = b"the-plaintext-nobody-may-read";
const SIGNED: &[u8] = b"the-data-that-is-signed-only-here";
const WRONG_PIN: &str = "the-pin-of-somebody-else";

#[test]
fn no_log_level_shows_a_secret() {
    let emulator = Emulator::start(
        "keys = [
            { name = 'rsa', kty = 'RSA', size = 2048 },
            { name = 'ec', kty = 'EC', curve = 'P-256' },
        ]
        secrets = [{ name = 'kept', value = 'the-secret-that-a-vault-keeps' }]",
    );
    let (client, secret) = emulator.client_and_secret();
    let log = emulator.folder.path().join("log");
    let toml = format!(
        "log = {{ level = 'trace', sink = 'file:{}' }}\n{}{}",
        log.display(),
        emulator.token(VAULT, "secrets = ['*']\nlogin = \"client-secret\""),
        emulator.token(HSM, ""),
    );
    let module = Module::load();
    module.initialize_as_is(&toml).unwrap();
    let session = module.open(0);
    let mut secrets = vec![
        secret.clone().into_bytes(),
        PLAINTEXT.to_vec(),
        SIGNED.to_vec(),
        WRONG_PIN.as_bytes().to_vec(),
    ];
    assert_eq!(session.login(CKU_USER, &format!("{client}:{WRONG_PIN}")), Err(CKR_PIN_INCORRECT));
    session.login(CKU_USER, &format!("{client}:{secret}")).unwrap();
    for slot in [0, 1] {
        let session = module.open(slot);
        let (private, public) = session.pair("rsa");
        let pkcs1 = Mechanism::plain(CKM_RSA_PKCS);
        let oaep = Mechanism::oaep(CKM_SHA256, CKG_MGF1_SHA256);
        let (here_public, here) = session_rsa(&session, 2048);
        for (private, public) in [(private, public), (here, here_public)] {
            for mechanism in [&pkcs1, &oaep] {
                let ciphertext =
                    session.run(Family::Encrypt, mechanism, public, PLAINTEXT).unwrap();
                let plaintext = session.run(Family::Decrypt, mechanism, private, &ciphertext);
                assert_eq!(plaintext.unwrap(), PLAINTEXT);
                let mut bad = ciphertext;
                bad[5] ^= 1;
                session.run(Family::Decrypt, mechanism, private, &bad).unwrap_err();
            }
            session.sign(&Mechanism::plain(CKM_SHA256_RSA_PKCS), private, SIGNED).unwrap();
        }
        session_ec(&session, P256);
        // A key whose value we may see, so that it can be looked for.
        let open = [flag(CKA_SENSITIVE, false), flag(CKA_EXTRACTABLE, true)];
        let mechanism = Mechanism::plain(CKM_EC_KEY_PAIR_GEN);
        let (_, key) = session.generate(&mechanism, &[bytes(CKA_EC_PARAMS, P256)], &open).unwrap();
        let value = session.value(key, CKA_VALUE).unwrap();
        session.sign(&Mechanism::plain(CKM_ECDSA), key, &[1; 32]).unwrap();
        secrets.push(value);
        secrets.push(session.random(32).unwrap());
        // Refusals are told with the value that was refused: not with these.
        session.find_init(&[bytes(CKA_VALUE, PLAINTEXT)]).unwrap();
        session.find_final().unwrap();
        let data = [number(CKA_CLASS, CKO_DATA), bytes(CKA_VALUE, PLAINTEXT)];
        session.create(&data).unwrap();
        session.create(&[&data[..], &[flag(CKA_TOKEN, true)]].concat()).unwrap_err();
    }
    let session = module.open(0);
    let kept = session.value(session.object(CKO_DATA, "kept"), CKA_VALUE).unwrap();
    assert_eq!(kept, b"the-secret-that-a-vault-keeps");
    secrets.push(kept);
    module.finalize().unwrap();
    let text = fs::read_to_string(&log).unwrap();
    assert!(text.contains("C_Decrypt") && text.contains("sign"), "the log is there:\n{text}");
    Forms::of(secrets.iter().map(Vec::as_slice)).check(&log, &text);
    for word in ["Bearer ey", "client_secret="] {
        assert!(!text.contains(word), "{word}");
    }
}
