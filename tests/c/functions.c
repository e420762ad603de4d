/* A host in C: takes each function list every way there is, and calls every function in it with
   nothing but NULL and 0 (or counts beyond all memory): before C_Initialize, with handles nobody
   gave out, and with a session.
   functions CONFIGURATION: prints what is wrong to standard error, and nothing else. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "akv_pkcs11.h"

/* No prototype: each row of the table below passes what its function takes. */
typedef unsigned long (*function)();

enum { IN_2_40 = 68, IN_3_0 = 92, IN_3_2 = 104 };

struct list {
    unsigned char version[2];
    function call[IN_3_2];
};

struct initialize_args {
    void *mutexes[4];
    unsigned long flags;
    void *reserved;
};

enum {
    OK = 0, SLOT_ID_INVALID = 3, FUNCTION_FAILED = 6, ARGUMENTS_BAD = 7, NOT_PARALLEL = 0x51,
    NOT_SUPPORTED = 0x54, OBJECT_HANDLE_INVALID = 0x82, NOT_ACTIVE = 0x91,
    SESSION_HANDLE_INVALID = 0xB3, NOT_LOGGED_IN = 0x101, NO_SEED = 0x120,
    BUFFER_TOO_SMALL = 0x150, NOT_INITIALIZED = 0x190, ALREADY_INITIALIZED = 0x191
};

/* What a function looks at first. */
enum handle { NEITHER, SESSION, SLOT, NEEDS_NO_INITIALIZE, BEGINS_AND_ENDS };
enum phase { BEFORE, BAD_HANDLES, GOOD_HANDLES, ABSURD_COUNTS };

static const unsigned long nobody = 0xDEADBEEF;
static int wrong;

static void expect(const char *what, unsigned long got, unsigned long wanted)
{
    if (got != wanted) {
        fprintf(stderr, "%s: 0x%lx, not 0x%lx\n", what, got, wanted);
        wrong = 1;
    }
}

static void judge(enum phase phase, const char *name, enum handle handle, unsigned long with_nulls,
                  unsigned long got)
{
    char what[80];
    unsigned long wanted = with_nulls;

    sprintf(what, "%s, phase %d", name, phase);
    if (handle == NEEDS_NO_INITIALIZE) {
        wanted = with_nulls;
    } else if (phase == BEFORE) {
        wanted = NOT_INITIALIZED;
    } else if (phase == BAD_HANDLES && handle == SESSION) {
        wanted = SESSION_HANDLE_INVALID;
    } else if (phase == BAD_HANDLES && handle == SLOT) {
        wanted = SLOT_ID_INVALID;
    } else if (with_nulls == NOT_SUPPORTED && (got == ARGUMENTS_BAD || got == NOT_ACTIVE)) {
        return; /* What NULL and no operation mean once the function is supported. */
    } else if (phase == ABSURD_COUNTS && got == ARGUMENTS_BAD) {
        return;
    }
    expect(what, got, wanted);
}

/* Calls all functions of a list: `s` is a session, `t` a slot, `n` a length or a count. */
static void walk(const struct list *list, int count, enum phase phase, unsigned long slot)
{
    unsigned long t = phase == BAD_HANDLES ? nobody : slot;
    unsigned long n = phase == ABSURD_COUNTS ? ~0UL : 0;
    int i = 0;

#define ROW(name, handle, with_nulls, arguments)                                                   \
    if (i < count && handle != BEGINS_AND_ENDS) {                                                  \
        unsigned long s = nobody;                                                                  \
        if (phase >= GOOD_HANDLES)                                                                 \
            expect("C_OpenSession", list->call[12](slot, 6UL, NULL, NULL, &s), OK);                \
        judge(phase, #name, handle, with_nulls, list->call[i] arguments);                          \
        if (phase >= GOOD_HANDLES) list->call[14](slot);                                           \
    }                                                                                              \
    i++;

    ROW(C_Initialize, BEGINS_AND_ENDS, OK, (NULL))
    ROW(C_Finalize, BEGINS_AND_ENDS, OK, (NULL))
    ROW(C_GetInfo, NEITHER, ARGUMENTS_BAD, (NULL))
    ROW(C_GetFunctionList, NEEDS_NO_INITIALIZE, ARGUMENTS_BAD, (NULL))
    ROW(C_GetSlotList, NEITHER, ARGUMENTS_BAD, (1, NULL, NULL))
    ROW(C_GetSlotInfo, SLOT, ARGUMENTS_BAD, (t, NULL))
    ROW(C_GetTokenInfo, SLOT, ARGUMENTS_BAD, (t, NULL))
    ROW(C_GetMechanismList, SLOT, ARGUMENTS_BAD, (t, NULL, NULL))
    ROW(C_GetMechanismInfo, SLOT, ARGUMENTS_BAD, (t, 0UL, NULL))
    ROW(C_InitToken, SLOT, NOT_SUPPORTED, (t, NULL, n, NULL))
    ROW(C_InitPIN, SESSION, NOT_SUPPORTED, (s, NULL, n))
    ROW(C_SetPIN, SESSION, NOT_SUPPORTED, (s, NULL, n, NULL, n))
    ROW(C_OpenSession, SLOT, ARGUMENTS_BAD, (t, 6UL, NULL, NULL, NULL))
    ROW(C_CloseSession, SESSION, OK, (s))
    ROW(C_CloseAllSessions, SLOT, OK, (t))
    ROW(C_GetSessionInfo, SESSION, ARGUMENTS_BAD, (s, NULL))
    ROW(C_GetOperationState, SESSION, NOT_SUPPORTED, (s, NULL, NULL))
    ROW(C_SetOperationState, SESSION, NOT_SUPPORTED, (s, NULL, n, 0UL, 0UL))
    ROW(C_Login, SESSION, OK, (s, 1UL, NULL, n))
    ROW(C_Logout, SESSION, NOT_LOGGED_IN, (s))
    ROW(C_CreateObject, SESSION, ARGUMENTS_BAD, (s, NULL, n, NULL))
    ROW(C_CopyObject, SESSION, ARGUMENTS_BAD, (s, 0UL, NULL, n, NULL))
    ROW(C_DestroyObject, SESSION, OBJECT_HANDLE_INVALID, (s, 0UL))
    ROW(C_GetObjectSize, SESSION, OBJECT_HANDLE_INVALID, (s, 0UL, NULL))
    ROW(C_GetAttributeValue, SESSION, OBJECT_HANDLE_INVALID, (s, 0UL, NULL, n))
    ROW(C_SetAttributeValue, SESSION, OBJECT_HANDLE_INVALID, (s, 0UL, NULL, n))
    ROW(C_FindObjectsInit, SESSION, OK, (s, NULL, n))
    ROW(C_FindObjects, SESSION, ARGUMENTS_BAD, (s, NULL, n, NULL))
    ROW(C_FindObjectsFinal, SESSION, NOT_ACTIVE, (s))
    ROW(C_EncryptInit, SESSION, OK, (s, NULL, 0UL))
    ROW(C_Encrypt, SESSION, NOT_ACTIVE, (s, NULL, n, NULL, NULL))
    ROW(C_EncryptUpdate, SESSION, NOT_ACTIVE, (s, NULL, n, NULL, NULL))
    ROW(C_EncryptFinal, SESSION, NOT_ACTIVE, (s, NULL, NULL))
    ROW(C_DecryptInit, SESSION, OK, (s, NULL, 0UL))
    ROW(C_Decrypt, SESSION, NOT_ACTIVE, (s, NULL, n, NULL, NULL))
    ROW(C_DecryptUpdate, SESSION, NOT_ACTIVE, (s, NULL, n, NULL, NULL))
    ROW(C_DecryptFinal, SESSION, NOT_ACTIVE, (s, NULL, NULL))
    ROW(C_DigestInit, SESSION, OK, (s, NULL))
    ROW(C_Digest, SESSION, NOT_ACTIVE, (s, NULL, n, NULL, NULL))
    ROW(C_DigestUpdate, SESSION, NOT_ACTIVE, (s, NULL, n))
    ROW(C_DigestKey, SESSION, NOT_ACTIVE, (s, 0UL))
    ROW(C_DigestFinal, SESSION, NOT_ACTIVE, (s, NULL, NULL))
    ROW(C_SignInit, SESSION, OK, (s, NULL, 0UL))
    ROW(C_Sign, SESSION, NOT_ACTIVE, (s, NULL, n, NULL, NULL))
    ROW(C_SignUpdate, SESSION, NOT_ACTIVE, (s, NULL, n))
    ROW(C_SignFinal, SESSION, NOT_ACTIVE, (s, NULL, NULL))
    ROW(C_SignRecoverInit, SESSION, OK, (s, NULL, 0UL))
    ROW(C_SignRecover, SESSION, NOT_ACTIVE, (s, NULL, n, NULL, NULL))
    ROW(C_VerifyInit, SESSION, OK, (s, NULL, 0UL))
    ROW(C_Verify, SESSION, NOT_ACTIVE, (s, NULL, n, NULL, n))
    ROW(C_VerifyUpdate, SESSION, NOT_ACTIVE, (s, NULL, n))
    ROW(C_VerifyFinal, SESSION, NOT_ACTIVE, (s, NULL, n))
    ROW(C_VerifyRecoverInit, SESSION, OK, (s, NULL, 0UL))
    ROW(C_VerifyRecover, SESSION, NOT_ACTIVE, (s, NULL, n, NULL, NULL))
    ROW(C_DigestEncryptUpdate, SESSION, NOT_SUPPORTED, (s, NULL, n, NULL, NULL))
    ROW(C_DecryptDigestUpdate, SESSION, NOT_SUPPORTED, (s, NULL, n, NULL, NULL))
    ROW(C_SignEncryptUpdate, SESSION, NOT_SUPPORTED, (s, NULL, n, NULL, NULL))
    ROW(C_DecryptVerifyUpdate, SESSION, NOT_SUPPORTED, (s, NULL, n, NULL, NULL))
    ROW(C_GenerateKey, SESSION, ARGUMENTS_BAD, (s, NULL, NULL, n, NULL))
    ROW(C_GenerateKeyPair, SESSION, ARGUMENTS_BAD, (s, NULL, NULL, n, NULL, n, NULL, NULL))
    ROW(C_WrapKey, SESSION, ARGUMENTS_BAD, (s, NULL, 0UL, 0UL, NULL, NULL))
    ROW(C_UnwrapKey, SESSION, ARGUMENTS_BAD, (s, NULL, 0UL, NULL, n, NULL, n, NULL))
    ROW(C_DeriveKey, SESSION, NOT_SUPPORTED, (s, NULL, 0UL, NULL, n, NULL))
    ROW(C_SeedRandom, SESSION, NO_SEED, (s, NULL, n))
    ROW(C_GenerateRandom, SESSION, OK, (s, NULL, n))
    ROW(C_GetFunctionStatus, SESSION, NOT_PARALLEL, (s))
    ROW(C_CancelFunction, SESSION, NOT_PARALLEL, (s))
    ROW(C_WaitForSlotEvent, NEITHER, NOT_SUPPORTED, (0UL, NULL, NULL))

    ROW(C_GetInterfaceList, NEEDS_NO_INITIALIZE, ARGUMENTS_BAD, (NULL, NULL))
    ROW(C_GetInterface, NEEDS_NO_INITIALIZE, ARGUMENTS_BAD, (NULL, NULL, NULL, 0UL))
    ROW(C_LoginUser, SESSION, OK, (s, 1UL, NULL, n, NULL, n))
    ROW(C_SessionCancel, SESSION, OK, (s, 0UL))
    ROW(C_MessageEncryptInit, SESSION, OK, (s, NULL, 0UL))
    ROW(C_EncryptMessage, SESSION, NOT_ACTIVE, (s, NULL, n, NULL, n, NULL, n, NULL, NULL))
    ROW(C_EncryptMessageBegin, SESSION, NOT_ACTIVE, (s, NULL, n, NULL, n))
    ROW(C_EncryptMessageNext, SESSION, NOT_ACTIVE, (s, NULL, n, NULL, n, NULL, NULL, 0UL))
    ROW(C_MessageEncryptFinal, SESSION, NOT_ACTIVE, (s))
    ROW(C_MessageDecryptInit, SESSION, OK, (s, NULL, 0UL))
    ROW(C_DecryptMessage, SESSION, NOT_ACTIVE, (s, NULL, n, NULL, n, NULL, n, NULL, NULL))
    ROW(C_DecryptMessageBegin, SESSION, NOT_ACTIVE, (s, NULL, n, NULL, n))
    ROW(C_DecryptMessageNext, SESSION, NOT_ACTIVE, (s, NULL, n, NULL, n, NULL, NULL, 0UL))
    ROW(C_MessageDecryptFinal, SESSION, NOT_ACTIVE, (s))
    ROW(C_MessageSignInit, SESSION, OK, (s, NULL, 0UL))
    ROW(C_SignMessage, SESSION, NOT_ACTIVE, (s, NULL, n, NULL, n, NULL, NULL))
    ROW(C_SignMessageBegin, SESSION, NOT_ACTIVE, (s, NULL, n))
    ROW(C_SignMessageNext, SESSION, NOT_ACTIVE, (s, NULL, n, NULL, n, NULL, NULL))
    ROW(C_MessageSignFinal, SESSION, NOT_ACTIVE, (s))
    ROW(C_MessageVerifyInit, SESSION, OK, (s, NULL, 0UL))
    ROW(C_VerifyMessage, SESSION, NOT_ACTIVE, (s, NULL, n, NULL, n, NULL, n))
    ROW(C_VerifyMessageBegin, SESSION, NOT_ACTIVE, (s, NULL, n))
    ROW(C_VerifyMessageNext, SESSION, NOT_ACTIVE, (s, NULL, n, NULL, n, NULL, n))
    ROW(C_MessageVerifyFinal, SESSION, NOT_ACTIVE, (s))

    ROW(C_EncapsulateKey, SESSION, NOT_SUPPORTED, (s, NULL, 0UL, NULL, n, NULL, NULL, NULL))
    ROW(C_DecapsulateKey, SESSION, NOT_SUPPORTED, (s, NULL, 0UL, NULL, n, NULL, n, NULL))
    ROW(C_VerifySignatureInit, SESSION, OK, (s, NULL, 0UL, NULL, n))
    ROW(C_VerifySignature, SESSION, NOT_ACTIVE, (s, NULL, n))
    ROW(C_VerifySignatureUpdate, SESSION, NOT_ACTIVE, (s, NULL, n))
    ROW(C_VerifySignatureFinal, SESSION, NOT_ACTIVE, (s))
    ROW(C_GetSessionValidationFlags, SESSION, ARGUMENTS_BAD, (s, 1UL, NULL))
    ROW(C_AsyncComplete, SESSION, NOT_SUPPORTED, (s, NULL, NULL))
    ROW(C_AsyncGetID, SESSION, NOT_SUPPORTED, (s, NULL, NULL))
    ROW(C_AsyncJoin, SESSION, NOT_SUPPORTED, (s, NULL, 0UL, NULL, n))
    ROW(C_WrapKeyAuthenticated, SESSION, NOT_SUPPORTED, (s, NULL, 0UL, 0UL, NULL, n, NULL, NULL))
    ROW(C_UnwrapKeyAuthenticated, SESSION, NOT_SUPPORTED,
        (s, NULL, 0UL, NULL, n, NULL, n, NULL, n, NULL))
#undef ROW

    if (i != IN_3_2) expect("rows of the table", (unsigned long)i, IN_3_2);
}

static struct list *interface_of(const char *name, int major, int minor, unsigned long flags,
                                 unsigned long wanted)
{
    struct akv_pkcs11_version version;
    struct akv_pkcs11_interface *found = NULL;
    unsigned long rv;
    char what[80];

    version.v_major = (unsigned char)major;
    version.v_minor = (unsigned char)minor;
    rv = C_GetInterface((unsigned char *)name, major < 0 ? NULL : &version, &found, flags);
    sprintf(what, "C_GetInterface(%s, %d.%d, 0x%lx)", name == NULL ? "NULL" : name, major, minor,
            flags);
    expect(what, rv, wanted);
    if (rv != OK) return NULL;
    if (strcmp(found->name, "PKCS 11") != 0 || found->flags != 1) expect(what, found->flags, 1);
    return found->functions;
}

static void is_list(const struct list *list, int major, int minor, int count)
{
    int i;

    expect("major version", list->version[0], (unsigned long)major);
    expect("minor version", list->version[1], (unsigned long)minor);
    for (i = 0; i < count; i++) {
        if (list->call[i] == NULL) expect("NULL in slot", (unsigned long)i, ~0UL);
    }
}

int main(int argc, char **argv)
{
    static struct initialize_args args = {{NULL, NULL, NULL, NULL}, 2, NULL};
    struct list *lists[3], *list = NULL;
    const int counts[3] = {IN_2_40, IN_3_0, IN_3_2};
    struct akv_pkcs11_interface interfaces[4];
    unsigned long count = 0, slot = nobody;
    int i;

    if (argc != 2) return 2;
    expect("C_GetFunctionList", C_GetFunctionList((void **)&list), OK);
    lists[0] = interface_of("PKCS 11", 2, 40, 0, OK);
    lists[1] = interface_of("PKCS 11", 3, 0, 0, OK);
    lists[2] = interface_of("PKCS 11", 3, 2, 1, OK);
    if (wrong) return 1;
    is_list(lists[0], 2, 40, IN_2_40);
    is_list(lists[1], 3, 0, IN_3_0);
    is_list(lists[2], 3, 2, IN_3_2);

    expect("one 2.40 list", list == lists[0], 1);
    expect("the default is 3.2", interface_of(NULL, -1, 0, 0, OK) == lists[2], 1);
    expect("by name", interface_of("PKCS 11", -1, 0, 1, OK) == lists[2], 1);
    expect("by version", interface_of(NULL, 3, 0, 0, OK) == lists[1], 1);
    interface_of("PKCS 12", -1, 0, 0, FUNCTION_FAILED);
    interface_of("PKCS 1", -1, 0, 0, FUNCTION_FAILED);
    interface_of("PKCS 11 ", -1, 0, 0, FUNCTION_FAILED);
    interface_of("", -1, 0, 0, FUNCTION_FAILED);
    interface_of("PKCS 11", 3, 1, 0, FUNCTION_FAILED);
    interface_of("PKCS 11", 2, 20, 0, FUNCTION_FAILED);
    interface_of(NULL, 0, 0, 0, FUNCTION_FAILED);
    interface_of("PKCS 11", 3, 2, 2, FUNCTION_FAILED);
    interface_of(NULL, -1, 0, ~0UL, FUNCTION_FAILED);

    expect("C_GetInterfaceList, query", C_GetInterfaceList(NULL, &count), OK);
    expect("interfaces", count, 3);
    count = 2;
    expect("C_GetInterfaceList, short", C_GetInterfaceList(interfaces, &count),
           BUFFER_TOO_SMALL);
    expect("interfaces needed", count, 3);
    count = 4;
    expect("C_GetInterfaceList", C_GetInterfaceList(interfaces, &count), OK);
    expect("interfaces given", count, 3);
    for (i = 0; i < 3; i++) expect("order", interfaces[i].functions == lists[2 - i], 1);

    for (i = 0; i < 3; i++) {
        walk(lists[i], counts[i], BEFORE, nobody);
        expect("C_Finalize before C_Initialize", lists[i]->call[1](NULL), NOT_INITIALIZED);
        args.reserved = argv[1];
        expect("C_Initialize", lists[i]->call[0](&args), OK);
        if (wrong) return 1;
        expect("C_Initialize again", lists[i]->call[0](NULL), ALREADY_INITIALIZED);
        count = 1;
        expect("C_GetSlotList", lists[i]->call[4](1, &slot, &count), OK);
        walk(lists[i], counts[i], BAD_HANDLES, nobody);
        walk(lists[i], counts[i], GOOD_HANDLES, slot);
        walk(lists[i], counts[i], ABSURD_COUNTS, slot);
        expect("C_WaitForSlotEvent that does not wait", lists[i]->call[67](1UL, &slot, NULL), 8);
        expect("C_Finalize(argument)", lists[i]->call[1](&slot), ARGUMENTS_BAD);
        expect("C_Finalize", lists[i]->call[1](NULL), OK);
        walk(lists[i], counts[i], BEFORE, nobody);
    }
    return wrong;
}
