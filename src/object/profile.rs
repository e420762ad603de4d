//! CKO_PROFILE objects: which profiles of the standard the token keeps (PKCS#11 Profiles 3.2).
//! Searches find them only when they ask for the class: the profiles' own test cases expect a
//! search for token objects not to.

use cryptoki_sys::*;

use super::{Attributes, Material, Object};

/// The profiles, with the names of their test cases.
const PROFILES: [(CK_PROFILE_ID, &str); 4] = [
    (CKP_BASELINE_PROVIDER, "Baseline Provider"),
    (CKP_EXTENDED_PROVIDER, "Extended Provider"),
    (CKP_AUTHENTICATION_TOKEN, "Authentication Token"),
    (CKP_PUBLIC_CERTIFICATES_TOKEN, "Public Certificates Token"),
];

/// The objects of all profiles.
pub fn objects() -> impl Iterator<Item = Object> {
    PROFILES.iter().map(|(profile, name)| {
        let mut attributes = Attributes::default();
        attributes
            .set_ulong(CKA_CLASS, CKO_PROFILE)
            .set_bool(CKA_TOKEN, true)
            .set_bool(CKA_PRIVATE, false)
            .set_bool(CKA_MODIFIABLE, false)
            .set_bool(CKA_COPYABLE, false)
            .set_bool(CKA_DESTROYABLE, false)
            .set(CKA_LABEL, *name)
            .set(CKA_UNIQUE_ID, format!("profile/{profile}"))
            .set_ulong(CKA_PROFILE_ID, *profile);
        Object { attributes, material: Material::None, owner: None }
    })
}
