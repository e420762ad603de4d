//! The provider profiles of PKCS #11 Profiles 3.2: as rules, and by their own test cases where
//! `--profiles` names a folder that has them.

use std::{collections::BTreeMap, fs};

use cryptoki_sys::*;

use super::profile_script;
use crate::{
    case::{Case, Group, Outcome, ensure, fail, skip},
    client::{Family, Session, check, flag, number},
    context::{Context, is, need},
    ffi::NULL,
    functions::Function::{self, *},
    mechanism::{Mechanism, scheme},
    names,
    samples::{fits, to_sign},
};

/// The group.
pub const GROUP: Group = Group {
    name: "profiles",
    title: "provider profiles",
    patience: 60,
    cases: &[
        Case {
            id: "claims",
            clause: "4.13",
            title: "CKO_PROFILE objects name profiles that exist, are public, and are found only \
                    by their class.",
            run: claims,
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
            title: "A private key signs after login, and its public key verifies.",
            run: authentication,
        },
        Case {
            id: "certificates",
            clause: "Profiles 3.2, Public Certificates Token",
            title: "Certificates are read without login; each one's key is found by CKA_ID.",
            run: certificates,
        },
    ],
};

/// Name, CKP_…, test case.
pub const PROFILES: &[(&str, CK_PROFILE_ID, &str)] = &[
    ("baseline", CKP_BASELINE_PROVIDER, "BL-M-1-32.xml"),
    ("extended", CKP_EXTENDED_PROVIDER, "EXT-M-1-32.xml"),
    ("authentication", CKP_AUTHENTICATION_TOKEN, "AUTH-M-1-32.xml"),
    ("certificates", CKP_PUBLIC_CERTIFICATES_TOKEN, "CERT-M-1-32.xml"),
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
    let known = PROFILES.iter().find(|(one, ..)| *one == name);
    match known.is_some_and(|(_, profile, _)| claims.contains_key(profile)) {
        true => Ok(session),
        false => skip("the token has no CKO_PROFILE object that claims it"),
    }
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

fn implemented(session: Session, functions: &[Function]) -> Outcome {
    for function in functions {
        ensure(session.module.has(*function), || format!("{} is missing", function.row().name))?;
    }
    Ok(())
}

fn baseline(context: &mut Context) -> Outcome {
    let session = applies(context, "baseline")?;
    implemented(
        session,
        &[
            C_GetFunctionList,
            C_GetInterfaceList,
            C_GetInterface,
            C_Initialize,
            C_Finalize,
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
    let session = applies(context, "extended")?;
    implemented(
        session,
        &[C_GetMechanismList, C_GetMechanismInfo, C_Login, C_LoginUser, C_Logout],
    )?;
    let rv = check(session.call(C_LoginUser, &[CKU_USER.into(), NULL, 0.into(), NULL, 0.into()]));
    if rv.is_ok() {
        session.logout().ok();
    }
    ensure(rv != Err(CKR_FUNCTION_NOT_SUPPORTED), || "C_LoginUser is not supported".to_owned())?;
    for kind in context.mechanisms()? {
        need(context.mechanism_info(kind)?, &names::mechanism(kind))?;
    }
    Ok(())
}

fn authentication(context: &mut Context) -> Outcome {
    applies(context, "authentication")?;
    let offered = context.offered(CKF_SIGN)?;
    let keys: Vec<_> = context
        .keys()?
        .into_iter()
        .filter(|key| key.origin == "token" && !key.is_secret())
        .collect();
    if keys.is_empty() {
        return skip("the token has no private key that signs");
    }
    for key in keys {
        context.each(&key, |context| {
            let session = context.user()?;
            let Some(public) = key.public else {
                return fail("no public key has the private key's CKA_ID");
            };
            let usable = offered.iter().find_map(|(kind, info)| {
                let scheme = scheme(*kind)?;
                fits(*kind, &key, info).then_some((*kind, scheme))
            });
            let Some((kind, scheme)) = usable else { return fail("no mechanism signs with it") };
            let (mechanism, data) = (Mechanism::usual(kind), to_sign(scheme, &key));
            let signature = session.run(Family::Sign, &mechanism, key.private, &data);
            let signature = need(signature, "C_Sign")?;
            need(session.verify(&mechanism, public, &data, &signature), "C_Verify")
        });
    }
    Ok(())
}

fn certificates(context: &mut Context) -> Outcome {
    applies(context, "certificates")?;
    let slot = context.slot()?;
    // Whoever is logged in sees more: the profile is about those who are not.
    context.drop_keys();
    let rv = context.module.call(C_CloseAllSessions, &[slot.into()]);
    is(check(rv), CKR_OK, "C_CloseAllSessions")?;
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
            ensure(parsed.is_ok(), || "CKA_VALUE is no certificate".to_owned())?;
            let id = need(session.value(object, CKA_ID), "CKA_ID")?;
            let with_id = need(session.find(&vec![(CKA_ID, id)]), "C_FindObjects by CKA_ID")?;
            let is_key = |object: &CK_OBJECT_HANDLE| {
                matches!(session.ulong(*object, CKA_CLASS), Ok(CKO_PUBLIC_KEY | CKO_PRIVATE_KEY))
            };
            let found = with_id.iter().any(is_key);
            ensure(found, || "no key with its CKA_ID is found without login".to_owned())
        });
    }
    Ok(())
}

fn test_cases(context: &mut Context) -> Outcome {
    let Some(folder) = context.target.profiles.clone() else {
        return skip("--profiles names no folder");
    };
    let session = context.session()?;
    let claims = claimed(session)?;
    for (name, profile, file) in PROFILES {
        let asked = match context.target.profile.is_empty() {
            true => claims.contains_key(profile),
            false => context.target.profile.iter().any(|one| one == name),
        };
        context.each(file, |context| {
            if !asked {
                return skip("the profile is not claimed, or was not asked for");
            }
            let Ok(text) = fs::read_to_string(folder.join(file)) else {
                return skip("the file is not in the folder of --profiles");
            };
            let slot = context.slot()?;
            context.stopped()?;
            let variations = profile_script::run(context, slot, &text);
            // The script ends with C_Finalize; after a failure this does.
            context.stopped()?;
            let variations = variations?;
            ensure_configuration(&variations)
        });
    }
    Ok(())
}

/// The test cases "may depend on a specific configuration": a token that has another one is not
/// tried by them, which is no failure and no pass.
fn ensure_configuration(variations: &[String]) -> Outcome {
    match variations.is_empty() {
        true => Ok(()),
        false => skip(format!(
            "all calls answer as written; the test case assumes another configuration: {}",
            variations.join("; ")
        )),
    }
}
