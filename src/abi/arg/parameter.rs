//! Mechanism parameters: the structures of the standard, read once.

use std::{ffi::c_void, marker::PhantomData};

use cryptoki_sys::{
    CK_AES_CTR_PARAMS, CK_GCM_MESSAGE_PARAMS, CK_GCM_PARAMS, CK_GCM_WRAP_PARAMS,
    CK_GENERATOR_FUNCTION, CK_MECHANISM_TYPE, CK_RSA_AES_KEY_WRAP_PARAMS, CK_RSA_PKCS_OAEP_PARAMS,
    CK_RSA_PKCS_PSS_PARAMS, CK_ULONG, CKR_MECHANISM_PARAM_INVALID,
};

use super::{Bytes, Input, bytes_at};
use crate::error::{Error, Result};

/// A mechanism's parameter.
#[derive(Clone, Copy)]
pub struct Parameter<'a> {
    start: *const c_void,
    length: CK_ULONG,
    call: PhantomData<&'a [u8]>,
}

/// CK_RSA_PKCS_PSS_PARAMS as given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PssParameter {
    /// CKM_SHA256 …
    pub hash: CK_MECHANISM_TYPE,
    /// CKG_MGF1_SHA256 …
    pub mgf: CK_ULONG,
    /// Bytes of salt.
    pub salt: CK_ULONG,
}

/// CK_RSA_PKCS_OAEP_PARAMS as given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OaepParameter<'a> {
    /// CKM_SHA_1, CKM_SHA256 …
    pub hash: CK_MECHANISM_TYPE,
    /// CKG_MGF1_SHA1 …, or 0 (pkcs11-provider leaves it out).
    pub mgf: CK_ULONG,
    /// CKZ_….
    pub source: CK_ULONG,
    /// The label.
    pub label: &'a [u8],
}

/// CK_GCM_PARAMS as given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GcmParameter<'a> {
    /// The IV.
    pub iv: &'a [u8],
    /// Additional authenticated data.
    pub aad: &'a [u8],
    /// Bits of the tag.
    pub tag_bits: CK_ULONG,
}

/// The IV of AES-GCM where it may be made here or by the service.
pub struct GcmIv<'a> {
    /// To read.
    pub given: Input<'a>,
    /// To write.
    pub made: Bytes<'a>,
    /// Leftmost bits that a generator keeps.
    pub fixed_bits: CK_ULONG,
    /// CKG_NO_GENERATE, CKG_GENERATE, …
    pub generator: CK_GENERATOR_FUNCTION,
}

/// CK_GCM_MESSAGE_PARAMS as given: IV and tag are read or written, as the function says.
pub struct GcmMessageParameter<'a> {
    /// The IV.
    pub iv: GcmIv<'a>,
    /// The tag, to read.
    pub tag: Input<'a>,
    /// The tag, to write.
    pub tag_out: Bytes<'a>,
    /// Bits of the tag.
    pub tag_bits: CK_ULONG,
}

/// CK_GCM_WRAP_PARAMS as given: the tag follows the wrapped key.
pub struct GcmWrapParameter<'a> {
    /// The IV.
    pub iv: GcmIv<'a>,
    /// Additional authenticated data.
    pub aad: &'a [u8],
    /// Bits of the tag.
    pub tag_bits: CK_ULONG,
}

impl<'a> Parameter<'a> {
    /// # Safety
    /// For the time of the call `start` is NULL or points to `length` bytes that hold the
    /// mechanism's parameter, with what it points to.
    pub unsafe fn promised(start: *const c_void, length: CK_ULONG) -> Self {
        Parameter { start, length, call: PhantomData }
    }

    /// No parameter: NULL or no length.
    pub fn is_empty(&self) -> bool {
        self.start.is_null() || self.length == 0
    }

    /// The parameter as bytes (an IV).
    pub fn bytes(&self) -> Result<&'a [u8]> {
        // SAFETY: `promised`'s contract.
        unsafe { bytes_at(self.start as *const u8, self.length) }
    }

    /// The parameter as the structure of CKM_RSA_AES_KEY_WRAP: the bits of the AES key, and the
    /// parameter of OAEP.
    pub fn rsa_aes(&self) -> Result<(CK_ULONG, Parameter<'a>)> {
        let p: CK_RSA_AES_KEY_WRAP_PARAMS = self.structure("CK_RSA_AES_KEY_WRAP_PARAMS")?;
        let length = size_of::<CK_RSA_PKCS_OAEP_PARAMS>() as CK_ULONG;
        // SAFETY: the inner structure is part of the promised parameter.
        Ok((p.ulAESKeyBits, unsafe { Parameter::promised(p.pOAEPParams.cast(), length) }))
    }

    /// The parameter as a CK_ULONG (CK_MAC_GENERAL_PARAMS).
    pub fn number(&self) -> Result<CK_ULONG> {
        self.structure("CK_ULONG")
    }

    /// The parameter as the structure of AES-CTR: bits that count, and the first counter block.
    pub fn ctr(&self) -> Result<(CK_ULONG, [u8; 16])> {
        let p: CK_AES_CTR_PARAMS = self.structure("CK_AES_CTR_PARAMS")?;
        Ok((p.ulCounterBits, p.cb))
    }

    /// The parameter as the structure of AES-GCM.
    pub fn gcm(&self) -> Result<GcmParameter<'a>> {
        let p: CK_GCM_PARAMS = self.structure("CK_GCM_PARAMS")?;
        // SAFETY: the IV is part of the promised parameter.
        let iv = unsafe { bytes_at(p.pIv, p.ulIvLen) }.map_err(as_parameter)?;
        // SAFETY: so is the additional data.
        let aad = unsafe { bytes_at(p.pAAD, p.ulAADLen) }.map_err(as_parameter)?;
        Ok(GcmParameter { iv, aad, tag_bits: p.ulTagBits })
    }

    /// The parameter as the structure of AES-GCM for one message.
    pub fn gcm_message(&self) -> Result<GcmMessageParameter<'a>> {
        let p: CK_GCM_MESSAGE_PARAMS = self.structure("CK_GCM_MESSAGE_PARAMS")?;
        // SAFETY: the IV is part of the promised parameter.
        let iv = unsafe { gcm_iv(p.pIv, p.ulIvLen, p.ulIvFixedBits, p.ivGenerator) }?;
        let tag_len = p.ulTagBits.div_ceil(8);
        // SAFETY: the caller promised `ulTagBits` bits to read.
        let tag = unsafe { Input::promised(p.pTag, tag_len) };
        // SAFETY: and to write.
        let tag_out = unsafe { Bytes::promised(p.pTag, tag_len) };
        tag.bytes().map_err(as_parameter)?;
        Ok(GcmMessageParameter { iv, tag, tag_out, tag_bits: p.ulTagBits })
    }

    /// Whether this is the structure of AES-GCM for one wrapped key, by its size: CK_GCM_PARAMS
    /// is shorter.
    pub fn is_gcm_wrap(&self) -> bool {
        self.length as usize == size_of::<CK_GCM_WRAP_PARAMS>()
    }

    /// The parameter as the structure of AES-GCM for one wrapped key.
    pub fn gcm_wrap(&self) -> Result<GcmWrapParameter<'a>> {
        let p: CK_GCM_WRAP_PARAMS = self.structure("CK_GCM_WRAP_PARAMS")?;
        // SAFETY: the IV is part of the promised parameter.
        let iv = unsafe { gcm_iv(p.pIv, p.ulIvLen, p.ulIvFixedBits, p.ivGenerator) }?;
        // SAFETY: so is the additional data.
        let aad = unsafe { bytes_at(p.pAAD, p.ulAADLen) }.map_err(as_parameter)?;
        Ok(GcmWrapParameter { iv, aad, tag_bits: p.ulTagBits })
    }

    /// The parameter as the structure of PSS.
    pub fn pss(&self) -> Result<PssParameter> {
        let p: CK_RSA_PKCS_PSS_PARAMS = self.structure("CK_RSA_PKCS_PSS_PARAMS")?;
        Ok(PssParameter { hash: p.hashAlg, mgf: p.mgf, salt: p.sLen })
    }

    /// The parameter as the structure of OAEP.
    pub fn oaep(&self) -> Result<OaepParameter<'a>> {
        let p: CK_RSA_PKCS_OAEP_PARAMS = self.structure("CK_RSA_PKCS_OAEP_PARAMS")?;
        // SAFETY: the label is part of the promised parameter.
        let label = unsafe { bytes_at(p.pSourceData as *const u8, p.ulSourceDataLen) }
            .map_err(as_parameter)?;
        Ok(OaepParameter { hash: p.hashAlg, mgf: p.mgf, source: p.source, label })
    }

    fn structure<T: Copy>(&self, name: &str) -> Result<T> {
        if self.start.is_null() || self.length as usize != size_of::<T>() {
            return Err(Error::new(
                CKR_MECHANISM_PARAM_INVALID,
                format!("a parameter of {} bytes where {name} is needed", self.length),
            ));
        }
        // SAFETY: not NULL and of the structure's size; the caller promised its contents.
        Ok(unsafe { (self.start as *const T).read_unaligned() })
    }
}

/// # Safety
/// For the time of the call `start` is NULL or points to `length` bytes to read and to write.
unsafe fn gcm_iv<'a>(
    start: *mut u8,
    length: CK_ULONG,
    fixed_bits: CK_ULONG,
    generator: CK_GENERATOR_FUNCTION,
) -> Result<GcmIv<'a>> {
    // SAFETY: this function's contract.
    let given = unsafe { Input::promised(start, length) };
    // SAFETY: as above.
    let made = unsafe { Bytes::promised(start, length) };
    given.bytes().map_err(as_parameter)?;
    Ok(GcmIv { given, made, fixed_bits, generator })
}

/// A parameter whose pointers or lengths are wrong.
fn as_parameter(error: Error) -> Error {
    Error::new(CKR_MECHANISM_PARAM_INVALID, error.sentence().to_owned())
}
