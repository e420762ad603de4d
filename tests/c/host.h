/* What the host programs share: a loaded module, calls that must answer as told, and what the
   process looks like from outside. Every failure ends the process with 1 and a sentence. */

#ifndef HOST_H
#define HOST_H

#include <dirent.h>
#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef unsigned long (*function)();

/* CK_FUNCTION_LIST of version 2.40. */
struct list {
    unsigned char version[2];
    function call[68];
};

struct initialize_args {
    void *mutexes[4];
    unsigned long flags;
    void *reserved;
};

struct attribute {
    unsigned long type;
    void *value;
    unsigned long length;
};

struct mechanism {
    unsigned long mechanism;
    void *parameter;
    unsigned long length;
};

/* Places in the function list. */
enum {
    Initialize = 0, Finalize = 1, GetInfo = 2, GetSlotList = 4, OpenSession = 12, CloseSession = 13,
    CloseAllSessions = 14, DestroyObject = 22, FindObjectsInit = 26, FindObjects = 27,
    FindObjectsFinal = 28, EncryptInit = 29, Encrypt = 30, DecryptInit = 33, Decrypt = 34,
    DigestInit = 37, Digest = 38, SignInit = 42, Sign = 43, SignUpdate = 44, SignFinal = 45,
    VerifyInit = 48, Verify = 49, GenerateKeyPair = 59, GenerateRandom = 64
};

enum {
    OK = 0, GENERAL_ERROR = 5, DEVICE_ERROR = 0x30, SESSION_CLOSED = 0xB0,
    SESSION_HANDLE_INVALID = 0xB3, NOT_INITIALIZED = 0x190, ALREADY_INITIALIZED = 0x191
};

enum { PUBLIC_KEY = 2, PRIVATE_KEY = 3, SECRET_KEY = 4 };

enum { SHA256_RSA_PKCS = 0x40, SHA256 = 0x250, EC_KEY_PAIR_GEN = 0x1040, ECDSA = 0x1041,
       AES_CBC = 0x1082 };

/* CKF_SERIAL_SESSION | CKF_RW_SESSION */
enum { READ_WRITE = 6 };

__attribute__((format(printf, 1, 2), noreturn)) static inline void fail(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    flockfile(stderr);
    fprintf(stderr, "process %d: ", (int)getpid());
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    _exit(1);
}

static inline void expect(const char *what, unsigned long got, unsigned long wanted)
{
    if (got != wanted) fail("%s: 0x%lx, not 0x%lx", what, got, wanted);
}

/* The 2.40 list of the module at this path; *library is dlopen's handle, if somebody wants it. */
static inline struct list *load(const char *path, int flags, void **library)
{
    struct list *list = NULL;
    void *handle = dlopen(path, flags);
    function get;

    if (handle == NULL) fail("%s", dlerror());
    *(void **)&get = dlsym(handle, "C_GetFunctionList");
    if (get == NULL) fail("%s", dlerror());
    expect("C_GetFunctionList", get(&list), OK);
    if (library != NULL) *library = handle;
    return list;
}

/* C_Initialize, with the locking that threads need. configuration: pReserved, or NULL. */
static inline unsigned long initialize(struct list *list, const char *configuration)
{
    struct initialize_args args = {{NULL, NULL, NULL, NULL}, 2, (void *)configuration};

    return list->call[Initialize](&args);
}

static inline unsigned long open_session(struct list *list, unsigned long slot)
{
    unsigned long session = 0;

    expect("C_OpenSession",
           list->call[OpenSession](slot, (unsigned long)READ_WRITE, NULL, NULL, &session), OK);
    return session;
}

/* The one object of this class and label. */
static inline unsigned long find(struct list *list, unsigned long session, unsigned long class,
                                 const char *label)
{
    struct attribute template[2] = {
        {0, &class, sizeof class}, {3, (void *)label, strlen(label)},
    };
    unsigned long object = 0, found = 0;

    expect("C_FindObjectsInit", list->call[FindObjectsInit](session, template, 2UL), OK);
    expect("C_FindObjects", list->call[FindObjects](session, &object, 1UL, &found), OK);
    if (found != 1) fail("no object of class %lu is labelled %s", class, label);
    expect("C_FindObjectsFinal", list->call[FindObjectsFinal](session), OK);
    return object;
}

/* How many objects there are. */
static inline unsigned long find_all(struct list *list, unsigned long session)
{
    unsigned long objects[100], found = 0;

    expect("C_FindObjectsInit", list->call[FindObjectsInit](session, NULL, 0UL), OK);
    expect("C_FindObjects", list->call[FindObjects](session, objects, 100UL, &found), OK);
    expect("C_FindObjectsFinal", list->call[FindObjectsFinal](session), OK);
    return found;
}

/* Signs 32 bytes; the signature has room for any key's. */
static inline unsigned long sign(struct list *list, unsigned long session, unsigned long kind,
                                 unsigned long key, const void *data, unsigned char *signature,
                                 unsigned long *length)
{
    struct mechanism mechanism = {kind, NULL, 0};
    unsigned long rv = list->call[SignInit](session, &mechanism, key);

    *length = 512;
    return rv != OK ? rv : list->call[Sign](session, data, 32UL, signature, length);
}

static inline void verify(struct list *list, unsigned long session, unsigned long kind,
                          unsigned long key, const void *data, unsigned char *signature,
                          unsigned long length)
{
    struct mechanism mechanism = {kind, NULL, 0};

    expect("C_VerifyInit", list->call[VerifyInit](session, &mechanism, key), OK);
    expect("C_Verify", list->call[Verify](session, data, 32UL, signature, length), OK);
}

/* A signature with the EC key of this label, and its verification. */
static inline void works(struct list *list, unsigned long session, const char *label)
{
    unsigned char data[32] = "what a host program signs", signature[512];
    unsigned long length, private = find(list, session, PRIVATE_KEY, label);
    unsigned long public = find(list, session, PUBLIC_KEY, label);

    expect("a signature", sign(list, session, ECDSA, private, data, signature, &length), OK);
    verify(list, session, ECDSA, public, data, signature, length);
}

static inline long entries(const char *folder)
{
    DIR *directory = opendir(folder);
    long count = -3; /* ".", ".." and the descriptor that looks */

    if (directory == NULL) fail("%s cannot be read", folder);
    while (readdir(directory) != NULL) count++;
    closedir(directory);
    return count;
}

static inline long descriptors(void) { return entries("/proc/self/fd"); }

static inline long threads(void) { return entries("/proc/self/task") + 1; }

/* Resident memory that belongs to this process alone, KiB: files that are mapped do not count. */
static inline long resident(void)
{
    FILE *file = fopen("/proc/self/statm", "r");
    long size, pages, shared;

    if (file == NULL || fscanf(file, "%ld %ld %ld", &size, &pages, &shared) != 3) {
        fail("/proc/self/statm cannot be read");
    }
    fclose(file);
    return (pages - shared) * (sysconf(_SC_PAGESIZE) / 1024);
}

#endif
