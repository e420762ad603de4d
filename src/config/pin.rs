//! The PIN of `login = "pin"`, kept as an Argon2 hash.

use argon2::{Algorithm, Argon2, Params, PasswordVerifier, password_hash::PasswordHash};

/// 256 MiB: what a host program can be asked to spend on one C_Login.
const MAX_MEMORY_KIB: u32 = 256 * 1024;
const MAX_PASSES: u32 = 32;
const MAX_LANES: u32 = 16;

/// Whether `phc` is a PHC string that [`verify_pin`] can check a PIN against.
///
/// # Errors
/// What is wrong with it, without showing it.
pub fn check_phc(phc: &str) -> Result<(), String> {
    let hash = PasswordHash::new(phc)
        .map_err(|fault| format!("not a PHC string such as $argon2id$v=19$…: {fault}"))?;
    if Algorithm::try_from(hash.algorithm).is_err() {
        return Err(format!("{} is not an Argon2 algorithm", hash.algorithm));
    }
    if !matches!(hash.version, None | Some(16 | 19)) {
        return Err("its version is not v=16 or v=19".to_owned());
    }
    if hash.salt.is_none() || hash.hash.is_none() {
        return Err("salt or hash is missing from the PHC string".to_owned());
    }
    let params = Params::try_from(&hash).map_err(|fault| format!("its parameters: {fault}"))?;
    let limits = [
        ("m", params.m_cost(), MAX_MEMORY_KIB),
        ("t", params.t_cost(), MAX_PASSES),
        ("p", params.p_cost(), MAX_LANES),
    ];
    match limits.iter().find(|(_, value, most)| value > most) {
        Some((name, value, most)) => Err(format!("its cost {name}={value} is above {most}")),
        None => Ok(()),
    }
}

/// Whether `pin` is the PIN that `phc` was made of. Takes as long as the hash's cost says, on the
/// caller's thread; false for a string that [`check_phc`] refuses.
pub fn verify_pin(phc: &str, pin: &[u8]) -> bool {
    if check_phc(phc).is_err() {
        return false;
    }
    match PasswordHash::new(phc) {
        // Algorithm, version and cost come from the hash, not from the verifier.
        Ok(hash) => Argon2::default().verify_password(pin, &hash).is_ok(),
        Err(_) => false,
    }
}
