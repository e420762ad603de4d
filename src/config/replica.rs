//! `[[token.replica]]`: other endpoints that hold a token's keys.

use super::{
    Endpoint, Replica, Service,
    cloud::{self, Cloud},
    convert::Context,
    keys, rules,
    section::Section,
};
use crate::error::Result;

/// Most replicas of a token: a call keeps one bit for each.
const MOST: usize = 15;

/// Reads the replicas of the token whose table is `token` and whose endpoint is `first`.
///
/// # Errors
/// The context's CKR, naming place and value.
pub fn read(
    context: &Context<'_>,
    token: &Section<'_>,
    first: &Endpoint,
    cloud: Option<&'static Cloud>,
) -> Result<Vec<Replica>> {
    let mut replicas: Vec<Replica> = Vec::new();
    for (items, at) in token.tables("replica") {
        let subject = format!("{}replica: ", token.subject());
        let section = Section::new(context, keys::REPLICA, items, subject, at.clone())?;
        let replica = one(&section, first.service, cloud)?;
        let others = replicas.iter().map(|other| &other.endpoint).chain([first]);
        for other in others {
            if (&other.host, other.port) == (&replica.endpoint.host, replica.endpoint.port) {
                return Err(section.refuse("endpoint", "is given twice"));
            }
        }
        replicas.push(replica);
        if replicas.len() > MOST {
            let problem = format!("replica: more than {MOST} are too many");
            return Err(token.error("replica", problem));
        }
    }
    Ok(replicas)
}

fn one(s: &Section<'_>, service: Service, cloud: Option<&'static Cloud>) -> Result<Replica> {
    let text = s.need("endpoint", s.text("endpoint"))?;
    let (host, port) = cloud::parse_endpoint(text)
        .map_err(|problem| s.error("endpoint", format!("endpoint {problem}")))?;
    // One credential and one scope serve all: a token is good for one cloud and one service.
    if cloud::by_host(&host).map(|cloud| cloud.suffix) != cloud.map(|cloud| cloud.suffix) {
        let problem = "has another suffix than the token's endpoint: replicas are the same service \
                       in the same cloud";
        return Err(s.refuse("endpoint", problem));
    }
    let address = match s.text("address") {
        Some(text) => Some(
            cloud::parse_address(text, port)
                .map_err(|problem| s.error("address", format!("address {problem}")))?,
        ),
        None => None,
    };
    let mut versions = Vec::new();
    for (key, there) in s.strings("versions") {
        let Some((name, here)) = key.split_once('/').filter(|_| rules::key_name(key).is_ok())
        else {
            let problem = "is not a key's name/version at the token's endpoint";
            return Err(s.error("versions", format!("versions: {key:?} {problem}")));
        };
        if !rules::is_version(there) {
            let problem = "is not a version of 32 hex digits";
            return Err(s.error("versions", format!("versions: {there:?} {problem}")));
        }
        let lower = str::to_ascii_lowercase;
        versions.push((lower(name), lower(here), lower(there)));
    }
    Ok(Replica { endpoint: Endpoint { host, port, service }, address, versions })
}
