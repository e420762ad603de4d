//! What clients ask key pairs to be.

use cryptoki_sys::*;

use super::{F4, ec, rsa};
use crate::{
    signing::{P256, P384},
    token::{Mechanism, Template, bytes, flag, number},
};

/// Name, mechanism, public template, private template.
pub type Client = (&'static str, Mechanism, Template, Template);

/// Templates as the clients' sources and traces have them, for keys on the token.
pub fn clients() -> Vec<Client> {
    let id = || bytes(CKA_ID, [0xAB, 1]);
    let tool_public = |label: &str, own: Template| {
        let common = vec![
            number(CKA_CLASS, CKO_PUBLIC_KEY),
            flag(CKA_TOKEN, true),
            flag(CKA_VERIFY, true),
            bytes(CKA_LABEL, label),
            id(),
            flag(CKA_PRIVATE, false),
        ];
        [common, own].concat()
    };
    let tool_private = |label: &str, kind| {
        vec![
            number(CKA_CLASS, CKO_PRIVATE_KEY),
            flag(CKA_TOKEN, true),
            flag(CKA_PRIVATE, true),
            flag(CKA_SENSITIVE, true),
            flag(CKA_SIGN, true),
            number(CKA_KEY_TYPE, kind),
            bytes(CKA_LABEL, label),
            id(),
        ]
    };
    let libp11_public = |label: &str, own: Template| {
        let common = vec![id(), bytes(CKA_LABEL, label), flag(CKA_TOKEN, true)];
        [common, own].concat()
    };
    let libp11_private = |label: &str, own: Template| {
        let common = vec![
            id(),
            bytes(CKA_LABEL, label),
            flag(CKA_PRIVATE, true),
            flag(CKA_TOKEN, true),
            flag(CKA_SENSITIVE, true),
            flag(CKA_EXTRACTABLE, false),
        ];
        [common, own].concat()
    };
    vec![
        (
            "pkcs11-tool-rsa",
            rsa(),
            tool_public(
                "pkcs11-tool-rsa",
                vec![
                    number(CKA_MODULUS_BITS, 2048),
                    bytes(CKA_PUBLIC_EXPONENT, F4),
                    flag(CKA_ENCRYPT, true),
                    number(CKA_KEY_TYPE, CKK_RSA),
                ],
            ),
            {
                let mut private = tool_private("pkcs11-tool-rsa", CKK_RSA);
                private.push(flag(CKA_DECRYPT, true));
                private
            },
        ),
        (
            "pkcs11-tool-ec",
            ec(),
            tool_public(
                "pkcs11-tool-ec",
                vec![bytes(CKA_EC_PARAMS, P384), number(CKA_KEY_TYPE, CKK_EC)],
            ),
            {
                let mut private = tool_private("pkcs11-tool-ec", CKK_EC);
                private.push(flag(CKA_DERIVE, true));
                private
            },
        ),
        (
            "libp11-rsa",
            rsa(),
            libp11_public(
                "libp11-rsa",
                vec![
                    flag(CKA_WRAP, true),
                    flag(CKA_VERIFY, true),
                    flag(CKA_ENCRYPT, true),
                    number(CKA_MODULUS_BITS, 2048),
                    bytes(CKA_PUBLIC_EXPONENT, F4),
                ],
            ),
            libp11_private(
                "libp11-rsa",
                vec![flag(CKA_UNWRAP, true), flag(CKA_SIGN, true), flag(CKA_DECRYPT, true)],
            ),
        ),
        (
            "libp11-ec",
            ec(),
            libp11_public(
                "libp11-ec",
                vec![bytes(CKA_EC_PARAMS, P256), flag(CKA_VERIFY, true), flag(CKA_DERIVE, true)],
            ),
            libp11_private("libp11-ec", vec![flag(CKA_SIGN, true), flag(CKA_DERIVE, true)]),
        ),
        (
            // SunPKCS11 with attributes(generate, CKO_PRIVATE_KEY, *) = { CKA_TOKEN = true … }.
            "SunPKCS11",
            rsa(),
            vec![
                number(CKA_CLASS, CKO_PUBLIC_KEY),
                number(CKA_KEY_TYPE, CKK_RSA),
                flag(CKA_TOKEN, false),
                number(CKA_MODULUS_BITS, 2048),
                bytes(CKA_PUBLIC_EXPONENT, F4),
            ],
            vec![
                number(CKA_CLASS, CKO_PRIVATE_KEY),
                number(CKA_KEY_TYPE, CKK_RSA),
                flag(CKA_TOKEN, true),
                flag(CKA_SENSITIVE, true),
                flag(CKA_EXTRACTABLE, false),
                bytes(CKA_LABEL, "SunPKCS11"),
                id(),
            ],
        ),
    ]
}
