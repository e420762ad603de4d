//! Random numbers.

use cryptoki_sys::*;

use crate::{
    case::{Case, Group, Outcome, ensure, skip},
    client::check,
    context::{Context, is, need, one_of},
    ffi::{NULL, length, read},
    functions::Function::*,
};

/// The group.
pub const GROUP: Group = Group {
    name: "random",
    title: "random numbers",
    patience: 30,
    cases: &[
        Case {
            id: "flag",
            clause: "5.5 C_GetTokenInfo",
            title: "CKF_RNG says whether C_GenerateRandom works.",
            run: says_so,
        },
        Case {
            id: "lengths",
            clause: "5.19 C_GenerateRandom",
            title: "Any length is filled to its end, differently each time.",
            run: lengths,
        },
        Case {
            id: "null",
            clause: "5.19 C_GenerateRandom",
            title: "NULL_PTR for some bytes is CKR_ARGUMENTS_BAD.",
            run: null,
        },
        Case {
            id: "seed",
            clause: "5.19 C_SeedRandom",
            title: "A seed is taken, or CKR_RANDOM_SEED_NOT_SUPPORTED.",
            run: seed,
        },
    ],
};

fn has(context: &mut Context) -> Outcome<bool> {
    let slot = context.slot()?;
    Ok(need(context.token_info(slot), "C_GetTokenInfo")?.flags & CKF_RNG != 0)
}

fn says_so(context: &mut Context) -> Outcome {
    let says = has(context)?;
    let session = context.session()?;
    let rv = session.random(16);
    match says {
        true => is(rv, CKR_OK, "C_GenerateRandom"),
        false => one_of(rv, &[CKR_RANDOM_NO_RNG, CKR_FUNCTION_NOT_SUPPORTED], "C_GenerateRandom"),
    }
}

fn lengths(context: &mut Context) -> Outcome {
    if !has(context)? {
        return skip("no CKF_RNG");
    }
    let session = context.session()?;
    for count in [1, 2, 15, 16, 17, 32, 1000, 70_000] {
        context.each(count, |_| {
            let first = need(session.random(count), "C_GenerateRandom")?;
            let second = need(session.random(count), "C_GenerateRandom")?;
            ensure(count < 15 || first != second, || "the same bytes twice".to_owned())?;
            let end = &first[count - count.min(32)..];
            ensure(count < 15 || end.iter().any(|byte| *byte != 0), || {
                "the end is not filled".to_owned()
            })
        });
    }
    Ok(())
}

fn null(context: &mut Context) -> Outcome {
    let session = context.session()?;
    let rv = check(session.call(C_GenerateRandom, &[NULL, 16.into()]));
    if matches!(rv, Err(CKR_FUNCTION_NOT_SUPPORTED | CKR_RANDOM_NO_RNG)) {
        return skip("no random numbers");
    }
    is(rv, CKR_ARGUMENTS_BAD, "C_GenerateRandom(NULL_PTR, 16)")
}

fn seed(context: &mut Context) -> Outcome {
    let session = context.user()?;
    let rv = check(session.call(C_SeedRandom, &[read(b"not random"), length(b"not random")]));
    let fine =
        [CKR_OK, CKR_RANDOM_SEED_NOT_SUPPORTED, CKR_RANDOM_NO_RNG, CKR_FUNCTION_NOT_SUPPORTED];
    one_of(rv, &fine, "C_SeedRandom")
}
