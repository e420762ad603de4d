//! CK_DATE of PKCS#11 and the service's Unix seconds: a day begins at 00:00:00 and ends at
//! 23:59:59 UTC.

use std::time::Duration;

use akv_wire::KeyAttributes;
use cryptoki_sys::{CKA_END_DATE, CKA_START_DATE, CKR_ATTRIBUTE_VALUE_INVALID};
use der::DateTime;

use super::template::{Template, inconsistent};
use crate::error::{Error, Result};

/// Seconds from the first to the last second of a day.
const TO_END_OF_DAY: i64 = 24 * 60 * 60 - 1;

/// CK_DATE (`YYYYMMDD`) of a time in Unix seconds; empty for none and for times that have no
/// four-digit year.
pub fn day(time: Option<i64>) -> String {
    time.and_then(|seconds| u64::try_from(seconds).ok())
        .and_then(|seconds| DateTime::from_unix_duration(Duration::from_secs(seconds)).ok())
        .map(|date| format!("{:04}{:02}{:02}", date.year(), date.month(), date.day()))
        .unwrap_or_default()
}

/// The first second of a CK_DATE; None for the empty one.
///
/// # Errors
/// CKR_ATTRIBUTE_VALUE_INVALID for what is no day of 1970 or later.
pub fn first_second(date: &[u8]) -> Result<Option<i64>> {
    if date.is_empty() {
        return Ok(None);
    }
    let number = |digits: &[u8]| std::str::from_utf8(digits).ok()?.parse::<u16>().ok();
    let parse = || {
        let (year, rest) = date.split_at_checked(4)?;
        let (month, day) = rest.split_at_checked(2).filter(|(_, day)| day.len() == 2)?;
        let (month, day) = (number(month)?.try_into().ok()?, number(day)?.try_into().ok()?);
        let date = DateTime::new(number(year)?, month, day, 0, 0, 0).ok()?;
        i64::try_from(date.unix_duration().as_secs()).ok()
    };
    parse().map(Some).ok_or_else(|| {
        let text = String::from_utf8_lossy(date).into_owned();
        Error::new(CKR_ATTRIBUTE_VALUE_INVALID, format!("'{text}' is no day (YYYYMMDD)"))
    })
}

/// nbf and exp of a template's CKA_START_DATE and CKA_END_DATE.
///
/// # Errors
/// CKR_ATTRIBUTE_VALUE_INVALID for what is no day, CKR_TEMPLATE_INCONSISTENT for an end before
/// the start.
pub fn bounds(template: &Template) -> Result<(Option<i64>, Option<i64>)> {
    let nbf = first_second(template.bytes(CKA_START_DATE).unwrap_or_default())?;
    let exp = first_second(template.bytes(CKA_END_DATE).unwrap_or_default())?
        .map(|start| start + TO_END_OF_DAY);
    match (nbf, exp) {
        (Some(nbf), Some(exp)) if exp < nbf => {
            Err(inconsistent("CKA_END_DATE is before CKA_START_DATE"))
        }
        bounds => Ok(bounds),
    }
}

/// The attributes of a key to be made from the first template that names a date; None where none
/// does.
///
/// # Errors
/// As [`bounds`].
pub fn attributes(templates: &[&Template]) -> Result<Option<KeyAttributes>> {
    let (mut nbf, mut exp) = (None, None);
    for template in templates {
        let (start, end) = bounds(template)?;
        nbf = nbf.or(start);
        exp = exp.or(end);
    }
    let some = nbf.is_some() || exp.is_some();
    Ok(some.then(|| KeyAttributes { nbf, exp, ..KeyAttributes::default() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_begins_at_midnight() {
        assert_eq!(first_second(b"20261122").unwrap(), Some(1_795_305_600));
        assert_eq!(day(Some(1_795_305_600)), "20261122");
        assert_eq!(day(Some(1_795_305_600 + TO_END_OF_DAY)), "20261122");
        assert_eq!(day(Some(1_795_305_600 + TO_END_OF_DAY + 1)), "20261123");
        assert_eq!(first_second(b"").unwrap(), None);
        for none in [None, Some(-1), Some(i64::MAX)] {
            assert_eq!(day(none), "");
        }
    }

    #[test]
    fn what_is_no_day_is_refused() {
        for bad in ["20261322", "20260230", "19691231", "2026112", "202611221"] {
            let error = first_second(bad.as_bytes()).unwrap_err();
            assert_eq!(error.rv(), CKR_ATTRIBUTE_VALUE_INVALID, "{bad}");
        }
    }
}
