//! Azure's clouds by the suffix of an endpoint, and the URLs of a configuration.

use std::net::{IpAddr, SocketAddr};

use reqwest::Url;

use super::Service;

/// What follows from the suffix of an endpoint's host name.
pub struct Cloud {
    /// What the host name ends in.
    pub suffix: &'static str,
    /// The service that answers there.
    pub service: Service,
    /// Its Entra authority.
    pub authority: &'static str,
    /// The scope of its tokens.
    pub scope: &'static str,
}

const PUBLIC: &str = "https://login.microsoftonline.com";
const CHINA: &str = "https://login.chinacloudapi.cn";
const US_GOVERNMENT: &str = "https://login.microsoftonline.us";

/// Every suffix whose service, authority and scope need not be configured.
pub static CLOUDS: &[Cloud] = &[
    Cloud {
        suffix: ".vault.azure.net",
        service: Service::Vault,
        authority: PUBLIC,
        scope: "https://vault.azure.net/.default",
    },
    Cloud {
        suffix: ".managedhsm.azure.net",
        service: Service::ManagedHsm,
        authority: PUBLIC,
        scope: "https://managedhsm.azure.net/.default",
    },
    Cloud {
        suffix: ".vault.azure.cn",
        service: Service::Vault,
        authority: CHINA,
        scope: "https://vault.azure.cn/.default",
    },
    Cloud {
        suffix: ".managedhsm.azure.cn",
        service: Service::ManagedHsm,
        authority: CHINA,
        scope: "https://managedhsm.azure.cn/.default",
    },
    Cloud {
        suffix: ".vault.usgovcloudapi.net",
        service: Service::Vault,
        authority: US_GOVERNMENT,
        scope: "https://vault.usgovcloudapi.net/.default",
    },
    Cloud {
        suffix: ".managedhsm.usgovcloudapi.net",
        service: Service::ManagedHsm,
        authority: US_GOVERNMENT,
        scope: "https://managedhsm.usgovcloudapi.net/.default",
    },
];

/// The cloud of `host`, which is in lower case; regional names (`x.eastus.managedhsm.azure.net`)
/// have the suffix too.
pub fn by_host(host: &str) -> Option<&'static Cloud> {
    CLOUDS.iter().find(|cloud| host.strip_suffix(cloud.suffix).is_some_and(|name| !name.is_empty()))
}

/// Host name in lower case and port of an `https://host[:port]` URL.
///
/// # Errors
/// The end of a sentence that starts with the key.
pub fn parse_endpoint(text: &str) -> Result<(String, u16), String> {
    let url = origin(text, "https")?;
    let host = url.host_str().unwrap_or_default();
    // A single dot at the end stands for the root; the URL standard lets the others pass.
    if host.strip_suffix('.').unwrap_or(host).split('.').any(str::is_empty) {
        return Err(format!("{text:?} has a host with an empty label: {host:?}"));
    }
    Ok((host.to_owned(), url.port().unwrap_or(443)))
}

/// `https://host[:port]` without the slash at the end.
///
/// # Errors
/// The end of a sentence that starts with the key.
pub fn parse_authority(text: &str) -> Result<String, String> {
    Ok(origin(text, "https")?.as_str().trim_end_matches('/').to_owned())
}

/// `http://host:port` without the slash at the end.
///
/// # Errors
/// The end of a sentence that starts with the key.
pub fn parse_proxy(text: &str) -> Result<String, String> {
    Ok(origin(text, "http")?.as_str().trim_end_matches('/').to_owned())
}

/// `IP` or `IP:PORT`; the port is the endpoint's unless given.
///
/// # Errors
/// The end of a sentence that starts with the key.
pub fn parse_address(text: &str, port: u16) -> Result<SocketAddr, String> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    match (bare.parse::<IpAddr>(), text.parse::<SocketAddr>()) {
        (Ok(address), _) => Ok(SocketAddr::new(address, port)),
        (_, Ok(address)) if address.port() != 0 => Ok(address),
        _ => Err(format!("{text:?} is not an IP address or IP:PORT")),
    }
}

fn origin(text: &str, scheme: &str) -> Result<Url, String> {
    let url = Url::parse(text)
        .map_err(|fault| format!("{text:?} is not a URL {scheme}://host: {fault}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        // Not shown: it may be a real password.
        return Err("has a user name or password in it; only the host belongs there".to_owned());
    }
    let excess = if url.scheme() != scheme {
        return Err(format!("{text:?} does not begin with {scheme}://"));
    } else if url.query().is_some() {
        "query"
    } else if url.fragment().is_some() {
        "fragment"
    } else if url.path() != "/" {
        "path"
    } else {
        return Ok(url);
    };
    Err(format!("{text:?} has a {excess}; only {scheme}://host[:port] belongs there"))
}
