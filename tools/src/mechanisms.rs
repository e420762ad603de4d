//! `akv-pkcs11 mechanisms`: the module's table, as a token offers it.

use akv_pkcs11::mechanism::MECHANISMS;
use cryptoki_sys::*;
use serde::Serialize;

use crate::{
    cli::{Common, MechanismsArgs},
    failure::Failure,
    output::{Output, table},
    target,
};

/// What a mechanism can be used for, by the flags of CK_MECHANISM_INFO.
const USES: &[(CK_FLAGS, &str)] = &[
    (CKF_DIGEST, "digest"),
    (CKF_SIGN, "sign"),
    (CKF_SIGN_RECOVER, "sign-recover"),
    (CKF_VERIFY, "verify"),
    (CKF_VERIFY_RECOVER, "verify-recover"),
    (CKF_ENCRYPT, "encrypt"),
    (CKF_DECRYPT, "decrypt"),
    (CKF_WRAP, "wrap"),
    (CKF_UNWRAP, "unwrap"),
    (CKF_GENERATE, "generate"),
    (CKF_GENERATE_KEY_PAIR, "generate-key-pair"),
    (CKF_DERIVE, "derive"),
    (CKF_MESSAGE_SIGN, "message-sign"),
    (CKF_MESSAGE_VERIFY, "message-verify"),
    (CKF_MESSAGE_ENCRYPT, "message-encrypt"),
    (CKF_MESSAGE_DECRYPT, "message-decrypt"),
];

#[derive(Serialize)]
struct Row {
    mechanism: &'static str,
    number: CK_MECHANISM_TYPE,
    uses: Vec<&'static str>,
    smallest_key: CK_ULONG,
    largest_key: CK_ULONG,
}

/// Shows the mechanisms.
pub fn run(common: &Common, args: &MechanismsArgs, output: &mut Output) -> Result<(), Failure> {
    let token = match args.all {
        true => None,
        false => Some(target::token(common)?.0),
    };
    let rows: Vec<Row> = MECHANISMS
        .iter()
        .filter_map(|row| {
            let uses = token.as_ref().map_or(row.service | row.session, |token| row.uses_on(token));
            let named = USES.iter().filter(|(flag, _)| uses & flag != 0);
            (uses != 0).then(|| Row {
                mechanism: row.name,
                number: row.kind,
                uses: named.map(|(_, name)| *name).collect(),
                smallest_key: row.sizes.0,
                largest_key: row.sizes.1,
            })
        })
        .collect();
    output.show(&rows, |rows| {
        table(["MECHANISM", "NUMBER", "USES", "BITS"], rows.iter().map(Row::cells))
    })
}

impl Row {
    fn cells(&self) -> [String; 4] {
        let bits = match (self.smallest_key, self.largest_key) {
            (0, 0) => "-".to_owned(),
            (least, most) if least == most => least.to_string(),
            (least, most) => format!("{least}-{most}"),
        };
        [self.mechanism.to_owned(), format!("{:#010x}", self.number), self.uses.join(","), bits]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Properties of mechanisms, which are no uses.
    const PROPERTIES: CK_FLAGS = CKF_HW
        | CKF_EC_F_P
        | CKF_EC_F_2M
        | CKF_MULTI_MESSAGE
        | CKF_EC_ECPARAMETERS
        | CKF_EC_NAMEDCURVE
        | CKF_EC_OID
        | CKF_EC_UNCOMPRESS
        | CKF_EC_COMPRESS;

    #[test]
    fn every_use_has_a_name() {
        let named = USES.iter().fold(PROPERTIES, |flags, (flag, _)| flags | flag);
        for row in MECHANISMS {
            let uses = row.service | row.session;
            assert_eq!(uses & !named, 0, "{}: {uses:#x}", row.name);
        }
    }
}
