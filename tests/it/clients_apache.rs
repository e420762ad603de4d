//! Apache with `SSLCryptoDevice pkcs11` and keys by URI: processes (prefork), and processes with
//! threads (event).

use crate::support::Client;

fn restarts(mpm: &str, lines: &[&str]) {
    let arguments = [&[mpm, "5"], lines].concat();
    Client::new("apache")
        .vault()
        .hsm()
        .seed("demo")
        .needs("apache2", "apache2-bin")
        .needs("openssl", "openssl")
        .needs("curl", "curl")
        .needs("jq", "jq")
        .needs("ps", "procps")
        .script("graceful.sh", &arguments)
        .run();
}

#[test]
fn processes_restart_under_load() {
    restarts("prefork", &["StartServers 4", "MinSpareServers 4", "MaxRequestWorkers 16"]);
}

#[test]
fn threads_restart_under_load() {
    restarts("event", &["StartServers 2", "ThreadsPerChild 8", "MaxRequestWorkers 32"]);
}
