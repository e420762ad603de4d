//! The operations of the contract: one row each.

use reqwest::Method;

use crate::config::Service;

/// An operation of the service, as the error table and the log name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// GET `/keys/{name}/{version}`
    GetKey,
    /// GET `/keys`
    ListKeys,
    /// GET `/keys/{name}/versions`
    ListKeyVersions,
    /// POST `/keys/{name}/{version}/sign`
    Sign,
    /// POST `/keys/{name}/{version}/verify`
    Verify,
    /// POST `/keys/{name}/{version}/encrypt`
    Encrypt,
    /// POST `/keys/{name}/{version}/decrypt`
    Decrypt,
    /// POST `/keys/{name}/{version}/wrapkey`
    WrapKey,
    /// POST `/keys/{name}/{version}/unwrapkey`
    UnwrapKey,
    /// POST `/keys/{name}/create`
    CreateKey,
    /// PUT `/keys/{name}`
    ImportKey,
    /// PATCH `/keys/{name}/{version}`
    UpdateKey,
    /// DELETE `/keys/{name}`
    DeleteKey,
    /// GET `/deletedkeys/{name}`
    GetDeletedKey,
    /// POST `/deletedkeys/{name}/recover`
    RecoverKey,
    /// DELETE `/deletedkeys/{name}`
    PurgeKey,
    /// POST `/rng`
    Random,
    /// GET `/certificates/{name}/{version}`
    GetCertificate,
    /// GET `/certificates`
    ListCertificates,
    /// GET `/secrets/{name}/{version}`
    GetSecret,
    /// GET `/secrets`
    ListSecrets,
    /// GET `/deletedkeys`
    ListDeletedKeys,
    /// POST `/keys/{name}/backup`
    BackupKey,
    /// POST `/keys/restore`
    RestoreKey,
    /// POST `/keys/{name}/rotate`
    RotateKey,
    /// GET `/keys/{name}/rotationpolicy`
    GetRotationPolicy,
    /// PUT `/keys/{name}/rotationpolicy`
    SetRotationPolicy,
    /// POST `/keys/{name}/{version}/release`
    ReleaseKey,
}

/// What is known about an operation.
pub(super) struct Row {
    pub operation: Operation,
    /// In messages.
    pub name: &'static str,
    pub method: Method,
    pub collection: &'static str,
    /// Sending it twice does no harm, so it may be repeated after a lost answer.
    pub repeatable: bool,
    /// What a 403 lacks: the data action of a vault with Azure RBAC, the permission of its access
    /// policy, the data action of a Managed HSM.
    pub vault_action: &'static str,
    pub vault_permission: &'static str,
    pub hsm_action: &'static str,
}

macro_rules! rows {
    ($($operation:ident $name:literal $method:ident $collection:literal $repeatable:literal
        $vault:literal $permission:literal $hsm:literal;)*) => {
        /// Every operation, in the order of the enum.
        pub(super) const OPERATIONS: &[Row] = &[$(Row {
            operation: Operation::$operation,
            name: $name,
            method: Method::$method,
            collection: $collection,
            repeatable: $repeatable,
            vault_action: concat!("Microsoft.KeyVault/vaults/", $vault),
            vault_permission: $permission,
            hsm_action: concat!("Microsoft.KeyVault/managedHsm/", $hsm),
        },)*];
    };
}

rows! {
    GetKey "get key" GET "keys" true "keys/read" "get" "keys/read/action";
    ListKeys "list keys" GET "keys" true "keys/read" "list" "keys/read/action";
    ListKeyVersions "list versions of key" GET "keys" true "keys/read" "list" "keys/read/action";
    Sign "sign with key" POST "keys" true "keys/sign/action" "sign" "keys/sign/action";
    Verify "verify with key" POST "keys" true
        "keys/verify/action" "verify" "keys/verify/action";
    Encrypt "encrypt with key" POST "keys" true
        "keys/encrypt/action" "encrypt" "keys/encrypt/action";
    Decrypt "decrypt with key" POST "keys" true
        "keys/decrypt/action" "decrypt" "keys/decrypt/action";
    WrapKey "wrap with key" POST "keys" true "keys/wrap/action" "wrapKey" "keys/wrap/action";
    UnwrapKey "unwrap with key" POST "keys" true
        "keys/unwrap/action" "unwrapKey" "keys/unwrap/action";
    CreateKey "create key" POST "keys" false "keys/create/action" "create" "keys/create";
    ImportKey "import key" PUT "keys" false "keys/import/action" "import" "keys/import/action";
    UpdateKey "update key" PATCH "keys" true "keys/update/action" "update" "keys/write/action";
    DeleteKey "delete key" DELETE "keys" false "keys/delete" "delete" "keys/delete";
    GetDeletedKey "get deleted key" GET "deletedkeys" true
        "keys/read" "get" "keys/deletedKeys/read/action";
    RecoverKey "recover key" POST "deletedkeys" false
        "keys/recover/action" "recover" "keys/deletedKeys/recover/action";
    PurgeKey "purge key" DELETE "deletedkeys" false
        "keys/purge/action" "purge" "keys/deletedKeys/delete";
    Random "get random bytes" POST "rng" true "rng/action" "(none)" "rng/action";
    GetCertificate "get certificate" GET "certificates" true
        "certificates/read" "certificates get" "(no certificates)";
    ListCertificates "list certificates" GET "certificates" true
        "certificates/read" "certificates list" "(no certificates)";
    GetSecret "get secret" GET "secrets" true
        "secrets/getSecret/action" "secrets get" "(no secrets)";
    ListSecrets "list secrets" GET "secrets" true
        "secrets/readMetadata/action" "secrets list" "(no secrets)";
    ListDeletedKeys "list deleted keys" GET "deletedkeys" true
        "keys/read" "list" "keys/deletedKeys/read/action";
    BackupKey "back up key" POST "keys" true
        "keys/backup/action" "backup" "keys/backup/action";
    RestoreKey "restore key" POST "keys" false
        "keys/restore/action" "restore" "keys/restore/action";
    RotateKey "rotate key" POST "keys" false
        "keys/rotate/action" "rotate" "keys/rotate/action";
    GetRotationPolicy "get rotation policy of key" GET "keys" true
        "keyrotationpolicies/read" "getrotationpolicy" "keys/read/action";
    SetRotationPolicy "set rotation policy of key" PUT "keys" true
        "keyrotationpolicies/write" "setrotationpolicy" "keys/write/action";
    ReleaseKey "release key" POST "keys" true
        "keys/release/action" "release" "keys/release/action";
}

const _: () = {
    let mut at = 0;
    while at < OPERATIONS.len() {
        assert!(OPERATIONS[at].operation as usize == at, "rows in the order of the enum");
        at += 1;
    }
    assert!(Operation::ReleaseKey as usize + 1 == OPERATIONS.len());
};

impl Operation {
    pub(super) fn row(self) -> &'static Row {
        &OPERATIONS[self as usize]
    }

    /// All operations.
    pub fn all() -> impl Iterator<Item = Operation> {
        OPERATIONS.iter().map(|row| row.operation)
    }

    /// What the operation is called in messages, for example `sign with key`.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// Any endpoint that holds the same keys may carry it out: it changes none of them.
    pub(super) fn on_replicas(self) -> bool {
        self.uses_a_key()
            || matches!(
                self,
                Operation::GetKey
                    | Operation::ListKeys
                    | Operation::ListKeyVersions
                    | Operation::GetCertificate
                    | Operation::ListCertificates
                    | Operation::GetSecret
                    | Operation::ListSecrets
                    | Operation::Random
            )
    }

    /// It computes with a key, whichever endpoint holds it.
    pub(super) fn uses_a_key(self) -> bool {
        matches!(
            self,
            Operation::Sign
                | Operation::Verify
                | Operation::Encrypt
                | Operation::Decrypt
                | Operation::WrapKey
                | Operation::UnwrapKey
        )
    }

    /// Its answer is a key bundle.
    pub(super) fn tells_a_key(self) -> bool {
        matches!(
            self,
            Operation::GetKey
                | Operation::CreateKey
                | Operation::ImportKey
                | Operation::UpdateKey
                | Operation::RecoverKey
                | Operation::RestoreKey
                | Operation::RotateKey
        )
    }

    /// The data action of Azure RBAC (a vault) or local RBAC (a Managed HSM) it needs.
    pub fn data_action(self, service: Service) -> &'static str {
        match service {
            Service::Vault => self.row().vault_action,
            Service::ManagedHsm => self.row().hsm_action,
        }
    }

    /// The key permission of a vault's access policy it needs, where the vault has one.
    pub fn policy_permission(self) -> &'static str {
        self.row().vault_permission
    }

    /// Where the permission may be granted, the narrowest place first.
    pub(super) fn scope(self, service: Service, name: Option<&str>) -> String {
        let collection = self.row().collection.trim_start_matches("deleted");
        // Keys that do not exist yet have no place of their own.
        let name = name.filter(|_| !matches!(self, Operation::CreateKey | Operation::ImportKey));
        match (service, name) {
            (Service::ManagedHsm, _) if self == Operation::Random => "scope /".to_owned(),
            (Service::ManagedHsm, Some(name)) => format!("scope /{collection}/{name}, /keys or /"),
            (Service::ManagedHsm, None) => format!("scope /{collection} or /"),
            (Service::Vault, Some(name)) => format!("the vault or its {collection}/{name}"),
            (Service::Vault, None) => "the vault".to_owned(),
        }
    }

    /// The role or permission a 403 asks for, in the words of the service's documentation.
    pub(super) fn missing_permission(self, service: Service) -> String {
        let row = self.row();
        match service {
            Service::Vault => match row.vault_permission.split_once("s ") {
                Some((of, permission)) => {
                    format!(
                        "data action {} (access policy: {of} permission {permission})",
                        row.vault_action
                    )
                }
                None => format!(
                    "data action {} (access policy: key permission {})",
                    row.vault_action, row.vault_permission
                ),
            },
            Service::ManagedHsm => format!("data action {}", row.hsm_action),
        }
    }
}
