//! The arguments of C functions: buffers, mechanisms, templates, as C has them.

use std::{ffi::c_void, ptr};

use cryptoki_sys::*;

use crate::token::{Rv, check};

/// What a test passes for an output buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// NULL: a query.
    Query,
    /// So many bytes.
    Bytes(usize),
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The CK_RV.
    pub rv: CK_RV,
    /// The length that was stored.
    pub length: usize,
    /// As many bytes of the buffer, where there was one and the call succeeded.
    pub bytes: Vec<u8>,
}

impl Output {
    /// Calls with a buffer, behind which nothing may be written.
    pub fn of(room: Room, call: impl FnOnce(*mut CK_BYTE, *mut CK_ULONG) -> CK_RV) -> Output {
        const GUARD: u8 = 0xA5;
        let capacity = match room {
            Room::Query => 0,
            Room::Bytes(n) => n,
        };
        let mut buffer = vec![GUARD; capacity + 32];
        let mut length = capacity as CK_ULONG;
        let start = if room == Room::Query { ptr::null_mut() } else { buffer.as_mut_ptr() };
        let rv = call(start, &raw mut length);
        assert!(buffer[capacity..].iter().all(|byte| *byte == GUARD), "written beyond {room:?}");
        if rv != CKR_OK {
            assert!(buffer.iter().all(|byte| *byte == GUARD), "written on failure {rv:#x}");
        }
        let length = length as usize;
        let bytes = match (rv, room) {
            (CKR_OK, Room::Bytes(_)) => buffer[..length].to_vec(),
            _ => Vec::new(),
        };
        Output { rv, length, bytes }
    }

    /// The bytes, or the error.
    pub fn result(self) -> Rv<Vec<u8>> {
        check(self.rv).map(|()| self.bytes)
    }
}

/// A mechanism with its parameter.
#[derive(Clone, Debug)]
pub struct Mechanism {
    /// CKM_….
    pub kind: CK_MECHANISM_TYPE,
    /// What comes with it.
    pub parameter: Parameter,
}

/// A mechanism's parameter.
#[derive(Clone, Debug)]
pub enum Parameter {
    /// NULL.
    None,
    /// CK_RSA_PKCS_PSS_PARAMS.
    Pss {
        /// hashAlg.
        hash: CK_MECHANISM_TYPE,
        /// mgf.
        mgf: CK_ULONG,
        /// sLen.
        salt: CK_ULONG,
    },
    /// CK_RSA_PKCS_OAEP_PARAMS.
    Oaep {
        /// hashAlg.
        hash: CK_MECHANISM_TYPE,
        /// mgf.
        mgf: CK_ULONG,
        /// source.
        source: CK_ULONG,
        /// pSourceData.
        label: Vec<u8>,
    },
    /// CK_GCM_PARAMS.
    Gcm {
        /// pIv.
        iv: Vec<u8>,
        /// pAAD.
        aad: Vec<u8>,
        /// ulTagBits.
        tag_bits: CK_ULONG,
    },
    /// CK_RSA_AES_KEY_WRAP_PARAMS with OAEP of SHA-1.
    RsaAes {
        /// ulAESKeyBits.
        bits: CK_ULONG,
    },
    /// Any bytes.
    Bytes(Vec<u8>),
}

impl Mechanism {
    /// Without parameter.
    pub fn plain(kind: CK_MECHANISM_TYPE) -> Mechanism {
        Mechanism { kind, parameter: Parameter::None }
    }

    /// RSASSA-PSS.
    pub fn pss(
        kind: CK_MECHANISM_TYPE,
        hash: CK_MECHANISM_TYPE,
        mgf: CK_ULONG,
        salt: usize,
    ) -> Mechanism {
        let salt = salt as CK_ULONG;
        Mechanism { kind, parameter: Parameter::Pss { hash, mgf, salt } }
    }

    /// RSAES-OAEP without label.
    pub fn oaep(hash: CK_MECHANISM_TYPE, mgf: CK_ULONG) -> Mechanism {
        let parameter =
            Parameter::Oaep { hash, mgf, source: CKZ_DATA_SPECIFIED, label: Vec::new() };
        Mechanism { kind: CKM_RSA_PKCS_OAEP, parameter }
    }

    /// Calls with the mechanism as C has it.
    pub fn with<T>(&self, call: impl FnOnce(*mut CK_MECHANISM) -> T) -> T {
        let mut raw =
            CK_MECHANISM { mechanism: self.kind, pParameter: ptr::null_mut(), ulParameterLen: 0 };
        let mut pss = CK_RSA_PKCS_PSS_PARAMS::default();
        let mut oaep = CK_RSA_PKCS_OAEP_PARAMS::default();
        let mut gcm = CK_GCM_PARAMS::default();
        let mut rsa_aes = CK_RSA_AES_KEY_WRAP_PARAMS::default();
        match &self.parameter {
            Parameter::None => {}
            Parameter::Pss { hash, mgf, salt } => {
                pss = CK_RSA_PKCS_PSS_PARAMS { hashAlg: *hash, mgf: *mgf, sLen: *salt };
                raw.pParameter = (&raw mut pss).cast();
                raw.ulParameterLen = size_of_val(&pss) as CK_ULONG;
            }
            Parameter::Oaep { hash, mgf, source, label } => {
                oaep = CK_RSA_PKCS_OAEP_PARAMS {
                    hashAlg: *hash,
                    mgf: *mgf,
                    source: *source,
                    pSourceData: match label.is_empty() {
                        true => ptr::null_mut(),
                        false => label.as_ptr().cast_mut().cast(),
                    },
                    ulSourceDataLen: label.len() as CK_ULONG,
                };
                raw.pParameter = (&raw mut oaep).cast();
                raw.ulParameterLen = size_of_val(&oaep) as CK_ULONG;
            }
            Parameter::Gcm { iv, aad, tag_bits } => {
                gcm = CK_GCM_PARAMS {
                    pIv: iv.as_ptr().cast_mut(),
                    ulIvLen: iv.len() as CK_ULONG,
                    ulIvBits: 8 * iv.len() as CK_ULONG,
                    pAAD: aad.as_ptr().cast_mut(),
                    ulAADLen: aad.len() as CK_ULONG,
                    ulTagBits: *tag_bits,
                };
                raw.pParameter = (&raw mut gcm).cast();
                raw.ulParameterLen = size_of_val(&gcm) as CK_ULONG;
            }
            Parameter::RsaAes { bits } => {
                oaep.hashAlg = CKM_SHA_1;
                oaep.mgf = CKG_MGF1_SHA1;
                oaep.source = CKZ_DATA_SPECIFIED;
                rsa_aes.ulAESKeyBits = *bits;
                rsa_aes.pOAEPParams = &raw mut oaep;
                raw.pParameter = (&raw mut rsa_aes).cast();
                raw.ulParameterLen = size_of_val(&rsa_aes) as CK_ULONG;
            }
            Parameter::Bytes(bytes) => {
                raw.pParameter = bytes.as_ptr().cast_mut().cast();
                raw.ulParameterLen = bytes.len() as CK_ULONG;
            }
        }
        let result = call(&raw mut raw);
        // The parameters live until here.
        let _ = (pss, oaep, gcm, rsa_aes);
        result
    }
}

/// One entry of a template that asks for values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// CKA_….
    pub kind: CK_ATTRIBUTE_TYPE,
    /// ulValueLen, before and after the call.
    pub length: CK_ULONG,
    /// pValue; None is NULL.
    pub value: Option<Vec<u8>>,
}

impl Asked {
    /// Asks for the length only.
    pub fn length(kind: CK_ATTRIBUTE_TYPE) -> Asked {
        Asked { kind, length: 0, value: None }
    }

    /// Offers room.
    pub fn room(kind: CK_ATTRIBUTE_TYPE, room: usize) -> Asked {
        Asked { kind, length: room as CK_ULONG, value: Some(vec![0xA5; room]) }
    }
}

/// A CK_BBOOL of a template.
pub fn flag(kind: CK_ATTRIBUTE_TYPE, value: bool) -> (CK_ATTRIBUTE_TYPE, Vec<u8>) {
    (kind, vec![CK_BBOOL::from(value)])
}

/// A CK_ULONG of a template.
pub fn number(kind: CK_ATTRIBUTE_TYPE, value: CK_ULONG) -> (CK_ATTRIBUTE_TYPE, Vec<u8>) {
    (kind, value.to_ne_bytes().to_vec())
}

/// Bytes of a template.
pub fn bytes(kind: CK_ATTRIBUTE_TYPE, value: impl AsRef<[u8]>) -> (CK_ATTRIBUTE_TYPE, Vec<u8>) {
    (kind, value.as_ref().to_vec())
}

/// Calls with a template as C has it.
pub fn with_template<T>(
    template: &[(CK_ATTRIBUTE_TYPE, Vec<u8>)],
    call: impl FnOnce(*mut CK_ATTRIBUTE, CK_ULONG) -> T,
) -> T {
    let mut raw: Vec<CK_ATTRIBUTE> = template
        .iter()
        .map(|(kind, value)| CK_ATTRIBUTE {
            type_: *kind,
            pValue: value.as_ptr().cast_mut().cast::<c_void>(),
            ulValueLen: value.len() as CK_ULONG,
        })
        .collect();
    call(raw.as_mut_ptr(), raw.len() as CK_ULONG)
}

/// Pointer and length of an input; the empty one is NULL.
pub fn input(data: &[u8]) -> (*mut CK_BYTE, CK_ULONG) {
    let start = if data.is_empty() { ptr::null_mut() } else { data.as_ptr().cast_mut() };
    (start, data.len() as CK_ULONG)
}
