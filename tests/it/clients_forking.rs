//! Clients that use the module in forked helpers: p11-kit's server and OpenSSH's agent.

use crate::support::Client;

fn client(name: &'static str) -> Client {
    Client::new(name)
        .vault()
        .hsm()
        .seed("../keys.toml")
        .needs("curl", "curl")
        .needs("jq", "jq")
        .needs("openssl", "openssl")
        .needs("ps", "procps")
}

#[test]
fn p11_kit_serves_the_module_to_other_processes() {
    client("p11-kit")
        .needs("p11-kit", "p11-kit")
        .needs("pkcs11-tool", "opensc")
        .script("server.sh", &[])
        .run();
}

#[test]
fn an_ssh_agent_signs_in_its_helper() {
    client("openssh").needs("ssh-agent", "openssh-client").script("agent.sh", &[]).run();
}
