//! A managed identity's token: one GET to the machine's metadata service or to App Service.
//!
//! azure_identity would look in the environment of the moment for whom to ask, in set-uid processes
//! too, and refuses what App Service takes. What was read at C_Initialize is asked here.
//! (<https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token>,
//! <https://learn.microsoft.com/azure/app-service/overview-managed-identity#rest-endpoint-reference>)

use std::time::{Duration, SystemTime};

use reqwest::{
    Method, Url,
    header::{HeaderName, HeaderValue},
};
use serde::Deserialize;
use serde_json::Value;
use zeroize::Zeroizing;

use super::{
    Rejected, Token,
    asker::Asker,
    challenge::CAPABILITY,
    source::{Failure, first_line},
};
use crate::{
    config::{ManagedIdentityEndpoint, UserAssigned},
    net::Request,
};

const METADATA: HeaderName = HeaderName::from_static("metadata");
const IDENTITY_HEADER: HeaderName = HeaderName::from_static("x-identity-header");

/// One token for `scope`. `rejected` is one that the service does not take.
pub(super) fn token(
    asker: &Asker,
    endpoint: &ManagedIdentityEndpoint,
    identity: Option<&UserAssigned>,
    scope: &str,
    rejected: Option<&Rejected<'_>>,
) -> Result<Token, Failure> {
    let challenge = rejected.and_then(|rejected| rejected.challenge.as_ref());
    let refused = rejected.filter(|_| challenge.is_some()).map(|rejected| rejected.token.digest());
    let request = request(endpoint, identity, scope, refused.as_deref())
        .ok_or_else(|| Failure::Refused("the managed identity's endpoint is no URL".into()))?;
    // While the metadata service starts or is updated it answers 404 or 410.
    let answer = asker.ask(&request, |status| matches!(status, 404 | 410))?;
    let told = || {
        let refusal: Refusal = serde_json::from_slice(&answer.body).unwrap_or_default();
        first_line(&refusal.error_description.or(refusal.message).unwrap_or_default())
    };
    match answer.status {
        200..=299 => {}
        400 => {
            let why = "the identity has not been assigned to this machine or application";
            return Err(Failure::Refused(format!("HTTP 400, {why}: {}", told())));
        }
        status @ (404 | 408 | 410 | 429 | 500..) => {
            return Err(Failure::Unreachable(format!("HTTP {status}: {}", told())));
        }
        status => return Err(Failure::Refused(format!("HTTP {status}: {}", told()))),
    }
    let nonsense = |what: &str| Failure::Unreachable(format!("the answer has no {what}"));
    let issued: Issued =
        serde_json::from_slice(&answer.body).map_err(|_| nonsense("access token"))?;
    let lifetime = issued.lifetime().ok_or_else(|| nonsense("time at which the token ends"))?;
    let secret = Zeroizing::new(issued.access_token);
    Token::new(&secret, lifetime, challenge).ok_or_else(|| nonsense("token for a header"))
}

/// App Service has an api-version, a header and a name for resource ids of its own, and can be told
/// which token was `refused`; a metadata service cannot, and gives the same one until it ends.
fn request(
    endpoint: &ManagedIdentityEndpoint,
    identity: Option<&UserAssigned>,
    scope: &str,
    refused: Option<&str>,
) -> Option<Request> {
    let app_service = endpoint.header.is_some();
    let mut url = Url::parse(&endpoint.url).ok()?;
    let mut query = vec![
        ("api-version", if app_service { "2019-08-01" } else { "2018-02-01" }),
        ("resource", scope.strip_suffix("/.default").unwrap_or(scope)),
    ];
    query.extend(identity.map(|identity| match identity {
        UserAssigned::ClientId(id) => ("client_id", id.as_str()),
        UserAssigned::ObjectId(id) => ("object_id", id.as_str()),
        UserAssigned::ResourceId(id) if app_service => ("mi_res_id", id.as_str()),
        UserAssigned::ResourceId(id) => ("msi_res_id", id.as_str()),
    }));
    if let Some(refused) = refused.filter(|_| app_service) {
        query.extend([("xms_cc", CAPABILITY), ("token_sha256_to_refresh", refused)]);
    }
    url.query_pairs_mut().clear().extend_pairs(query);
    let mut request = Request::new(Method::GET, &url);
    match &endpoint.header {
        Some(secret) => {
            let mut value = HeaderValue::from_str(secret).ok()?;
            value.set_sensitive(true);
            request.set_header(IDENTITY_HEADER, value);
        }
        None => request.set_header(METADATA, HeaderValue::from_static("true")),
    }
    Some(request)
}

#[derive(Deserialize)]
struct Issued {
    access_token: String,
    /// Numbers of seconds, or their digits in a string: from now, and since 1970.
    expires_in: Option<Value>,
    expires_on: Option<Value>,
}

impl Issued {
    fn lifetime(&self) -> Option<Duration> {
        let seconds = |value: &Option<Value>| match value.as_ref()? {
            Value::String(digits) => digits.parse().ok(),
            number => number.as_u64(),
        };
        let left = || {
            let end = SystemTime::UNIX_EPOCH
                .checked_add(Duration::from_secs(seconds(&self.expires_on)?))?;
            Some(end.duration_since(SystemTime::now()).unwrap_or_default())
        };
        seconds(&self.expires_in).map(Duration::from_secs).or_else(left)
    }
}

#[derive(Default, Deserialize)]
struct Refusal {
    /// Of the metadata service.
    error_description: Option<String>,
    /// Of App Service.
    message: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCOPE: &str = "https://vault.azure.net/.default";

    #[test]
    fn each_kind_of_endpoint_is_asked_in_its_own_words() {
        let resource = Some(UserAssigned::ResourceId("/subscriptions/s".into()));
        let app_service = ManagedIdentityEndpoint {
            url: "http://127.0.0.1:41741/msi/token/".into(),
            header: Some("h".to_owned().into()),
        };
        let request =
            super::request(&app_service, resource.as_ref(), SCOPE, Some("00")).expect("URL");
        assert_eq!(
            request.target,
            "/msi/token/?api-version=2019-08-01&resource=https%3A%2F%2Fvault.azure.net\
             &mi_res_id=%2Fsubscriptions%2Fs&xms_cc=cp1&token_sha256_to_refresh=00"
        );
        assert_eq!(request.headers[0].0, IDENTITY_HEADER);
        let machine = ManagedIdentityEndpoint {
            url: "http://169.254.169.254/metadata/identity/oauth2/token".into(),
            header: None,
        };
        let request = super::request(&machine, resource.as_ref(), SCOPE, Some("00")).expect("URL");
        assert_eq!(
            request.target,
            "/metadata/identity/oauth2/token?api-version=2018-02-01\
             &resource=https%3A%2F%2Fvault.azure.net&msi_res_id=%2Fsubscriptions%2Fs"
        );
        assert_eq!(request.headers, [(METADATA, HeaderValue::from_static("true"))]);
    }

    #[test]
    fn the_end_of_a_token_comes_in_four_forms() {
        let life = |json: &str| serde_json::from_str::<Issued>(json).expect("JSON").lifetime();
        let end =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("now").as_secs() + 60;
        for (json, least, most) in [
            (r#"{"access_token":"t","expires_in":"60"}"#.to_owned(), 60, 60),
            (r#"{"access_token":"t","expires_in":60,"expires_on":"x"}"#.to_owned(), 60, 60),
            (format!(r#"{{"access_token":"t","expires_on":"{end}"}}"#), 50, 60),
            (format!(r#"{{"access_token":"t","expires_on":{end}}}"#), 50, 60),
            (r#"{"access_token":"t","expires_on":1}"#.to_owned(), 0, 0),
        ] {
            let seconds = life(&json).expect(&json).as_secs();
            assert!((least..=most).contains(&seconds), "{json}: {seconds}");
        }
        assert_eq!(life(r#"{"access_token":"t","expires_on":"soon"}"#), None);
        assert_eq!(life(r#"{"access_token":"t"}"#), None);
    }
}
