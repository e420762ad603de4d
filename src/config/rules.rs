//! What strings of the configuration must look like.

/// Says what is wrong with a string, as the end of a sentence that starts with the value.
pub type Rule = fn(&str) -> Result<(), &'static str>;

/// Our own tag; the rest of the service's fifteen are the user's.
pub const OWN_TAG: &str = "akv-p11";

/// Tags a user may set on a key: the service's limit less [`OWN_TAG`].
pub const MAX_TAGS: usize = 14;

/// Any line of text.
pub fn text(value: &str) -> Result<(), &'static str> {
    if value.is_empty() {
        return Err("is empty");
    }
    if value.chars().any(char::is_control) {
        return Err("has a control character in it");
    }
    Ok(())
}

/// Token label: CK_TOKEN_INFO has room for 32 bytes, padded with blanks.
pub fn label(value: &str) -> Result<(), &'static str> {
    text(value)?;
    if value.len() > 32 {
        return Err("is longer than 32 bytes");
    }
    if value != value.trim_end() {
        return Err("ends in a blank, which is the padding of a token label");
    }
    Ok(())
}

/// Token serial number: 16 characters in CK_TOKEN_INFO.
pub fn serial(value: &str) -> Result<(), &'static str> {
    text(value)?;
    if !value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Err("is not printable ASCII");
    }
    if value.len() > 16 {
        return Err("is longer than 16 characters");
    }
    if value != value.trim_end() {
        return Err("ends in a blank, which is the padding of a serial number");
    }
    Ok(())
}

/// `stderr`, `syslog` or `file:PATH`.
pub fn sink(value: &str) -> Result<(), &'static str> {
    match value {
        "stderr" | "syslog" => Ok(()),
        _ if value.strip_prefix("file:").is_some_and(|path| !path.is_empty()) => text(value),
        _ => Err("is not stderr, syslog or file:PATH"),
    }
}

/// An application, object or client id: a GUID at Entra; other authorities may use other words.
pub fn id(value: &str) -> Result<(), &'static str> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if value.is_empty() || value.len() > 128 || !value.bytes().all(legal) {
        return Err("is not an id such as 00000000-0000-0000-0000-000000000000");
    }
    Ok(())
}

/// A tenant goes into the path of the token endpoint's URL.
pub fn tenant(value: &str) -> Result<(), &'static str> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
    if value.is_empty() || value.len() > 253 || value.starts_with('.') || !value.bytes().all(legal)
    {
        return Err("is not a tenant GUID or domain name");
    }
    Ok(())
}

/// Client credentials know only `/.default` scopes.
pub fn scope(value: &str) -> Result<(), &'static str> {
    let legal = |byte: u8| (b'!'..=b'~').contains(&byte) && byte != b'"' && byte != b'\\';
    if !value.bytes().all(legal) {
        return Err("is not an OAuth 2 scope");
    }
    match value.strip_suffix("/.default") {
        Some(resource) if !resource.is_empty() => Ok(()),
        _ => Err("does not end in /.default"),
    }
}

/// `name` or `name/version` of a key.
pub fn key_name(value: &str) -> Result<(), &'static str> {
    let (name, version) = match value.split_once('/') {
        Some((name, version)) => (name, Some(version)),
        None => (value, None),
    };
    if !name_is_legal(name) {
        return Err("is not a key name: 1 to 127 letters, digits and hyphens, then perhaps \
                    /version");
    }
    match version {
        Some(version) if !is_version(version) => Err("has a version that is not 32 hex digits"),
        _ => Ok(()),
    }
}

/// The name of a secret, or `*` for all.
pub fn secret_name(value: &str) -> Result<(), &'static str> {
    if value != "*" && !name_is_legal(value) {
        return Err("is not a secret's name (1 to 127 letters, digits and hyphens), nor \"*\"");
    }
    Ok(())
}

/// 32 hex digits, as the service makes them.
pub fn is_version(value: &str) -> bool {
    value.len() == 32 && value.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// `^[0-9a-zA-Z-]{1,127}$`, the service's rule for object names.
pub fn name_is_legal(name: &str) -> bool {
    (1..=127).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}
