/* A host and its signals. signals MODULE CONFIGURATION pipes COUNT, or interrupts SECONDS

   pipes: SIGPIPE ends the process, as it does in most; the service, behind the configuration,
   closes connections while large requests are written to them.
   interrupts: every thread is interrupted all the time, by a handler without SA_RESTART.
   Either way nobody's handlers and masks change. Prints how many calls were answered. */

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/wait.h>
#include <time.h>

#include "host.h"

enum { SIGNERS = 4, LARGE = 1 << 19 };

static struct list *p11;
static atomic_bool done;
static atomic_ulong calls, interruptions;

/* What the process does with each signal, and which ones this thread blocks. */
struct signals {
    struct sigaction action[65];
    sigset_t mask, pending;
};

static void look(struct signals *signals)
{
    int i;

    memset(signals, 0, sizeof *signals);
    for (i = 1; i <= 64; i++) sigaction(i, NULL, &signals->action[i]);
    pthread_sigmask(SIG_BLOCK, NULL, &signals->mask);
    sigpending(&signals->pending);
}

static void as_before(const struct signals *before)
{
    struct signals now;
    int i;

    look(&now);
    for (i = 1; i <= 64; i++) {
        const struct sigaction *was = &before->action[i], *is = &now.action[i];

        if (was->sa_handler != is->sa_handler || was->sa_flags != is->sa_flags) {
            fail("signal %d is handled by somebody else", i);
        }
        if (sigismember(&before->mask, i) != sigismember(&now.mask, i)) {
            fail("signal %d is blocked, or no longer", i);
        }
        if (sigismember(&before->pending, i) != sigismember(&now.pending, i)) {
            fail("signal %d is pending", i);
        }
    }
    if (waitpid(-1, NULL, WNOHANG) != -1 || errno != ECHILD) fail("there is a child");
}

static void pipes(int count)
{
    static unsigned char data[LARGE], out[LARGE + 16], iv[16];
    struct mechanism cbc = {AES_CBC, iv, sizeof iv};
    unsigned long session = open_session(p11, 0), key = find(p11, session, SECRET_KEY, "aes");
    unsigned long failed = 0;
    int i;

    for (i = 0; i < count; i++) {
        unsigned long length = sizeof out, rv;

        expect("C_EncryptInit", p11->call[EncryptInit](session, &cbc, key), OK);
        rv = p11->call[Encrypt](session, data, (unsigned long)LARGE, out, &length);
        if (rv == DEVICE_ERROR) failed++;
        else expect("C_Encrypt", rv, OK);
        /* Some connections are closed while nobody uses them. */
        if (i % 4 == 3) usleep(30000);
    }
    printf("answered %lu failed %lu\n", count - failed, failed);
}

static void interrupted(int signal)
{
    (void)signal;
    interruptions++;
}

static void *signer(void *unused)
{
    unsigned char random[64];

    (void)unused;
    while (!done) {
        unsigned long session = open_session(p11, 0);

        works(p11, session, "ec");
        if (find_all(p11, session) < 2) fail("keys are missing");
        expect("C_GenerateRandom", p11->call[GenerateRandom](session, random, 64UL), OK);
        expect("C_CloseSession", p11->call[CloseSession](session), OK);
        calls++;
    }
    return NULL;
}

static void interrupts(const char *configuration, int seconds)
{
    pthread_t thread[SIGNERS];
    long round;
    int i;

    for (i = 0; i < SIGNERS; i++) {
        if (pthread_create(&thread[i], NULL, signer, NULL) != 0) fail("no thread");
    }
    for (round = 0; round < seconds * 5000L; round++) {
        pthread_kill(thread[round % SIGNERS], SIGUSR1);
        usleep(100);
    }
    done = true;
    for (i = 0; i < SIGNERS; i++) pthread_join(thread[i], NULL);
    /* Files are read, connections made: the main thread interrupts itself. */
    for (i = 0; i < 20; i++) {
        expect("C_Finalize", p11->call[Finalize](NULL), OK);
        expect("C_Initialize", initialize(p11, configuration), OK);
        works(p11, open_session(p11, 0), "ec");
    }
    printf("answered %lu interrupted %lu\n", (unsigned long)calls, (unsigned long)interruptions);
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_handler = interrupted};
    struct signals before;
    timer_t timer = NULL;
    const bool storm = argc == 5 && strcmp(argv[3], "interrupts") == 0;

    if (argc != 5) return 2;
    signal(SIGPIPE, SIG_DFL);
    if (storm) {
        struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
        struct itimerspec every = {{0, 300000}, {0, 300000}};

        sigaction(SIGUSR1, &action, NULL);
        sigaction(SIGALRM, &action, NULL);
        if (timer_create(CLOCK_MONOTONIC, &event, &timer) != 0) fail("no timer");
        if (timer_settime(timer, 0, &every, NULL) != 0) fail("no timer");
    }
    look(&before);
    p11 = load(argv[1], RTLD_NOW, NULL);
    expect("C_Initialize", initialize(p11, argv[2]), OK);
    if (storm) interrupts(argv[2], atoi(argv[4]));
    else pipes(atoi(argv[4]));
    expect("C_Finalize", p11->call[Finalize](NULL), OK);
    if (storm) timer_delete(timer);
    as_before(&before);
    return 0;
}
