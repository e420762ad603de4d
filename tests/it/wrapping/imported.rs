//! Secret keys onto a Managed HSM: created, copied, transferred.

use cryptoki_sys::*;
use openssl::{hash::MessageDigest, pkey::PKey, pkey_ctx::PkeyCtx, rsa::Padding, symm};

use super::{ALL, IV, key_wrap, secret, sized, template, with_iv};
use crate::{
    life::on_token,
    service::{Emulator, HSM, VAULT},
    token::{Family, Mechanism, Module, Parameter, Room, bytes, flag},
};

#[test]
fn secret_keys_come_onto_a_managed_hsm_and_stay() {
    let seed = "keys = [{ name = 'kek', kty = 'RSA-HSM', size = 3072, ops = ['import'] }]";
    let emulator = Emulator::with(seed, "hmac_any_length = true\n");
    let hsm = emulator.token(HSM, &format!("{ALL}api_version = '7.6'\nhmac = true\n"));
    let module = Module::start(&(emulator.token(VAULT, ALL) + &hsm));
    let (vault, s) = (module.open(0), module.open(1));
    let value: Vec<u8> = (1..33).collect();
    let works = |key| {
        let padded = with_iv(CKM_AES_CBC_PAD);
        s.init(Family::Encrypt, &padded, key).expect("C_EncryptInit");
        let made = s.one_shot_in(Family::Encrypt, b"data", Room::Bytes(16)).result();
        let cipher = symm::Cipher::aes_256_cbc();
        assert_eq!(symm::encrypt(cipher, &value, Some(&IV), b"data").unwrap(), made.unwrap());
        assert_eq!(s.flag(key, CKA_TOKEN), Ok(true));
        assert_eq!(s.number(key, CKA_VALUE_LEN), Ok(32));
        assert_eq!(s.value(key, CKA_VALUE), Err(CKR_ATTRIBUTE_SENSITIVE));
        let here = s.create(&[template(CKK_AES), vec![bytes(CKA_VALUE, [1; 16])]].concat());
        let kwp = Mechanism::plain(CKM_AES_KEY_WRAP_KWP);
        assert_eq!(s.wrap(&kwp, here.unwrap(), key), Err(CKR_KEY_UNEXTRACTABLE));
    };
    emulator.reset();
    let created = secret(&s, CKK_AES, &value, on_token("Created one"));
    assert_eq!(emulator.counts(HSM)["keys/import"], 1);
    works(created);
    assert_eq!(s.text(created, CKA_LABEL).unwrap(), "Created one");
    let here = secret(&s, CKK_AES, &value, vec![flag(CKA_WRAP, false), bytes(CKA_ID, [1, 2])]);
    let copy = s.copy(here, &on_token("copied")).expect("C_CopyObject");
    works(copy);
    assert_eq!(s.flag(copy, CKA_WRAP), Ok(false), "as the original");
    assert_eq!(s.value(copy, CKA_ID), Ok(vec![1, 2]));
    let mac = secret(&s, CKK_GENERIC_SECRET, &value, on_token("mac"));
    assert_eq!(s.number(mac, CKA_KEY_TYPE), Ok(CKK_GENERIC_SECRET));
    let hmac = s.sign(&Mechanism::plain(CKM_SHA256_HMAC), mac, b"data").expect("HMAC");
    let key = PKey::hmac(&value).unwrap();
    let mut signer = openssl::sign::Signer::new(MessageDigest::sha256(), &key).unwrap();
    assert_eq!(signer.sign_oneshot_to_vec(b"data").unwrap(), hmac);

    // A transfer: RSAES-OAEP with SHA-1 of an AES-256 key, then the key's bytes under that.
    let (kek, kek_public) = s.pair("kek");
    let m = Mechanism { kind: CKM_RSA_AES_KEY_WRAP, parameter: Parameter::RsaAes { bits: 256 } };
    let spki = s.value(kek_public, CKA_PUBLIC_KEY_INFO).unwrap();
    let blob = transfer_blob(&spki, &value);
    let local = s.wrap(&m, kek_public, here).expect("C_WrapKey");
    assert_eq!(local.len(), blob.len(), "what C_WrapKey makes is such a blob");
    for (label, blob) in [("moved", &blob), ("moved-too", &local)] {
        let arriving = [template(CKK_AES), on_token(label)].concat();
        let wrong = [sized(CKK_AES, 16), on_token(label)].concat();
        emulator.reset();
        assert_eq!(s.unwrap(&m, kek, blob, &wrong), Err(CKR_WRAPPED_KEY_LEN_RANGE));
        let refused = s.unwrap(&m, kek, &blob[..400], &arriving);
        assert_eq!(refused, Err(CKR_WRAPPED_KEY_LEN_RANGE));
        assert_eq!(emulator.requests(HSM), 0);
        works(s.unwrap(&m, kek, blob, &arriving).expect("C_UnwrapKey"));
        assert_eq!(emulator.counts(HSM).get("keys/unwrapkey"), None, "never in clear here");
    }

    // A vault keeps no secret keys.
    let (kek, _) = vault.pair("kek");
    let here = secret(&vault, CKK_AES, &value, vec![]);
    let arriving = [template(CKK_AES), on_token("moved")].concat();
    emulator.reset();
    let brought = [arriving.clone(), vec![bytes(CKA_VALUE, &value[..])]].concat();
    assert_eq!(vault.create(&brought), Err(CKR_TEMPLATE_INCONSISTENT));
    assert_eq!(vault.copy(here, &on_token("copied")), Err(CKR_TEMPLATE_INCONSISTENT));
    assert_eq!(vault.unwrap(&m, kek, &blob, &arriving), Err(CKR_TEMPLATE_INCONSISTENT));
    assert_eq!(emulator.requests(VAULT), 0);
    // And a Managed HSM only AES's lengths, with what such a key can do.
    for (kind, length, more, wanted) in [
        (CKK_AES, 17, vec![], CKR_ATTRIBUTE_VALUE_INVALID),
        (CKK_GENERIC_SECRET, 20, vec![], CKR_ATTRIBUTE_VALUE_INVALID),
        (CKK_AES, 16, vec![flag(CKA_SIGN, true)], CKR_TEMPLATE_INCONSISTENT),
        (CKK_AES, 16, vec![flag(CKA_EXTRACTABLE, true)], CKR_TEMPLATE_INCONSISTENT),
        (CKK_AES, 16, vec![bytes(CKA_CHECK_VALUE, [1, 2, 3])], CKR_TEMPLATE_INCONSISTENT),
        (CKK_AES, 16, vec![bytes(CKA_LABEL, "copied")], CKR_TEMPLATE_INCONSISTENT),
    ] {
        let value = vec![bytes(CKA_VALUE, vec![1; length]), flag(CKA_TOKEN, true)];
        let refused = s.create(&[template(kind), value, more].concat());
        assert_eq!(refused, Err(wanted), "{kind:#x} of {length}");
    }
}

fn transfer_blob(spki: &[u8], value: &[u8]) -> Vec<u8> {
    let public = PKey::public_key_from_der(spki).unwrap();
    let mut ctx = PkeyCtx::new(&public).unwrap();
    ctx.encrypt_init().unwrap();
    ctx.set_rsa_padding(Padding::PKCS1_OAEP).unwrap();
    let mut blob = Vec::new();
    ctx.encrypt_to_vec(&[6; 32], &mut blob).unwrap();
    blob.extend(key_wrap(&[6; 32], true, true, value));
    blob
}
