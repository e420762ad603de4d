/* A host with many threads. threads MODULE CONFIGURATION mixed THREADS ROUNDS
   threads MODULE CONFIGURATION closing ROUNDS: sessions are closed under the calls of others
   threads MODULE CONFIGURATION finalizing ROUNDS: C_Finalize comes while 32 threads are in calls
   threads MODULE CONFIGURATION alone THREADS: the kernel ends the process if anybody makes a thread
       or a process after C_Initialize was asked not to
   Prints what was done. */

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdbool.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "host.h"

enum { MOST = 64, CALLERS = 32 };

static struct list *p11;
static int rounds;
static pthread_barrier_t start;
static atomic_ulong answered, ended;

static void digest(unsigned long session)
{
    struct mechanism sha256 = {SHA256, NULL, 0};
    unsigned char out[32];
    unsigned long length = sizeof out;

    expect("C_DigestInit", p11->call[DigestInit](session, &sha256), OK);
    expect("C_Digest", p11->call[Digest](session, "data", 4UL, out, &length), OK);
}

/* Encrypted here, decrypted at the service. */
static void decrypts(unsigned long session)
{
    struct mechanism pkcs1 = {1, NULL, 0};
    unsigned char secret[512], plain[512];
    unsigned long private = find(p11, session, PRIVATE_KEY, "rsa"), length = sizeof secret;
    unsigned long public = find(p11, session, PUBLIC_KEY, "rsa"), plain_length = sizeof plain;

    expect("C_EncryptInit", p11->call[EncryptInit](session, &pkcs1, public), OK);
    expect("C_Encrypt", p11->call[Encrypt](session, "data", 4UL, secret, &length), OK);
    expect("C_DecryptInit", p11->call[DecryptInit](session, &pkcs1, private), OK);
    expect("C_Decrypt", p11->call[Decrypt](session, secret, length, plain, &plain_length), OK);
    if (plain_length != 4 || memcmp(plain, "data", 4) != 0) fail("another plaintext");
}

/* A pair that lives in the session. */
static void has_its_own_key(unsigned long session)
{
    static unsigned char p256[] = {6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7};
    struct mechanism pair = {EC_KEY_PAIR_GEN, NULL, 0};
    struct attribute parameters = {0x180, p256, sizeof p256};
    unsigned char data[32] = {2}, signature[512];
    unsigned long public, private, length;

    expect("C_GenerateKeyPair",
           p11->call[GenerateKeyPair](session, &pair, &parameters, 1UL, NULL, 0UL, &public,
                                      &private), OK);
    expect("a signature here",
           sign(p11, session, ECDSA, private, data, signature, &length), OK);
    verify(p11, session, ECDSA, public, data, signature, length);
    expect("C_DestroyObject", p11->call[DestroyObject](session, private), OK);
    expect("C_DestroyObject", p11->call[DestroyObject](session, public), OK);
}

static void everything(unsigned long slot)
{
    unsigned long session = open_session(p11, slot);
    unsigned char random[40];

    works(p11, session, "ec");
    digest(session);
    decrypts(session);
    has_its_own_key(session);
    if (find_all(p11, session) < 4) fail("keys are missing");
    expect("C_GenerateRandom", p11->call[GenerateRandom](session, random, 40UL), OK);
    expect("C_CloseSession", p11->call[CloseSession](session), OK);
    answered++;
}

static void *mixed(void *slot)
{
    int i;

    pthread_barrier_wait(&start);
    for (i = 0; i < rounds; i++) everything((unsigned long)slot);
    return NULL;
}

/* Session handles that threads give each other. */
static atomic_ulong shared[8];

static int one_of(unsigned long rv, const unsigned long *allowed)
{
    for (; *allowed != 0; allowed++) {
        if (rv == *allowed) return 1;
    }
    return rv == OK;
}

/* Even ones use whatever session is there, odd ones close it and open another. */
static void *closing(void *index)
{
    /* ... closed, another's operation is active, or was there and is not any more. */
    static const unsigned long allowed[] = {
        SESSION_HANDLE_INVALID, SESSION_CLOSED, 0x90, 0x91, 0,
    };
    struct mechanism ecdsa = {ECDSA, NULL, 0};
    unsigned char data[32] = {3}, signature[512];
    unsigned long key, rv, length, mine = open_session(p11, 0);
    int i;

    key = find(p11, mine, PRIVATE_KEY, "ec");
    pthread_barrier_wait(&start);
    for (i = 0; i < rounds; i++) {
        atomic_ulong *place = &shared[i % 8];

        if ((unsigned long)index % 2 == 1) {
            unsigned long old = atomic_exchange(place, open_session(p11, 0));

            if (old != 0) expect("C_CloseSession", p11->call[CloseSession](old), OK);
            continue;
        }
        length = sizeof signature;
        rv = p11->call[SignInit](*place, &ecdsa, key);
        if (!one_of(rv, allowed)) fail("C_SignInit: 0x%lx", rv);
        rv = p11->call[Sign](*place, data, 32UL, signature, &length);
        if (!one_of(rv, allowed)) fail("C_Sign: 0x%lx", rv);
        if (rv == OK) answered++;
        else ended++;
    }
    return NULL;
}

/* Works until the module is finalized. */
static void *until_the_end(void *unused)
{
    static const unsigned long allowed[] = {
        NOT_INITIALIZED, SESSION_HANDLE_INVALID, SESSION_CLOSED, 0,
    };
    unsigned char data[32] = {4}, signature[512];
    unsigned long session = open_session(p11, 0), key = find(p11, session, PRIVATE_KEY, "ec");
    unsigned long length, rv;

    (void)unused;
    pthread_barrier_wait(&start);
    do {
        rv = sign(p11, session, ECDSA, key, data, signature, &length);
        if (!one_of(rv, allowed)) fail("C_Sign while it ends: 0x%lx", rv);
        answered++;
    } while (rv == OK);
    ended++;
    return NULL;
}

static void run(void *(*body)(void *), int count, void (*meanwhile)(void))
{
    pthread_t thread[MOST];
    long i;

    if (count < 1 || count > MOST) fail("%d threads", count);
    pthread_barrier_init(&start, NULL, (unsigned)count + 1);
    for (i = 0; i < count; i++) {
        if (pthread_create(&thread[i], NULL, body, (void *)(i % 2)) != 0) fail("no thread");
    }
    pthread_barrier_wait(&start);
    meanwhile();
    for (i = 0; i < count; i++) pthread_join(thread[i], NULL);
    pthread_barrier_destroy(&start);
}

static void nothing(void) {}

static void finalize(void)
{
    usleep(2000);
    expect("C_Finalize", p11->call[Finalize](NULL), OK);
}

/* From here on clone, clone3, fork and vfork end the process, in every thread. */
static void forbid_threads(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
#ifdef __NR_fork
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_fork, 4, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_vfork, 3, 0),
#endif
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_clone, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_clone3, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    struct sock_fprog program = {sizeof filter / sizeof filter[0], filter};

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) fail("no PR_SET_NO_NEW_PRIVS");
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) != 0) {
        fail("no seccomp filter");
    }
}

static const char *configuration;

static void begin_alone(void)
{
    /* CKF_LIBRARY_CANT_CREATE_OS_THREADS | CKF_OS_LOCKING_OK */
    struct initialize_args args = {{NULL, NULL, NULL, NULL}, 3, (void *)configuration};
    long before = threads();
    struct attribute label = {3, "ec", 2};
    unsigned long session;

    forbid_threads();
    expect("C_Initialize", p11->call[Initialize](&args), OK);
    /* Slot 2 has a name that nobody knows: DNS is asked, in vain. */
    session = open_session(p11, 2);
    expect("a search in vain", p11->call[FindObjectsInit](session, &label, 1UL), DEVICE_ERROR);
    pthread_barrier_wait(&start);
    if (threads() != before) fail("there are %ld threads, not %ld", threads(), before);
}

/* Waits until the module is there. */
static void *alone(void *slot)
{
    int i;

    pthread_barrier_wait(&start);
    pthread_barrier_wait(&start);
    for (i = 0; i < rounds; i++) everything((unsigned long)slot);
    return NULL;
}

int main(int argc, char **argv)
{
    const char *mode = argc > 4 ? argv[3] : "";
    int i;

    if (argc < 5) return 2;
    configuration = argv[2];
    p11 = load(argv[1], RTLD_NOW, NULL);
    if (strcmp(mode, "alone") == 0) {
        rounds = 2;
        run(alone, atoi(argv[4]), begin_alone);
        expect("C_Finalize", p11->call[Finalize](NULL), OK);
    } else if (strcmp(mode, "finalizing") == 0) {
        for (i = 0; i < atoi(argv[4]); i++) {
            expect("C_Initialize", initialize(p11, configuration), OK);
            run(until_the_end, CALLERS, finalize);
        }
    } else {
        expect("C_Initialize", initialize(p11, configuration), OK);
        rounds = atoi(argv[argc - 1]);
        if (strcmp(mode, "closing") == 0) run(closing, CALLERS, nothing);
        else if (argc == 6) run(mixed, atoi(argv[4]), nothing);
        else return 2;
        expect("C_Finalize", p11->call[Finalize](NULL), OK);
    }
    printf("answered %lu ended %lu\n", (unsigned long)answered, (unsigned long)ended);
    return 0;
}
