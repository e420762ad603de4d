//! Who sends a request, and what they may do.

use std::sync::Arc;

use hyper::Method;

use crate::config::{ClientConfig, PermissionModel, ServiceKind, Switches};
use crate::refusal::{Denial, DeniedBy, Refusal};
use crate::route::{LeftOut, Match};

/// The bearer of a valid token.
pub struct Principal {
    /// `appid=…;oid=…;iss=…`, as refusals name it.
    caller: String,
    grants: Arc<ClientConfig>,
}

/// Permission of an access policy, what a vault's role calls it, what a Managed HSM's does.
const ACTIONS: &[(&str, &str, &str)] = &[
    ("get", "read", "read/action"),
    ("list", "read", "read/action"),
    ("create", "create/action", "create"),
    ("import", "import/action", "import/action"),
    ("update", "update/action", "write/action"),
    ("delete", "delete", "delete"),
    ("recover", "recover/action", "recover/action"),
    ("purge", "purge/action", "delete"),
    ("backup", "backup/action", "backup/action"),
    ("restore", "restore/action", "restore/action"),
    ("encrypt", "encrypt/action", "encrypt/action"),
    ("decrypt", "decrypt/action", "decrypt/action"),
    ("wrapKey", "wrap/action", "wrap/action"),
    ("unwrapKey", "unwrap/action", "unwrap/action"),
    ("sign", "sign/action", "sign/action"),
    ("verify", "verify/action", "verify/action"),
    ("release", "release/action", "release/action"),
    ("rotate", "rotate/action", "rotate/action"),
    ("getrotationpolicy", "rotationpolicies/read", "read/action"),
    ("setrotationpolicy", "rotationpolicies/write", "write/action"),
    ("set", "setSecret/action", "write/action"),
];

impl Principal {
    /// The principal that a token names, with what the configuration grants it.
    pub fn new(object_id: &str, issuer: &str, grants: Arc<ClientConfig>) -> Self {
        Self { caller: format!("appid={};oid={object_id};iss={issuer}", grants.id), grants }
    }

    /// Whether the principal may do this.
    pub fn check(
        &self,
        kind: ServiceKind,
        switches: &Switches,
        found: &Match,
    ) -> Result<(), Refusal> {
        let first = found.route.path[0];
        let deleted = first.starts_with("deleted");
        let (collection, granted) = match first.trim_start_matches("deleted") {
            "secrets" => ("secrets", &self.grants.secrets),
            "certificates" => ("certificates", &self.grants.certificates),
            _ => ("keys", &self.grants.keys),
        };
        let permission = found.route.permission;
        let may = |granted: &Vec<String>| {
            granted.iter().any(|name| name.eq_ignore_ascii_case(permission))
        };
        let here = match (kind, &self.grants.names) {
            (ServiceKind::ManagedHsm, Some(names)) => {
                names.iter().any(|name| name.eq_ignore_ascii_case(&found.name))
            }
            _ => true,
        };
        let by = match switches.denied_by {
            Some(by) => by,
            None if here && granted.as_ref().is_none_or(may) => return Ok(()),
            None => usual(kind, switches),
        };
        let scope = match found.name.as_str() {
            "" => format!("/{collection}"),
            name => format!("/{collection}/{name}"),
        };
        Err(Refusal::Forbidden(Denial {
            caller: self.caller.clone(),
            collection,
            permission,
            action: action(kind, collection, permission, deleted),
            scope,
            by,
        }))
    }

    /// Whether the principal may ask for what the emulator leaves out: who may do everything may.
    pub fn check_left_out(
        &self,
        kind: ServiceKind,
        switches: &Switches,
        row: &LeftOut,
        method: &Method,
    ) -> Result<(), Refusal> {
        let collection = row.path[0].trim_start_matches("deleted");
        let granted = match (kind, collection) {
            (ServiceKind::Vault, "certificates") => &self.grants.certificates,
            _ => &self.grants.keys,
        };
        let permission = row.permission(method);
        let may = |granted: &Vec<String>| {
            granted.iter().any(|name| name.eq_ignore_ascii_case(permission))
        };
        let by = match switches.denied_by {
            Some(by) => by,
            None if granted.as_ref().is_none_or(may) && self.grants.names.is_none() => {
                return Ok(());
            }
            None => usual(kind, switches),
        };
        let resource = match kind {
            ServiceKind::Vault => format!("vaults/{collection}/{permission}"),
            ServiceKind::ManagedHsm => format!("managedHsm/{permission}"),
        };
        Err(Refusal::Forbidden(Denial {
            caller: self.caller.clone(),
            collection,
            permission,
            action: format!("Microsoft.KeyVault/{resource}"),
            scope: "/".to_owned(),
            by,
        }))
    }
}

/// What denies unless a switch says otherwise.
fn usual(kind: ServiceKind, switches: &Switches) -> DeniedBy {
    match (kind, switches.permission_model) {
        (ServiceKind::Vault, PermissionModel::Policy) => DeniedBy::Policy,
        _ => DeniedBy::Rbac,
    }
}

/// The data action of a role.
fn action(kind: ServiceKind, collection: &str, permission: &str, deleted: bool) -> String {
    let row = ACTIONS.iter().find(|(name, ..)| *name == permission);
    match (kind, row) {
        (ServiceKind::ManagedHsm, Some((_, _, action))) => {
            let collection = if deleted { "keys/deletedKeys" } else { "keys" };
            format!("Microsoft.KeyVault/managedHsm/{collection}/{action}")
        }
        (ServiceKind::ManagedHsm, None) => "Microsoft.KeyVault/managedHsm/rng/action".to_owned(),
        (ServiceKind::Vault, row) => {
            // Values of secrets, and rotation policies, have data actions of their own.
            let (collection, action) = match (collection, permission) {
                ("secrets", "get") => (collection, "getSecret/action"),
                ("secrets", "list") => (collection, "readMetadata/action"),
                ("keys", "getrotationpolicy") => ("keyrotationpolicies", "read"),
                ("keys", "setrotationpolicy") => ("keyrotationpolicies", "write"),
                _ => (collection, row.map_or(permission, |(_, action, _)| action)),
            };
            format!("Microsoft.KeyVault/vaults/{collection}/{action}")
        }
    }
}
