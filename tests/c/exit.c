/* A host that goes on calling while it ends: from an exit handler that runs after the module's
   thread-local values are gone, then from nobody's thread at all, and after dlclose.
   exit MODULE CONFIGURATION LABEL: exits with 0 if every call answered as it must. */

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef unsigned long (*function)();

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
    Initialize = 0, Finalize = 1, OpenSession = 12, CloseAllSessions = 14, FindObjectsInit = 26,
    FindObjects = 27, FindObjectsFinal = 28, DigestInit = 37, Digest = 38, SignInit = 42, Sign = 43
};

enum { OK = 0, GENERAL_ERROR = 5, NOT_INITIALIZED = 0x190 };

static struct list *p11;
static void *library;
static unsigned long session, key;

static void expect(const char *what, unsigned long got, unsigned long wanted)
{
    if (got != wanted) {
        fprintf(stderr, "%s: 0x%lx, not 0x%lx\n", what, got, wanted);
        _exit(1);
    }
}

static unsigned long sign(void)
{
    struct mechanism ecdsa = {0x1041, NULL, 0};
    unsigned char digest[32] = {1}, signature[256];
    unsigned long length = sizeof signature;
    unsigned long rv = p11->call[SignInit](session, &ecdsa, key);

    if (rv != OK) return rv;
    return p11->call[Sign](session, digest, 32UL, signature, &length);
}

static void digest(const char *when)
{
    struct mechanism sha256 = {0x250, NULL, 0};
    unsigned char out[32];
    unsigned long length = sizeof out;

    expect(when, p11->call[DigestInit](session, &sha256), OK);
    expect(when, p11->call[Digest](session, "data", 4UL, out, &length), OK);
}

/* As OPENSSL_cleanup does it. */
static void at_exit(void)
{
    unsigned long rv;

    digest("a digest at exit");
    rv = sign();
    if (rv != OK) expect("a signature at exit", rv, GENERAL_ERROR);
    expect("C_CloseAllSessions at exit", p11->call[CloseAllSessions](0UL), OK);
    expect("C_Finalize at exit", p11->call[Finalize](NULL), OK);
    expect("dlclose", (unsigned long)dlclose(library), 0);
    expect("C_Finalize after dlclose", p11->call[Finalize](NULL), NOT_INITIALIZED);
}

/* Later still: what the linker runs when everything else is done. */
__attribute__((destructor)) static void at_the_very_end(void)
{
    if (p11 != NULL) expect("C_Finalize at the end", p11->call[Finalize](NULL), NOT_INITIALIZED);
}

int main(int argc, char **argv)
{
    static struct initialize_args args = {{NULL, NULL, NULL, NULL}, 2, NULL};
    unsigned long class = 3, found = 0;
    struct attribute template[2];
    function get;

    if (argc != 4) return 2;
    atexit(at_exit);
    library = dlopen(argv[1], RTLD_NOW);
    if (library == NULL) expect(dlerror(), 1, 0);
    *(void **)&get = dlsym(library, "C_GetFunctionList");
    expect("C_GetFunctionList", get(&p11), OK);
    args.reserved = argv[2];
    expect("C_Initialize", p11->call[Initialize](&args), OK);
    expect("C_OpenSession", p11->call[OpenSession](0UL, 4UL, NULL, NULL, &session), OK);
    template[0].type = 0;
    template[0].value = &class;
    template[0].length = sizeof class;
    template[1].type = 3;
    template[1].value = argv[3];
    template[1].length = strlen(argv[3]);
    expect("C_FindObjectsInit", p11->call[FindObjectsInit](session, template, 2UL), OK);
    expect("C_FindObjects", p11->call[FindObjects](session, &key, 1UL, &found), OK);
    expect("keys", found, 1);
    expect("C_FindObjectsFinal", p11->call[FindObjectsFinal](session), OK);
    expect("a signature", sign(), OK);
    digest("a digest");
    return 0;
}
