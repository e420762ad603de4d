//! Every operation once: method, path, name, version, permission.

use akv_wire::{ApiVersion, Feature};
use hyper::Method;

use crate::config::ServiceKind;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is named and described by its row in ROUTES")]
pub enum Operation {
    KeyCreate,
    KeyImport,
    KeyGet,
    KeyList,
    KeyVersions,
    KeyUpdate,
    KeyDelete,
    KeySign,
    KeyVerify,
    KeyEncrypt,
    KeyDecrypt,
    KeyWrap,
    KeyUnwrap,
    DeletedKeyList,
    DeletedKeyGet,
    DeletedKeyRecover,
    DeletedKeyPurge,
    Random,
    CertificateCreate,
    CertificateImport,
    CertificateGet,
    CertificateList,
    CertificateVersions,
    CertificateUpdate,
    CertificateDelete,
    CertificatePolicyGet,
    CertificatePending,
    CertificateMerge,
    SecretGet,
    SecretSet,
    SecretList,
    SecretVersions,
    SecretUpdate,
    SecretDelete,
    KeyRestore,
    KeyBackup,
    KeyRotate,
    KeyRelease,
    RotationPolicyGet,
    RotationPolicySet,
    CertificateRestore,
    CertificateBackup,
    CertificatePolicyUpdate,
    CertificateCancel,
    CertificatePendingDelete,
    DeletedCertificateList,
    DeletedCertificateGet,
    DeletedCertificatePurge,
    DeletedCertificateRecover,
    SecretRestore,
    SecretBackup,
    DeletedSecretList,
    DeletedSecretGet,
    DeletedSecretPurge,
    DeletedSecretRecover,
    KeyAttestation,
}

/// One row of the table.
pub struct Route {
    /// HTTP method.
    pub method: Method,
    /// Path segments: a literal, `{n}` for a name, `{v}` for a version that may be left out.
    pub path: &'static [&'static str],
    /// What it does.
    pub operation: Operation,
    /// Its name in counters and logs.
    pub name: &'static str,
    /// What an api-version must have.
    pub since: Option<Feature>,
    /// Who has it: `None` for both.
    pub only: Option<ServiceKind>,
    /// Permission of a vault's access policy.
    pub permission: &'static str,
}

impl Route {
    /// Whether the operation may change what the service remembers.
    pub fn changes(&self) -> bool {
        let uses = ["sign", "verify", "encrypt", "decrypt", "wrapkey", "unwrapkey"];
        let last = self.path[self.path.len() - 1];
        self.method != Method::GET
            && !uses.contains(&last)
            && !["rng", "backup", "release"].contains(&last)
    }
}

/// A request that found its row.
pub struct Match {
    /// The row.
    pub route: &'static Route,
    /// Name in the path, percent-decoded, empty where the row has none.
    pub name: String,
    /// Version in the path, empty for the current one.
    pub version: String,
}

/// What a path leads to.
pub enum Found {
    /// An operation.
    Match(Match),
    /// A path of the contract that the emulator leaves out.
    LeftOut(&'static LeftOut),
    /// A path of the contract with another method.
    OtherMethod,
    /// A key path whose last segment names no action.
    UnknownAction(String),
    /// Nothing.
    Nothing,
}

macro_rules! routes {
    ($($method:ident $($segment:literal)/+ => $operation:ident $name:literal $permission:literal
        $(since $feature:ident)? $(only $kind:ident)?;)*) => {
        &[$(Route {
            method: Method::$method,
            path: &[$($segment),+],
            operation: Operation::$operation,
            name: $name,
            since: routes!(@since $($feature)?),
            only: routes!(@only $($kind)?),
            permission: $permission,
        }),*]
    };
    (@since) => { None };
    (@since $feature:ident) => { Some(Feature::$feature) };
    (@only) => { None };
    (@only $kind:ident) => { Some(ServiceKind::$kind) };
}

/// Literals come before placeholders.
#[rustfmt::skip]
pub static ROUTES: &[Route] = routes! {
    GET "keys" => KeyList "keys/list" "list";
    GET "keys"/"{n}"/"versions" => KeyVersions "keys/versions" "list";
    POST "keys"/"restore" => KeyRestore "keys/restore" "restore";
    POST "keys"/"{n}"/"backup" => KeyBackup "keys/backup" "backup";
    POST "keys"/"{n}"/"rotate" => KeyRotate "keys/rotate" "rotate" since Rotation;
    GET "keys"/"{n}"/"rotationpolicy" => RotationPolicyGet "keys/rotationpolicy/get" "getrotationpolicy" since Rotation;
    PUT "keys"/"{n}"/"rotationpolicy" => RotationPolicySet "keys/rotationpolicy/set" "setrotationpolicy" since Rotation;
    POST "keys"/"{n}"/"{v}"/"release" => KeyRelease "keys/release" "release" since Release;
    GET "keys"/"{n}"/"{v}"/"attestation" => KeyAttestation "keys/attestation" "get" since Attestation;
    POST "keys"/"{n}"/"create" => KeyCreate "keys/create" "create";
    POST "keys"/"{n}"/"{v}"/"sign" => KeySign "keys/sign" "sign";
    POST "keys"/"{n}"/"{v}"/"verify" => KeyVerify "keys/verify" "verify";
    POST "keys"/"{n}"/"{v}"/"encrypt" => KeyEncrypt "keys/encrypt" "encrypt";
    POST "keys"/"{n}"/"{v}"/"decrypt" => KeyDecrypt "keys/decrypt" "decrypt";
    POST "keys"/"{n}"/"{v}"/"wrapkey" => KeyWrap "keys/wrapkey" "wrapKey";
    POST "keys"/"{n}"/"{v}"/"unwrapkey" => KeyUnwrap "keys/unwrapkey" "unwrapKey";
    PUT "keys"/"{n}" => KeyImport "keys/import" "import";
    DELETE "keys"/"{n}" => KeyDelete "keys/delete" "delete";
    GET "keys"/"{n}"/"{v}" => KeyGet "keys/get" "get";
    PATCH "keys"/"{n}"/"{v}" => KeyUpdate "keys/update" "update";
    GET "deletedkeys" => DeletedKeyList "deletedkeys/list" "list" since SoftDelete;
    GET "deletedkeys"/"{n}" => DeletedKeyGet "deletedkeys/get" "get" since SoftDelete;
    DELETE "deletedkeys"/"{n}" => DeletedKeyPurge "deletedkeys/purge" "purge" since SoftDelete;
    POST "deletedkeys"/"{n}"/"recover" => DeletedKeyRecover "deletedkeys/recover" "recover" since SoftDelete;
    POST "rng" => Random "rng" "getrandom" since Random only ManagedHsm;
    POST "certificates"/"restore" => CertificateRestore "certificates/restore" "restore" only Vault;
    POST "certificates"/"{n}"/"backup" => CertificateBackup "certificates/backup" "backup" only Vault;
    PATCH "certificates"/"{n}"/"policy" => CertificatePolicyUpdate "certificates/policy/update" "update" only Vault;
    PATCH "certificates"/"{n}"/"pending" => CertificateCancel "certificates/pending/cancel" "update" only Vault;
    DELETE "certificates"/"{n}"/"pending" => CertificatePendingDelete "certificates/pending/delete" "delete" only Vault;
    GET "deletedcertificates" => DeletedCertificateList "deletedcertificates/list" "list" only Vault;
    GET "deletedcertificates"/"{n}" => DeletedCertificateGet "deletedcertificates/get" "get" only Vault;
    DELETE "deletedcertificates"/"{n}" => DeletedCertificatePurge "deletedcertificates/purge" "purge" only Vault;
    POST "deletedcertificates"/"{n}"/"recover" => DeletedCertificateRecover "deletedcertificates/recover" "recover" only Vault;
    GET "certificates" => CertificateList "certificates/list" "list" only Vault;
    GET "certificates"/"{n}"/"versions" => CertificateVersions "certificates/versions" "list" only Vault;
    GET "certificates"/"{n}"/"policy" => CertificatePolicyGet "certificates/policy" "get" only Vault;
    GET "certificates"/"{n}"/"pending" => CertificatePending "certificates/pending" "get" only Vault;
    POST "certificates"/"{n}"/"pending"/"merge" => CertificateMerge "certificates/merge" "create" only Vault;
    POST "certificates"/"{n}"/"create" => CertificateCreate "certificates/create" "create" only Vault;
    POST "certificates"/"{n}"/"import" => CertificateImport "certificates/import" "import" only Vault;
    DELETE "certificates"/"{n}" => CertificateDelete "certificates/delete" "delete" only Vault;
    GET "certificates"/"{n}"/"{v}" => CertificateGet "certificates/get" "get" only Vault;
    PATCH "certificates"/"{n}"/"{v}" => CertificateUpdate "certificates/update" "update" only Vault;
    POST "secrets"/"restore" => SecretRestore "secrets/restore" "restore" only Vault;
    POST "secrets"/"{n}"/"backup" => SecretBackup "secrets/backup" "backup" only Vault;
    GET "deletedsecrets" => DeletedSecretList "deletedsecrets/list" "list" only Vault;
    GET "deletedsecrets"/"{n}" => DeletedSecretGet "deletedsecrets/get" "get" only Vault;
    DELETE "deletedsecrets"/"{n}" => DeletedSecretPurge "deletedsecrets/purge" "purge" only Vault;
    POST "deletedsecrets"/"{n}"/"recover" => DeletedSecretRecover "deletedsecrets/recover" "recover" only Vault;
    GET "secrets" => SecretList "secrets/list" "list" only Vault;
    GET "secrets"/"{n}"/"versions" => SecretVersions "secrets/versions" "list" only Vault;
    PUT "secrets"/"{n}" => SecretSet "secrets/set" "set" only Vault;
    DELETE "secrets"/"{n}" => SecretDelete "secrets/delete" "delete" only Vault;
    GET "secrets"/"{n}"/"{v}" => SecretGet "secrets/get" "get" only Vault;
    PATCH "secrets"/"{n}"/"{v}" => SecretUpdate "secrets/update" "set" only Vault;
};

/// A part of the contract that the emulator leaves out: both services answer "not supported" to
/// whoever may ask.
pub struct LeftOut {
    /// Who has it.
    pub only: ServiceKind,
    /// How its paths begin; `{n}` for any name.
    pub path: &'static [&'static str],
    /// The only method, where others mean something else.
    pub method: Option<Method>,
    /// Its name in counters and logs; the last segment is what the refusal names.
    pub name: &'static str,
    /// What GET, DELETE and anything else need: data actions of an HSM's role, permissions of a
    /// vault's access policy.
    pub needs: [&'static str; 3],
}

macro_rules! left_out {
    ($($kind:ident $($method:ident)? $($segment:literal)/+ => $name:literal
        $get:literal $delete:literal $other:literal;)*) => {
        &[$(LeftOut {
            only: ServiceKind::$kind,
            path: &[$($segment),+],
            method: left_out!(@method $($method)?),
            name: $name,
            needs: [$get, $delete, $other],
        }),*]
    };
    (@method) => { None };
    (@method $method:ident) => { Some(Method::$method) };
}

/// Role assignments and definitions have a scope before them: all keys, one key, or none for `/`.
#[rustfmt::skip]
pub static LEFT_OUT: &[LeftOut] = left_out! {
    ManagedHsm "settings" => "settings" "settings/read/action" "settings/write/action" "settings/write/action";
    ManagedHsm "providers"/"microsoft.authorization"/"roledefinitions" => "roleDefinitions" "roleDefinitions/read/action" "roleDefinitions/delete/action" "roleDefinitions/write/action";
    ManagedHsm "keys"/"providers"/"microsoft.authorization"/"roledefinitions" => "roleDefinitions" "roleDefinitions/read/action" "roleDefinitions/delete/action" "roleDefinitions/write/action";
    ManagedHsm "keys"/"{n}"/"providers"/"microsoft.authorization"/"roledefinitions" => "roleDefinitions" "roleDefinitions/read/action" "roleDefinitions/delete/action" "roleDefinitions/write/action";
    ManagedHsm "providers"/"microsoft.authorization"/"roleassignments" => "roleAssignments" "roleAssignments/read/action" "roleAssignments/delete/action" "roleAssignments/write/action";
    ManagedHsm "keys"/"providers"/"microsoft.authorization"/"roleassignments" => "roleAssignments" "roleAssignments/read/action" "roleAssignments/delete/action" "roleAssignments/write/action";
    ManagedHsm "keys"/"{n}"/"providers"/"microsoft.authorization"/"roleassignments" => "roleAssignments" "roleAssignments/read/action" "roleAssignments/delete/action" "roleAssignments/write/action";
    ManagedHsm "securitydomain"/"download" => "securitydomain/download" "securitydomain/download/read" "securitydomain/download/action" "securitydomain/download/action";
    ManagedHsm "securitydomain"/"upload" => "securitydomain/upload" "securitydomain/upload/read" "securitydomain/upload/action" "securitydomain/upload/action";
    ManagedHsm "backup" => "backup" "backup/status/action" "backup/start/action" "backup/start/action";
    ManagedHsm "restore" => "restore" "restore/status/action" "restore/start/action" "restore/start/action";
    ManagedHsm PUT "keys"/"{n}"/"restore" => "keys/selective/restore" "restore/status/action" "restore/start/action" "restore/start/action";
    ManagedHsm POST "keys"/"{n}"/"{n}"/"securewrapkey" => "keys/securewrapkey" "" "" "keys/wrap/action";
    ManagedHsm POST "keys"/"{n}"/"{n}"/"secureunwrapkey" => "keys/secureunwrapkey" "" "" "keys/unwrap/action";
    Vault POST "keys"/"{n}"/"{n}"/"securewrapkey" => "keys/securewrapkey" "" "" "wrapKey";
    Vault POST "keys"/"{n}"/"{n}"/"secureunwrapkey" => "keys/secureunwrapkey" "" "" "unwrapKey";
    Vault "certificates"/"contacts" => "certificates/contacts" "managecontacts" "managecontacts" "managecontacts";
    Vault "certificates"/"issuers" => "certificates/issuers" "getissuers" "deleteissuers" "setissuers";
    Vault "storage" => "storage" "get" "delete" "set";
    Vault "deletedstorage" => "deletedstorage" "get" "purge" "recover";
};

impl LeftOut {
    /// What the refusal calls it.
    pub fn action(&self) -> &'static str {
        self.name.rsplit('/').next().unwrap_or(self.name)
    }

    /// What a request of this method needs.
    pub fn permission(&self, method: &Method) -> &'static str {
        let [get, delete, other] = self.needs;
        match *method {
            Method::GET => get,
            Method::DELETE => delete,
            _ => other,
        }
    }

    fn fits(&self, kind: ServiceKind, method: &Method, segments: &[&str]) -> bool {
        let fits = |(part, segment): (&&str, &&str)| {
            if *part == "{n}" { !segment.is_empty() } else { segment.eq_ignore_ascii_case(part) }
        };
        self.only == kind
            && self.method.as_ref().is_none_or(|only| only == method)
            && segments.len() >= self.path.len()
            && self.path.iter().zip(segments).all(fits)
    }
}

/// Finds the row of a request.
///
/// A row that came with a later version does not exist for an earlier one; an unknown version sees
/// all rows, and is refused later.
pub fn find(kind: ServiceKind, version: Option<ApiVersion>, method: &Method, path: &str) -> Found {
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    if let Some(row) = LEFT_OUT.iter().find(|row| row.fits(kind, method, &segments)) {
        return Found::LeftOut(row);
    }
    let mut other_method = false;
    for route in ROUTES {
        let later = |since| version.is_some_and(|version| !version.has(since));
        if route.only.is_some_and(|only| only != kind) || route.since.is_some_and(later) {
            continue;
        }
        if let Some((name, version)) = captures(route.path, &segments) {
            if route.method == *method {
                let (name, version) = (decoded(name), decoded(version));
                return Found::Match(Match { route, name, version });
            }
            other_method = true;
        }
    }
    match segments.as_slice() {
        [first, _, .., action]
            if first.eq_ignore_ascii_case("keys")
                && matches!(*method, Method::POST | Method::PUT) =>
        {
            Found::UnknownAction((*action).to_owned())
        }
        _ if other_method => Found::OtherMethod,
        _ => Found::Nothing,
    }
}

/// Name and version where the segments fit. A version may be missing or empty, and a trailing
/// slash is as good as none (recorded: `/keys/n/sign`, `/keys/n//sign`, `/keys/n/`).
fn captures<'a>(pattern: &[&str], segments: &[&'a str]) -> Option<(&'a str, &'a str)> {
    let (mut name, mut version) = ("", "");
    let mut rest = segments.iter();
    let without_version = pattern.contains(&"{v}") && segments.len() == pattern.len() - 1;
    for part in pattern {
        match *part {
            "{v}" if without_version => {}
            "{v}" => version = rest.next()?,
            "{n}" => name = rest.next()?,
            literal => {
                if !rest.next()?.eq_ignore_ascii_case(literal) {
                    return None;
                }
            }
        }
    }
    match (rest.next(), rest.next()) {
        (None, _) | (Some(&""), None) => Some((name, version)),
        _ => None,
    }
}

fn decoded(segment: &str) -> String {
    percent_encoding::percent_decode_str(segment).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(method: &str, path: &str) -> (Operation, String, String) {
        let method = method.parse().expect("method");
        match find(ServiceKind::Vault, None, &method, path) {
            Found::Match(found) => (found.route.operation, found.name, found.version),
            _ => panic!("{path} leads nowhere"),
        }
    }

    #[test]
    fn versions_may_be_left_out() {
        use Operation::{KeyGet, KeySign, KeyVersions};
        let n = "n".to_owned();
        let current = String::new();
        for path in ["/keys/n/sign", "/keys/n//sign", "/KEYS/n/SIGN"] {
            assert_eq!(found("POST", path), (KeySign, n.clone(), current.clone()), "{path}");
        }
        for path in ["/keys/n", "/keys/n/"] {
            assert_eq!(found("GET", path), (KeyGet, n.clone(), current.clone()), "{path}");
        }
        assert_eq!(found("POST", "/keys/n/v/wrapKey").2, "v");
        assert_eq!(found("GET", "/keys/n/versions").0, KeyVersions);
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        let find =
            |kind, method: &str, path| find(kind, None, &method.parse().expect("method"), path);
        assert!(matches!(find(ServiceKind::ManagedHsm, "GET", "/certificates"), Found::Nothing));
        assert!(matches!(find(ServiceKind::Vault, "PUT", "/keys"), Found::OtherMethod));
        assert!(matches!(
            find(ServiceKind::Vault, "POST", "/keys/n/melt"),
            Found::UnknownAction(action) if action == "melt"
        ));
    }
}
