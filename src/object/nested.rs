//! Templates that are values of attributes: which keys may be wrapped with a key, and what is added
//! to those that it unwraps.

use cryptoki_sys::*;

use crate::error::{Error, Result};

/// Bytes of a type and of a length.
const HEAD: usize = 2 * size_of::<u64>();

/// Whether the value of an attribute is a template.
pub fn is_nested(kind: CK_ATTRIBUTE_TYPE) -> bool {
    matches!(kind, CKA_WRAP_TEMPLATE | CKA_UNWRAP_TEMPLATE)
}

/// The form in which this module keeps a template that is a value: of each attribute the type and
/// the length of its value, eight bytes each, and the value.
pub fn encode(values: &[(CK_ATTRIBUTE_TYPE, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (kind, value) in values {
        bytes.extend(kind.to_be_bytes());
        bytes.extend((value.len() as u64).to_be_bytes());
        bytes.extend(*value);
    }
    bytes
}

/// Type and value of each attribute.
///
/// # Errors
/// CKR_ATTRIBUTE_VALUE_INVALID for what [`encode`] did not make.
pub fn decode(mut bytes: &[u8]) -> Result<Vec<(CK_ATTRIBUTE_TYPE, &[u8])>> {
    let mut values = Vec::new();
    while !bytes.is_empty() {
        let (head, rest) = bytes.split_at_checked(HEAD).ok_or_else(broken)?;
        let (kind, length) = head.split_at(HEAD / 2);
        let number = |bytes: &[u8]| bytes.try_into().map(u64::from_be_bytes).map_err(|_| broken());
        let length = usize::try_from(number(length)?).map_err(|_| broken())?;
        let (value, rest) = rest.split_at_checked(length).ok_or_else(broken)?;
        values.push((number(kind)?, value));
        bytes = rest;
    }
    Ok(values)
}

fn broken() -> Error {
    Error::new(CKR_ATTRIBUTE_VALUE_INVALID, "a template within a template that is none")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded_and_nothing_else() {
        let values = [(CKA_LABEL, &b"label"[..]), (CKA_TOKEN, &[0]), (CKA_ID, &[])];
        let bytes = encode(&values);
        assert_eq!(decode(&bytes).unwrap(), values);
        assert!(decode(&[]).unwrap().is_empty());
        for length in (1..bytes.len()).filter(|length| ![21, 38].contains(length)) {
            assert!(decode(&bytes[..length]).is_err(), "{length}");
        }
    }
}
