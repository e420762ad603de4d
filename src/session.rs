//! Sessions: which token, which rights, and the state of each operation family.

use std::sync::{Mutex, MutexGuard, TryLockError};

use cryptoki_sys::{CK_FLAGS, CK_SESSION_HANDLE, CKF_RW_SESSION, CKF_SERIAL_SESSION};

use crate::operation::{
    Stage,
    crypt::{Decrypting, Encrypting},
    digest::Digesting,
    find::Found,
    message::{MessageCrypting, MessageSigning, MessageVerifying},
    recover::{Recovering, SigningRecoverably},
    secret::Kept,
    sign::Signing,
    verify::Verifying,
};

/// One session. Families are locked one by one: a search never waits for a signature. A family's
/// lock is held while its operation runs, requests included: it is the last in the lock order
/// (cell, sessions, objects, family), and two sessions never wait for each other.
#[derive(Debug)]
pub struct Session {
    /// Its handle.
    pub handle: CK_SESSION_HANDLE,
    /// The index of its token's slot in the module.
    pub slot: usize,
    /// Opened with CKF_RW_SESSION.
    pub read_write: bool,
    /// C_FindObjects….
    pub find: Family<Found>,
    /// C_Digest….
    pub digest: Family<Digesting>,
    /// C_Sign….
    pub sign: Family<Signing>,
    /// C_Verify….
    pub verify: Family<Verifying>,
    /// C_VerifySignature….
    pub verify_signature: Family<(Verifying, Vec<u8>)>,
    /// C_VerifyRecover.
    pub verify_recover: Family<Recovering>,
    /// C_Encrypt….
    pub encrypt: Family<Encrypting>,
    /// C_Decrypt….
    pub decrypt: Family<Decrypting>,
    /// C_SignRecover….
    pub sign_recover: Family<SigningRecoverably>,
    /// C_MessageEncrypt….
    pub message_encrypt: Family<MessageCrypting>,
    /// C_MessageDecrypt….
    pub message_decrypt: Family<MessageCrypting>,
    /// C_MessageSign….
    pub message_sign: Family<MessageSigning>,
    /// C_MessageVerify….
    pub message_verify: Family<MessageVerifying>,
    /// The value of a secret between the two calls that read it. Held for a breath.
    pub secret: Mutex<Kept>,
}

impl Session {
    /// A session without any operation.
    pub fn new(handle: CK_SESSION_HANDLE, slot: usize, read_write: bool) -> Session {
        Session {
            handle,
            slot,
            read_write,
            find: Family::default(),
            digest: Family::default(),
            sign: Family::default(),
            verify: Family::default(),
            verify_signature: Family::default(),
            encrypt: Family::default(),
            decrypt: Family::default(),
            sign_recover: Family::default(),
            verify_recover: Family::default(),
            message_encrypt: Family::default(),
            message_decrypt: Family::default(),
            message_sign: Family::default(),
            message_verify: Family::default(),
            secret: Mutex::default(),
        }
    }

    /// CK_SESSION_INFO.flags.
    pub fn flags(&self) -> CK_FLAGS {
        if self.read_write { CKF_SERIAL_SESSION | CKF_RW_SESSION } else { CKF_SERIAL_SESSION }
    }

    /// Whether no call is under way in this session. In a forked child: whether none was at the
    /// fork; a session that had one there has a lock nobody will ever give back.
    pub fn is_quiet(&self) -> bool {
        self.find.is_quiet()
            && self.digest.is_quiet()
            && self.sign.is_quiet()
            && self.verify.is_quiet()
            && self.verify_signature.is_quiet()
            && self.encrypt.is_quiet()
            && self.decrypt.is_quiet()
            && self.sign_recover.is_quiet()
            && self.verify_recover.is_quiet()
            && self.message_encrypt.is_quiet()
            && self.message_decrypt.is_quiet()
            && self.message_sign.is_quiet()
            && self.message_verify.is_quiet()
            && !matches!(self.secret.try_lock(), Err(TryLockError::WouldBlock))
    }
}

/// The stage of one operation family behind its lock.
#[derive(Debug)]
pub struct Family<T>(Mutex<Stage<T>>);

impl<T> Default for Family<T> {
    fn default() -> Self {
        Family(Mutex::new(Stage::Idle))
    }
}

impl<T> Family<T> {
    /// The stage, for the time of one call. A panic in an earlier call has ended its operation.
    pub fn lock(&self) -> MutexGuard<'_, Stage<T>> {
        let stage = self.0.lock().unwrap_or_else(|poisoned| {
            let mut stage = poisoned.into_inner();
            stage.cancel();
            self.0.clear_poison();
            stage
        });
        stumble!("session");
        stage
    }

    fn is_quiet(&self) -> bool {
        !matches!(self.0.try_lock(), Err(TryLockError::WouldBlock))
    }
}
