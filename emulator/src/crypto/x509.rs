//! Certificates: self-signed ones for policies, requests for others, and what policies say of
//! imported ones.

use akv_wire::{CertificatePolicy, SubjectAlternativeNames, X509Properties};
use openssl::asn1::{Asn1Object, Asn1Time};
use openssl::bn::BigNum;
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::stack::Stack;
use openssl::x509::extension::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName,
    SubjectKeyIdentifier,
};
use openssl::x509::{
    X509, X509Builder, X509Extension, X509Name, X509NameBuilder, X509Ref, X509Req, X509ReqBuilder,
    X509v3Context,
};

use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::{self, KeyUsages};

use super::random;

/// What a certificate says of itself, as policies and listings show it.
pub struct Facts {
    /// Start of validity, Unix seconds.
    pub not_before: i64,
    /// End of validity, Unix seconds.
    pub not_after: i64,
    /// The policy's view of the content.
    pub properties: X509Properties,
}

/// Issues the self-signed certificate a policy asks for.
pub fn self_signed(
    key: &PKey<Private>,
    policy: &CertificatePolicy,
    now: i64,
) -> Result<X509, ErrorStack> {
    let properties = policy.x509_props.clone().unwrap_or_default();
    let name = parse_name(properties.subject.as_deref().unwrap_or_default())?;
    let mut builder = X509Builder::new()?;
    builder.set_version(2)?;
    let serial = BigNum::from_slice(&random(16)?)?.to_asn1_integer()?;
    builder.set_serial_number(&serial)?;
    builder.set_subject_name(&name)?;
    builder.set_issuer_name(&name)?;
    // Recorded: validity starts ten minutes before now.
    builder.set_not_before(Asn1Time::from_unix(now - 600)?.as_ref())?;
    let months = i64::from(properties.validity_months.unwrap_or(12));
    builder.set_not_after(Asn1Time::from_unix(add_months(now, months))?.as_ref())?;
    builder.set_pubkey(key)?;
    let context = builder.x509v3_context(None, None);
    let mut extensions = request_extensions(&properties, &context)?;
    extensions.push(SubjectKeyIdentifier::new().build(&context)?);
    for extension in extensions {
        builder.append_extension(extension)?;
    }
    let authority = {
        let context = builder.x509v3_context(None, None);
        AuthorityKeyIdentifier::new().keyid(false).build(&context).ok()
    };
    if let Some(extension) = authority {
        builder.append_extension(extension)?;
    }
    builder.sign(key, signature_digest(key))?;
    Ok(builder.build())
}

/// Makes the signing request a policy asks for.
pub fn request(key: &PKey<Private>, policy: &CertificatePolicy) -> Result<X509Req, ErrorStack> {
    let properties = policy.x509_props.clone().unwrap_or_default();
    let name = parse_name(properties.subject.as_deref().unwrap_or_default())?;
    let mut builder = X509ReqBuilder::new()?;
    builder.set_version(0)?;
    builder.set_subject_name(&name)?;
    builder.set_pubkey(key)?;
    let mut stack = Stack::new()?;
    {
        let context = builder.x509v3_context(None);
        for extension in request_extensions(&properties, &context)? {
            stack.push(extension)?;
        }
    }
    builder.add_extensions(&stack)?;
    builder.sign(key, signature_digest(key))?;
    Ok(builder.build())
}

/// Reads what a certificate says of itself.
pub fn facts(certificate: &X509Ref) -> Result<Facts, ErrorStack> {
    let epoch = Asn1Time::from_unix(0)?;
    let seconds = |time: &openssl::asn1::Asn1TimeRef| -> Result<i64, ErrorStack> {
        let diff = epoch.diff(time)?;
        Ok(i64::from(diff.days) * 86_400 + i64::from(diff.secs))
    };
    let (not_before, not_after) =
        (seconds(certificate.not_before())?, seconds(certificate.not_after())?);
    let usages = usages(&certificate.to_der()?);
    let names = certificate.subject_alt_names();
    let of = |kind: fn(&openssl::x509::GeneralNameRef) -> Option<&str>| -> Vec<String> {
        names.iter().flatten().filter_map(kind).map(str::to_owned).collect()
    };
    let sans = names.as_ref().map(|_| SubjectAlternativeNames {
        emails: Some(of(|name| name.email())),
        dns_names: Some(of(|name| name.dnsname())),
        upns: Some(Vec::new()),
    });
    Ok(Facts {
        not_before,
        not_after,
        properties: X509Properties {
            subject: Some(show_name(certificate.subject_name())),
            sans,
            ekus: Some(usages.extended),
            key_usage: Some(usages.key),
            validity_months: Some(months_between(not_before, not_after)),
            basic_constraints: Some(akv_wire::BasicConstraints { ca: usages.ca }),
        },
    })
}

#[derive(Default)]
struct Usages {
    key: Vec<String>,
    extended: Vec<String>,
    ca: bool,
}

/// Names of the contract for the bits of the key usage extension.
const KEY_USAGES: &[(KeyUsages, &str)] = &[
    (KeyUsages::DigitalSignature, "digitalSignature"),
    (KeyUsages::NonRepudiation, "nonRepudiation"),
    (KeyUsages::KeyEncipherment, "keyEncipherment"),
    (KeyUsages::DataEncipherment, "dataEncipherment"),
    (KeyUsages::KeyAgreement, "keyAgreement"),
    (KeyUsages::KeyCertSign, "keyCertSign"),
    (KeyUsages::CRLSign, "cRLSign"),
    (KeyUsages::EncipherOnly, "encipherOnly"),
    (KeyUsages::DecipherOnly, "decipherOnly"),
];

/// What the usage and constraint extensions say; nothing where they are absent or malformed.
fn usages(der: &[u8]) -> Usages {
    let mut usages = Usages::default();
    let Ok(certificate) = Certificate::from_der(der) else {
        return usages;
    };
    let certificate = certificate.tbs_certificate;
    if let Ok(Some((_, bits))) = certificate.get::<pkix::KeyUsage>() {
        let named = KEY_USAGES.iter().filter(|(bit, _)| bits.0.contains(*bit));
        usages.key = named.map(|(_, name)| (*name).to_owned()).collect();
    }
    if let Ok(Some((_, oids))) = certificate.get::<pkix::ExtendedKeyUsage>() {
        usages.extended = oids.0.iter().map(ToString::to_string).collect();
    }
    if let Ok(Some((_, constraints))) = certificate.get::<pkix::BasicConstraints>() {
        usages.ca = constraints.ca;
    }
    usages
}

/// Reads a subject of the form `CN=example, O=Somebody`; `None` when it is malformed.
pub fn is_subject(subject: &str) -> bool {
    !subject.trim().is_empty() && parse_name(subject).is_ok_and(|name| name.entries().count() > 0)
}

/// Short names of the attributes that subjects are made of.
const ATTRIBUTES: &[(&str, Nid)] = &[
    ("CN", Nid::COMMONNAME),
    ("O", Nid::ORGANIZATIONNAME),
    ("OU", Nid::ORGANIZATIONALUNITNAME),
    ("C", Nid::COUNTRYNAME),
    ("L", Nid::LOCALITYNAME),
    ("S", Nid::STATEORPROVINCENAME),
    ("ST", Nid::STATEORPROVINCENAME),
    ("STREET", Nid::STREETADDRESS),
    ("SERIALNUMBER", Nid::SERIALNUMBER),
    ("DC", Nid::DOMAINCOMPONENT),
    ("E", Nid::PKCS9_EMAILADDRESS),
    ("EMAIL", Nid::PKCS9_EMAILADDRESS),
];

fn parse_name(subject: &str) -> Result<X509Name, ErrorStack> {
    let mut builder = X509NameBuilder::new()?;
    let mut parts = split_name(subject);
    // Recorded: the service writes the last part of the text first.
    parts.reverse();
    for (key, value) in parts {
        let nid = ATTRIBUTES.iter().find(|(name, _)| name.eq_ignore_ascii_case(&key));
        let nid = nid.map_or(Nid::COMMONNAME, |(_, nid)| *nid);
        builder.append_entry_by_nid(nid, &value)?;
    }
    Ok(builder.build())
}

fn split_name(subject: &str) -> Vec<(String, String)> {
    let (mut parts, mut current, mut quoted, mut escaped) =
        (Vec::new(), String::new(), false, false);
    for character in subject.chars() {
        match character {
            _ if escaped => {
                current.push(character);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            ',' | ';' if !quoted => parts.push(std::mem::take(&mut current)),
            _ => current.push(character),
        }
    }
    parts.push(current);
    parts
        .iter()
        .filter_map(|part| part.split_once('='))
        .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
        .collect()
}

fn show_name(name: &openssl::x509::X509NameRef) -> String {
    let mut parts: Vec<String> = name
        .entries()
        .filter_map(|entry| {
            let nid = entry.object().nid();
            let key = ATTRIBUTES.iter().find(|(_, known)| *known == nid)?.0;
            Some(format!("{key}={}", entry.data().to_string().ok()?))
        })
        .collect();
    parts.reverse();
    parts.join(", ")
}

fn request_extensions(
    properties: &X509Properties,
    context: &X509v3Context<'_>,
) -> Result<Vec<X509Extension>, ErrorStack> {
    let mut extensions = Vec::new();
    let defaults = ["digitalSignature", "keyEncipherment"].map(str::to_owned).to_vec();
    let names = properties.key_usage.as_ref().unwrap_or(&defaults);
    let mut usage = KeyUsage::new();
    usage.critical();
    for name in names {
        match name.as_str() {
            "digitalSignature" => usage.digital_signature(),
            "nonRepudiation" => usage.non_repudiation(),
            "keyEncipherment" => usage.key_encipherment(),
            "dataEncipherment" => usage.data_encipherment(),
            "keyAgreement" => usage.key_agreement(),
            "keyCertSign" => usage.key_cert_sign(),
            "cRLSign" => usage.crl_sign(),
            "encipherOnly" => usage.encipher_only(),
            "decipherOnly" => usage.decipher_only(),
            _ => &mut usage,
        };
    }
    if !names.is_empty() {
        extensions.push(usage.build()?);
    }
    let server_and_client = ["1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"].map(str::to_owned).to_vec();
    let ekus = properties.ekus.as_ref().unwrap_or(&server_and_client);
    if !ekus.is_empty() {
        let mut extended = ExtendedKeyUsage::new();
        for oid in ekus {
            // Only what parses as an object identifier is legal here.
            if Asn1Object::from_str(oid).is_ok() {
                extended.other(oid);
            }
        }
        extensions.push(extended.build()?);
    }
    let names = properties.sans.clone().unwrap_or_default();
    let (dns, emails) = (names.dns_names.unwrap_or_default(), names.emails.unwrap_or_default());
    if !dns.is_empty() || !emails.is_empty() {
        let mut alternative = SubjectAlternativeName::new();
        for name in &dns {
            match name.parse::<std::net::IpAddr>() {
                Ok(_) => alternative.ip(name),
                Err(_) => alternative.dns(name),
            };
        }
        for name in &emails {
            alternative.email(name);
        }
        extensions.push(alternative.build(context)?);
    }
    let mut constraints = BasicConstraints::new();
    if properties.basic_constraints.as_ref().is_some_and(|given| given.ca) {
        constraints.critical().ca();
    }
    extensions.push(constraints.build()?);
    Ok(extensions)
}

fn signature_digest(key: &PKey<Private>) -> MessageDigest {
    match key.bits() {
        384 => MessageDigest::sha384(),
        521 => MessageDigest::sha512(),
        _ => MessageDigest::sha256(),
    }
}

/// The same day and time of day `months` later, the day cut to the month's length.
pub fn add_months(from: i64, months: i64) -> i64 {
    let (days, time) = (from.div_euclid(86_400), from.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let count = year * 12 + (month - 1) + months;
    let (year, month) = (count.div_euclid(12), count.rem_euclid(12) + 1);
    let last = (28..=31).rev().find(|day| civil(days_of(year, month, *day)).1 == month);
    days_of(year, month, day.min(last.unwrap_or(28))) * 86_400 + time
}

/// Calendar months from start to end, a begun one counted whole.
fn months_between(from: i64, to: i64) -> u32 {
    let (a, b) = (civil(from.div_euclid(86_400)), civil(to.div_euclid(86_400)));
    let whole = (b.0 - a.0) * 12 + b.1 - a.1;
    let begun = add_months(from, whole) < to;
    u32::try_from(whole + i64::from(begun)).unwrap_or_default()
}

/// Days since 1970-01-01 to year, month, day (proleptic Gregorian).
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Year, month, day to days since 1970-01-01.
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let shifted = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_are_calendar_months() {
        // 2024-01-31 plus one month is 2024-02-29.
        let january = days_of(2024, 1, 31) * 86_400;
        assert_eq!(civil(add_months(january, 1) / 86_400), (2024, 2, 29));
        assert_eq!(civil(add_months(january, 12) / 86_400), (2025, 1, 31));
        assert_eq!(months_between(january, add_months(january, 60)), 60);
    }

    #[test]
    fn subjects_are_read_with_quotes_and_escapes() {
        assert_eq!(
            split_name(r#"CN=a, O="Big, Inc", OU=x\,y"#),
            [("CN", "a"), ("O", "Big, Inc"), ("OU", "x,y")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
        );
        assert!(!is_subject("nonsense"));
    }
}
