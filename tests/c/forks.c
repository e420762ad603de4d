/* A host that forks while its threads use the module: forks MODULE OTHER CONFIGURATION ROUNDS [PIN].
   OTHER is a second copy of the module. With a PIN everybody logs in who begins anew. Prints how many signatures were made by how many children,
   and what the process had after a fifth of the rounds and at the end. */

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/wait.h>

#include "host.h"

enum { SIGNERS = 3, PATIENCE = 60 };

/* C_Login and its CKU_USER. */
enum { Login = 18, USER = 1 };

static struct list *p11, *other;
static const char *configuration, *pin;
static atomic_bool done;
static atomic_ulong signatures;

/* The first session of who has initialised. */
static unsigned long first_session(struct list *list)
{
    const unsigned long opened = open_session(list, 0);

    if (pin != NULL) expect("C_Login", list->call[Login](opened, (unsigned long)USER, pin, strlen(pin)), OK);
    return opened;
}

/* Signs without a pause: no request may be lost. */
static void *signer(void *label)
{
    unsigned long session = open_session(p11, 0);
    unsigned char data[32] = "a request under way";
    const int rsa = strcmp(label, "rsa") == 0;
    const unsigned long kind = rsa ? SHA256_RSA_PKCS : ECDSA;
    unsigned long private = find(p11, session, PRIVATE_KEY, label), length;
    unsigned long public = find(p11, session, PUBLIC_KEY, label);
    unsigned char signature[512];

    while (!done) {
        expect("a signature", sign(p11, session, kind, private, data, signature, &length), OK);
        verify(p11, session, kind, public, data, signature, length);
        signatures++;
    }
    expect("C_CloseSession", p11->call[CloseSession](session), OK);
    return NULL;
}

/* Opens and closes sessions, and searches. */
static void *searcher(void *unused)
{
    (void)unused;
    while (!done) {
        unsigned long session = open_session(p11, 0);

        if (find_all(p11, session) < 4) fail("keys are missing");
        expect("C_CloseSession", p11->call[CloseSession](session), OK);
    }
    return NULL;
}

static void begins_afresh(struct list *list)
{
    expect("C_Initialize", list->call[Initialize](NULL), OK);
    works(list, first_session(list), "ec");
}

/* The session of the main thread: two keys, and a signature that is half made at each fork. */
static unsigned long session, rsa;
static unsigned char whole[512];
static unsigned long whole_length;

static void goes_on(void)
{
    unsigned char signature[512];
    unsigned long length = sizeof signature;

    expect("C_SignUpdate", p11->call[SignUpdate](session, "0123456789abcdef", 16UL), OK);
    expect("C_SignFinal", p11->call[SignFinal](session, signature, &length), OK);
    if (length != whole_length || memcmp(signature, whole, length) != 0) {
        fail("the signature is another one");
    }
    works(p11, session, "ec");
}

/* What children do; each ends with as many signatures as the table says. */
static void initializes(void) { begins_afresh(p11); }

static void finalizes(void)
{
    expect("C_Finalize", p11->call[Finalize](NULL), OK);
    expect("C_Initialize", initialize(p11, configuration), OK);
    works(p11, first_session(p11), "ec");
}

static void leaves(void) {}

static void leaves_by_exit(void) { exit(0); }

static void uses_both(void)
{
    goes_on();
    begins_afresh(other);
    works(p11, session, "ec");
}

static const struct {
    void (*does)(void);
    unsigned long signatures;
} CHILDREN[] = {
    {initializes, 1}, {finalizes, 1}, {goes_on, 2}, {leaves, 0}, {uses_both, 4}, {leaves_by_exit, 0},
};

static void child(int round)
{
    int status = 0;
    const unsigned kind = (unsigned)round % (sizeof CHILDREN / sizeof CHILDREN[0]);
    pid_t id = fork();

    if (id < 0) fail("no fork");
    if (id == 0) {
        alarm(PATIENCE);
        CHILDREN[kind].does();
        _exit(0);
    }
    if (waitpid(id, &status, 0) != id || status != 0) {
        fail("child of kind %u: status 0x%x", kind, (unsigned)status);
    }
    signatures += CHILDREN[kind].signatures;
}

static void half_a_signature(void)
{
    struct mechanism mechanism = {SHA256_RSA_PKCS, NULL, 0};

    expect("C_SignInit", p11->call[SignInit](session, &mechanism, rsa), OK);
    expect("C_SignUpdate", p11->call[SignUpdate](session, "0123456789abcdef", 16UL), OK);
}

int main(int argc, char **argv)
{
    static const char *labels[SIGNERS] = {"rsa", "ec", "ec"};
    pthread_t thread[SIGNERS + 1];
    long early[3] = {0, 0, 0}, late[3];
    unsigned long of_main = 0;
    int rounds, round, i;

    if (argc != 5 && argc != 6) return 2;
    pin = argv[5];
    configuration = argv[3];
    rounds = atoi(argv[4]);
    p11 = load(argv[1], RTLD_NOW, NULL);
    other = load(argv[2], RTLD_NOW, NULL);
    expect("C_Initialize", initialize(p11, configuration), OK);
    expect("C_Initialize of the other", initialize(other, configuration), OK);
    session = first_session(p11);
    rsa = find(p11, session, PRIVATE_KEY, "rsa");
    expect("a signature",
           sign(p11, session, SHA256_RSA_PKCS, rsa, "0123456789abcdef0123456789abcdef", whole,
                &whole_length), OK);
    works(p11, session, "ec");
    works(other, first_session(other), "ec");
    of_main = 3;
    half_a_signature();
    for (i = 0; i < SIGNERS; i++) {
        if (pthread_create(&thread[i], NULL, signer, (void *)labels[i]) != 0) fail("no thread");
    }
    if (pthread_create(&thread[SIGNERS], NULL, searcher, NULL) != 0) fail("no thread");
    for (round = 0; round < rounds; round++) {
        if (round == rounds / 5) {
            early[0] = descriptors();
            early[1] = threads();
            early[2] = resident();
        }
        child(round);
    }
    late[0] = descriptors();
    late[1] = threads();
    late[2] = resident();
    done = true;
    for (i = 0; i <= SIGNERS; i++) pthread_join(thread[i], NULL);
    /* The parent's half signature is as whole as the children's. */
    goes_on();
    of_main += 2;
    expect("C_Finalize", p11->call[Finalize](NULL), OK);
    expect("C_Finalize of the other", other->call[Finalize](NULL), OK);
    printf("signatures %lu descriptors %ld %ld threads %ld %ld resident %ld %ld\n",
           (unsigned long)signatures + of_main, early[0], late[0], early[1], late[1], early[2],
           late[2]);
    return 0;
}
