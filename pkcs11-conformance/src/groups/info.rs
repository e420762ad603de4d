//! What the library, slots, tokens and mechanisms say of themselves.

use std::collections::BTreeSet;

use cryptoki_sys::*;

use crate::{
    case::{Case, Group, Outcome, ensure, skip},
    client::{Rv, check},
    context::{Context, is, need, one_of},
    ffi::{NULL, Word, place, write},
    functions::Function::{self, *},
    names,
};

/// The group.
pub const GROUP: Group = Group {
    name: "info",
    title: "library, slots, token, mechanisms",
    patience: 30,
    cases: &[
        Case {
            id: "library",
            clause: "5.4 C_GetInfo",
            title: "Texts are padded with blanks, no flag is set, the version is a list's.",
            run: library,
        },
        Case {
            id: "slot-list",
            clause: "5.5 C_GetSlotList",
            title: "NULL_PTR asks for the number; too little room is CKR_BUFFER_TOO_SMALL and \
                    the number; enough room is filled.",
            run: slot_list,
        },
        Case {
            id: "slot-list-present",
            clause: "5.5 C_GetSlotList",
            title: "Slots with a token are among all slots, and say CKF_TOKEN_PRESENT.",
            run: slot_list_present,
        },
        Case {
            id: "slot-texts",
            clause: "5.5 C_GetSlotInfo",
            title: "Texts are padded with blanks; only known flags are set.",
            run: slot_texts,
        },
        Case {
            id: "token-texts",
            clause: "5.5 C_GetTokenInfo",
            title: "Texts are padded with blanks.",
            run: token_texts,
        },
        Case {
            id: "token-numbers",
            clause: "5.5 C_GetTokenInfo",
            title: "Numbers fit together: PIN lengths, session counts, the clock.",
            run: token_numbers,
        },
        Case {
            id: "token-sessions",
            clause: "5.5 C_GetTokenInfo",
            title: "The session counts count this application's sessions, or are unavailable.",
            run: token_sessions,
        },
        Case {
            id: "mechanism-list",
            clause: "5.5 C_GetMechanismList",
            title: "NULL_PTR asks for the number; too little room is CKR_BUFFER_TOO_SMALL and \
                    the number; enough room is filled.",
            run: mechanism_list,
        },
        Case {
            id: "mechanism-infos",
            clause: "5.5 C_GetMechanismInfo",
            title: "Each listed mechanism, listed once, has information: a use, sizes in order.",
            run: mechanism_infos,
        },
        Case {
            id: "mechanism-unlisted",
            clause: "5.5 C_GetMechanismInfo",
            title: "A mechanism that is not listed is CKR_MECHANISM_INVALID.",
            run: mechanism_unlisted,
        },
        Case {
            id: "slot-event",
            clause: "5.5 C_WaitForSlotEvent",
            title: "With CKF_DONT_BLOCK there is an event, or CKR_NO_EVENT.",
            run: slot_event,
        },
    ],
};

fn padded(name: &str, field: &[u8]) -> Outcome {
    ensure(!field.contains(&0), || format!("{name} has NUL bytes: blanks pad it"))?;
    ensure(std::str::from_utf8(field).is_ok(), || format!("{name} is not UTF-8"))
}

fn library(context: &mut Context) -> Outcome {
    context.slot()?;
    let mut info = CK_INFO::default();
    need(check(context.module.call(C_GetInfo, &[place(&mut info)])), "C_GetInfo")?;
    padded("manufacturerID", &info.manufacturerID)?;
    padded("libraryDescription", &info.libraryDescription)?;
    let flags = info.flags;
    ensure(flags == 0, || format!("flags {flags:#x}"))?;
    let version = (info.cryptokiVersion.major, info.cryptokiVersion.minor);
    let mut lists = vec![context.module.list.version];
    lists.extend(context.module.function_list().map(|list| list.version));
    ensure(lists.iter().any(|list| list.0 == version.0), || {
        format!("cryptokiVersion {version:?}, but the lists are {lists:?}")
    })
}

/// The protocol of C_GetSlotList and C_GetMechanismList.
fn listing(context: &Context, function: Function, first: Word<'_>) -> Outcome {
    let call = |room: Option<usize>| -> (Rv, usize, Vec<CK_ULONG>) {
        let mut list = vec![CK_ULONG::MAX; room.unwrap_or(0) + 8];
        let mut count = room.unwrap_or(0) as CK_ULONG;
        let start = if room.is_some() { write(&mut list) } else { NULL };
        let rv = check(context.module.call(function, &[first, start, place(&mut count)]));
        (rv, count as usize, list)
    };
    let (rv, count, _) = call(None);
    need(rv, "query")?;
    if count == 0 {
        return skip("nothing is listed");
    }
    let (rv, told, list) = call(Some(count - 1));
    is(rv, CKR_BUFFER_TOO_SMALL, "too little room")?;
    ensure(told == count, || format!("too little room: told {told}, there are {count}"))?;
    ensure(list[count - 1..].iter().all(|one| *one == CK_ULONG::MAX), || {
        "too little room: written beyond it".to_owned()
    })?;
    for room in [count, count + 5] {
        let (rv, told, list) = call(Some(room));
        is(rv, CKR_OK, &format!("room for {room}"))?;
        ensure(told == count, || format!("room for {room}: told {told}, there are {count}"))?;
        let distinct: BTreeSet<_> = list[..count].iter().collect();
        ensure(distinct.len() == count, || "something is listed twice".to_owned())?;
    }
    Ok(())
}

fn slot_list(context: &mut Context) -> Outcome {
    context.slot()?;
    for present in [0, 1] {
        context.each(format!("tokenPresent {present}"), |context| {
            listing(context, C_GetSlotList, CK_ULONG::from(present as u8).into())
        });
    }
    Ok(())
}

fn slot_info(context: &Context, slot: CK_SLOT_ID) -> Outcome<CK_SLOT_INFO> {
    let mut info = CK_SLOT_INFO::default();
    let rv = context.module.call(C_GetSlotInfo, &[slot.into(), place(&mut info)]);
    need(check(rv), "C_GetSlotInfo")?;
    Ok(info)
}

fn slot_list_present(context: &mut Context) -> Outcome {
    context.slot()?;
    let all = need(context.slots(false), "C_GetSlotList")?;
    let present = need(context.slots(true), "C_GetSlotList")?;
    for slot in &present {
        ensure(all.contains(slot), || format!("slot {slot} is not among all"))?;
    }
    for slot in all {
        let says = slot_info(context, slot)?.flags & CKF_TOKEN_PRESENT != 0;
        let listed = present.contains(&slot);
        ensure(says == listed, || format!("slot {slot}: flag {says}, listed {listed}"))?;
    }
    Ok(())
}

fn slot_texts(context: &mut Context) -> Outcome {
    let slot = context.slot()?;
    let info = slot_info(context, slot)?;
    padded("slotDescription", &info.slotDescription)?;
    padded("manufacturerID", &info.manufacturerID)?;
    let known = CKF_TOKEN_PRESENT | CKF_REMOVABLE_DEVICE | CKF_HW_SLOT;
    ensure(info.flags & !known == 0, || format!("unknown flags {:#x}", info.flags))
}

fn token_texts(context: &mut Context) -> Outcome {
    let slot = context.slot()?;
    let info = need(context.token_info(slot), "C_GetTokenInfo")?;
    padded("label", &info.label)?;
    padded("manufacturerID", &info.manufacturerID)?;
    padded("model", &info.model)?;
    padded("serialNumber", &info.serialNumber)
}

fn token_numbers(context: &mut Context) -> Outcome {
    let slot = context.slot()?;
    let info = need(context.token_info(slot), "C_GetTokenInfo")?;
    ensure(info.ulMinPinLen <= info.ulMaxPinLen, || {
        format!("ulMinPinLen {} > ulMaxPinLen {}", info.ulMinPinLen, info.ulMaxPinLen)
    })?;
    ensure(info.flags & CKF_TOKEN_INITIALIZED != 0, || "CKF_TOKEN_INITIALIZED is off".to_owned())?;
    let (login, pin) = (info.flags & CKF_LOGIN_REQUIRED, info.flags & CKF_USER_PIN_INITIALIZED);
    ensure(login == 0 || pin != 0, || "login is required, and there is no user PIN".to_owned())?;
    let digits = info.utcTime[..14].iter().all(u8::is_ascii_digit) && &info.utcTime[14..] == b"00";
    ensure(info.flags & CKF_CLOCK_ON_TOKEN == 0 || digits, || {
        format!("utcTime {:?}", String::from_utf8_lossy(&info.utcTime))
    })
}

fn token_sessions(context: &mut Context) -> Outcome {
    let slot = context.slot()?;
    let before = need(context.token_info(slot), "C_GetTokenInfo")?;
    let session = context.open(CKF_SERIAL_SESSION)?;
    let during = need(context.token_info(slot), "C_GetTokenInfo")?;
    context.forget(session);
    need(session.close(), "C_CloseSession")?;
    let after = need(context.token_info(slot), "C_GetTokenInfo")?;
    if during.ulSessionCount == CK_UNAVAILABLE_INFORMATION {
        return skip("ulSessionCount is unavailable");
    }
    let counts = (before.ulSessionCount, during.ulSessionCount, after.ulSessionCount);
    ensure(counts.1 == counts.0 + 1 && counts.2 == counts.0, || {
        format!("ulSessionCount is {counts:?} before, during and after one session")
    })
}

fn mechanism_list(context: &mut Context) -> Outcome {
    let slot = context.slot()?;
    listing(context, C_GetMechanismList, slot.into())
}

/// All flags of CK_MECHANISM_INFO.
const KNOWN: CK_FLAGS = CKF_HW
    | CKF_MESSAGE_ENCRYPT
    | CKF_MESSAGE_DECRYPT
    | CKF_MESSAGE_SIGN
    | CKF_MESSAGE_VERIFY
    | CKF_MULTI_MESSAGE
    | CKF_FIND_OBJECTS
    | USES
    | CKF_EC_F_P
    | CKF_EC_F_2M
    | CKF_EC_ECPARAMETERS
    | CKF_EC_OID
    | CKF_EC_UNCOMPRESS
    | CKF_EC_COMPRESS
    | CKF_EC_CURVENAME
    | CKF_EXTENSION;

/// Those that say what it is for.
const USES: CK_FLAGS = CKF_ENCRYPT
    | CKF_DECRYPT
    | CKF_DIGEST
    | CKF_SIGN
    | CKF_SIGN_RECOVER
    | CKF_VERIFY
    | CKF_VERIFY_RECOVER
    | CKF_GENERATE
    | CKF_GENERATE_KEY_PAIR
    | CKF_WRAP
    | CKF_UNWRAP
    | CKF_DERIVE
    | CKF_ENCAPSULATE
    | CKF_DECAPSULATE;

fn mechanism_infos(context: &mut Context) -> Outcome {
    for kind in context.mechanisms()? {
        context.each(names::mechanism(kind), |context| {
            let info = need(context.mechanism_info(kind)?, "C_GetMechanismInfo")?;
            ensure(info.ulMinKeySize <= info.ulMaxKeySize, || {
                format!("sizes {} to {}", info.ulMinKeySize, info.ulMaxKeySize)
            })?;
            ensure(info.flags & !KNOWN == 0, || format!("unknown flags in {:#x}", info.flags))?;
            ensure(info.flags & USES != 0, || format!("no use in flags {:#x}", info.flags))
        });
    }
    Ok(())
}

fn mechanism_unlisted(context: &mut Context) -> Outcome {
    let listed = context.mechanisms()?;
    for kind in [CKM_SKIPJACK_KEY_GEN, CKM_BATON_WRAP, 0x7ffe_1234] {
        if !listed.contains(&kind) {
            let rv = context.mechanism_info(kind)?;
            is(rv, CKR_MECHANISM_INVALID, &names::mechanism(kind))?;
        }
    }
    Ok(())
}

fn slot_event(context: &mut Context) -> Outcome {
    context.slot()?;
    let mut slot: CK_SLOT_ID = 0;
    let args = [CKF_DONT_BLOCK.into(), place(&mut slot), NULL];
    let rv = check(context.module.call(C_WaitForSlotEvent, &args));
    if rv == Err(CKR_FUNCTION_NOT_SUPPORTED) {
        return skip("not supported");
    }
    one_of(rv, &[CKR_OK, CKR_NO_EVENT], "C_WaitForSlotEvent")
}
