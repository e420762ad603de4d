//! From bytes to arguments, and to mechanism parameters with everything they point to.

use std::{ffi::c_void, ptr};

use akv_pkcs11::mechanism::{AesMode, MECHANISMS, Mechanism, Scheme};
use arbitrary::Unstructured;
use cryptoki_sys::*;

use crate::memory::{At, Memory, void};

/// An input that is taken apart from its beginning; zeros follow its end.
pub struct Input<'a>(Unstructured<'a>);

impl<'a> Input<'a> {
    /// Takes `bytes` apart.
    pub fn new(bytes: &'a [u8]) -> Input<'a> {
        Input(Unstructured::new(bytes))
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        self.0.arbitrary().unwrap_or(0)
    }

    /// So many bytes, or what is left.
    pub fn bytes(&mut self, length: usize) -> &'a [u8] {
        self.0.bytes(length.min(self.0.len())).unwrap_or_default()
    }

    /// A length in a byte, and so many bytes.
    pub fn string(&mut self) -> &'a [u8] {
        let length = self.byte();
        self.bytes(length.into())
    }

    /// One of these.
    pub fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::from(self.byte()) % all.len()]
    }
}

/// A parameter in memory.
pub struct Built {
    /// Where it is.
    pub pointer: *mut c_void,
    /// What the module is told of its length.
    pub length: CK_ULONG,
    /// IV and tag of CK_GCM_MESSAGE_PARAMS, which the module may write.
    pub message: Option<(At, At)>,
}

/// IV and tag that an earlier message got.
pub type Kept = Option<(Vec<u8>, Vec<u8>)>;

/// The structures, by the byte that chooses them.
const FORMS: &[Form] = &[
    Form::Nothing,
    Form::Bytes,
    Form::Pss,
    Form::Oaep,
    Form::Gcm,
    Form::GcmMessage,
    Form::GcmWrap,
    Form::RsaAes,
    Form::Ctr,
    Form::Number,
    Form::NullWithLength,
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Nothing,
    Bytes,
    Pss,
    Oaep,
    Gcm,
    GcmMessage,
    GcmWrap,
    RsaAes,
    Ctr,
    Number,
    NullWithLength,
}

/// From here on a byte means the structure that the mechanism has.
pub const OWN: u8 = 0x80;
/// A length that means the IV and the tag of the last message.
pub const LAST: u8 = 0xff;
/// What an IV, a label or the like points to.
pub const NULL: u8 = 0xfe;

/// Who reads a parameter.
#[derive(Clone, Copy)]
pub enum Reader {
    /// An Init function, or one that does everything at once, for this mechanism.
    Mechanism(CK_MECHANISM_TYPE),
    /// A function for one message.
    Message,
}

/// Makes a parameter: the structure that belongs to its reader, or any other, or a part of one.
///
/// What a structure points to is there in full. Where the reader looks for pointers, judging by the
/// length, there are some: a C caller has to promise that much.
pub fn build(input: &mut Input<'_>, memory: &mut Memory, reader: Reader, kept: &Kept) -> Built {
    let choice = input.byte();
    let form = match choice >= OWN {
        true => form_of(reader),
        false => FORMS[usize::from(choice) % FORMS.len()],
    };
    let (pointer, mut length, message) = structure(form, input, memory, kept);
    let short = choice & 0xc0 == 0x40 && length > 0;
    length -= CK_ULONG::from(short);
    if looks_for_pointers(reader, length) && (short || !has_pointers(form, reader)) {
        length -= 1;
    }
    Built { pointer, length, message }
}

/// Whether a parameter of this length is read as a structure with pointers.
fn looks_for_pointers(reader: Reader, length: CK_ULONG) -> bool {
    const OAEP: usize = size_of::<CK_RSA_PKCS_OAEP_PARAMS>();
    const RSA_AES: usize = size_of::<CK_RSA_AES_KEY_WRAP_PARAMS>();
    const GCM: usize = size_of::<CK_GCM_PARAMS>();
    const WRAP: usize = size_of::<CK_GCM_WRAP_PARAMS>();
    const MESSAGE: usize = size_of::<CK_GCM_MESSAGE_PARAMS>();
    match (reader, length as usize) {
        (Reader::Mechanism(kind), RSA_AES) => kind == CKM_RSA_AES_KEY_WRAP,
        (Reader::Mechanism(_), OAEP | GCM | WRAP) | (Reader::Message, MESSAGE) => true,
        _ => false,
    }
}

/// Whether the structure has pointers where this reader looks for them.
fn has_pointers(form: Form, reader: Reader) -> bool {
    match reader {
        Reader::Mechanism(_) => {
            matches!(form, Form::Oaep | Form::RsaAes | Form::Gcm | Form::GcmWrap)
        }
        Reader::Message => form == Form::GcmMessage,
    }
}

/// The structure in the description of a mechanism.
fn form_of(reader: Reader) -> Form {
    let Reader::Mechanism(kind) = reader else {
        return Form::GcmMessage;
    };
    let Some(row) = Mechanism::find(kind) else {
        return Form::Nothing;
    };
    match row.scheme {
        Scheme::Pss(_) => Form::Pss,
        Scheme::Oaep => Form::Oaep,
        Scheme::RsaAesWrap => Form::RsaAes,
        Scheme::Hmac(_, true) => Form::Number,
        Scheme::Aes(AesMode::Cbc | AesMode::CbcPad) => Form::Bytes,
        Scheme::Aes(AesMode::Ctr) => Form::Ctr,
        Scheme::Aes(AesMode::Gcm) => Form::Gcm,
        _ => Form::Nothing,
    }
}

type Structure = (*mut c_void, CK_ULONG, Option<(At, At)>);

fn structure(form: Form, input: &mut Input<'_>, memory: &mut Memory, kept: &Kept) -> Structure {
    match form {
        Form::Nothing => (ptr::null_mut(), 0, None),
        Form::NullWithLength => (ptr::null_mut(), input.byte().into(), None),
        Form::Bytes => {
            let bytes = input.string();
            (void(memory.input(bytes)), bytes.len() as CK_ULONG, None)
        }
        Form::Number => whole(memory, &CK_ULONG::from(input.byte())),
        Form::Ctr => {
            let mut cb = [0; 16];
            let (bits, block) = (input.byte(), input.bytes(16));
            cb[..block.len()].copy_from_slice(block);
            whole(memory, &CK_AES_CTR_PARAMS { ulCounterBits: bits.into(), cb })
        }
        Form::Pss => {
            let (hashAlg, mgf) = (hash(input), mask(input));
            whole(memory, &CK_RSA_PKCS_PSS_PARAMS { hashAlg, mgf, sLen: input.byte().into() })
        }
        Form::Oaep => {
            let oaep = oaep(input, memory);
            whole(memory, &oaep)
        }
        Form::RsaAes => {
            let bits = input.one_of(&[256, 128, 192, 0, 255]);
            let present = input.byte() != NULL;
            let oaep = oaep(input, memory);
            let oaep = if present { memory.place(&oaep) } else { ptr::null_mut() };
            whole(memory, &CK_RSA_AES_KEY_WRAP_PARAMS { ulAESKeyBits: bits, pOAEPParams: oaep })
        }
        Form::Gcm => {
            let ((pIv, ulIvLen), (pAAD, ulAADLen)) =
                (pointed(input, memory), pointed(input, memory));
            let (ulIvBits, ulTagBits) = (ulIvLen.wrapping_mul(8), bits(input));
            let gcm = CK_GCM_PARAMS { pIv, ulIvLen, ulIvBits, pAAD, ulAADLen, ulTagBits };
            whole(memory, &gcm)
        }
        Form::GcmWrap => {
            let ((pIv, ulIvLen), (pAAD, ulAADLen)) =
                (writable(input, memory), pointed(input, memory));
            let (ulIvFixedBits, ivGenerator) = (input.byte().into(), generator(input));
            let ulTagBits = bits(input);
            let gcm = CK_GCM_WRAP_PARAMS {
                pIv,
                ulIvLen,
                ulIvFixedBits,
                ivGenerator,
                pAAD,
                ulAADLen,
                ulTagBits,
            };
            whole(memory, &gcm)
        }
        Form::GcmMessage => message(input, memory, kept),
    }
}

/// CK_GCM_MESSAGE_PARAMS, whose tag has room for as many bits as it says.
fn message(input: &mut Input<'_>, memory: &mut Memory, kept: &Kept) -> Structure {
    let choice = input.byte();
    let (iv, tag) = match kept {
        Some((iv, tag)) if choice == LAST => (iv.clone(), tag.clone()),
        _ => {
            let iv = input.bytes(choice.into()).to_vec();
            let bytes = usize::from(input.byte()) % 20;
            (iv, vec![0; bytes])
        }
    };
    let (fixed, ivGenerator) = (input.byte(), generator(input));
    let (iv_at, tag_at) = (memory.block(&iv), memory.block(&tag));
    let parameter = CK_GCM_MESSAGE_PARAMS {
        pIv: memory.pointer(iv_at),
        ulIvLen: iv.len() as CK_ULONG,
        ulIvFixedBits: fixed.into(),
        ivGenerator,
        pTag: memory.pointer(tag_at),
        ulTagBits: 8 * tag.len() as CK_ULONG,
    };
    let (pointer, length, _) = whole(memory, &parameter);
    (pointer, length, Some((iv_at, tag_at)))
}

fn whole<T: Copy>(memory: &mut Memory, value: &T) -> Structure {
    (void(memory.place(value)), size_of::<T>() as CK_ULONG, None)
}

fn oaep(input: &mut Input<'_>, memory: &mut Memory) -> CK_RSA_PKCS_OAEP_PARAMS {
    let (hashAlg, mgf) = (hash(input), mask(input));
    let source = CK_ULONG::from(input.byte() & 1);
    let (label, ulSourceDataLen) = pointed(input, memory);
    CK_RSA_PKCS_OAEP_PARAMS { hashAlg, mgf, source, pSourceData: void(label), ulSourceDataLen }
}

/// Bytes that a structure points to; NULL with a length, or with none.
fn pointed(input: &mut Input<'_>, memory: &mut Memory) -> (*mut u8, CK_ULONG) {
    match input.byte() {
        NULL => (ptr::null_mut(), input.byte().into()),
        0 => (ptr::null_mut(), 0),
        length => {
            let bytes = input.bytes(length.into());
            (memory.input(bytes), bytes.len() as CK_ULONG)
        }
    }
}

/// As [`pointed`], where the module may write.
fn writable(input: &mut Input<'_>, memory: &mut Memory) -> (*mut u8, CK_ULONG) {
    match input.byte() {
        NULL => (ptr::null_mut(), input.byte().into()),
        length => {
            let bytes = input.bytes(length.into());
            let at = memory.block(bytes);
            (memory.pointer(at), bytes.len() as CK_ULONG)
        }
    }
}

/// The mechanisms that are hashes, as a parameter names them.
fn hash(input: &mut Input<'_>) -> CK_MECHANISM_TYPE {
    let digests = MECHANISMS.iter().filter(|row| matches!(row.scheme, Scheme::Digest(_)));
    let all: Vec<_> = digests.map(|row| row.kind).chain([0, CKM_MD5, !0]).collect();
    input.one_of(&all)
}

fn mask(input: &mut Input<'_>) -> CK_ULONG {
    // CKG_MGF1_SHA1 and its like are numbered from 1 on; 0 and what is too large are none.
    let byte = CK_ULONG::from(input.byte());
    if byte == 0xff { !0 } else { byte % 12 }
}

fn generator(input: &mut Input<'_>) -> CK_GENERATOR_FUNCTION {
    CK_GENERATOR_FUNCTION::from(input.byte() % 6)
}

/// Bits of a tag.
fn bits(input: &mut Input<'_>) -> CK_ULONG {
    match input.byte() {
        0xff => !0,
        byte => byte.into(),
    }
}

/// A mechanism of the table, or any number.
pub fn mechanism(input: &mut Input<'_>) -> CK_MECHANISM_TYPE {
    match input.byte() {
        ANY.. => {
            let mut kind = [0; 8];
            let given = input.bytes(4);
            kind[..given.len()].copy_from_slice(given);
            CK_MECHANISM_TYPE::from_le_bytes(kind)
        }
        row => MECHANISMS[usize::from(row) % MECHANISMS.len()].kind,
    }
}

/// From here on a byte for a mechanism means that its number follows.
const ANY: u8 = 0xf0;
