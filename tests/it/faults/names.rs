//! Names that cannot be resolved. resolv.conf(5) knows no ports, so a name server of our own is
//! that of a whole network: the test runs in name spaces of its own for network and mounts.

use std::{
    thread,
    time::{Duration, Instant},
};

use cryptoki_sys::*;
use serde_json::json;

use super::{SLACK, TIMEOUT, find, start, told_once};
use crate::{
    service::Emulator,
    token::{Mechanism, is_apart},
};

/// The machine's name server is this machine, and nothing else can be reached.
const PREPARATION: &str = "ip link set lo up
    printf 'nameserver 127.0.0.1\\noptions attempts:1\\n' >resolv.conf
    mount --bind resolv.conf /etc/resolv.conf";

#[test]
fn a_name_server_in_trouble_is_told_in_time() {
    if !is_apart("faults::names::a_name_server_in_trouble_is_told_in_time", PREPARATION) {
        return;
    }
    let seed = "keys = [{ name = 'ec', kty = 'EC', curve = 'P-256' }]";
    let config = "dns_port = 53\n[[vault]]\nname = 'kv1'\n[switches]\ndns_ttl = 1\n";
    let emulator = Emulator::configured(seed, config);
    let host = "kv1.vault.azure.net";
    let token = emulator.token_at(&format!("https://{host}:{}", emulator.port("kv1")), "kv1", "");
    for (trouble, sentence) in [
        ("silent", "DNS: server 127.0.0.1:53 about kv1.vault.azure.net: "),
        ("serv-fail", "Server Failure"),
        ("refused", "Query Refused"),
        ("nx-domain", "the name kv1.vault.azure.net does not exist or has no address"),
        ("no-data", "the name kv1.vault.azure.net does not exist or has no address"),
    ] {
        emulator.reset();
        emulator.trouble(&json!({ "operation": "dns", "name": host, "dns": trouble }).to_string());
        let log = emulator.folder.path().join(trouble);
        let module = start(&log, &token);
        let session = module.open(0);
        let started = Instant::now();
        assert_eq!(find(&session, "ec"), Err(CKR_DEVICE_ERROR), "{trouble}");
        assert!(started.elapsed() < TIMEOUT + SLACK, "{trouble}: {:?}", started.elapsed());
        told_once(&log, "C_FindObjectsInit", CKR_DEVICE_ERROR, &["token 'kv1'", sentence]);
        assert_eq!(emulator.requests("kv1"), 0, "{trouble}");
        let asked = emulator.requests("dns");
        assert!((1..=12).contains(&asked), "{trouble}: {asked} queries");
        emulator.no_trouble();
    }
    // What is known is asked on while nobody tells where it is now.
    let log = emulator.folder.path().join("known");
    let module = start(&log, &token);
    let session = module.open(0);
    let key = session.object(CKO_PRIVATE_KEY, "ec");
    for trouble in ["silent", "serv-fail"] {
        thread::sleep(Duration::from_millis(1100));
        emulator.trouble(&json!({ "operation": "dns", "name": host, "dns": trouble }).to_string());
        let started = Instant::now();
        let signed = session.sign(&Mechanism::plain(CKM_ECDSA), key, &[1; 32]);
        assert_eq!(signed.map(drop), Ok(()), "{trouble}");
        assert!(started.elapsed() < TIMEOUT, "{trouble}: {:?}", started.elapsed());
        emulator.no_trouble();
    }
}
