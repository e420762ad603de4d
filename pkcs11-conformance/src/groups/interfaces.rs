//! Function lists and interfaces.

use cryptoki_sys::*;

use crate::{
    case::{Case, Group, Outcome, Stop, ensure, fail, skip},
    context::{Context, is},
    ffi::{List, NULL},
    functions::{FUNCTIONS, Function::C_GetFunctionList},
    names,
};

/// The group.
pub const GROUP: Group = Group {
    name: "interfaces",
    title: "function lists and interfaces",
    patience: 20,
    cases: &[
        Case {
            id: "list-is-there",
            clause: "5.4 C_GetFunctionList",
            title: "The exported C_GetFunctionList gives a list of version 2.x.",
            run: list_is_there,
        },
        Case {
            id: "list-is-complete",
            clause: "5.4 C_GetFunctionList",
            title: "Every entry of the list points at a function, if only at a stub.",
            run: list_is_complete,
        },
        Case {
            id: "list-gives-itself",
            clause: "5.4 C_GetFunctionList",
            title: "The C_GetFunctionList of the list gives that list.",
            run: list_gives_itself,
        },
        Case {
            id: "list-of-null",
            clause: "5.4 C_GetFunctionList",
            title: "NULL_PTR is CKR_ARGUMENTS_BAD.",
            run: list_of_null,
        },
        Case {
            id: "interfaces-count",
            clause: "5.4 C_GetInterfaceList",
            title: "NULL_PTR asks for the number; too little room is CKR_BUFFER_TOO_SMALL and \
                    the number; enough room is filled.",
            run: interfaces_count,
        },
        Case {
            id: "interfaces-null",
            clause: "5.4 C_GetInterfaceList",
            title: "Without a place for the number, CKR_ARGUMENTS_BAD.",
            run: interfaces_null,
        },
        Case {
            id: "interfaces-complete",
            clause: "5.4 C_GetInterfaceList",
            title: "Each \"PKCS 11\" interface has the list of its version, without NULL.",
            run: interfaces_complete,
        },
        Case {
            id: "interface-default",
            clause: "5.4 C_GetInterface",
            title: "Without name and version, there is a default interface, one of the list.",
            run: interface_default,
        },
        Case {
            id: "interface-by-version",
            clause: "5.4 C_GetInterface",
            title: "Each interface is found by its name and version, and has that version.",
            run: interface_by_version,
        },
        Case {
            id: "interface-unknown",
            clause: "5.4 C_GetInterface",
            title: "A name, a version or flags that nobody has are not found.",
            run: interface_unknown,
        },
    ],
};

fn list(context: &Context) -> Outcome<List> {
    context.module.function_list().map_err(Stop::Fail)
}

fn list_is_there(context: &mut Context) -> Outcome {
    let (major, minor) = list(context)?.version;
    ensure(major == 2, || format!("the list says {major}.{minor}"))
}

fn list_is_complete(context: &mut Context) -> Outcome {
    complete(&list(context)?)
}

fn complete(list: &List) -> Outcome {
    let missing: Vec<&str> = FUNCTIONS
        .iter()
        .zip(&list.functions)
        .filter(|(_, address)| **address == 0)
        .map(|((_, row), _)| row.name)
        .collect();
    ensure(missing.is_empty(), || format!("NULL: {}", missing.join(", ")))
}

fn list_gives_itself(context: &mut Context) -> Outcome {
    let exported = list(context)?;
    let mut inner: usize = 0;
    // The list's own function, whichever list it is, gives the first list.
    let rv = context.module.call(C_GetFunctionList, &[crate::ffi::place(&mut inner)]);
    is(crate::client::check(rv), CKR_OK, "C_GetFunctionList of the list")?;
    ensure(inner == exported.address, || "another list than the exported function's".to_owned())
}

fn list_of_null(context: &mut Context) -> Outcome {
    match context.module.function_list_of_null() {
        Some(CKR_ARGUMENTS_BAD) => is(
            crate::client::check(context.module.call(C_GetFunctionList, &[NULL])),
            CKR_ARGUMENTS_BAD,
            "the list's C_GetFunctionList",
        ),
        Some(rv) => fail(format!("{} instead of CKR_ARGUMENTS_BAD", names::rv(rv))),
        None => fail("C_GetFunctionList is not exported"),
    }
}

const OLD: &str = "a module of before 3.0: C_GetInterfaceList and C_GetInterface are not exported";

fn interfaces_count(context: &mut Context) -> Outcome {
    let Some((rv, count, _)) = context.module.interfaces(None) else { return skip(OLD) };
    ensure(rv == CKR_OK && count > 0, || format!("query: {}, {count}", names::rv(rv)))?;
    let Some((rv, told, _)) = context.module.interfaces(Some(count - 1)) else { return skip(OLD) };
    ensure(rv == CKR_BUFFER_TOO_SMALL, || format!("too small: {}", names::rv(rv)))?;
    ensure(told == count, || format!("too small: told {told}, there are {count}"))?;
    for room in [count, count + 3] {
        let Some((rv, told, _)) = context.module.interfaces(Some(room)) else { return skip(OLD) };
        ensure(rv == CKR_OK && told == count, || {
            format!("room for {room}: {}, {told} instead of {count}", names::rv(rv))
        })?;
    }
    Ok(())
}

fn interfaces_null(context: &mut Context) -> Outcome {
    match context.module.interfaces_of_null() {
        None => skip(OLD),
        Some(CKR_ARGUMENTS_BAD) => Ok(()),
        Some(rv) => fail(names::rv(rv)),
    }
}

fn interfaces_complete(context: &mut Context) -> Outcome {
    let Some((rv, _, all)) = context.module.interfaces(Some(64)) else { return skip(OLD) };
    ensure(rv == CKR_OK, || names::rv(rv))?;
    for (n, interface) in all.iter().enumerate() {
        let Some(list) = &interface.list else { continue };
        let (major, minor) = list.version;
        context.each(format!("{n}: {major}.{minor}"), |_| {
            complete(list)?;
            ensure(interface.flags & !CKF_INTERFACE_FORK_SAFE == 0, || {
                format!("unknown flags {:#x}", interface.flags)
            })
        });
    }
    Ok(())
}

fn interface_default(context: &mut Context) -> Outcome {
    let Some(found) = context.module.interface(None, None, 0) else { return skip(OLD) };
    let found = crate::context::need(found, "C_GetInterface(NULL_PTR, NULL_PTR)")?;
    let Some((_, _, all)) = context.module.interfaces(Some(64)) else { return skip(OLD) };
    let same = all.iter().any(|one| one.name == found.name && one.list == found.list);
    ensure(same, || format!("{:?} is not one of C_GetInterfaceList's", found.name))
}

fn interface_by_version(context: &mut Context) -> Outcome {
    let Some((_, _, all)) = context.module.interfaces(Some(64)) else { return skip(OLD) };
    for list in all.iter().filter_map(|one| one.list.as_ref()) {
        let (major, minor) = list.version;
        context.each(format!("{major}.{minor}"), |context| {
            for name in [Some(c"PKCS 11"), None] {
                let found = context.module.interface(name, Some(list.version), 0);
                match found {
                    Some(Ok(one))
                        if one.list.as_ref().is_some_and(|l| l.version == list.version) => {}
                    Some(Ok(one)) => {
                        return fail(format!(
                            "{name:?}: another, {:?}",
                            one.list.map(|l| l.version)
                        ));
                    }
                    Some(Err(rv)) => return fail(format!("{name:?}: {}", names::rv(rv))),
                    None => return fail("C_GetInterface is not exported, C_GetInterfaceList is"),
                }
            }
            Ok(())
        });
    }
    Ok(())
}

fn interface_unknown(context: &mut Context) -> Outcome {
    if context.module.interface(None, None, 0).is_none() {
        return skip(OLD);
    }
    let name = Some(c"Vendor of this program");
    for (what, name, version, flags) in [
        ("name", name, None, 0),
        ("version", Some(c"PKCS 11"), Some((9, 9)), 0),
        ("flags", Some(c"PKCS 11"), None, 1 << 30),
    ] {
        context.each(what, |context| match context.module.interface(name, version, flags) {
            Some(Err(_)) => Ok(()),
            _ => fail("found"),
        });
    }
    Ok(())
}
