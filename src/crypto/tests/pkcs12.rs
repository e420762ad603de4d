//! PKCS#12 files that OpenSSL wrote, and what cannot be read of them.

use base64::{Engine, prelude::BASE64_STANDARD};
use cryptoki_sys::{CKR_DEVICE_ERROR, CKR_FUNCTION_NOT_SUPPORTED};
use openssl::{
    nid::Nid,
    pkcs12::Pkcs12,
    pkey::{PKey, Private},
    stack::Stack,
    x509::X509,
};

use crate::crypto::pkcs12::certificates;

/// By `openssl pkcs12 -export -legacy -nokeys -certpbe PBE-SHA1-RC2-40`, which a test's OpenSSL
/// may have no provider for.
const RC2: &str = "
    MIICRAIBAzCCAgoGCSqGSIb3DQEHAaCCAfsEggH3MIIB8zCCAe8GCSqGSIb3DQEHBqCCAeAwggHcAgEAMIIB1QYJKoZI
    hvcNAQcBMBwGCiqGSIb3DQEMAQYwDgQI5IyHdsb7Ok8CAggAgIIBqOBHfox7cv5issIYd3GMeGh5M4w1b/emDjS0/4Uc
    wPSjieCWTWOqdzDn2UHWtyyppezlukDp2Gmwd65ckEH3x5XkRix9RCho6ngeZ17+YKVmm4b8h8siEtexIRCVSRGSq7jo
    wqgqLhKph644gjhwGSI/bWEAiAd9QdMZ5pnFasSXHwndr5TVVpItndNAx3m7w47s152OJCR+I39b3KHYT59H5aH/PidD
    //X9gnK2uo+M03a+77EleLhu1EYyAnBLMXbgvjDI0YKylY0FxMgUjOi9ZJchmAbx96jyMQn7IvozLXTyH1anIl23wez0
    3BkE7MmhH6TBEZcDy4PxN24YaPQpvlK755puvHJ0Z7WswIYbwnOFuOnoMvV0Zxcf58uS/XD4Yawc3woWAd0fUnB/mdu+
    S5d2q75B7ecds34wXopOV/E+eW+SI8F5pUbuGylW4D1rWCUDWlCMh+dNKJ/pGZ/KNfBZ/18198P8DkC5eZTxV8iCAUif
    AwCRvy2dblQJtonlItUM0IRCSAkvqkfRdrQy22dZgOTbEx5FG82IYUwIz7KPsSqu1jMwMTAhMAkGBSsOAwIaBQAEFIvT
    6LmzL6XyKweSWJA8Ei7+cL1zBAjaVWzz1/RxMAICCAA=";

fn pair() -> PKey<Private> {
    let group = openssl::ec::EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    PKey::from_ec_key(openssl::ec::EcKey::generate(&group).unwrap()).unwrap()
}

fn certificate(key: &PKey<Private>, name: &str) -> X509 {
    let mut subject = openssl::x509::X509NameBuilder::new().unwrap();
    subject.append_entry_by_text("CN", name).unwrap();
    let subject = subject.build();
    let mut builder = X509::builder().unwrap();
    builder.set_subject_name(&subject).unwrap();
    builder.set_issuer_name(&subject).unwrap();
    builder.set_pubkey(key).unwrap();
    let day = |days| openssl::asn1::Asn1Time::days_from_now(days).unwrap();
    builder.set_not_before(&day(0)).unwrap();
    builder.set_not_after(&day(1)).unwrap();
    builder.sign(key, openssl::hash::MessageDigest::sha256()).unwrap();
    builder.build()
}

/// A file with a key, its certificate and two more, encrypted so; and the certificates.
fn file(password: &str, algorithm: Nid) -> (Vec<u8>, Vec<Vec<u8>>) {
    let key = pair();
    let all = ["leaf", "middle", "root"].map(|name| certificate(&key, name));
    let mut chain = Stack::new().unwrap();
    chain.push(all[1].clone()).unwrap();
    chain.push(all[2].clone()).unwrap();
    let mut builder = Pkcs12::builder();
    builder.name("friendly").pkey(&key).cert(&all[0]).ca(chain);
    builder.key_algorithm(algorithm).cert_algorithm(algorithm);
    let file = builder.build2(password).unwrap().to_der().unwrap();
    let mut ders: Vec<_> = all.iter().map(|one| one.to_der().unwrap()).collect();
    ders.sort();
    (file, ders)
}

#[test]
fn certificates_are_read_whatever_encrypts_them() {
    for algorithm in [Nid::PBE_WITHSHA1AND3_KEY_TRIPLEDES_CBC, Nid::AES_256_CBC, Nid::AES_128_CBC] {
        let (file, ders) = file("", algorithm);
        let mut read = certificates(&file).unwrap();
        read.sort();
        assert_eq!(read, ders, "{algorithm:?}");
    }
    let text: String = RC2.split_whitespace().collect();
    let read = certificates(&BASE64_STANDARD.decode(text).unwrap()).unwrap();
    assert_eq!(read.len(), 1);
    assert!(X509::from_der(&read[0]).is_ok());
}

#[test]
fn what_cannot_be_read_is_refused() {
    for algorithm in [Nid::PBE_WITHSHA1AND3_KEY_TRIPLEDES_CBC, Nid::AES_256_CBC] {
        let (file, _) = file("a password", algorithm);
        let refused = certificates(&file).unwrap_err();
        assert_eq!(refused.rv(), CKR_DEVICE_ERROR, "{refused}");
    }
    let (file, _) = file("", Nid::AES_256_CBC);
    for cut in [0, 1, 20, file.len() / 2, file.len() - 1] {
        assert_eq!(certificates(&file[..cut]).unwrap_err().rv(), CKR_DEVICE_ERROR, "{cut}");
    }
    for at in (0..file.len()).step_by(7) {
        let mut damaged = file.clone();
        damaged[at] ^= 0x41;
        // Any answer will do, and some damage does not matter (a salt of the MAC).
        if let Err(refused) = certificates(&damaged) {
            let known = [CKR_DEVICE_ERROR, CKR_FUNCTION_NOT_SUPPORTED];
            assert!(known.contains(&refused.rv()), "{at}: {refused}");
        }
    }
}
