use std::fmt::Write;

use super::*;

const USES: &[(CK_FLAGS, &str)] = &[
    (CKF_ENCRYPT, "encrypt"),
    (CKF_DECRYPT, "decrypt"),
    (CKF_DIGEST, "digest"),
    (CKF_SIGN, "sign"),
    (CKF_VERIFY, "verify"),
    (CKF_SIGN_RECOVER, "sign-recover"),
    (CKF_VERIFY_RECOVER, "verify-recover"),
    (CKF_MESSAGE_ENCRYPT, "message encrypt"),
    (CKF_MESSAGE_DECRYPT, "message decrypt"),
    (CKF_GENERATE, "generate"),
    (CKF_GENERATE_KEY_PAIR, "generate pair"),
    (CKF_WRAP, "wrap"),
    (CKF_UNWRAP, "unwrap"),
];

/// The service's algorithms, in words.
fn at_service(scheme: Scheme) -> &'static str {
    match scheme {
        Digest(_) => "",
        Pkcs1(Some(Hash::Sha256)) => "RS256",
        Pkcs1(Some(Hash::Sha384)) => "RS384",
        Pkcs1(Some(Hash::Sha512)) => "RS512",
        Pkcs1(Some(_)) => "RSNULL",
        Pkcs1(None) => "RS256, RS384, RS512, RSNULL; RSA1_5",
        Pss(Some(Hash::Sha256)) => "PS256",
        Pss(Some(Hash::Sha384)) => "PS384",
        Pss(Some(Hash::Sha512)) => "PS512",
        Pss(Some(_)) | RawRsa | Aes(Ecb | Ctr) => "",
        Pss(None) => "PS256, PS384, PS512",
        Oaep => "RSA-OAEP, RSA-OAEP-256",
        Ecdsa(_) => "ES256, ES256K, ES384, ES512, by the curve",
        Hmac(Hash::Sha256, false) => "HS256",
        Hmac(Hash::Sha384, false) => "HS384",
        Hmac(Hash::Sha512, false) => "HS512",
        Hmac(..) => "",
        Aes(Cbc) => "A128CBC, A192CBC, A256CBC",
        Aes(CbcPad) => "the same; the last part A128CBCPAD, A192CBCPAD, A256CBCPAD",
        Aes(Gcm) => "A128GCM, A192GCM, A256GCM",
        AesWrap(Rfc3394) => "A128KW, A192KW, A256KW; CKM_AES_KEY_WRAP",
        AesWrap(Rfc5649) => "CKM_AES_KEY_WRAP_PAD (`api_version` 7.6 on)",
        RsaAesWrap => "OAEP here; onto the token an import (BYOK)",
        GenerateRsa => "create RSA, RSA-HSM",
        GenerateEc => "create EC, EC-HSM",
        GenerateAes | GenerateGeneric => "create oct-HSM",
        GenerateHmac(_) => "",
    }
}

/// The uses as words; "–" for none.
fn words(uses: CK_FLAGS) -> String {
    let named = USES.iter().filter(|(flag, _)| uses & flag != 0);
    match named.map(|(_, name)| *name).collect::<Vec<_>>() {
        none if none.is_empty() => "–".to_owned(),
        some => some.join(", "),
    }
}

/// The keys as words.
fn keys(row: &Mechanism) -> String {
    let unit =
        if row.key_type() == Some(CKK_AES) || row.sizes == SECRET { "bytes" } else { "bits" };
    let (least, most) = row.sizes;
    let name = match row.key_type() {
        Some(CKK_RSA) => "RSA",
        Some(CKK_EC) => "EC",
        Some(CKK_AES) => "AES",
        Some(CKK_GENERIC_SECRET) if matches!(row.scheme, Hmac(..)) => "generic secret or its own",
        Some(CKK_GENERIC_SECRET) => "generic secret",
        Some(_) => "its own",
        None => return String::new(),
    };
    format!("{name}, {least}–{most} {unit}")
}

#[test]
fn the_documentation_shows_this_table() {
    let mut text = String::from(
        "| mechanism | keys | with keys of a Key Vault | with keys of a Managed HSM | with session \
         keys | at the service |\n|---|---|---|---|---|---|\n",
    );
    for row in MECHANISMS {
        let vault = if row.is_of_secret_keys() { 0 } else { row.service };
        writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} |",
            row.name,
            keys(row),
            words(vault),
            words(row.service),
            words(row.session),
            at_service(row.scheme)
        )
        .unwrap();
    }
    crate::documents::hold("mechanisms.md", &text);
}

#[test]
fn every_row_has_a_use_that_fits_its_scheme() {
    let messages = CKF_MESSAGE_SIGN | CKF_MESSAGE_VERIFY | CKF_MULTI_MESSAGE;
    let known = USES.iter().fold(CURVES | messages, |all, (flag, _)| all | flag);
    for row in MECHANISMS {
        assert_ne!(row.service | row.session, 0, "{}", row.name);
        assert_eq!((row.service | row.session) & !known, 0, "{}: a use without name", row.name);
        let keyless = row.key_type().is_none();
        assert_eq!(keyless, row.service & CKF_DIGEST != 0, "{}", row.name);
        assert_eq!(keyless, row.sizes == (0, 0), "{}", row.name);
        for uses in [row.service, row.session] {
            // What signs or verifies does so with messages, too, as the document says.
            assert_eq!(uses & CKF_SIGN != 0, uses & CKF_MESSAGE_SIGN != 0, "{}", row.name);
            assert_eq!(uses & CKF_VERIFY != 0, uses & CKF_MESSAGE_VERIFY != 0, "{}", row.name);
        }
        // What a key of the service can do, a session key can do as well.
        assert!(keyless || row.service & !row.session == 0, "{}", row.name);
    }
}

#[test]
fn every_hash_has_its_digest() {
    let digests: Vec<Hash> = MECHANISMS.iter().filter_map(|row| hash_of(row.kind)).collect();
    assert_eq!(digests.len(), Hash::ALL.len());
    assert!(Hash::ALL.iter().all(|hash| digests.contains(hash)));
}
