//! Which of several errors comes first, for every function.

use cryptoki_sys::*;

use crate::{
    case::{Case, Group, Outcome, fail, skip},
    client::{Family, check},
    context::{Context, need, one_of},
    ffi::{NULL, Word, attribute, place, read, write},
    functions::{
        FUNCTIONS,
        Function::{self, *},
        NOBODY, Role, State,
    },
    mechanism::Mechanism,
    samples::pairs,
};

/// The group.
pub const GROUP: Group = Group {
    name: "precedence",
    title: "return codes and their precedence, for every function",
    patience: 60,
    cases: &[
        Case {
            id: "not-initialized",
            clause: "5.1.6",
            title: "Before C_Initialize each function is CKR_CRYPTOKI_NOT_INITIALIZED.",
            run: not_initialized,
        },
        Case {
            id: "not-initialized-null",
            clause: "5.1.6",
            title: "Where its pointers are NULL_PTR it is that or CKR_ARGUMENTS_BAD.",
            run: not_initialized_null,
        },
        Case {
            id: "bad-session",
            clause: "5.1.2",
            title: "A session handle that is none is CKR_SESSION_HANDLE_INVALID.",
            run: bad_session,
        },
        Case {
            id: "bad-session-null",
            clause: "5.1.7",
            title: "That comes before CKR_ARGUMENTS_BAD, where pointers are NULL_PTR too.",
            run: bad_session_null,
        },
        Case {
            id: "closed-session",
            clause: "5.1.2",
            title: "So is the handle of a session that was closed.",
            run: closed_session,
        },
        Case {
            id: "bad-slot",
            clause: "5.1.6",
            title: "A slot id that is none is CKR_SLOT_ID_INVALID.",
            run: bad_slot,
        },
        Case {
            id: "null-arguments",
            clause: "5.1.6",
            title: "NULL_PTR for what must be read or written is CKR_ARGUMENTS_BAD, or what is wrong \
                    beside it.",
            run: null_arguments,
        },
        Case {
            id: "null-in-operation",
            clause: "5.1.6",
            title: "In an operation that goes on, NULL_PTR is CKR_ARGUMENTS_BAD and nothing else.",
            run: null_in_operation,
        },
        Case {
            id: "bad-object",
            clause: "5.1.6",
            title: "The handle of an object or key that is none is refused as one.",
            run: bad_object,
        },
        Case {
            id: "no-operation",
            clause: "5.1.6",
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

    /// Calls a function with this handle where it takes one.
    fn call(
        &mut self,
        context: &Context,
        function: Function,
        handle: CK_ULONG,
        pointers: Pointers,
    ) -> CK_RV {
        let mut template = [attribute(CKA_LABEL, &mut self.label)];
        let mut second = template;
        let mechanism = Mechanism::plain(CKM_SHA256);
        mechanism.with(|raw| {
            let mut words: Vec<Word<'_>> = Vec::new();
            let mut template = Some(write(&mut template));
            let mut second = Some(write(&mut second));
            let mut places = [write(&mut self.place), write(&mut self.other)].into_iter().cycle();
            let out = write(&mut self.more);
            let length = place(&mut self.length);
            let input = read(&self.bytes);
            for (n, role) in function.row().roles.iter().enumerate() {
                let null = match pointers {
                    Pointers::Valid => false,
                    Pointers::Null => true,
                    Pointers::NullAt(at) => at == n,
                };
                // Where all are NULL so are their lengths: that is no data, and can be right.
                let some = |count: CK_ULONG| match pointers {
                    Pointers::Null => 0.into(),
                    _ => count.into(),
                };
                match (role, null) {
                    (Role::Session | Role::Slot, _) => words.push(handle.into()),
                    (Role::Word, _) => words.push(CK_INVALID_HANDLE.into()),
                    (Role::Pointer, _) => words.push(NULL),
                    (Role::Place | Role::Mechanism, true) => words.push(NULL),
                    (Role::Place, false) => words.extend(places.next()),
                    (Role::Mechanism, false) => words.push(raw),
                    (Role::In | Role::Fill, true) => words.extend([NULL, some(32)]),
                    (Role::Template, true) => words.extend([NULL, some(1)]),
                    (Role::In, false) => words.extend([input, 32.into()]),
                    (Role::Fill, false) => words.extend([out, 32.into()]),
                    (Role::Template, false) => {
                        words.extend(template.take().or_else(|| second.take()));
                        words.push(1.into());
                    }
                    (Role::Out | Role::Last | Role::List, true) => {
                        // A buffer alone may be NULL: that asks for the length.
                        let all = pointers == Pointers::Null;
                        words.extend([if all { NULL } else { out }, NULL]);
                    }
                    (Role::Out | Role::Last | Role::List, false) => words.extend([out, length]),
                    (Role::Handles, true) => words.extend([NULL, some(8), NULL]),
                    (Role::Handles, false) => words.extend([out, 8.into(), length]),
                }
            }
            context.module.call(function, &words)
        })
    }
}

/// What a call's pointers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pointers {
    /// All of them lead to memory.
    Valid,
    /// None does, and all lengths are 0.
    Null,
    /// That of the argument of this role does not; a length beside it is not 0.
    NullAt(usize),
}

/// What a function says to a session or a slot that is none, with NULL for all pointers.
pub fn call_for_nobody(context: &Context, function: Function) -> CK_RV {
    Arena::new().call(context, function, NOBODY, Pointers::Null)
}

/// The flags of all the token's mechanisms.
fn advertised(context: &mut Context) -> Outcome<CK_FLAGS> {
    let mut flags = 0;
    for kind in context.mechanisms()? {
        flags |= context.mechanism_info(kind)?.map_or(0, |info| info.flags);
    }
    Ok(flags)
}

/// A stub may say CKR_FUNCTION_NOT_SUPPORTED, whatever it is given (5.4 C_GetFunctionList), and is
/// tried no further: unless a mechanism's flag says that the function works.
fn stub(function: Function, advertised: CK_FLAGS) -> Outcome {
    match advertised & function.flag() != 0 {
        true => fail("CKR_FUNCTION_NOT_SUPPORTED, which a mechanism's flag contradicts"),
        false => skip("a stub"),
    }
}

/// Tries all functions that `fits`, each a result under its own clause too.
fn all(
    context: &mut Context,
    fits: impl Fn(Function) -> bool,
    advertised: CK_FLAGS,
    (handle, pointers): (CK_ULONG, Pointers),
    wanted: &[CK_RV],
) {
    for (function, row) in FUNCTIONS {
        if !fits(*function) || !context.module.has(*function) {
            continue;
        }
        each(context, *function, "", |context| {
            let rv = Arena::new().call(context, *function, handle, pointers);
            match (function, rv) {
                // These are stubs by the standard, and say so by a code of their own (5.20).
                (C_GetFunctionStatus | C_CancelFunction, CKR_FUNCTION_NOT_PARALLEL) => Ok(()),
                (_, CKR_FUNCTION_NOT_SUPPORTED) => stub(*function, advertised),
                (_, rv) => one_of(check(rv), wanted, row.name),
            }
        });
    }
}

/// A result of the function's, under the case's clause and its own.
fn each(
    context: &mut Context,
    function: Function,
    more: &str,
    attempt: impl FnOnce(&mut Context) -> Outcome,
) {
    let row = function.row();
    let clause = format!("{}, {} {}", context.clause(), row.clause, row.name);
    context.each_of(&clause, format!("{}{more}", row.name), attempt);
}

fn takes(function: Function, role: Role) -> bool {
    function.row().roles.first() == Some(&role)
}

fn not_initialized(context: &mut Context) -> Outcome {
    let advertised = advertised(context)?;
    context.stopped()?;
    // NOBODY for a slot too: C_InitToken must not reach one, whatever the module looks at first.
    let fits = |function| !WITHOUT.contains(&function);
    let wanted = [CKR_CRYPTOKI_NOT_INITIALIZED];
    all(context, fits, advertised, (NOBODY, Pointers::Valid), &wanted);
    Ok(())
}

fn not_initialized_null(context: &mut Context) -> Outcome {
    let advertised = advertised(context)?;
    context.stopped()?;
    let fits = |function| !WITHOUT.contains(&function);
    let wanted = [CKR_CRYPTOKI_NOT_INITIALIZED, CKR_ARGUMENTS_BAD];
    all(context, fits, advertised, (NOBODY, Pointers::Null), &wanted);
    Ok(())
}

fn bad_session(context: &mut Context) -> Outcome {
    let advertised = advertised(context)?;
    let fits = |function| takes(function, Role::Session);
    let wanted = [CKR_SESSION_HANDLE_INVALID];
    all(context, fits, advertised, (NOBODY, Pointers::Valid), &wanted);
    Ok(())
}

fn bad_session_null(context: &mut Context) -> Outcome {
    let advertised = advertised(context)?;
    let fits = |function| takes(function, Role::Session);
    let wanted = [CKR_SESSION_HANDLE_INVALID];
    all(context, fits, advertised, (NOBODY, Pointers::Null), &wanted);
    Ok(())
}

fn closed_session(context: &mut Context) -> Outcome {
    let advertised = advertised(context)?;
    let session = context.session()?;
    context.forget(session);
    if session.close().is_err() {
        return skip("the session cannot be closed");
    }
    let fits = |function| takes(function, Role::Session);
    let wanted = [CKR_SESSION_HANDLE_INVALID];
    all(context, fits, advertised, (session.handle, Pointers::Valid), &wanted);
    Ok(())
}

fn bad_slot(context: &mut Context) -> Outcome {
    let advertised = advertised(context)?;
    let fits = |function| takes(function, Role::Slot);
    all(context, fits, advertised, (NOBODY, Pointers::Valid), &[CKR_SLOT_ID_INVALID]);
    Ok(())
}

/// The arguments of a function that must not be NULL, by the index of their role.
fn required(function: Function) -> impl Iterator<Item = (usize, Role)> {
    let row = function.row();
    let begins = row.state == State::Begins;
    row.roles.iter().copied().enumerate().filter(move |(_, role)| match role {
        // Init with NULL for a mechanism cancels.
        Role::Mechanism => !begins,
        Role::Place | Role::In | Role::Out | Role::Fill => true,
        Role::Template | Role::List | Role::Handles => true,
        Role::Session | Role::Slot | Role::Word | Role::Pointer | Role::Last => false,
    })
}

fn null_arguments(context: &mut Context) -> Outcome {
    let slot = context.slot()?;
    let advertised = advertised(context)?;
    for (function, row) in FUNCTIONS {
        if row.state == State::Apart || !context.module.has(*function) {
            continue;
        }
        for (at, role) in required(*function) {
            each(context, *function, &format!(", argument {at}: {role:?}"), |context| {
                let mut tried = |pointers| -> Outcome<CK_RV> {
                    // A session for each: a call that succeeds may begin something.
                    let session = context.user()?;
                    let handle = if takes(*function, Role::Slot) { slot } else { session.handle };
                    Ok(Arena::new().call(context, *function, handle, pointers))
                };
                // What is wrong with the other arguments, handles that are none for one, may be
                // seen first: 5.1.7 gives no order to the codes of 5.1.6.
                let beside = tried(Pointers::Valid)?;
                if beside == CKR_FUNCTION_NOT_SUPPORTED {
                    return stub(*function, advertised);
                }
                let mut wanted = vec![CKR_ARGUMENTS_BAD];
                wanted.extend((beside != CKR_OK).then_some(beside));
                one_of(check(tried(Pointers::NullAt(at))?), &wanted, row.name)
            });
        }
    }
    Ok(())
}

/// What goes on, and what began it.
#[derive(Clone, Copy)]
enum Begun {
    Search,
    Digest,
    With(Family),
}

fn null_in_operation(context: &mut Context) -> Outcome {
    let rows = [
        (C_FindObjects, Begun::Search),
        (C_Digest, Begun::Digest),
        (C_DigestUpdate, Begun::Digest),
        (C_DigestFinal, Begun::Digest),
        (C_Sign, Begun::With(Family::Sign)),
        (C_Verify, Begun::With(Family::Verify)),
        (C_Encrypt, Begun::With(Family::Encrypt)),
        (C_Decrypt, Begun::With(Family::Decrypt)),
    ];
    for (function, begun) in rows {
        for (at, role) in required(function) {
            each(context, function, &format!(", argument {at}: {role:?}"), |context| {
                let pair = match begun {
                    Begun::With(family) => pairs(context, family)?.into_iter().find_map(|pair| {
                        let private = matches!(family, Family::Sign | Family::Decrypt);
                        let key = if private { Some(pair.1.private) } else { pair.1.public };
                        Some((family, pair.0, key?))
                    }),
                    _ => None,
                };
                let session = context.user()?;
                let init = match (begun, pair) {
                    (Begun::Search, _) => session.find_init(&Vec::new()),
                    (Begun::Digest, _) => session.init(
                        Family::Digest,
                        &Mechanism::plain(CKM_SHA256),
                        CK_INVALID_HANDLE,
                    ),
                    (_, Some((family, kind, key))) => {
                        session.init(family, &Mechanism::usual(kind), key)
                    }
                    (_, None) => return skip("no key for it"),
                };
                need(init, "Init")?;
                let rv = Arena::new().call(context, function, session.handle, Pointers::NullAt(at));
                one_of(check(rv), &[CKR_ARGUMENTS_BAD], function.row().name)
            });
        }
    }
    Ok(())
}

/// Functions that take the handle of an object, the flag of a mechanism that they need, and what a
/// handle that is none gives.
const OBJECTS: &[(Function, CK_FLAGS, CK_RV)] = &[
    (C_CopyObject, 0, CKR_OBJECT_HANDLE_INVALID),
    (C_DestroyObject, 0, CKR_OBJECT_HANDLE_INVALID),
    (C_GetObjectSize, 0, CKR_OBJECT_HANDLE_INVALID),
    (C_GetAttributeValue, 0, CKR_OBJECT_HANDLE_INVALID),
    (C_SetAttributeValue, 0, CKR_OBJECT_HANDLE_INVALID),
    (C_DigestKey, CKF_DIGEST, CKR_KEY_HANDLE_INVALID),
    (C_DeriveKey, CKF_DERIVE, CKR_KEY_HANDLE_INVALID),
    (C_SignRecoverInit, CKF_SIGN_RECOVER, CKR_KEY_HANDLE_INVALID),
    (C_VerifyRecoverInit, CKF_VERIFY_RECOVER, CKR_KEY_HANDLE_INVALID),
    (C_MessageEncryptInit, CKF_MESSAGE_ENCRYPT, CKR_KEY_HANDLE_INVALID),
    (C_MessageDecryptInit, CKF_MESSAGE_DECRYPT, CKR_KEY_HANDLE_INVALID),
    (C_MessageSignInit, CKF_MESSAGE_SIGN, CKR_KEY_HANDLE_INVALID),
    (C_MessageVerifyInit, CKF_MESSAGE_VERIFY, CKR_KEY_HANDLE_INVALID),
    (C_VerifySignatureInit, CKF_VERIFY, CKR_KEY_HANDLE_INVALID),
];

fn bad_object(context: &mut Context) -> Outcome {
    for (function, flag, wanted) in OBJECTS {
        if !context.module.has(*function) {
            continue;
        }
        each(context, *function, "", |context| {
            let mechanism = match flag {
                0 => None,
                flag => match context.offered(*flag)?.first() {
                    Some((kind, _)) => Some(Mechanism::usual(*kind)),
                    None => return skip("no mechanism has its flag"),
                },
            };
            let session = context.user()?;
            let mut label = *b"nobody's";
            let mut template = [attribute(CKA_LABEL, &mut label)];
            let (list, nobody) = (write(&mut template), Word::from(NOBODY));
            let (mut made, signature) = (CK_INVALID_HANDLE, [1; 64]);
            let out = place(&mut made);
            let rv = match (function, mechanism) {
                (C_CopyObject, _) => session.call(*function, &[nobody, list, 1.into(), out]),
                (C_DestroyObject, _) => session.call(*function, &[nobody]),
                (C_GetObjectSize, _) => session.call(*function, &[nobody, out]),
                (C_DigestKey, Some(mechanism)) => {
                    need(session.init(Family::Digest, &mechanism, 0), "C_DigestInit")?;
                    session.call(*function, &[nobody])
                }
                (C_DeriveKey, Some(mechanism)) => mechanism
                    .with(|raw| session.call(*function, &[raw, nobody, list, 1.into(), out])),
                (C_VerifySignatureInit, Some(mechanism)) => mechanism.with(|raw| {
                    session.call(*function, &[raw, nobody, read(&signature), 64.into()])
                }),
                (_, Some(mechanism)) => {
                    mechanism.with(|raw| session.call(*function, &[raw, nobody]))
                }
                (_, None) => session.call(*function, &[nobody, list, 1.into()]),
            };
            if rv == CKR_FUNCTION_NOT_SUPPORTED {
                return stub(*function, *flag & function.flag());
            }
            one_of(check(rv), &[*wanted], function.row().name)
        });
    }
    Ok(())
}

fn no_operation(context: &mut Context) -> Outcome {
    let advertised = advertised(context)?;
    let session = context.user()?;
    let fits = |function: Function| function.row().state == State::Continues;
    let wanted = [CKR_OPERATION_NOT_INITIALIZED];
    all(context, fits, advertised, (session.handle, Pointers::Valid), &wanted);
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
