//! Every algorithm, checked against OpenSSL with nothing but the public key the service shows.

use akv_emulator::config::{Config, Switches};
use openssl::bn::{BigNum, BigNumContext};
use openssl::ec::{EcGroup, EcKey, EcPoint};
use openssl::ecdsa::EcdsaSig;
use openssl::hash::MessageDigest;
use openssl::md::Md;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Public};
use openssl::pkey_ctx::PkeyCtx;
use openssl::rsa::{Padding, Rsa};
use openssl::sign::{RsaPssSaltlen, Signer};
use openssl::symm::{Cipher, Crypter, Mode};
use serde_json::{Value, json};

use crate::support::{Session, decode, encode, operation, world, world_with};

fn rsa_public(key: &Value) -> PKey<Public> {
    let number = |member| BigNum::from_slice(&decode(&key[member])).expect("number");
    let rsa = Rsa::from_public_components(number("n"), number("e")).expect("RSA");
    PKey::from_rsa(rsa).expect("key")
}

fn ec_public(key: &Value) -> EcKey<Public> {
    let nid = match key["crv"].as_str().expect("crv") {
        "P-256" => Nid::X9_62_PRIME256V1,
        "P-256K" => Nid::SECP256K1,
        "P-384" => Nid::SECP384R1,
        _ => Nid::SECP521R1,
    };
    let group = EcGroup::from_curve_name(nid).expect("curve");
    let mut point = vec![4];
    point.extend(decode(&key["x"]));
    point.extend(decode(&key["y"]));
    let mut ctx = BigNumContext::new().expect("ctx");
    let point = EcPoint::from_bytes(&group, &point, &mut ctx).expect("point");
    EcKey::from_public_key(&group, &point).expect("key")
}

fn verify_remotely(
    session: &Session<'_>,
    name: &str,
    alg: &str,
    digest: &[u8],
    value: &[u8],
) -> bool {
    let body = json!({"alg": alg, "digest": encode(digest), "value": encode(value)});
    let answer = session.post(&format!("/keys/{name}/verify"), body).ok();
    let members: Vec<&String> = answer.as_object().expect("object").keys().collect();
    if session.is_hsm() {
        assert_eq!(members, ["alg", "kid", "value"]);
    } else {
        assert_eq!(members, ["value"]);
    }
    answer["value"].as_bool().expect("bool")
}

#[test]
fn rsa_signatures_verify_under_the_public_key() {
    let world = world();
    for session in [world.vault(), world.hsm()] {
        for size in [2048, 3072] {
            let key = session.create("rsa", json!({"kty": "RSA", "key_size": size}));
            let public = rsa_public(&key);
            for (alg, md, pss) in [
                ("RS256", Md::sha256(), false),
                ("RS384", Md::sha384(), false),
                ("RS512", Md::sha512(), false),
                ("PS256", Md::sha256(), true),
                ("PS384", Md::sha384(), true),
                ("PS512", Md::sha512(), true),
            ] {
                let digest: Vec<u8> = (0..md.size() as u8).collect();
                let answer = session.post("/keys/rsa/sign", operation(alg, &digest));
                assert_eq!(answer.json.get("alg").is_some(), session.is_hsm());
                assert_eq!(answer.json["kid"], key["kid"]);
                let signature = answer.bytes("value");
                let mut ctx = PkeyCtx::new(&public).expect("ctx");
                ctx.verify_init().expect("init");
                ctx.set_rsa_padding(if pss { Padding::PKCS1_PSS } else { Padding::PKCS1 })
                    .expect("padding");
                ctx.set_signature_md(md).expect("md");
                if pss {
                    ctx.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH).expect("salt");
                }
                assert!(ctx.verify(&digest, &signature).expect("verify"), "{alg} {size}");
                assert!(verify_remotely(&session, "rsa", alg, &digest, &signature));
                let mut other = digest.clone();
                other[0] ^= 1;
                assert!(!verify_remotely(&session, "rsa", alg, &other, &signature));
                assert!(!verify_remotely(&session, "rsa", alg, &digest, &signature[1..]));
                session
                    .post("/keys/rsa/sign", operation(alg, &digest[1..]))
                    .refused(400, "BadParameter");
            }
        }
    }
}

#[test]
fn rsnull_pads_and_adds_nothing() {
    let world = world();
    let vault = world.vault();
    let public = rsa_public(&vault.create("rsa", json!({"kty": "RSA"}))).rsa().expect("RSA");
    for content in [&b"36 bytes of MD5 and SHA-1 as in TLS 1"[..36], &[7; 245], b""] {
        let signature = vault.post("/keys/rsa/sign", operation("RSNULL", content)).bytes("value");
        let mut padded = vec![0; 256];
        let len = public.public_decrypt(&signature, &mut padded, Padding::PKCS1).expect("recover");
        assert_eq!(&padded[..len], content);
        assert!(verify_remotely(&vault, "rsa", "RSNULL", content, &signature));
    }
    vault.post("/keys/rsa/sign", operation("RSNULL", &[7; 246])).refused(400, "BadParameter");
    let switches = Switches { vault_rsnull: false, ..Switches::default() };
    let world = world_with(Config { switches, ..Config::default() }, Vec::new());
    let vault = world.vault();
    vault.create("rsa", json!({"kty": "RSA"}));
    vault.post("/keys/rsa/sign", operation("RSNULL", &[7; 36])).refused(400, "BadParameter");
}

#[test]
fn ecdsa_signatures_are_r_and_s_and_verify_under_the_public_key() {
    let world = world();
    for session in [world.vault(), world.hsm()] {
        for (curve, alg, input, half) in [
            ("P-256", "ES256", 32, 32),
            ("P-256K", "ES256K", 32, 32),
            ("P-384", "ES384", 48, 48),
            ("P-521", "ES512", 64, 66),
        ] {
            let key = session.create("ec", json!({"kty": "EC", "crv": curve}));
            let public = ec_public(&key);
            let digest = vec![0xa5; input];
            let signature = session.post("/keys/ec/sign", operation(alg, &digest)).bytes("value");
            assert_eq!(signature.len(), 2 * half);
            let number = |bytes: &[u8]| BigNum::from_slice(bytes).expect("number");
            let (r, s) = signature.split_at(half);
            let parsed = EcdsaSig::from_private_components(number(r), number(s)).expect("sig");
            assert!(parsed.verify(&digest, &public).expect("verify"), "{alg}");
            assert!(verify_remotely(&session, "ec", alg, &digest, &signature));
            assert!(!verify_remotely(&session, "ec", alg, &vec![0xa6; input], &signature));
            assert!(!verify_remotely(&session, "ec", alg, &digest, &[0; 10]));
            let wrong = session.post("/keys/ec/sign", operation(alg, &digest[1..]));
            wrong.refused(400, "BadParameter");
            assert!(
                wrong.message().starts_with(&format!(
                    "Invalid length of 'value': {} bytes. {alg} requires {input} bytes, encoded \
                     with base64url.",
                    input - 1
                )),
                "{}",
                wrong.text
            );
            let other = if alg == "ES256" { "ES384" } else { "ES256" };
            let digest = if other == "ES256" { vec![1; 32] } else { vec![1; 48] };
            session.post("/keys/ec/sign", operation(other, &digest)).refused(400, "BadParameter");
            session
                .post("/keys/ec/sign", operation("RS256", &[1; 32]))
                .refused(400, "BadParameter");
        }
    }
}

#[test]
fn hmac_is_over_the_value_as_given() {
    let switches = Switches { hmac_any_length: true, ..Switches::default() };
    let loose = world_with(Config { switches, ..Config::default() }, Vec::new());
    let strict = world();
    for (world, any) in [(&loose, true), (&strict, false)] {
        let hsm = world.hsm();
        let key = json!({"kty": "oct", "k": encode(&[9; 32])});
        hsm.call("PUT", "/keys/mac", Some(json!({"key": key}))).ok();
        for (alg, md) in [
            ("HS256", MessageDigest::sha256()),
            ("HS384", MessageDigest::sha384()),
            ("HS512", MessageDigest::sha512()),
        ] {
            let local = PKey::hmac(&[9; 32]).expect("key");
            for message in [vec![1; md.size()], vec![2; 5], vec![3; 1000]] {
                let answer = hsm.post("/keys/mac/sign", operation(alg, &message));
                if !any && message.len() != md.size() {
                    answer.refused(400, "BadParameter");
                    continue;
                }
                let mut signer = Signer::new(md, &local).expect("signer");
                let expected = signer.sign_oneshot_to_vec(&message).expect("mac");
                assert_eq!(answer.bytes("value"), expected);
                assert!(verify_remotely(&hsm, "mac", alg, &message, &expected));
                assert!(!verify_remotely(&hsm, "mac", alg, &message, &expected[1..]));
            }
        }
        hsm.version.replace("7.4".into());
        hsm.post("/keys/mac/sign", operation("HS256", &[1; 32])).refused(400, "BadParameter");
    }
}

#[test]
fn rsa_encryption_meets_its_other_half() {
    let world = world();
    for session in [world.vault(), world.hsm()] {
        let public = rsa_public(&session.create("rsa", json!({"kty": "RSA"})));
        for (alg, md, longest) in [
            ("RSA1_5", None, 245),
            ("RSA-OAEP", Some(Md::sha1()), 214),
            ("RSA-OAEP-256", Some(Md::sha256()), 190),
        ] {
            let plaintext = vec![0x42; longest];
            let mut ctx = PkeyCtx::new(&public).expect("ctx");
            ctx.encrypt_init().expect("init");
            match md {
                None => ctx.set_rsa_padding(Padding::PKCS1).expect("padding"),
                Some(md) => {
                    ctx.set_rsa_padding(Padding::PKCS1_OAEP).expect("padding");
                    ctx.set_rsa_oaep_md(md).expect("md");
                    ctx.set_rsa_mgf1_md(md).expect("mgf");
                }
            }
            let mut ciphertext = Vec::new();
            ctx.encrypt_to_vec(&plaintext, &mut ciphertext).expect("encrypt");
            for (there, back) in [("encrypt", "decrypt"), ("wrapkey", "unwrapkey")] {
                let undo = |value: &[u8]| {
                    session.post(&format!("/keys/rsa/{back}"), operation(alg, value))
                };
                assert_eq!(undo(&ciphertext).bytes("value"), plaintext, "{alg} {back}");
                let remote = session
                    .post(&format!("/keys/rsa/{there}"), operation(alg, &plaintext))
                    .bytes("value");
                assert_ne!(remote, ciphertext);
                assert_eq!(undo(&remote).bytes("value"), plaintext);
                undo(&[1; 256]).refused(400, "BadParameter");
                undo(&ciphertext[1..]).refused(400, "BadParameter");
                session
                    .post(&format!("/keys/rsa/{there}"), operation(alg, &[0; 246]))
                    .refused(400, "BadParameter");
            }
        }
        session
            .post("/keys/rsa/encrypt", operation("A128KW", &[0; 16]))
            .refused(400, "BadParameter");
        session
            .post("/keys/rsa/encrypt", operation("RSA-OAEP-512", &[0]))
            .refused(400, "BadParameter");
    }
}

fn hsm_with_aes(world: &crate::support::World) -> Session<'_> {
    let hsm = world.hsm();
    for bits in [128, 192, 256] {
        let key = json!({"kty": "oct", "k": encode(&vec![bits as u8; bits / 8])});
        hsm.call("PUT", &format!("/keys/aes{bits}"), Some(json!({"key": key}))).ok();
    }
    hsm
}

#[test]
fn gcm_makes_its_own_iv() {
    let world = world();
    let hsm = hsm_with_aes(&world);
    for (bits, cipher) in
        [(128, Cipher::aes_128_gcm()), (192, Cipher::aes_192_gcm()), (256, Cipher::aes_256_gcm())]
    {
        let alg = format!("A{bits}GCM");
        let path = format!("/keys/aes{bits}");
        let body = json!({"alg": alg, "value": encode(b"plain"), "aad": encode(b"more")});
        let made = hsm.post(&format!("{path}/encrypt"), body).ok();
        let (iv, tag) = (decode(&made["iv"]), decode(&made["tag"]));
        assert_eq!((iv.len(), tag.len(), &made["aad"]), (12, 16, &json!(encode(b"more"))));
        let local = openssl::symm::decrypt_aead(
            cipher,
            &vec![bits as u8; bits / 8],
            Some(&iv),
            b"more",
            &decode(&made["value"]),
            &tag,
        );
        assert_eq!(local.expect("decrypt"), b"plain");
        let undo = |change: &str, value: &str| {
            let mut body = json!({
                "alg": alg, "value": made["value"], "iv": made["iv"], "tag": made["tag"],
                "aad": made["aad"],
            });
            if value.is_empty() {
                body.as_object_mut().expect("object").remove(change);
            } else {
                body[change] = json!(value);
            }
            hsm.post(&format!("{path}/decrypt"), body)
        };
        assert_eq!(undo("value", made["value"].as_str().expect("text")).bytes("value"), b"plain");
        for (member, value) in [
            ("tag", encode(&[0; 16])),
            ("tag", encode(&[0; 15])),
            ("iv", encode(&[0; 12])),
            ("iv", String::new()),
            ("tag", String::new()),
            ("aad", String::new()),
        ] {
            undo(member, &value).refused(400, "BadParameter");
        }
        let with_iv = json!({"alg": alg, "value": encode(b"x"), "iv": encode(&[0; 12])});
        hsm.post(&format!("{path}/encrypt"), with_iv).refused(400, "BadParameter");
        let other = if bits == 128 { "A256GCM" } else { "A128GCM" };
        hsm.post(&format!("{path}/encrypt"), operation(other, b"x")).refused(400, "BadParameter");
    }
}

#[test]
fn cbc_takes_the_callers_iv_and_fills_with_zeros() {
    let world = world();
    let hsm = hsm_with_aes(&world);
    for (bits, cipher) in
        [(128, Cipher::aes_128_cbc()), (192, Cipher::aes_192_cbc()), (256, Cipher::aes_256_cbc())]
    {
        let (iv, plaintext) = ([3; 16], [5; 20]);
        for (alg, padded) in [(format!("A{bits}CBC"), false), (format!("A{bits}CBCPAD"), true)] {
            let path = format!("/keys/aes{bits}");
            let body = json!({"alg": alg, "value": encode(&plaintext), "iv": encode(&iv)});
            let made = hsm.post(&format!("{path}/encrypt"), body).ok();
            assert_eq!(made["iv"], encode(&iv));
            assert!(made.get("tag").is_none());
            let ciphertext = decode(&made["value"]);
            assert_eq!(ciphertext.len(), 32);
            let key = vec![bits as u8; bits / 8];
            let mut crypter =
                Crypter::new(cipher, Mode::Decrypt, &key, Some(&iv)).expect("crypter");
            crypter.pad(padded);
            let mut local = vec![0; 64];
            let mut len = crypter.update(&ciphertext, &mut local).expect("update");
            len += crypter.finalize(&mut local[len..]).expect("final");
            let mut expected = plaintext.to_vec();
            if !padded {
                expected.resize(32, 0);
            }
            assert_eq!(&local[..len], expected);
            let body = json!({"alg": alg, "value": made["value"], "iv": made["iv"]});
            assert_eq!(hsm.post(&format!("{path}/decrypt"), body).bytes("value"), expected);
            for body in [
                json!({"alg": alg, "value": made["value"]}),
                json!({"alg": alg, "value": made["value"], "iv": encode(&[0; 12])}),
                json!({"alg": alg, "value": encode(&[0; 15]), "iv": made["iv"]}),
            ] {
                hsm.post(&format!("{path}/decrypt"), body).refused(400, "BadParameter");
            }
        }
    }
}

#[test]
fn key_wrap_is_the_standards() {
    let world = world();
    let hsm = hsm_with_aes(&world);
    for bits in [128, 192, 256] {
        let path = format!("/keys/aes{bits}");
        let kek = vec![bits as u8; bits / 8];
        let aes = openssl::aes::AesKey::new_encrypt(&kek).expect("key");
        let mut expected = vec![0; 40];
        openssl::aes::wrap_key(&aes, None, &mut expected, &[6; 32]).expect("wrap");
        for alg in [format!("A{bits}KW"), "CKM_AES_KEY_WRAP".to_owned()] {
            let made = hsm.post(&format!("{path}/wrapkey"), operation(&alg, &[6; 32]));
            assert_eq!(made.bytes("value"), expected);
            let back = hsm.post(&format!("{path}/unwrapkey"), operation(&alg, &expected));
            assert_eq!(back.bytes("value"), [6; 32]);
            for bad in [&[6; 31][..], &[6; 8]] {
                hsm.post(&format!("{path}/wrapkey"), operation(&alg, bad))
                    .refused(400, "BadParameter");
            }
            hsm.post(&format!("{path}/unwrapkey"), operation(&alg, &[6; 40]))
                .refused(400, "BadParameter");
            hsm.post(&format!("{path}/encrypt"), operation(&alg, &[6; 32]))
                .refused(400, "BadParameter");
        }
        for value in [&[1; 1][..], &[2; 20], &[3; 32]] {
            let alg = "CKM_AES_KEY_WRAP_PAD";
            let made = hsm.post(&format!("{path}/wrapkey"), operation(alg, value)).bytes("value");
            assert_eq!(made.len(), value.len().next_multiple_of(8) + 8);
            let back = hsm.post(&format!("{path}/unwrapkey"), operation(alg, &made));
            assert_eq!(back.bytes("value"), value);
        }
    }
    hsm.version.replace("7.5".into());
    hsm.post("/keys/aes256/wrapkey", operation("CKM_AES_KEY_WRAP_PAD", &[1; 16]))
        .refused(400, "BadParameter");
    hsm.post("/keys/aes256/wrapkey", operation("A256KW", &[1; 16])).ok();
}

#[test]
fn key_ops_are_obeyed() {
    let world = world();
    for session in [world.vault(), world.hsm()] {
        session.create("only", json!({"kty": "RSA", "key_ops": ["sign", "encrypt"]}));
        session.post("/keys/only/sign", operation("RS256", &[1; 32])).ok();
        session.post("/keys/only/encrypt", operation("RSA-OAEP", &[1; 32])).ok();
        for (name, op) in
            [("decrypt", "decrypt"), ("wrapkey", "wrapKey"), ("unwrapkey", "unwrapKey")]
        {
            let answer =
                session.post(&format!("/keys/only/{name}"), operation("RSA-OAEP", &[1; 256]));
            answer.refused(403, "Forbidden");
            assert!(
                answer
                    .message()
                    .starts_with(&format!("Operation {op} is not permitted on this key."))
            );
        }
    }
}

#[test]
fn bodies_are_read_strictly() {
    let world = world();
    for session in [world.vault(), world.hsm()] {
        session.create("rsa", json!({"kty": "RSA"}));
        for body in [
            json!({"alg": "RS256", "value": "not base64url!"}),
            json!({"alg": "RS256", "value": "AAA="}),
            json!({"alg": "RS256"}),
            json!({"value": encode(&[1; 32])}),
            json!({"alg": "RS257", "value": encode(&[1; 32])}),
            json!({"alg": "RS256", "value": encode(&[1; 32]), "digest": "AA"}),
            json!({"alg": 1, "value": encode(&[1; 32])}),
            json!("text"),
        ] {
            let answer = session.post("/keys/rsa/sign", body.clone());
            assert_eq!(answer.json["error"]["code"], "BadParameter", "{body}: {}", answer.text);
        }
        let big = "A".repeat(3 * 1024 * 1024);
        assert_eq!(
            session.post("/keys/rsa/sign", json!({"alg": "RS256", "value": big})).status,
            413
        );
    }
}

#[test]
fn random_bytes_come_from_an_hsm() {
    let world = world();
    let hsm = world.hsm();
    for count in [1, 128] {
        assert_eq!(hsm.post("/rng", json!({"count": count})).bytes("value").len(), count);
    }
    for count in [0, 129, -1] {
        let answer = hsm.post("/rng", json!({"count": count}));
        answer.refused(400, "BadParameter");
        assert!(answer.message().starts_with(
            "GetRandomBytesRequest: count cannot be greater than 128 or less than 1 (Activity ID: "
        ));
    }
    world.vault().post("/rng", json!({"count": 1})).refused(404, "NotFound");
}
