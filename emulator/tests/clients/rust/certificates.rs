//! azure_security_keyvault_certificates.

use std::time::Duration;

use azure_core::{http::poller::PollerOptions, time::Duration as Pause};
use azure_security_keyvault_certificates::{
    CertificateClient, CertificateClientOptions, ResourceExt,
    models::{
        CertificateClientCreateCertificateOptions, CertificatePolicy, CreateCertificateParameters,
        CurveName, ImportCertificateParameters, IssuerParameters, KeyProperties, KeyType,
        RestoreCertificateParameters, SubjectAlternativeNames, X509CertificateProperties,
    },
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures::TryStreamExt;
use openssl::{
    asn1::Asn1Time,
    ecdsa::EcdsaSig,
    hash::{MessageDigest, hash},
    pkcs12::Pkcs12,
    pkey::PKey,
    rsa::Rsa,
    x509::{X509, X509NameBuilder},
};

use super::{
    SERVICES, answer, content, credential, in_sandbox, options, pkcs11_file, pkcs11_id, refused,
};

const DATA: &[u8] = b"What is signed.";

#[test]
fn they_live_and_their_keys_sign_through_pkcs11() {
    in_sandbox("certificates::they_live_and_their_keys_sign_through_pkcs11", async || {
        let (url, token, _) = SERVICES[0];
        let options = CertificateClientOptions { client_options: options(), ..Default::default() };
        let certificates = CertificateClient::new(url, credential(), Some(options));
        let certificates = certificates.expect("client");
        let leaf = self_signed(&certificates).await;
        let id = pkcs11_id(token, "self");
        let signature = pkcs11_file(token, DATA, &["--sign", "--id", &id, "-m", "ECDSA-SHA256"]);
        assert!(verifies(&leaf, &signature));
        imported(&certificates).await;
        life(&certificates).await;
    });
}

async fn self_signed(certificates: &CertificateClient) -> X509 {
    let policy = CertificatePolicy {
        issuer_parameters: Some(IssuerParameters {
            name: Some("Self".to_owned()),
            ..Default::default()
        }),
        key_properties: Some(KeyProperties {
            key_type: Some(KeyType::Ec),
            curve: Some(CurveName::P256),
            ..Default::default()
        }),
        x509_certificate_properties: Some(X509CertificateProperties {
            subject: Some("CN=self".to_owned()),
            subject_alternative_names: Some(SubjectAlternativeNames {
                dns_names: Some(vec!["self.example".to_owned()]),
                ..Default::default()
            }),
            validity_in_months: Some(12),
            ..Default::default()
        }),
        ..Default::default()
    };
    let parameters =
        CreateCertificateParameters { certificate_policy: Some(policy), ..Default::default() };
    let soon = CertificateClientCreateCertificateOptions {
        method_options: PollerOptions { frequency: Pause::seconds(1), ..Default::default() },
    };
    let poller = certificates
        .begin_create_certificate("self", content!(parameters), Some(soon))
        .expect("poller");
    let made = answer!(poller);
    assert_eq!(made.resource_id().expect("id").name, "self");
    let got = answer!(certificates.get_certificate("self", None));
    let leaf = X509::from_der(&got.cer.expect("cer")).expect("X.509");
    let names = leaf.subject_alt_names().expect("names");
    assert_eq!(names[0].dnsname(), Some("self.example"));
    let policy = answer!(certificates.get_certificate_policy("self", None));
    assert_eq!(policy.key_properties.expect("key_props").curve, Some(CurveName::P256));
    leaf
}

fn verifies(leaf: &X509, signature: &[u8]) -> bool {
    let key = leaf.public_key().expect("public key").ec_key().expect("EC");
    let (r, s) = signature.split_at(signature.len() / 2);
    let number = |bytes| openssl::bn::BigNum::from_slice(bytes).expect("number");
    let signature = EcdsaSig::from_private_components(number(r), number(s)).expect("signature");
    let digest = hash(MessageDigest::sha256(), DATA).expect("hash");
    signature.verify(&digest, &key).expect("verification")
}

/// A certificate of openssl's own making, as PFX.
async fn imported(certificates: &CertificateClient) {
    let (leaf, pfx) = own_certificate();
    let parameters = ImportCertificateParameters {
        base64_encoded_certificate: Some(BASE64_STANDARD.encode(pfx)),
        password: Some("password".to_owned()),
        ..Default::default()
    };
    let made = certificates.import_certificate("own", content!(parameters.clone()), None);
    assert_eq!(answer!(made).cer, Some(leaf));
    let wrong = ImportCertificateParameters { password: Some("wrong".to_owned()), ..parameters };
    let wrong = certificates.import_certificate("own", content!(wrong), None);
    refused(wrong.await, 400, "BadParameter");
}

/// The certificate, DER, and with its key, PKCS #12.
fn own_certificate() -> (Vec<u8>, Vec<u8>) {
    let key = PKey::from_rsa(Rsa::generate(2048).expect("RSA")).expect("key");
    let mut name = X509NameBuilder::new().expect("name");
    name.append_entry_by_text("CN", "own").expect("name");
    let name = name.build();
    let mut builder = X509::builder().expect("builder");
    builder.set_version(2).expect("version");
    builder.set_subject_name(&name).expect("name");
    builder.set_issuer_name(&name).expect("name");
    builder.set_pubkey(&key).expect("key");
    builder.set_not_before(&Asn1Time::days_from_now(0).expect("time")).expect("time");
    builder.set_not_after(&Asn1Time::days_from_now(30).expect("time")).expect("time");
    builder.sign(&key, MessageDigest::sha256()).expect("signature");
    let leaf = builder.build();
    let pfx = Pkcs12::builder().pkey(&key).cert(&leaf).build2("password").expect("PKCS #12");
    (leaf.to_der().expect("DER"), pfx.to_der().expect("DER"))
}

async fn life(certificates: &CertificateClient) {
    let pager = certificates.list_certificate_properties(None).expect("pager");
    let listed: Vec<_> = pager.try_collect().await.expect("all pages");
    assert_eq!(listed.len(), 2);
    let pager = certificates.list_certificate_properties_versions("self", None).expect("pager");
    assert_eq!(pager.try_collect::<Vec<_>>().await.expect("all pages").len(), 1);
    refused(certificates.get_certificate("none", None).await, 404, "CertificateNotFound");

    let backup = answer!(certificates.backup_certificate("own", None)).value;
    answer!(certificates.delete_certificate("own", None));
    // These crates have no poller for this.
    for left in (0..100).rev() {
        match certificates.get_deleted_certificate("own", None).await {
            Ok(_) => break,
            Err(error) if left == 0 => panic!("{error}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    refused(certificates.get_certificate("own", None).await, 404, "CertificateNotFound");
    certificates.purge_deleted_certificate("own", None).await.expect("purge");
    let restore = RestoreCertificateParameters { certificate_backup: backup };
    let restored = answer!(certificates.restore_certificate(content!(restore), None));
    assert_eq!(restored.resource_id().expect("id").name, "own");
}
