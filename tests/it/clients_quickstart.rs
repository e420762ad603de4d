//! What `make quickstart` shows: the four clients once more, as a newcomer sees them.

use crate::support::Client;

#[test]
fn four_clients_tick() {
    let output = Client::new("../../examples/quickstart")
        .needs("pkcs11-tool", "opensc")
        .needs("openssl", "openssl")
        .needs("nginx", "nginx")
        .needs("javac", "openjdk-17-jdk-headless")
        .needs("curl", "curl")
        .needs("jq", "jq")
        .option("--vault", "contoso")
        .option("--hsm", "contoso-hsm")
        .seed("keys.toml")
        .script("tour.sh", &[])
        .run();
    // What each did, counted by the services: a key made, signatures, decryptions.
    for (client, operations) in
        [("pkcs11-tool", 3), ("OpenSSL engine", 6), ("nginx", 4), ("Java", 2)]
    {
        let shown = output.lines().any(|line| {
            line.starts_with(&format!("✓ {client} "))
                && line.ends_with(&format!(": {operations} operations"))
        });
        assert!(shown, "no tick for {client} with {operations} operations in:\n{output}");
    }
}
