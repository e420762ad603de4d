//! The provider profiles of PKCS #11 Profiles 3.2: as rules, by sequences of ours, and by their own
//! test cases where `--profiles` names a folder that has them.

use std::{collections::BTreeMap, fs};

use cryptoki_sys::*;

use super::{precedence, profile_script};
use crate::{
    case::{Case, Group, Outcome, ensure, fail, skip},
    client::{Family, Session, check, flag, number},
    context::{Context, is, need},
    functions::Function::{self, *},
    keys::{self, Key},
    mechanism::{Mechanism, scheme},
    names,
    samples::{broken, fits, to_sign},
};

/// The group.
pub const GROUP: Group = Group {
    name: "profiles",
    title: "provider profiles",
    patience: 60,
    cases: &[
        Case {
            id: "claims",
            clause: "4.14",
            title: "CKO_PROFILE objects name profiles that exist, are public, and are found only \
                    by their class.",
            run: claims,
        },
        Case {
            id: "claimed",
            clause: "4.14",
            title: "A profile that --profile asks about has its CKO_PROFILE object.",
            run: claimed_as_asked,
        },
        Case {
            id: "sequences",
            clause: "Profiles 3.2",
            title: "What programs of the profile do, call by call, as this program has it.",
            run: sequences,
        },
        Case {
            id: "test-cases",
            clause: "Profiles 3.2, test cases",
            title: "The profiles' own test cases run as written, with permitted variations.",
            run: test_cases,
        },
        Case {
            id: "baseline",
            clause: "Profiles 3.2, Baseline Provider",
            title: "The functions, the object and the attributes of a Baseline Provider.",
            run: baseline,
        },
        Case {
            id: "extended",
            clause: "Profiles 3.2, Extended Provider",
            title: "The functions of an Extended Provider.",
            run: extended,
        },
        Case {
            id: "authentication",
            clause: "Profiles 3.2, Authentication Token",
            title: "A private key signs after C_Login and C_LoginUser, and its public key verifies.",
            run: authentication,
        },
        Case {
            id: "certificates",
            clause: "Profiles 3.2, Public Certificates Token",
            title: "Certificates are read without login; where the token has the private key, a key \
                    of the pair is found by the certificate's CKA_ID.",
            run: certificates,
        },
    ],
};

/// A profile.
pub struct Profile {
    /// As `--profile` takes it.
    pub name: &'static str,
    /// CKP_….
    id: CK_PROFILE_ID,
    /// Its test case.
    file: &'static str,
    /// Our own sequence.
    sequence: &'static str,
}

/// The profiles.
pub const PROFILES: &[Profile] = &[
    Profile {
        name: "baseline",
        id: CKP_BASELINE_PROVIDER,
        file: "BL-M-1-32.xml",
        sequence: include_str!("../../profiles/baseline.xml"),
    },
    Profile {
        name: "extended",
        id: CKP_EXTENDED_PROVIDER,
        file: "EXT-M-1-32.xml",
        sequence: include_str!("../../profiles/extended.xml"),
    },
    Profile {
        name: "authentication",
        id: CKP_AUTHENTICATION_TOKEN,
        file: "AUTH-M-1-32.xml",
        sequence: include_str!("../../profiles/authentication.xml"),
    },
    Profile {
        name: "certificates",
        id: CKP_PUBLIC_CERTIFICATES_TOKEN,
        file: "CERT-M-1-32.xml",
        sequence: include_str!("../../profiles/certificates.xml"),
    },
];

fn claimed(session: Session) -> Outcome<BTreeMap<CK_PROFILE_ID, CK_OBJECT_HANDLE>> {
    let wanted = vec![(CKA_CLASS, number(CKO_PROFILE))];
    let mut claimed = BTreeMap::new();
    for object in need(session.find(&wanted), "C_FindObjects")? {
        let profile = need(session.ulong(object, CKA_PROFILE_ID), "CKA_PROFILE_ID")?;
        claimed.insert(profile, object);
    }
    Ok(claimed)
}

/// Goes on if the token claims the profile, or the user wants to know of it.
fn applies(context: &mut Context, name: &str) -> Outcome<Session> {
    let session = context.session()?;
    let asked = &context.target.profile;
    if !asked.is_empty() {
        return match asked.iter().any(|one| one == name) {
            true => Ok(session),
            false => skip("not asked for"),
        };
    }
    let claims = claimed(session)?;
    match PROFILES.iter().any(|one| one.name == name && claims.contains_key(&one.id)) {
        true => Ok(session),
        false => skip("the token has no CKO_PROFILE object that claims it"),
    }
}

fn claimed_as_asked(context: &mut Context) -> Outcome {
    let session = context.session()?;
    let claims = claimed(session)?;
    let asked = context.target.profile.clone();
    if asked.is_empty() {
        return skip("--profile asks about none");
    }
    for profile in PROFILES.iter().filter(|profile| asked.iter().any(|one| one == profile.name)) {
        context.each(profile.name, |_| {
            ensure(claims.contains_key(&profile.id), || {
                "no CKO_PROFILE object has its CKA_PROFILE_ID".to_owned()
            })
        });
    }
    Ok(())
}

fn claims(context: &mut Context) -> Outcome {
    let session = context.session()?;
    let claims = claimed(session)?;
    if claims.is_empty() {
        return skip("no profile is claimed");
    }
    for (profile, object) in claims {
        context.each(format!("profile {profile}"), |_| {
            let known = CKP_BASELINE_PROVIDER..=CKP_HKDF_TLS_TOKEN;
            ensure(known.contains(&profile) || profile >= CKP_VENDOR_DEFINED, || {
                "no profile has this number".to_owned()
            })?;
            let private = session.value(object, CKA_PRIVATE);
            ensure(private == Ok(flag(false)), || format!("CKA_PRIVATE: {private:?}"))?;
            let all = need(session.find(&vec![(CKA_TOKEN, flag(true))]), "C_FindObjects")?;
            ensure(!all.contains(&object), || "a search for token objects finds it".to_owned())
        });
    }
    Ok(())
}

/// Functions that are there, and are no stubs: called with a session or a slot that is none, each
/// gives another error. That costs no try of a PIN, either.
fn implemented(context: &Context, functions: &[Function]) -> Outcome {
    for function in functions {
        let name = function.row().name;
        ensure(context.module.has(*function), || format!("{name} is missing"))?;
        let rv = precedence::call_for_nobody(context, *function);
        ensure(rv != CKR_FUNCTION_NOT_SUPPORTED, || format!("{name} is not supported"))?;
    }
    Ok(())
}

fn baseline(context: &mut Context) -> Outcome {
    let session = applies(context, "baseline")?;
    // C_Initialize, C_Finalize and C_GetFunctionList have been called to come here.
    implemented(
        context,
        &[
            C_GetInterfaceList,
            C_GetInterface,
            C_GetInfo,
            C_GetSlotList,
            C_GetSlotInfo,
            C_GetTokenInfo,
            C_OpenSession,
            C_CloseSession,
            C_GetSessionInfo,
            C_FindObjectsInit,
            C_FindObjects,
            C_FindObjectsFinal,
            C_GetAttributeValue,
        ],
    )?;
    let all = need(session.find(&Vec::new()), "C_FindObjects")?;
    for object in all {
        let class = need(session.ulong(object, CKA_CLASS), "CKA_CLASS")?;
        for kind in [CKA_TOKEN, CKA_PRIVATE, CKA_MODIFIABLE, CKA_LABEL, CKA_UNIQUE_ID] {
            let what = format!("{} of a {}", names::attribute(kind), names::class(class));
            need(session.value(object, kind), &what)?;
        }
    }
    Ok(())
}

fn extended(context: &mut Context) -> Outcome {
    applies(context, "extended")?;
    implemented(
        context,
        &[C_GetMechanismList, C_GetMechanismInfo, C_Login, C_LoginUser, C_Logout],
    )?;
    for kind in context.mechanisms()? {
        need(context.mechanism_info(kind)?, &names::mechanism(kind))?;
    }
    Ok(())
}

fn authentication(context: &mut Context) -> Outcome {
    applies(context, "authentication")?;
    let offered = context.offered(CKF_SIGN)?;
    let keys = context.keys()?;
    let keys: Vec<_> =
        keys.into_iter().filter(|key| key.origin == "token" && !key.is_secret()).collect();
    ensure(!keys.is_empty(), || "the token has no private key that signs".to_owned())?;
    for by_name in [false, true] {
        for key in &keys {
            let login = if by_name { "C_LoginUser" } else { "C_Login" };
            context.each(format!("{key} after {login}"), |context| {
                let session = if by_name { user_by_name(context)? } else { context.user()? };
                let Some(public) = key.public else {
                    return fail("no public key has the private key's CKA_ID");
                };
                let usable = offered.iter().find_map(|(kind, info)| {
                    let scheme = scheme(*kind)?;
                    fits(*kind, key, info).then_some((*kind, scheme))
                });
                let Some((kind, scheme)) = usable else {
                    return fail("no mechanism signs with it");
                };
                let (mechanism, data) = (Mechanism::usual(kind), to_sign(scheme, key));
                let signature = session.run(Family::Sign, &mechanism, key.private, &data);
                let signature = need(signature, "C_Sign")?;
                need(session.verify(&mechanism, public, &data, &signature), "C_Verify")
            });
        }
    }
    Ok(())
}

/// A session whose user has logged in by C_LoginUser.
fn user_by_name(context: &mut Context) -> Outcome<Session> {
    context.needs(C_LoginUser)?;
    let Some(pin) = context.target.pin.clone() else { return skip("no PIN was given") };
    let session = context.session()?;
    match session.logout() {
        Ok(()) | Err(CKR_USER_NOT_LOGGED_IN) => {}
        Err(rv) => return need(Err(rv), "C_Logout"),
    }
    need(session.login_user(CKU_USER, &pin, ""), "C_LoginUser")?;
    Ok(session)
}

fn certificates(context: &mut Context) -> Outcome {
    applies(context, "certificates")?;
    let slot = context.slot()?;
    // Which private keys there are, a login may be needed to see.
    let user = context.user()?;
    let private = vec![(CKA_CLASS, number(CKO_PRIVATE_KEY)), (CKA_TOKEN, flag(true))];
    let mut pairs = Vec::new();
    for private in need(user.find(&private), "C_FindObjects")? {
        let id = user.value(private, CKA_ID).unwrap_or_default();
        let public = vec![(CKA_CLASS, number(CKO_PUBLIC_KEY)), (CKA_ID, id)];
        let public = user.find(&public).ok().and_then(|found| found.first().copied());
        pairs.extend(keys::known("token", user, public, private).ok());
    }
    // Whoever is logged in sees more: the profile is about those who are not.
    context.drop_keys();
    let rv = context.module.call(C_CloseAllSessions, &[slot.into()]);
    is(check(rv), CKR_OK, "C_CloseAllSessions")?;
    context.forget(user);
    let session = context.open(CKF_SERIAL_SESSION)?;
    let wanted = vec![(CKA_CLASS, number(CKO_CERTIFICATE))];
    let certificates = need(session.find(&wanted), "C_FindObjects")?;
    if certificates.is_empty() {
        return skip("the token has no certificate");
    }
    for (n, object) in certificates.into_iter().enumerate() {
        context.each(format!("certificate {n}"), |_| {
            let value = need(session.value(object, CKA_VALUE), "CKA_VALUE")?;
            let parsed = openssl::x509::X509::from_der(&value);
            let Ok(certificate) = parsed else { return fail("CKA_VALUE is no certificate") };
            let held = certificate.public_key().map_err(broken)?;
            let mine = |key: &Key| key.oracle().is_ok_and(|key| key.public_eq(&held));
            if !pairs.iter().any(mine) {
                return Ok(());
            }
            let id = need(session.value(object, CKA_ID), "CKA_ID")?;
            let with_id = need(session.find(&vec![(CKA_ID, id)]), "C_FindObjects by CKA_ID")?;
            let class = |object| session.ulong(object, CKA_CLASS);
            let mut keys = with_id
                .into_iter()
                .filter(|object| matches!(class(*object), Ok(CKO_PUBLIC_KEY | CKO_PRIVATE_KEY)));
            let found = keys
                .any(|key| keys::known("token", session, None, key).is_ok_and(|key| mine(&key)));
            ensure(found, || "no key of the certificate's has its CKA_ID, without login".to_owned())
        });
    }
    Ok(())
}

/// The profiles that are claimed, or asked for.
fn tried(context: &mut Context) -> Outcome<Vec<(&'static Profile, bool)>> {
    let session = context.session()?;
    let claims = claimed(session)?;
    let asked = &context.target.profile;
    let tried = PROFILES.iter().map(|profile| match asked.is_empty() {
        true => (profile, claims.contains_key(&profile.id)),
        false => (profile, asked.iter().any(|one| one == profile.name)),
    });
    Ok(tried.collect())
}

fn sequences(context: &mut Context) -> Outcome {
    for (profile, asked) in tried(context)? {
        execute(context, profile.name, asked, || Ok(profile.sequence.to_owned()))?;
    }
    Ok(())
}

fn test_cases(context: &mut Context) -> Outcome {
    let Some(folder) = context.target.profiles.clone() else {
        return skip("--profiles names no folder");
    };
    for (profile, asked) in tried(context)? {
        let file = profile.file;
        execute(context, file, asked, || match fs::read_to_string(folder.join(file)) {
            Ok(text) => Ok(text),
            Err(_) => skip("the file is not in the folder of --profiles"),
        })?;
    }
    Ok(())
}

/// Executes a sequence of calls: a result of its own, and one for each value that it fixes.
fn execute(
    context: &mut Context,
    name: &str,
    asked: bool,
    text: impl FnOnce() -> Outcome<String>,
) -> Outcome {
    let mut compared = Vec::new();
    context.each(name, |context| {
        if !asked {
            return skip("the profile is not claimed, or was not asked for");
        }
        let text = text()?;
        let slot = context.slot()?;
        context.stopped()?;
        let ended = profile_script::run(context, slot, &text, &mut compared);
        // The script ends with C_Finalize; after a failure this does.
        context.stopped()?;
        ended
    });
    for one in compared {
        context.each(format!("{name}, {}", one.what), |_| {
            let differs = format!("{}, not {}", one.told, one.wanted);
            match (one.told == one.wanted, one.fixed) {
                (true, _) => Ok(()),
                (false, true) => fail(differs),
                // The test cases "may depend on a specific configuration": a token that has
                // another one is not tried by them, which is no failure and no pass.
                (false, false) => skip(format!("{differs}: another configuration's")),
            }
        });
    }
    Ok(())
}
