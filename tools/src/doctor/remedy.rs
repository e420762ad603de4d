//! Which permission is missing, which role has it, and the command that grants it.

use std::net::IpAddr;

use akv_pkcs11::{
    config::{CredentialConfig, Service, TokenConfig, UserAssigned},
    error::Error,
    vault::Operation,
};
use serde::Serialize;

/// What is to be done about a 403.
#[derive(Debug, Serialize)]
pub struct Remedy {
    /// The data action, or the key permissions of an access policy; None for a firewall.
    pub permission: Option<String>,
    /// The built-in role with the least rights that has it.
    pub role: Option<&'static str>,
    /// For the Azure CLI, of somebody who may grant.
    pub command: String,
}

/// A built-in role: whose, its name, and how its data actions begin (behind the service's prefix).
/// Of those that have an action the first is taken: least rights first.
const ROLES: &[(Service, &str, &[&str])] = &[
    (
        Service::Vault,
        "Key Vault Crypto User",
        &[
            "keys/read",
            "keys/update/",
            "keys/backup/",
            "keys/encrypt/",
            "keys/decrypt/",
            "keys/wrap/",
            "keys/unwrap/",
            "keys/sign/",
            "keys/verify/",
        ],
    ),
    (Service::Vault, "Key Vault Crypto Service Release User", &["keys/release/"]),
    (Service::Vault, "Key Vault Certificate User", &["certificates/read"]),
    (Service::Vault, "Key Vault Secrets User", &["secrets/getSecret/", "secrets/readMetadata/"]),
    (Service::Vault, "Key Vault Crypto Officer", &["keys/", "keyrotationpolicies/"]),
    (Service::ManagedHsm, "Managed HSM Crypto Service Release User", &["keys/release/"]),
    (Service::ManagedHsm, "Managed HSM Crypto Officer", &["keys/deletedKeys/"]),
    (Service::ManagedHsm, "Managed HSM Crypto User", &["keys/", "rng/"]),
];

/// Refusals with 403 that no permission cures: the sentence of the error says what does.
const NOT_PERMISSIONS: &[&str] =
    &["KeyDisabled", "SecretDisabled", "KeyOperationForbidden", "KeyExpired", "KeyNotYetValid"];
/// Refusals of the service's firewall.
const FIREWALL: &[&str] = &["ForbiddenByFirewall", "ForbiddenByConnection"];

impl Remedy {
    /// None where the error is not a missing permission.
    pub fn of(operation: Operation, error: &Error, token: &TokenConfig) -> Option<Remedy> {
        let remote = error.remote().filter(|remote| remote.status == 403)?;
        let is_one_of = |codes: &[&str]| codes.contains(&remote.code.as_str());
        if is_one_of(NOT_PERMISSIONS) {
            return None;
        }
        let service = token.endpoint.service;
        // The vault's or HSM's own name: the endpoint's first label, unless that is an address.
        let host = &token.endpoint.host;
        let name = match host.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(_) => "NAME",
            Err(_) => host.split('.').next().unwrap_or_default(),
        };
        if is_one_of(FIREWALL) {
            let command = match service {
                Service::Vault => format!("az keyvault network-rule add --name {name}"),
                Service::ManagedHsm => format!("az keyvault network-rule add --hsm-name {name}"),
            };
            let command = format!("{command} --ip-address ADDRESS-THIS-MACHINE-IS-SEEN-WITH");
            return Some(Remedy { permission: None, role: None, command });
        }
        let who = Identity::of(error, token);
        if remote.code == "ForbiddenByPolicy" {
            // `certificates get`, `secrets list`, and `sign` of keys.
            let wanted = operation.policy_permission();
            let (of, wanted) = match wanted.split_once("s ") {
                Some((of, wanted)) => (of, wanted),
                None => ("key", wanted),
            };
            // The command replaces what the policy grants so far: everything needed is in it.
            let mut permissions = vec!["get", "list"];
            permissions.extend((of == "key").then_some("sign"));
            if !permissions.contains(&wanted) {
                permissions.push(wanted);
            }
            let command = format!(
                "az keyvault set-policy --name {name} {} --{of}-permissions {}",
                who.for_policy(),
                permissions.join(" ")
            );
            let permission = Some(format!("{of} permission {wanted}"));
            return Some(Remedy { permission, role: None, command });
        }
        let role = role(operation, service)?;
        let command = match service {
            Service::Vault => format!(
                "az role assignment create --role \"{role}\" {} --scope \"$(az keyvault show \
                 --name {name} --query id --output tsv)\"",
                who.for_role()
            ),
            Service::ManagedHsm => format!(
                "az keyvault role assignment create --hsm-name {name} --role \"{role}\" {} \
                 --scope /keys",
                who.for_role()
            ),
        };
        let permission = Some(format!("data action {}", operation.data_action(service)));
        Some(Remedy { permission, role: Some(role), command })
    }
}

/// Who is asking, as far as it is known.
enum Identity {
    Object(String),
    /// An application's client id.
    Application(String),
    /// Who `az login` signed in.
    SignedIn,
    Unknown,
}

impl Identity {
    /// A vault names the caller in its refusal; else the credential does.
    fn of(error: &Error, token: &TokenConfig) -> Identity {
        let told = error.sentence().split_once("oid=").map(|(_, rest)| {
            let is_guid = |c: &char| c.is_ascii_hexdigit() || *c == '-';
            rest.chars().take_while(is_guid).collect::<String>()
        });
        if let Some(object) = told.filter(|object| object.len() == 36) {
            return Identity::Object(object);
        }
        match &token.credential {
            CredentialConfig::ClientSecret { client_id, .. }
            | CredentialConfig::ClientCertificate { client_id, .. }
            | CredentialConfig::WorkloadIdentity { client_id, .. }
            | CredentialConfig::FromLogin { client_id: Some(client_id) }
            | CredentialConfig::ManagedIdentity {
                identity: Some(UserAssigned::ClientId(client_id)),
            } => Identity::Application(client_id.clone()),
            CredentialConfig::ManagedIdentity { identity: Some(UserAssigned::ObjectId(id)) } => {
                Identity::Object(id.clone())
            }
            CredentialConfig::AzureCli => Identity::SignedIn,
            CredentialConfig::ManagedIdentity { .. }
            | CredentialConfig::FromLogin { client_id: None } => Identity::Unknown,
        }
    }

    fn for_role(&self) -> String {
        match self {
            Identity::Application(id) => format!("--assignee {id}"),
            other => format!("--assignee-object-id {}", other.object()),
        }
    }

    fn for_policy(&self) -> String {
        match self {
            Identity::Application(id) => format!("--spn {id}"),
            other => format!("--object-id {}", other.object()),
        }
    }

    fn object(&self) -> &str {
        match self {
            Identity::Object(id) | Identity::Application(id) => id,
            Identity::SignedIn => "\"$(az ad signed-in-user show --query id --output tsv)\"",
            Identity::Unknown => "OBJECT-ID-OF-THE-IDENTITY",
        }
    }
}

fn role(operation: Operation, service: Service) -> Option<&'static str> {
    // Microsoft.KeyVault/vaults/keys/sign/action: what is behind the second slash.
    let action = operation.data_action(service).splitn(3, '/').nth(2)?;
    let has = |begins: &&[&str]| begins.iter().any(|begin| action.starts_with(begin));
    ROLES
        .iter()
        .find(|(whose, _, begins)| *whose == service && has(begins))
        .map(|(_, name, _)| *name)
}

#[cfg(test)]
mod tests {
    use akv_pkcs11::{
        config::{Config, Env},
        error::Remote,
    };
    use cryptoki_sys::CKR_FUNCTION_REJECTED;

    use super::*;

    fn token(endpoint: &str) -> TokenConfig {
        let text = format!(
            "token = [{{ endpoint = '{endpoint}', credential = {{ type = 'client-secret', \
             client_id = 'app', tenant = 't.example', secret = 'file:/dev/null' }} }}]"
        );
        let text = text.replace("secret = 'file:/dev/null'", "secret = 's3cret'");
        Config::parse(&text, "test", &Env::empty()).unwrap().tokens.remove(0)
    }

    fn refusal(code: &str, words: &str) -> Error {
        Error::new(CKR_FUNCTION_REJECTED, words.to_owned()).with_remote(Remote {
            status: 403,
            code: code.to_owned(),
            ..Remote::default()
        })
    }

    #[test]
    fn every_operation_of_a_service_has_a_role() {
        for service in [Service::Vault, Service::ManagedHsm] {
            for operation in Operation::all() {
                let none = match service {
                    Service::Vault => operation == Operation::Random,
                    Service::ManagedHsm => operation.data_action(service).contains("(no "),
                };
                assert_eq!(role(operation, service).is_none(), none, "{operation:?} {service:?}");
            }
        }
        assert_eq!(role(Operation::Sign, Service::Vault), Some("Key Vault Crypto User"));
        assert_eq!(role(Operation::CreateKey, Service::Vault), Some("Key Vault Crypto Officer"));
        let purge = role(Operation::PurgeKey, Service::ManagedHsm);
        assert_eq!(purge, Some("Managed HSM Crypto Officer"));
    }

    #[test]
    fn the_command_fits_service_model_and_identity() {
        let vault = token("https://contoso.vault.azure.net");
        let oid = "Caller: appid=a;oid=11111111-2222-4333-8444-555555555555;iss=x";
        let told = Remedy::of(Operation::Sign, &refusal("ForbiddenByRbac", oid), &vault).unwrap();
        assert_eq!(
            told.command,
            "az role assignment create --role \"Key Vault Crypto User\" --assignee-object-id \
             11111111-2222-4333-8444-555555555555 --scope \"$(az keyvault show --name contoso \
             --query id --output tsv)\""
        );
        let policy = Remedy::of(Operation::Decrypt, &refusal("ForbiddenByPolicy", ""), &vault);
        assert_eq!(
            policy.unwrap().command,
            "az keyvault set-policy --name contoso --spn app --key-permissions get list sign \
             decrypt"
        );
        let secrets = Remedy::of(Operation::GetSecret, &refusal("ForbiddenByPolicy", ""), &vault);
        assert_eq!(
            secrets.unwrap().command,
            "az keyvault set-policy --name contoso --spn app --secret-permissions get list"
        );
        let told = Remedy::of(Operation::ListSecrets, &refusal("ForbiddenByRbac", ""), &vault);
        assert_eq!(told.unwrap().role, Some("Key Vault Secrets User"));
        let hsm = token("https://contoso.managedhsm.azure.net");
        let told = Remedy::of(Operation::ListKeys, &refusal("AccessDenied", ""), &hsm).unwrap();
        assert_eq!(
            told.command,
            "az keyvault role assignment create --hsm-name contoso --role \"Managed HSM Crypto \
             User\" --assignee app --scope /keys"
        );
        assert!(Remedy::of(Operation::Sign, &refusal("KeyDisabled", ""), &vault).is_none());
        let firewall = Remedy::of(Operation::Sign, &refusal("ForbiddenByFirewall", ""), &vault);
        assert!(firewall.unwrap().command.contains("network-rule add --name contoso"));
    }
}
