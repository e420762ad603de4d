//! `[[token]]`: from a table to a [`TokenConfig`].

use std::net::IpAddr;

use akv_wire::{ApiVersion, Feature};
use sha2::{Digest, Sha256};

use super::{
    Endpoint, KeyName, Login, OnDeletedName, Secrets, Service, TokenConfig, Versions,
    cloud::{self, Cloud},
    convert::Context,
    credential::{self, Credential},
    file, keys, pin, public_key, replica, rules,
    section::Section,
    value::{Item, Items, Raw},
};
use crate::{error::Result, mechanism::choice::Choice};

/// Reads the token that stands at `at` as number `position`, from 0.
///
/// # Errors
/// The context's CKR, naming place and value.
pub fn read(
    context: &Context<'_>,
    mut items: Items,
    at: &str,
    position: u64,
    warnings: &mut Vec<String>,
) -> Result<TokenConfig> {
    // A message names the token by its label; before that is known to be one, by its position.
    let subject = match items.get("label") {
        Some(Item { raw: Raw::Text(label), .. }) => format!("token {:?}: ", label.as_str()),
        _ => format!("token {}: ", position + 1),
    };
    let login_is_secret = matches!(items.get("login"),
        Some(Item { raw: Raw::Text(login), .. }) if login.as_str() == "client-secret");
    if login_is_secret && !items.contains_key("credential") {
        items.insert("credential".to_owned(), Item::text("login", at));
    }
    let section = Section::new(context, keys::TOKEN, &items, subject, at.to_owned())?;
    let s = &section;

    let (endpoint, cloud) = endpoint(s)?;
    let Credential { config: credential, tenant, managed_identity } = credential::read(context, s)?;
    let login = login(s, &credential)?;
    let hsm = endpoint.service == Service::ManagedHsm;
    let hsm_protection = s.flag("hsm_protection").unwrap_or(hsm);
    if hsm && !hsm_protection {
        return Err(s.refuse("hsm_protection", "is not possible on a Managed HSM"));
    }
    let tenant = match (s.text("tenant"), tenant) {
        (Some(ours), Some(theirs)) if !ours.eq_ignore_ascii_case(&theirs) => {
            let problem = format!("is not the credential's tenant {theirs:?}");
            return Err(s.refuse("tenant", problem));
        }
        (Some(ours), _) => Some(ours.to_owned()),
        (None, theirs) => theirs,
    };
    let mut certificates = Vec::new();
    for path in s.paths("certificates") {
        let read = file::read_certificates(path);
        certificates
            .push(read.map_err(|fault| s.error("certificates", format!("certificates: {fault}")))?);
    }
    if let Some(dir) = s.path("certificate_dir") {
        let read = file::read_certificate_dir(dir, warnings);
        certificates.extend(
            read.map_err(|fault| s.error("certificate_dir", format!("certificate_dir: {fault}")))?,
        );
    }
    let ca = match s.path("ca_file") {
        Some(path) => {
            let read = file::read_certificates(path);
            Some(read.map_err(|fault| s.error("ca_file", format!("ca_file: {fault}")))?.pem)
        }
        None => None,
    };
    let key_names = key_names(s)?;
    let public_keys = public_key::read(s, context.folder, key_names.as_deref())?;
    let api_version = s.need("api_version", s.text("api_version"))?;
    let hmac = s.need("hmac", s.flag("hmac"))?;
    if hmac && !api_version.parse::<ApiVersion>().is_ok_and(|api| api.has(Feature::Hmac)) {
        warnings.push(format!(
            "{}hmac has no effect with api_version {api_version:?}: HMAC came with 7.6",
            s.subject()
        ));
    }
    Ok(TokenConfig {
        slot: s.integer("slot").unwrap_or(position),
        label: match s.text("label") {
            Some(label) => label.to_owned(),
            None => default_label(&endpoint.host),
        },
        serial: match s.text("serial") {
            Some(serial) => serial.to_owned(),
            None => default_serial(&endpoint),
        },
        address: match s.text("address") {
            Some(_) if endpoint.host.parse::<IpAddr>().is_ok() => {
                return Err(s.refuse("address", "is of no use: the endpoint names an IP address"));
            }
            Some(text) => Some(
                cloud::parse_address(text, endpoint.port)
                    .map_err(|problem| s.error("address", format!("address {problem}")))?,
            ),
            None => None,
        },
        proxy: match s.text("proxy") {
            Some(text) => Some(
                cloud::parse_proxy(text)
                    .map_err(|problem| s.error("proxy", format!("proxy {problem}")))?,
            ),
            None => None,
        },
        ca,
        api_version: api_version.to_owned(),
        authority: authority(context, s, cloud)?,
        scope: match (s.text("scope"), cloud) {
            (Some(scope), _) => scope.to_owned(),
            (None, Some(cloud)) => cloud.scope.to_owned(),
            (None, None) => return Err(unknown_suffix(s, &endpoint.host, "scope")),
        },
        credential,
        managed_identity,
        tenant,
        keys: key_names,
        public_keys,
        certificates,
        certificate_dir: s.path("certificate_dir").map(ToOwned::to_owned),
        certificate_chains: s.need("certificate_chains", s.flag("certificate_chains"))?,
        secrets: secrets(s, hsm)?,
        versions: match s.text("versions") {
            Some("enabled") => Versions::Enabled,
            _ => Versions::Current,
        },
        login,
        allow_delete: s.need("allow_delete", s.flag("allow_delete"))?,
        generate_new_version: s.text("generate_on_existing") == Some("new-version"),
        on_deleted_name: match s.text("on_deleted_name") {
            Some("recover") => OnDeletedName::Recover,
            Some("purge") => OnDeletedName::Purge,
            _ => OnDeletedName::Refuse,
        },
        hsm_protection,
        tags: tags(s)?,
        rsa_pkcs1_decrypt: s.need("rsa_pkcs1_decrypt", s.flag("rsa_pkcs1_decrypt"))?,
        rsnull: s.flag("rsnull").unwrap_or(!hsm),
        max_aes_payload: size(s, "max_aes_payload")?,
        hmac,
        mechanisms: Choice::parse(s.texts("mechanisms").unwrap_or_default()),
        timeout: s.need("timeout", s.duration("timeout"))?,
        connect_timeout: s.need("connect_timeout", s.duration("connect_timeout"))?,
        find_timeout: s.need("find_timeout", s.duration("find_timeout"))?,
        find_width: size(s, "find_width")?,
        find_rate: u32::try_from(s.need("find_rate", s.integer("find_rate"))?).unwrap_or(u32::MAX),
        cache_ttl: s.need("cache_ttl", s.duration("cache_ttl"))?,
        max_connections: size(s, "max_connections")?,
        replicas: replica::read(context, s, &endpoint, cloud)?,
        failover_interval: s.need("failover_interval", s.duration("failover_interval"))?,
        endpoint,
    })
}

fn endpoint(s: &Section<'_>) -> Result<(Endpoint, Option<&'static Cloud>)> {
    let text = s.need("endpoint", s.text("endpoint"))?;
    let (host, port) = cloud::parse_endpoint(text)
        .map_err(|problem| s.error("endpoint", format!("endpoint {problem}")))?;
    let cloud = cloud::by_host(&host);
    let given = match s.text("service") {
        Some("vault") => Some(Service::Vault),
        Some(_) => Some(Service::ManagedHsm),
        None => None,
    };
    let service = match (given, cloud) {
        (Some(service), Some(cloud)) if service != cloud.service => {
            return Err(
                s.refuse("service", format!("contradicts the endpoint's suffix {}", cloud.suffix))
            );
        }
        (Some(service), _) => service,
        (None, Some(cloud)) => cloud.service,
        (None, None) => return Err(unknown_suffix(s, &host, "service")),
    };
    Ok((Endpoint { host, port, service }, cloud))
}

fn authority(context: &Context<'_>, s: &Section<'_>, cloud: Option<&Cloud>) -> Result<String> {
    if let Some(text) = s.text("authority") {
        return cloud::parse_authority(text)
            .map_err(|problem| s.error("authority", format!("authority {problem}")));
    }
    if let Some(host) = context.env.var("AZURE_AUTHORITY_HOST")? {
        let text = if host.contains("://") { host } else { format!("https://{host}") };
        return cloud::parse_authority(&text)
            .map_err(|problem| s.error("authority", format!("AZURE_AUTHORITY_HOST {problem}")));
    }
    match cloud {
        Some(cloud) => Ok(cloud.authority.to_owned()),
        None => {
            let (host, _) =
                cloud::parse_endpoint(s.text("endpoint").unwrap_or_default()).unwrap_or_default();
            Err(unknown_suffix(s, &host, "authority"))
        }
    }
}

fn unknown_suffix(s: &Section<'_>, host: &str, missing: &str) -> crate::error::Error {
    s.error(
        "endpoint",
        format!(
            "endpoint host {host:?} has no suffix of Azure, so service, authority and scope must \
             be given; {missing} is missing",
        ),
    )
}

fn login(s: &Section<'_>, credential: &super::CredentialConfig) -> Result<Login> {
    use super::CredentialConfig::FromLogin;
    let hash = s.secret("pin_hash");
    let login = s.need("login", s.text("login"))?;
    if hash.is_some() && login != "pin" {
        return Err(s.error("pin_hash", "pin_hash is given, but login is not \"pin\""));
    }
    match (login, credential) {
        ("client-secret", FromLogin { .. }) => Ok(Login::ClientSecret),
        ("client-secret", _) => Err(s.refuse("login", "goes with credential = \"login\" only")),
        (_, FromLogin { .. }) => {
            Err(s.error("credential", "credential \"login\" needs login = \"client-secret\""))
        }
        ("pin", _) => {
            let hash = s.need("pin_hash", hash)?;
            let problem = match std::str::from_utf8(hash.initial()) {
                Ok(phc) => match pin::check_phc(phc) {
                    Ok(()) => return Ok(Login::Pin(phc.to_owned())),
                    Err(problem) => problem,
                },
                Err(_) => "not UTF-8".to_owned(),
            };
            Err(s.error("pin_hash", format!("pin_hash: {problem}")))
        }
        _ => Ok(Login::None),
    }
}

fn key_names(s: &Section<'_>) -> Result<Option<Vec<KeyName>>> {
    let Some(texts) = s.texts("keys") else { return Ok(None) };
    if texts.is_empty() {
        return Err(s.refuse("keys", "is empty; leave it out to show every key"));
    }
    let mut names: Vec<KeyName> = Vec::new();
    for text in texts {
        let (name, version) = match text.split_once('/') {
            Some((name, version)) => (name, Some(version.to_ascii_lowercase())),
            None => (text.as_str(), None),
        };
        let twice =
            |other: &KeyName| other.name.eq_ignore_ascii_case(name) && other.version == version;
        if names.iter().any(twice) {
            return Err(s.error("keys", format!("keys: {text:?} is given twice")));
        }
        names.push(KeyName { name: name.to_owned(), version });
    }
    Ok(Some(names))
}

fn secrets(s: &Section<'_>, hsm: bool) -> Result<Secrets> {
    let names = match s.texts("secrets") {
        None => return Ok(Secrets::None),
        Some(_) if hsm => {
            return Err(s.error("secrets", "secrets: a Managed HSM has keys and nothing else"));
        }
        Some([]) => return Err(s.refuse("secrets", "is empty; leave it out to show none")),
        Some(names) => names,
    };
    match names.iter().any(|name| name == "*") {
        true if names.len() > 1 => {
            Err(s.error("secrets", "secrets: \"*\" means all, so it stands alone"))
        }
        true => Ok(Secrets::All),
        false => Ok(Secrets::Named(names.to_vec())),
    }
}

fn tags(s: &Section<'_>) -> Result<Vec<(String, String)>> {
    let tags = s.strings("tags");
    if tags.len() > rules::MAX_TAGS {
        let problem = format!("has {} entries; the limit is {}", tags.len(), rules::MAX_TAGS);
        return Err(s.refuse("tags", problem));
    }
    for (name, value) in tags {
        let long = |text: &str| text.chars().count() > 256;
        let problem = if name == rules::OWN_TAG {
            "is this module's own"
        } else if name.is_empty() || long(name) || long(value) {
            "has a name or value that is not 1 to 256 characters long"
        } else {
            continue;
        };
        return Err(s.error("tags", format!("tags: {name:?} {problem}")));
    }
    Ok(tags.to_vec())
}

fn size(s: &Section<'_>, name: &str) -> Result<usize> {
    Ok(usize::try_from(s.need(name, s.integer(name))?).unwrap_or(usize::MAX))
}

/// The first label of a host name, the whole of an IP address, within 32 bytes.
fn default_label(host: &str) -> String {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let label = match bare.parse::<std::net::IpAddr>() {
        Ok(_) => bare,
        Err(_) => host.split('.').next().unwrap_or(host),
    };
    label.chars().take(32).collect()
}

/// Of the host, and of the port where it is not that of https: two services on one host differ.
fn default_serial(endpoint: &Endpoint) -> String {
    let name = match endpoint.port {
        443 => endpoint.host.clone(),
        port => format!("{}:{port}", endpoint.host),
    };
    Sha256::digest(name.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
