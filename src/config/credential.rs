//! `credential = …`: which one, and everything it needs, read now.

use std::{fs, path::Path};

use zeroize::Zeroizing;

use super::{
    CredentialConfig, Env, ManagedIdentityEndpoint, SecretSource, UserAssigned,
    convert::Context,
    file,
    keys::CREDENTIALS,
    section::Section,
    value::{Item, Items, Raw},
};
use crate::error::Result;

/// What `credential` says.
pub struct Credential {
    pub config: CredentialConfig,
    /// The tenant that came with it.
    pub tenant: Option<String>,
    /// Where a managed identity's token is asked for, if not at the virtual machine's address.
    pub managed_identity: Option<ManagedIdentityEndpoint>,
}

/// Reads the credential of `token`.
///
/// # Errors
/// The context's CKR, naming place and value.
pub fn read(context: &Context<'_>, token: &Section<'_>) -> Result<Credential> {
    let (mut items, at) = token.need("credential", token.tables("credential").first().cloned())?;
    let name = match items.remove("type") {
        Some(Item { raw: Raw::Text(name), .. }) => name,
        Some(item) => {
            let found = item.raw.type_name();
            return Err(token.error("credential", format!("type needs a string, not {found}")));
        }
        None => return Err(token.error("credential", "the credential's type is missing")),
    };
    let Some(kind) = CREDENTIALS.iter().find(|kind| kind.name == name.as_str()) else {
        let names: Vec<_> = CREDENTIALS.iter().map(|kind| kind.name).collect();
        let sentence = format!("credential {:?} is not one of {}", name.as_str(), names.join(", "));
        return Err(token.error("credential", sentence));
    };
    if kind.name != "auto" {
        return by_type(context, token, kind.name, &items, &at);
    }
    if let Some(key) = items.keys().next() {
        let sentence = format!("credential \"auto\": unknown key {key:?}; it has none");
        return Err(token.error("credential", sentence));
    }
    let mut picked = "managed-identity";
    for (variable, name) in AUTO {
        if context.env.var(variable)?.is_some() {
            picked = name;
            break;
        }
    }
    if let ("managed-identity", Some(id)) = (picked, context.env.var("AZURE_CLIENT_ID")?) {
        items.insert("client_id".to_owned(), Item::text(&id, "AZURE_CLIENT_ID"));
    }
    by_type(context, token, picked, &items, &at)
}

/// The order of `auto`: the variable that speaks for a type.
const AUTO: [(&str, &str); 3] = [
    ("AZURE_CLIENT_SECRET", "client-secret"),
    ("AZURE_CLIENT_CERTIFICATE_PATH", "client-certificate"),
    ("AZURE_FEDERATED_TOKEN_FILE", "workload-identity"),
];

fn by_type(
    context: &Context<'_>,
    token: &Section<'_>,
    name: &'static str,
    items: &Items,
    at: &str,
) -> Result<Credential> {
    let keys = CREDENTIALS.iter().find(|kind| kind.name == name).map_or(&[][..], |kind| kind.keys);
    let subject = format!("{}credential {name:?}: ", token.subject());
    let section = Section::new(context, keys, items, subject, at.to_owned())?;
    let owned = |key| section.text(key).map(str::to_owned);
    let client_id = || section.need("client_id", owned("client_id"));
    let mut managed_identity = None;
    let config = match name {
        "managed-identity" => {
            managed_identity = endpoint(context.env).map_err(|problem| {
                token.error("credential", format!("managed identity: {problem}"))
            })?;
            CredentialConfig::ManagedIdentity { identity: user_assigned(&section)? }
        }
        "workload-identity" => CredentialConfig::WorkloadIdentity {
            client_id: client_id()?,
            token_file: federated(section.need("token_file", section.path("token_file"))?),
        },
        "client-secret" => CredentialConfig::ClientSecret {
            client_id: client_id()?,
            secret: section.need("secret", section.secret("secret"))?.clone(),
        },
        "client-certificate" => {
            let pem = section.need("certificate", section.secret("certificate"))?.clone();
            file::check_key_pair(pem.initial()).map_err(|problem| {
                let whose = match &pem {
                    SecretSource::File { path, .. } => path.display().to_string(),
                    SecretSource::Value(_) => "its value".to_owned(),
                };
                section.error("certificate", format!("certificate: {whose}: {problem}"))
            })?;
            CredentialConfig::ClientCertificate {
                client_id: client_id()?,
                pem,
                send_chain: section.flag("send_chain").unwrap_or(false),
            }
        }
        "azure-cli" => CredentialConfig::AzureCli,
        _ => CredentialConfig::FromLogin { client_id: owned("client_id") },
    };
    Ok(Credential { config, tenant: owned("tenant"), managed_identity })
}

/// A federated token. The file may come later than the process; whoever writes it replaces it before
/// the token ends.
fn federated(path: &Path) -> SecretSource {
    let copy = Zeroizing::new(fs::read(path).unwrap_or_default());
    SecretSource::File { path: path.to_owned(), copy }
}

fn user_assigned(section: &Section<'_>) -> Result<Option<UserAssigned>> {
    let owned = |key| section.text(key).map(str::to_owned);
    match (owned("client_id"), owned("object_id"), owned("resource_id")) {
        (None, None, None) => Ok(None),
        (Some(id), None, None) => Ok(Some(UserAssigned::ClientId(id))),
        (None, Some(id), None) => Ok(Some(UserAssigned::ObjectId(id))),
        (None, None, Some(id)) => Ok(Some(UserAssigned::ResourceId(id))),
        _ => Err(section.error("client_id", "give only one of client_id, object_id, resource_id")),
    }
}

/// Which managed-identity service the environment names: the same variables, in the same order, as
/// the Azure SDKs look at.
fn endpoint(env: &Env) -> std::result::Result<Option<ManagedIdentityEndpoint>, String> {
    let var = |name| env.var(name).map_err(|fault| fault.to_string());
    if let Some(url) = var("IDENTITY_ENDPOINT")? {
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(format!("IDENTITY_ENDPOINT {url:?} is not an http URL"));
        }
        let header = var("IDENTITY_HEADER")?.map(Zeroizing::new);
        if header.is_some() && var("IDENTITY_SERVER_THUMBPRINT")?.is_none() {
            return Ok(Some(ManagedIdentityEndpoint { url, header }));
        }
        let whose = match (header, var("IMDS_ENDPOINT")?) {
            (Some(_), _) => "Service Fabric",
            (None, Some(_)) => "Azure Arc",
            (None, None) => return Err("IDENTITY_ENDPOINT is set, IDENTITY_HEADER not".to_owned()),
        };
        return Err(format!("that of {whose} is not supported; use another credential"));
    }
    if var("MSI_ENDPOINT")?.is_some() {
        let whose = if var("MSI_SECRET")?.is_some() { "Azure ML" } else { "Cloud Shell" };
        return Err(format!("that of {whose} is not supported; use another credential"));
    }
    Ok(var("AZURE_POD_IDENTITY_AUTHORITY_HOST")?.map(|host| ManagedIdentityEndpoint {
        url: format!("{}/metadata/identity/oauth2/token", host.trim_end_matches('/')),
        header: None,
    }))
}
