//! azure_security_keyvault_keys: everything about keys but their use.

use std::{collections::HashMap, time::Duration};

use azure_core::time::OffsetDateTime;
use azure_security_keyvault_keys::{
    KeyClient, KeyClientOptions, ResourceExt,
    models::{
        CreateKeyParameters, CurveName, GetRandomBytesParameters, ImportKeyParameters, JsonWebKey,
        Key, KeyAttributes, KeyClientGetKeyOptions, KeyClientUpdateKeyPropertiesOptions,
        KeyOperation, KeyRotationPolicy, KeyRotationPolicyAction, KeyRotationPolicyAttributes,
        KeyType, LifetimeAction, LifetimeActionTrigger, LifetimeActionType, RestoreKeyParameters,
        SignParameters, SignatureAlgorithm, UpdateKeyPropertiesParameters,
    },
};
use futures::TryStreamExt;
use openssl::rsa::Rsa;

use super::{SERVICES, answer, content, credential, in_sandbox, options, refused, stranger};

#[test]
fn they_live() {
    in_sandbox("keys::they_live", async || {
        for (url, _, hsm) in SERVICES {
            let keys = client(url);
            creation(&keys, hsm).await;
            reading(&keys).await;
            updating(&keys).await;
            rotation(&keys).await;
            deletion(&keys).await;
            imports(&keys, hsm).await;
            let random = GetRandomBytesParameters { count: Some(32) };
            let random = keys.get_random_bytes(content!(random), None);
            match hsm {
                true => assert_eq!(answer!(random).value.expect("bytes").len(), 32),
                false => refused(random.await, 404, "NotFound"),
            }
            let options = KeyClientOptions { client_options: options(), ..Default::default() };
            let strange = KeyClient::new(url, stranger(), Some(options)).expect("client");
            let code = if hsm { "AccessDenied" } else { "Forbidden" };
            refused(strange.get_key("rsa", None).await, 403, code);
        }
    });
}

pub(super) fn client(url: &str) -> KeyClient {
    let options = KeyClientOptions { client_options: options(), ..Default::default() };
    KeyClient::new(url, credential(), Some(options)).expect("client")
}

pub(super) async fn create(keys: &KeyClient, name: &str, parameters: CreateKeyParameters) -> Key {
    answer!(keys.create_key(name, content!(parameters), None))
}

pub(super) async fn create_rsa(keys: &KeyClient, name: &str) -> Key {
    create(keys, name, CreateKeyParameters { kty: Some(KeyType::Rsa), ..Default::default() }).await
}

pub(super) async fn create_ec(keys: &KeyClient, name: &str, curve: CurveName) -> Key {
    let (kty, curve) = (Some(KeyType::Ec), Some(curve));
    create(keys, name, CreateKeyParameters { kty, curve, ..Default::default() }).await
}

pub(super) fn version(key: &Key) -> String {
    key.resource_id().expect("kid").version.expect("a version")
}

fn kid(key: &Key) -> String {
    key.key.as_ref().and_then(|key| key.kid.clone()).expect("kid")
}

async fn creation(keys: &KeyClient, hsm: bool) {
    let key = create_rsa(keys, "rsa").await;
    let jwk = key.key.as_ref().expect("JWK");
    assert_eq!(jwk.kty, Some(if hsm { KeyType::RsaHsm } else { KeyType::Rsa }));
    assert_eq!(key.resource_id().expect("kid").name, "rsa");
    for curve in [CurveName::P256, CurveName::P256K, CurveName::P384, CurveName::P521] {
        let key = create_ec(keys, "ec", curve.clone()).await;
        assert_eq!(key.key.expect("JWK").crv, Some(curve));
    }
    let oct = CreateKeyParameters {
        kty: Some(KeyType::OctHsm),
        key_size: Some(256),
        ..Default::default()
    };
    let oct = keys.create_key("oct", content!(oct), None);
    match hsm {
        true => assert_eq!(answer!(oct).key.expect("JWK").kty, Some(KeyType::OctHsm)),
        false => refused(oct.await, 400, "BadParameter"),
    }
    let now = OffsetDateTime::from_unix_timestamp(OffsetDateTime::now_utc().unix_timestamp());
    let until = now.expect("a time") + Duration::from_secs(86_400);
    let parameters = CreateKeyParameters {
        kty: Some(KeyType::RsaHsm),
        key_size: Some(3072),
        key_ops: Some(vec![KeyOperation::Sign, KeyOperation::Verify]),
        key_attributes: Some(KeyAttributes {
            enabled: Some(true),
            expires: Some(until),
            ..Default::default()
        }),
        tags: Some(HashMap::from([("a".to_owned(), "b".to_owned())])),
        ..Default::default()
    };
    let key = create(keys, "options", parameters).await;
    let jwk = key.key.expect("JWK");
    assert_eq!(jwk.n.expect("n").len(), 384);
    let attested = answer!(keys.get_key_attestation("options", None));
    let attestation = attested.attributes.expect("attributes").attestation.expect("attestation");
    assert!(attestation.public_key_attestation.is_some());
    assert!(attestation.certificate_pem_file.expect("PEM").starts_with(b"-----BEGIN"));
    assert_eq!(jwk.key_ops.expect("key_ops").len(), 2);
    assert_eq!(key.attributes.expect("attributes").expires, Some(until));
    assert_eq!(key.tags.expect("tags")["a"], "b");
}

async fn reading(keys: &KeyClient) {
    let first = create_ec(keys, "read", CurveName::P256).await;
    let second = create_ec(keys, "read", CurveName::P256).await;
    assert_eq!(kid(&answer!(keys.get_key("read", None))), kid(&second));
    let old = KeyClientGetKeyOptions { key_version: Some(version(&first)), ..Default::default() };
    assert_eq!(kid(&answer!(keys.get_key("read", Some(old)))), kid(&first));
    let listed: Vec<_> =
        keys.list_key_properties(None).expect("pager").try_collect().await.expect("all pages");
    for name in ["rsa", "ec", "options", "read"] {
        let found = listed.iter().any(|one| one.resource_id().expect("kid").name == name);
        assert!(found, "{name}");
    }
    let versions = keys.list_key_properties_versions("read", None).expect("pager");
    let versions: Vec<_> = versions.try_collect().await.expect("all pages");
    assert_eq!(versions.len(), 2);
    refused(keys.get_key("none", None).await, 404, "KeyNotFound");
}

async fn updating(keys: &KeyClient) {
    let key = create_rsa(keys, "update").await;
    let parameters = UpdateKeyPropertiesParameters {
        key_attributes: Some(KeyAttributes { enabled: Some(false), ..Default::default() }),
        tags: Some(HashMap::from([("c".to_owned(), "d".to_owned())])),
        ..Default::default()
    };
    let of_version = KeyClientUpdateKeyPropertiesOptions {
        key_version: Some(version(&key)),
        ..Default::default()
    };
    let changed =
        answer!(keys.update_key_properties("update", content!(parameters), Some(of_version)));
    assert_eq!(changed.attributes.expect("attributes").enabled, Some(false));
    assert_eq!(changed.tags.expect("tags")["c"], "d");
    let sign =
        SignParameters { algorithm: Some(SignatureAlgorithm::Rs256), value: Some(vec![0; 32]) };
    // The current version, which is the disabled one.
    refused(keys.sign("update", content!(sign), None).await, 403, "Forbidden");
}

async fn rotation(keys: &KeyClient) {
    let first = create_rsa(keys, "rotate").await;
    let policy = KeyRotationPolicy {
        attributes: Some(KeyRotationPolicyAttributes {
            expiry_time: Some("P90D".to_owned()),
            ..Default::default()
        }),
        lifetime_actions: Some(vec![LifetimeAction {
            action: Some(LifetimeActionType { type_prop: Some(KeyRotationPolicyAction::Rotate) }),
            trigger: Some(LifetimeActionTrigger {
                time_after_create: Some("P2M".to_owned()),
                ..Default::default()
            }),
        }]),
        ..Default::default()
    };
    answer!(keys.update_key_rotation_policy("rotate", content!(policy), None));
    let shown = answer!(keys.get_key_rotation_policy("rotate", None));
    assert_eq!(shown.attributes.expect("attributes").expiry_time.as_deref(), Some("P90D"));
    let actions = shown.lifetime_actions.expect("actions");
    let after = actions[0].trigger.as_ref().and_then(|when| when.time_after_create.as_deref());
    assert_eq!(after, Some("P2M"));
    let rotated = answer!(keys.rotate_key("rotate", None));
    assert_ne!(kid(&rotated), kid(&first));
    assert!(rotated.attributes.expect("attributes").expires.is_some());
}

/// Asks until the service shows it: these crates have no poller for keys.
macro_rules! eventually {
    ($call:expr) => {{
        let mut left = 100;
        loop {
            match $call.await {
                Ok(answer) => break answer.into_model().expect("the model"),
                Err(error) if left == 0 => panic!("{error}"),
                Err(_) => left -= 1,
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }};
}

async fn deletion(keys: &KeyClient) {
    let key = create_ec(keys, "delete", CurveName::P256).await;
    let deleted = answer!(keys.delete_key("delete", None));
    assert!(deleted.recovery_id.expect("recoveryId").ends_with("/deletedkeys/delete"));
    let shown = eventually!(keys.get_deleted_key("delete", None));
    let days = shown.scheduled_purge_date.expect("date") - shown.deleted_date.expect("date");
    assert_eq!(days.whole_days(), 7);
    refused(keys.get_key("delete", None).await, 404, "KeyNotFound");
    let pager = keys.list_deleted_key_properties(None).expect("pager");
    let listed: Vec<_> = pager.try_collect().await.expect("all pages");
    assert!(listed.iter().any(|one| one.resource_id().expect("kid").name == "delete"));
    answer!(keys.recover_deleted_key("delete", None));
    assert_eq!(kid(&eventually!(keys.get_key("delete", None))), kid(&key));

    let backup = answer!(keys.backup_key("delete", None)).value;
    let restore = RestoreKeyParameters { key_backup: backup };
    refused(keys.restore_key(content!(restore.clone()), None).await, 409, "Conflict");
    keys.delete_key("delete", None).await.expect("deletion");
    eventually!(keys.get_deleted_key("delete", None));
    keys.purge_deleted_key("delete", None).await.expect("purge");
    refused(keys.get_deleted_key("delete", None).await, 404, "KeyNotFound");
    assert_eq!(kid(&answer!(keys.restore_key(content!(restore), None))), kid(&key));
}

async fn imports(keys: &KeyClient, hsm: bool) {
    let rsa = Rsa::generate(2048).expect("RSA");
    let bytes = |number: Option<&openssl::bn::BigNumRef>| number.map(|number| number.to_vec());
    let jwk = JsonWebKey {
        kty: Some(KeyType::Rsa),
        n: bytes(Some(rsa.n())),
        e: bytes(Some(rsa.e())),
        d: bytes(Some(rsa.d())),
        p: bytes(rsa.p()),
        q: bytes(rsa.q()),
        dp: bytes(rsa.dmp1()),
        dq: bytes(rsa.dmq1()),
        qi: bytes(rsa.iqmp()),
        ..Default::default()
    };
    let parameters = ImportKeyParameters { key: Some(jwk), hsm: Some(hsm), ..Default::default() };
    let key = answer!(keys.import_key("import", content!(parameters), None));
    let jwk = key.key.expect("JWK");
    assert_eq!((jwk.n, jwk.d), (bytes(Some(rsa.n())), None));
}
