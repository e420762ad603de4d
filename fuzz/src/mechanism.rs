//! Mechanism parameters: each structure of the standard, right and wrong, through the parser of each
//! mechanism.

use akv_pkcs11::{
    abi::arg::Parameter,
    crypto::{check_oaep_label, symmetric::Mode},
    mechanism::{
        MECHANISMS, Mechanism, Scheme,
        parameter::{self, Oaep, Pss, RsaAesWrap},
    },
};
use cryptoki_sys::CK_MECHANISM_TYPE;

use crate::{
    Seed,
    memory::Memory,
    parameter::{Input, OWN, Reader, build, mechanism},
};

/// The first byte chooses the mechanism, the next one the structure, and the rest fills it.
pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let mut memory = Memory::default();
    let kind = mechanism(&mut input);
    let built = build(&mut input, &mut memory, Reader::Mechanism(kind), &None);
    // SAFETY: `build` keeps a C caller's promise, for as long as `memory` lives.
    let parameter = unsafe { Parameter::promised(built.pointer, built.length) };
    if let Some(row) = Mechanism::find(kind) {
        parse(row, &parameter);
    }
    let built = build(&mut input, &mut memory, Reader::Message, &None);
    // SAFETY: as above.
    let parameter = unsafe { Parameter::promised(built.pointer, built.length) };
    if let Ok(message) = parameter.gcm_message() {
        let (iv, tag) = (message.iv.given.bytes(), message.tag.bytes());
        assert!(iv.is_ok() && tag.is_ok(), "lengths were looked at when it was read");
        assert_eq!(tag.unwrap_or_default().len() as u64, message.tag_bits.div_ceil(8));
    }
    memory.check("the parser");
}

fn parse(row: &Mechanism, parameter: &Parameter<'_>) {
    let none = parameter::none(row, parameter);
    match row.scheme {
        Scheme::Pss(fixed) => {
            if let Ok(pss) = Pss::parse(parameter, fixed) {
                assert!(fixed.is_none_or(|fixed| fixed == pss.hash));
                assert!(pss.mgf == pss.hash && pss.salt <= 2048);
                let service = pss.for_service();
                assert!(service.is_err() || pss.salt == pss.hash.len());
            }
        }
        Scheme::Oaep => {
            if let Ok(oaep) = Oaep::parse(parameter) {
                assert!(check_oaep_label(oaep.hash, oaep.mgf, &oaep.label).is_ok());
                let fits = oaep.label.is_empty() && oaep.mgf == oaep.hash;
                assert!(oaep.for_service().is_err() || fits);
            }
        }
        Scheme::RsaAesWrap => {
            if let Ok(wrap) = RsaAesWrap::parse(parameter) {
                assert!([16, 24, 32].contains(&wrap.aes));
                assert!(wrap.for_transfer().is_err() || wrap.oaep.label.is_empty());
            }
        }
        Scheme::Hmac(hash, general) => {
            if let Ok(length) = parameter::mac_len(hash, general, parameter) {
                assert!((1..=hash.len()).contains(&length) && (general || length == hash.len()));
            }
        }
        Scheme::Aes(mode) => {
            if let Ok(Mode::Gcm { tag_len, .. }) = parameter::aes(mode, parameter) {
                assert!((1..=16).contains(&tag_len));
            }
            if parameter.is_gcm_wrap()
                && let Ok(wrap) = parameter.gcm_wrap()
            {
                assert!(wrap.iv.given.bytes().is_ok() && wrap.iv.made.wanted().is_ok());
            }
        }
        _ => assert_eq!(none.is_ok(), parameter.is_empty(), "{}", row.name),
    }
}

/// The structure of each mechanism with something in it, and two others.
pub fn seeds() -> Vec<Seed> {
    let seed = |at: usize, kind: CK_MECHANISM_TYPE, form: u8| {
        let fields = [4, 2, 32, 12, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 3, 7, 7, 7, 128];
        let message = [OWN, 12, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 16, 32, 1];
        let input = [&[at as u8, form][..], &fields, &message].concat();
        Seed::new(format!("{kind:x}-{form}"), input)
    };
    let mut seeds = Vec::new();
    let mut seen = Vec::new();
    for (at, row) in MECHANISMS.iter().enumerate() {
        // One of a kind: the hash in its name decides nothing here.
        let kind = std::mem::discriminant(&row.scheme);
        let is_aes = matches!(row.scheme, Scheme::Aes(_));
        if !is_aes && seen.contains(&kind) {
            continue;
        }
        seen.push(kind);
        seeds.push(seed(at, row.kind, OWN));
        seeds.push(seed(at, row.kind, 1));
    }
    seeds
}
