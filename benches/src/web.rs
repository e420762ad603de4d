//! Part five: full TLS handshakes of nginx, its key in the vault, beside the same nginx with a
//! local key and the same delay in each signature.

use std::{
    env, fs, io,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore,
    client::Resumption,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

use crate::{
    report::{Goal, Report},
    setup::{Setup, TOKEN},
    stats::median,
    twin::{WEB, local},
};

const DELAY: Duration = Duration::from_millis(5);
const CLIENTS: usize = 16;

/// Waits before each signature, where a signature in the vault would wait.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <time.h>

typedef int sign(void *, unsigned char *, size_t *, const unsigned char *, size_t);

int EVP_DigestSign(void *context, unsigned char *out, size_t *length, const unsigned char *data,
                   size_t size)
{
    static sign *next;
    struct timespec delay = {0, DELAY_NS};

    if (next == NULL)
        next = (sign *)dlsym(RTLD_NEXT, "EVP_DigestSign");
    if (out != NULL)
        nanosleep(&delay, NULL);
    return next(context, out, length, data, size);
}
"#;

/// Measures rounds of this length.
pub fn run(setup: &Setup, rounds: usize, length: Duration, report: &mut Report) -> io::Result<()> {
    report.section("nginx, 2 workers: full handshakes with ECDSA P-256");
    let mut twin = setup.twin(0, &format!("keys = ['{WEB}']"))?;
    let folder = setup.folder.path();
    let key = format!("\"engine:pkcs11:pkcs11:token={TOKEN};object={WEB};type=private\"");
    let vault = Nginx::start(setup, "vault", &key, true)?;
    let file = folder.join("web-key.pem");
    let local = Nginx::start(setup, "local", &file.display().to_string(), false)?;
    twin.delay(DELAY)?;
    let (mut keyless, mut with_key) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        keyless.push(handshakes(folder, vault.port, length)?);
        with_key.push(handshakes(folder, local.port, length)?);
    }
    let (keyless, with_key) = (median(keyless), median(with_key));
    report.figure("nginx.keyless", keyless, "handshakes/s");
    report.figure("nginx.local_key_same_delay", with_key, "handshakes/s");
    let ratio = keyless / with_key;
    report.goal("nginx.keyless_over_local", ratio, "ratio", Goal::AtLeast(0.9));
    Ok(())
}

/// Full handshakes per second that clients in a loop get.
fn handshakes(folder: &Path, port: u16, length: Duration) -> io::Result<f64> {
    let tls = client(folder)?;
    let began = Instant::now();
    let done: usize = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| -> io::Result<usize> {
                    let mut done = 0;
                    while began.elapsed() < length {
                        handshake(&tls, port)?;
                        done += 1;
                    }
                    Ok(done)
                })
            })
            .collect();
        let joined = clients.into_iter().map(|client| {
            client.join().unwrap_or_else(|_| Err(io::Error::other("a client panicked")))
        });
        joined.sum::<io::Result<usize>>()
    })?;
    Ok(done as f64 / began.elapsed().as_secs_f64())
}

fn handshake(tls: &Arc<ClientConfig>, port: u16) -> io::Result<()> {
    let mut socket = TcpStream::connect(local(port))?;
    socket.set_nodelay(true)?;
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    let mut connection = ClientConnection::new(Arc::clone(tls), name).map_err(io::Error::other)?;
    while connection.is_handshaking() {
        connection.complete_io(&mut socket)?;
    }
    Ok(())
}

fn client(folder: &Path) -> io::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(folder.join("web.pem"));
    roots.add(certificate.map_err(io::Error::other)?).map_err(io::Error::other)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// A running nginx; ends when dropped.
struct Nginx {
    child: Child,
    port: u16,
}

impl Nginx {
    fn start(setup: &Setup, name: &str, key: &str, engine: bool) -> io::Result<Nginx> {
        let folder = setup.folder.path().join(name);
        fs::create_dir(&folder)?;
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
        let engine_line = if engine { "ssl_engine pkcs11;" } else { "" };
        let home = folder.display();
        let configuration = format!(
            "{user}\ndaemon off;\nworker_processes 2;\nerror_log {home}/error.log;\n\
             pid {home}/nginx.pid;\n{engine_line}\nevents {{ worker_connections 1024; }}\n\
             http {{\n  access_log off;\n  ssl_session_tickets off;\n  ssl_session_cache off;\n\
             client_body_temp_path {home}/body;\n  proxy_temp_path {home}/proxy;\n\
             fastcgi_temp_path {home}/fastcgi;\n  uwsgi_temp_path {home}/uwsgi;\n\
             scgi_temp_path {home}/scgi;\n  server {{\n    listen 127.0.0.1:{port} ssl;\n\
             ssl_certificate {};\n    ssl_certificate_key {key};\n    return 204;\n  }}\n}}\n",
            setup.folder.path().join("web.pem").display()
        );
        fs::write(folder.join("nginx.conf"), configuration)?;
        let mut command = Command::new("nginx");
        // Where Debian has it.
        let path = env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
        command.arg("-c").arg(folder.join("nginx.conf")).arg("-p").arg(&folder);
        if engine {
            command.env("OPENSSL_CONF", openssl_conf(&folder, &setup.module)?);
            command.env("AKV_PKCS11_CONFIG", setup.config()).env("BENCH_SECRET", "secret");
        } else {
            command.env("LD_PRELOAD", shim(&folder)?);
        }
        let child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.map_err(|error| io::Error::other(format!("nginx: {error}")))?;
        let mut nginx = Nginx { child, port };
        let patience = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(local(port)).is_err() {
            if Instant::now() > patience || nginx.child.try_wait()?.is_some() {
                let log = fs::read_to_string(folder.join("error.log")).unwrap_or_default();
                return Err(io::Error::other(format!("nginx does not start: {log}")));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(nginx)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // SIGTERM, so that it ends its workers.
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

/// The pkcs11 engine (package libengine-pkcs11-openssl) with the measured module.
fn openssl_conf(folder: &Path, module: &Path) -> io::Result<PathBuf> {
    let output = Command::new("openssl").args(["version", "-e"]).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let engines = text.split('"').nth(1).unwrap_or_default();
    let path = folder.join("openssl.cnf");
    fs::write(
        &path,
        format!(
            "openssl_conf = init\n[init]\nengines = engines\n[engines]\npkcs11 = engine\n\
             [engine]\nengine_id = pkcs11\ndynamic_path = {engines}/pkcs11.so\n\
             MODULE_PATH = {}\ninit = 0\n",
            module.display()
        ),
    )?;
    Ok(path)
}

fn shim(folder: &Path) -> io::Result<PathBuf> {
    let (source, shim) = (folder.join("delay.c"), folder.join("delay.so"));
    fs::write(&source, SHIM)?;
    let nanoseconds = format!("-DDELAY_NS={}", DELAY.as_nanos());
    let mut compiler = Command::new(env::var_os("CC").unwrap_or_else(|| "cc".into()));
    let compiler = compiler.args(["-O2", "-shared", "-fPIC", &nanoseconds, "-o"]);
    match compiler.arg(&shim).arg(&source).arg("-ldl").status()?.success() {
        true => Ok(shim),
        false => Err(io::Error::other("the C compiler failed")),
    }
}
