/* akv_pkcs11.h: what libakv_pkcs11.so exports beside the standard's own words.

   Made from the Rust source by tests/header; UPDATE_HEADER=1 cargo test --test header rewrites it.

   The types, constants and functions of PKCS#11 are those of your pkcs11.h (OASIS, p11-kit, NSS
   or another): include that first, and this file declares only what it leaves out. Without it the
   three exported functions are declared here with plain types, enough to call them and to pass on
   what they give. */

#ifndef AKV_PKCS11_H
#define AKV_PKCS11_H

#ifdef __cplusplus
extern "C" {
#endif

/* pReserved of CK_C_INITIALIZE_ARGS may point to a string that begins with this and goes
   on with the path of a configuration file, or with TOML (docs/configuration.md). */
#define AKV_PKCS11_RESERVED_PREFIX "akv-pkcs11:"

#ifndef CKR_OK

/* CK_RV C_GetFunctionList(CK_FUNCTION_LIST **): the functions of PKCS#11 2.40. */
unsigned long C_GetFunctionList(void **functions);

#endif

#ifndef CKF_INTERFACE_FORK_SAFE

/* CK_VERSION */
struct akv_pkcs11_version {
    unsigned char v_major;
    unsigned char v_minor;
};

/* CK_INTERFACE: "PKCS 11", a function list that begins with its version, and flags (1: what the
   parent had goes on in a forked child). */
struct akv_pkcs11_interface {
    char *name;
    void *functions;
    unsigned long flags;
};

/* CK_RV C_GetInterfaceList(CK_INTERFACE *, CK_ULONG *): 3.2, 3.0 and 2.40, in this order. */
unsigned long C_GetInterfaceList(struct akv_pkcs11_interface *interfaces, unsigned long *count);

/* CK_RV C_GetInterface(CK_UTF8CHAR *, CK_VERSION *, CK_INTERFACE **, CK_FLAGS): NULL for name and
   version gives the default, 3.2. */
unsigned long C_GetInterface(unsigned char *name, struct akv_pkcs11_version *version,
                             struct akv_pkcs11_interface **interface, unsigned long flags);

#endif

#ifdef __cplusplus
}
#endif

#endif /* AKV_PKCS11_H */
