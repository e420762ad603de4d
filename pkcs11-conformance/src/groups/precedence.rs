//! Which of several errors comes first, for every function.

use cryptoki_sys::*;

use crate::{
    case::{Case, Group, Outcome, skip},
    client::check,
    context::{Context, one_of},
    ffi::{NULL, Word, attribute, place, read, write},
    functions::{
        FUNCTIONS,
        Function::{self, *},
        Role,
    },
    mechanism::Mechanism,
};

/// The group.
pub const GROUP: Group = Group {
    name: "precedence",
    title: "return codes and their precedence, for every function",
    patience: 60,
    cases: &[
        Case {
            id: "not-initialized",
            clause: "5.1",
            title: "Before C_Initialize each function is CKR_CRYPTOKI_NOT_INITIALIZED.",
            run: not_initialized,
        },
        Case {
            id: "not-initialized-null",
            clause: "5.1",
            title: "The same where its pointers are NULL_PTR.",
            run: not_initialized_null,
        },
        Case {
            id: "bad-session",
            clause: "5.1",
            title: "A session handle that is none is CKR_SESSION_HANDLE_INVALID.",
            run: bad_session,
        },
        Case {
            id: "bad-session-null",
            clause: "5.1",
            title: "That comes before CKR_ARGUMENTS_BAD, where pointers are NULL_PTR too.",
            run: bad_session_null,
        },
        Case {
            id: "closed-session",
            clause: "5.1",
            title: "So is the handle of a session that was closed.",
            run: closed_session,
        },
        Case {
            id: "bad-slot",
            clause: "5.1",
            title: "A slot id that is none is CKR_SLOT_ID_INVALID.",
            run: bad_slot,
        },
        Case {
            id: "null-arguments",
            clause: "5.1",
            title: "NULL_PTR for a place that must be written is CKR_ARGUMENTS_BAD.",
            run: null_arguments,
        },
        Case {
            id: "no-operation",
            clause: "5.1",
            title: "Continuing what was not begun is CKR_OPERATION_NOT_INITIALIZED.",
            run: no_operation,
        },
        Case {
            id: "not-parallel",
            clause: "5.20",
            title: "C_GetFunctionStatus and C_CancelFunction are CKR_FUNCTION_NOT_PARALLEL.",
            run: not_parallel,
        },
    ],
};

/// Functions that work without C_Initialize.
const WITHOUT: &[Function] = &[C_Initialize, C_GetFunctionList, C_GetInterfaceList, C_GetInterface];

/// Memory for the arguments of any call.
struct Arena {
    bytes: [u8; 512],
    more: [u8; 512],
    place: [CK_ULONG; 128],
    other: [CK_ULONG; 128],
    length: CK_ULONG,
    label: [u8; 8],
}

impl Arena {
    fn new() -> Arena {
        Arena {
            bytes: [0; 512],
            more: [0; 512],
            place: [0; 128],
            other: [0; 128],
            length: 64,
            label: *b"nobody's",
        }
    }

    /// Calls a function with this handle where it takes one, and valid or no pointers.
    fn call(
        &mut self,
        context: &Context,
        function: Function,
        handle: CK_ULONG,
        pointers: bool,
    ) -> CK_RV {
        let mut template = [attribute(CKA_LABEL, &mut self.label)];
        let mut second = template;
        let mechanism = Mechanism::plain(CKM_SHA256);
        let kind = |session: bool| if session { handle } else { CK_INVALID_HANDLE };
        mechanism.with(|raw| {
            let mut words: Vec<Word<'_>> = Vec::new();
            let mut template = Some(write(&mut template));
            let mut second = Some(write(&mut second));
            let mut places = [write(&mut self.place), write(&mut self.other)].into_iter().cycle();
            let out = write(&mut self.more);
            let length = place(&mut self.length);
            let input = read(&self.bytes);
            let pointer = |word: Word<'static>| word;
            for role in function.row().roles {
                match (role, pointers) {
                    (Role::Session | Role::Slot, _) => words.push(kind(true).into()),
                    (Role::Word, _) => words.push(kind(false).into()),
                    (Role::Pointer, _) => words.push(pointer(NULL)),
                    (Role::Place | Role::Mechanism, false) => words.push(NULL),
                    (Role::Place, true) => words.extend(places.next()),
                    (Role::Mechanism, true) => words.push(raw),
                    (Role::In | Role::Fill | Role::Template, false) => {
                        words.extend([NULL, 0.into()]);
                    }
                    (Role::In, true) => words.extend([input, 32.into()]),
                    (Role::Fill, true) => words.extend([out, 32.into()]),
                    (Role::Template, true) => {
                        words.extend(template.take().or_else(|| second.take()));
                        words.push(1.into());
                    }
                    (Role::Out | Role::List, false) => words.extend([NULL, NULL]),
                    (Role::Out | Role::List, true) => words.extend([out, length]),
                    (Role::Handles, false) => words.extend([NULL, 0.into(), NULL]),
                    (Role::Handles, true) => words.extend([out, 8.into(), length]),
                }
            }
            context.module.call(function, &words)
        })
    }
}

/// A handle and an id that no module gives out.
const NOBODY: CK_ULONG = 0x7fff_fff1;

/// Tries all functions that `fits`, each a result under its own clause.
fn all(
    context: &mut Context,
    fits: impl Fn(Function) -> bool,
    handle: CK_ULONG,
    pointers: bool,
    wanted: CK_RV,
) {
    for (function, row) in FUNCTIONS {
        if !fits(*function) || !context.module.has(*function) {
            continue;
        }
        context.each_of(&format!("5.1, {} {}", row.clause, row.name), row.name, |context| {
            let rv = Arena::new().call(context, *function, handle, pointers);
            // A stub may say so, whatever it is given (5.4 C_GetFunctionList). The functions of
            // 5.20 are such stubs.
            let stub = match function {
                C_GetFunctionStatus | C_CancelFunction => CKR_FUNCTION_NOT_PARALLEL,
                _ => CKR_FUNCTION_NOT_SUPPORTED,
            };
            match check(rv) {
                Err(rv) if rv == stub => Ok(()),
                rv => one_of(rv, &[wanted], row.name),
            }
        });
    }
}

fn takes(function: Function, role: Role) -> bool {
    function.row().roles.first() == Some(&role)
}

fn not_initialized(context: &mut Context) -> Outcome {
    context.stopped()?;
    let fits = |function| !WITHOUT.contains(&function);
    all(context, fits, 1, true, CKR_CRYPTOKI_NOT_INITIALIZED);
    Ok(())
}

fn not_initialized_null(context: &mut Context) -> Outcome {
    context.stopped()?;
    let fits = |function| !WITHOUT.contains(&function);
    all(context, fits, 1, false, CKR_CRYPTOKI_NOT_INITIALIZED);
    Ok(())
}

fn bad_session(context: &mut Context) -> Outcome {
    context.slot()?;
    let fits = |function| takes(function, Role::Session);
    all(context, fits, NOBODY, true, CKR_SESSION_HANDLE_INVALID);
    Ok(())
}

fn bad_session_null(context: &mut Context) -> Outcome {
    context.slot()?;
    let fits = |function| takes(function, Role::Session);
    all(context, fits, NOBODY, false, CKR_SESSION_HANDLE_INVALID);
    Ok(())
}

fn closed_session(context: &mut Context) -> Outcome {
    let session = context.session()?;
    context.forget(session);
    if session.close().is_err() {
        return skip("the session cannot be closed");
    }
    let fits = |function| takes(function, Role::Session);
    all(context, fits, session.handle, true, CKR_SESSION_HANDLE_INVALID);
    Ok(())
}

fn bad_slot(context: &mut Context) -> Outcome {
    context.slot()?;
    // C_InitToken is never called with an id that might be a slot's; NOBODY is none.
    let fits = |function| takes(function, Role::Slot);
    all(context, fits, NOBODY, true, CKR_SLOT_ID_INVALID);
    Ok(())
}

/// Functions whose NULL_PTR is refused whatever the state, and of which trying is harmless.
const REFUSE_NULL: &[Function] = &[
    C_GetInfo,
    C_GetSlotList,
    C_GetSlotInfo,
    C_GetTokenInfo,
    C_GetMechanismList,
    C_GetMechanismInfo,
    C_GetSessionInfo,
    C_OpenSession,
    C_CreateObject,
    C_GetObjectSize,
    C_GenerateKey,
    C_GenerateKeyPair,
    C_UnwrapKey,
    C_DeriveKey,
    C_GetSessionValidationFlags,
];

fn null_arguments(context: &mut Context) -> Outcome {
    let slot = context.slot()?;
    let session = context.user()?;
    for function in REFUSE_NULL {
        let row = function.row();
        if !context.module.has(*function) {
            continue;
        }
        let handle = if takes(*function, Role::Slot) { slot } else { session.handle };
        context.each_of(&format!("5.1, {} {}", row.clause, row.name), row.name, |context| {
            let rv = Arena::new().call(context, *function, handle, false);
            if rv == CKR_FUNCTION_NOT_SUPPORTED {
                return skip("not supported");
            }
            // An object handle that is none, or a mechanism, may be looked at first.
            let allowed: &[CK_RV] = match function {
                C_GetObjectSize => &[CKR_ARGUMENTS_BAD, CKR_OBJECT_HANDLE_INVALID],
                C_UnwrapKey => &[CKR_ARGUMENTS_BAD, CKR_UNWRAPPING_KEY_HANDLE_INVALID],
                C_DeriveKey => &[CKR_ARGUMENTS_BAD, CKR_KEY_HANDLE_INVALID],
                C_OpenSession => &[CKR_ARGUMENTS_BAD, CKR_SESSION_PARALLEL_NOT_SUPPORTED],
                C_GetMechanismInfo => &[CKR_ARGUMENTS_BAD, CKR_MECHANISM_INVALID],
                _ => &[CKR_ARGUMENTS_BAD],
            };
            one_of(check(rv), allowed, row.name)
        });
    }
    Ok(())
}

/// Functions that go on with what an Init began.
const CONTINUE: &[Function] = &[
    C_FindObjects,
    C_FindObjectsFinal,
    C_Encrypt,
    C_EncryptUpdate,
    C_EncryptFinal,
    C_Decrypt,
    C_DecryptUpdate,
    C_DecryptFinal,
    C_Digest,
    C_DigestUpdate,
    C_DigestFinal,
    C_Sign,
    C_SignUpdate,
    C_SignFinal,
    C_SignRecover,
    C_Verify,
    C_VerifyUpdate,
    C_VerifyFinal,
    C_VerifyRecover,
    C_DigestEncryptUpdate,
    C_DecryptDigestUpdate,
    C_SignEncryptUpdate,
    C_DecryptVerifyUpdate,
    C_EncryptMessage,
    C_MessageEncryptFinal,
    C_DecryptMessage,
    C_MessageDecryptFinal,
    C_SignMessage,
    C_MessageSignFinal,
    C_VerifyMessage,
    C_MessageVerifyFinal,
    C_VerifySignature,
    C_VerifySignatureUpdate,
    C_VerifySignatureFinal,
];

fn no_operation(context: &mut Context) -> Outcome {
    let session = context.user()?;
    let fits = |function| CONTINUE.contains(&function);
    all(context, fits, session.handle, true, CKR_OPERATION_NOT_INITIALIZED);
    Ok(())
}

fn not_parallel(context: &mut Context) -> Outcome {
    let session = context.session()?;
    for function in [C_GetFunctionStatus, C_CancelFunction] {
        context.each(function.row().name, |_| {
            let rv = check(session.call(function, &[]));
            one_of(rv, &[CKR_FUNCTION_NOT_PARALLEL], function.row().name)
        });
    }
    Ok(())
}
