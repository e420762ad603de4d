//! Executes a profile's test case: pairs of a call and its answer, in XML.
//!
//! A CK_RV that differs fails. Values of the "Permitted Test Case Variations" may differ freely;
//! other values that differ are given back: they are the configuration the case assumes.

use std::collections::BTreeMap;

use cryptoki_sys::*;
use roxmltree::{Document, Node};

use crate::{
    case::{Outcome, Stop, fail, skip},
    client::{Family, PLENTY, Rv, Session, check, flag, number},
    context::Context,
    ffi::place,
    functions::Function::*,
    mechanism::Mechanism,
    names, oracle,
};

/// What may differ (Profiles 3.2, Permitted Test Case Variations).
const PERMITTED: &[&str] = &[
    "LibraryDescription",
    "LibraryVersion",
    "ManufacturerID",
    "SlotDescription",
    "HardwareVersion",
    "FirmwareVersion",
    "serialNumber",
    "label",
    "model",
    "utcTime",
    "SlotID",
    "Object",
    "Session",
    "VALUE",
    "PUBLIC_EXPONENT",
];

/// Runs one; gives the values that differ and may not.
pub fn run(context: &mut Context, slot: CK_SLOT_ID, xml: &str) -> Outcome<Vec<String>> {
    let document =
        Document::parse(xml).map_err(|error| Stop::Fail(format!("the test case: {error}")))?;
    let calls: Vec<Node<'_, '_>> =
        document.root_element().children().filter(Node::is_element).collect();
    let mut script = Script {
        context,
        slot,
        session: None,
        objects: Vec::new(),
        rsa: BTreeMap::new(),
        signed: Vec::new(),
        variations: Vec::new(),
    };
    for pair in calls.chunks(2) {
        let [call, answer] = pair else { return fail("the test case ends within a call") };
        script.step(*call, *answer)?;
    }
    Ok(script.variations)
}

struct Script<'a> {
    context: &'a mut Context,
    slot: CK_SLOT_ID,
    session: Option<Session>,
    objects: Vec<CK_OBJECT_HANDLE>,
    rsa: BTreeMap<CK_ATTRIBUTE_TYPE, Vec<u8>>,
    signed: Vec<u8>,
    variations: Vec<String>,
}

fn child<'a, 'i>(node: Node<'a, 'i>, name: &str) -> Option<Node<'a, 'i>> {
    node.children().find(|child| child.has_tag_name(name))
}

fn value<'a>(node: Node<'a, '_>, name: &str) -> Option<&'a str> {
    child(node, name)?.attribute("value")
}

fn flags(text: &str, known: &[(&str, CK_FLAGS)]) -> CK_FLAGS {
    if let Some(hex) = text.strip_prefix("0x") {
        return CK_FLAGS::from_str_radix(hex, 16).unwrap_or(CK_FLAGS::MAX);
    }
    let one = |name: &str| known.iter().find(|(one, _)| *one == name).map_or(1 << 63, |f| f.1);
    text.split('|').map(one).fold(0, |all, flag| all | flag)
}

const FLAGS: &[(&str, CK_FLAGS)] = &[
    ("TOKEN_PRESENT", CKF_TOKEN_PRESENT),
    ("RW_SESSION", CKF_RW_SESSION),
    ("SERIAL_SESSION", CKF_SERIAL_SESSION),
];
const TOKEN_FLAGS: &[(&str, CK_FLAGS)] = &[
    ("RNG", CKF_RNG),
    ("LOGIN_REQUIRED", CKF_LOGIN_REQUIRED),
    ("USER_PIN_INITIALIZED", CKF_USER_PIN_INITIALIZED),
    ("RESTORE_KEY_NOT_NEEDED", CKF_RESTORE_KEY_NOT_NEEDED),
    ("TOKEN_INITIALIZED", CKF_TOKEN_INITIALIZED),
];
const USES: &[(&str, CK_FLAGS)] = &[
    ("DIGEST", CKF_DIGEST),
    ("GENERATE_KEY_PAIR", CKF_GENERATE_KEY_PAIR),
    ("ENCRYPT", CKF_ENCRYPT),
    ("DECRYPT", CKF_DECRYPT),
    ("SIGN", CKF_SIGN),
    ("VERIFY", CKF_VERIFY),
    ("WRAP", CKF_WRAP),
    ("UNWRAP", CKF_UNWRAP),
];

fn attribute_type(name: &str) -> Option<CK_ATTRIBUTE_TYPE> {
    Some(match name {
        "TOKEN" => CKA_TOKEN,
        "LABEL" => CKA_LABEL,
        "CLASS" => CKA_CLASS,
        "VALUE" => CKA_VALUE,
        "MODULUS" => CKA_MODULUS,
        "PUBLIC_EXPONENT" => CKA_PUBLIC_EXPONENT,
        _ => return None,
    })
}

fn mechanism_type(name: &str) -> Option<CK_MECHANISM_TYPE> {
    Some(match name {
        "SHA512" => CKM_SHA512,
        "RSA_PKCS_KEY_PAIR_GEN" => CKM_RSA_PKCS_KEY_PAIR_GEN,
        "RSA_PKCS" => CKM_RSA_PKCS,
        "SHA256_RSA_PKCS" => CKM_SHA256_RSA_PKCS,
        _ => return None,
    })
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect();
    Some(digits?.chunks(2).map(|pair| pair[0] << 4 | pair.get(1).unwrap_or(&0)).collect())
}

impl Script<'_> {
    fn differs(&mut self, what: &str, told: &str, wanted: &str) {
        let name = what.rsplit('/').next().unwrap_or(what);
        if told != wanted && !PERMITTED.contains(&name) {
            self.variations.push(format!("{what} is {told}, not {wanted}"));
        }
    }

    fn session(&self) -> Outcome<Session> {
        self.session.ok_or_else(|| Stop::Fail("the test case has no session".to_owned()))
    }

    fn object(&self, node: Node<'_, '_>) -> Outcome<CK_OBJECT_HANDLE> {
        let text = node.attribute("value").unwrap_or_default();
        let index =
            text.rsplit_once('[').and_then(|(_, rest)| rest.strip_suffix("]}")?.parse().ok());
        let object = index.and_then(|index: usize| self.objects.get(index).copied());
        object.ok_or_else(|| Stop::Skip(format!("the token lacks the object that is {text}")))
    }

    fn step(&mut self, call: Node<'_, '_>, answer: Node<'_, '_>) -> Outcome {
        let name = call.tag_name().name();
        let rv = self.call(name, call, answer)?;
        let told = names::rv(rv.map_or_else(|rv| rv, |()| CKR_OK));
        let wanted = format!("CKR_{}", answer.attribute("rv").unwrap_or("OK"));
        if told == wanted { Ok(()) } else { fail(format!("{name}: {told} instead of {wanted}")) }
    }

    fn call(&mut self, name: &str, call: Node<'_, '_>, answer: Node<'_, '_>) -> Outcome<Rv> {
        let (module, slot) = (self.context.module, self.slot);
        Ok(match name {
            "C_Initialize" => self.context.initialize(),
            "C_Finalize" => self.context.finalize(),
            "C_GetInfo" => {
                let mut info = CK_INFO::default();
                let rv = check(module.call(C_GetInfo, &[place(&mut info)]));
                if let Some(wanted) = child(answer, "Info") {
                    let version = child(wanted, "CryptokiVersion");
                    let part = |name| version.and_then(|v| v.attribute(name)).unwrap_or("");
                    let wanted = format!("{}.{}", part("major"), part("minor"));
                    let told = info.cryptokiVersion;
                    let told = format!("{}.{}", told.major, told.minor);
                    self.differs("Info/CryptokiVersion", &told, &wanted);
                }
                rv
            }
            "C_GetSlotList" => self.context.slots(true).map(|_| ()),
            "C_GetSlotInfo" => {
                let mut info = CK_SLOT_INFO::default();
                let rv = check(module.call(C_GetSlotInfo, &[slot.into(), place(&mut info)]));
                if let Some(wanted) = child(answer, "SlotInfo").and_then(|i| value(i, "Flags")) {
                    let wanted = flags(wanted, FLAGS);
                    self.differs(
                        "SlotInfo/Flags",
                        &format!("{:#x}", info.flags),
                        &format!("{wanted:#x}"),
                    );
                }
                rv
            }
            "C_GetTokenInfo" => self.token_info(answer),
            "C_GetMechanismList" => {
                let listed = self.context.mechanisms();
                let wanted = child(answer, "MechanismList");
                for one in wanted.iter().flat_map(Node::children).filter(Node::is_element) {
                    let name = one.attribute("value").unwrap_or_default();
                    let known = mechanism_type(name);
                    let listed =
                        listed.as_ref().is_ok_and(|l| known.is_some_and(|k| l.contains(&k)));
                    self.differs(name, if listed { "listed" } else { "not listed" }, "listed");
                }
                listed.map_or(Err(CKR_GENERAL_ERROR), |_| Ok(()))
            }
            "C_GetMechanismInfo" => self.mechanism_info(call, answer),
            "C_OpenSession" => {
                let wanted = flags(value(call, "Flags").unwrap_or_default(), FLAGS);
                let session = Session::open(module, slot, wanted);
                self.session = session.ok();
                session.map(|_| ())
            }
            "C_CloseSession" => self.session()?.close(),
            "C_CloseAllSessions" => check(module.call(C_CloseAllSessions, &[slot.into()])),
            "C_Login" => {
                let session = self.session()?;
                self.context.login(session)
            }
            "C_Logout" => self.session()?.logout(),
            "C_FindObjectsInit" => self.find_init(call)?,
            "C_FindObjects" => {
                let max = child(call, "Object").and_then(|o| o.attribute("length")?.parse().ok());
                let found = self.session()?.find_next(max.unwrap_or(1));
                let wanted = child(answer, "Object")
                    .map_or(0, |o| o.children().filter(Node::is_element).count());
                if let Ok(found) = &found {
                    self.objects.clone_from(found);
                    let told = found.len().to_string();
                    self.differs("C_FindObjects/objects", &told, &wanted.to_string());
                }
                found.map(|_| ())
            }
            "C_FindObjectsFinal" => self.session()?.find_final(),
            "C_GetAttributeValue" => self.attributes(call, answer)?,
            "C_SignInit" => {
                let kind = child(call, "Mechanism").and_then(|m| value(m, "Type"));
                let Some(kind) = kind.and_then(mechanism_type) else {
                    return fail("C_SignInit: an unknown mechanism");
                };
                let key = child(call, "Key").map_or_else(|| fail("no key"), |k| self.object(k))?;
                self.session()?.init(Family::Sign, &Mechanism::plain(kind), key)
            }
            "C_Sign" => self.sign(call, answer)?,
            other => return fail(format!("{other} is not known to this program")),
        })
    }

    fn token_info(&mut self, answer: Node<'_, '_>) -> Rv {
        let info = self.context.token_info(self.slot)?;
        let Some(wanted) = child(answer, "TokenInfo") else { return Ok(()) };
        let right = flags(value(wanted, "Flags").unwrap_or_default(), TOKEN_FLAGS);
        self.differs("TokenInfo/Flags", &format!("{:#x}", info.flags), &format!("{right:#x}"));
        for (name, told) in [
            ("MaxSessionCount", info.ulMaxSessionCount),
            ("SessionCount", info.ulSessionCount),
            ("MaxRwSessionCount", info.ulMaxRwSessionCount),
            ("RwSessionCount", info.ulRwSessionCount),
            ("MaxPinLen", info.ulMaxPinLen),
            ("MinPinLen", info.ulMinPinLen),
        ] {
            if let Some(wanted) = value(wanted, name) {
                self.differs(&format!("TokenInfo/{name}"), &told.to_string(), wanted);
            }
        }
        Ok(())
    }

    fn mechanism_info(&mut self, call: Node<'_, '_>, answer: Node<'_, '_>) -> Rv {
        let name = value(call, "Type").unwrap_or_default();
        let kind = mechanism_type(name).ok_or(CKR_MECHANISM_INVALID)?;
        let mut info = CK_MECHANISM_INFO::default();
        let args = [self.slot.into(), kind.into(), place(&mut info)];
        check(self.context.module.call(C_GetMechanismInfo, &args))?;
        let Some(wanted) = child(answer, "MechanismInfo") else { return Ok(()) };
        for (field, told) in [("MinKeySize", info.ulMinKeySize), ("MaxKeySize", info.ulMaxKeySize)]
        {
            let right = value(wanted, field).unwrap_or_default();
            self.differs(&format!("{name}/{field}"), &told.to_string(), right);
        }
        let right = flags(value(wanted, "Flags").unwrap_or_default(), USES);
        let told = info.flags & !CKF_HW;
        self.differs(&format!("{name}/Flags"), &format!("{told:#x}"), &format!("{right:#x}"));
        Ok(())
    }

    fn find_init(&mut self, call: Node<'_, '_>) -> Outcome<Rv> {
        let mut template = Vec::new();
        let listed = child(call, "Template");
        for one in listed.iter().flat_map(Node::children).filter(Node::is_element) {
            let name = one.attribute("type").unwrap_or_default();
            let text = one.attribute("value").unwrap_or_default();
            let Some(kind) = attribute_type(name) else {
                return fail(format!("{name} is not known to this program"));
            };
            let bytes = match (kind, text) {
                (CKA_TOKEN, text) => flag(text == "TRUE"),
                (CKA_CLASS, "PUBLIC_KEY") => number(CKO_PUBLIC_KEY),
                (CKA_CLASS, "PRIVATE_KEY") => number(CKO_PRIVATE_KEY),
                _ => text.as_bytes().to_vec(),
            };
            template.push((kind, bytes));
        }
        Ok(self.session()?.find_init(&template))
    }

    fn attributes(&mut self, call: Node<'_, '_>, answer: Node<'_, '_>) -> Outcome<Rv> {
        let object = child(call, "Object").map_or_else(|| fail("no object"), |o| self.object(o))?;
        let list = |node| {
            let template = child(node, "Template");
            template.into_iter().flat_map(|t| t.children()).filter(Node::is_element)
        };
        let session = self.session()?;
        for (one, wanted) in list(call).zip(list(answer)) {
            let name = one.attribute("type").unwrap_or_default();
            let Some(kind) = attribute_type(name) else {
                return fail(format!("{name} is not known to this program"));
            };
            // The lengths that the test case asks with are those of its own objects.
            let told = match session.value(object, kind) {
                Ok(told) => told,
                Err(CKR_ATTRIBUTE_TYPE_INVALID) => {
                    let why = "the token's objects are others than the test case's";
                    return skip(format!("{why}: one has no {name}"));
                }
                Err(rv) => return Ok(Err(rv)),
            };
            if let Some(text) = wanted.attribute("value") {
                let right = match kind {
                    CKA_LABEL => text.as_bytes().to_vec(),
                    _ => hex(text).unwrap_or_default(),
                };
                self.differs(
                    name,
                    if told == right { "as written" } else { "another" },
                    "as written",
                );
            }
            self.rsa.insert(kind, told);
        }
        Ok(Ok(()))
    }

    /// The signature of another key differs; OpenSSL says whether it is one.
    fn sign(&mut self, call: Node<'_, '_>, answer: Node<'_, '_>) -> Outcome<Rv> {
        let data = value(call, "Data").and_then(hex).unwrap_or_default();
        let wanted = value(answer, "Signature").and_then(hex).unwrap_or_default();
        let output = self.session()?.one_shot_in(Family::Sign, &data, PLENTY);
        self.signed = output.bytes.clone();
        if output.rv == CKR_OK && self.signed != wanted {
            let part = |kind| self.rsa.get(&kind).cloned().unwrap_or_default();
            let key = oracle::rsa_public(&part(CKA_MODULUS), &part(CKA_PUBLIC_EXPONENT));
            let held = key.and_then(|key| oracle::pkcs1_recover(&key, &self.signed));
            let sha256 = &crate::mechanism::HASHES[2];
            if held.ok() != Some(sha256.digest_info(&sha256.digest(&data))) {
                return fail("C_Sign: OpenSSL refuses the signature");
            }
        }
        Ok(check(output.rv))
    }
}
