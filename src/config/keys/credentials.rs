//! The types of `credential`, once.

use super::{
    Absent::{Env, EnvFile, EnvIfSet, Means},
    Key,
    Kind::{Flag, Path, Secret, Text},
};
use crate::config::rules;

/// One type of `credential`.
pub struct CredentialType {
    /// Its name, the value of `type`.
    pub name: &'static str,
    /// Its keys, beside `type`.
    pub keys: &'static [Key],
    /// A sentence for the documentation.
    pub meaning: &'static str,
}

/// The types of `credential`, with the keys of each.
pub static CREDENTIALS: &[CredentialType] = &[
    CredentialType {
        name: "auto",
        keys: &[],
        meaning: "The first of these that the environment is set for when C_Initialize is called: \
                  `client-secret` (`AZURE_CLIENT_SECRET`), `client-certificate` \
                  (`AZURE_CLIENT_CERTIFICATE_PATH`), `workload-identity` \
                  (`AZURE_FEDERATED_TOKEN_FILE`); else `managed-identity`, the one that \
                  `AZURE_CLIENT_ID` names if it is set. Never starts a program.",
    },
    CredentialType {
        name: "managed-identity",
        keys: &[
            Key {
                name: "client_id",
                kind: Text(rules::id),
                absent: Means("the system-assigned identity"),
                example: r#""00000000-0000-0000-0000-000000000001""#,
                meaning: "A user-assigned identity by its application (client) id.",
            },
            Key {
                name: "object_id",
                kind: Text(rules::id),
                absent: Means("the system-assigned identity"),
                example: r#""00000000-0000-0000-0000-000000000002""#,
                meaning: "By its principal (object) id.",
            },
            Key {
                name: "resource_id",
                kind: Text(rules::text),
                absent: Means("the system-assigned identity"),
                example: r#""/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/web""#,
                meaning: "By its resource id.",
            },
        ],
        meaning: "The identity of the virtual machine, App Service or container.",
    },
    CredentialType {
        name: "workload-identity",
        keys: &[
            CLIENT_ID,
            TENANT,
            Key {
                name: "token_file",
                kind: Path,
                absent: Env("AZURE_FEDERATED_TOKEN_FILE"),
                example: r#""/var/run/secrets/azure/tokens/azure-identity-token""#,
                meaning: "The federated token, read again for each Entra token.",
            },
        ],
        meaning: "A federated token of the cluster, exchanged for an Entra token.",
    },
    CredentialType {
        name: "client-secret",
        keys: &[
            CLIENT_ID,
            TENANT,
            Key {
                name: "secret",
                kind: Secret,
                absent: Env("AZURE_CLIENT_SECRET"),
                example: r#""file:client-secret""#,
                meaning: "The client secret. A `file:` is read again when the secret is refused.",
            },
        ],
        meaning: "An application with a secret.",
    },
    CredentialType {
        name: "client-certificate",
        keys: &[
            CLIENT_ID,
            TENANT,
            Key {
                name: "certificate",
                kind: Secret,
                absent: EnvFile("AZURE_CLIENT_CERTIFICATE_PATH"),
                example: r#""file:client.pem""#,
                meaning: "PEM with the certificate and its private key, not encrypted.",
            },
            Key {
                name: "send_chain",
                kind: Flag,
                absent: EnvIfSet("AZURE_CLIENT_SEND_CERTIFICATE_CHAIN"),
                example: "true",
                meaning: "Send the certificate along (subject name and issuer authentication).",
            },
        ],
        meaning: "An application with a certificate.",
    },
    CredentialType {
        name: "azure-cli",
        keys: &[],
        meaning: "The account that `az login` signed in: starts `az` inside the host program for \
                  each token, so only where the configuration names it.",
    },
    CredentialType {
        name: "login",
        keys: &[
            Key {
                name: "client_id",
                kind: Text(rules::id),
                absent: EnvIfSet("AZURE_CLIENT_ID"),
                example: r#""00000000-0000-0000-0000-000000000001""#,
                meaning: "Application id where the PIN holds the secret only.",
            },
            TENANT,
        ],
        meaning: "None until C_Login brings it; goes with `login = \"client-secret\"`.",
    },
];

const CLIENT_ID: Key = Key {
    name: "client_id",
    kind: Text(rules::id),
    absent: Env("AZURE_CLIENT_ID"),
    example: r#""00000000-0000-0000-0000-000000000001""#,
    meaning: "Application (client) id.",
};

const TENANT: Key = Key {
    name: "tenant",
    kind: Text(rules::tenant),
    absent: EnvIfSet("AZURE_TENANT_ID"),
    example: r#""contoso.onmicrosoft.com""#,
    meaning: "The application's tenant; the token's `tenant` by another place.",
};
