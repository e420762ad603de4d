//! Slots, tokens and mechanisms: all local, whatever the network does.

use std::ffi::c_void;

use cryptoki_sys::*;

use super::{
    arg::{List, Place},
    general::{library_version, padded},
    not_supported,
};
use crate::{
    config::Service,
    error::{Error, Result},
    module::Module,
    slot::Slot,
};

const MANUFACTURER: &str = "Microsoft Azure";

pub(super) fn list(module: &Module, _present: CK_BBOOL, slots: List<'_, CK_SLOT_ID>) -> Result<()> {
    // A token is always present: whether its service can be reached shows when it is needed.
    let ids: Vec<CK_SLOT_ID> = module.slots().iter().map(|slot| slot.id).collect();
    slots.deliver(&ids)
}

pub(super) fn info(_: &Module, slot: &Slot, info: Place<'_, CK_SLOT_INFO>) -> Result<()> {
    info.put(CK_SLOT_INFO {
        slotDescription: padded(&slot.token.endpoint.host),
        manufacturerID: padded(MANUFACTURER),
        flags: CKF_TOKEN_PRESENT,
        hardwareVersion: CK_VERSION { major: 0, minor: 0 },
        firmwareVersion: library_version(),
    })
}

pub(super) fn token_info(
    module: &Module,
    slot: &Slot,
    info: Place<'_, CK_TOKEN_INFO>,
) -> Result<()> {
    let login = if slot.needs_login() { CKF_LOGIN_REQUIRED } else { 0 };
    let (sessions, writing) = module.session_counts(slot);
    info.put(CK_TOKEN_INFO {
        label: padded(&slot.token.label),
        manufacturerID: padded(MANUFACTURER),
        model: padded(match slot.token.endpoint.service {
            Service::Vault => "Key Vault",
            Service::ManagedHsm => "Managed HSM",
        }),
        serialNumber: padded(&slot.token.serial),
        flags: CKF_RNG | CKF_TOKEN_INITIALIZED | CKF_USER_PIN_INITIALIZED | login,
        ulMaxSessionCount: CK_EFFECTIVELY_INFINITE,
        ulSessionCount: sessions as CK_ULONG,
        ulMaxRwSessionCount: CK_EFFECTIVELY_INFINITE,
        ulRwSessionCount: writing as CK_ULONG,
        ulMaxPinLen: MAX_PIN,
        ulMinPinLen: 0,
        ulTotalPublicMemory: CK_UNAVAILABLE,
        ulFreePublicMemory: CK_UNAVAILABLE,
        ulTotalPrivateMemory: CK_UNAVAILABLE,
        ulFreePrivateMemory: CK_UNAVAILABLE,
        hardwareVersion: CK_VERSION { major: 0, minor: 0 },
        firmwareVersion: library_version(),
        utcTime: padded(""),
    })
}

/// A PIN may be a client id and a client secret.
const MAX_PIN: CK_ULONG = 256;
const CK_UNAVAILABLE: CK_ULONG = super::arg::CK_UNAVAILABLE_INFORMATION;

pub(super) fn mechanism_list(
    _: &Module,
    slot: &Slot,
    list: List<'_, CK_MECHANISM_TYPE>,
) -> Result<()> {
    list.deliver(&slot.mechanisms())
}

pub(super) fn mechanism_info(
    _: &Module,
    slot: &Slot,
    kind: CK_MECHANISM_TYPE,
    info: Place<'_, CK_MECHANISM_INFO>,
) -> Result<()> {
    info.needed()?;
    let (mechanism, uses) = slot.mechanism(kind)?;
    info.put(CK_MECHANISM_INFO {
        ulMinKeySize: mechanism.sizes.0,
        ulMaxKeySize: mechanism.sizes.1,
        flags: uses,
    })
}

pub(super) fn wait_for_event(
    _: &Module,
    flags: CK_FLAGS,
    _slot: Place<'_, CK_SLOT_ID>,
    _reserved: Place<'_, c_void>,
) -> Result<()> {
    if flags & CKF_DONT_BLOCK != 0 {
        return Err(Error::new(CKR_NO_EVENT, "tokens do not come and go"));
    }
    Err(not_supported("C_WaitForSlotEvent that blocks"))
}
