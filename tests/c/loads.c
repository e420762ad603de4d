/* A host that loads the module again and again, and hosts that end in unusual ways.
   loads MODULE CONFIGURATION cycles COUNT: prints descriptors, threads and resident memory after a
       tenth of the cycles and at the end
   loads MODULE CONFIGURATION exits WAY: with calls under way in THREADS threads where the service is
       slow; ends with 0 unless something breaks
   loads MODULE CONFIGURATION beside COPY STRANGER: two copies of the module and a stranger that
       exports the names of PKCS#11, all of them where everybody finds their symbols */

#include <openssl/crypto.h>
#include <pthread.h>
#include <stdatomic.h>

#include "host.h"

enum { THREADS = 8 };

static struct list *p11;
static const char *module;
static atomic_int inside;

static void cycles(const char *configuration, int count)
{
    long early[3] = {0, 0, 0};
    int i;

    for (i = 0; i < count; i++) {
        void *library;
        struct list *list = load(module, RTLD_NOW, &library);

        expect("C_Initialize", initialize(list, configuration), OK);
        /* The network once in a while, and not always finished with. */
        if (i % 20 == 0) works(list, open_session(list, 0), "ec");
        if (i % 3 != 0) open_session(list, 0);
        expect("C_Finalize", list->call[Finalize](NULL), OK);
        expect("dlclose", (unsigned long)dlclose(library), 0);
        if (i == count / 10) {
            early[0] = descriptors();
            early[1] = threads();
            early[2] = resident();
        }
    }
    printf("descriptors %ld %ld threads %ld %ld resident %ld %ld\n", early[0], descriptors(),
           early[1], threads(), early[2], resident());
}

/* Signs until the process is gone; once the module is finalized, calls say so. */
static void *signer(void *label)
{
    unsigned char data[32] = {1}, signature[512];
    unsigned long length, session = open_session(p11, 0);
    unsigned long key = find(p11, session, PRIVATE_KEY, label);

    inside++;
    for (;;) {
        unsigned long rv = sign(p11, session, ECDSA, key, data, signature, &length);

        if (rv == NOT_INITIALIZED || rv == SESSION_HANDLE_INVALID) return NULL;
        expect("a signature under way", rv, OK);
    }
}

static unsigned long quiet_session;

static void digest(const char *when)
{
    struct mechanism sha256 = {SHA256, NULL, 0};
    unsigned char out[32];
    unsigned long length = sizeof out;

    expect(when, p11->call[DigestInit](quiet_session, &sha256), OK);
    expect(when, p11->call[Digest](quiet_session, "data", 4UL, out, &length), OK);
}

/* Calls of an ending process: what needs nobody works, what needs the service may. */
static void last_calls(void)
{
    unsigned char data[32] = {1}, signature[512];
    unsigned long length, key, rv;
    struct attribute label = {3, "ec", 2};
    unsigned long found = 0;

    digest("a digest at the end");
    expect("C_FindObjectsInit",
           p11->call[FindObjectsInit](quiet_session, &label, 1UL), OK);
    expect("C_FindObjects", p11->call[FindObjects](quiet_session, &key, 1UL, &found), OK);
    expect("C_FindObjectsFinal", p11->call[FindObjectsFinal](quiet_session), OK);
    if (found == 1) {
        rv = sign(p11, quiet_session, ECDSA, key, data, signature, &length);
        /* A public key is no key to sign with. */
        if (rv != OK && rv != GENERAL_ERROR && rv != 0x68 && rv != 0x63) {
            fail("a signature at the end: 0x%lx", rv);
        }
    }
}

static void finalize(void)
{
    last_calls();
    expect("C_Finalize at the end", p11->call[Finalize](NULL), OK);
    expect("C_Finalize again", p11->call[Finalize](NULL), NOT_INITIALIZED);
}

static const char *way = "";

__attribute__((destructor)) static void after_everything(void)
{
    if (strcmp(way, "destructor") == 0) finalize();
}

static void *ends_the_process(void *unused)
{
    (void)unused;
    exit(0);
}

static int exits(const char *configuration)
{
    static char label[] = "ec";
    pthread_t thread;
    int i;

    if (strcmp(way, "atexit") == 0) atexit(finalize);
    if (strcmp(way, "openssl") == 0) OPENSSL_atexit(finalize);
    p11 = load(module, RTLD_NOW, NULL);
    expect("C_Initialize", initialize(p11, configuration), OK);
    quiet_session = open_session(p11, 0);
    works(p11, quiet_session, "ec");
    for (i = 0; i < THREADS; i++) {
        if (pthread_create(&thread, NULL, signer, label) != 0) fail("no thread");
        pthread_detach(thread);
    }
    while (inside < THREADS) usleep(1000);
    /* Now they wait for the service. */
    usleep(20000);
    if (strcmp(way, "openssl") == 0) OPENSSL_cleanup();
    if (strcmp(way, "quick") == 0) quick_exit(0);
    if (strcmp(way, "thread") == 0) {
        if (pthread_create(&thread, NULL, ends_the_process, NULL) != 0) fail("no thread");
        /* main has returned, in a way; the others go on. */
        pthread_exit(NULL);
    }
    return 0;
}

static void beside(const char *configuration, const char *copy, const char *stranger)
{
    struct list *first = load(stranger, RTLD_NOW | RTLD_GLOBAL, NULL), *second;
    unsigned i;

    p11 = load(module, RTLD_NOW | RTLD_GLOBAL, NULL);
    second = load(copy, RTLD_NOW | RTLD_GLOBAL, NULL);
    for (i = 0; i < sizeof p11->call / sizeof p11->call[0]; i++) {
        if (p11->call[i] == second->call[i] || p11->call[i] == first->call[i]) {
            fail("function %u is another module's", i);
        }
    }
    expect("C_Initialize", initialize(p11, configuration), OK);
    expect("C_Initialize of the copy", initialize(second, configuration), OK);
    /* The stranger panics and catches it, has thread-locals with destructors, starts threads. */
    expect("the stranger", first->call[Initialize](NULL), OK);
    works(p11, open_session(p11, 0), "ec");
    works(second, open_session(second, 0), "ec");
    expect("the stranger", first->call[Initialize](NULL), OK);
    expect("C_Finalize of the copy", second->call[Finalize](NULL), OK);
    works(p11, open_session(p11, 0), "ec");
    expect("the copy", second->call[CloseSession](1UL), NOT_INITIALIZED);
    expect("C_Finalize", p11->call[Finalize](NULL), OK);
}

int main(int argc, char **argv)
{
    if (argc < 5) return 2;
    module = argv[1];
    if (strcmp(argv[3], "cycles") == 0) cycles(argv[2], atoi(argv[4]));
    else if (strcmp(argv[3], "beside") == 0 && argc == 6) beside(argv[2], argv[4], argv[5]);
    else if (strcmp(argv[3], "exits") == 0) {
        way = argv[4];
        return exits(argv[2]);
    } else return 2;
    return 0;
}
