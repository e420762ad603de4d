//! Every mistake with its exact sentence and CKR.

use cryptoki_sys::CKR_FUNCTION_FAILED;

use super::{Folder, TOKEN_LINE, refused};
use crate::config::Env;

#[test]
fn each_mistake_has_its_sentence() {
    // A `[[token]]` with a good endpoint stands before the text, so its first line is 3.
    let in_token = [
        (
            "labell = \"x\"",
            r#"3: token 1: unknown key "labell"; the keys here are: endpoint, label, slot, serial, service, authority, scope, tenant, credential, keys, public_keys, versions, certificates, certificate_dir, certificate_chains, secrets, login, pin_hash, ca_file, address, proxy, api_version, timeout, connect_timeout, find_timeout, find_width, find_rate, cache_ttl, max_connections, replica, failover_interval, allow_delete, generate_on_existing, on_deleted_name, hsm_protection, tags, rsa_pkcs1_decrypt, rsnull, max_aes_payload, hmac, mechanisms"#,
        ),
        (
            "label = 5",
            r#"3: token 1: label needs a string, not an integer (example: "Web servers")"#,
        ),
        (
            "mechanisms = [\"RSA_PKCS\", \"-aes\"]",
            r#"3: token 1: mechanisms: "-aes" names no mechanism of docs/mechanisms.md"#,
        ),
        ("label = \"\"", r#"3: token "": label "" is empty"#),
        (
            "label = \"0123456789abcdef0123456789abcdefX\"",
            r#"3: token "0123456789abcdef0123456789abcdefX": label "0123456789abcdef0123456789abcdefX" is longer than 32 bytes"#,
        ),
        ("label = \"a\\nb\"", r#"3: token "a\nb": label "a\nb" has a control character in it"#),
        (
            "label = \"a \"",
            r#"3: token "a ": label "a " ends in a blank, which is the padding of a token label"#,
        ),
        (
            "serial = \"0123456789abcdefX\"",
            r#"3: token 1: serial "0123456789abcdefX" is longer than 16 characters"#,
        ),
        ("serial = \"é\"", r#"3: token 1: serial "é" is not printable ASCII"#),
        ("slot = -1", "3: token 1: slot -1 is not between 0 and 4294967294"),
        (
            "slot = 99999999999999999999",
            "3: token 1: slot needs an integer from 0 to 4294967294, not an integer of more than 64 bits (example: 17)",
        ),
        (
            "slot = 1.5",
            "3: token 1: slot needs an integer from 0 to 4294967294, not a float (example: 17)",
        ),
        (
            "label = \"x\"\napi_version = \"9\"",
            r#"4: token "x": api_version "9" is not one of 7.2, 7.3, 7.4, 7.5, 7.6, 2025-07-01, 2026-04-01"#,
        ),
        (
            "service = \"managed-hsm\"",
            r#"3: token 1: service "managed-hsm" contradicts the endpoint's suffix .vault.azure.net"#,
        ),
        ("service = \"hsm\"", r#"3: token 1: service "hsm" is not one of vault, managed-hsm"#),
        (
            "authority = \"http://login.microsoftonline.com\"",
            r#"3: token 1: authority "http://login.microsoftonline.com" does not begin with https://"#,
        ),
        (
            "authority = \"https://login.microsoftonline.com/tenant\"",
            r#"3: token 1: authority "https://login.microsoftonline.com/tenant" has a path; only https://host[:port] belongs there"#,
        ),
        (
            "scope = \"https://vault.azure.net\"",
            r#"3: token 1: scope "https://vault.azure.net" does not end in /.default"#,
        ),
        ("scope = \"a b/.default\"", r#"3: token 1: scope "a b/.default" is not an OAuth 2 scope"#),
        ("tenant = \"a/b\"", r#"3: token 1: tenant "a/b" is not a tenant GUID or domain name"#),
        (
            "address = \"vault.internal\"",
            r#"3: token 1: address "vault.internal" is not an IP address or IP:PORT"#,
        ),
        (
            "address = \"10.0.0.4:0\"",
            r#"3: token 1: address "10.0.0.4:0" is not an IP address or IP:PORT"#,
        ),
        (
            "proxy = \"socks5://p:1\"",
            r#"3: token 1: proxy "socks5://p:1" does not begin with http://"#,
        ),
        (
            "proxy = \"http://user:hunter2@p:1\"",
            "3: token 1: proxy has a user name or password in it; only the host belongs there",
        ),
        (
            "replica = [{ endpoint = \"https://contoso.managedhsm.azure.net\" }]",
            r#"3: token 1: replica: endpoint "https://contoso.managedhsm.azure.net" has another suffix than the token's endpoint: replicas are the same service in the same cloud"#,
        ),
        (
            "replica = [{ endpoint = \"https://contoso.vault.azure.net:443\" }]",
            r#"3: token 1: replica: endpoint "https://contoso.vault.azure.net:443" is given twice"#,
        ),
        (
            "replica = [{ endpoint = \"https://b.vault.azure.net\", versions = { \"k\" = \"v\" } }]",
            r#"3: token 1: replica: versions: "k" is not a key's name/version at the token's endpoint"#,
        ),
        ("keys = []", "3: token 1: keys is empty; leave it out to show every key"),
        (
            "keys = [\n\"a\",\n\"a_b\"]",
            r#"5: token 1: keys: "a_b" is not a key name: 1 to 127 letters, digits and hyphens, then perhaps /version"#,
        ),
        (
            "keys = [\"a/12\"]",
            r#"3: token 1: keys: "a/12" has a version that is not 32 hex digits"#,
        ),
        ("keys = [\"www\", \"WWW\"]", r#"3: token 1: keys: "WWW" is given twice"#),
        (
            "keys = \"www\"",
            r#"3: token 1: keys needs an array of strings, not a string (example: ["www", "mail/0123456789abcdef0123456789abcdef"])"#,
        ),
        ("secrets = []", "3: token 1: secrets is empty; leave it out to show none"),
        (
            "secrets = [\"a_b\"]",
            r#"3: token 1: secrets: "a_b" is not a secret's name (1 to 127 letters, digits and hyphens), nor "*""#,
        ),
        ("secrets = [\"*\", \"a\"]", r#"3: token 1: secrets: "*" means all, so it stands alone"#),
        ("versions = \"all\"", r#"3: token 1: versions "all" is not one of current, enabled"#),
        (
            "certificates = [\"none.pem\"]",
            "3: token 1: certificates: DIR/none.pem: no such file or directory",
        ),
        (
            "certificates = [\"client-secret\"]",
            "3: token 1: certificates: DIR/client-secret: no certificate in PEM form in it",
        ),
        ("certificates = [\".\"]", "3: token 1: certificates: DIR/.: not a regular file"),
        (
            "public_keys = { www = \"none.pem\" }",
            "3: token 1: public_keys: DIR/none.pem: no such file or directory",
        ),
        (
            "public_keys = { www = \"client-secret\" }",
            "3: token 1: public_keys: DIR/client-secret: neither a public key nor a certificate in PEM form in it",
        ),
        (
            "public_keys = { \"a/b\" = \"www-key.pem\" }",
            r#"3: token 1: public_keys: "a/b" has a version that is not 32 hex digits"#,
        ),
        (
            "public_keys = { www = \"www-key.pem\", WWW = \"www-key.pem\" }",
            r#"3: token 1: public_keys: "www" is given twice"#,
        ),
        (
            "public_keys = { www = \"www-key.pem\" }\nkeys = [\"mail\"]",
            r#"3: token 1: public_keys: "www" is not one of `keys`"#,
        ),
        (
            "certificate_dir = \"nowhere\"",
            "3: token 1: certificate_dir: DIR/nowhere: no such file or directory",
        ),
        ("ca_file = \"none.pem\"", "3: token 1: ca_file: DIR/none.pem: no such file or directory"),
        ("login = \"yes\"", r#"3: token 1: login "yes" is not one of none, client-secret, pin"#),
        ("login = \"pin\"", "1: token 1: pin_hash is missing"),
        (
            "login = \"pin\"\npin_hash = \"1234\"",
            "4: token 1: pin_hash: not a PHC string such as $argon2id$v=19$…: password hash string missing field",
        ),
        (
            "login = \"pin\"\npin_hash = \"$pbkdf2$i=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo\"",
            "4: token 1: pin_hash: pbkdf2 is not an Argon2 algorithm",
        ),
        (
            "login = \"pin\"\npin_hash = \"$argon2id$v=19$m=4194304,t=3,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo\"",
            "4: token 1: pin_hash: its cost m=4194304 is above 262144",
        ),
        (
            "login = \"pin\"\npin_hash = \"$argon2id$v=19$m=16,t=1,p=1$c2FsdHNhbHQ\"",
            "4: token 1: pin_hash: salt or hash is missing from the PHC string",
        ),
        ("pin_hash = \"file:pin.phc\"", "3: token 1: pin_hash is given, but login is not \"pin\""),
        (
            "login = \"client-secret\"\ncredential = \"azure-cli\"",
            r#"3: token 1: login "client-secret" goes with credential = "login" only"#,
        ),
        (
            "credential = \"login\"",
            "3: token 1: credential \"login\" needs login = \"client-secret\"",
        ),
        (
            "credential = \"default\"",
            r#"3: token 1: credential "default" is not one of auto, managed-identity, workload-identity, client-secret, client-certificate, azure-cli, login"#,
        ),
        (
            "credential = 3",
            "3: token 1: credential needs one of the strings auto, managed-identity, workload-identity, client-secret, client-certificate, azure-cli, login or a table with such a type, not an integer (example: \"managed-identity\")",
        ),
        ("credential = {}", "3: token 1: the credential's type is missing"),
        ("credential = { type = 1 }", "3: token 1: type needs a string, not an integer"),
        (
            "credential = { type = \"auto\", client_id = \"a\" }",
            r#"3: token 1: credential "auto": unknown key "client_id"; it has none"#,
        ),
        (
            "credential = { type = \"azure-cli\", client_id = \"a\" }",
            r#"3: token 1: credential "azure-cli": unknown key "client_id"; the keys here are: none"#,
        ),
        (
            "credential = \"client-secret\"",
            r#"3: token 1: credential "client-secret": client_id is missing, and AZURE_CLIENT_ID is not set"#,
        ),
        (
            "credential = { type = \"client-secret\", client_id = \"a b\" }",
            r#"3: token 1: credential "client-secret": client_id "a b" is not an id such as 00000000-0000-0000-0000-000000000000"#,
        ),
        (
            "credential = { type = \"client-secret\", client_id = \"a\" }",
            r#"3: token 1: credential "client-secret": secret is missing, and AZURE_CLIENT_SECRET is not set"#,
        ),
        (
            "credential = { type = \"client-secret\", client_id = \"a\", secret = 5 }",
            r#"3: token 1: credential "client-secret": secret needs a string with env:NAME, file:PATH or the secret, not an integer (example: "file:client-secret")"#,
        ),
        (
            "credential = { type = \"client-secret\", client_id = \"a\", secret = \"\" }",
            r#"3: token 1: credential "client-secret": secret: it is empty; give env:NAME, file:PATH or the secret"#,
        ),
        (
            "credential = { type = \"client-secret\", client_id = \"a\", secret = \"env:NOPE\" }",
            r#"3: token 1: credential "client-secret": secret: the environment variable NOPE is not set"#,
        ),
        (
            "credential = { type = \"client-secret\", client_id = \"a\", secret = \"file:nope\" }",
            r#"3: token 1: credential "client-secret": secret: DIR/nope: no such file or directory"#,
        ),
        (
            "tenant = \"t\"\n[token.credential]\ntype = \"client-secret\"\nclient_id = \"a\"\nsecret = \"x\"\ntenant = \"u\"",
            r#"3: token 1: tenant "t" is not the credential's tenant "u""#,
        ),
        (
            "credential = { type = \"client-certificate\", client_id = \"a\", certificate = \"file:www.pem\" }",
            r#"3: token 1: credential "client-certificate": certificate: DIR/www.pem: no private key in PEM form in it"#,
        ),
        (
            "credential = { type = \"client-certificate\", client_id = \"a\", certificate = \"abc\" }",
            r#"3: token 1: credential "client-certificate": certificate: its value: no certificate in PEM form in it"#,
        ),
        (
            "credential = { type = \"workload-identity\", client_id = \"a\" }",
            r#"3: token 1: credential "workload-identity": token_file is missing, and AZURE_FEDERATED_TOKEN_FILE is not set"#,
        ),
        (
            "credential = { type = \"managed-identity\", client_id = \"a\", object_id = \"b\" }",
            r#"3: token 1: credential "managed-identity": give only one of client_id, object_id, resource_id"#,
        ),
        (
            "timeout = 5",
            r#"3: token 1: timeout needs a string with a duration, not an integer (example: "5s")"#,
        ),
        (
            "timeout = \"soon\"",
            r#"3: token 1: timeout "soon" is not a duration such as 1500ms, 10s or 2m"#,
        ),
        ("timeout = \"1ms\"", r#"3: token 1: timeout "1ms" is not between 100ms and 10m"#),
        ("find_width = 0", "3: token 1: find_width 0 is not between 1 and 256"),
        (
            "allow_delete = \"yes\"",
            "3: token 1: allow_delete needs true or false, not a string (example: true)",
        ),
        ("tags = { akv-p11 = \"x\" }", r#"3: token 1: tags: "akv-p11" is this module's own"#),
        (
            "tags = { a = 1 }",
            r#"3: token 1: tags needs a table of strings, not a table (example: { owner = "web" })"#,
        ),
        ("timeout = \"5s\"\ntimeout = \"6s\"", "4: not valid TOML: duplicate key"),
        ("timeout = ", "3: not valid TOML: string values must be quoted, expected literal string"),
    ];
    let folder = Folder::new();
    for (text, sentence) in in_token {
        let whole = format!("{TOKEN_LINE}{text}\n");
        let (found, rv) = refused(&folder, folder.load(&whole, &Env::empty()));
        assert_eq!(found, format!("DIR/config.toml:{sentence}"), "{text}");
        assert_eq!(rv, CKR_FUNCTION_FAILED, "{text}");
    }
}

#[test]
fn mistakes_outside_of_one_token() {
    let whole = [
        (
            "",
            ": token is missing (example: token = [{ endpoint = \"https://contoso.vault.azure.net\" }])",
        ),
        (
            "[[token]]\nendpoint = \"https://10.0.0.5\"\nservice = \"vault\"\nauthority = \"https://10.0.0.6\"\nscope = \"https://vault.azure.net/.default\"\naddress = \"10.0.0.4\"",
            r#":6: token 1: address "10.0.0.4" is of no use: the endpoint names an IP address"#,
        ),
        ("token = []", ":1: there is no [[token]]; one vault or HSM needs one"),
        (
            "[token]",
            ":1: token needs an array of tables, not a table (example: [{ endpoint = \"https://contoso.vault.azure.net\" }])",
        ),
        (
            "[[token]]\nlabel = \"x\"",
            ":1: token \"x\": endpoint is missing (example: endpoint = \"https://contoso.vault.azure.net\")",
        ),
        ("[[tokens]]", ":1: unknown key \"tokens\"; the keys here are: log, metrics_dir, token"),
        (
            "[[token]]\nendpoint = \"contoso.vault.azure.net\"",
            ":2: token 1: endpoint \"contoso.vault.azure.net\" is not a URL https://host: relative URL without a base",
        ),
        (
            "[[token]]\nendpoint = \"http://contoso.vault.azure.net\"",
            ":2: token 1: endpoint \"http://contoso.vault.azure.net\" does not begin with https://",
        ),
        (
            "[[token]]\nendpoint = \"https://contoso.vault.azure.net/keys\"",
            ":2: token 1: endpoint \"https://contoso.vault.azure.net/keys\" has a path; only https://host[:port] belongs there",
        ),
        (
            "[[token]]\nendpoint = \"https://contoso.vault.azure.net?a\"",
            ":2: token 1: endpoint \"https://contoso.vault.azure.net?a\" has a query; only https://host[:port] belongs there",
        ),
        (
            "[[token]]\nendpoint = \"https://contoso.vault.azure.net#a\"",
            ":2: token 1: endpoint \"https://contoso.vault.azure.net#a\" has a fragment; only https://host[:port] belongs there",
        ),
        (
            "[[token]]\nendpoint = \"https://a:hunter2@contoso.vault.azure.net\"",
            ":2: token 1: endpoint has a user name or password in it; only the host belongs there",
        ),
        (
            "[[token]]\nendpoint = \"https://kv.corp.example\"",
            ":2: token 1: endpoint host \"kv.corp.example\" has no suffix of Azure, so service, authority and scope must be given; service is missing",
        ),
        (
            "[[token]]\nendpoint = \"https://.vault.azure.net\"",
            ":2: token 1: endpoint \"https://.vault.azure.net\" has a host with an empty label: \".vault.azure.net\"",
        ),
        (
            "[[token]]\nendpoint = \"https:..a..vault.azure.net\"",
            ":2: token 1: endpoint \"https:..a..vault.azure.net\" has a host with an empty label: \"..a..vault.azure.net\"",
        ),
        (
            "[[token]]\nendpoint = \"https://kv.corp.example\"\nservice = \"vault\"",
            ":2: token 1: endpoint host \"kv.corp.example\" has no suffix of Azure, so service, authority and scope must be given; authority is missing",
        ),
        (
            "[[token]]\nendpoint = \"https://kv.corp.example\"\nservice = \"vault\"\nauthority = \"https://login.corp.example\"",
            ":2: token 1: endpoint host \"kv.corp.example\" has no suffix of Azure, so service, authority and scope must be given; scope is missing",
        ),
        (
            "[[token]]\nendpoint = \"https://h.managedhsm.azure.net\"\nhsm_protection = false",
            ":3: token 1: hsm_protection false is not possible on a Managed HSM",
        ),
        (
            "[[token]]\nendpoint = \"https://a.vault.azure.net\"\n[[token]]\nendpoint = \"https://a.vault.azure.cn\"",
            ":3: token \"a\": label \"a\" is that of an earlier token; give this one its own",
        ),
        (
            "[[token]]\nendpoint = \"https://a.vault.azure.net\"\n[[token]]\nendpoint = \"https://b.vault.azure.net\"\nslot = 0",
            ":3: token \"b\": slot 0 is that of an earlier token; give this one its own",
        ),
        (
            "[log]\nlevel = \"loud\"\n[[token]]\nendpoint = \"https://a.vault.azure.net\"",
            ":2: log: level \"loud\" is not one of off, error, warn, info, debug, trace",
        ),
        (
            "[log]\nsink = \"/tmp/x\"\n[[token]]\nendpoint = \"https://a.vault.azure.net\"",
            ":2: log: sink \"/tmp/x\" is not stderr, syslog or file:PATH",
        ),
    ];
    let folder = Folder::new();
    for (text, sentence) in whole {
        let (found, rv) = refused(&folder, folder.load(text, &Env::empty()));
        assert_eq!(found, format!("DIR/config.toml{sentence}"), "{text}");
        assert_eq!(rv, CKR_FUNCTION_FAILED, "{text}");
    }
}
