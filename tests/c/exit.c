/* A host that goes on calling while it ends: from an exit handler that runs after the module's
   thread-local values are gone, then from nobody's thread at all, and after dlclose.
   exit MODULE CONFIGURATION LABEL: exits with 0 if every call answered as it must. */

#include "host.h"

static struct list *p11;
static void *library;
static unsigned long session, key;

static unsigned long sign_once(void)
{
    unsigned char digest[32] = {1}, signature[512];
    unsigned long length;

    return sign(p11, session, ECDSA, key, digest, signature, &length);
}

static void digest(const char *when)
{
    struct mechanism sha256 = {SHA256, NULL, 0};
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
    rv = sign_once();
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
    if (argc != 4) return 2;
    atexit(at_exit);
    p11 = load(argv[1], RTLD_NOW, &library);
    expect("C_Initialize", initialize(p11, argv[2]), OK);
    session = open_session(p11, 0);
    key = find(p11, session, PRIVATE_KEY, argv[3]);
    expect("a signature", sign_once(), OK);
    digest("a digest");
    return 0;
}
