//! C_CreateObject: keys, certificates and data that a client brings.

use std::{fs, io::Write, path::Path};

use cryptoki_sys::*;

use super::import;
use crate::{
    error::{Error, Result},
    hex,
    object::{
        certificate::{Certificate, Given},
        data, session_key, session_secret,
        store::Origin,
        template::{Template, inconsistent},
    },
    slot::Slot,
};

/// Makes the object and gives back its handle.
///
/// # Errors
/// CKR_TEMPLATE_INCOMPLETE, CKR_TEMPLATE_INCONSISTENT, CKR_ATTRIBUTE_VALUE_INVALID.
pub fn create(
    slot: &Slot,
    class: CK_OBJECT_CLASS,
    template: &Template,
    session: CK_SESSION_HANDLE,
) -> Result<CK_OBJECT_HANDLE> {
    match (class, template.on_token()) {
        (CKO_CERTIFICATE, on_token) => certificate(slot, template, on_token, session),
        (CKO_PUBLIC_KEY, false) => {
            Ok(slot.store.add(session_key::brought_public(template, session, slot)?))
        }
        (CKO_PRIVATE_KEY, false) => {
            Ok(slot.store.add(session_key::brought_private(template, session, slot)?))
        }
        (CKO_SECRET_KEY, false) => {
            Ok(slot.store.add(session_secret::brought(template, session, slot)?))
        }
        (CKO_DATA, false) => Ok(slot.store.add(data::brought(template, session, slot))),
        (CKO_PUBLIC_KEY, true) => {
            import::beside_private(slot, &session_key::brought_public(template, session, slot)?)
        }
        (CKO_PRIVATE_KEY, true) => {
            import::private_key(slot, &session_key::private_of(template)?, template)
        }
        (CKO_SECRET_KEY, true) => {
            let bytes = session_secret::value_of(template)?;
            import::secret_key(slot, session_key::key_type(template)?, &bytes, template)
        }
        _ => Err(Error::new(
            CKR_TEMPLATE_INCONSISTENT,
            format!(
                "objects of class {class:#x} with CKA_TOKEN {} cannot be made",
                template.on_token()
            ),
        )),
    }
}

/// Whether the object would be private.
pub fn is_private(slot: &Slot, class: CK_OBJECT_CLASS, template: &Template) -> bool {
    let secret = matches!(class, CKO_PRIVATE_KEY | CKO_SECRET_KEY | CKO_DATA);
    session_key::is_private(slot, template, secret)
}

fn certificate(
    slot: &Slot,
    template: &Template,
    on_token: bool,
    session: CK_SESSION_HANDLE,
) -> Result<CK_OBJECT_HANDLE> {
    template.required(CKA_SUBJECT)?;
    template.fixed_ulong(CKA_CERTIFICATE_TYPE, CKC_X_509)?;
    template.fixed_flag(CKA_TRUSTED, false, "no user may declare a certificate trusted")?;
    let certificate = Certificate::parse(template.required(CKA_VALUE)?)?;
    for (kind, value) in [
        (CKA_SUBJECT, &certificate.subject),
        (CKA_ISSUER, &certificate.issuer),
        (CKA_SERIAL_NUMBER, &certificate.serial),
    ] {
        // Some clients give the serial number without its DER header.
        let given = template.bytes(kind).filter(|given| !given.is_empty());
        if given.is_some_and(|given| !value.ends_with(given)) {
            return Err(inconsistent(format!("attribute {kind:#x} is not the certificate's")));
        }
    }
    if on_token {
        let given = Given {
            label: template.text(CKA_LABEL)?.filter(|label| !label.is_empty()).map(str::to_owned),
            id: template.bytes(CKA_ID).filter(|id| !id.is_empty()).map(<[u8]>::to_vec),
        };
        return store(slot, Certificate { given, ..certificate });
    }
    let label = template.text(CKA_LABEL)?.unwrap_or(&certificate.common_name);
    let id = template.bytes(CKA_ID).unwrap_or_default();
    let mut object = certificate.object(false, label, id, None);
    object.owner = Some(session);
    Ok(slot.store.add(object))
}

/// Writes a certificate into the configured directory and shows it, under the label it was given:
/// Java's aliases are labels of certificates. It takes the id of its key, whatever the template
/// says: that is what pairs them, here and in the next process.
fn store(slot: &Slot, certificate: Certificate) -> Result<CK_OBJECT_HANDLE> {
    let Some(directory) = &slot.token.certificate_dir else {
        return Err(Error::new(
            CKR_TEMPLATE_INCONSISTENT,
            format!(
                "token '{}' keeps certificates only with `certificate_dir` in its configuration",
                slot.token.label
            ),
        ));
    };
    let path = directory.join(format!("{}.pem", file_name(&certificate)));
    write(&path, &certificate.to_pem()?).map_err(|error| {
        Error::new(CKR_DEVICE_ERROR, format!("{} cannot be written: {error}", path.display()))
    })?;
    slot.store.replace_leaf(&certificate);
    slot.store.add_certificate(certificate, Origin::Configured).ok_or_else(|| {
        Error::new(CKR_GENERAL_ERROR, "a configured certificate gave way to another")
    })
}

/// One file per key for leaves, so that a new certificate takes the place of the old one.
pub fn file_name(certificate: &Certificate) -> String {
    match certificate.is_ca {
        true => format!("ca-{}", hex::encode(&certificate.key_id)),
        false => hex::encode(&certificate.key_id),
    }
}

fn write(path: &Path, pem: &str) -> std::io::Result<()> {
    // Written beside and renamed: a reader sees the old file or the new one.
    let beside = path.with_extension(format!("{}.tmp", std::process::id()));
    let mut file = fs::File::create(&beside)?;
    file.write_all(pem.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path).inspect_err(|_| {
        let _ = fs::remove_file(&beside);
    })
}
