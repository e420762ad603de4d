//! Executes a profile's test case: pairs of a call and its answer, in XML.
//!
//! A CK_RV that differs fails. Values of the "Permitted Test Case Variations" may differ freely.
//! All others are given back as [`Compared`], each to be judged: what a token's configuration
//! decides is the token's own matter, the rest is not.

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

/// What may differ (Profiles 3.2, Permitted Test Case Variations). Mechanisms may too: one that is
/// not listed is not asked about.
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

/// What no configuration of a token decides.
const FIXED: &[&str] =
    &["Info/CryptokiVersion", "Info/Flags", "SlotInfo/Flags", "SessionInfo/State", "length"];

/// A value that the test case has, beside the module's.
#[derive(Clone, Debug)]
pub struct Compared {
    /// The call's number and the value's name.
    pub what: String,
    /// The module's.
    pub told: String,
    /// The test case's.
    pub wanted: String,
    /// Whether every token must have the test case's.
    pub fixed: bool,
}

/// Runs one; adds the values that were compared, as far as it comes.
pub fn run(
    context: &mut Context,
    slot: CK_SLOT_ID,
    xml: &str,
    compared: &mut Vec<Compared>,
) -> Outcome {
    let document =
        Document::parse(xml).map_err(|error| Stop::Fail(format!("the test case: {error}")))?;
    let calls: Vec<Node<'_, '_>> =
        document.root_element().children().filter(Node::is_element).collect();
    let mut script = Script {
        context,
        slot,
        call: 0,
        session: None,
        objects: Vec::new(),
        lengths: BTreeMap::new(),
        rsa: BTreeMap::new(),
        compared,
    };
    for pair in calls.chunks(2) {
        let [call, answer] = pair else { return fail("the test case ends within a call") };
        script.call += 1;
        script.step(*call, *answer)?;
    }
    Ok(())
}

struct Script<'a> {
    context: &'a mut Context,
    slot: CK_SLOT_ID,
    /// The number of the call, from 1.
    call: usize,
    session: Option<Session>,
    objects: Vec<CK_OBJECT_HANDLE>,
    /// Lengths that were asked for, by object.
    lengths: BTreeMap<(CK_OBJECT_HANDLE, CK_ATTRIBUTE_TYPE), CK_ULONG>,
    rsa: BTreeMap<CK_ATTRIBUTE_TYPE, Vec<u8>>,
    compared: &'a mut Vec<Compared>,
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
const STATES: &[(&str, CK_STATE)] = &[
    ("RO_PUBLIC_SESSION", CKS_RO_PUBLIC_SESSION),
    ("RO_USER_FUNCTIONS", CKS_RO_USER_FUNCTIONS),
    ("RW_PUBLIC_SESSION", CKS_RW_PUBLIC_SESSION),
    ("RW_USER_FUNCTIONS", CKS_RW_USER_FUNCTIONS),
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

fn attribute_type(name: &str) -> Outcome<CK_ATTRIBUTE_TYPE> {
    let known = names::attribute_named(name);
    known.map_or_else(|| fail(format!("CKA_{name} is not known to this program")), Ok)
}

fn mechanism_type(name: &str) -> Outcome<CK_MECHANISM_TYPE> {
    let known = names::mechanism_named(name);
    known.map_or_else(|| skip(format!("CKM_{name} is not known to this program")), Ok)
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect();
    Some(digits?.chunks(2).map(|pair| pair[0] << 4 | pair.get(1).unwrap_or(&0)).collect())
}

impl Script<'_> {
    fn compare(&mut self, what: &str, told: &str, wanted: &str) {
        let name = what.rsplit('/').next().unwrap_or(what);
        if PERMITTED.contains(&name) {
            return;
        }
        self.compared.push(Compared {
            what: format!("call {} {what}", self.call),
            told: told.to_owned(),
            wanted: wanted.to_owned(),
            fixed: FIXED.contains(&what) || FIXED.contains(&name),
        });
    }

    fn flags(&mut self, what: &str, told: CK_FLAGS, wanted: &str, known: &[(&str, CK_FLAGS)]) {
        let wanted = flags(wanted, known);
        self.compare(what, &format!("{told:#x}"), &format!("{wanted:#x}"));
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
                    self.compare("Info/CryptokiVersion", &told, &wanted);
                }
                if let Some(wanted) = child(answer, "Info").and_then(|i| value(i, "Flags")) {
                    self.flags("Info/Flags", info.flags, wanted, &[]);
                }
                rv
            }
            "C_GetSlotList" => self.context.slots(true).map(|_| ()),
            "C_GetSlotInfo" => {
                let mut info = CK_SLOT_INFO::default();
                let rv = check(module.call(C_GetSlotInfo, &[slot.into(), place(&mut info)]));
                if let Some(wanted) = child(answer, "SlotInfo").and_then(|i| value(i, "Flags")) {
                    // Whether tokens can be removed is the slot's own.
                    let told = info.flags & CKF_TOKEN_PRESENT;
                    self.flags("SlotInfo/Flags", told, wanted, FLAGS);
                }
                rv
            }
            "C_GetTokenInfo" => self.token_info(answer),
            "C_GetMechanismList" => self.context.mechanisms().map(|_| Ok(()))?,
            "C_GetMechanismInfo" => self.mechanism_info(call, answer)?,
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
            "C_LoginUser" => {
                let pin = self.context.target.pin.clone().unwrap_or_default();
                self.session()?.login_user(CKU_USER, &pin, "")
            }
            "C_Logout" => self.session()?.logout(),
            "C_GetSessionInfo" => {
                let info = self.session()?.info();
                let wanted = child(answer, "SessionInfo").and_then(|i| value(i, "State"));
                if let (Ok(info), Some(wanted)) = (info, wanted) {
                    self.flags("SessionInfo/State", info.state, wanted, STATES);
                }
                info.map(|_| ())
            }
            "C_FindObjectsInit" => self.find_init(call)?,
            "C_FindObjects" => {
                let max = child(call, "Object").and_then(|o| o.attribute("length")?.parse().ok());
                let found = self.session()?.find_next(max.unwrap_or(1));
                let wanted = child(answer, "Object")
                    .map(|o| o.children().filter(Node::is_element).count().to_string());
                if let Ok(found) = &found {
                    self.objects.clone_from(found);
                    if let Some(wanted) = wanted {
                        self.compare("objects found", &found.len().to_string(), &wanted);
                    }
                }
                found.map(|_| ())
            }
            "C_FindObjectsFinal" => self.session()?.find_final(),
            "C_GetAttributeValue" => self.attributes(call, answer)?,
            "C_SignInit" => {
                let kind = child(call, "Mechanism").and_then(|m| value(m, "Type"));
                let kind = kind.map_or_else(|| fail("C_SignInit: no mechanism"), mechanism_type)?;
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
        if let Some(wanted) = value(wanted, "Flags") {
            self.flags("TokenInfo/Flags", info.flags, wanted, TOKEN_FLAGS);
        }
        for (name, told) in [
            ("MaxSessionCount", info.ulMaxSessionCount),
            ("SessionCount", info.ulSessionCount),
            ("MaxRwSessionCount", info.ulMaxRwSessionCount),
            ("RwSessionCount", info.ulRwSessionCount),
            ("MaxPinLen", info.ulMaxPinLen),
            ("MinPinLen", info.ulMinPinLen),
            ("TotalPublicMemory", info.ulTotalPublicMemory),
            ("FreePublicMemory", info.ulFreePublicMemory),
            ("TotalPrivateMemory", info.ulTotalPrivateMemory),
            ("FreePrivateMemory", info.ulFreePrivateMemory),
        ] {
            if let Some(wanted) = value(wanted, name) {
                let told = match told {
                    CK_UNAVAILABLE_INFORMATION => "unavailable".to_owned(),
                    told => told.to_string(),
                };
                self.compare(&format!("TokenInfo/{name}"), &told, wanted);
            }
        }
        Ok(())
    }

    fn mechanism_info(&mut self, call: Node<'_, '_>, answer: Node<'_, '_>) -> Outcome<Rv> {
        let name = value(call, "Type").unwrap_or_default();
        let kind = mechanism_type(name)?;
        if !self.context.mechanisms()?.contains(&kind) {
            return Ok(Ok(()));
        }
        let info = match self.context.mechanism_info(kind)? {
            Ok(info) => info,
            Err(rv) => return Ok(Err(rv)),
        };
        let Some(wanted) = child(answer, "MechanismInfo") else { return Ok(Ok(())) };
        for (field, told) in [("MinKeySize", info.ulMinKeySize), ("MaxKeySize", info.ulMaxKeySize)]
        {
            let right = value(wanted, field).unwrap_or_default();
            self.compare(&format!("{name}/{field}"), &told.to_string(), right);
        }
        let right = value(wanted, "Flags").unwrap_or_default();
        self.flags(&format!("{name}/Flags"), info.flags & !CKF_HW, right, USES);
        Ok(Ok(()))
    }

    fn find_init(&mut self, call: Node<'_, '_>) -> Outcome<Rv> {
        let mut template = Vec::new();
        let listed = child(call, "Template");
        for one in listed.iter().flat_map(Node::children).filter(Node::is_element) {
            let kind = attribute_type(one.attribute("type").unwrap_or_default())?;
            let text = one.attribute("value").unwrap_or_default();
            let bytes = match (kind, text) {
                (CKA_CLASS, class) => match names::class_named(class) {
                    Some(class) => number(class),
                    None => return fail(format!("CKO_{class} is not known to this program")),
                },
                (CKA_KEY_TYPE, "RSA") => number(CKK_RSA),
                (_, "TRUE" | "FALSE") => flag(text == "TRUE"),
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
            let kind = attribute_type(name)?;
            let (rv, _) = session.attributes(object, &[(kind, None)]);
            let object = match rv {
                // Which object is which may differ: another one that was found has it.
                CKR_ATTRIBUTE_TYPE_INVALID => {
                    let mut others = self.objects.iter().copied();
                    match others.find(|other| session.value(*other, kind).is_ok()) {
                        Some(other) => other,
                        None => return skip(format!("no object that was found has CKA_{name}")),
                    }
                }
                CKR_OK => object,
                rv => return Ok(Err(rv)),
            };
            if one.attribute("length").is_none() {
                let length = match session.attributes(object, &[(kind, None)]) {
                    (CKR_OK, told) => told.first().map_or(0, |told| told.length),
                    (rv, _) => return Ok(Err(rv)),
                };
                self.lengths.insert((object, kind), length);
                if let Some(right) = wanted.attribute("length") {
                    // That of the test case's own object.
                    self.compare(&format!("{name}/size"), &length.to_string(), right);
                }
                continue;
            }
            let told = match session.value(object, kind) {
                Ok(told) => told,
                Err(rv) => return Ok(Err(rv)),
            };
            if let Some(length) = self.lengths.get(&(object, kind)) {
                let (told, length) = (told.len().to_string(), length.to_string());
                self.compare(&format!("{name}/length"), &told, &length);
            }
            if let Some(text) = wanted.attribute("value") {
                let right = match kind {
                    CKA_LABEL => text.as_bytes().to_vec(),
                    _ => hex(text).unwrap_or_default(),
                };
                let told = if told == right { "as written" } else { "another" };
                self.compare(name, told, "as written");
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
        let signed = &output.bytes;
        if output.rv == CKR_OK && *signed != wanted {
            let part = |kind| self.rsa.get(&kind).cloned().unwrap_or_default();
            let key = oracle::rsa_public(&part(CKA_MODULUS), &part(CKA_PUBLIC_EXPONENT));
            let held = key.and_then(|key| oracle::pkcs1_recover(&key, signed));
            let sha256 = &crate::mechanism::HASHES[2];
            if held.ok() != Some(sha256.digest_info(&sha256.digest(&data))) {
                return fail("C_Sign: OpenSSL refuses the signature");
            }
        }
        Ok(output.result().map(|_| ()))
    }
}
